"""Small models built with onnx.helper, each with the constructs that a pass has to get right."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper


class Builder:
    """Adds nodes with weights drawn from one generator; every node is named after its output."""

    def __init__(self, seed: int = 0, opset: int = 17) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def const(self, name: str, value: object) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def conv(self, x: str, name: str, cin: int, cout: int, kernel: int = 3, *, stride: int = 1, group: int = 1) -> str:
        fan = cin // group * kernel * kernel
        weight = self.rng.standard_normal((cout, cin // group, kernel, kernel)) / np.sqrt(fan)
        # Channels of very different size: per-channel scales matter.
        weight *= 2.0 ** self.rng.uniform(-2, 1, (cout, 1, 1, 1))
        self.const(f"{name}.w", weight.astype(np.float32))
        self.const(f"{name}.b", (0.1 * self.rng.standard_normal(cout)).astype(np.float32))
        pads = [kernel // 2] * 4
        inputs = [x, f"{name}.w", f"{name}.b"]
        return self.node("Conv", inputs, name, pads=pads, strides=[stride, stride], group=group)

    def norm(self, x: str, name: str, channels: int) -> str:
        for part, low, high in (("scale", 0.5, 1.5), ("bias", -1, 1), ("mean", -1, 1), ("var", 0.3, 2)):
            self.const(f"{name}.{part}", self.rng.uniform(low, high, channels).astype(np.float32))
        return self.node("BatchNormalization", [x, *(f"{name}.{p}" for p in ("scale", "bias", "mean", "var"))], name)

    def linear(self, x: str, name: str, cin: int, cout: int) -> str:
        self.const(f"{name}.w", (self.rng.standard_normal((cin, cout)) / np.sqrt(cin)).astype(np.float32))
        self.const(f"{name}.b", (0.1 * self.rng.standard_normal(cout)).astype(np.float32))
        self.node("MatMul", [x, f"{name}.w"], f"{name}.mm")
        return self.node("Add", [f"{name}.mm", f"{name}.b"], name)

    def layer_norm(self, x: str, name: str, width: int) -> str:
        self.const(f"{name}.g", self.rng.uniform(0.5, 1.5, width).astype(np.float32))
        self.const(f"{name}.be", self.rng.uniform(-0.2, 0.2, width).astype(np.float32))
        return self.node("LayerNormalization", [x, f"{name}.g", f"{name}.be"], name, axis=-1)

    def model(self, inputs: dict[str, list[object]], outputs: dict[str, list[object]]) -> ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)
        onnx.checker.check_model(model)
        return model


def residual_cnn(seed: int = 0, *, batch_norm: bool = False) -> ModelProto:
    """Stem, a residual block, a concatenation of two branches behind a pooling, a linear head. x (b,3,16,16)."""
    b = Builder(seed)
    x = b.conv("x", "stem", 3, 32)
    if batch_norm:
        x = b.norm(x, "stem_bn", 32)
    x = b.node("Relu", [x], "stem_relu")
    y = b.node("Relu", [b.conv(x, "block1", 32, 32)], "block1_relu")
    y = b.conv(y, "block2", 32, 32)
    x = b.node("Relu", [b.node("Add", [y, x], "residual")], "block_relu")
    x = b.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    left = b.node("Relu", [b.conv(x, "left", 32, 32, 1)], "left_relu")
    right = b.node("Relu", [b.conv(left, "right", 32, 32)], "right_relu")
    x = b.node("Concat", [left, right], "concat", axis=1)
    x = b.node("Relu", [b.conv(x, "merge", 64, 32, 1)], "merge_relu")
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x], "gap")], "flat", axis=1)
    b.const("head.w", b.rng.standard_normal((10, 32)).astype(np.float32))
    b.const("head.b", b.rng.standard_normal(10).astype(np.float32))
    b.node("Gemm", [x, "head.w", "head.b"], "y", transB=1)
    return b.model({"x": ["b", 3, 16, 16]}, {"y": ["b", 10]})


def transformer_block(seed: int = 0, *, width: int = 32, heads: int = 2) -> ModelProto:
    """Pre-norm attention and MLP with GELU by Erf, then a norm and a linear head. x (b,8,width), y (b,8,4)."""
    b = Builder(seed)
    h = b.layer_norm("x", "ln1", width)
    b.const("split", np.asarray([0, 0, heads, width // heads], dtype=np.int64))
    b.const("join", np.asarray([0, 0, width], dtype=np.int64))
    parts = {}
    for part in "qkv":
        r = b.node("Reshape", [b.linear(h, part, width, width), "split"], f"{part}.r")
        parts[part] = b.node("Transpose", [r], f"{part}.t", perm=[0, 2, 3, 1] if part == "k" else [0, 2, 1, 3])
    scores = b.node("MatMul", [parts["q"], parts["k"]], "qk")
    b.const("scale", np.float32((width // heads) ** -0.5))
    weights = b.node("Softmax", [b.node("Mul", [scores, "scale"], "scaled")], "attention", axis=-1)
    mixed = b.node("Transpose", [b.node("MatMul", [weights, parts["v"]], "av")], "av.t", perm=[0, 2, 1, 3])
    x = b.node("Add", ["x", b.linear(b.node("Reshape", [mixed, "join"], "joined"), "proj", width, width)], "res1")
    h = b.linear(b.layer_norm(x, "ln2", width), "fc1", width, 4 * width)
    b.const("sqrt2", np.float32(2**0.5))
    b.const("one", np.float32(1))
    b.const("half", np.float32(0.5))
    e = b.node("Add", [b.node("Erf", [b.node("Div", [h, "sqrt2"], "g1")], "g2"), "one"], "g3")
    h = b.node("Mul", [b.node("Mul", [h, e], "g4"), "half"], "gelu")
    x = b.node("Add", [x, b.linear(h, "fc2", 4 * width, width)], "res2")
    b.linear(b.layer_norm(x, "ln3", width), "y", width, 4)
    return b.model({"x": ["b", 8, width]}, {"y": ["b", 8, 4]})


def decomposed_norm(seed: int = 0) -> ModelProto:
    """A norm written by hand (mean, square, mean, sqrt, divide) between two products; its squares pass 65504."""
    b = Builder(seed)
    h = b.linear("x", "fc", 16, 32)
    b.const("axes", np.asarray([-1], dtype=np.int64))
    mean = b.node("ReduceMean", [h], "mean", axes=[-1])
    d = b.node("Sub", [h, mean], "centred")
    square = b.node("Mul", [d, d], "square")
    b.const("eps", np.float32(1e-6))
    var = b.node("Add", [b.node("ReduceMean", [square], "variance", axes=[-1]), "eps"], "shifted")
    n = b.node("Div", [d, b.node("Sqrt", [var], "std")], "normed")
    b.linear(n, "y", 32, 16)
    return b.model({"x": ["b", 16]}, {"y": ["b", 16]})


def detector(seed: int = 0) -> ModelProto:
    """Backbone, scores through TopK, boxes through sigmoid and a scale to pixels, a sampling grid with offsets."""
    b = Builder(seed)
    x = b.node("Relu", [b.conv("x", "c1", 3, 16)], "r1")
    x = b.node("Relu", [b.conv(x, "c2", 16, 32, stride=2)], "r2")
    b.const("flat_shape", np.asarray([0, -1], dtype=np.int64))
    b.const("k", np.asarray([5], dtype=np.int64))
    logits = b.node("Reshape", [b.conv(x, "score", 32, 1, 1), "flat_shape"], "logits")
    b.nodes.append(helper.make_node("TopK", [logits, "k"], ["scores", "indices"], name="topk"))
    b.const("pixels", np.float32(640))
    b.node("Mul", [b.node("Sigmoid", [b.conv(x, "box", 32, 4, 1)], "box_sig"), "pixels"], "boxes")
    offsets = b.node("Tanh", [b.conv(x, "offset", 32, 2, 1)], "offsets")
    grid = b.node("Transpose", [offsets], "grid", perm=[0, 2, 3, 1])
    sampled = b.node("GridSample", [x, grid], "sampled", mode="bilinear", align_corners=0)
    b.conv(b.node("Relu", [b.conv(sampled, "c3", 32, 32)], "r3"), "mask", 32, 16, 1)
    return b.model(
        {"x": ["b", 3, 16, 16]},
        {"scores": ["b", 5], "boxes": ["b", 4, 8, 8], "mask": ["b", 16, 8, 8]},
    )


def feeds(model: ModelProto, count: int = 3, batch: int = 4, seed: int = 1) -> list[dict[str, np.ndarray]]:
    """Normal random batches for every input; dynamic first dimension = batch."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        one = {}
        for value in model.graph.input:
            dims = [d.dim_value or batch for d in value.type.tensor_type.shape.dim]
            one[value.name] = rng.standard_normal(dims).astype(np.float32)
        result.append(one)
    return result
