"""What ONNX Runtime's CUDA provider is told, which machines without a GPU can only read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from repository import MODELS

from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.graph.ort import JOINS_BIASES, biases_apart, kernels_are_constants
from nvidia_tao_deploy.graph.precision import cast_float
from nvidia_tao_deploy.graph.quantize import quantizable_tensors, quantize
from nvidia_tao_deploy.runtime.open import open_session

PlainSession = onnxruntime.InferenceSession


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What every session is made with, which then runs on the CPU: a model, providers and switched off rewrites."""
    told: list[Any] = []

    def session(model: Any, options: Any, *, providers: list[Any], disabled_optimizers: list[str]) -> Any:
        told.append(SimpleNamespace(model=model, options=providers[0][1], disabled=disabled_optimizers))
        return PlainSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled_optimizers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr("nvidia_tao_deploy.runtime.cuda.gpu_available", lambda: True)
    return told


def halved(path: Path) -> Path:
    onnx.save(cast_float(onnx.load(MODELS / "classification_pyt.onnx"), "fp16").model, path)
    return path


def quantized(path: Path) -> Path:
    model = onnx.load(MODELS / "classification_pyt.onnx")
    tensors = quantizable_tensors(model)
    onnx.save(quantize(model, dict.fromkeys(tensors, 0.1)).model, path)
    return path


def test_convolutions_run_channels_last_where_their_kernels_are_constants(told: list[Any], tmp_path: Path) -> None:
    """With Q/DQ in front of the kernels ONNX Runtime 1.31.1 crashed so, or gave wrong shapes (H200, 2026-11-21)."""
    for path in (MODELS / "classification_pyt.onnx", quantized(tmp_path / "int8.onnx")):
        open_session(path).close()
    first, second = (made.options for made in told)
    assert first == {"device_id": 0, "cudnn_conv_algo_search": "HEURISTIC", "prefer_nhwc": "1"}
    assert second == {"device_id": 0, "cudnn_conv_algo_search": "HEURISTIC"}
    assert told[1].model == str(tmp_path / "int8.onnx")
    assert told[1].disabled == []


@pytest.mark.parametrize("half", [False, True])
def test_biases_are_added_by_nodes_of_their_own(told: list[Any], tmp_path: Path, half: bool) -> None:
    """cuDNN's kernel for them takes nearly half of a ResNet-50's time, and its plans for fused ones take seconds."""
    path = halved(tmp_path / "half.onnx") if half else MODELS / "classification_pyt.onnx"
    session = open_session(path)
    assert told[0].options == {"device_id": 0, "cudnn_conv_algo_search": "HEURISTIC", "prefer_nhwc": "1"}
    apart = onnx.load_from_string(told[0].model)
    convolutions = [node for node in apart.graph.node if node.op_type == "Conv"]
    assert convolutions
    assert all(len(node.input) == 2 for node in convolutions)
    assert told[0].disabled == ["ConvAddFusion"]
    info = session.inputs[0]
    images = np.random.default_rng(0).normal(size=(3, *(size or 1 for size in info.shape[1:]))).astype(info.dtype)
    plain = PlainSession(str(path), providers=["CPUExecutionProvider"])
    want = plain.run(None, {info.name: images})
    for got, value in zip(session.run({info.name: images}).values(), want, strict=True):
        np.testing.assert_allclose(got, value, atol=(2e-3 if half else 1e-5) * np.abs(value).max())
    assert [info.name for info in session.outputs] == [node.name for node in plain.get_outputs()]


@pytest.mark.parametrize("given", [{"fuse_conv_bias": "1"}, {"prefer_nhwc": 0}])
def test_biases_stay_where_the_user_says_how_they_are_added(
    told: list[Any], tmp_path: Path, given: dict[str, Any]
) -> None:
    path = halved(tmp_path / "half.onnx")
    open_session(path, provider_options={"cuda": given}).close()
    assert told[0].model == str(path)
    assert told[0].disabled == []


def test_the_users_options_come_first(told: list[Any]) -> None:
    given = {"cuda": {"prefer_nhwc": "0", "cudnn_conv_algo_search": "EXHAUSTIVE", "fuse_conv_bias": "0"}}
    open_session(MODELS / "classification_pyt.onnx", provider_options=given, gpu=1).close()
    assert told[0].options == {"device_id": 1, **given["cuda"]}


def test_onnx_runtime_leaves_biases_apart_where_it_is_told_to(tmp_path: Path) -> None:
    """It joins them by ConvAddFusion, which is all that has to be switched off."""
    kernels = {}
    for name, disabled in (("joined", []), ("apart", list(JOINS_BIASES))):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        model = biases_apart(onnx.load(MODELS / "classification_pyt.onnx")).SerializeToString()
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)
        kernels[name] = [
            len(node.input) for node in onnx.load(tmp_path / f"{name}.onnx").graph.node if "Conv" in node.op_type
        ]
    assert set(kernels["joined"]) == {3}
    assert set(kernels["apart"]) == {2}


