"""The typed sections that networks share.

A network's spec derives from :class:`NetworkSpec` and replaces the sections in which it differs. Only keys that
something reads are fields here; keys that only training reads are data (``spec/known``). Every field carries its
description, so ``default_specs`` and the JSON Schema are generated from this module alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.drift import Drift
from nvidia_tao_deploy.spec.fields import changed_fields, field, section
from nvidia_tao_deploy.spec.flags import flag_of
from nvidia_tao_deploy.spec.trees import Tree, at, merged

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
RangeMethod = Literal["minmax", "entropy", "percentile", "mse"]
SECRETS = ("encryption_key", "enc_key", "key")
LAYER_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int32")


def _one_or_list(value: Any) -> Any:
    """A lone scalar stands for a list of one."""
    if value is None:
        return []
    return [value] if isinstance(value, (str, int, float)) else value


def lower(value: Any) -> Any:
    """Text in lower case; anything else as it is."""
    return value.lower() if isinstance(value, str) else value


def _layer_precision(entry: str) -> str:
    name, _, precision = entry.rpartition(":")
    if not name or precision.strip().lower() not in LAYER_PRECISIONS:
        raise ValueError(f"'{entry}' is not 'layer name:precision' with a precision of {', '.join(LAYER_PRECISIONS)}")
    return f"{name.strip()}:{precision.strip().lower()}"


def _compute_capability(value: Any) -> str:
    text = f"{value}"
    if not re.fullmatch(r"\d{1,2}\.\d", text):
        raise ValueError(f"'{text}' is not a compute capability like '8.6'")
    return text


StrList = Annotated[list[str], BeforeValidator(_one_or_list)]
"""A list of strings; one string is accepted too."""
IntList = Annotated[list[int], BeforeValidator(_one_or_list)]
PositiveInts = Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_one_or_list)]
GpuIds = Annotated[list[Annotated[int, Field(ge=0)]], BeforeValidator(_one_or_list)]
BatchSize = Annotated[int, Field(ge=-1), AfterValidator(lambda value: -1 if value == 0 else value)]


def mandatory(description: str, **more: Any) -> Any:
    """A field that an action cannot do without; its default is None so that other actions need not set it."""
    return Field(default=None, description=description, json_schema_extra={"mandatory": True}, **more)


class Section(BaseModel):
    """A block of typed keys. Unknown keys are refused; numbers given as text are converted."""

    model_config = ConfigDict(
        extra="forbid", populate_by_name=True, coerce_numbers_to_str=True, protected_namespaces=(), allow_inf_nan=False
    )

    def __eq__(self, other: object) -> bool:
        """Equal when every field is equal; where the values came from does not matter."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


class Calibration(Section):
    """Where INT8 ranges come from."""

    cal_image_dir: StrList = field([], "Folders of calibration images, searched recursively. One folder or a list.")
    cal_cache_file: str | None = field(None, "TensorRT calibration cache: read when it exists, else written.")
    cal_data_file: str | None = field(None, "Tensorfile (HDF5) of prepared calibration batches.")
    cal_json_file: str | None = field(None, "JSON of tensor scales of a QAT model.")
    cal_batch_size: int = field(1, "Images per calibration batch.", ge=1)
    cal_batches: int = field(1, "Number of calibration batches.", ge=1)
    mode: Literal["explicit", "implicit"] = field(
        "explicit", "explicit: Q/DQ nodes in the graph; implicit: TensorRT's own calibrator (TensorRT <= 10)."
    )
    method: RangeMethod = field("entropy", "How a range is chosen from the observed values.")
    percentile: float = field(99.99, "Share of values kept by method percentile.", gt=0, le=100)
    seed: int = field(0, "Seed of the choice of calibration images.", ge=0)
    quantizer: Literal["builtin", "modelopt"] = field("builtin", "Who inserts the Q/DQ nodes.")
    force_ptq: bool = field(False, "Calibrate even if the model was trained with QAT.")
    qat: bool = field(False, "The model was trained with QAT; scales come from cal_json_file.")
    max_metric_drop: float | None = field(
        None,
        "Keep as many layers in float as it takes to lose at most so much of the metric, in percent of the "
        "fp32 value on a part of the evaluation set (section diagnose).",
        ge=0,
    )


class Parity(Section):
    """Limits on the difference between source and engine outputs, checked after the build when set."""

    max_abs: float | None = field(None, "Largest absolute difference of any output value.", ge=0)
    min_cosine: float | None = field(None, "Smallest cosine similarity per output.", ge=-1, le=1)


