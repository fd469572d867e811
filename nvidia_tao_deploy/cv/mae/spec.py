"""What mae reads from its spec."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nvidia_tao_deploy.families.augmentation_spec import Augmentation
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


class Dataset(Section):
    """Images."""

    augmentation: Augmentation = Field(default_factory=Augmentation, description="Normalisation of calibration images.")


class Spec(NetworkSpec):
    """Spec of mae."""

    network: ClassVar[str] = "mae"

    dataset: Dataset = Field(default_factory=Dataset, description="Images.")
