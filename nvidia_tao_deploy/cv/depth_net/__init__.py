"""depth_net: depth from one image, disparity from two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.cv.depth_net.spec import LEAST_SIDE, DataSource, Spec
from nvidia_tao_deploy.data.depth import AnnotationFile, DepthList
from nvidia_tao_deploy.data.sample import Dataset, Sample
from nvidia_tao_deploy.errors import DataError, ModelError, SpecError
from nvidia_tao_deploy.families.images import OpenInputs, batch_size_or, calibration_images, check_map, set_size
from nvidia_tao_deploy.metrics.depth import MAX_DEPTH, MIN_DEPTH, MonoMetric, StereoMetric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports, expect
from nvidia_tao_deploy.predictions.depth import DepthMap
from nvidia_tao_deploy.predictions.depth_writer import DepthWriter
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD
from nvidia_tao_deploy.transforms.transform import Geometry, Transform

MONO = (Port("images", ("image",), channels=(3,)),)
STEREO = (Port("left_image", ("left",), channels=(3,)), Port("right_image", ("right",), channels=(3,)))
DEPTH = Port("map", ("outputs", "disparity"), rank=3, floats=True)
DISPARITY = Port("map", DEPTH.names, channels=(1,), floats=True)
SIDES = ("height", "width")
DATA = {"evaluate": "test_dataset", "inference": "infer_dataset"}
NYU_CROP = (45, 471, 41, 601)


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """One image and its depth (B, H, W), or a pair and its disparity (B, 1, H, W); further outputs do not count."""
    images, port = (STEREO, DISPARITY) if len(inputs) > 1 else (MONO, DEPTH)
    named = [output for output in outputs if output.name in port.names] or outputs
    ports = expect(images, (port,))(inputs, named[:1])
    check_map(ports, images[0].role, "map")
    return Ports(OpenInputs(ports.inputs), ports.outputs)


def is_stereo(spec: Spec) -> bool:
    """``dataset.dataset_name`` decides, in any case."""
    return spec.dataset.dataset_name.lower() == "stereodataset"


def is_relative(spec: Spec) -> bool:
    """The model gives inverse depth up to scale and shift."""
    names = [spec.model.model_type, *(s.dataset_name for s in spec.dataset.test_dataset.data_sources or [])]
    return any("relative" in name.lower() for name in names)


def dataset(spec: Spec, action: str) -> DepthList:
    """The samples of the action's annotation files."""
    key = f"dataset.{DATA[action]}.data_sources"
    sources = []
    for index, source in enumerate(spec.require(key)):
        if not source.data_file:
            raise SpecError(f"source {index + 1} has no data_file", where=spec.where(f"{key}[{index}]"))
        sources.append(_annotations(spec, source))
    return DepthList(sources, stereo=is_stereo(spec), with_truth=action == "evaluate")


def _annotations(spec: Spec, source: DataSource) -> AnnotationFile:
    name = source.dataset_name.lower()
    assert source.data_file
    if is_stereo(spec):
        return AnnotationFile(Path(source.data_file), "disparity", source.gt_scale)
    relative_set = is_relative(spec) and name.startswith("relativemono")
    disparity = source.gt_type == "disparity" or (source.gt_type == "auto" and relative_set)
    scale = source.gt_scale or (1.0 if disparity else None)
    crop = NYU_CROP if name.startswith("nyudv2") else None
    return AnnotationFile(Path(source.data_file), "disparity" if disparity else "depth", scale, crop)


def stride(ports: Ports) -> int:
    """Mono models cut the image into patches of 14 pixels; stereo models halve it five times."""
    return 32 if len(ports.inputs) == 2 else LEAST_SIDE


