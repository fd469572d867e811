"""From the user's ONNX file to the graph that is built: the passes in their order, and what they found out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.network import Network, Ports
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.stream import calibration_batches
from nvidia_tao_deploy.transforms.transform import Transform

if TYPE_CHECKING:
    from onnx import ModelProto

QUANTIZED = ("int8", "fp8")
PARITY_BATCHES = 4


@dataclass
class Prepared:
    """The graph to build, and the facts about it that the manifest keeps."""

    source: ModelProto
    model: ModelProto
    ports: Ports
    transform: Transform
    images: CalibrationImages | None
    calibration: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


class CalibrationImages:
    """The images the spec names for calibration, through the evaluate transform, in a fixed seeded order."""

    def __init__(self, network: Network, spec: Any, transform: Transform, ports: Ports, limit: int | None) -> None:
        """Choose the images.

        Raises:
            DataError: no image, or fewer than ``cal_batches`` x ``cal_batch_size``.
        """
        from nvidia_tao_deploy.calibration.select import choose

        options = spec.gen_trt_engine.tensorrt.calibration
        dataset = network.calibration(spec)
        by_path = {str(sample.path): sample for sample in (dataset[i] for i in range(len(dataset)))}
        wanted = options.cal_batches * options.cal_batch_size
        count = min(limit, len(by_path)) if limit else wanted
        paths = choose([Path(path) for path in by_path], count, options.seed)
        self.samples: list[Sample] = [by_path[str(path)] for path in paths]
        self.batch_size: int = options.cal_batch_size
        self._transform, self._inputs, self._strict = transform, tuple(ports.inputs.values()), spec.strict

    def batches(self, batch_size: int | None = None) -> Iterator[dict[str, NDArray[Any]]]:
        """Batches of model inputs by tensor name, read anew at every call.

        Raises:
            DataError: not one of the images can be read.
        """
        found = False
        size = batch_size or self.batch_size
        for batch in calibration_batches(self.samples, self._transform, self._inputs, size, strict=self._strict):
            found = True
            yield batch
        if not found:
            raise DataError("not one calibration image can be read", where=str(self.samples[0].path))


def prepare(network: Network, spec: Any, *, fp16_with_int8: bool) -> Prepared:
    """Load the model and write the asked-for precision into its graph.

    Args:
        network: which network.
        spec: its typed spec.
        fp16_with_int8: what is not quantized becomes fp16 in the graph (strongly typed builders); False where the
            builder does that itself by a flag.

    Raises:
        ModelError: the file is broken or does not fit the network.
        DataError: calibration images are missing or unreadable.
        BuildError: the precision cannot be put into this graph.
    """
    from nvidia_tao_deploy.graph import load, precision, simplify
    from nvidia_tao_deploy.graph.lower import lower_plugins
    from nvidia_tao_deploy.graph.verify import is_quantized

    options = spec.gen_trt_engine.tensorrt
    path = Path(spec.require("gen_trt_engine.onnx_file"))
    source = load.load_model(path)
    ports = network.bind(load.model_inputs(source), load.model_outputs(source))
    prepared = Prepared(source, source, ports, network.transform(spec, ports), None)
    if options.simplify:
        report = simplify.simplify_report(prepared.model)
        prepared.model = report.model
        prepared.notes += [report.note] if report.note else []
    if options.plugins != "keep":
        lowered = lower_plugins(prepared.model)
        prepared.model = lowered.model
        prepared.notes += [f"lowered {kind} '{name}' to standard operators" for name, kind in lowered.lowered]
        prepared.notes += [f"kept {kind} '{name}': {reason}" for name, kind, reason in lowered.unsupported]
    if spec.gen_trt_engine.batch_size > 0:
        prepared.model = simplify.set_batch(prepared.model, spec.gen_trt_engine.batch_size)
    wanted = options.data_type
    if is_quantized(prepared.model):
        prepared.notes.append(f"the model carries its own quantization, so data_type {wanted} adds nothing to it")
        return prepared
    layers = dict(entry.rsplit(":", 1) for entry in options.layers_precision)
    implicit = wanted == "int8" and options.calibration.mode == "implicit"
    if wanted in QUANTIZED or options.calibration.cal_image_dir:
        # Other precisions need a few images only: for the range check of fp16, and for parity.
        limit = None if wanted in QUANTIZED else PARITY_BATCHES * options.calibration.cal_batch_size
        prepared.images = CalibrationImages(network, spec, prepared.transform, ports, limit)
    if implicit:
        prepared.calibration = _facts(spec, prepared.images, method="TensorRT")
        return prepared
    half = wanted if wanted not in QUANTIZED else "fp16" if fp16_with_int8 and not options.strict_types else None
    ranges = _value_ranges(prepared) if half == "fp16" else None
    if wanted in QUANTIZED:
        _quantize(spec, prepared, layers)
    if half in ("fp16", "bf16"):
        cast = precision.cast_float(prepared.model, half, layers=layers, ranges=ranges)
        prepared.model = cast.model
        prepared.notes += [f"layers_precision '{glob}' names no node" for glob in cast.unmatched]
    return prepared


def _quantize(spec: Any, prepared: Prepared, layers: Mapping[str, str]) -> None:
    """Calibrate and insert Q/DQ pairs."""
    from nvidia_tao_deploy.calibration.ranges import QUANTIZED_MAX, collect
    from nvidia_tao_deploy.graph.quantize import quantizable_tensors, quantize

    options = spec.gen_trt_engine.tensorrt
    wanted, calibration, images = options.data_type, options.calibration, prepared.images
    assert images is not None
    tensors = quantizable_tensors(prepared.model, precision=wanted, layers=layers)
    say(f"Calibrating {len(tensors)} tensors on {len(images.samples)} images ({calibration.method})")
    largest = collect(
        prepared.model, images.batches(), tensors, calibration.method, percentile=calibration.percentile
    )
    scales = {name: value / QUANTIZED_MAX[wanted] for name, value in largest.items()}
    result = quantize(prepared.model, scales, precision=wanted, layers=layers)
    prepared.model = result.model
    prepared.notes += [f"in float: {name}: {reason}" for name, reason in result.skipped]
    prepared.notes += [f"layers_precision '{glob}' names no node" for glob in result.unmatched]
    prepared.calibration = _facts(spec, images, method=calibration.method)


def _facts(spec: Any, images: CalibrationImages | None, method: str) -> dict[str, Any]:
    """What the manifest says of the calibration."""
    options = spec.gen_trt_engine.tensorrt.calibration
    return {
        "mode": options.mode,
        "method": method,
        "seed": options.seed,
        "batch_size": options.cal_batch_size,
        "images": [str(sample.path) for sample in images.samples] if images else [],
    }


def _value_ranges(prepared: Prepared) -> dict[str, tuple[float, float]] | None:
    """(min, max) of every float tensor on a few calibration images: what fp16 cannot hold stays fp32."""
    if prepared.images is None:
        return None
    from onnx import TensorProto

    from nvidia_tao_deploy.calibration.ranges import collect_minmax
    from nvidia_tao_deploy.graph.tensors import GraphIndex

    index = GraphIndex(prepared.model)
    weights = {tensor.name for tensor in prepared.model.graph.initializer}
    floats = [name for name, kind in index.elem_types.items() if kind == TensorProto.FLOAT and name not in weights]
    return collect_minmax(prepared.model, islice(prepared.images.batches(), PARITY_BATCHES), floats)
