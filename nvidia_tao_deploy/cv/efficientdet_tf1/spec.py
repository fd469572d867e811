"""What efficientdet_tf1 reads from its spec: fields of the message ``Experiment``, and the actions' sections."""

from __future__ import annotations

from nvidia_tao_deploy.families.build_spec import PROTO_BUILD
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.flags import THRESHOLDS
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    image_dir: StrList = field([], "Folders that the annotation file's names are relative to.")
    batch_size: sections.BatchSize = field(-1, "Images per batch; -1 takes eval_config.eval_batch_size, else 1.")


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = field([], "Folders of images, searched recursively, or one image.")
    class_map: str | None = field(None, "Text file, line i (from 0) names class i + 1; without it classes are numbers.")
    threshold: float = field(THRESHOLDS["efficientdet_tf1"], "Detections below this score are left out.", ge=0, le=1)
    batch_size: sections.BatchSize = field(-1, "Images per batch; -1 takes eval_config.eval_batch_size, else 1.")


class DatasetConfig(Section):
    """Annotations."""

    num_classes: int = field(0, "Classes of the model; 0 is the model's own number.", ge=0)
    validation_json_file: str = field("", "COCO annotation file of evaluate.")


class EvalConfig(Section):
    """How the model is measured."""

    eval_batch_size: int = field(0, "Images per batch where the action sets none.", ge=0)
    eval_samples: int = field(0, "Evaluate the first images only; 0 is all.", ge=0)
    max_detections_per_image: int = field(0, "Detections kept per image; 0 means 100.", ge=0)


class Spec(NetworkSpec, network="efficientdet_tf1", changes=PROTO_BUILD):
    """Spec of efficientdet_tf1."""

    dataset_config: DatasetConfig = section(DatasetConfig)
    eval_config: EvalConfig = section(EvalConfig)
    evaluate: Evaluate = section(Evaluate)
    inference: Inference = section(Inference)
