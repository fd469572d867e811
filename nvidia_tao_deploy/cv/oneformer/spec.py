"""What oneformer reads from its spec."""

from __future__ import annotations

from typing import ClassVar, Literal

from nvidia_tao_deploy.families.universal_spec import HALF_BUILD, Limits
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList


class SemSegHead(Section):
    """The head of the network."""

    num_classes: int = field(133, "Classes of the model, no-object left out.", ge=1)


class Test(Limits):
    """How instances and segments are told from queries."""

    test_topk_per_image: int = field(100, "Most instances of an image.", ge=1)


class Model(Section):
    """Facts about the trained network."""

    sem_seg_head: SemSegHead = section(SemSegHead)
    test: Test = section(Test)


class ValData(Section):
    """Data of evaluate."""

    annotations: str | None = field(None, "COCO panoptic file; for task instance, COCO instances.")
    images: str | None = field(None, "Folder of the images.")
    panoptic: str | None = field(None, "Folder of the segment PNGs; not for instances.")
    batch_size: int = field(1, "Images per batch where evaluate sets none.", ge=1)


class TestData(Section):
    """Images of inference."""

    images: StrList = field([], "Folders, searched recursively, or images. One or a list.")
    batch_size: int = field(1, "Images per batch where inference sets none.", ge=1)


class Dataset(Section):
    """Images and labels."""

    val: ValData = section(ValData)
    test: TestData = section(TestData)
    max_seq_len: int = field(77, "Tokens of the task sentence; the model's own length counts.", ge=7)
    contiguous_id: bool = field(True, "Class k is the k-th category of the file, else the category with id k.")
    label_map: str = field("", "JSON list of {id, name, color, isthing}; needed by inference.")


class Export(Section):
    """Facts about the export."""

    task: Literal["semantic", "instance", "panoptic"] = field("semantic", "The task the model is asked for.")


class Spec(NetworkSpec, network="oneformer", changes=HALF_BUILD):
    """Spec of oneformer."""

    first_id: ClassVar[int] = 0
    """Category id of class 0, unless ids are contiguous."""

    model: Model = section(Model)
    dataset: Dataset = section(Dataset)
    export: Export = section(Export)