class TensorRT(Section):
    """How the engine is built."""

    data_type: Annotated[Precision, BeforeValidator(lower)] = field("fp32", "Precision of the engine, in any case.")
    workspace_size: int = field(1024, "Builder workspace in MiB; 0 is TensorRT's default.", ge=0)
    min_batch_size: int = field(1, "Smallest batch of the profile.", ge=1)
    opt_batch_size: int = field(1, "Batch the engine is tuned for.", ge=1)
    max_batch_size: int = field(1, "Largest batch of the profile.", ge=1)
    layers_precision: Annotated[
        list[Annotated[str, AfterValidator(_layer_precision)]], BeforeValidator(_one_or_list)
    ] = field([], "Layers with their own precision, as 'layer name:precision'; '*' is the rest.")
    runtime: Literal["auto", "tensorrt", "tensorrt_rtx"] = field(
        "auto", "auto: tensorrt when it and a GPU are there, else tensorrt_rtx."
    )
    compute_capabilities: Annotated[
        list[Annotated[str, BeforeValidator(_compute_capability)]], BeforeValidator(_one_or_list)
    ] = field([], "Target GPUs of tensorrt_rtx, like '8.6'; empty is all the runtime supports.")
    tf32: bool = field(False, "Allow TF32 in fp32 layers.")
    simplify: bool = field(True, "Simplify the graph before building.")
    plugins: Literal["auto", "keep", "lower"] = field(
        "auto", "Plugin nodes: keep them, lower them to standard ONNX, or what the runtime needs."
    )
    calibration: Calibration = section(Calibration)
    parity: Parity = section(Parity, "Check of the engine's outputs after the build.")
    builder_optimization_level: int | None = field(None, "TensorRT's level, 0 to 5.", ge=0, le=5)
    version_compatible: bool = field(False, "Engine runs on later TensorRT versions too.")
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = field(
        "none", "Engine runs on other GPUs too."
    )
    sparse_weights: bool = field(False, "Use 2:4 structured sparsity where weights have it.")
    refittable: bool = field(False, "Weights of the engine can be replaced later.")
    weight_streaming: bool = field(False, "Weights may stay in host memory.")
    dla_core: int | None = field(None, "DLA core to build for; null is the GPU.", ge=0)
    strict_types: bool = field(False, "Keep the requested precision even where it is slower.")
    max_aux_streams: int | None = field(None, "Auxiliary CUDA streams; null is TensorRT's.", ge=0)

    @model_validator(mode="after")
    def _ordered_profile(self) -> TensorRT:
        """Untouched defaults give way to what the user set; what the user set must be ordered."""
        given = self.model_fields_set
        low, best, high = self.min_batch_size, self.opt_batch_size, self.max_batch_size
        if "max_batch_size" not in given:
            high = max([high, *(getattr(self, name) for name in given & {"min_batch_size", "opt_batch_size"})])
        if "min_batch_size" not in given:
            low = min(low, high, best if "opt_batch_size" in given else low)
        if "opt_batch_size" not in given:
            best = max(low, min(best, high))
        if not low <= best <= high:
            raise ValueError(
                f"min_batch_size <= opt_batch_size <= max_batch_size does not hold for {low}, {best}, {high}"
            )
        # Through __dict__: an adapted default must not count as set by the user.
        self.__dict__.update(min_batch_size=low, opt_batch_size=best, max_batch_size=high)
        return self


class GenTrtEngine(Section):
    """ONNX file in, engine file out."""

    results_dir: str | None = field(None, "Folder of status.json; else <results_dir>/gen_trt_engine.")
    gpu_id: int = field(0, "GPU to build on, an index into the visible ones.", ge=0)
    num_gpus: int = field(1, "Number of processes, one per GPU, that share the calibration.", ge=1)
    gpu_ids: GpuIds = field([], "The same as a list; the engine is built on the first unless gpu_id is set.")
    onnx_file: str | None = mandatory("The model to build, an .onnx file.")
    trt_engine: str | None = mandatory("The engine file to write.")
    timing_cache: str | None = field(None, "Timing cache: read when it exists, then updated.")
    batch_size: BatchSize = field(-1, "Fixed batch for a model with a dynamic one; -1 keeps what the model has.")
    verbose: bool = field(False, "Show everything the builder says.")
    tensorrt: TensorRT = section(TensorRT)

    @model_validator(mode="after")
    def _first_gpu_builds(self) -> GenTrtEngine:
        if self.gpu_ids and "gpu_id" not in self.model_fields_set:
            self.__dict__.update(gpu_id=self.gpu_ids[0])
        return self