def check_patches(spec: Spec, ports: Ports, side: str, key: str, size: int | None) -> None:
    """A height or width that a mono model leaves open must hold whole patches; SpecError where it does not."""
    (mono, *other), axis = ports.inputs.values(), 2 + SIDES.index(side)
    if size and not other and mono.shape[axis] is None and size % LEAST_SIDE:
        below = max(size // LEAST_SIDE, 1) * LEAST_SIDE
        raise SpecError(
            f"{side} {size} is no multiple of {LEAST_SIDE}, and a mono model cuts its image into patches of that size",
            where=spec.where(key),
            remedy=f"Set {below} or {below + LEAST_SIDE}.",
        )


class PairTransform:
    """Left and right image, alike; the geometry is the left one's."""

    def __init__(self, left: ImageTransform, right: ImageTransform) -> None:
        self._left, self._right = left, right

    def __call__(self, sample: Sample, out: Mapping[str, Array]) -> Geometry:
        """Write the pair into its rows; DataError where an image cannot be read, or they are of different size."""
        left, right = self._left(sample, out), self._right(sample, out)
        if left.source_size != right.source_size:
            raise DataError(
                "left and right image differ in size: "
                f"{left.source_size[0]} x {left.source_size[1]}, {right.source_size[0]} x {right.source_size[1]}",
                where=str(sample.path),
            )
        return left

    def describe(self) -> dict[str, Any]:
        return {"left": self._left.describe(), "right": self._right.describe()}


def transform(spec: Spec, ports: Ports) -> Transform:
    """Stretched with OpenCV on float pixels, RGB, ImageNet mean and deviation."""
    build = spec.gen_trt_engine
    sizes = {f"{which}_{side}": side for side in SIDES for which in ("min", "opt", "max")}
    for name, side in sizes.items():
        check_patches(spec, ports, side, f"gen_trt_engine.{name}", getattr(build, name))
    if build.opt_width and build.opt_height:  # for the checks of a build; a run sets its own size
        set_size(ports, build.opt_width, build.opt_height)
    constants = partial(ImageTransform, scale=1 / 255, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    backend = spec.runtime.image_backend
    made = [
        constants(input_name=info.name, backend=backend, path_index=i) for i, info in enumerate(ports.inputs.values())
    ]
    return PairTransform(*made) if len(made) == 2 else made[0]


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """The map; a height or width that the model leaves open is the action's crop_size."""
    stereo = len(ports.inputs) == 2
    if stereo != is_stereo(spec):
        raise ModelError(
            f"the model takes {'pairs' if stereo else 'single images'}, dataset.dataset_name is "
            f"{spec.dataset.dataset_name}",
            where=spec.where("dataset.dataset_name"),
            remedy="Set it to StereoDataset for pairs, MonoDataset for single images.",
        )
    if not stereo and "stereo" in spec.model.model_type.lower():
        raise ModelError(
            f"the model takes single images, model.model_type is {spec.model.model_type}",
            where=spec.where("model.model_type"),
            remedy="Set it to MetricDepthAnything or RelativeDepthAnything: it says what the numbers mean.",
        )
    key = f"dataset.{DATA[action]}.augmentation.crop_size"
    height, width = spec.get(key)
    for side, size in zip(SIDES, (height, width), strict=True):
        check_patches(spec, ports, side, key, size)
    set_size(ports, width, height)

    def run(outputs: Mapping[str, Array], geometries: Sequence[Geometry]) -> list[DepthMap]:
        maps = outputs["map"].astype(np.float32)
        maps = maps[:, 0] if stereo else maps
        return [DepthMap(values, geometry, stereo) for values, geometry in zip(maps, geometries, strict=True)]

    return run


def metric(spec: Spec, _data: Dataset) -> StereoMetric | MonoMetric:
    """Disparity or depth, as ``dataset.dataset_name`` says."""
    data = spec.dataset
    if is_stereo(spec):
        return StereoMetric(spec.model.max_disparity or data.max_disparity)
    return MonoMetric(
        relative=is_relative(spec), min_depth=data.min_depth or MIN_DEPTH, max_depth=data.max_depth or MAX_DEPTH
    )


def writer(spec: Spec, folder: Path, _data: Dataset, _ports: Ports) -> DepthWriter:
    """Colour pictures, and the numbers where asked for."""
    asked = spec.inference
    return DepthWriter(
        folder,
        npy=bool(asked.save_raw_npy),
        pfm=bool(asked.save_raw_pfm),
        png16_scale=asked.png16_scale if asked.save_png16 else None,
    )


def calibration(spec: Spec) -> Dataset:
    """Images for the checks of a mono build; SpecError for a stereo set, as a folder of images has no pairs."""
    if is_stereo(spec):
        raise SpecError(
            "a stereo model has no calibration images",
            where=spec.where("gen_trt_engine.tensorrt.calibration.cal_image_dir"),
            remedy="Remove cal_image_dir; a mono model needs dataset.dataset_name=MonoDataset.",
        )
    return calibration_images(spec)


NETWORK = Network(
    spec=Spec,
    bind=bind,
    calibration=calibration,
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=metric,
    writer=writer,
    batch_size=batch_size_or("dataset.test_dataset.batch_size", "dataset.infer_dataset.batch_size"),
    stride=stride,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
