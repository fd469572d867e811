"""Several images of one sample, each on its own tile of a network's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry


@dataclass(frozen=True)
class Tile:
    """Where one image goes: corner and size in pixels on an input (3, H, W), or on image ``stack`` of (N, 3, H, W).

    Attributes:
        input_name: the network's input.
        left: pixels from the left.
        top: pixels from the top.
        width: of the tile.
        height: of the tile.
        stack: index along the first axis of an input that holds several images; None: it holds one.
    """

    input_name: str
    left: int
    top: int
    width: int
    height: int
    stack: int | None = None

    def of(self, row: NDArray[Any]) -> NDArray[Any]:
        """The tile's part (3, height, width) of an input's row, as a view."""
        planes = row if self.stack is None else row[self.stack]
        return planes[:, self.top : self.top + self.height, self.left : self.left + self.width]


def tiles(input_name: str, size: tuple[int, int], count: int, columns: int = 1, stack: int | None = None) -> list[Tile]:
    """``count`` tiles of ``size`` (width, height), row after row of ``columns``; one column stacks them vertically."""
    width, height = size
    return [Tile(input_name, i % columns * width, i // columns * height, width, height, stack) for i in range(count)]


class TiledTransform:
    """Sample -> inputs of shape (3, H, W) or (N, 3, H, W): file i of the sample goes to tile i.

    Args:
        layout: one tile per file of a sample.
        shapes: shape of every input without the batch axis, as the tiles fill it.
        image: the arguments of :class:`ImageTransform`, the same for all files.
    """

    def __init__(self, layout: Sequence[Tile], shapes: Mapping[str, tuple[int, ...]], **image: Any) -> None:
        self.layout, self.shapes = list(layout), dict(shapes)
        self._images = [
            ImageTransform(**image, path_index=i, input_name=tile.input_name) for i, tile in enumerate(self.layout)
        ]

    def __call__(self, sample: Sample, out: Mapping[str, NDArray[Any]]) -> Geometry:
        """Write every file of the sample into its tile; the geometry is the first file's."""
        if len(sample.paths) != len(self.layout):
            raise DataError(f"{len(sample.paths)} files for {len(self.layout)} tiles", where=str(sample.id))
        self.check({name: array.shape for name, array in out.items()})
        found = [
            self._one(image, sample, {tile.input_name: tile.of(out[tile.input_name])})
            for image, tile in zip(self._images, self.layout, strict=True)
        ]
        return found[0]

    def check(self, shapes: Mapping[str, tuple[int | None, ...]]) -> None:
        """Compare the tiles with a model's input shapes (without batch axis); ModelError where they differ."""
        for name, expected in self.shapes.items():
            if name not in shapes or tuple(shapes[name]) != expected:
                raise ModelError(
                    f"the spec's images make input '{name}' of shape {expected}, the model's is {shapes.get(name)}",
                    remedy="Image size, number of images and concat_type must be those of the export.",
                )

    def describe(self) -> dict[str, Any]:
        constants = self._images[0].describe()
        del constants["input"]
        return {**constants, "tiles": [vars(tile) for tile in self.layout]}

    @staticmethod
    def _one(image: ImageTransform, sample: Sample, out: Mapping[str, NDArray[Any]]) -> Geometry:
        try:
            return image(sample, out)
        except DataError as error:
            if image.path_index == 0:
                raise
            # Whoever reports a skipped sample names its first file; here another one is at fault.
            name = sample.paths[image.path_index].as_posix()
            raise DataError(f"{name}: {error.what}", where=str(sample.path), remedy=error.remedy) from error
