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
from repository import MODELS

from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.graph.ort import kernels_are_constants
from nvidia_tao_deploy.graph.quantize import quantizable_tensors, quantize
from nvidia_tao_deploy.runtime.open import open_session


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The providers of every session that is made, which runs on the CPU."""
    providers: list[Any] = []
    make = onnxruntime.InferenceSession

    def session(model: Any, options: Any, *, providers: list[Any], **_: Any) -> Any:
        told.append(providers)
        return make(model, options, providers=["CPUExecutionProvider"])

    told = providers
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr("nvidia_tao_deploy.runtime.cuda.gpu_available", lambda: True)
    return providers


def quantized(path: Path) -> Path:
    model = onnx.load(MODELS / "classification_pyt.onnx")
    tensors = quantizable_tensors(model)
    onnx.save(quantize(model, dict.fromkeys(tensors, 0.1)).model, path)
    return path


def test_convolutions_run_channels_last_where_their_kernels_are_constants(told: list[Any], tmp_path: Path) -> None:
    """With Q/DQ in front of the kernels ONNX Runtime 1.31.1 crashed so, or gave wrong shapes (H200, 2026-11-21)."""
    for path in (MODELS / "classification_pyt.onnx", quantized(tmp_path / "int8.onnx")):
        open_session(path).close()
    (_, first), (_, second) = (providers[0] for providers in told)
    assert first == {"device_id": 0, "cudnn_conv_algo_search": "HEURISTIC", "prefer_nhwc": "1"}
    assert second == {"device_id": 0, "cudnn_conv_algo_search": "HEURISTIC"}


def test_the_users_options_come_first(told: list[Any]) -> None:
    given = {"cuda": {"prefer_nhwc": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}}
    open_session(MODELS / "classification_pyt.onnx", provider_options=given, gpu=1).close()
    assert told[0][0][1] == {"device_id": 1, "cudnn_conv_algo_search": "EXHAUSTIVE", "prefer_nhwc": "0"}


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