class Evaluate(Section):
    """Measure a model on annotated data."""

    results_dir: str | None = field(None, "Folder of the results; else <results_dir>/trt_evaluate.")
    num_gpus: int = field(1, "Number of GPUs that share the images.", ge=1)
    gpu_ids: GpuIds = field([0], "GPUs, indices into the visible ones; several share the images.")
    trt_engine: str | None = mandatory("The .engine, .plan or .onnx file to evaluate.")
    batch_size: BatchSize = field(-1, "Images per batch; -1 takes the dataset's batch size.")


class Inference(Section):
    """Run a model on images."""

    results_dir: str | None = field(None, "Folder of the results; else <results_dir>/trt_inference.")
    num_gpus: int = field(1, "Number of GPUs that share the images.", ge=1)
    gpu_ids: GpuIds = field([0], "GPUs, indices into the visible ones; several share the images.")
    trt_engine: str | None = mandatory("The .engine, .plan or .onnx file to run.")
    batch_size: BatchSize = field(-1, "Images per batch; -1 takes the dataset's batch size.")


class Runtime(Section):
    """How files are run and images are read."""

    providers: StrList = field([], "ONNX Runtime execution providers in order; empty picks what is there.")
    provider_options: dict[str, dict[str, Any]] = field({}, "Options by provider name.")
    cuda_graph: bool = field(False, "Replay CUDA graphs where only the batch varies.")
    contexts: int = field(
        1, "Execution contexts of an engine: batches that run at once (docs/pipeline.md).", ge=1, le=8
    )
    workers: int = field(0, "Workers that decode images; 0 is the number of cores.", ge=0)
    worker_kind: Literal["auto", "threads", "processes"] = field(
        "auto", "Threads, forked processes, or processes from six workers on."
    )
    ranks: int = field(0, "Processes that share the images; 0 is one per GPU asked for.", ge=0)
    transform_on: Literal["auto", "cpu", "gpu"] = field(
        "auto", "Where images are resized and normalized; auto: the GPU if an engine runs on it."
    )
    image_backend: Literal["opencv", "opencv_reduced", "pillow", "nvimgcodec"] = field(
        "opencv", "What decodes images; opencv_reduced is faster and changes grey levels (docs/pipeline.md)."
    )


def _listed(value: Any) -> Any:
    """``fp32,fp16`` on a command line is a list too."""
    words = value.split(",") if isinstance(value, str) else _one_or_list(value)
    return [word.strip().lower() if isinstance(word, str) else word for word in words]


class Compare(Section):
    """Build several precisions, measure each, and say which to use."""

    results_dir: str | None = field(None, "Folder of the report; else <results_dir>/compare.")
    precisions: Annotated[list[Precision], BeforeValidator(_listed), Field(min_length=1)] = field(
        ["fp32", "fp16", "int8"],
        "What to compare. fp32 is always there as the reference, fp16 wherever int8 or fp8 is.",
    )
    metric: str | None = field(None, "The number that decides; null picks the network's main one.")
    higher_is_better: bool | None = field(None, "Whether more of that number is better; null goes by its name.")
    max_metric_drop: float | None = field(
        None, "Loss of the metric a precision may have, in percent of the fp32 value.", ge=0
    )
    min_speedup: float | None = field(None, "Throughput over fp32 that every listed precision must reach.", gt=0)
    repeats: int = field(3, "Rounds of timing; from 2 on fp32 is also evaluated twice.", ge=1)
    timing_seconds: float = field(2.0, "Least length of one round of timing.", gt=0)
    batch_sizes: Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_listed)] = field(
        [], "Images per batch when timing, the first decides; engines are built for them. Empty: evaluate's."
    )
    score_threshold: float | None = field(
        None, "Score threshold of the fp32 operating point; null is the one of the best F1.", ge=0
    )
    sample_images: int = field(6, "Images shown side by side in the report.", ge=0)


class Diagnose(Section):
    """Find the layers that lose accuracy when quantized."""

    results_dir: str | None = field(None, "Folder of the report; else <results_dir>/diagnose.")
    precision: Literal["int8", "fp8"] = field("int8", "The quantized type to look into.")
    metric: str | None = field(None, "The number that decides; null picks the network's main one.")
    higher_is_better: bool | None = field(None, "Whether more of that number is better; null goes by its name.")
    subset: int = field(64, "Images of the evaluation set that measure a layer.", ge=1)
    budget_minutes: float = field(30.0, "Time after which the report is written as is.", gt=0)
    max_metric_drop: float = field(
        1.0, "Loss the mixed precision may have on the subset, in percent of the fp32 value.", ge=0
    )
    methods: list[RangeMethod] = field(
        [], "Calibration methods to try with all layers quantized; the best is used. Empty: all, or the spec's."
    )
    keep_in: Literal["fp16", "bf16", "fp32"] = field(
        "fp16", "Precision of the layers that layers_precision keeps out of the quantized type."
    )


