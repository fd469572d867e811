"""What the user may ask of a build, and the plan that follows for one builder and one graph.

Every option is either carried out or refused with the reason: `plan_build` is the only place that decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from nvidia_tao_deploy.data.text import some
from nvidia_tao_deploy.engine.backend import RTX_UNSERVED, Backend
from nvidia_tao_deploy.engine.profiles import Profile
from nvidia_tao_deploy.errors import BuildError
from nvidia_tao_deploy.runtime import cuda

if TYPE_CHECKING:
    from nvidia_tao_deploy.engine.facts import GraphFacts

_SMALLEST_CAPABILITY = {"bf16": (8, 0), "fp8": (8, 9)}
_LOWER = "Lower them to standard operators (gen_trt_engine.tensorrt.plugins: lower)."
_FP16 = "Use fp16, or drop that target."
BatchFactory = Callable[[], Iterable[Mapping[str, NDArray[Any]]]]
Problem = tuple[str, str | None]  # what is wrong, and the remedy


@dataclass(frozen=True)
class ImplicitCalibration:
    """TensorRT's own int8 calibrator (TensorRT <= 10).

    ``batches`` gives the calibration batches, name -> array, each of exactly the opt shape of the profile;
    it may be None when ``cache_file`` exists. ``calibrator`` is a class of TensorRT.
    """

    batches: BatchFactory | None = None
    cache_file: Path | None = None
    calibrator: str = "IInt8EntropyCalibrator2"


@dataclass(frozen=True)
class BuildOptions:
    """The settings of one build. The precision itself stands in the ONNX graph (casts, Q/DQ); ``precision`` says
    which one was asked for and is compared with the graph. ``profiles``: see `profiles.propose`.
    ``compute_capabilities``: RTX targets such as (8, 6); empty means all that the graph and the builder allow.
    ``contexts``: execution contexts that shall be able to work at once.
    ``workspace_bytes`` None: the builder's default. ``timeout_s`` bounds the whole build."""

    precision: str = "fp32"
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    shape_values: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    runtime: str = "auto"
    device: int = 0
    contexts: int = 1
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    compute_capabilities: tuple[tuple[int, int], ...] = ()
    tf32: bool = False
    layer_precisions: Mapping[str, str] = field(default_factory=dict)
    optimization_level: int | None = None
    max_aux_streams: int | None = None
    version_compatible: bool = False
    hardware_compatibility: str | None = None
    sparse_weights: bool = False
    refit: bool = False
    weight_streaming: bool = False
    dla_core: int | None = None
    strict_types: bool = False
    implicit: ImplicitCalibration | None = None
    verbose: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True)
class BuildPlan:
    """What the builder process is told: plain data, no decisions left. Flags are names in ``BuilderFlag``."""

    options: BuildOptions  # but for the implicit calibration
    runtime: str
    model: str
    shown_as: str
    strongly_typed: bool
    set_flags: tuple[str, ...]
    clear_flags: tuple[str, ...]
    pinned_nodes: Mapping[str, str]  # node name -> precision; weakly typed builds only
    pinned_tensors: tuple[str, ...]  # computed in float32
    profile_copies: int
    targets: tuple[tuple[int, int], ...]
    quantized_to: str | None  # the type of the graph's Q/DQ pairs
    calibrator: str | None
    calibration_cache: str | None
    calibration_inputs: Mapping[str, Any]  # input name -> (opt shape, dtype name)
    notes: tuple[str, ...] = ()


def plan_build(
    model_path: Path, facts: GraphFacts, options: BuildOptions, backend: Backend, *, shown_as: Path | None = None
) -> BuildPlan:
    """Decide how ``backend`` builds the graph; ``shown_as`` is the model's name in messages.

    Raises:
        BuildError: an option, the precision or the graph itself is not for this builder; all reasons are listed.
    """
    notes: list[str] = []
    implicit, typing = options.implicit, backend.features.typing
    # On 10.x the calibrator and the DLA exist only in weakly typed networks.
    weak = typing == "weak" or (typing == "optional" and (implicit is not None or options.dla_core is not None))
    problems = [
        *_precision_problems(facts, options, backend),
        *_graph_problems(facts, backend, notes),
        *_option_problems(options, backend, weak, notes),
    ]
    targets, target_problems = _targets(facts, options, backend, notes)
    here = cuda.compute_capability(options.device)
    if targets and here is not None and here not in targets:
        notes.append(f"this machine's GPU has compute capability {_dot(here)}: the engine will not run on it")
    problems += target_problems
    if problems:
        lines = [what if remedy is None else f"{what} {remedy}" for what, remedy in problems]
        raise BuildError(
            f"{backend.title} cannot build this: {lines[0]}" if len(lines) == 1
            else f"{backend.title} cannot build this:\n  - " + "\n  - ".join(lines),
            where=str(shown_as or model_path),
        )  # fmt: skip
    set_flags, clear_flags = _flags(facts, options, weak, notes)
    # A strongly typed network has its precisions in the graph.
    pinned_nodes = {**dict.fromkeys(facts.fp32_nodes, "fp32"), **options.layer_precisions} if weak else {}
    pinned_tensors = facts.fp32_tensors if weak else ()
    if pinned_nodes or pinned_tensors:
        set_flags.append("OBEY_PRECISION_CONSTRAINTS")
    return BuildPlan(
        options=replace(options, implicit=None),
        runtime=backend.name,
        model=str(Path(model_path).resolve()),
        shown_as=str(shown_as or model_path),
        strongly_typed=not weak,
        set_flags=tuple(dict.fromkeys(set_flags)),
        clear_flags=tuple(clear_flags),
        pinned_nodes=pinned_nodes,
        pinned_tensors=pinned_tensors,
        profile_copies=1 if backend.features.shared_profiles else options.contexts,
        targets=targets,
        quantized_to=facts.precision if facts.quantized_layers else None,
        calibrator=implicit.calibrator if implicit else None,
        calibration_cache=str(implicit.cache_file) if implicit and implicit.cache_file else None,
        calibration_inputs={
            info.name: [list(options.profiles[info.name].opt), info.dtype.name]
            for info in (facts.inputs if implicit else ())
        },
        notes=tuple(notes),
    )


