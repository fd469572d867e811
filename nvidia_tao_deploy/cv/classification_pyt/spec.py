"""What classification_pyt reads from its spec."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nvidia_tao_deploy.families.augmentation_spec import Augmentation
from nvidia_tao_deploy.spec.sections import BatchSize, IntList, NetworkSpec, Section


class TestDataset(Section):
    """Images in one folder per class."""

    images_dir: str = Field(default="", description="Folder with one sub-folder of images per class.")


class Dataset(Section):
    """Images and labels."""

    root_dir: str = Field(default="", description="Folder that may hold classes.txt, one class per line in order.")
    test_dataset: TestDataset = Field(default_factory=TestDataset, description="Images in one folder per class.")
    batch_size: BatchSize = Field(default=8, description="Images per batch where the action sets none.")
    augmentation: Augmentation = Field(default_factory=Augmentation, description="Normalisation of images.")
    preprocess: Literal["resize", "center_crop"] = Field(
        default="resize",
        description="resize: stretched bilinearly, as the trainer does; center_crop: bicubic and cropped (+32), "
        "as earlier deployments did.",
    )


class Head(Section):
    """The classification head."""

    topk: Annotated[IntList, Field(min_length=1)] = Field(default=[1], description="k of top-k; the first one counts.")


class Model(Section):
    """Facts about the trained network."""

    head: Head = Field(default_factory=Head, description="The classification head.")


class Spec(NetworkSpec):
    """Spec of classification_pyt."""

    network: ClassVar[str] = "classification_pyt"

    model: Model = Field(default_factory=Model, description="Facts about the trained network.")
    dataset: Dataset = Field(default_factory=Dataset, description="Images and labels.")