class NetworkSpec(Section):
    """Base of every network's spec.

    Class attributes:
        network: the network's name, which selects the known keys and the table of older key names; a class keyword.
        drift: older key names of this network besides those in ``spec/drift.py``.

    The class keyword ``changes`` says in what its sections differ from these, by dotted key, see ``spec/fields.py``.
    """

    network: ClassVar[str] = ""
    drift: ClassVar[tuple[Drift, ...]] = ()

    model_name: str | None = field(None, "Network name, read by the model_agnostic command.")
    encryption_key: str | None = field(None, "Key of an encrypted (.etlt) model.")
    results_dir: str | None = field(None, "Folder under which every action writes its own folder.")
    strict: bool = field(False, "An unreadable image fails the run instead of being skipped.")
    runtime: Runtime = section(Runtime)
    gen_trt_engine: GenTrtEngine = section(GenTrtEngine)
    evaluate: Evaluate = section(Evaluate)
    inference: Inference = section(Inference)
    compare: Compare = section(Compare)
    diagnose: Diagnose = section(Diagnose)

    _notes: list[str] = PrivateAttr(default_factory=list)
    _places: dict[str, str] = PrivateAttr(default_factory=dict)
    _source: str = PrivateAttr(default="spec")
    _tree: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __init_subclass__(
        cls, network: str | None = None, changes: Mapping[str, Any] | None = None, **config: Any
    ) -> None:
        super().__init_subclass__(**config)
        cls.network = network or cls.network
        for name, (kind, field_of_it) in changed_fields(cls, changes or {}).items():
            cls.__annotations__[name] = kind
            setattr(cls, name, field_of_it)

    @property
    def notes(self) -> list[str]:
        """What the reader should know about the file, e.g. older key names; one sentence each."""
        return self._notes

    @property
    def source(self) -> str:
        """The spec file's path, or ``spec`` when it was not read from a file."""
        return self._source

    def where(self, key: str) -> str:
        """The place of a dotted key for error messages: ``file:line: key``, or ``file: key`` when it is not set."""
        return place_of(key, self._places) or f"{self._source}: {key}"

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a dotted key, typed if it is a field, else as the file has it; ``default`` if absent."""
        value: Any = self
        for part in key.split("."):
            if isinstance(value, BaseModel):
                value = getattr(value, field_name(type(value), part) or "", default)
            else:
                value = value.get(part, default) if isinstance(value, Mapping) else default
            if value is default:
                break
        return value if value is not default else at(self._tree, key, default)

    def require(self, key: str) -> Any:
        """The value of a dotted key that the action cannot do without.

        Raises:
            SpecError: the value is None, empty or ``???``.
        """
        value = self.get(key)
        if is_missing(value) or (isinstance(value, (list, dict)) and not value):
            flag = flag_of(self.network, key)
            raise SpecError(
                "no value is given, and this action needs one",
                where=self.where(key),
                remedy=f"{f'Give {flag}, or set' if flag else 'Set'} it in the spec file, or on the command line: "
                f"{key}=VALUE",
            )
        return value

    def to_yaml(self) -> str:
        """The tree as YAML with keys of encrypted models masked; it loads back to an equal spec but for those."""
        import yaml

        tree = self.tree()
        tree.update({name: "***" for name in SECRETS if tree.get(name)})
        return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=False))

    def tree(self) -> Tree:
        """Every typed key with its value, and the other keys that were given, as plain data."""
        return cast(Tree, merged(self._tree, self.model_dump(mode="json", by_alias=True)))


def field_name(model: type[BaseModel], key: str) -> str | None:
    """The attribute of ``model`` that holds the spec key ``key`` (they differ only for reserved names)."""
    if key in model.model_fields and model.model_fields[key].alias in (None, key):
        return key
    return next((name for name, field in model.model_fields.items() if field.alias == key), None)


def place_of(key: str, places: Mapping[str, str]) -> str | None:
    """The place of a dotted key, or of the list that it is an element of, or of the first key inside it."""
    while key not in places and "[" in key:
        key = key.rpartition("[")[0]
    return places.get(key) or next((place for name, place in places.items() if name.startswith(f"{key}.")), None)


def is_missing(value: Any) -> bool:
    """None, empty text, and the question marks that stand for a value still to be filled in."""
    if isinstance(value, str):
        return value.strip() == "" or re.fullmatch(r"\?{2,}", value.strip()) is not None
    return value is None


def is_missing_entry(value: Any) -> bool:
    """Whether a given value stands for one still to be filled in; for a list, whether one of its elements does."""
    if isinstance(value, list):
        return any(isinstance(item, str) and bool(item) and is_missing(item) for item in value)
    return isinstance(value, str) and bool(value) and is_missing(value)
