"""What mask2former reads from its spec."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nvidia_tao_deploy.families.augmentation_spec import Mean, Std
from nvidia_tao_deploy.families.universal_spec import BUILD, Limits
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section


class SemSegHead(Section):
    """The head of the network."""

    num_classes: int = field(200, "Classes of the model.", ge=1)


class Model(Limits):
    """Facts about the trained network."""

    sem_seg_head: SemSegHead = section(SemSegHead)


class ValData(Section):
    """Data of evaluate."""

    type: str = field("ade", "ade, coco_panoptic, or anything else (coco) for COCO instances.")
    annot_file: str = field("", "ade: JSON lines with the keys img and segm.")
    root_dir: str = field("", "ade: folder that img and segm are relative to.")
    panoptic_json: str = field("", "coco_panoptic: annotation file.")
    panoptic_dir: str = field("", "coco_panoptic: folder of the segment PNGs.")
    instance_json: str = field("", "coco: annotation file.")
    img_dir: str = field("", "coco and coco_panoptic: folder of the images.")
    batch_size: int = field(1, "Images per batch where evaluate sets none.", ge=1)


class TestData(Section):
    """Images of inference."""

    img_dir: str = field("", "Folder, searched recursively, or one image.")
    batch_size: int = field(1, "Images per batch where inference sets none.", ge=1)


class Dataset(Section):
    """Images and labels."""

    val: ValData = section(ValData)
    test: TestData = section(TestData)
    pixel_mean: Mean = Field(default=[0.485, 0.456, 0.406])
    pixel_std: Std = Field(default=[0.229, 0.224, 0.225])
    label_map: str = field("", "JSON list of {id, name, color, isthing}; needed by inference.")
    contiguous_id: bool = field(False, "Class k is the k-th category of the file, else the category with id k + 1.")


class Spec(NetworkSpec, network="mask2former", changes=BUILD):
    """Spec of mask2former."""

    first_id: ClassVar[int] = 1
    """Category id of class 0, unless ids are contiguous."""

    model: Model = section(Model)
    dataset: Dataset = section(Dataset)
