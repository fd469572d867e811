"""What segformer reads from its spec."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from nvidia_tao_deploy.families.augmentation_spec import HalfAugmentation
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


class PaletteEntry(Section):
    """One class."""

    seg_class: str = Field(default="", description="Class name.")
    label_id: int = Field(default=0, ge=0, description="Label id: the model's channel, unless classes are merged.")
    mapping_class: str = Field(default="", description="Class it counts as; empty: itself.")
    rgb: list[Annotated[int, Field(ge=0, le=255)]] = Field(
        default=[0, 0, 0], min_length=3, max_length=3, description="Its colour in masks, and in overlays."
    )


FOREGROUND = PaletteEntry(seg_class="foreground", label_id=0, mapping_class="foreground", rgb=[0, 0, 0])
BACKGROUND = PaletteEntry(seg_class="background", label_id=1, mapping_class="background", rgb=[1, 1, 1])


def _none_as_text(value: Any) -> Any:
    return "None" if value is None or str(value).lower() in ("none", "") else str(value).lower()


class Segment(Section):
    """Images and masks: <root_dir>/images/<split> and <root_dir>/masks/<split>."""

    root_dir: str | None = sections.mandatory("Folder of images/ and masks/.")
    validation_split: str = Field(default="val", description="Folder that evaluate reads.")
    predict_split: str = Field(default="test", description="Folder that inference reads.")
    batch_size: sections.BatchSize = Field(default=-1, description="Images per batch where the action sets none.")
    palette: Annotated[
        list[PaletteEntry], BeforeValidator(lambda value: [FOREGROUND, BACKGROUND] if value is None else value)
    ] = Field(default=[FOREGROUND, BACKGROUND], min_length=1, description="The classes.")
    label_transform: Annotated[Literal["norm", "None"], BeforeValidator(_none_as_text)] = Field(
        default="norm", description="norm: mask values are divided by 255; None: they are taken as they are."
    )
    augmentation: HalfAugmentation = Field(default_factory=HalfAugmentation, description="Normalisation of images.")


class Dataset(Section):
    """Images and labels."""

    segment: Segment = Field(default_factory=Segment, description="Images and masks.")


class Evaluate(sections.Evaluate):
    """Measure a model on images and masks."""

    unmapped_labels: Literal["first_class", "ignore"] = Field(
        default="ignore", description="Mask pixels whose value no class has: not counted, or counted as train id 0."
    )


class Spec(NetworkSpec):
    """Spec of segformer."""

    network: ClassVar[str] = "segformer"

    dataset: Dataset = Field(default_factory=Dataset, description="Images and labels.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on images and masks.")