def test_every_kind_of_bias_is_added_as_before() -> None:
    """Grouped, transposed, from a Constant node, a batch norm's; left alone: one-dimensional, computed, none at all,
    ConvInteger."""
    rng = np.random.default_rng(1)

    def constant(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    node, value = helper.make_node, helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            node("Constant", [], ["b2"], value=constant("", 4)),
            node("Identity", ["b1"], ["computed"]),
            node("Conv", ["x", "w1", "b1"], ["grouped"], group=2, name="grouped"),
            node("ConvTranspose", ["grouped", "w2", "b2"], ["wide"], strides=[2, 2], name="wide"),
            node("Conv", ["x", "w1", "computed"], ["of_a_node"], group=2, name="of_a_node"),
            node("Conv", ["x", "w1"], ["none"], group=2, name="none"),
            node("Conv", ["wide", "w5"], ["plain"], name="plain"),
            node("BatchNormalization", ["plain", "b1", "b1", "b1", "positive"], ["normed"], name="norm"),
            node("Conv", ["line", "w3", "b1"], ["along"], name="along"),
            node("ConvInteger", ["bytes", "w4", "zero", "zero"], ["integers"], name="integers"),
        ],
        "biases",
        [
            value("x", TensorProto.FLOAT, ["n", 4, 9, 7]),
            value("line", TensorProto.FLOAT, ["n", 2, 9]),
            value("bytes", TensorProto.UINT8, ["n", 1, 5, 5]),
        ],
        [value(name, TensorProto.FLOAT, None) for name in ("grouped", "wide", "of_a_node", "none", "along", "normed")]
        + [value("integers", TensorProto.INT32, None)],
        [
            *(constant("w1", 4, 2, 3, 3), constant("b1", 4), constant("w2", 4, 4, 2, 2), constant("w3", 4, 2, 3)),
            constant("w5", 4, 4, 1, 1),
            numpy_helper.from_array(rng.uniform(0.5, 2, 4).astype(np.float32), "positive"),
            numpy_helper.from_array(np.ones((1, 1, 3, 3), np.uint8), "w4"),
            numpy_helper.from_array(np.array(1, np.uint8), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    before = model.SerializeToString()
    result = biases_apart(model)
    assert model.SerializeToString() == before
    inputs = {found.name: len(found.input) for found in result.graph.node if found.name in model_names(model)}
    assert inputs == {"grouped": 2, "wide": 2, "of_a_node": 3, "none": 2, "along": 3, "integers": 4, "plain": 2}
    feeds = {
        "x": rng.normal(size=(2, 4, 9, 7)).astype(np.float32),
        "line": rng.normal(size=(2, 2, 9)).astype(np.float32),
        "bytes": rng.integers(0, 255, (2, 1, 5, 5), np.uint8),
    }
    for want, got in zip(*(ReferenceEvaluator(m).run(None, feeds) for m in (model, result)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def model_names(model: onnx.ModelProto) -> set[str]:
    return {node.name for node in model.graph.node if node.name}


def test_kernels_that_a_node_gives_are_found_in_every_graph() -> None:
    def model(*nodes: Any, inner: bool = False) -> Any:
        kernel = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "kernel")
        body = helper.make_graph(list(nodes), "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
        if inner:
            branch = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
            body = helper.make_graph([branch], "outer", [], [])
        body.initializer.append(kernel)
        return helper.make_model(body)

    moved = helper.make_node("Identity", ["kernel"], ["moved"])
    assert kernels_are_constants(model(helper.make_node("Conv", ["x", "kernel"], ["y"])))
    assert not kernels_are_constants(model(moved, helper.make_node("Conv", ["x", "moved"], ["y"])))
    assert not kernels_are_constants(model(moved, helper.make_node("ConvTranspose", ["x", "moved"], ["y"]), inner=True))


def test_a_failure_on_the_gpu_is_told_as_it_is() -> None:
    """An input on the device cannot be tried again from the host."""
    session = open_session(MODELS / "classification_pyt.onnx", providers=["cpu"])
    info = session.inputs[0]

    def room() -> Any:
        raise RuntimeError("the GPU's own reason")

    session._room = room  # type: ignore[attr-defined]
    given = SimpleNamespace(shape=(1, *info.shape[1:]), dtype=info.dtype, write=print)
    with pytest.raises(ModelError, match="the GPU's own reason"):
        session.run({info.name: given})
