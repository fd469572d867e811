"""What is told to each TensorRT release, from 8.5 to 11, against fakes of their Python surfaces (fakes_tensorrt)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import engine_models as models
import pytest
from fakes_tensorrt import RELEASES, surface
from onnx import TensorProto

from nvidia_tao_deploy.engine.backend import Backend, choose_runtime, describe
from nvidia_tao_deploy.engine.builder import build_plan, pin_layers
from nvidia_tao_deploy.engine.facts import read
from nvidia_tao_deploy.engine.options import BuildOptions, ImplicitCalibration, plan_build
from nvidia_tao_deploy.engine.profiles import propose
from nvidia_tao_deploy.errors import BuildError, RuntimeUnavailableError
from nvidia_tao_deploy.runtime import cuda

V85, V86, V100, V1016, V11 = RELEASES


def planned(release: str, path: Path, fail: str | None = None, **options: Any) -> tuple[Backend, Any]:
    backend = describe("tensorrt", surface(release, fail=fail))
    facts = read(path)
    options.setdefault("profiles", propose(facts.inputs, 1, 2, 4))
    options.setdefault("precision", facts.precision)
    return backend, plan_build(path, facts, BuildOptions(**options), backend)


def told(release: str, path: Path, fail: str | None = None, **options: Any) -> dict[str, Any]:
    """What the fake of ``release`` recorded during a whole build."""
    backend, plan = planned(release, path, fail, **options)
    events: list[dict[str, Any]] = []
    assert build_plan(plan, backend, events.append)
    return {**backend.module.recorded, "events": events}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "gpus", tuple)


@pytest.mark.parametrize(
    ("release", "typing", "precisions"),
    [
        (V85, "weak", {"fp32", "fp16", "int8"}),
        (V86, "weak", {"fp32", "fp16", "int8"}),  # its FP8 flag is for plugins only
        (V100, "optional", {"fp32", "fp16", "int8", "bf16", "fp8"}),
        (V1016, "optional", {"fp32", "fp16", "int8", "bf16", "fp8"}),
        (V11, "strong", {"fp32", "fp16", "int8", "bf16", "fp8"}),
    ],
)
def test_features_of_each_release(release: str, typing: str, precisions: set[str]) -> None:
    features = describe("tensorrt", surface(release)).features
    assert features.typing == typing
    assert set(features.precisions) == precisions
    assert features.progress_monitor == (release not in (V85, V86))
    assert features.implicit_calibration == (release != V11)
    assert features.dla == (release != V11)
    assert features.version_compatible == features.layer_normalization == (release != V85)
    assert features.plugins
    assert features.targets == ()


@pytest.mark.parametrize(("release", "flags"), [(V85, 1), (V86, 1), (V100, 2), (V1016, 2), (V11, 0)])
def test_network_creation_flag_is_composed_by_name(tmp_path: Path, release: str, flags: int) -> None:
    assert told(release, models.conv_net(tmp_path / "m.onnx"))["network_flags"] == flags


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_precision_flags_follow_the_graph_where_typing_is_weak(tmp_path: Path, release: str, precision: str) -> None:
    path = tmp_path / "m.onnx"
    {"fp32": models.conv_net, "fp16": models.half_net, "int8": models.quantized_net}[precision](path)
    recorded = told(release, path)
    expected = {"fp32": set(), "fp16": {"FP16", "OBEY_PRECISION_CONSTRAINTS"}, "int8": {"INT8", "FP16"}}[precision]
    assert recorded["flags"] == (expected if release in (V85, V86) else set())
    assert "TF32" in recorded["cleared"]
    assert recorded["profiles"][0].shapes == {"x": ((1, 3, 32, 32), (2, 3, 32, 32), (4, 3, 32, 32))}


@pytest.mark.parametrize(("release", "count"), [(V85, 3), (V86, 3), (V100, 1), (V11, 1)])
def test_contexts_have_profiles_of_their_own_where_they_cannot_share_one(
    tmp_path: Path, release: str, count: int
) -> None:
    profiles = told(release, models.conv_net(tmp_path / "m.onnx"), contexts=3)["profiles"]
    assert [profile.shapes for profile in profiles] == [{"x": ((1, 3, 32, 32), (2, 3, 32, 32), (4, 3, 32, 32))}] * count


def test_fp32_islands_are_pinned_on_8_and_nothing_else(tmp_path: Path) -> None:
    recorded = told(V85, models.half_net(tmp_path / "m.onnx"))
    assert recorded["precisions"] == {"exp1": "FLOAT"}
    assert recorded["calls"] == [("set_output_type", "exp1", 0, "FLOAT")]
    assert told(V11, models.half_net(tmp_path / "m.onnx"))["precisions"] == {}


def test_a_plugin_with_integers_is_held_by_its_float_outputs_alone() -> None:
    trt = surface(V85)
    kinds, half = trt.LayerType, trt.DataType.HALF
    boxes, counts = trt.Tensor("boxes", half), trt.Tensor("counts", trt.DataType.INT32)
    layers = [
        trt.Layer("scatter", kinds.PLUGIN_V2, [trt.Tensor("map", half)], [boxes, counts]),
        trt.Layer("nms", kinds.PLUGIN_V2, [trt.Tensor("kept", half)], [boxes]),
    ]
    network = SimpleNamespace(num_layers=2, get_layer=layers.__getitem__)
    plan = SimpleNamespace(pinned_nodes={"scatter": "fp32", "nms": "fp32"}, pinned_tensors=())
    pin_layers(trt, network, plan, [].append)
    assert trt.recorded["precisions"] == {"nms": "FLOAT"}
    assert trt.recorded["calls"] == [("set_output_type", name, 0, "FLOAT") for name in ("scatter", "nms")]


def test_a_pinned_layer_without_kernel_is_preferred_instead(tmp_path: Path) -> None:
    recorded = told(V85, models.half_net(tmp_path / "m.onnx"), fail="obey")
    assert "PREFER_PRECISION_CONSTRAINTS" in recorded["flags"]
    assert any("preferred, not obeyed" in event["text"] for event in recorded["events"])


def test_strict_int8_keeps_the_rest_in_fp32(tmp_path: Path) -> None:
    path = models.quantized_net(tmp_path / "m.onnx")
    assert told(V85, path, strict_types=True)["flags"] == {"INT8"}


@pytest.mark.parametrize("release", [V85, V86, V100, V1016])
def test_implicit_calibration_makes_a_weakly_typed_network(tmp_path: Path, release: str) -> None:
    cache = tmp_path / "cal.cache"
    cache.write_text("TRT-8503-EntropyCalibration2\nx: 3c010204\n")
    _, plan = planned(
        release, models.conv_net(tmp_path / "m.onnx"), precision="int8", implicit=ImplicitCalibration(None, cache)
    )
    assert not plan.strongly_typed
    assert {"INT8", "FP16"} <= set(plan.set_flags)
    assert plan.calibrator == "IInt8EntropyCalibrator2"


@pytest.mark.parametrize(
    ("release", "options", "message"),
    [
        (V85, {"version_compatible": True}, "version compatible"),
        (V85, {"optimization_level": 3}, "builder_optimization_level"),
        (V85, {"max_aux_streams": 0}, "max_aux_streams"),
        (V85, {"hardware_compatibility": "ampere_plus"}, "hardware compatibility"),
        (V86, {"hardware_compatibility": "same_compute_capability"}, "hardware compatibility"),
        (V86, {"weight_streaming": True}, "weight streaming"),
        (V85, {"precision": "bf16"}, "bf16 is not offered"),
        (V86, {"precision": "fp8"}, "fp8 is not offered"),
        (V100, {"layer_precisions": {"conv1": "fp32"}}, "stand in the graph"),
        (V100, {"compute_capabilities": ((8, 6),)}, "compute capability targets"),
        (V11, {"dla_core": 0, "precision": "fp16"}, "no DLA"),
        (V11, {"precision": "int8", "implicit": ImplicitCalibration(None, Path("c"))}, "implicit int8"),
        (V1016, {"precision": "int8", "implicit": ImplicitCalibration(None, Path("none"))}, "neither images nor"),
    ],
)
def test_what_a_release_lacks_is_refused(tmp_path: Path, release: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        planned(release, models.conv_net(tmp_path / "m.onnx"), **options)


def test_all_reasons_are_listed_at_once(tmp_path: Path) -> None:
    path = models.conv_net(tmp_path / "m.onnx")
    with pytest.raises(BuildError) as caught:
        planned(V85, path, version_compatible=True, optimization_level=4, weight_streaming=True)
    assert str(caught.value).count("\n  - ") == 3


def test_options_reach_the_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRT_NO_EXTERNAL_TACTICS", "1")
    options = {
        "workspace_bytes": 1 << 30,
        "tf32": True,
        "sparse_weights": True,
        "refit": True,
        "version_compatible": True,
        "optimization_level": 4,
        "max_aux_streams": 0,
        "hardware_compatibility": "ampere_plus",
    }
    recorded = told(V86, models.conv_net(tmp_path / "m.onnx"), **options)
    assert recorded["flags"] == {"TF32", "SPARSE_WEIGHTS", "REFIT", "VERSION_COMPATIBLE"}
    assert recorded["workspace"] == 1 << 30
    assert recorded["builder_optimization_level"] == 4
    assert recorded["max_aux_streams"] == 0
    assert recorded["hardware_compatibility_level"].name == "AMPERE_PLUS"
    assert recorded["tactic_sources"] == 0
    assert ("parser flag", "NATIVE_INSTANCENORM") in recorded["calls"]


@pytest.mark.parametrize(("fail", "content"), [(None, b"old"), ("cache", b"old"), (None, b"damaged")])
def test_timing_cache_is_merged_or_started_anew(tmp_path: Path, fail: str | None, content: bytes) -> None:
    cache = tmp_path / "new folder" / "timing.cache"
    cache.parent.mkdir()
    cache.write_bytes(content)
    recorded = told(V85, models.conv_net(tmp_path / "m.onnx"), fail, timing_cache=cache)
    assert ("create_timing_cache", content) in recorded["calls"]
    anew = fail == "cache" or content == b"damaged"
    assert any("another TensorRT" in event["text"] for event in recorded["events"]) == anew
    assert cache.read_bytes() == b"timingold"


def test_failures_become_one_error_with_cause_and_remedy(tmp_path: Path) -> None:
    path = models.conv_net(tmp_path / "m.onnx")
    with pytest.raises(BuildError, match="Could not find any implementation for node exp1") as caught:
        told(V85, path, fail="build")
    assert "Raise workspace_size" in str(caught.value)
    with pytest.raises(BuildError, match="refused the shape profile"):
        told(V85, path, fail="profile")
    with pytest.raises(BuildError, match="no fast fp16"):
        told(V85, models.half_net(tmp_path / "h.onnx"), fail="slow16")


def test_parser_errors_of_8_name_nodes_by_their_index(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        told(V85, models.half_net(tmp_path / "m.onnx"), fail="parse")
    text = str(caught.value)
    assert "Conv 'conv1': this operator or this form of it is not supported" in text
    assert "Tanh 'tanh1': this operator is not known" in text  # found besides the one the parser stopped at
    assert "Exp 'exp1'" in text


def test_shape_tensor_inputs_need_values(tmp_path: Path) -> None:
    backend, plan = planned(V85, models.conv_net(tmp_path / "m.onnx"))
    backend.module.network.inputs[0].is_shape_tensor = True
    with pytest.raises(BuildError, match="shape tensor"):
        build_plan(plan, backend, [].append)


def test_dla_needs_cores(tmp_path: Path) -> None:
    path = models.half_net(tmp_path / "m.onnx")
    with pytest.raises(BuildError, match="this device has 0"):
        told(V1016, path, dla_core=0)


def test_half_scales_need_10(tmp_path: Path) -> None:
    path = models.quantized_net(tmp_path / "m.onnx")
    import onnx

    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name in ("s1", "ws1"):
            values = onnx.numpy_helper.to_array(tensor).astype("float16")
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)
    with pytest.raises(BuildError, match="scales must be float32"):
        planned(V86, path)
    planned(V100, path)


def test_compute_capability_of_the_gpu_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "gpus", lambda: (cuda.Gpu(0, "Tesla T4", (7, 5), 16 << 30),))
    path = models.half_net(tmp_path / "m.onnx", TensorProto.BFLOAT16)
    with pytest.raises(BuildError, match=r"bf16 needs compute capability 8\.0, this GPU has 7\.5"):
        planned(V1016, path)


def test_tensorrt_is_chosen_only_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = {"tensorrt": surface(V1016)}

    def importing(name: str) -> tuple[Any, str | None]:
        return (fake[name], None) if name in fake else (None, "not installed")

    monkeypatch.setattr("nvidia_tao_deploy.engine.backend._import", importing)
    with pytest.raises(RuntimeUnavailableError, match="none is present"):
        choose_runtime("auto")
    monkeypatch.setattr(cuda, "gpus", lambda: (cuda.Gpu(0, "NVIDIA H200", (9, 0), 140 << 30),))
    assert choose_runtime("auto").title == f"TensorRT {V1016}"
    with pytest.raises(RuntimeUnavailableError, match="pip install"):
        choose_runtime("tensorrt_rtx")
