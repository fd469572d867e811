"""What mask2former reads from its spec."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nvidia_tao_deploy.families.augmentation_spec import Mean, Std
from nvidia_tao_deploy.families.universal_spec import GenTrtEngine
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


class SemSegHead(Section):
    """The head of the network."""

    num_classes: int = Field(default=200, ge=1, description="Classes of the model.")


class Model(Section):
    """Facts about the trained network."""

    sem_seg_head: SemSegHead = Field(default_factory=SemSegHead, description="The head of the network.")
    object_mask_threshold: float = Field(default=0.4, ge=0, le=1, description="Least score of an object or segment.")
    overlap_threshold: float = Field(
        default=0.5, ge=0, le=1, description="Least share of a segment's mask that others do not cover (panoptic)."
    )


class ValData(Section):
    """Data of evaluate."""

    type: str = Field(default="ade", description="ade, coco_panoptic, or anything else (coco) for COCO instances.")
    annot_file: str = Field(default="", description="ade: JSON lines with the keys img and segm.")
    root_dir: str = Field(default="", description="ade: folder that img and segm are relative to.")
    panoptic_json: str = Field(default="", description="coco_panoptic: annotation file.")
    panoptic_dir: str = Field(default="", description="coco_panoptic: folder of the segment PNGs.")
    instance_json: str = Field(default="", description="coco: annotation file.")
    img_dir: str = Field(default="", description="coco and coco_panoptic: folder of the images.")
    batch_size: int = Field(default=1, ge=1, description="Images per batch where evaluate sets none.")


class TestData(Section):
    """Images of inference."""

    img_dir: str = Field(default="", description="Folder, searched recursively, or one image.")
    batch_size: int = Field(default=1, ge=1, description="Images per batch where inference sets none.")


class Dataset(Section):
    """Images and labels."""

    val: ValData = Field(default_factory=ValData, description="Data of evaluate.")
    test: TestData = Field(default_factory=TestData, description="Images of inference.")
    pixel_mean: Mean = Field(default=[0.485, 0.456, 0.406])
    pixel_std: Std = Field(default=[0.229, 0.224, 0.225])
    label_map: str = Field(default="", description="JSON list of {id, name, color, isthing}; needed by inference.")
    contiguous_id: bool = Field(
        default=False, description="Class k is the k-th category of the file, else the category with id k + 1."
    )


class Spec(NetworkSpec):
    """Spec of mask2former."""

    network: ClassVar[str] = "mask2former"
    first_id: ClassVar[int] = 1
    """Category id of class 0, unless ids are contiguous."""

    model: Model = Field(default_factory=Model, description="Facts about the trained network.")
    dataset: Dataset = Field(default_factory=Dataset, description="Images and labels.")
    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
