"""OCDNet: where text stands, from a probability map (differentiable binarization)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.cv.ocdnet.spec import Spec
from nvidia_tao_deploy.data.folder import ImageFolder
from nvidia_tao_deploy.data.sample import Dataset, Listed, Sample
from nvidia_tao_deploy.data.text_regions import TextRegionLabels
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families.images import OpenInputs, check_map, check_size, image_network, set_size
from nvidia_tao_deploy.metrics.text_regions import RegionMetric
from nvidia_tao_deploy.network import Decoder, Port, Ports, expect
from nvidia_tao_deploy.predictions.polygon_writer import PolygonWriter
from nvidia_tao_deploy.predictions.polygons import TextRegions, find_regions, require_polygon_libraries
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.transform import Geometry
from nvidia_tao_deploy.transforms.upright import UprightTransform

if TYPE_CHECKING:
    from onnx import ModelProto

# Subtracted from the channels in the order they arrive in, whichever that is: so the trainer does.
MEAN = (122.67891434, 116.66876762, 104.00698793)
DEFAULT_SIZE = (1280, 736)
STEPS = "dataset.validate_dataset.args.pre_processes"


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """The image, and the output `pred`, else the first one; only its channel 0 counts."""
    named = [output for output in outputs if output.name == "pred"] or list(outputs[:1])
    ports = expect((Port("input", channels=(3,)),), (Port("pred", floats=True),))(inputs, named)
    check_map(ports, "input", "pred")
    return Ports(OpenInputs(ports.inputs), ports.outputs)


def in_mode(data: Dataset, mode: str, where: str) -> Listed:
    """The samples, which then say in which channel order they are read: the actions may differ in that."""
    if mode == "GRAY":
        raise SpecError("img_mode GRAY fits no model of this network, they take three channels", where=where)
    samples = (replace(data[i], meta={"img_mode": mode}) for i in range(len(data)))
    return Listed(samples, data.root, getattr(data, "issues", ()))


class ModeTransform:
    """Stretched with OpenCV on float pixels, (x - mean) / 255, in the channel order that the sample names."""

    def __init__(self, default: str, **settings: Any) -> None:
        self._default = default
        self._by_mode = {
            color: UprightTransform(mean=MEAN, std=(255.0,), color=color, **settings) for color in ("BGR", "RGB")
        }

    def __call__(self, sample: Sample, out: Mapping[str, Array]) -> Geometry:
        """Write the sample into its row."""
        return self._by_mode[sample.meta.get("img_mode", self._default)](sample, out)

    def describe(self) -> dict[str, Any]:
        return self._by_mode[self._default].describe()


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: annotated images; inference: the images of the folders, img2 before img10."""
    if action == "inference":
        folder = ImageFolder(spec.require("inference.input_folder"), recursive=False)
        folder.paths.sort(key=_natural)
        return in_mode(folder, spec.require("inference.img_mode"), spec.where("inference.img_mode"))
    data, key = spec.dataset.validate_dataset, "dataset.validate_dataset"
    labels = TextRegionLabels(
        spec.require(f"{key}.data_path"),
        data.data_name,
        data.args.ignore_tags,
        keep_empty=data.args.keep_empty,
        strict=spec.strict,
    )
    return in_mode(labels, data.args.img_mode, spec.where(f"{key}.args.img_mode"))


def _natural(path: Path) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdigit() else (1, part.lower()) for part in parts if part]


def graph(spec: Spec, model: ModelProto) -> ModelProto:
    """The model as it is; SpecError where a size is set for the build that is not its own."""
    from nvidia_tao_deploy.graph.load import model_inputs, model_outputs

    path = Path(spec.require("gen_trt_engine.onnx_file"))
    _fit(spec, NETWORK.bound(model_inputs(model), model_outputs(model), path), "gen_trt_engine")
    return model


def transform(spec: Spec, ports: Ports) -> ModeTransform:
    """Calibration reads in the mode of the build, else of the evaluation set."""
    set_size(ports, spec.gen_trt_engine.width, spec.gen_trt_engine.height)  # a run sets its own
    mode = spec.gen_trt_engine.img_mode or spec.dataset.validate_dataset.args.img_mode
    return ModeTransform(
        "RGB" if mode == "RGB" else "BGR", input_name=ports.inputs["input"].name, backend=spec.runtime.image_backend
    )


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """Contours of the probability map, with the action's settings."""
    require_polygon_libraries()
    if action == "inference":
        _fit(spec, ports, action)
        polygons, settings = spec.inference.polygon, spec.inference.post_processing.args
    else:
        _check_steps(spec, ports)
        polygons, settings = spec.evaluate.metric.args.is_output_polygon, spec.evaluate.post_processing.args

    def run(outputs: Mapping[str, Array], geometries: Sequence[Geometry]) -> list[TextRegions]:
        maps = outputs["pred"][:, 0].astype(np.float32)
        if not np.isfinite(maps).all():
            raise ModelError("the model's probabilities hold NaN or infinities")
        found = []
        for probability, geometry in zip(maps, geometries, strict=True):
            if probability.shape[::-1] != geometry.network_size:
                raise ModelError(f"the map {probability.shape} is not of the input's size {geometry.network_size}")
            regions, scores = find_regions(
                probability,
                threshold=settings.thresh,
                box_threshold=settings.box_thresh,
                max_candidates=settings.max_candidates,
                unclip_ratio=settings.unclip_ratio,
                polygons=polygons,
            )
            picture = np.clip(probability * 255, 0, 255).astype(np.uint8) if action == "inference" else None
            found.append(TextRegions(regions, scores, geometry, picture))
        return found

    return run


def _fit(spec: Spec, ports: Ports, section: str) -> None:
    """The model takes the size of this section, which must be its own where that is fixed."""
    set_size(ports, spec.get(f"{section}.width"), spec.get(f"{section}.height"))
    check_size(spec, ports, "input", f"{section}.width", f"{section}.height")


def _check_steps(spec: Spec, ports: Ports) -> None:
    """The evaluation set's Resize2D names the model's size; without one the model's own counts."""
    steps = spec.dataset.validate_dataset.args.pre_processes
    sizes = [step.args.short_size for step in steps or [] if "short_size" in step.args.model_fields_set]
    set_size(ports, *(sizes[-1] if sizes and isinstance(sizes[-1], list) and len(sizes[-1]) == 2 else DEFAULT_SIZE))
    size = ports.image_size("input")
    for given in sizes:
        if given != list(size):
            raise SpecError(
                f"short_size {given} is not the size of the model's input {ports.inputs['input']}",
                where=spec.where(STEPS),
                remedy=f"Set it to {list(size)} (width, height), or remove the step.",
            )


NETWORK = image_network(
    spec=Spec,
    bind=bind,
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=lambda spec, _data: RegionMetric(spec.evaluate.post_processing.args.box_thresh),
    writer=lambda _spec, folder, data, _ports: PolygonWriter(folder, data.root),
    graph=graph,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
