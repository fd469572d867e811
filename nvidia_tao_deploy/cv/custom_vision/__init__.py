"""Models exported from Azure Custom Vision as ONNX: classifiers, and detectors in both exported forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.custom_vision.decode import ANCHORS, decode_boxes, decode_grid
from nvidia_tao_deploy.cv.custom_vision.export import CONSTANTS, labels_of, pixels_of
from nvidia_tao_deploy.cv.custom_vision.spec import Spec
from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.folder import ClassFolder, ImageFolder, index_classes, read_classes
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.data.text import some
from nvidia_tao_deploy.errors import DataError, ModelError, SpecError
from nvidia_tao_deploy.families import classification as family
from nvidia_tao_deploy.families.images import image_network
from nvidia_tao_deploy.metrics.coco import CocoMetric
from nvidia_tao_deploy.metrics.metric import Metric
from nvidia_tao_deploy.network import Decoder, Port, Ports, Writer, expect
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter
from nvidia_tao_deploy.predictions.drawing import PALETTE
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry

if TYPE_CHECKING:
    from onnx import ModelProto

IMAGE = Port("data", channels=(1, 3))
BOXES = (Port("detected_boxes", rank=3), Port("detected_scores", rank=2), Port("detected_classes", rank=2))
GRID, SCORES = Port("model_outputs0"), Port("loss", names=("model_output",), rank=2)


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """One image; ``detected_boxes``, ``_scores`` and ``_classes``, or one anchor grid, or one row of scores."""
    if len(outputs) > 1:
        return expect((IMAGE,), BOXES)(inputs, outputs)
    ports = expect((IMAGE,), (GRID if len(outputs[0].shape) == 4 else SCORES,))(inputs, outputs)
    channels = ports.outputs[GRID.role].shape[1] if GRID.role in ports.outputs else None
    if channels is not None and (channels % len(ANCHORS) or channels <= 5 * len(ANCHORS)):
        raise ModelError(f"output {outputs[0]} is no grid of {len(ANCHORS)} anchors with 5 values and the classes each")
    return ports


def class_names(spec: Spec, path: Path) -> family.ClassNames:
    """``dataset.labels``, else what stands beside the model; none where nothing does."""
    remedy = "Give the labels.txt of the same export with dataset.labels."
    if spec.dataset.labels:
        return family.ClassNames(read_classes(spec.dataset.labels), spec.dataset.labels, remedy)
    names, source = labels_of(path)
    return family.ClassNames(names, source, remedy, guessed=not names)


def model_path(spec: Spec, action: str) -> Path:
    """The model of an action; a report's is the one it builds from."""
    own = getattr(spec, action).trt_engine or spec.gen_trt_engine.onnx_file
    return Path(own or spec.require(f"{action}.trt_engine"))


def labels(spec: Spec) -> Sequence[str]:
    """Class names of the export that is built."""
    return class_names(spec, Path(spec.require("gen_trt_engine.onnx_file"))).names


def graph(_spec: Spec, model: ModelProto) -> ModelProto:
    """A Float16 export in float32: the build decides."""
    from nvidia_tao_deploy.graph.widen import widen

    return widen(model)


def dataset(spec: Spec, action: str) -> Dataset:
    """evaluate: COCO annotations where they are given, else class folders; inference: images."""
    if action == "inference":
        return ImageFolder(spec.require("inference.image_dir"))
    folder = spec.evaluate.image_dir
    if spec.evaluate.label_file:
        return CocoDetection(spec.evaluate.label_file, folder, strict=spec.strict)
    folder = spec.require("evaluate.image_dir")
    try:
        return ClassFolder(folder, known_names(spec).names, strict=spec.strict)
    except DataError as error:
        remedy = f"{error.remedy or ''} A detector needs COCO annotations: -l FILE, or evaluate.label_file."
        raise DataError(error.what, where=error.where, remedy=remedy.strip()) from error


