"""Spec sections of the detectors with protobuf specs and KITTI labels: yolo_v3, yolo_v4, ssd, retinanet.

Messages cannot tell 0 from unset, so 0 means the default wherever 0 makes no sense.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from nvidia_tao_deploy.families.build_spec import PROTO_BUILD
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.flags import THRESHOLDS
from nvidia_tao_deploy.spec.messages import AveragePrecision, zero_means
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList


def _whole_mean(mean: dict[str, float]) -> dict[str, float]:
    """A mean that lacks a channel would count as 0 there."""
    unknown = sorted(set(mean) - {"b", "g", "r", "l"})
    if unknown:
        raise ValueError(f"'{unknown[0]}' is not a channel; the keys are b, g and r, or l")
    missing = [channel for channel in "bgr" if channel not in mean]
    if missing and (len(missing) < 3 or (mean and "l" not in mean)):
        raise ValueError(f"there is no mean for channel '{missing[0]}'; give b, g and r, or l")
    return mean


ImageMean = Annotated[dict[str, float], AfterValidator(_whole_mean)]


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    image_dir: StrList = field([], "Folders of the images; else those of dataset_config.validation_data_sources.")
    label_dir: StrList = field(
        [],
        "Folders of the KITTI labels, one per folder of images; else those of dataset_config.validation_data_sources.",
    )
    batch_size: sections.BatchSize = field(-1, "Images per batch; -1 takes eval_config.batch_size, else 1.")


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = field([], "Folders of the images; else those of dataset_config.validation_data_sources.")
    batch_size: sections.BatchSize = field(-1, "Images per batch; -1 takes eval_config.batch_size, else 1.")
    threshold: float = field(THRESHOLDS["ssd"], "Detections below this score are left out.", ge=0, le=1)


class DataSource(Section):
    """One folder of images and its labels."""

    image_directory_path: str = field("", "Folder of images, not searched recursively.")
    label_directory_path: str = field("", "Folder of KITTI labels.")
    tfrecords_path: str = field("", "Labels as tfrecords: training only, nothing here reads them.")


class DatasetConfig(Section):
    """Images, labels and classes."""

    target_class_mapping: dict[str, str] = field(
        {}, "Label name to class name, in any case. Class ids follow the sorted class names."
    )
    data_sources: list[DataSource] = field(
        [], "Training data; its images serve calibration if no cal_image_dir is set."
    )
    validation_data_sources: list[DataSource] = field([], "Data of evaluate, and images of inference.")


class AugmentationConfig(Section):
    """Preparation of images."""

    image_mean: ImageMean = field(
        {},
        "Grey levels subtracted from the channels b, g and r, or l of a grey network. Empty is "
        "103.939, 116.779, 123.68, or 117.3786.",
    )


class EvalConfig(Section):
    """How boxes are matched and averaged."""

    average_precision_mode: AveragePrecision = field(
        "SAMPLE", "SAMPLE: 11 points of recall; INTEGRATE: area under the curve."
    )
    batch_size: int = field(0, "Images per batch where the action sets none; 0 is unset.", ge=0)
    matching_iou_threshold: Annotated[float, zero_means(0.5), Field(gt=0, le=1)] = field(
        0.5, "Least IoU of a match; 0 means 0.5."
    )


class NmsConfig(Section):
    """Which detections count. The other thresholds of NMS are fixed in the exported model."""

    confidence_threshold: Annotated[float, zero_means(0.01), Field(gt=0, le=1)] = field(
        0.01, "Detections must score more than this; 0 means 0.01. The export's own one stays."
    )


class TrainingConfig(Section):
    """Facts about the training."""

    enable_qat: bool = field(False, "The model was trained with QAT.")


class KittiDetectionSpec(NetworkSpec, changes=PROTO_BUILD):
    """Spec of a network of this family."""

    dataset_config: DatasetConfig = section(DatasetConfig)
    augmentation_config: AugmentationConfig = section(AugmentationConfig)
    training_config: TrainingConfig = section(TrainingConfig)
    eval_config: EvalConfig = section(EvalConfig)
    nms_config: NmsConfig = section(NmsConfig, "Which detections count.")
    evaluate: Evaluate = section(Evaluate)
    inference: Inference = section(Inference)
