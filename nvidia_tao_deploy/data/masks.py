"""Mask files: what their pixels mean, and images paired with their masks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.folder import common_root, relative_id
from nvidia_tao_deploy.data.image import SUFFIXES, list_images
from nvidia_tao_deploy.data.sample import Listed, Sample
from nvidia_tao_deploy.data.text import counted, read_lines, some
from nvidia_tao_deploy.errors import DataError

IGNORE = 0xFFFF
"""The label of pixels that do not count."""

Rgb = tuple[int, int, int]
_GREY_VALUES = 0x10000
_UNMAPPED = 0xFFFE


@dataclass(frozen=True)
class Truth:
    """The labels of one image.

    Attributes:
        labels: (h, w) uint16 class indices in source pixels; ``IGNORE`` does not count.
        unmapped: pixels whose value no class has, by the value as text.
    """

    labels: NDArray[np.uint16]
    unmapped: Mapping[str, int]


def read_mask(path: Path, palette: Literal["indices", "colors"] = "indices") -> NDArray[Any]:
    """A mask's pixels: (h, w) grey values 0..65535, or (h, w, 3) uint8 colours; alpha is dropped.

    Args:
        path: an image file.
        palette: what the pixels of a file with a palette are.

    Raises:
        DataError: the file is missing, broken, or of floating-point values.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode == "P" and palette == "indices":
                return np.asarray(image)
            if image.mode in ("1", "L", "LA", "La"):
                return np.asarray(image.convert("L"))
            if image.mode.startswith("I"):
                return np.asarray(image).astype(np.int64)
            if image.mode != "F":
                return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise DataError("no such mask", where=str(path)) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot decode mask: {error}", where=str(path), remedy="The file is corrupt or no image; replace it."
        ) from error
    raise DataError("a mask of floating-point values has no classes", where=str(path))


class MaskCodes:
    """Mask pixels -> class indices.

    Args:
        grey: grey value -> class index, for masks of one channel.
        colors: (R, G, B) -> class index, for colour masks; empty: colour masks whose channels agree are grey.
        divisor: grey values and channels are divided by this first, the fraction dropped.
        unmapped: class index of pixels whose value no class has; ``IGNORE``: they do not count.
        ignored: grey values that mean "does not count" and are not worth a word.
        expand_palette: match the colours of files with a palette instead of their indices.
    """

    def __init__(
        self,
        grey: Mapping[int, int],
        colors: Mapping[Rgb, int] | None = None,
        *,
        divisor: int = 1,
        unmapped: int = IGNORE,
        ignored: Collection[int] = (),
        expand_palette: bool = False,
    ) -> None:
        self.divisor, self.unmapped, self._expand = divisor, unmapped, expand_palette
        self._grey = np.full(_GREY_VALUES, _UNMAPPED, np.uint16)
        for value, index in {**dict.fromkeys(ignored, IGNORE), **grey}.items():
            if 0 <= value < _GREY_VALUES:
                self._grey[value] = index
        self._colors = dict(colors or {})
        # among colours, black is a colour; where all classes are grey, a grey pixel of a colour file is its value
        self._chromatic = any(len(set(color)) > 1 for color in self._colors)
        self._by_color: NDArray[np.uint16] | None = None

    def read(self, path: Path, size: tuple[int, int]) -> Truth:
        """The labels of a mask file.

        Raises:
            DataError: the file cannot be read, is not of ``size`` (width, height), or no pixel has a class's colour.
        """
        pixels = read_mask(path, "colors" if self._expand else "indices")
        if pixels.shape[1::-1] != size:
            raise DataError(
                f"the mask has {pixels.shape[1]} x {pixels.shape[0]} pixels, its image {size[0]} x {size[1]}",
                where=str(path),
                remedy="Image and mask must be of one size; check that they belong together.",
            )
        if pixels.ndim == 3 and not self._chromatic:
            first = pixels[..., :1]
            if (pixels == first).all():
                pixels = pixels[..., 0]
            elif not self._colors:
                raise DataError(
                    "the mask is a colour picture, and classes are told by grey values",
                    where=str(path),
                    remedy="Save masks with one channel that holds the label ids.",
                )
        return self._of_grey(pixels) if pixels.ndim == 2 else self._of_colors(pixels, path)

    def _of_grey(self, pixels: NDArray[Any]) -> Truth:
        values = pixels if self.divisor == 1 else pixels // self.divisor
        outside = None
        if values.dtype != np.uint8:
            outside = (values < 0) | (values >= _GREY_VALUES)
            values = np.where(outside, 0, values)
        labels = self._grey.take(values)
        if outside is not None:
            labels[outside] = _UNMAPPED
        return self._finish(labels, pixels)

    def _of_colors(self, pixels: NDArray[Any], path: Path) -> Truth:
        values = pixels if self.divisor == 1 else pixels // np.uint8(self.divisor)
        wide = values.astype(np.uint32)
        codes = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
        labels = self._color_table().take(codes)
        if (labels == _UNMAPPED).all():
            raise DataError(
                f"no pixel has the colour of a class; pixels are {_named(codes.ravel(), color=True)}, "
                f"classes are {some(self._colors)}",
                where=str(path),
                remedy="Check the rgb values of the class list.",
            )
        return self._finish(labels, codes, color=True)

    def _color_table(self) -> NDArray[np.uint16]:
        """Class index by colour code; made for the first colour mask (a search takes ten times as long per pixel)."""
        if self._by_color is None:
            self._by_color = np.full(1 << 24, _UNMAPPED, np.uint16)
            for color, index in self._colors.items():
                self._by_color[_color_code(color)] = index
        return self._by_color

    def _finish(self, labels: NDArray[np.uint16], values: NDArray[Any], *, color: bool = False) -> Truth:
        strange = labels == _UNMAPPED
        if not strange.any():
            return Truth(labels, {})
        counts = _counted(values[strange], color=color)
        labels[strange] = self.unmapped
        return Truth(labels, counts)


