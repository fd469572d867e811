"""What classification_pyt reads from its spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nvidia_tao_deploy.families.augmentation_spec import Augmentation
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import BatchSize, NetworkSpec, PositiveInts, Section


class TestDataset(Section):
    """Images in one folder per class."""

    images_dir: str = field("", "Folder with one sub-folder of images per class.")


class Dataset(Section):
    """Images and labels."""

    root_dir: str = field("", "Folder that may hold classes.txt, one class per line in order.")
    test_dataset: TestDataset = section(TestDataset)
    batch_size: BatchSize = field(8, "Images per batch where the action sets none.")
    augmentation: Augmentation = section(Augmentation)
    preprocess: Literal["resize", "center_crop"] = field(
        "resize",
        "resize: stretched bilinearly, as the trainer does; center_crop: bicubic and cropped (+32), "
        "as earlier deployments did.",
    )


class Head(Section):
    """The classification head."""

    topk: Annotated[PositiveInts, Field(min_length=1)] = field([1], "k of top-k; the first one counts.")


class Model(Section):
    """Facts about the trained network."""

    head: Head = section(Head)


class Spec(NetworkSpec, network="classification_pyt"):
    """Spec of classification_pyt."""

    model: Model = section(Model)
    dataset: Dataset = section(Dataset)
