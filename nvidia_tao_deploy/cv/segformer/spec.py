"""What segformer reads from its spec."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from nvidia_tao_deploy.families.augmentation_spec import HalfAugmentation
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


class PaletteEntry(Section):
    """One class."""

    seg_class: str = field("", "Class name.")
    label_id: int = field(0, "Label id: the model's channel, unless classes are merged.", ge=0)
    mapping_class: str = field("", "Class it counts as; empty: itself.")
    rgb: list[Annotated[int, Field(ge=0, le=255)]] = field(
        [0, 0, 0], "Its colour in masks, and in overlays.", min_length=3, max_length=3
    )


FOREGROUND = PaletteEntry(seg_class="foreground", label_id=0, mapping_class="foreground", rgb=[0, 0, 0])
BACKGROUND = PaletteEntry(seg_class="background", label_id=1, mapping_class="background", rgb=[1, 1, 1])


def _none_as_text(value: Any) -> Any:
    return "None" if value is None or str(value).lower() in ("none", "") else str(value).lower()


class Segment(Section):
    """Images and masks: <root_dir>/images/<split> and <root_dir>/masks/<split>."""

    root_dir: str | None = sections.mandatory("Folder of images/ and masks/.")
    validation_split: str = field("val", "Folder that evaluate reads.")
    predict_split: str = field("test", "Folder that inference reads.")
    batch_size: sections.BatchSize = field(-1, "Images per batch where the action sets none.")
    palette: Annotated[
        list[PaletteEntry], BeforeValidator(lambda value: [FOREGROUND, BACKGROUND] if value is None else value)
    ] = field([FOREGROUND, BACKGROUND], "The classes.", min_length=1)
    label_transform: Annotated[Literal["norm", "None"], BeforeValidator(_none_as_text)] = field(
        "norm", "norm: mask values are divided by 255; None: they are taken as they are."
    )
    augmentation: HalfAugmentation = section(HalfAugmentation)


class Dataset(Section):
    """Images and labels."""

    segment: Segment = section(Segment, "Images and masks.")


class Evaluate(sections.Evaluate):
    """Measure a model on images and masks."""

    unmapped_labels: Literal["first_class", "ignore"] = field(
        "ignore", "Mask pixels whose value no class has: not counted, or counted as train id 0."
    )


class Spec(NetworkSpec, network="segformer"):
    """Spec of segformer."""

    dataset: Dataset = section(Dataset)
    evaluate: Evaluate = section(Evaluate)
