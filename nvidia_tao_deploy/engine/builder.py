"""Carrying out a build plan with the TensorRT API. Runs inside the builder process; decides nothing.

The API is called directly: Polygraphy reports neither which node a parser refused nor why, chooses TensorRT or RTX
once per process by an environment variable, and clears TF32 on its own. Its Calibrator serves the implicit mode.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.engine import implicit, inspector
from nvidia_tao_deploy.engine.backend import Backend, network_flags, registered_plugins
from nvidia_tao_deploy.engine.known_errors import explain, is_harmless, shown
from nvidia_tao_deploy.engine.options import BuildPlan
from nvidia_tao_deploy.errors import BuildError, DataError
from nvidia_tao_deploy.files import write_bytes

Emit = Callable[[dict[str, Any]], None]
_PRECISION_TYPES = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int8": "INT8", "int32": "INT32"}
_PROGRESS_INTERVAL = 0.5  # seconds between progress events of one phase


def make_logger(trt: Any, emit: Emit, *, gpu: bool, verbose: bool) -> Any:
    """A TensorRT logger that sends events and keeps ``errors``, without the harmless ones, in order.

    One per process: TensorRT ignores a second one.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            # VERBOSE lines are by the ten thousand: drop them before anything is done with them.
            if severity == trt.ILogger.VERBOSE and not verbose:
                return
            message = message.strip()
            if severity.name in ("ERROR", "INTERNAL_ERROR"):
                if is_harmless(message, gpu=gpu):
                    return
                self.errors.append(message)
            emit({"event": "log", "severity": severity.name, "text": message})

    return Logger()


def build_plan(plan: BuildPlan, backend: Backend, emit: Emit, batches: implicit.BatchSource | None = None) -> bytes:
    """Build the engine ``plan`` describes and return its serialized bytes.

    ``emit`` receives log and progress events; ``batches`` gives the next calibration batch in implicit mode.

    Raises:
        BuildError: the parser or the builder refused; the message has every reason, the cause and the remedy.
    """
    from nvidia_tao_deploy.runtime import cuda

    trt = backend.module
    gpu = cuda.gpu_available()
    logger = make_logger(trt, emit, gpu=gpu, verbose=plan.options.verbose)
    errors: list[str] = logger.errors
    if gpu and plan.options.device:
        cuda.set_device(plan.options.device)
    if backend.features.plugins:
        trt.init_libnvinfer_plugins(logger, "")
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # what the binding makes of a factory that returned nothing
        what = f"{backend.title} could not start: {_reason(errors)}"
        raise BuildError(what, remedy=_advice(errors)) from error
    network = builder.create_network(network_flags(backend, strongly_typed=plan.strongly_typed))
    parser = trt.OnnxParser(network, logger)
    if plan.options.version_compatible and backend.features.native_instance_norm_flag:
        parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    if not parser.parse_from_file(plan.model):  # from its file: external weights are found beside it
        raise _parser_failure(trt, parser, plan)
    config = configure(backend, builder, network, plan, errors, emit)
    pin_layers(trt, network, plan, emit)
    cache = attach_timing_cache(config, plan, emit) if backend.features.timing_cache else None
    calibrator = None
    if plan.calibrator is not None:
        calibrator, note = implicit.make_calibrator(trt, plan, batches)
        config.int8_calibrator = calibrator
        if note is not None:
            emit({"event": "warning", "text": note})
    serialized = builder.build_serialized_network(network, config)
    if serialized is None and _relax_constraints(trt, config, errors, emit):
        serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        what = f"{backend.title} could not build the engine: {_reason(errors)}"
        raise BuildError(what, where=plan.shown_as, remedy=_advice(errors))
    if cache is not None:
        _save_timing_cache(config, Path(plan.options.timing_cache or ""), emit)
    if calibrator is not None:
        implicit.save_cache(calibrator, plan)
    data = bytes(memoryview(serialized))
    if gpu and backend.name == "tensorrt":
        verify(trt, logger, data, plan, emit)
    return data


def verify(trt: Any, logger: Any, data: bytes, plan: BuildPlan, emit: Emit) -> None:
    """Read the engine back and report the precisions its layers run in.

    Raises:
        BuildError: the graph has Q/DQ pairs and nothing in the engine is int8.
    """
    text = inspector.read_layers(trt, logger, data)
    if text is None:
        # Stripped and version compatible plans load only in a runtime set up for them.
        return
    counts, opaque = inspector.count_precisions(text), inspector.opaque_layers(text)
    emit({"event": "layers", "counts": counts, "opaque": opaque})
    if plan.quantized_to == "int8" and "int8" not in text.lower():
        raise BuildError(
            "int8 was asked for and no layer of the engine runs in int8",
            where=plan.shown_as,
            remedy="The Q/DQ pairs found no int8 kernels on this GPU: use fp16.",
        )