def _precision_problems(facts: GraphFacts, options: BuildOptions, backend: Backend) -> list[Problem]:
    wanted = options.precision
    if wanted not in backend.features.precisions:
        offered = ", ".join(backend.features.precisions)
        return [(f"{wanted} is not offered by this version (it offers {offered}).", "Choose one, or a newer TensorRT.")]
    if options.implicit is not None:
        return []
    if wanted in ("int8", "fp8") and facts.precision != wanted:
        return [(f"{wanted} was asked for and the graph holds {facts.precision}.", "Quantize it first (Q/DQ pairs).")]
    half = {"fp16": "float16", "bf16": "bfloat16"}.get(wanted)
    if half is not None and half not in facts.float_types:
        return [(f"{wanted} was asked for and the graph has no {half} tensors.", "Cast it first.")]
    return []


def _graph_problems(facts: GraphFacts, backend: Backend, notes: list[str]) -> list[Problem]:
    features = backend.features
    problems: list[Problem] = [(f"{fault}.", None) for fault in facts.faulty_quantizers]
    if facts.opset > features.max_opset:
        notes.append(
            f"the graph is at opset {facts.opset}, this parser documents up to {features.max_opset}: "
            "operators that changed since may be refused"
        )
    if facts.integer_nodes:
        names = some(facts.integer_nodes, 8)
        problems.append((f"integer operators are not supported: {names}.", "Quantize with Q/DQ pairs instead."))
    if not features.plugins and facts.custom_nodes:
        problems.append((f"plugin or custom operators are not supported: {some(facts.custom_nodes, 8)}.", _LOWER))
    if backend.name == "tensorrt_rtx" and facts.nms_nodes:
        problems.append((f"there is no NonMaxSuppression: {some(facts.nms_nodes, 8)}.", _LOWER))
    if facts.quantized_convolution and not features.int8_convolution and facts.precision == "int8":
        problems.append(("int8 convolutions need TensorRT-RTX 1.7 or newer.", "Upgrade it or use fp16."))
    if facts.is_quantized and not features.float16_scales and facts.scale_types - {"float"}:
        problems.append(("Q/DQ scales must be float32 here and some are not.", "Keep the scales in float32."))
    if facts.is_quantized and features.typing == "weak" and facts.missing_zero_points:
        problems.append((f"{facts.missing_zero_points} Q/DQ nodes have no zero point.", "Give them an int8 zero."))
    return problems


