"""The typed sections that networks share.

A network's spec derives from :class:`NetworkSpec` and replaces the sections in which it differs. Only keys that
something reads are fields here; keys that only training reads are data (``spec/known``). Every field carries its
description, so ``default_specs`` and the JSON Schema are generated from this module alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.drift import Drift

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
LAYER_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int32")


def _one_or_list(value: Any) -> Any:
    """A lone scalar stands for a list of one."""
    if value is None:
        return []
    return [value] if isinstance(value, (str, int, float)) else value


def _lower(value: Any) -> Any:
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
GpuIds = Annotated[list[Annotated[int, Field(ge=0)]], BeforeValidator(_one_or_list)]
BatchSize = Annotated[int, Field(ge=-1), AfterValidator(lambda value: -1 if value == 0 else value)]


def mandatory(description: str, **more: Any) -> Any:
    """A field that an action cannot do without; its default is None so that other actions need not set it."""
    return Field(default=None, description=description, json_schema_extra={"mandatory": True}, **more)


class Section(BaseModel):
    """A block of typed keys. Unknown keys are refused; numbers given as text are converted."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    def __eq__(self, other: object) -> bool:
        """Equal when every field is equal; where the values came from does not matter."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


class Calibration(Section):
    """Where INT8 ranges come from."""

    cal_image_dir: StrList = Field(
        default=[], description="Folders of calibration images, searched recursively. One folder or a list."
    )
    cal_cache_file: str | None = Field(
        default=None, description="TensorRT calibration cache: read when it exists, else written."
    )
    cal_data_file: str | None = Field(default=None, description="Tensorfile (HDF5) of prepared calibration batches.")
    cal_json_file: str | None = Field(default=None, description="JSON of tensor scales of a QAT model.")
    cal_batch_size: int = Field(default=1, ge=1, description="Images per calibration batch.")
    cal_batches: int = Field(default=1, ge=1, description="Number of calibration batches.")
    mode: Literal["explicit", "implicit"] = Field(
        default="explicit",
        description="explicit: Q/DQ nodes in the graph; implicit: TensorRT's own calibrator (TensorRT <= 10).",
    )
    method: Literal["minmax", "entropy", "percentile", "mse"] = Field(
        default="entropy", description="How a range is chosen from the observed values."
    )
    percentile: float = Field(default=99.99, gt=0, le=100, description="Share of values kept by method percentile.")
    seed: int = Field(default=0, ge=0, description="Seed of the choice of calibration images.")
    quantizer: Literal["builtin", "modelopt"] = Field(default="builtin", description="Who inserts the Q/DQ nodes.")
    force_ptq: bool = Field(default=False, description="Calibrate even if the model was trained with QAT.")
    qat: bool = Field(default=False, description="The model was trained with QAT; scales come from cal_json_file.")
    max_metric_drop: float | None = Field(
        default=None,
        ge=0,
        description="Keep as many layers in float as it takes to lose at most so much of the metric, in percent of the "
        "fp32 value on a part of the evaluation set (section diagnose).",
    )


class Parity(Section):
    """Limits on the difference between source and engine outputs, checked after the build when set."""

    max_abs: float | None = Field(default=None, ge=0, description="Largest absolute difference of any output value.")
    min_cosine: float | None = Field(default=None, ge=-1, le=1, description="Smallest cosine similarity per output.")


class TensorRT(Section):
    """How the engine is built."""

    data_type: Annotated[Literal["fp32", "fp16", "bf16", "int8", "fp8"], BeforeValidator(_lower)] = Field(
        default="fp32", description="Precision of the engine, in any case."
    )
    workspace_size: int = Field(default=1024, ge=0, description="Builder workspace in MiB; 0 is TensorRT's default.")
    min_batch_size: int = Field(default=1, ge=1, description="Smallest batch of the profile.")
    opt_batch_size: int = Field(default=1, ge=1, description="Batch the engine is tuned for.")
    max_batch_size: int = Field(default=1, ge=1, description="Largest batch of the profile.")
    layers_precision: Annotated[
        list[Annotated[str, AfterValidator(_layer_precision)]], BeforeValidator(_one_or_list)
    ] = Field(default=[], description="Layers with their own precision, as 'layer name:precision'; '*' is the rest.")
    runtime: Literal["auto", "tensorrt", "tensorrt_rtx"] = Field(
        default="auto", description="auto: tensorrt when it and a GPU are there, else tensorrt_rtx."
    )
    compute_capabilities: Annotated[
        list[Annotated[str, BeforeValidator(_compute_capability)]], BeforeValidator(_one_or_list)
    ] = Field(default=[], description="Target GPUs of tensorrt_rtx, like '8.6'; empty is all the runtime supports.")
    tf32: bool = Field(default=False, description="Allow TF32 in fp32 layers.")
    simplify: bool = Field(default=True, description="Simplify the graph before building.")
    plugins: Literal["auto", "keep", "lower"] = Field(
        default="auto", description="Plugin nodes: keep them, lower them to standard ONNX, or what the runtime needs."
    )
    calibration: Calibration = Field(default_factory=Calibration, description="Where INT8 ranges come from.")
    parity: Parity = Field(default_factory=Parity, description="Check of the engine's outputs after the build.")
    builder_optimization_level: int | None = Field(default=None, ge=0, le=5, description="TensorRT's level, 0 to 5.")
    version_compatible: bool = Field(default=False, description="Engine runs on later TensorRT versions too.")
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = Field(
        default="none", description="Engine runs on other GPUs too."
    )
    sparse_weights: bool = Field(default=False, description="Use 2:4 structured sparsity where weights have it.")
    refittable: bool = Field(default=False, description="Weights of the engine can be replaced later.")
    weight_streaming: bool = Field(default=False, description="Weights may stay in host memory.")
    dla_core: int | None = Field(default=None, ge=0, description="DLA core to build for; null is the GPU.")
    strict_types: bool = Field(default=False, description="Keep the requested precision even where it is slower.")
    max_aux_streams: int | None = Field(default=None, ge=0, description="Auxiliary CUDA streams; null is TensorRT's.")

    @model_validator(mode="after")
    def _ordered_profile(self) -> TensorRT:
        """Untouched defaults give way to what the user set; what the user set must be ordered."""
        given = self.model_fields_set
        low, best, high = self.min_batch_size, self.opt_batch_size, self.max_batch_size
        if "max_batch_size" not in given:
            high = max(
                [high] + [value for name, value in (("opt", best), ("min", low)) if f"{name}_batch_size" in given]
            )
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

    results_dir: str | None = Field(
        default=None, description="Folder of status.json; else <results_dir>/gen_trt_engine."
    )
    gpu_id: int = Field(default=0, ge=0, description="GPU to build on, an index into the visible ones.")
    num_gpus: int = Field(default=1, ge=1, description="Number of processes, one per GPU, that share the calibration.")
    gpu_ids: GpuIds = Field(
        default=[], description="The same as a list; the engine is built on the first unless gpu_id is set."
    )
    onnx_file: str | None = mandatory("The model to build, an .onnx file.")
    trt_engine: str | None = mandatory("The engine file to write.")
    timing_cache: str | None = Field(default=None, description="Timing cache: read when it exists, then updated.")
    batch_size: BatchSize = Field(
        default=-1, description="Fixed batch for a model with a dynamic one; -1 keeps what the model has."
    )
    verbose: bool = Field(default=False, description="Show everything the builder says.")
    tensorrt: TensorRT = Field(default_factory=TensorRT, description="How the engine is built.")

    @model_validator(mode="after")
    def _first_gpu_builds(self) -> GenTrtEngine:
        if self.gpu_ids and "gpu_id" not in self.model_fields_set:
            self.__dict__.update(gpu_id=self.gpu_ids[0])
        return self


class ProtoCalibration(Calibration):
    """Calibration of the networks that also have flags: their flags' defaults."""

    cal_batches: int = Field(default=10, ge=1, description="Number of calibration batches.")