def _relax_constraints(trt: Any, config: Any, errors: list[str], emit: Emit) -> bool:
    """After a build that failed for want of a kernel, turn "obey" layer precisions into "prefer"; whether it did."""
    obey = getattr(trt.BuilderFlag, "OBEY_PRECISION_CONSTRAINTS", None)
    if obey is None or not config.get_flag(obey):
        return False
    if not any("Could not find any implementation" in line for line in errors):
        return False
    config.clear_flag(obey)
    config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    text = "a layer has no kernel in the precision given to it: building again with precisions preferred, not obeyed"
    emit({"event": "warning", "text": text})
    errors.clear()
    return True


def _parser_failure(trt: Any, parser: Any, plan: BuildPlan) -> BuildError:
    """One error from all that a parser collected.

    Parsers before 10 stop at the first node they do not know and name it by its index alone.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        nodes = onnx.load(plan.model, load_external_data=False).graph.node
    except (OSError, DecodeError):
        nodes = ()
    lines = [_parser_line(parser.get_error(index), nodes) for index in range(parser.num_errors)]
    said = "\n".join(lines)
    unknown = {node.op_type for node in nodes if not parser.supports_operator(node.op_type)} - registered_plugins(trt)
    names = [shown(node.op_type, node.name) for node in nodes if node.op_type in unknown]
    lines += [f"{name}: this operator is not known" for name in names if name not in said]
    lines = lines or ["the parser gave no reason"]
    listing = lines[0] if len(lines) == 1 else "\n  - " + "\n  - ".join(dict.fromkeys(lines))
    return BuildError(f"the ONNX parser refused the model: {listing}", where=plan.shown_as, remedy=_advice(lines))


def _parser_line(error: Any, nodes: Sequence[Any]) -> str:
    description = str(error.desc()).strip()
    operator, name = (
        str(getattr(error, method)()) if hasattr(error, method) else "" for method in ("node_operator", "node_name")
    )
    index = error.node()
    if not operator and 0 <= index < len(nodes):
        operator, name = nodes[index].op_type, nodes[index].name
    code = getattr(error.code(), "name", str(error.code()))
    reason = description or code
    if not operator:
        return f"{reason} ({code})"
    if code == "UNSUPPORTED_NODE":
        # A short text is the failed check's source ("false"), of use to nobody.
        said = f" ({description})" if len(description) > 12 else ""
        reason = f"this operator or this form of it is not supported{said}"
    return f"{shown(operator, name)}: {reason}"


def configure(backend: Backend, builder: Any, network: Any, plan: BuildPlan, errors: list[str], emit: Emit) -> Any:
    """The builder configuration for ``plan``.

    Raises:
        BuildError: a profile is refused, a shape input has no values, the GPU or DLA cannot do what is asked.
    """
    trt, options = backend.module, plan.options
    config = builder.create_builder_config()
    _check_platform(builder, plan)
    for name in plan.set_flags:
        config.set_flag(getattr(trt.BuilderFlag, name))
    for name in plan.clear_flags:
        config.clear_flag(getattr(trt.BuilderFlag, name))
    if options.workspace_bytes:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.max_aux_streams is not None:
        config.max_aux_streams = options.max_aux_streams
    if options.hardware_compatibility:
        level = getattr(trt.HardwareCompatibilityLevel, options.hardware_compatibility.upper())
        config.hardware_compatibility_level = level
    if options.dla_core is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
    if os.environ.get("TRT_NO_EXTERNAL_TACTICS") == "1" and backend.name == "tensorrt":
        config.set_tactic_sources(0)
    if plan.targets:
        config.num_compute_capabilities = len(plan.targets)
        for index, (major, minor) in enumerate(plan.targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{major}{minor}"), index)
    if backend.features.progress_monitor:
        config.progress_monitor = _monitor(trt, emit)
    _add_profile(builder, network, config, plan, errors)
    return config


def _check_platform(builder: Any, plan: BuildPlan) -> None:
    for precision in ("fp16", "int8"):
        if precision.upper() in plan.set_flags and not getattr(builder, f"platform_has_fast_{precision}", True):
            raise BuildError(f"this GPU has no fast {precision}", remedy="Choose another data_type.")
    core = plan.options.dla_core
    if core is not None and core >= builder.num_DLA_cores:
        what = f"DLA core {core} was asked for and this device has {builder.num_DLA_cores}"
        raise BuildError(what, remedy="DLA cores exist on Jetson boards only; leave dla_core empty.")


def _add_profile(builder: Any, network: Any, config: Any, plan: BuildPlan, errors: list[str]) -> None:
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    if not any(tensor.is_shape_tensor or -1 in tuple(tensor.shape) for tensor in tensors):
        return
    profile = builder.create_optimization_profile()
    for tensor in tensors:
        if tensor.is_shape_tensor:
            values = plan.options.shape_values.get(tensor.name)
            if values is None:
                raise BuildError(
                    f"input {tensor.name!r} is a shape tensor: its values decide shapes",
                    remedy="Give its min, opt and max values, or export the model with that shape fixed.",
                )
            profile.set_shape_input(tensor.name, *values)
        elif tensor.name in plan.options.profiles:
            profile.set_shape(tensor.name, *(tuple(shape) for shape in plan.options.profiles[tensor.name]))
    for _ in range(plan.profile_copies):
        # set_shape reports nothing: a bad profile shows only here, as -1.
        if config.add_optimization_profile(profile) < 0:
            raise BuildError("the builder refused the shape profile", remedy=_advice(errors))
    if plan.calibrator is not None:
        config.set_calibration_profile(profile)


def pin_layers(trt: Any, network: Any, plan: BuildPlan, emit: Emit) -> None:
    """Hold layers of a weakly typed network to the precision the graph or the spec gives them."""
    if not plan.pinned_nodes and not plan.pinned_tensors:
        return
    tensors, used = set(plan.pinned_tensors), set()
    skipped = {getattr(trt.LayerType, name) for name in _UNTYPED_LAYERS if hasattr(trt.LayerType, name)}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        node = _node_of(layer.name, plan.pinned_nodes)
        outputs = [layer.get_output(number) for number in range(layer.num_outputs)]
        if node is not None:
            used.add(node)
        if layer.type in skipped:
            continue
        precision = plan.pinned_nodes[node] if node is not None else None
        if precision is None and any(tensor.name in tensors for tensor in outputs):
            precision = "fp32"
        if precision is None:
            continue
        data_type = getattr(trt.DataType, _PRECISION_TYPES[precision])
        if _is_float(trt, outputs) and not _takes_integers(trt, layer):
            layer.precision = data_type
        elif not layer.type.name.startswith("PLUGIN"):
            continue
        for number, tensor in enumerate(outputs):
            if _is_float(trt, [tensor]):
                layer.set_output_type(number, data_type)
    unused = sorted(set(plan.pinned_nodes) - used)
    if unused:
        text = f"{len(unused)} nodes given a precision have no layer of their own: {', '.join(unused[:5])}"
        emit({"event": "warning", "text": text})


_UNTYPED_LAYERS = ("CONSTANT", "SHAPE", "CAST", "IDENTITY", "QUANTIZE", "DEQUANTIZE", "ASSERTION", "CONDITION")


def _is_float(trt: Any, outputs: list[Any]) -> bool:
    kinds = {trt.DataType.FLOAT, trt.DataType.HALF}
    return bool(outputs) and all(not tensor.is_shape_tensor and tensor.dtype in kinds for tensor in outputs)


def _takes_integers(trt: Any, layer: Any) -> bool:
    """A plugin with an integer input: a precision given to the layer would be asked of that input too."""
    if not layer.type.name.startswith("PLUGIN"):
        return False
    inputs = [layer.get_input(number) for number in range(layer.num_inputs)]
    return not _is_float(trt, [tensor for tensor in inputs if tensor is not None])


def _node_of(layer: str, nodes: Any) -> str | None:
    """The ONNX node a layer was made for: the parser numbers further layers of one node ``name_0``, ``name_1``."""
    if layer in nodes:
        return layer
    base = re.sub(r"_\d+$", "", layer)
    return base if base in nodes else None


def _monitor(trt: Any, emit: Emit) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._last = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase
            self._steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            now = time.monotonic()
            if now - self._last >= _PROGRESS_INTERVAL:
                self._last = now
                steps = self._steps.get(phase_name, 0)
                emit({"event": "progress", "phase": phase_name, "step": step + 1, "steps": steps})
            return True

    return Monitor()


def attach_timing_cache(config: Any, plan: BuildPlan, emit: Emit) -> Any:
    """Attach the timing cache of the plan; one of another GPU or version is replaced, which is said."""
    if plan.options.timing_cache is None:
        return None
    path = Path(plan.options.timing_cache)
    blob = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(blob)
    # TensorRT 8.5 takes a damaged file for an empty cache without a word.
    hollow = blob and cache is not None and _size(cache) <= _size(config.create_timing_cache(b""))
    if cache is None or hollow or not config.set_timing_cache(cache, False):
        text = f"timing cache {path} is damaged, or of another TensorRT, GPU or CUDA: starting a new one"
        emit({"event": "warning", "text": text})
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _size(cache: Any) -> int:
    return len(bytes(memoryview(cache.serialize())))


def _save_timing_cache(config: Any, path: Path, emit: Emit) -> None:
    cache = config.get_timing_cache()
    if cache is None:
        return
    try:
        write_bytes(path, bytes(memoryview(cache.serialize())))
    except DataError as error:
        # The engine is built: losing the cache costs time next time, not this result.
        emit({"event": "warning", "text": f"the timing cache was not saved: {error}"})


def _reason(errors: list[str]) -> str:
    """Of what a library reported, the line that says why."""
    known = explain(errors)
    matching = [line for line in errors if known is not None and re.search(known[0], line)]
    return next(iter(matching or errors), "it gave no reason")


def _advice(lines: list[str]) -> str:
    known = explain(lines)
    return known[1] if known else "Run again with --verbose for the builder's own log."
