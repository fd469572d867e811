"""What detectnet_v2 reads from its spec: fields of the messages ``Experiment`` and ``Inference``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nvidia_tao_deploy.families.build_spec import PROTO_BUILD
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.messages import AveragePrecision, enum_of, zero_means
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, StrList

Fraction = Annotated[float, Field(ge=0, le=1)]


class Evaluate(sections.Evaluate):
    """Measure a model on annotated data."""

    image_dir: StrList = field([], "Folders of the images, not searched recursively. One or a list.")
    label_dir: StrList = field([], "Folders of the KITTI labels, one per folder of images.")


class Inference(sections.Inference):
    """Run a model on images."""

    image_dir: StrList = field([], "Folders of the images, not searched recursively. One or a list.")


class Clustering(Section):
    """How cells become boxes."""

    # DBSCAN merges cells, NMS picks among them, HYBRID picks among the cells of DBSCAN's clusters.

    coverage_threshold: Fraction = field(0.0, "Cells must have more coverage than this.")
    clustering_algorithm: Annotated[Literal["DBSCAN", "NMS", "HYBRID"], enum_of("DBSCAN", "NMS", "HYBRID")] = field(
        "DBSCAN", "How cells become boxes."
    )
    dbscan_eps: float = field(0.0, "Largest distance (1 - IoU) of neighbours.", ge=0)
    dbscan_min_samples: int = field(0, "Summed coverage that makes a core point.", ge=0)
    dbscan_confidence_threshold: float = field(0.0, "Least summed coverage of a box.", ge=0)
    minimum_bounding_box_height: int = field(0, "Boxes must be taller than this, in pixels.", ge=0)
    nms_iou_threshold: Fraction = field(0.0, "Overlap above which NMS suppresses; 0 means 0.3.")
    nms_confidence_threshold: float = field(0.0, "Least coverage after NMS; 0 means 0.1.", ge=0)

    @model_validator(mode="after")
    def _eps_is_a_distance(self) -> Clustering:
        if self.clustering_algorithm != "NMS" and self.dbscan_eps > 1:
            raise ValueError(f"dbscan_eps is {self.dbscan_eps}, but distances lie in 0..1")
        return self


class TargetClassPostprocessing(Section):
    """Clustering of one class."""

    clustering_config: Clustering = section(Clustering)


class Postprocessing(Section):
    """Clustering by class, for evaluate."""

    target_class_config: dict[str, TargetClassPostprocessing] = field(
        {}, "By class name; 'default' serves the classes without an entry."
    )


class BboxColor(Section):
    """A colour."""

    R: int = field(0, "Red.", ge=0, le=255)
    G: int = field(0, "Green.", ge=0, le=255)
    B: int = field(0, "Blue.", ge=0, le=255)


class ClasswiseBboxHandler(Section):
    """Clustering and colour of one class."""

    clustering_config: Clustering = section(Clustering)
    bbox_color: BboxColor | None = field(None, "Colour of the boxes; null is green.")


class BboxHandler(Section):
    """Clustering and drawing by class, for inference."""

    classwise_bbox_handler_config: dict[str, ClasswiseBboxHandler] = field(
        {}, "By class name; 'default' serves the classes without an entry."
    )


class Inferencer(Section):
    """Classes and batch of inference."""

    target_classes: StrList = field([], "Class names in channel order.")
    batch_size: int = field(0, "Images per batch; 0 is unset.", ge=0)


class DataSource(Section):
    """One folder of training images."""

    image_directory_path: str = field("", "Folder of images; serves calibration if none is set.")


class DatasetConfig(Section):
    """Images and labels."""

    data_sources: list[DataSource] = field([], "Folders of training images.")
    target_class_mapping: dict[str, str] = field({}, "Label name to class name.")


class TargetClass(Section):
    """One class."""

    name: str = field("", "Class name.")


class CostFunction(Section):
    """The classes of evaluate."""

    target_classes: list[TargetClass] = field([], "Classes in channel order.")


class EvaluationBox(Section):
    """Sizes of boxes that count; 0 is no limit."""

    minimum_height: int = field(0, "Least height in pixels.", ge=0)
    maximum_height: int = field(0, "Greatest height in pixels.", ge=0)
    minimum_width: int = field(0, "Least width in pixels.", ge=0)
    maximum_width: int = field(0, "Greatest width in pixels.", ge=0)


class Evaluation(Section):
    """How boxes are matched and averaged."""

    minimum_detection_ground_truth_overlap: dict[str, Fraction] = field(
        {}, "Least IoU of a match by class name; 0.5 where none is given."
    )
    average_precision_mode: AveragePrecision = field(
        "SAMPLE", "SAMPLE: 11 points of recall; INTEGRATE: area under the curve."
    )
    evaluation_box_config: dict[str, EvaluationBox] = field({}, "Sizes of boxes that count, by class name.")


class BboxObjective(Section):
    """How box offsets are encoded."""

    scale: Annotated[float, zero_means(35.0), Field(gt=0)] = field(35.0, "Factor of the offsets; 0 means 35.")
    offset: Annotated[float, zero_means(0.5)] = field(0.5, "Centre of a cell; 0 means 0.5.")


class ObjectiveSet(Section):
    """Outputs of the network."""

    bbox: BboxObjective = section(BboxObjective)


class Model(Section):
    """Facts about the trained network."""

    objective_set: ObjectiveSet = section(ObjectiveSet)


class Training(Section):
    """Facts about the training."""

    batch_size_per_gpu: int = field(0, "Batch of evaluate if nothing else sets it; 0 is unset.", ge=0)
    enable_qat: bool = field(False, "The model was trained with QAT.")


class Spec(NetworkSpec, network="detectnet_v2", changes=PROTO_BUILD):
    """Spec of detectnet_v2; ``model_config`` of the file is the attribute ``model``, as pydantic keeps that name."""

    dataset_config: DatasetConfig = section(DatasetConfig)
    model: Model = section(Model, alias="model_config")
    training_config: Training = section(Training)
    cost_function_config: CostFunction = section(CostFunction)
    postprocessing_config: Postprocessing = section(Postprocessing)
    evaluation_config: Evaluation = section(Evaluation)
    inferencer_config: Inferencer = section(Inferencer)
    bbox_handler_config: BboxHandler = section(BboxHandler)
    evaluate: Evaluate = section(Evaluate)
    inference: Inference = section(Inference)
