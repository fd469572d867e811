"""What detectnet_v2 reads from its spec: fields of the messages ``Experiment`` and ``Inference``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from nvidia_tao_deploy.families.build_spec import ProtoGenTrtEngine
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.messages import enum_of, zero_means
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList

Fraction = Annotated[float, Field(ge=0, le=1)]


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    image_dir: StrList = Field(default=[], description="Folders of the images. One folder or a list.")
    label_dir: StrList = Field(default=[], description="Folders of the KITTI labels, one per folder of images.")


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = Field(default=[], description="Folders of the images. One folder or a list.")


class Clustering(Section):
    """How cells become boxes."""

    coverage_threshold: Fraction = Field(default=0.0, description="Cells must have more coverage than this.")
    clustering_algorithm: Annotated[Literal["DBSCAN", "NMS", "HYBRID"], enum_of("DBSCAN", "NMS", "HYBRID")] = Field(
        default="DBSCAN", description="How cells become boxes."
    )
    dbscan_eps: float = Field(default=0.0, ge=0, description="Largest distance (1 - IoU) of neighbours.")
    dbscan_min_samples: int = Field(default=0, ge=0, description="Summed coverage that makes a core point.")
    dbscan_confidence_threshold: float = Field(default=0.0, ge=0, description="Least summed coverage of a box.")
    minimum_bounding_box_height: int = Field(default=0, ge=0, description="Boxes must be taller than this, in pixels.")
    nms_iou_threshold: Fraction = Field(default=0.0, description="Overlap above which NMS suppresses; 0 means 0.3.")
    nms_confidence_threshold: float = Field(default=0.0, ge=0, description="Least coverage after NMS; 0 means 0.1.")

    @model_validator(mode="after")
    def _eps_is_a_distance(self) -> Clustering:
        if self.clustering_algorithm != "NMS" and self.dbscan_eps > 1:
            raise ValueError(f"dbscan_eps is {self.dbscan_eps}, but distances lie in 0..1")
        return self


class TargetClassPostprocessing(Section):
    """Clustering of one class."""

    clustering_config: Clustering = Field(default_factory=Clustering, description="How cells become boxes.")


class Postprocessing(Section):
    """Clustering by class, for evaluate."""

    target_class_config: dict[str, TargetClassPostprocessing] = Field(
        default={}, description="By class name; 'default' serves the classes without an entry."
    )


class BboxColor(Section):
    """A colour."""

    R: int = Field(default=0, ge=0, le=255, description="Red.")
    G: int = Field(default=0, ge=0, le=255, description="Green.")
    B: int = Field(default=0, ge=0, le=255, description="Blue.")


class ClasswiseBboxHandler(Section):
    """Clustering and colour of one class."""

    clustering_config: Clustering = Field(default_factory=Clustering, description="How cells become boxes.")
    bbox_color: BboxColor | None = Field(default=None, description="Colour of the boxes; null is green.")


class BboxHandler(Section):
    """Clustering and drawing by class, for inference."""

    classwise_bbox_handler_config: dict[str, ClasswiseBboxHandler] = Field(
        default={}, description="By class name; 'default' serves the classes without an entry."
    )


class Inferencer(Section):
    """Classes and batch of inference."""

    target_classes: StrList = Field(default=[], description="Class names in channel order.")
    batch_size: int = Field(default=0, ge=0, description="Images per batch; 0 is unset.")


class DataSource(Section):
    """One folder of training images."""

    image_directory_path: str = Field(default="", description="Folder of images; serves calibration if none is set.")


class DatasetConfig(Section):
    """Images and labels."""

    data_sources: list[DataSource] = Field(default=[], description="Folders of training images.")
    target_class_mapping: dict[str, str] = Field(default={}, description="Label name to class name.")


class TargetClass(Section):
    """One class."""

    name: str = Field(default="", description="Class name.")


class CostFunction(Section):
    """The classes of evaluate."""

    target_classes: list[TargetClass] = Field(default=[], description="Classes in channel order.")


class EvaluationBox(Section):
    """Sizes of boxes that count; 0 is no limit."""

    minimum_height: int = Field(default=0, ge=0, description="Least height in pixels.")
    maximum_height: int = Field(default=0, ge=0, description="Greatest height in pixels.")
    minimum_width: int = Field(default=0, ge=0, description="Least width in pixels.")
    maximum_width: int = Field(default=0, ge=0, description="Greatest width in pixels.")


class Evaluation(Section):
    """How boxes are matched and averaged."""

    minimum_detection_ground_truth_overlap: dict[str, Fraction] = Field(
        default={}, description="Least IoU of a match by class name; 0.5 where none is given."
    )
    average_precision_mode: Annotated[Literal["SAMPLE", "INTEGRATE"], enum_of("SAMPLE", "INTEGRATE")] = Field(
        default="SAMPLE", description="SAMPLE: 11 points of recall; INTEGRATE: area under the curve."
    )
    evaluation_box_config: dict[str, EvaluationBox] = Field(
        default={}, description="Sizes of boxes that count, by class name."
    )


class BboxObjective(Section):
    """How box offsets are encoded."""

    scale: Annotated[float, zero_means(35.0), Field(gt=0)] = Field(
        default=35.0, description="Factor of the offsets; 0 means 35."
    )
    offset: Annotated[float, zero_means(0.5)] = Field(default=0.5, description="Centre of a cell; 0 means 0.5.")


class ObjectiveSet(Section):
    """Outputs of the network."""

    bbox: BboxObjective = Field(default_factory=BboxObjective, description="How box offsets are encoded.")


class Model(Section):
    """Facts about the trained network."""

    objective_set: ObjectiveSet = Field(default_factory=ObjectiveSet, description="Outputs of the network.")


class Training(Section):
    """Facts about the training."""

    batch_size_per_gpu: int = Field(
        default=0, ge=0, description="Batch of evaluate if nothing else sets it; 0 is unset."
    )
    enable_qat: bool = Field(default=False, description="The model was trained with QAT.")


class Spec(NetworkSpec):
    """Spec of detectnet_v2; ``model_config`` of the file is the attribute ``model``, as pydantic keeps that name."""

    network: ClassVar[str] = "detectnet_v2"

    dataset_config: DatasetConfig = Field(default_factory=DatasetConfig, description="Images and labels.")
    model: Model = Field(default_factory=Model, alias="model_config", description="Facts about the trained network.")
    training_config: Training = Field(default_factory=Training, description="Facts about the training.")
    cost_function_config: CostFunction = Field(default_factory=CostFunction, description="The classes of evaluate.")
    postprocessing_config: Postprocessing = Field(
        default_factory=Postprocessing, description="Clustering by class, for evaluate."
    )
    evaluation_config: Evaluation = Field(default_factory=Evaluation, description="How boxes are matched and averaged.")
    inferencer_config: Inferencer = Field(default_factory=Inferencer, description="Classes and batch of inference.")
    bbox_handler_config: BboxHandler = Field(
        default_factory=BboxHandler, description="Clustering and drawing by class, for inference."
    )
    gen_trt_engine: ProtoGenTrtEngine = Field(
        default_factory=ProtoGenTrtEngine, description="ONNX file in, engine file out."
    )
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