class ProtoTensorRT(TensorRT):
    """Build settings of the networks that also have flags: their flags' defaults."""

    workspace_size: int = Field(default=2048, ge=0, description="Builder workspace in MiB; 0 is TensorRT's default.")
    calibration: ProtoCalibration = Field(default_factory=ProtoCalibration, description="Where INT8 ranges come from.")


class Evaluate(Section):
    """Measure a model on annotated data."""

    results_dir: str | None = Field(default=None, description="Folder of the results; else <results_dir>/trt_evaluate.")
    num_gpus: int = Field(default=1, ge=1, description="Number of GPUs that share the images.")
    gpu_ids: GpuIds = Field(default=[0], description="GPUs, indices into the visible ones; several share the images.")
    trt_engine: str | None = mandatory("The .engine, .plan or .onnx file to evaluate.")
    batch_size: BatchSize = Field(default=-1, description="Images per batch; -1 takes the dataset's batch size.")


class Inference(Section):
    """Run a model on images."""

    results_dir: str | None = Field(
        default=None, description="Folder of the results; else <results_dir>/trt_inference."
    )
    num_gpus: int = Field(default=1, ge=1, description="Number of GPUs that share the images.")
    gpu_ids: GpuIds = Field(default=[0], description="GPUs, indices into the visible ones; several share the images.")
    trt_engine: str | None = mandatory("The .engine, .plan or .onnx file to run.")
    batch_size: BatchSize = Field(default=-1, description="Images per batch; -1 takes the dataset's batch size.")


