"""What oneformer reads from its spec."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from nvidia_tao_deploy.families.universal_spec import HalfGenTrtEngine
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList


class SemSegHead(Section):
    """The head of the network."""

    num_classes: int = Field(default=133, ge=1, description="Classes of the model, no-object left out.")


class Test(Section):
    """How instances and segments are told from queries."""

    object_mask_threshold: float = Field(default=0.4, ge=0, le=1, description="Least score of an object or segment.")
    overlap_threshold: float = Field(
        default=0.5, ge=0, le=1, description="Least share of a segment's mask that others do not cover (panoptic)."
    )
    test_topk_per_image: int = Field(default=100, ge=1, description="Most instances of an image.")


class Model(Section):
    """Facts about the trained network."""

    sem_seg_head: SemSegHead = Field(default_factory=SemSegHead, description="The head of the network.")
    test: Test = Field(default_factory=Test, description="How instances and segments are told from queries.")


class ValData(Section):
    """Data of evaluate."""

    annotations: str | None = Field(default=None, description="COCO panoptic file; for task instance, COCO instances.")
    images: str | None = Field(default=None, description="Folder of the images.")
    panoptic: str | None = Field(default=None, description="Folder of the segment PNGs; not for instances.")
    batch_size: int = Field(default=1, ge=1, description="Images per batch where evaluate sets none.")


class TestData(Section):
    """Images of inference."""

    images: StrList = Field(default=[], description="Folders, searched recursively, or images. One or a list.")
    batch_size: int = Field(default=1, ge=1, description="Images per batch where inference sets none.")


class Dataset(Section):
    """Images and labels."""

    val: ValData = Field(default_factory=ValData, description="Data of evaluate.")
    test: TestData = Field(default_factory=TestData, description="Images of inference.")
    max_seq_len: int = Field(
        default=77, ge=7, description="Tokens of the task sentence; the model's own length counts."
    )
    contiguous_id: bool = Field(
        default=True, description="Class k is the k-th category of the file, else the category with id k."
    )
    label_map: str = Field(default="", description="JSON list of {id, name, color, isthing}; needed by inference.")


class Export(Section):
    """Facts about the export."""

    task: Literal["semantic", "instance", "panoptic"] = Field(
        default="semantic", description="The task the model is asked for."
    )


class Spec(NetworkSpec):
    """Spec of oneformer."""

    network: ClassVar[str] = "oneformer"
    first_id: ClassVar[int] = 0
    """Category id of class 0, unless ids are contiguous."""

    model: Model = Field(default_factory=Model, description="Facts about the trained network.")
    dataset: Dataset = Field(default_factory=Dataset, description="Images and labels.")
    export: Export = Field(default_factory=Export, description="Facts about the export.")
    gen_trt_engine: HalfGenTrtEngine = Field(
        default_factory=HalfGenTrtEngine, description="ONNX file in, engine file out."
    )
