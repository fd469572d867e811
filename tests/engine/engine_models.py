"""Small ONNX models for the engine tests, made with onnx.helper; weights are seeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 16


def save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any], opset: int = 17
) -> Path:
    tensors = [
        value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(value, name)
        for name, value in weights.items()
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def conv_weights() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "w1": (rng.standard_normal((CHANNELS, 3, 3, 3)) * 0.2).astype(np.float32),
        "b1": (rng.standard_normal(CHANNELS) * 0.1).astype(np.float32),
        "w2": (rng.standard_normal((CHANNELS, CHANNELS, 3, 3)) * 0.1).astype(np.float32),
        "b2": (rng.standard_normal(CHANNELS) * 0.1).astype(np.float32),
    }


def conv_net(path: Path, batch: Any = "N") -> Path:
    """x (N,3,32,32) -> Conv -> Relu -> Conv -> y (N,16,32,32), float32."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["y"], "conv2", pads=[1, 1, 1, 1]),
    ]
    return save(path, nodes, [value("x", [batch, 3, 32, 32])], [value("y", [batch, CHANNELS, 32, 32])], conv_weights())


def half_net(path: Path, kind: int = TensorProto.FLOAT16, island: bool = True) -> Path:
    """The same in half precision between Casts; with ``island`` a float32 Exp stands between the convolutions."""
    opset = 22 if kind == TensorProto.BFLOAT16 else 17
    half = {name: cast_tensor(name, array, kind) for name, array in conv_weights().items()}
    nodes = [
        helper.make_node("Cast", ["x"], ["xh"], "cast_in", to=kind),
        helper.make_node("Conv", ["xh", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["c1"], ["r1"], "tanh1"),
    ]
    middle = "r1"
    if island:
        nodes += [
            helper.make_node("Cast", ["r1"], ["r1f"], "cast_up", to=TensorProto.FLOAT),
            helper.make_node("Exp", ["r1f"], ["e1f"], "exp1"),
            helper.make_node("Cast", ["e1f"], ["e1"], "cast_down", to=kind),
        ]
        middle = "e1"
    nodes += [
        helper.make_node("Conv", [middle, "w2", "b2"], ["yh"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["yh"], ["y"], "cast_out", to=TensorProto.FLOAT),
    ]
    return save(path, nodes, [value("x", ["N", 3, 32, 32])], [value("y", ["N", CHANNELS, 32, 32])], half, opset)


def cast_tensor(name: str, array: Any, kind: int) -> Any:
    return helper.make_tensor(name, kind, array.shape, array.flatten().tolist())


def quantized_net(
    path: Path, *, kind: int = TensorProto.INT8, zero: int = 0, scale: float = 0.05, bias_int32: bool = False
) -> Path:
    """The convolutions with Q/DQ on their inputs and (per channel) weights, as prepared for every TensorRT."""
    fp8 = kind == TensorProto.FLOAT8E4M3FN
    largest = 448.0 if fp8 else 127.0
    weights = conv_weights()
    initializers: dict[str, Any] = dict(weights)
    initializers["zero"] = helper.make_tensor("zero", kind, [], [float(zero) if fp8 else zero])
    nodes: list[Any] = []
    for index, activation in ((1, "x"), (2, "r1")):
        weight = weights[f"w{index}"]
        initializers[f"s{index}"] = np.float32(scale)
        initializers[f"ws{index}"] = (np.abs(weight).max(axis=(1, 2, 3)) / largest).astype(np.float32)
        zeros = [0.0 if fp8 else 0] * CHANNELS
        initializers[f"wz{index}"] = helper.make_tensor(f"wz{index}", kind, [CHANNELS], zeros)
        nodes += [
            helper.make_node("QuantizeLinear", [activation, f"s{index}", "zero"], [f"q{index}"], f"q_act{index}"),
            helper.make_node("DequantizeLinear", [f"q{index}", f"s{index}", "zero"], [f"dq{index}"], f"dq_act{index}"),
            helper.make_node(
                "QuantizeLinear", [f"w{index}", f"ws{index}", f"wz{index}"], [f"wq{index}"], f"q_w{index}", axis=0
            ),
            helper.make_node(
                "DequantizeLinear", [f"wq{index}", f"ws{index}", f"wz{index}"], [f"wdq{index}"], f"dq_w{index}", axis=0
            ),
        ]
        bias = f"b{index}"
        if bias_int32 and index == 1:
            initializers["bq"] = np.arange(CHANNELS, dtype=np.int32)
            initializers["bs"] = np.float32(0.01)
            nodes.append(helper.make_node("DequantizeLinear", ["bq", "bs"], ["bdq"], "dq_bias"))
            bias = "bdq"
        output = "c1" if index == 1 else "y"
        nodes.append(
            helper.make_node(
                "Conv",
                [f"dq{index}", f"wdq{index}", bias],
                [output],
                f"conv{index}",
                pads=[1, 1, 1, 1],
                kernel_shape=[3, 3],
            )
        )
        if index == 1:
            nodes.append(helper.make_node("Relu", ["c1"], ["r1"], "relu1"))
    opset = 19 if fp8 else 17
    shapes = [value("x", ["N", 3, 32, 32])], [value("y", ["N", CHANNELS, 32, 32])]
    return save(path, nodes, *shapes, initializers, opset)


def gemm_head(path: Path) -> Path:
    """x (N,32) -> Gemm -> TopK -> values (N,5) float32 and indices (N,5) int64."""
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.standard_normal((32, 20)).astype(np.float32),
        "b": rng.standard_normal(20).astype(np.float32),
        "k": np.array([5], np.int64),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], "gemm"),
        helper.make_node("TopK", ["h", "k"], ["values", "indices"], "topk"),
    ]
    outputs = [value("values", ["N", 5]), value("indices", ["N", 5], TensorProto.INT64)]
    return save(path, nodes, [value("x", ["N", 32])], outputs, weights)


def one_node(
    path: Path, op_type: str, inputs: list[Any], outputs: list[Any], opset: int = 17, **attributes: Any
) -> Path:
    """A graph of a single node named ``odd``."""
    node = helper.make_node(op_type, [i.name for i in inputs], [o.name for o in outputs], "odd", **attributes)
    return save(path, [node], inputs, outputs, {}, opset)
