"""What faster_rcnn reads from its spec: fields of the message ``Experiment``, and the actions' sections."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from nvidia_tao_deploy.families.kitti_detection_spec import ImageMean, TrainingConfig
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.messages import zero_means
from nvidia_tao_deploy.spec.sections import NetworkSpec, ProtoTensorRT, Section, StrList

MANY_THRESHOLDS = 1000


def _order(value: Any) -> Any:
    """Empty text is unset, as in a message."""
    return value.strip().lower() or "bgr" if isinstance(value, str) else value


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    tensorrt: ProtoTensorRT = Field(default_factory=ProtoTensorRT, description="How the engine is built.")


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    image_dir: StrList = Field(
        default=[], description="Folders of images; else that of dataset_config.validation_data_source."
    )
    label_dir: StrList = Field(default=[], description="Folders of the KITTI labels, one per folder of images.")
    batch_size: sections.BatchSize = Field(
        default=-1, description="Images per batch; -1 takes evaluation_config.batch_size, else 1."
    )


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = Field(default=[], description="Folders of images; else inference_config.images_dir.")
    batch_size: sections.BatchSize = Field(
        default=-1, description="Images per batch; -1 takes inference_config.batch_size, else 1."
    )


class InputImage(Section):
    """How images were prepared in training."""

    image_channel_mean: ImageMean = Field(
        default={},
        description="Grey levels subtracted from the channels b, g and r, or l of a grey network. Empty is "
        "103.939, 116.779, 123.68, or 117.3786.",
    )
    image_scaling_factor: Annotated[float, zero_means(1.0), Field(gt=0)] = Field(
        default=1.0, description="What levels are divided by after the mean is subtracted; 0 means 1."
    )
    image_channel_order: Annotated[Literal["bgr", "rgb"], BeforeValidator(_order)] = Field(
        default="bgr", description="Order of the network's channels; empty means bgr."
    )


class Model(Section):
    """Facts about the trained network."""

    input_image_config: InputImage = Field(
        default_factory=InputImage, description="How images were prepared in training."
    )


class DataSource(Section):
    """One folder of images."""

    image_directory_path: str = Field(default="", description="Folder of images.")


class DatasetConfig(Section):
    """Images and classes."""

    target_class_mapping: dict[str, str] = Field(
        default={}, description="Label name to class name. Class ids follow the class names, sorted as written."
    )
    data_sources: list[DataSource] = Field(
        default=[], description="Training data; its images serve calibration if no cal_image_dir is set."
    )
    validation_data_source: DataSource = Field(default_factory=DataSource, description="Images of evaluate.")


class Range(Section):
    """IoU thresholds from start to end, both included."""

    start: float = Field(default=0.0, ge=0, le=1, description="First threshold; greater than 0.")
    end: float = Field(default=0.0, ge=0, le=1, description="Last threshold.")
    step: float = Field(default=0.0, ge=0, le=1, description="Distance of thresholds; greater than 0.")

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

    batch_size: int = Field(default=0, ge=0, description="Images per batch where evaluate sets none.")
    object_confidence_thres: Annotated[float, zero_means(1e-4), Field(gt=0, le=1)] = Field(
        default=1e-4, description="Detections must score more than this; 0 means 0.0001."
    )
    use_voc07_11point_metric: bool = Field(
        default=False, description="Average precision of 11 points of recall; else the area under the curve."
    )
    gt_matching_iou_threshold: Annotated[float, zero_means(0.5), Field(gt=0, le=1)] = Field(
        default=0.5, description="Least IoU of a match; 0 means 0.5."
    )
    gt_matching_iou_threshold_range: Range = Field(
        default_factory=Range, description="Average over these thresholds instead."
    )

    @property
    def iou_thresholds(self) -> list[float]:
        """The thresholds that results are averaged over."""
        return self.gt_matching_iou_threshold_range.values or [self.gt_matching_iou_threshold]


class InferenceConfig(Section):
    """Where inference reads and writes."""

    images_dir: str = Field(default="", description="Folder of images, not searched recursively.")
    batch_size: int = Field(default=0, ge=0, description="Images per batch where inference sets none.")
    bbox_visualize_threshold: float = Field(
        default=0.0, ge=0, le=1, description="Detections below this score are left out."
    )
    detection_image_output_dir: str = Field(default="", description="Folder of annotated images.")
    labels_dump_dir: str = Field(default="", description="Folder of label files.")


class Spec(NetworkSpec):
    """Spec of faster_rcnn; ``model_config`` of the file is the attribute ``model``."""

    network: ClassVar[str] = "faster_rcnn"

    resize: Literal["letterbox", "stretch"] = Field(
        default="letterbox",
        description="letterbox keeps the aspect ratio, as deployment always did; stretch does not, as training's own "
        "evaluation.",
    )
    model: Model = Field(default_factory=Model, alias="model_config", description="Facts about the trained network.")
    dataset_config: DatasetConfig = Field(default_factory=DatasetConfig, description="Images and classes.")
    training_config: TrainingConfig = Field(default_factory=TrainingConfig, description="Facts about the training.")
    evaluation_config: EvaluationConfig = Field(
        default_factory=EvaluationConfig, description="How boxes are matched and averaged."
    )
    inference_config: InferenceConfig = Field(
        default_factory=InferenceConfig, description="Where inference reads and writes."
    )
    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