def known_names(spec: Spec) -> family.ClassNames:
    """The class names, which evaluate cannot do without; SpecError where nothing tells them."""
    names = class_names(spec, model_path(spec, "evaluate"))
    if not names.names:
        raise SpecError("the class names are not known", where=names.source, remedy=names.remedy)
    index_classes(names.names, names.source)
    return names


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """Pillow bicubic to the input size, aspect not kept; channel order and range as the export declares them."""
    assert ports.source is not None
    ports.image_size("data")
    names = class_names(spec, ports.source)
    if names.names:
        names.check_width(class_count(ports))
    pixels, given = pixels_of(ports.source), spec.dataset
    if given.pixel_format:
        pixels["color"] = given.pixel_format.upper()
    if given.pixel_range:
        pixels |= CONSTANTS[given.pixel_range]
    if not {"color", "scale"} <= pixels.keys():
        say(
            "note: the model does not say how it takes pixels: BGR, 0 to 255 where it does not. If results are bad, "
            "set dataset.pixel_format and dataset.pixel_range."
        )
    return ImageTransform(
        resize="stretch_bicubic",
        input_name=ports.inputs["data"].name,
        backend=spec.runtime.image_backend,
        **{"color": "BGR", **CONSTANTS["byte"], **pixels},
    )


def class_count(ports: Ports) -> int | None:
    """Classes by the outputs' shapes; None where they do not tell."""
    if GRID.role in ports.outputs:
        channels = ports.outputs[GRID.role].shape[1]
        return channels // len(ANCHORS) - 5 if channels else None
    return ports.outputs[SCORES.role].shape[1] if SCORES.role in ports.outputs else None


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """Probabilities as they are, or detections; SpecError where evaluate has annotations for another kind of model."""
    classifies = SCORES.role in ports.outputs
    if action == "evaluate" and classifies == bool(spec.evaluate.label_file):
        kind, needs = ("classifier", "class folders: -i DIR alone") if classifies else ("detector", "-l COCO_FILE")
        raise SpecError(f"the model is a {kind}; its evaluation needs {needs}", where=spec.where("evaluate.label_file"))
    if classifies:
        return lambda outputs, _geometries: family.probabilities(outputs[SCORES.role])
    assert ports.source is not None
    names = class_names(spec, ports.source)
    count = len(names.names)

    def run(outputs: Mapping[str, NDArray[Any]], geometries: Sequence[Geometry]) -> Sequence[Any]:
        if GRID.role in outputs:
            return decode_grid(outputs[GRID.role], geometries)
        boxes, scores, classes = (outputs[port.role] for port in BOXES)
        found = decode_boxes(boxes, scores, classes, geometries)
        beyond = [int(rows.class_ids.max()) for rows in found if len(rows) and count and rows.class_ids.max() >= count]
        if beyond:
            raise ModelError(
                f"the model gives class {max(beyond)}, {count} are named", where=names.source, remedy=names.remedy
            )
        return found

    return run


def metric(spec: Spec, data: Dataset) -> Metric:
    """Top-1 accuracy, or COCO mAP with classes and categories matched by name."""
    if not isinstance(data, CocoDetection):
        return family.metric(data, 1)
    names = list(known_names(spec).names)
    ids = {name: category for category, name in data.categories.items()}
    unknown = [name for name in ids if name not in names]
    if unknown:
        say(f"note: the model has no class for these categories, their objects count as missed: {some(unknown)}")
    return CocoMetric(data, [ids.get(name, -1) for name in names])


def writer(spec: Spec, folder: Path, data: Dataset, ports: Ports) -> Writer:
    """result.csv, or labels and annotated pictures."""
    assert ports.source is not None
    names = class_names(spec, ports.source)
    if SCORES.role in ports.outputs:
        return family.writer(folder, names, class_count(ports))
    return DetectionWriter(folder, dict(enumerate(names.names)) or None, spec.inference.threshold, PALETTE, data.root)


NETWORK = image_network(
    spec=Spec,
    bind=bind,
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=metric,
    writer=writer,
    labels=labels,
    graph=graph,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
