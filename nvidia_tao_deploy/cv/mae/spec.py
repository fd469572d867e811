"""What mae reads from its spec."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


class Augmentation(Section):
    """Normalisation of calibration images."""

    mean: list[float] = Field(
        default=[0.485, 0.456, 0.406], min_length=1, max_length=3, description="Mean per channel on the scale 0..1."
    )
    std: list[Annotated[float, Field(gt=0)]] = Field(
        default=[0.229, 0.224, 0.225], min_length=1, max_length=3, description="Deviation per channel, scale 0..1."
    )


class Dataset(Section):
    """Images."""

    augmentation: Augmentation = Field(default_factory=Augmentation, description="Normalisation of calibration images.")


class Spec(NetworkSpec):
    """Spec of mae."""

    network: ClassVar[str] = "mae"

    dataset: Dataset = Field(default_factory=Dataset, description="Images.")
