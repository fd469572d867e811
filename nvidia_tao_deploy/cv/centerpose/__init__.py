"""CenterPose: 6-DoF pose and size of objects of one category, from one image of a known camera."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.centerpose.spec import Spec
from nvidia_tao_deploy.cv.centerpose.transform import WarpTransform
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.poses import PoseFolder
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.families.images import check_size, image_network
from nvidia_tao_deploy.metrics.poses import PoseMetric
from nvidia_tao_deploy.network import Decoder, Port, Ports, expect
from nvidia_tao_deploy.predictions.cuboid_writer import CuboidWriter

OUTPUTS = ("bboxes", "scores", "obj_scale", "kps_displacement_mean", "kps_heatmap_mean")
DOWN_RATIO = 4


def dataset(spec: Spec, action: str) -> Dataset:
    """Annotated images (evaluate) or a folder of images (inference); SpecError where inference has no camera."""
    if action == "evaluate":
        return PoseFolder(spec.require("dataset.test_data"), planes=not spec.dataset.use_absolute_scale)
    for key in ("inference.focal_length_x", "inference.focal_length_y"):
        if not spec.get(key):  # no pose would be found, and nothing said
            raise SpecError(
                f"{key} is 0",
                where=spec.where(key),
                remedy="Set the camera's focal lengths and principal point, pixels.",
            )
    return ImageFolder(spec.require("dataset.inference_data"))


def transform(spec: Spec, ports: Ports) -> WarpTransform:
    """Letterboxed, B, G, R, with the camera that the spec gives for inference."""
    check_size(spec, ports, "input", "dataset.input_res", "dataset.input_res")
    asked = spec.inference
    camera = np.array(
        [
            [asked.focal_length_x, asked.skew, asked.principle_point_x],
            [0, asked.focal_length_y, asked.principle_point_y],
            [0, 0, 1],
        ]
    )
    name = ports.inputs["input"].name
    return WarpTransform(name, spec.dataset.mean, spec.dataset.std, camera, spec.runtime.image_backend)


def decode(spec: Spec, ports: Ports, _action: str) -> Decoder:
    """Suppression and pose of candidates on a grid of ``dataset.output_res``, else of a quarter of the input."""
    from nvidia_tao_deploy.cv.centerpose.decode import decode as decode_poses

    width, height = ports.image_size("input")
    grid = (width // DOWN_RATIO, height // DOWN_RATIO)
    if "output_res" in spec.dataset.model_fields_set:
        grid = (spec.dataset.output_res, spec.dataset.output_res)
    return partial(decode_poses, grid=grid)  # type: ignore[arg-type]


def metric(spec: Spec, _data: Dataset) -> PoseMetric:
    """Errors of poses in the annotations' camera frame, whatever ``evaluate.opencv`` says."""
    return PoseMetric(symmetry=spec.evaluate.eval_num_symmetry, absolute=spec.dataset.use_absolute_scale)


def writer(spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> CuboidWriter:
    """A picture and a JSON file per image."""
    asked = spec.inference
    return CuboidWriter(
        folder,
        data.root,
        pictures=asked.save_visualization,
        labels=asked.save_json,
        opengl=not asked.opencv,
        axis_size=asked.axis_size,
    )


NETWORK = image_network(
    spec=Spec,
    bind=expect(inputs=(Port("input", channels=(3,)),), outputs=tuple(Port(name, rank=3) for name in OUTPUTS)),
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=metric,
    writer=writer,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