@dataclass(frozen=True)
class MaskFile:
    """A mask file as target."""

    path: Path
    codes: MaskCodes

    def load(self, size: tuple[int, int]) -> Truth:
        """The labels; see :meth:`MaskCodes.read`."""
        return self.codes.read(self.path, size)


class MaskPairs(Listed):
    """Images and their masks; targets are :class:`MaskFile`.

    Args:
        pairs: (image, mask), in order.
        codes: what mask pixels mean.
        issues: what the reader should know of the files.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]], codes: MaskCodes, issues: Sequence[str] = ()) -> None:
        root = common_root(list(dict.fromkeys(image.parent for image, _ in pairs)))
        samples = (Sample(relative_id(image, root), (image,), MaskFile(mask, codes)) for image, mask in pairs)
        super().__init__(samples, root, issues)


class ListedImages(Listed):
    """Image files named by folders (not searched recursively, sorted) and list files, without targets."""

    def __init__(self, sources: Sequence[Path | str]) -> None:
        paths = list(dict.fromkeys(path for source in sources for path in image_files(source)))
        root = common_root(list(dict.fromkeys(path.parent for path in paths)))
        super().__init__((Sample(relative_id(path, root), (path,)) for path in paths), root)


def is_list(source: Path | str) -> bool:
    """Whether a source is a text file with one path per line."""
    return str(source).lower().endswith(".txt")


def image_files(source: Path | str) -> list[Path]:
    """The files of a list (in its order; relative paths from the working directory, else beside the list) or folder.

    Raises:
        DataError: the list or folder is missing, names no file, or names one that is no image by its suffix.
    """
    if not is_list(source):
        return list_images(source, recursive=False)
    listing = Path(source)
    names = [line.strip() for line in read_lines(listing)]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DataError("the list names no file", where=str(source), remedy="Write one path per line.")
    for number, name in enumerate(names, start=1):
        if os.path.splitext(name)[1].lower() not in SUFFIXES:
            # left out on one side alone, it would shift every pair after it
            raise DataError(
                f"'{name}' is no image: suffixes are {' '.join(sorted(SUFFIXES))}", where=f"{source}:{number}"
            )
    paths = [Path(os.path.abspath(name)) for name in names]
    beside = [Path(os.path.abspath(listing.parent / name)) for name in names]
    return [b if not p.is_file() and b.is_file() else p for p, b in zip(paths, beside, strict=True)]


def paired(
    sources: Sequence[tuple[Path | str, Path | str]], *, strict: bool = False
) -> tuple[list[tuple[Path, Path]], list[str]]:
    """(image, mask) pairs and issues of (images, masks) sources: line by line for two lists, else by file stem.

    Raises:
        DataError: lists of unequal length, an image without mask, or several files of one stem.
    """
    pairs: list[tuple[Path, Path]] = []
    issues: list[str] = []
    for images, masks in sources:
        image_paths, mask_paths = image_files(images), image_files(masks)
        if is_list(images) and is_list(masks):
            if len(image_paths) != len(mask_paths):
                raise DataError(
                    f"{counted(len(image_paths), 'images are listed')}, and {len(mask_paths)} masks in {masks}",
                    where=str(images),
                    remedy="Line n of one list belongs to line n of the other.",
                )
            pairs += zip(image_paths, mask_paths, strict=True)
            continue
        by_stem = _by_stem(mask_paths, masks)
        wanted = _by_stem(image_paths, images)
        without = [path.name for stem, path in wanted.items() if stem not in by_stem]
        if without:
            raise DataError(
                f"{len(without)} of {len(wanted)} images have no mask in {masks}: {some(without)}",
                where=str(images),
                remedy="A mask has the name of its image, whatever its suffix.",
            )
        spare = [path.name for stem, path in by_stem.items() if stem not in wanted]
        if spare:
            issues.append(f"{counted(len(spare), 'masks have no image')} in {images}: {some(spare)}")
        pairs += [(path, by_stem[stem]) for stem, path in wanted.items()]
    return existing(pairs, issues, strict), issues


def existing(pairs: list[tuple[Path, Path]], issues: list[str], strict: bool) -> list[tuple[Path, Path]]:
    """The (image, mask) pairs of which both files are there; images that are not go into ``issues``.

    Raises:
        DataError: a mask is missing beside its image, every image is, or (``strict``) one is.
    """
    lost = [mask for image, mask in pairs if image.is_file() and not mask.is_file()]
    if lost:
        raise DataError(f"{counted(len(lost), 'masks do not exist')}: {some(lost)}", remedy="Check the list of masks.")
    missing = [image for image, _ in pairs if not image.is_file()]
    if missing:
        what = f"{len(missing)} of {len(pairs)} images do not exist: {some(missing)}"
        if strict or len(missing) == len(pairs):
            raise DataError(what, remedy="Check the list of images.")
        issues.append(f"{what} (skipped)")
    return [(image, mask) for image, mask in pairs if image.is_file()]


def _by_stem(paths: Sequence[Path], source: Path | str) -> dict[str, Path]:
    twice = [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]
    if twice:
        raise DataError(
            f"several files have one name but for the suffix, so masks cannot be told apart: {some(twice)}",
            where=str(source),
        )
    return {path.stem: path for path in paths}


def _color_code(color: Rgb) -> int:
    return (color[0] << 16) | (color[1] << 8) | color[2]


def _counted(values: NDArray[Any], *, color: bool) -> dict[str, int]:
    found, counts = np.unique(values, return_counts=True)
    return {_value_name(int(v), color): int(c) for v, c in zip(found, counts, strict=True)}


def _named(values: NDArray[Any], *, color: bool) -> str:
    counts = Counter(_counted(values, color=color))
    return some(name for name, _ in counts.most_common())


def _value_name(value: int, color: bool) -> str:
    return f"({value >> 16}, {(value >> 8) & 0xFF}, {value & 0xFF})" if color else str(value)
