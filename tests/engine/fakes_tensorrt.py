"""FAKES: the Python surface of TensorRT 8.5, 8.6, 10.0, 10.16 and 11.2 as recorded names, without any library.

What exists where follows the table of names per release (design notes, tensorrt_versions 1.2): a name that a release
lacks raises AttributeError here as it does there. The fakes record what they are told; they build nothing.
"""

# ruff: noqa: ARG002, ARG005, N815  (the signatures are TensorRT's)
from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

RELEASES = ("8.5.3.1", "8.6.1.6", "10.0.1", "10.16.1.11", "11.2.1.2")


def enum(name: str, members: dict[str, int]) -> Any:
    class Member(int):
        name: str

        def __repr__(self) -> str:
            return f"{name}.{self.name}"

    holder = type(name, (), {})
    for key, number in members.items():
        member = Member(number)
        member.name = key
        setattr(holder, key, member)
    return holder


def numbered(*names: str) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


class Slots:
    """An object that takes only the attributes its release has."""

    allowed: frozenset[str] = frozenset()

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in self.allowed:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r} in this release")
        object.__setattr__(self, name, value)


class Tensor:
    def __init__(self, name: str, dtype: Any, shape: tuple[int, ...] = (1,), is_shape_tensor: bool = False) -> None:
        self.name, self.dtype, self.shape, self.is_shape_tensor = name, dtype, shape, is_shape_tensor


