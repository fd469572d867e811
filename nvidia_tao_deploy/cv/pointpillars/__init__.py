"""pointpillars: cuboids in LiDAR point clouds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.pointpillars.spec import MASK, VOXELS, Spec
from nvidia_tao_deploy.data.point_cloud import PointClouds, PointFormat
from nvidia_tao_deploy.data.sample import Dataset, Sample
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families.images import batch_size
from nvidia_tao_deploy.metrics.kitti_3d import Kitti3dMetric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports, expect
from nvidia_tao_deploy.predictions.cloud_boxes import decode_cloud_boxes
from nvidia_tao_deploy.predictions.cloud_writer import CloudWriter, label_file, label_lines
from nvidia_tao_deploy.predictions.types import CloudBoxes
from nvidia_tao_deploy.transforms.points import PointTransform, VoxelCaps


def point_format(spec: Spec) -> PointFormat:
    """How the spec says that files are read."""
    encoding = spec.dataset.point_feature_encoding
    key = "dataset.data_augmentor.aug_config_list"
    given = (entry["num_point_features"] for entry in spec.get(key) or () if "num_point_features" in entry)
    features = next(given, len(encoding.src_feature_list))
    if not isinstance(features, int):
        raise SpecError(f"num_point_features is {features!r}, no whole number", where=spec.where(key))
    if features < len(encoding.src_feature_list):
        raise SpecError(
            f"src_feature_list names {len(encoding.src_feature_list)} features, num_point_features is {features}",
            where=spec.where("dataset.point_feature_encoding.src_feature_list"),
        )
    return PointFormat(features, tuple(encoding.src_feature_list.index(name) for name in encoding.used_feature_list))


def voxel_caps(spec: Spec) -> VoxelCaps | None:
    """The model's voxel caps, if the spec has them; SpecError where their entry is not complete."""
    for entry in spec.dataset.data_processor:
        if entry.get("name") == VOXELS:
            try:
                wide, deep, high = (float(side) for side in entry["voxel_size"])
                caps = int(entry["max_points_per_voxel"]), int(entry["max_number_of_voxels"]["test"])
                if min(wide, deep, high, *caps) <= 0:
                    raise ValueError("not above 0")
            except (KeyError, TypeError, ValueError) as error:
                raise SpecError(
                    f"{VOXELS} needs voxel_size (three sides), max_points_per_voxel and max_number_of_voxels.test "
                    f"({error!r})",
                    where=spec.where("dataset.data_processor"),
                ) from error
            return VoxelCaps(spec.dataset.point_cloud_range, (wide, deep, high), *caps)
    return None


def transform(spec: Spec, ports: Ports) -> PointTransform:
    """Points of the range, no more than the voxel caps, in rows."""
    form, points = point_format(spec), ports.inputs["points"]
    if points.shape[1] is None or points.shape[2] != len(form.columns):
        raise ModelError(
            f"the model's input {points} does not take a fixed number of points with {len(form.columns)} features",
            where=spec.where("dataset.point_feature_encoding.used_feature_list"),
        )
    masked = any(entry.get("name") == MASK for entry in spec.dataset.data_processor)
    return PointTransform(
        form,
        spec.dataset.point_cloud_range if masked else None,
        voxel_caps(spec),
        points.name,
        ports.inputs["num_points"].name,
        strict=spec.strict,
    )


def dataset(spec: Spec, action: str) -> PointClouds:
    """The clouds of ``data_path``/``data_split.test``; for inference labels are drawn where there are any."""
    folder = Path(spec.require("dataset.data_path")) / spec.require("dataset.data_split.test")
    names, features = spec.dataset.class_names, point_format(spec).features
    return PointClouds(folder, names, features, labelled=action == "evaluate", strict=spec.strict)


def decode(spec: Spec, _ports: Ports, _action: str) -> Decoder:
    """Score threshold, then suppression in bird's-eye view."""
    after = spec.model.post_processing
    run = partial(
        decode_cloud_boxes,
        classes=len(spec.dataset.class_names),
        score_threshold=after.score_thresh,
        iou_threshold=after.nms_config.nms_thresh,
        before_nms=after.nms_config.nms_pre_max_size,
        after_nms=after.nms_config.nms_post_max_size,
    )

    return lambda outputs, geometries: run(outputs["output_boxes"], outputs["num_boxes"], geometries)


class RecordedMetric(Kitti3dMetric):
    """Leaves label files of what was found."""

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__(class_names)
        self._files: dict[str, str] = {}

    def update(self, sample: Sample, prediction: CloudBoxes) -> None:
        """Take one cloud's detections."""
        super().update(sample, prediction)
        self._files[label_file(sample)] = label_lines(prediction, self._names)

    def files(self) -> dict[str, str]:
        """As inference writes them."""
        return self._files


def metric(spec: Spec, _data: Dataset) -> Kitti3dMetric:
    """AP from above and in space; with ``evaluate.save_to_file`` label files too."""
    return (RecordedMetric if spec.evaluate.save_to_file else Kitti3dMetric)(spec.dataset.class_names)


def writer(spec: Spec, folder: Path, _data: Dataset, _ports: Ports) -> CloudWriter:
    """Label files; pictures where asked for."""
    form = point_format(spec) if spec.inference.save_to_file else None
    data = spec.dataset
    return CloudWriter(folder, data.class_names, form, data.point_cloud_range, spec.inference.viz_conf_thresh)


NETWORK = Network(
    spec=Spec,
    bind=expect(
        (Port("points", rank=3), Port("num_points", rank=1)), (Port("output_boxes", rank=3), Port("num_boxes", rank=1))
    ),
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=metric,
    writer=writer,
    batch_size=batch_size,
    labels=lambda spec: spec.dataset.class_names,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