def _option_problems(options: BuildOptions, backend: Backend, weak: bool, notes: list[str]) -> list[Problem]:
    features, rtx = backend.features, backend.name == "tensorrt_rtx"
    here = f"{backend.title} has"
    problems: list[Problem] = []

    def need(asked: bool, offered: bool, what: str, remedy: str | None = None) -> None:
        if asked and not offered:
            problems.append((f"{here} no {what}.", remedy))

    if options.timing_cache is not None and not features.timing_cache:
        notes.append(f"{here} no timing cache (it builds in seconds without): timing_cache is not used")
    need(options.optimization_level is not None, features.optimization_level, "builder_optimization_level (8.6 on).")
    need(options.max_aux_streams is not None, features.max_aux_streams, "max_aux_streams (8.6 on).")
    need(
        options.version_compatible, features.version_compatible, "version compatible engines",
        "They need TensorRT 8.6 or newer; TensorRT-RTX engines are bound to its exact version.",
    )  # fmt: skip
    need(options.weight_streaming, features.weight_streaming, "weight streaming", "It needs TensorRT 10 or newer.")
    need(options.dla_core is not None, features.dla, "DLA", "It needs TensorRT 8.5 to 10 on a Jetson.")
    need(
        options.implicit is not None, features.implicit_calibration,
        "implicit int8 calibration (removed in 11, never in RTX)",
        "Use calibration.mode: explicit, which puts Q/DQ into the graph.",
    )  # fmt: skip
    level = options.hardware_compatibility
    need(
        level is not None, (level or "").upper() in features.hardware_compatibility, f"hardware compatibility {level}",
        "List the GPUs in compute_capabilities instead." if rtx else "ampere_plus needs 8.6, the other 10.9.",
    )  # fmt: skip
    if options.compute_capabilities and not features.targets:
        problems.append((f"{here} no compute capability targets: it builds for the GPU at hand.", "Leave them empty."))
    if options.weight_streaming and weak and features.weight_streaming:
        problems.append(("weight streaming needs a strongly typed network.", "Drop implicit calibration or DLA."))
    if options.dla_core is not None and options.precision not in ("fp16", "int8"):
        problems.append((f"the DLA runs fp16 and int8, not {options.precision}.", "Change data_type."))
    if rtx and options.refit and not cuda.gpu_available():
        problems.append(("refittable engines need a GPU while TensorRT-RTX builds.", "Build on one."))
    cache = options.implicit.cache_file if options.implicit else None
    if options.implicit and options.implicit.batches is None and not (cache and cache.is_file()):
        problems.append(("int8 calibration has neither images nor an existing cache.", "Set cal_image_dir."))
    if options.layer_precisions and not weak:
        problems.append(("layer precisions stand in the graph for strongly typed networks.", "Cast those nodes."))
    if options.strict_types and not weak:
        notes.append("strict types: always so, the network is strongly typed")
    if options.refit and options.precision in ("int8", "fp8"):
        notes.append("a refittable engine loses most int8/fp8 fusions")
    return problems


def _targets(
    facts: GraphFacts, options: BuildOptions, backend: Backend, notes: list[str]
) -> tuple[tuple[tuple[int, int], ...], list[Problem]]:
    precision = options.precision if options.precision in ("bf16", "fp8") else facts.precision
    smallest = _SMALLEST_CAPABILITY.get(precision, (0, 0))
    if not backend.features.targets:
        gpu = cuda.compute_capability(options.device)
        if gpu is not None and gpu < smallest:
            return (), [(f"{precision} needs compute capability {_dot(smallest)}, this GPU has {_dot(gpu)}.", _FP16)]
        return (), []
    offered = backend.features.targets
    if options.compute_capabilities:
        problems = [_target_problem(cc, offered, precision, smallest) for cc in options.compute_capabilities]
        return tuple(options.compute_capabilities), [problem for problem in problems if problem is not None]
    # SM 7.5 must be asked for by name: fp32 networks fail on it.
    chosen = tuple(cc for cc in offered if cc >= max(smallest, (8, 0)))
    left_out = [cc for cc in offered if (8, 0) <= cc < smallest]
    if left_out:
        notes.append(f"{precision} leaves out the targets {', '.join(_dot(cc) for cc in left_out)}")
    return chosen, []


def _target_problem(
    cc: tuple[int, int], offered: tuple[tuple[int, int], ...], precision: str, smallest: tuple[int, int]
) -> Problem | None:
    if cc in RTX_UNSERVED:
        return (
            f"compute capability {_dot(cc)} (data-center GPUs) has no TensorRT-RTX target.",
            "Build with TensorRT on that machine: gen_trt_engine.tensorrt.runtime=tensorrt.",
        )
    if cc not in offered:
        listed = ", ".join(map(_dot, offered))
        return f"compute capability {_dot(cc)} is not among its targets.", f"Choose from {listed}."
    if cc < smallest:
        return f"{precision} needs compute capability {_dot(smallest)} and {_dot(cc)} is listed.", _FP16
    if cc == (7, 5) and precision == "fp32":
        return "compute capability 7.5 has no fp32 matrix products in TensorRT-RTX.", "Use fp16 or drop 7.5."
    return None


def _dot(cc: tuple[int, int]) -> str:
    return f"{cc[0]}.{cc[1]}"


def _flags(facts: GraphFacts, options: BuildOptions, weak: bool, notes: list[str]) -> tuple[list[str], list[str]]:
    chosen = [
        name
        for name, asked in (
            ("TF32", options.tf32),
            ("VERSION_COMPATIBLE", options.version_compatible),
            ("SPARSE_WEIGHTS", options.sparse_weights),
            ("REFIT", options.refit),
            ("WEIGHT_STREAMING", options.weight_streaming),
            ("GPU_FALLBACK", options.dla_core is not None),
        )
        if asked
    ]
    if weak:
        int8 = options.implicit is not None or facts.precision == "int8"
        fp16 = "float16" in facts.float_types or (int8 and not options.strict_types)
        fp16 = fp16 or (options.dla_core is not None and options.precision == "fp16")
        chosen += [name for name, asked in (("FP16", fp16), ("INT8", int8)) if asked]
        if "bfloat16" in facts.float_types:
            chosen.append("BF16")
        if int8 and fp16 and "float16" not in facts.float_types:
            notes.append("int8 on a weakly typed TensorRT: what is not quantized may run in fp16")
    return chosen, [] if options.tf32 else ["TF32"]
