"""What mae reads from its spec."""

from __future__ import annotations

from nvidia_tao_deploy.families.augmentation_spec import Augmentation
from nvidia_tao_deploy.spec.fields import section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


class Dataset(Section):
    """Images."""

    augmentation: Augmentation = section(Augmentation, "Normalisation of calibration images.")


class Spec(NetworkSpec, network="mae"):
    """Spec of mae."""

    dataset: Dataset = section(Dataset)
