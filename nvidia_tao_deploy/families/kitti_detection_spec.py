"""Spec sections of the detectors with protobuf specs and KITTI labels: yolo_v3, yolo_v4, ssd, retinanet.

Messages cannot tell 0 from unset, so 0 means the default wherever 0 makes no sense.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from nvidia_tao_deploy.families.build_spec import ProtoGenTrtEngine
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.flags import THRESHOLDS
from nvidia_tao_deploy.spec.messages import enum_of, zero_means
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
Mode = Annotated[Literal["SAMPLE", "INTEGRATE"], enum_of("SAMPLE", "INTEGRATE")]


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    image_dir: StrList = Field(
        default=[], description="Folders of the images; else those of dataset_config.validation_data_sources."
    )
    label_dir: StrList = Field(
        default=[],
        description="Folders of the KITTI labels, one per folder of images; else those of "
        "dataset_config.validation_data_sources.",
    )
    batch_size: sections.BatchSize = Field(
        default=-1, description="Images per batch; -1 takes eval_config.batch_size, else 1."
    )


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = Field(
        default=[], description="Folders of the images; else those of dataset_config.validation_data_sources."
    )
    batch_size: sections.BatchSize = Field(
        default=-1, description="Images per batch; -1 takes eval_config.batch_size, else 1."
    )
    threshold: float = Field(
        default=THRESHOLDS["ssd"], ge=0, le=1, description="Detections below this score are left out."
    )


class DataSource(Section):
    """One folder of images and its labels."""

    image_directory_path: str = Field(default="", description="Folder of images, not searched recursively.")
    label_directory_path: str = Field(default="", description="Folder of KITTI labels.")
    tfrecords_path: str = Field(default="", description="Labels as tfrecords: training only, nothing here reads them.")


class DatasetConfig(Section):
    """Images, labels and classes."""

    target_class_mapping: dict[str, str] = Field(
        default={}, description="Label name to class name, in any case. Class ids follow the sorted class names."
    )
    data_sources: list[DataSource] = Field(
        default=[], description="Training data; its images serve calibration if no cal_image_dir is set."
    )
    validation_data_sources: list[DataSource] = Field(
        default=[], description="Data of evaluate, and images of inference."
    )


class AugmentationConfig(Section):
    """Preparation of images."""

    image_mean: ImageMean = Field(
        default={},
        description="Grey levels subtracted from the channels b, g and r, or l of a grey network. Empty is "
        "103.939, 116.779, 123.68, or 117.3786.",
    )


class EvalConfig(Section):
    """How boxes are matched and averaged."""

    average_precision_mode: Mode = Field(
        default="SAMPLE", description="SAMPLE: 11 points of recall; INTEGRATE: area under the curve."
    )
    batch_size: int = Field(default=0, ge=0, description="Images per batch where the action sets none; 0 is unset.")
    matching_iou_threshold: Annotated[float, zero_means(0.5), Field(gt=0, le=1)] = Field(
        default=0.5, description="Least IoU of a match; 0 means 0.5."
    )


class NmsConfig(Section):
    """Which detections count. The other thresholds of NMS are fixed in the exported model."""

    confidence_threshold: Annotated[float, zero_means(0.01), Field(gt=0, le=1)] = Field(
        default=0.01, description="Detections must score more than this; 0 means 0.01. The export's own one stays."
    )


class TrainingConfig(Section):
    """Facts about the training."""

    enable_qat: bool = Field(default=False, description="The model was trained with QAT.")


class KittiDetectionSpec(NetworkSpec):
    """Spec of a network of this family."""

    dataset_config: DatasetConfig = Field(default_factory=DatasetConfig, description="Images, labels and classes.")
    augmentation_config: AugmentationConfig = Field(
        default_factory=AugmentationConfig, description="Preparation of images."
    )
    training_config: TrainingConfig = Field(default_factory=TrainingConfig, description="Facts about the training.")
    eval_config: EvalConfig = Field(default_factory=EvalConfig, description="How boxes are matched and averaged.")
    nms_config: NmsConfig = Field(default_factory=NmsConfig, description="Which detections count.")
    gen_trt_engine: ProtoGenTrtEngine = Field(
        default_factory=ProtoGenTrtEngine, description="ONNX file in, engine file out."
    )
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