class Runtime(Section):
    """How files are run and images are read."""

    providers: StrList = Field(
        default=[], description="ONNX Runtime execution providers in order; empty picks what is there."
    )
    provider_options: dict[str, dict[str, Any]] = Field(default={}, description="Options by provider name.")
    cuda_graph: bool = Field(default=False, description="Replay CUDA graphs where only the batch varies.")
    workers: int = Field(default=0, ge=0, description="Workers that decode images; 0 is the number of cores.")
    worker_kind: Literal["auto", "threads", "processes"] = Field(
        default="auto", description="Threads, forked processes, or processes from six workers on."
    )
    ranks: int = Field(default=0, ge=0, description="Processes that share the images; 0 is one per GPU asked for.")
    transform_on: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="Where images are resized and normalized; auto: the GPU if the model runs on one."
    )
    image_backend: Literal["opencv", "opencv_reduced", "pillow", "nvimgcodec"] = Field(
        default="opencv",
        description="What decodes images; opencv_reduced is faster and changes grey levels (docs/pipeline.md).",
    )


def _listed(value: Any) -> Any:
    """``fp32,fp16`` on a command line is a list too."""
    words = value.split(",") if isinstance(value, str) else _one_or_list(value)
    return [word.strip().lower() if isinstance(word, str) else word for word in words]


class Compare(Section):
    """Build several precisions, measure each, and say which to use."""

    results_dir: str | None = Field(default=None, description="Folder of the report; else <results_dir>/compare.")
    precisions: Annotated[
        list[Literal["fp32", "fp16", "bf16", "int8", "fp8"]], BeforeValidator(_listed), Field(min_length=1)
    ] = Field(
        default=["fp32", "fp16", "int8"],
        description="What to compare. fp32 is always there as the reference, fp16 wherever int8 or fp8 is.",
    )
    metric: str | None = Field(default=None, description="The number that decides; null picks the network's main one.")
    higher_is_better: bool | None = Field(
        default=None, description="Whether more of that number is better; null goes by its name."
    )
    max_metric_drop: float | None = Field(
        default=None, ge=0, description="Loss of the metric a precision may have, in percent of the fp32 value."
    )
    min_speedup: float | None = Field(
        default=None, gt=0, description="Throughput over fp32 that every listed precision must reach."
    )
    repeats: int = Field(default=3, ge=1, description="Rounds of timing; from 2 on fp32 is also evaluated twice.")
    timing_seconds: float = Field(default=2.0, gt=0, description="Least length of one round of timing.")
    batch_sizes: Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_listed)] = Field(
        default=[],
        description="Images per batch when timing, the first decides; engines are built for them. Empty: evaluate's.",
    )
    score_threshold: float | None = Field(
        default=None, ge=0, description="Score threshold of the fp32 operating point; null is the one of the best F1."
    )
    sample_images: int = Field(default=6, ge=0, description="Images shown side by side in the report.")


