"""From the user's ONNX file to the graph that is built: the passes in their order, and what they found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvidia_tao_deploy.actions.calibrate import QUANTIZED, CalibrationImages, calibration_facts, find_scales
from nvidia_tao_deploy.data.text import some
from nvidia_tao_deploy.errors import BuildError, DataError
from nvidia_tao_deploy.network import Network, Ports
from nvidia_tao_deploy.pipeline.ranks import Team
from nvidia_tao_deploy.transforms.transform import Transform

if TYPE_CHECKING:
    from onnx import ModelProto

    from nvidia_tao_deploy.engine.backend import Backend

# The Loop of these gave wrong rows on TensorRT 8.5.3.1; ONNX Runtime runs the same graph right.
MISCOMPUTED_ON_8 = frozenset({"BatchedNMS_TRT", "BatchedNMSDynamic_TRT", "NMS_TRT", "NMSDynamic_TRT"})
PARITY_BATCHES = 4
NAMED = 5  # so many of a list are named in a note, the rest is counted


@dataclass
class Prepared:
    """The graph to build, and the facts about it that the manifest keeps."""

    source: ModelProto
    model: ModelProto
    ports: Ports
    transform: Transform
    images: CalibrationImages | None
    calibration: dict[str, Any] | None = None
    classes: int | None = None
    notes: list[str] = field(default_factory=list)

    def fp32_nodes(self) -> list[str]:
        """Nodes a weakly typed builder must hold to FP32: coordinates of lowered plugins, norms written out."""
        return [node.name for node in self.model.graph.node if any(fnmatchcase(node.name, g) for g in float_globs())]


def prepare(network: Network, spec: Any, backend: Backend, team: Team | None = None) -> Prepared:
    """Load the model and write the asked-for precision into its graph.

    Args:
        backend: the builder the graph is for. A strongly typed one takes every precision from the graph, so what an
            int8 build does not quantize becomes fp16 here; a weakly typed one (TensorRT 8) does that by a flag.
        team: ranks that share the calibration images.

    Raises:
        Given: this is not rank 0, and its part of the calibration is done.
        ModelError: the file is broken or does not fit the network.
        DataError: calibration images are missing or unreadable.
        BuildError: the builder does not know an operator, or the precision cannot be put into this graph.
    """
    from nvidia_tao_deploy.engine.backend import known_plugins
    from nvidia_tao_deploy.graph import load, precision, simplify
    from nvidia_tao_deploy.graph.lower import STATIC_PLUGINS, class_count, lower_plugins
    from nvidia_tao_deploy.graph.verify import is_quantized

    options = spec.gen_trt_engine.tensorrt
    path = Path(spec.require("gen_trt_engine.onnx_file"))
    source = network.graph(spec, load.load_model(path))
    ports = network.bound(load.model_inputs(source), load.model_outputs(source), path)
    prepared = Prepared(source, source, ports, network.transform(spec, ports), None)
    if network.check_classes and (count := class_count(source)) is not None:
        network.check_classes(spec, count)
        prepared.classes = count
    if options.simplify:
        prepared.model, note = simplify.simplify(prepared.model)
        prepared.notes += [note] if note else []
    reasons: dict[str, str] | None = None
    if options.plugins != "keep":
        # auto: a plugin that the builder has is faster and exact; the others become standard operators.
        keep = known_plugins(backend) if options.plugins == "auto" else frozenset[str]()
        if spec.gen_trt_engine.batch_size <= 0 and any(None in info.shape for info in prepared.ports.inputs.values()):
            keep -= STATIC_PLUGINS
        lowered = lower_plugins(prepared.model, keep=keep)
        _refuse_miscomputed(lowered.lowered, backend, spec)
        prepared.model = lowered.model
        prepared.notes += [f"lowered {kind} '{name}' to standard operators" for name, kind in lowered.lowered]
        prepared.notes += [f"kept {kind} '{name}': {reason}" for name, kind, reason in lowered.unsupported]
        reasons = {name: reason for name, _, reason in lowered.unsupported}
    if spec.gen_trt_engine.batch_size > 0:
        prepared.model = simplify.set_batch(prepared.model, spec.gen_trt_engine.batch_size)
    _fit(prepared, backend, path, reasons)
    wanted = options.data_type
    if is_quantized(prepared.model):
        prepared.notes.append(f"the model carries its own quantization, so data_type {wanted} adds nothing to it")
        return prepared
    prepared.images = images_of(network, spec, prepared)
    if prepared.images and team:
        prepared.images.team = team
    if wanted == "int8" and options.calibration.mode == "implicit":
        prepared.calibration = calibration_facts(spec, prepared.images, method="TensorRT's own")
        return prepared
    wishes = dict(entry.rsplit(":", 1) for entry in options.layers_precision)
    layers = {**dict.fromkeys(float_globs(), "fp32"), **wishes}
    half = wanted
    if wanted in QUANTIZED:
        half = "fp16" if backend.strongly_typed and not options.strict_types else "fp32"
    ranges = _value_ranges(prepared) if half == "fp16" else {}
    unmatched: list[str] = []
    if wanted in QUANTIZED:
        unmatched += _quantize(spec, prepared, layers, backend)
    if half in ("fp16", "bf16"):
        cast = precision.cast_float(prepared.model, half, layers=layers, ranges=ranges)
        prepared.model = cast.model
        prepared.notes += [_kept_note(cast.kept, half)] if cast.kept else []
        unmatched += cast.unmatched
    named = dict.fromkeys(glob for glob in unmatched if glob in wishes)
    prepared.notes += [f"layers_precision '{glob}' names no node" for glob in named]
    if backend.features.typing == "weak":
        _older_opset(prepared, backend)
    return prepared


def _refuse_miscomputed(lowered: list[tuple[str, str]], backend: Backend, spec: Any) -> None:
    """Lowered forms that a release was seen to compute wrongly (docs/verification.md).

    Raises:
        BuildError: one of them is among ``lowered``.
    """
    wrong = [(name, kind) for name, kind in lowered if kind in MISCOMPUTED_ON_8]
    if backend.features.typing == "weak" and wrong:
        name, kind = wrong[0]
        raise BuildError(
            f"{backend.title} computes the lowered form of {kind} ('{name}') wrongly",
            where=spec.where("gen_trt_engine.tensorrt.plugins"),
            remedy="Leave plugins at auto: this release has the plugin itself.",
        )


def float_globs() -> tuple[str, ...]:
    """Names of what our own passes wrote and no precision pass may narrow."""
    from nvidia_tao_deploy.graph.decompose import SUFFIX
    from nvidia_tao_deploy.graph.lower import NAME_PREFIX

    return f"{NAME_PREFIX}*", f"*/{SUFFIX}/*"


def _kept_note(kept: list[tuple[str, str]], half: str) -> str:
    """E.g. "31 nodes stay fp32 in this fp16 graph: /norm/Pow (exponential or power), ... and 26 more"."""
    listed = some([f"{name} ({reason})" for name, reason in kept], NAMED)
    verb = "nodes stay" if len(kept) != 1 else "node stays"
    return f"{len(kept)} {verb} fp32 in this {half} graph: {listed}"


def _fit(prepared: Prepared, backend: Backend, path: Path, reasons: Mapping[str, str] | None) -> None:
    """Write the graph in operators that ``backend`` knows.

    Args:
        reasons: why plugins, by node name, could not be lowered; None where none was to be.

    Raises:
        BuildError: nodes remain that it does not know; all are named, with what to do.
    """
    from nvidia_tao_deploy.engine.operators import known_operators
    from nvidia_tao_deploy.graph.decompose import decompose_norms, set_kernel_shapes
    from nvidia_tao_deploy.graph.inspect import operator_of, shown, standard_ops, unsupported_nodes
    from nvidia_tao_deploy.graph.lower import PLUGIN_OPS
    from nvidia_tao_deploy.graph.tensors import copy_model, label, opset

    if not backend.features.layer_normalization:
        norms = decompose_norms(prepared.model, known_operators(backend, opset(prepared.model)))
        prepared.model = norms.model
        if norms.norms:
            kinds = ", ".join(sorted({kind for _, kind in norms.norms}))
            prepared.notes.append(f"{len(norms.norms)} norms ({kinds}) written out in fp32 for {backend.title}")
        prepared.notes += [f"{kind} '{name}' is not written out: {reason}" for name, kind, reason in norms.left]
    if backend.features.typing == "weak":
        prepared.model = copy_model(prepared.model)
        set_kernel_shapes(prepared.model)  # TensorRT 8.5 needs them where weights stand behind Q/DQ
        _older_opset(prepared, backend)
    unknown = unsupported_nodes(prepared.model, known_operators(backend, opset(prepared.model)))
    foreign = [node for node in unknown if operator_of(node) != node.op_type and backend.features.plugins]
    if foreign:
        listed = some(map(shown, foreign), NAMED)
        prepared.notes.append(f"{len(foreign)} nodes of other domains must be plugins {backend.title} finds: {listed}")
        unknown = [node for node in unknown if node not in foreign]
    if not unknown:
        return
    if reasons is None and all(node.op_type in PLUGIN_OPS for node in unknown):
        remedy = "Set gen_trt_engine.tensorrt.plugins to auto or lower: these plugins become standard operators."
    else:
        remedy = "Export the model without these operators, or end it before them and give their inputs as outputs."
        if backend.features.plugins:
            remedy += " A plugin of your own must be loaded (LD_PRELOAD its library)."
        elif any(node.op_type not in standard_ops(opset(prepared.model)) for node in unknown):
            remedy += " TensorRT's own plugins need TensorRT and its GPU: gen_trt_engine.tensorrt.runtime=tensorrt."
    why = {name: f": {reason}" for name, reason in (reasons or {}).items()}
    told = (f"{shown(node)}{why.get(label(node), '')}" for node in unknown)
    raise BuildError(
        f"{backend.title} does not know the operator of {len(unknown)} node{'s' if len(unknown) > 1 else ''}: "
        f"{some(told, NAMED)}",
        where=str(path),
        remedy=remedy,
    )


def _older_opset(prepared: Prepared, backend: Backend) -> None:
    """Bring the graph down to the newest opset the parser reads: newer forms are misread there, not refused."""
    from nvidia_tao_deploy.graph.precision import convert_opset
    from nvidia_tao_deploy.graph.tensors import opset

    limit, found = backend.features.max_opset, opset(prepared.model)
    if found <= limit:
        return
    converted = convert_opset(prepared.model, limit)
    if converted is not None:
        prepared.model = converted
        prepared.notes.append(f"converted from opset {found} to {limit}, the newest that {backend.title} reads")


def plugins_left(model: ModelProto) -> list[str]:
    """Operators that ONNX Runtime does not know, and that no lowering replaces."""
    from nvidia_tao_deploy.graph.inspect import operator_of
    from nvidia_tao_deploy.graph.runnable import runnable
    from nvidia_tao_deploy.graph.tensors import foreign_ops

    model = runnable(model)
    foreign = foreign_ops(model)
    return sorted({operator_of(n) for n in model.graph.node if n.op_type in foreign and n.domain != "com.microsoft"})


def images_of(network: Network, spec: Any, prepared: Prepared) -> CalibrationImages | None:
    """All calibration images for a quantized build, a few for the checks of the others; None where none are there.

    A build whose scales come from a cache, a tensorfile or QAT, or that needs none, can do without images.

    Raises:
        DataError: the images that it needs are missing or unreadable.
        BuildError: it needs them, and ONNX Runtime cannot run the model.
    """
    from nvidia_tao_deploy.engine.profiles import static_batch
    from nvidia_tao_deploy.graph.load import model_inputs

    options = spec.gen_trt_engine.tensorrt
    calibration = options.calibration
    quantized = options.data_type in QUANTIZED
    elsewhere = any(name and Path(name).is_file() for name in (calibration.cal_cache_file, calibration.cal_data_file))
    elsewhere = elsewhere or bool(calibration.cal_json_file and not calibration.force_ptq)
    needed = quantized and not elsewhere
    if not calibration.cal_image_dir and not needed:
        return None
    if not (quantized and calibration.mode == "implicit") and (plugins := plugins_left(prepared.model)):
        what = f"ONNX Runtime, which runs the model on them, does not know {some(plugins, NAMED)}"
        if needed:
            raise BuildError(
                f"the calibration images are of no use: {what}",
                where=spec.where("gen_trt_engine.tensorrt.data_type"),
                remedy="Give the scales as calibration.cal_cache_file, let TensorRT (to 10) calibrate with "
                "calibration.mode: implicit, or build fp16.",
            )
        prepared.notes.append(f"goes on without calibration images: {what}")
        return None
    limit = None if quantized else PARITY_BATCHES * calibration.cal_batch_size
    try:
        images = CalibrationImages(network, spec, prepared.transform, prepared.ports, limit)
    except DataError as error:  # specs are carried to machines without the images
        if needed:
            raise
        prepared.notes.append(f"goes on without calibration images: {error.what} ({error.where or 'cal_image_dir'})")
        return None
    fixed = static_batch(model_inputs(prepared.model))
    if fixed is not None and fixed != images.batch_size:
        if quantized:
            prepared.notes.append(f"cal_batch_size {images.batch_size} becomes {fixed}, the model's fixed batch")
        images.batch_size = fixed
    images.whole = fixed is not None
    return images


def _quantize(spec: Any, prepared: Prepared, layers: Mapping[str, str], backend: Backend) -> list[str]:
    """Find the scales and insert Q/DQ pairs; the globs that name no node."""
    from nvidia_tao_deploy.engine.backend import version_tuple
    from nvidia_tao_deploy.graph.quantize import quantizable_tensors, quantize
    from nvidia_tao_deploy.graph.runnable import runnable

    options = spec.gen_trt_engine.tensorrt
    wanted = options.data_type
    if options.calibration.quantizer == "modelopt":
        return _quantize_by_modelopt(spec, prepared, layers)
    tensors = quantizable_tensors(prepared.model, precision=wanted, layers=layers)
    # A cache is TensorRT's; what an RTX build writes is in the form of the last release that reads caches.
    version = version_tuple(backend.version) if backend.name == "tensorrt" else (10, 16, 1)
    major, minor, patch = (*version, 0, 0)[:3]
    scales, facts = find_scales(spec, prepared, runnable(prepared.model), tensors, (major, minor, patch))
    result = quantize(prepared.model, scales, precision=wanted, layers=layers)
    prepared.model, prepared.calibration = result.model, facts
    prepared.notes += [f"in float: {name}: {reason}" for name, reason in result.skipped]
    return result.unmatched


def _quantize_by_modelopt(spec: Any, prepared: Prepared, layers: Mapping[str, str]) -> list[str]:
    from nvidia_tao_deploy.calibration.modelopt import quantize_with_modelopt
    from nvidia_tao_deploy.graph.tensors import matches

    options = spec.gen_trt_engine.tensorrt
    if prepared.images is None:
        spec.require("gen_trt_engine.tensorrt.calibration.cal_image_dir")
    assert prepared.images is not None
    nodes = prepared.model.graph.node
    globs = [glob for glob, wish in layers.items() if wish != options.data_type]
    exclude = [node.name for node in nodes if any(matches(node, glob) for glob in globs)]
    prepared.model, version = quantize_with_modelopt(
        prepared.model,
        prepared.images.batches,
        precision=options.data_type,
        method=options.calibration.method,
        exclude=exclude,
    )
    facts = calibration_facts(spec, prepared.images, options.calibration.method)
    prepared.calibration = {**facts, "quantizer": f"modelopt {version}"}
    prepared.notes.append(f"Q/DQ pairs by Model Optimizer {version}; caches, tensorfiles and QAT scales are not used")
    return [glob for glob in layers if not any(matches(node, glob) for node in nodes)]


def _value_ranges(prepared: Prepared) -> dict[str, tuple[float, float]]:
    """(min, max) of every float tensor on a few calibration images: what fp16 cannot hold stays fp32."""
    if prepared.images is None:
        return {}
    from nvidia_tao_deploy.calibration.ranges import collect_minmax, float_activations
    from nvidia_tao_deploy.graph.runnable import runnable

    model = runnable(prepared.model)
    return collect_minmax(model, islice(prepared.images.batches(), PARITY_BATCHES), float_activations(model))
