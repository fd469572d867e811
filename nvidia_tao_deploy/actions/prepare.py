"""From the user's ONNX file to the graph that is built: the passes in their order, and what they found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvidia_tao_deploy.actions.calibrate import CalibrationImages, calibration_facts, find_scales
from nvidia_tao_deploy.network import Network, Ports
from nvidia_tao_deploy.transforms.transform import Transform

if TYPE_CHECKING:
    from onnx import ModelProto

    from nvidia_tao_deploy.engine.backend import Backend

QUANTIZED = ("int8", "fp8")
# What plugins were lowered to: indices and thresholds, which 16 bits would spoil.
LOWERED = ("lowered_*",)
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


def prepare(network: Network, spec: Any, backend: Backend) -> Prepared:
    """Load the model and write the asked-for precision into its graph.

    Args:
        network: which network.
        spec: its typed spec.
        backend: the builder the graph is for. A strongly typed one takes every precision from the graph, so what an
            int8 build does not quantize becomes fp16 here; a weakly typed one (TensorRT 8) does that by a flag.

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
        if lowered.lowered:  # parity runs the source in ONNX Runtime, which knows no plugins
            prepared.source = lower_plugins(source).model
        prepared.notes += [f"lowered {kind} '{name}' to standard operators" for name, kind in lowered.lowered]
        prepared.notes += [f"kept {kind} '{name}': {reason}" for name, kind, reason in lowered.unsupported]
    if spec.gen_trt_engine.batch_size > 0:
        prepared.model = simplify.set_batch(prepared.model, spec.gen_trt_engine.batch_size)
    wanted = options.data_type
    if is_quantized(prepared.model):
        prepared.notes.append(f"the model carries its own quantization, so data_type {wanted} adds nothing to it")
        return prepared
    prepared.images = _images(network, spec, prepared)
    if wanted == "int8" and options.calibration.mode == "implicit":
        prepared.calibration = calibration_facts(spec, prepared.images, method="TensorRT's own")
        return prepared
    layers = dict(entry.rsplit(":", 1) for entry in options.layers_precision)
    half = wanted
    if wanted in QUANTIZED:
        half = "fp16" if backend.strongly_typed and not options.strict_types else "fp32"
    ranges = _value_ranges(prepared) if half == "fp16" else None
    if wanted in QUANTIZED:
        _quantize(spec, prepared, layers, backend)
    if half in ("fp16", "bf16"):
        cast = precision.cast_float(prepared.model, half, keep_nodes=LOWERED, layers=layers, ranges=ranges)
        prepared.model = cast.model
        prepared.notes += [f"layers_precision '{glob}' names no node" for glob in cast.unmatched if glob not in LOWERED]
    return prepared


def _images(network: Network, spec: Any, prepared: Prepared) -> CalibrationImages | None:
    """All calibration images for a quantized build, a few for the checks of the others; None where none are named.

    A build whose scales come from a cache, a tensorfile or QAT can do without images.
    """
    options = spec.gen_trt_engine.tensorrt
    calibration = options.calibration
    quantized = options.data_type in QUANTIZED
    elsewhere = any(
        name and Path(name).is_file()
        for name in (calibration.cal_cache_file, calibration.cal_data_file, calibration.cal_json_file)
    )
    if not calibration.cal_image_dir and (not quantized or elsewhere):
        return None
    limit = None if quantized else PARITY_BATCHES * calibration.cal_batch_size
    return CalibrationImages(network, spec, prepared.transform, prepared.ports, limit)


def _quantize(spec: Any, prepared: Prepared, layers: Mapping[str, str], backend: Backend) -> None:
    """Find the scales and insert Q/DQ pairs."""
    from nvidia_tao_deploy.engine.backend import version_tuple
    from nvidia_tao_deploy.graph.quantize import quantizable_tensors, quantize

    wanted = spec.gen_trt_engine.tensorrt.data_type
    tensors = quantizable_tensors(prepared.model, precision=wanted, keep_nodes=LOWERED, layers=layers)
    # A cache is TensorRT's; what an RTX build writes is in the form of the last release that reads caches.
    version = version_tuple(backend.version) if backend.name == "tensorrt" else (10, 16, 1)
    major, minor, patch = (*version, 0, 0)[:3]
    scales = find_scales(
        spec, prepared.model, tensors, prepared.ports, prepared.transform, prepared.images, (major, minor, patch)
    )
    result = quantize(prepared.model, scales.by_tensor, precision=wanted, keep_nodes=LOWERED, layers=layers)
    prepared.model = result.model
    prepared.notes += [f"in float: {name}: {reason}" for name, reason in result.skipped]
    prepared.notes += [f"layers_precision '{glob}' names no node" for glob in result.unmatched if glob not in LOWERED]
    prepared.calibration = dict(scales.facts)


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
