"""What mask_rcnn reads from its spec: fields of the message ``Experiment``, and the actions' sections."""

from __future__ import annotations

from nvidia_tao_deploy.families.build_spec import PROTO_BUILD
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.flags import THRESHOLDS
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    image_dir: StrList = field([], "Folders that the annotation file's names are relative to; else its own folder.")
    batch_size: sections.BatchSize = field(-1, "Images per batch; -1: eval_batch_size, else 1.")


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = field([], "Folders of images, searched recursively, or one image.")
    class_map: str | None = field(None, "Text file, line i (from 0) names class i + 1.")
    threshold: float = field(THRESHOLDS["mask_rcnn"], "Detections below this score are left out.", ge=0, le=1)
    include_mask: bool = field(True, "Accepted and without effect: masks are always drawn.")
    batch_size: sections.BatchSize = field(-1, "Images per batch; -1: eval_batch_size, else 1.")


class MaskRcnnConfig(Section):
    """Facts about the trained network."""

    mrcnn_resolution: int = field(0, "Cells of a mask's side; the model's own count.", ge=0)
    test_detections_per_image: int = field(0, "Detections; the model's own number counts.", ge=0)


class DataConfig(Section):
    """Annotations."""

    val_json_file: str = field("", "COCO annotation file of evaluate, with segmentations.")
    eval_samples: int = field(0, "Evaluate the first images only; 0 is all.", ge=0)
    num_classes: int = field(0, "Classes with the background; 0 is the model's own number.", ge=0)


class Spec(NetworkSpec, network="mask_rcnn", changes=PROTO_BUILD):
    """Spec of mask_rcnn."""

    maskrcnn_config: MaskRcnnConfig = section(MaskRcnnConfig)
    data_config: DataConfig = section(DataConfig)
    eval_batch_size: int = field(0, "Images per batch where the action sets none.", ge=0)
    evaluate: Evaluate = section(Evaluate)
    inference: Inference = section(Inference)
