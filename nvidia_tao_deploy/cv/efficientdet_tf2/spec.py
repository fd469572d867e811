"""What efficientdet_tf2 reads from its spec."""

from __future__ import annotations

from nvidia_tao_deploy.families.build_spec import TF2_BUILD, TF2_WORKSPACE
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    batch_size: sections.BatchSize = field(8, "Images per batch.")
    num_samples: int = field(5000, "Evaluate the first images only; 0 is all.", ge=0)
    max_detections_per_image: int = field(100, "Detections kept per image, in every action.", ge=1)


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = field([], "Folders of images, searched recursively, or one image.")
    batch_size: sections.BatchSize = field(1, "Images per batch.")
    min_score_thresh: float = field(0.3, "Detections below this score are left out.", ge=0, le=1)
    label_map: str = field(
        "",
        "Names of classes: a YAML file of id: name, a text file whose line i (from 0) names class i + 1, "
        "or coco, voc, waymo. Empty: classes are numbers.",
    )


class Dataset(Section):
    """Images and labels."""

    num_classes: int = field(0, "Classes of the model; 0 is the model's own number.", ge=0)
    val_json_file: str = field("", "COCO annotation file of evaluate.")
    val_dirs: StrList = field([], "Folders that its file names are relative to, tried in order.")


class Spec(NetworkSpec, network="efficientdet_tf2", changes=TF2_BUILD):
    """Spec of efficientdet_tf2."""

    drift = (TF2_WORKSPACE,)

    dataset: Dataset = section(Dataset)
    evaluate: Evaluate = section(Evaluate)
    inference: Inference = section(Inference)
