"""What pointpillars reads from its spec."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nvidia_tao_deploy.families.build_spec import FloatPrecision, FloatTensorRT
from nvidia_tao_deploy.spec import sections
from nvidia_tao_deploy.spec.fields import field, section
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section

XYZI = ["x", "y", "z", "intensity"]
DEFAULT_AREA = [5.245, -25.983, -3.854, 79.485, 48.257, 2.908]
MASK, VOXELS = "mask_points_and_boxes_outside_range", "transform_points_to_voxels"


class GenTrtEngine(sections.GenTrtEngine):
    """ONNX file in, engine file out."""

    save_engine: str | None = field(None, "Another name of trt_engine.")
    data_type: FloatPrecision | None = field(None, "Another name of tensorrt.data_type.")
    workspace_size: int | None = field(None, "Another name of tensorrt.workspace_size.", ge=0)
    tensorrt: FloatTensorRT = section(FloatTensorRT)

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

    save_to_file: bool = field(False, "Write detected_labels too.")


class Inference(sections.Inference):
    """Run a model on clouds."""

    save_to_file: bool = field(False, "Write pictures beside the labels.")
    viz_conf_thresh: float = field(0.1, "Least score in pictures.", ge=0, le=1)


class Encoding(Section):
    """Which numbers of a point the network takes."""

    encoding_type: Literal["absolute_coordinates_encoding"] = field(
        "absolute_coordinates_encoding", "Features are taken as they are."
    )
    used_feature_list: list[str] = field(XYZI, "Features of the network, in its order.")
    src_feature_list: list[str] = field(XYZI, "Features in the files, in their order.")

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

    aug_config_list: list[dict[str, Any]] | None = field(
        None, "num_point_features of the first entry is how many numbers a point has in a file."
    )


class Dataset(Section):
    """Point clouds and labels."""

    class_names: list[str] = field(
        ["Car", "Truck", "Van", "Tram", "Pedestrian", "Cyclist", "Misc"],
        "Classes in the order of the model's anchors.",
        min_length=1,
    )
    data_path: str | None = sections.mandatory("Folder of the splits.")
    data_split: dict[str, str] = field({"train": "train", "test": "val"}, "test: the folder with lidar and label.")
    point_cloud_range: Annotated[list[float], Field(min_length=6, max_length=6)] = field(
        DEFAULT_AREA, "Least x, y, z, then greatest, metres."
    )
    point_feature_encoding: Encoding = section(Encoding, "Numbers of a point.")
    data_processor: list[dict[str, Any]] = field(
        [
            {"name": MASK},
            {
                "name": VOXELS,
                "voxel_size": [0.16, 0.16, 6.762],
                "max_points_per_voxel": 32,
                "max_number_of_voxels": {"test": 10000},
            },
        ],
        f"{MASK} and {VOXELS} (the model's voxel caps) count.",
    )
    data_augmentor: Augmentor = section(Augmentor, "num_point_features.")

    @model_validator(mode="after")
    def _area(self) -> Dataset:
        if any(low >= high for low, high in zip(self.point_cloud_range[:3], self.point_cloud_range[3:], strict=True)):
            raise ValueError(f"point_cloud_range is empty: {self.point_cloud_range}")
        return self


class Nms(Section):
    """Suppression of boxes that overlap from above, whatever their class."""

    nms_thresh: float = field(0.01, "IoU from which the box of less score is dropped.", ge=0, le=1)
    nms_pre_max_size: int = field(4096, "Best boxes that take part.", ge=1)
    nms_post_max_size: int = field(500, "Boxes kept at most.", ge=1)


class PostProcessing(Section):
    """From the model's rows to boxes."""

    score_thresh: float = field(0.1, "Least score; the model has one of its own.", ge=0, le=1)
    nms_config: Nms = section(Nms, "Suppression of boxes.")


class Model(Section):
    """What follows the model."""

    post_processing: PostProcessing = section(PostProcessing, "From rows to boxes.")


class Spec(NetworkSpec, network="pointpillars"):
    """Spec of pointpillars."""

    dataset: Dataset = section(Dataset)
    model: Model = section(Model)
    gen_trt_engine: GenTrtEngine = section(GenTrtEngine)
    evaluate: Evaluate = section(Evaluate)
    inference: Inference = section(Inference)
