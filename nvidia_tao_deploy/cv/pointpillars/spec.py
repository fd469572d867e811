"""What pointpillars reads from its spec."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section

Precision = Annotated[Literal["fp32", "fp16", "bf16"], BeforeValidator(lambda value: str(value).lower())]
XYZI = ["x", "y", "z", "intensity"]
DEFAULT_AREA = [5.245, -25.983, -3.854, 79.485, 48.257, 2.908]
MASK, VOXELS = "mask_points_and_boxes_outside_range", "transform_points_to_voxels"


class TensorRT(sections.TensorRT):
    """How the engine is built."""

    data_type: Precision = Field(  # type: ignore[assignment]
        default="fp32", description="Precision of the engine, in any case; this network has no int8."
    )


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    save_engine: str | None = Field(default=None, description="Another name of trt_engine.")
    data_type: Precision | None = Field(default=None, description="Another name of tensorrt.data_type.")
    workspace_size: int | None = Field(default=None, ge=0, description="Another name of tensorrt.workspace_size.")
    tensorrt: TensorRT = Field(default_factory=TensorRT, description="How the engine is built.")

    @model_validator(mode="after")
    def _one_name(self) -> GenTrtEngine:
        self.trt_engine = self.trt_engine or self.save_engine
        for name in ("data_type", "workspace_size"):
            value = getattr(self, name)
            if value is not None and name not in self.tensorrt.model_fields_set:
                setattr(self.tensorrt, name, value)
        return self


class Evaluate(sections.Evaluate):
    """Measure a model on annotated clouds."""

    save_to_file: bool = Field(default=False, description="Write detected_labels too.")


class Inference(sections.Inference):
    """Run a model on clouds."""

    save_to_file: bool = Field(default=False, description="Write pictures beside the labels.")
    viz_conf_thresh: float = Field(default=0.1, ge=0, le=1, description="Least score in pictures.")


class Encoding(Section):
    """Which numbers of a point the network takes."""

    encoding_type: Literal["absolute_coordinates_encoding"] = Field(
        default="absolute_coordinates_encoding", description="Features are taken as they are."
    )
    used_feature_list: list[str] = Field(default=XYZI, description="Features of the network, in its order.")
    src_feature_list: list[str] = Field(default=XYZI, description="Features in the files, in their order.")

    @model_validator(mode="after")
    def _selectable(self) -> Encoding:
        for name in ("used_feature_list", "src_feature_list"):
            if getattr(self, name)[:3] != XYZI[:3]:
                raise ValueError(f"{name} must start with x, y, z")
        absent = set(self.used_feature_list) - set(self.src_feature_list)
        if absent:
            raise ValueError(f"used_feature_list has {', '.join(sorted(absent))}, src_feature_list has not")
        return self


class Augmentor(Section):
    """Holds the number of features, beside what only training reads."""

    aug_config_list: list[dict[str, Any]] | None = Field(
        default=None, description="num_point_features of the first entry is how many numbers a point has in a file."
    )


class Dataset(Section):
    """Point clouds and labels."""

    class_names: list[str] = Field(
        default=["Car", "Truck", "Van", "Tram", "Pedestrian", "Cyclist", "Misc"],
        min_length=1,
        description="Classes in the order of the model's anchors.",
    )
    data_path: str | None = sections.mandatory("Folder of the splits.")
    data_split: dict[str, str] = Field(
        default={"train": "train", "test": "val"}, description="test: the folder with lidar and label."
    )
    point_cloud_range: Annotated[list[float], Field(min_length=6, max_length=6)] = Field(
        default=DEFAULT_AREA, description="Least x, y, z, then greatest, metres."
    )
    point_feature_encoding: Encoding = Field(default_factory=Encoding, description="Numbers of a point.")
    data_processor: list[dict[str, Any]] = Field(
        default=[
            {"name": MASK},
            {
                "name": VOXELS,
                "voxel_size": [0.16, 0.16, 6.762],
                "max_points_per_voxel": 32,
                "max_number_of_voxels": {"test": 10000},
            },
        ],
        description=f"{MASK} and {VOXELS} (the model's voxel caps) count.",
    )
    data_augmentor: Augmentor = Field(default_factory=Augmentor, description="num_point_features.")

    @model_validator(mode="after")
    def _area(self) -> Dataset:
        if any(low >= high for low, high in zip(self.point_cloud_range[:3], self.point_cloud_range[3:], strict=True)):
            raise ValueError(f"point_cloud_range is empty: {self.point_cloud_range}")
        return self


class Nms(Section):
    """Suppression of boxes that overlap from above, whatever their class."""

    nms_thresh: float = Field(default=0.01, ge=0, le=1, description="IoU from which the box of less score is dropped.")
    nms_pre_max_size: int = Field(default=4096, ge=1, description="Best boxes that take part.")
    nms_post_max_size: int = Field(default=500, ge=1, description="Boxes kept at most.")


class PostProcessing(Section):
    """From the model's rows to boxes."""

    score_thresh: float = Field(default=0.1, ge=0, le=1, description="Least score; the model has one of its own.")
    nms_config: Nms = Field(default_factory=Nms, description="Suppression of boxes.")


class Model(Section):
    """What follows the model."""

    post_processing: PostProcessing = Field(default_factory=PostProcessing, description="From rows to boxes.")


class Spec(NetworkSpec):
    """Spec of pointpillars."""

    network: ClassVar[str] = "pointpillars"

    dataset: Dataset = Field(default_factory=Dataset, description="Point clouds and labels.")
    model: Model = Field(default_factory=Model, description="What follows the model.")
    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated clouds.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on clouds.")
