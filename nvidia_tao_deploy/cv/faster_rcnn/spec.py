"""What faster_rcnn reads from its spec: fields of the message ``Experiment``, and the actions' sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nvidia_tao_deploy.families.build_spec import PROTO_BUILD
from nvidia_tao_deploy.families.kitti_detection_spec import ImageMean, TrainingConfig
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.messages import empty_means, zero_means
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList

MANY_THRESHOLDS = 1000


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    image_dir: StrList = field([], "Folders of images; else that of dataset_config.validation_data_source.")
    label_dir: StrList = field([], "Folders of the KITTI labels, one per folder of images.")
    batch_size: sections.BatchSize = field(-1, "Images per batch; -1 takes evaluation_config.batch_size, else 1.")


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = field([], "Folders of images; else inference_config.images_dir.")
    batch_size: sections.BatchSize = field(-1, "Images per batch; -1 takes inference_config.batch_size, else 1.")


class InputImage(Section):
    """How images were prepared in training."""

    image_channel_mean: ImageMean = field(
        {},
        "Grey levels subtracted from the channels b, g and r, or l of a grey network. Empty is "
        "103.939, 116.779, 123.68, or 117.3786.",
    )
    image_scaling_factor: Annotated[float, zero_means(1.0), Field(gt=0)] = field(
        1.0, "What levels are divided by after the mean is subtracted; 0 means 1."
    )
    image_channel_order: Annotated[Literal["bgr", "rgb"], empty_means("bgr")] = field(
        "bgr", "Order of the network's channels; empty means bgr."
    )


class Model(Section):
    """Facts about the trained network."""

    input_image_config: InputImage = section(InputImage)


class DataSource(Section):
    """One folder of images."""

    image_directory_path: str = field("", "Folder of images.")


class DatasetConfig(Section):
    """Images and classes."""

    target_class_mapping: dict[str, str] = field(
        {}, "Label name to class name. Class ids follow the class names, sorted as written."
    )
    data_sources: list[DataSource] = field(
        [], "Training data; its images serve calibration if no cal_image_dir is set."
    )
    validation_data_source: DataSource = section(DataSource, "Images of evaluate.")


class Range(Section):
    """IoU thresholds from start to end, both included."""

    start: float = field(0.0, "First threshold; greater than 0.", ge=0, le=1)
    end: float = field(0.0, "Last threshold.", ge=0, le=1)
    step: float = field(0.0, "Distance of thresholds; greater than 0.", ge=0, le=1)

    @model_validator(mode="after")
    def _makes_sense(self) -> Range:
        unset = not (self.start or self.end or self.step)
        if not unset and not (0 < self.start <= self.end and self.end - self.start < MANY_THRESHOLDS * self.step):
            raise ValueError(f"{self.start:g} to {self.end:g} in steps of {self.step:g} is no range of IoU thresholds")
        return self

    @property
    def values(self) -> list[float]:
        """The thresholds; none where the range is unset."""
        if not self.step:
            return []
        count = int((self.end - self.start) / self.step + 1e-3) + 1  # the fields hold float32
        return [round(self.start + index * self.step, 6) for index in range(count)]


class EvaluationConfig(Section):
    """How boxes are matched and averaged."""

    batch_size: int = field(0, "Images per batch where evaluate sets none.", ge=0)
    object_confidence_thres: Annotated[float, zero_means(1e-4), Field(gt=0, le=1)] = field(
        1e-4, "Detections must score more than this; 0 means 0.0001."
    )
    use_voc07_11point_metric: bool = field(
        False, "Average precision of 11 points of recall; else the area under the curve."
    )
    gt_matching_iou_threshold: Annotated[float, zero_means(0.5), Field(gt=0, le=1)] = field(
        0.5, "Least IoU of a match; 0 means 0.5."
    )
    gt_matching_iou_threshold_range: Range = section(Range, "Average over these thresholds instead.")

    @property
    def iou_thresholds(self) -> list[float]:
        """The thresholds that results are averaged over."""
        return self.gt_matching_iou_threshold_range.values or [self.gt_matching_iou_threshold]


class InferenceConfig(Section):
    """Where inference reads and writes."""

    images_dir: str = field("", "Folder of images, not searched recursively.")
    batch_size: int = field(0, "Images per batch where inference sets none.", ge=0)
    bbox_visualize_threshold: float = field(0.0, "Detections below this score are left out.", ge=0, le=1)
    detection_image_output_dir: str = field("", "Folder of annotated images.")
    labels_dump_dir: str = field("", "Folder of label files.")


class Spec(NetworkSpec, network="faster_rcnn", changes=PROTO_BUILD):
    """Spec of faster_rcnn; ``model_config`` of the file is the attribute ``model``."""

    resize: Literal["letterbox", "stretch"] = field(
        "letterbox",
        "letterbox keeps the aspect ratio, as deployment always did; stretch does not, as training's own evaluation.",
    )
    model: Model = section(Model, alias="model_config")
    dataset_config: DatasetConfig = section(DatasetConfig)
    training_config: TrainingConfig = section(TrainingConfig)
    evaluation_config: EvaluationConfig = section(EvaluationConfig)
    inference_config: InferenceConfig = section(InferenceConfig)
    evaluate: Evaluate = section(Evaluate)
    inference: Inference = section(Inference)