class Diagnose(Section):
    """Find the layers that lose accuracy when quantized."""

    results_dir: str | None = Field(default=None, description="Folder of the report; else <results_dir>/diagnose.")
    precision: Literal["int8", "fp8"] = Field(default="int8", description="The quantized type to look into.")
    metric: str | None = Field(default=None, description="The number that decides; null picks the network's main one.")
    higher_is_better: bool | None = Field(
        default=None, description="Whether more of that number is better; null goes by its name."
    )
    subset: int = Field(default=64, ge=1, description="Images of the evaluation set that measure a layer.")
    budget_minutes: float = Field(default=30.0, gt=0, description="Time after which the report is written as is.")
    max_metric_drop: float = Field(
        default=1.0, ge=0, description="Loss the mixed precision may have on the subset, in percent of the fp32 value."
    )
    methods: list[Literal["minmax", "entropy", "percentile", "mse"]] = Field(
        default=[],
        description="Calibration methods to try with all layers quantized; the best is used. Empty: all, or the spec's.",
    )
    keep_in: Literal["fp16", "bf16", "fp32"] = Field(
        default="fp16", description="Precision of the layers that layers_precision keeps out of the quantized type."
    )


class NetworkSpec(Section):
    """Base of every network's spec.

    Class attributes:
        network: the network's name, which selects the known keys and the table of older key names.
        known_as: name of the known-keys file when it differs from ``network``.
        drift: older key names of this network besides those in ``spec/drift.py``.
    """

    network: ClassVar[str] = ""
    known_as: ClassVar[str] = ""
    drift: ClassVar[tuple[Drift, ...]] = ()

    model_name: str | None = Field(default=None, description="Network name, read by the model_agnostic command.")
    encryption_key: str | None = Field(default=None, description="Key of an encrypted (.etlt) model.")
    results_dir: str | None = Field(default=None, description="Folder under which every action writes its own folder.")
    strict: bool = Field(default=False, description="An unreadable image fails the run instead of being skipped.")
    runtime: Runtime = Field(default_factory=Runtime, description="How files are run and images are read.")
    gen_trt_engine: GenTrtEngine = Field(default_factory=GenTrtEngine, description="ONNX file in, engine file out.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Measure a model on annotated data.")
    inference: Inference = Field(default_factory=Inference, description="Run a model on images.")
    compare: Compare = Field(
        default_factory=Compare, description="Build several precisions, measure each, and say which to use."
    )
    diagnose: Diagnose = Field(
        default_factory=Diagnose, description="Find the layers that lose accuracy when quantized."
    )

    _notes: list[str] = PrivateAttr(default_factory=list)
    _places: dict[str, str] = PrivateAttr(default_factory=dict)
    _source: str = PrivateAttr(default="spec")
    _tree: dict[str, Any] = PrivateAttr(default_factory=dict)

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
        if value is not default:
            return value
        value = self._tree
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = value[part]
        return value

    def require(self, key: str) -> Any:
        """The value of a dotted key that the action cannot do without.

        Raises:
            SpecError: the value is None, empty or ``???``.
        """
        value = self.get(key)
        if is_missing(value) or (isinstance(value, (list, dict)) and not value):
            raise SpecError(
                f"{key} has no value, and this action needs it",
                where=self.where(key),
                remedy=f"Set it in the spec file or on the command line: {key}=VALUE",
            )
        return value

    def to_yaml(self) -> str:
        """The resolved spec as YAML, every key that is read and every key that was given; keys are masked."""
        from nvidia_tao_deploy.spec.dump import spec_yaml

        return spec_yaml(self)


def field_name(model: type[BaseModel], key: str) -> str | None:
    """The attribute of ``model`` that holds the spec key ``key`` (they differ only for reserved names)."""
    if key in model.model_fields and model.model_fields[key].alias in (None, key):
        return key
    return next((name for name, field in model.model_fields.items() if field.alias == key), None)


def place_of(key: str, places: Mapping[str, str]) -> str | None:
    """The place of a dotted key, or of the list that it is an element of, or of the first key inside it."""
    while key not in places and key.endswith("]"):
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