def surface(version: str, *, fail: str | None = None) -> Any:
    """A fake ``tensorrt`` module of ``version``; ``trt.recorded`` shows what was asked of it.

    ``fail``: None, "profile" (refused profile), "build" (no kernel), "obey" (no kernel until constraints are only
    preferred), "cache" (timing cache of another GPU), "parse" (second node unknown), "slow16" (no fast fp16).
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    release = (major, minor)
    recorded: dict[str, Any] = {"flags": set(), "cleared": set(), "profiles": [], "calls": [], "precisions": {}}
    trt = SimpleNamespace(__name__=f"fake_tensorrt_{version}", __version__=version, recorded=recorded)

    flags = ["TF32", "SPARSE_WEIGHTS", "REFIT", "GPU_FALLBACK", "DIRECT_IO"]
    if major < 11:
        flags += ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"]
    if release >= (8, 6):
        flags += ["VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"] + (["FP8"] if major < 11 else [])
    if major >= 10:
        flags += ["STRIP_PLAN", "WEIGHT_STREAMING"] + (["BF16"] if major < 11 else [])
    trt.BuilderFlag = enum("BuilderFlag", numbered(*flags))
    creation = {"EXPLICIT_BATCH": 0} if major < 11 else {}
    if major >= 10:
        # Moved: 1 in 10.x, 0 in 11.x, where 1 means something else and is accepted.
        creation["STRONGLY_TYPED"] = 1 if major < 11 else 0
        creation["PREFER_AOT_PYTHON_PLUGINS"] = 3 if major < 11 else 1
    trt.NetworkDefinitionCreationFlag = enum("NetworkDefinitionCreationFlag", creation)
    types = ["FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8"]
    types += ["FP8"] if release >= (8, 6) else []
    types += ["BF16", "INT64", "INT4"] if major >= 10 else []
    trt.DataType = enum("DataType", numbered(*types))
    trt.MemoryPoolType = enum("MemoryPoolType", numbered("WORKSPACE"))
    trt.ProfilingVerbosity = enum("ProfilingVerbosity", numbered("LAYER_NAMES_ONLY", "NONE", "DETAILED"))
    trt.DeviceType = enum("DeviceType", numbered("GPU", "DLA"))
    trt.LayerType = enum(
        "LayerType",
        numbered(
            "CONVOLUTION", "UNARY", "CONSTANT", "CAST", "IDENTITY", "QUANTIZE", "DEQUANTIZE", "SHAPE", "PLUGIN_V2"
        ),
    )
    if release >= (8, 6):
        levels = ["NONE", "AMPERE_PLUS"] + (["SAME_COMPUTE_CAPABILITY"] if release >= (10, 9) else [])
        trt.HardwareCompatibilityLevel = enum("HardwareCompatibilityLevel", numbered(*levels))
        trt.OnnxParserFlag = enum("OnnxParserFlag", numbered("NATIVE_INSTANCENORM"))
    if major < 11:
        for name in (
            "IInt8EntropyCalibrator2",
            "IInt8MinMaxCalibrator",
            "IInt8EntropyCalibrator",
            "IInt8LegacyCalibrator",
        ):
            setattr(trt, name, type(name, (), {}))

    class ILogger:
        Severity = enum("Severity", numbered("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"))
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = (
            Severity.INTERNAL_ERROR,
            Severity.ERROR,
            Severity.WARNING,
            Severity.INFO,
            Severity.VERBOSE,
        )

        def __init__(self) -> None:
            pass

    trt.ILogger = ILogger
    trt.Logger = type("Logger", (ILogger,), {"__init__": lambda self, severity=None: None})
    if major >= 10:
        trt.IProgressMonitor = type("IProgressMonitor", (), {"__init__": lambda self: None})

    class Layer(Slots):
        allowed = frozenset({"precision"} if major < 11 else ())

        def __init__(self, name: str, kind: Any, outputs: list[Tensor], inputs: Sequence[Tensor] = ()) -> None:
            self._name, self._kind, self._outputs, self._inputs = name, kind, outputs, inputs

        name = property(lambda self: self._name)
        type = property(lambda self: self._kind)
        num_outputs = property(lambda self: len(self._outputs))
        num_inputs = property(lambda self: len(self._inputs))

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "precision":
                recorded["precisions"][self._name] = value.name

        def get_output(self, index: int) -> Tensor:
            return self._outputs[index]

        def get_input(self, index: int) -> Tensor:
            return self._inputs[index]

        if major < 11:

            def set_output_type(self, index: int, dtype: Any) -> None:
                recorded["calls"].append(("set_output_type", self._name, index, dtype.name))

    kinds, floating = trt.LayerType, trt.DataType.FLOAT
    network = SimpleNamespace(
        inputs=[Tensor("x", floating, (-1, 3, 32, 32))],
        layers=[
            Layer("conv1", kinds.CONVOLUTION, [Tensor("c1", trt.DataType.HALF)]),
            Layer("cast_up", kinds.CAST, [Tensor("r1f", floating)]),
            Layer("exp1", kinds.UNARY, [Tensor("e1f", floating)]),
            Layer("exp1_0", kinds.CONSTANT, [Tensor("k", floating)]),
            Layer("conv2", kinds.CONVOLUTION, [Tensor("yh", trt.DataType.HALF)]),
        ],
    )
    trt.Layer, trt.Tensor = Layer, Tensor  # for tests that make networks of their own
    network.num_inputs, network.num_layers = len(network.inputs), len(network.layers)
    network.get_input = lambda index: network.inputs[index]
    network.get_layer = lambda index: network.layers[index]
    trt.network = network

    class ParserError:
        def code(self) -> Any:
            return SimpleNamespace(name="UNSUPPORTED_NODE")

        def desc(self) -> str:
            return "Assertion failed: false"

        def node(self) -> int:
            return 1

    class OnnxParser:
        num_errors = 1 if fail == "parse" else 0

        def __init__(self, network: Any, logger: Any) -> None:
            recorded["logger"] = logger

        def parse_from_file(self, path: str) -> bool:
            recorded["parsed"] = path
            return fail != "parse"

        def get_error(self, index: int) -> Any:
            return ParserError()

        def supports_operator(self, operator: str) -> bool:
            return operator not in ("Tanh", "Exp")

        if release >= (8, 6):

            def set_flag(self, flag: Any) -> None:
                recorded["calls"].append(("parser flag", flag.name))

    trt.OnnxParser = OnnxParser

    class Cache:
        """As 8.5.3.1 does it: a damaged file is taken for an empty cache, without a word."""

        def __init__(self, blob: bytes = b"old") -> None:
            self.entries = b"" if blob == b"damaged" else blob

        def serialize(self) -> bytes:
            return b"timing" + self.entries

    config_attributes = {"profiling_verbosity", "default_device_type", "DLA_core"}
    if major < 11:
        config_attributes.add("int8_calibrator")
    if release >= (8, 6):
        config_attributes |= {"builder_optimization_level", "max_aux_streams", "hardware_compatibility_level"}
    if major >= 10:
        config_attributes.add("progress_monitor")

    class IBuilderConfig(Slots):
        allowed = frozenset(config_attributes)

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            recorded[name] = value

        def set_flag(self, flag: Any) -> None:
            recorded["flags"].add(flag.name)

        def get_flag(self, flag: Any) -> bool:
            return flag.name in recorded["flags"]

        def clear_flag(self, flag: Any) -> None:
            recorded["flags"].discard(flag.name)
            recorded["cleared"].add(flag.name)

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            recorded["workspace"] = size

        def set_tactic_sources(self, sources: int) -> bool:
            recorded["tactic_sources"] = sources
            return True

        def add_optimization_profile(self, profile: Any) -> int:
            recorded["profiles"].append(profile)
            return -1 if fail == "profile" else 0

        def create_timing_cache(self, blob: bytes) -> Cache:
            recorded["calls"].append(("create_timing_cache", blob))
            return Cache(blob)

        def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
            return fail != "cache" or not cache.entries

        def get_timing_cache(self) -> Cache:
            return Cache()

    for name in config_attributes:
        setattr(IBuilderConfig, name, None)
    trt.IBuilderConfig = IBuilderConfig
    layers = {"add_normalization": None} if release >= (8, 6) else {}
    trt.INetworkDefinition = type("INetworkDefinition", (), layers)

    class Profile:
        def __init__(self) -> None:
            self.shapes: dict[str, Any] = {}
            self.values: dict[str, Any] = {}

        def set_shape(self, name: str, low: Any, opt: Any, high: Any) -> None:
            self.shapes[name] = (low, opt, high)

        def set_shape_input(self, name: str, low: Any, opt: Any, high: Any) -> None:
            self.values[name] = (low, opt, high)

    class Builder:
        num_DLA_cores = 0

        def __init__(self, logger: Any) -> None:
            self._logger = logger
            if major < 11:
                self.platform_has_fast_fp16 = fail != "slow16"
                self.platform_has_fast_int8 = True

        def create_network(self, network_flags: int) -> Any:
            recorded["network_flags"] = network_flags
            return network

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Any, config: IBuilderConfig) -> bytes | None:
            if fail == "build" or (fail == "obey" and "OBEY_PRECISION_CONSTRAINTS" in recorded["flags"]):
                text = "10: [optimizer.cpp::computeCosts::3728] Could not find any implementation for node exp1."
                self._logger.log(ILogger.ERROR, text)
                return None
            return b"ptrt" + bytes(60)

    trt.Builder = Builder
    trt.init_libnvinfer_plugins = lambda logger, namespace: True
    trt.get_plugin_registry = lambda: SimpleNamespace(
        **{"all_creators" if major >= 11 else "plugin_creator_list": [SimpleNamespace(name="EfficientNMS_TRT")]}
    )
    return trt
