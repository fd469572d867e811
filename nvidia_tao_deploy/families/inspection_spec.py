"""The spec sections of networks that compare a unit with its golden image."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from nvidia_tao_deploy.families.augmentation_spec import Mean, Std
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import BatchSize, Section, lower


class PairSource(Section):
    """A table of units and the folder its files are in."""

    csv_path: str | None = field(None, "CSV with input_path, golden_path, object_name and, for evaluate, label.")
    images_dir: str | None = field(None, "Folder that the table's paths are relative to.")


class Grid(Section):
    """Arrangement of the lightings with concat_type grid."""

    x: int = field(1, "Images side by side.", ge=1)
    y: int = field(1, "Rows of images.", ge=1)


class Augmentation(Section):
    """Normalisation of images."""

    rgb_input_mean: Mean = Field(default=[0.485, 0.456, 0.406])
    rgb_input_std: Std = Field(default=[0.229, 0.224, 0.225])


class PairData(Section):
    """Tables of units and golden images, and how their images are put together."""

    train_dataset: PairSource = section(PairSource, "Pairs for INT8 calibration.")
    validation_dataset: PairSource = section(PairSource, "Pairs for INT8 calibration where there is no training table.")
    test_dataset: PairSource = section(PairSource, "Labelled pairs for evaluate; else those of infer_dataset.")
    infer_dataset: PairSource = section(PairSource, "Pairs for inference.")
    image_ext: str | None = field(None, "Suffix of the image files, like .jpg.")
    batch_size: BatchSize = field(-1, "Pairs per batch where the action sets none.")
    num_input: int | None = field(
        None, "Images per unit: 1, or as many as input_map has lightings, which null means.", ge=1
    )
    input_map: dict[str, int] | None = field(None, "Names of the lightings in their order; the numbers are not used.")
    concat_type: Annotated[Literal["linear", "grid"], BeforeValidator(lower)] | None = field(
        None, "linear: below each other; grid: as grid_map says."
    )
    grid_map: Grid | None = field(None, "Arrangement of the lightings with concat_type grid.")
    image_width: int = field(128, "Width of one image in pixels.", ge=1)
    image_height: int = field(128, "Height of one image in pixels.", ge=1)
    resize: Literal["bilinear", "antialias"] = field(
        "bilinear", "bilinear: OpenCV, as earlier deployments did; antialias: Pillow bilinear, as the trainer does."
    )
    augmentation_config: Augmentation = section(Augmentation)

    @property
    def images_per_unit(self) -> int:
        """``num_input`` where it is given, else one per lighting."""
        return self.num_input or max(len(self.input_map or ()), 1)

    @property
    def lights(self) -> tuple[str, ...]:
        """Names of the lightings that are used, in order."""
        return tuple(self.input_map or ())[: self.images_per_unit]

    @property
    def columns(self) -> int:
        """Images side by side; those of a linear arrangement stand below each other."""
        return self.grid_map.x if self.concat_type == "grid" and self.grid_map and self.images_per_unit > 1 else 1

    def problem(self) -> tuple[str, str] | None:
        """(key, what is wrong) where the images of a unit do not fit together; building an engine does not mind."""
        count, lights = self.images_per_unit, len(self.input_map or ())
        if count not in (1, max(lights, 1)):
            named = f"input_map names {lights} lightings" if lights else "input_map names no lighting"
            return "num_input", f"num_input is {count} and {named}; it must be 1 or as many"
        if self.concat_type != "grid" or count == 1:
            return None
        if self.grid_map is None:
            return "grid_map", "concat_type grid needs grid_map with x (columns) and y (rows)"
        if count % 2:
            odd = "the trainer stacks an odd number of images, which is concat_type linear"
            return "concat_type", f"concat_type grid needs an even number of images, not {count}: {odd}"
        if self.grid_map.x * self.grid_map.y != count:
            return (
                "grid_map",
                f"grid_map of {self.grid_map.x} x {self.grid_map.y} does not hold {count} images",
            )
        return None
