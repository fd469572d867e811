"""Normalizations written out in elementary operators, for parsers that do not know them as one operator.

TensorRT 8.5 has no LayerNormalization and no GroupNormalization, and takes InstanceNormalization only with constant
scale and bias on rank 3 to 5. The formula is y = (x - mean) / sqrt(var + epsilon) * scale + bias, always in float32:
the squares overflow FP16 beyond |x| = 256.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.graph.tensors import (
    STANDARD_DOMAINS,
    GraphIndex,
    attribute,
    constants_to_initializers,
    copy_model,
    label,
    opset,
    refill,
)

NORMS = frozenset({"LayerNormalization", "GroupNormalization", "InstanceNormalization"})
SUFFIX = "written_out"
REDUCE_AXES_INPUT = 18  # from this opset on ReduceMean takes its axes as an input


@dataclass(frozen=True)
class Decomposed:
    """A graph without the norms a parser does not know.

    The names of the nodes in their place match ``*/SUFFIX/*``; a precision pass must leave them in FP32.

    Attributes:
        model: the new model.
        norms: (node, op type) of what was replaced.
        left: (node, op type, reason) of norms that could not be written out.
    """

    model: ModelProto
    norms: list[tuple[str, str]]
    left: list[tuple[str, str, str]]


def decompose_norms(model: ModelProto, known_ops: Collection[str]) -> Decomposed:
    """Write out the norms of the top graph that are not in ``known_ops``, or whose form is not the known one.

    Args:
        model: any model; it is not changed. Norms inside If and Loop bodies stay.
        known_ops: operator names the target knows. With "InstanceNormalization" among them, instances with constant
            scale and bias on rank 3 to 5 stay; the others go, as TensorRT 8.5 needs it.
    """
    result = copy_model(model)
    constants_to_initializers(result.graph)
    index = GraphIndex(result)
    writer = _Writer(result, index)
    norms, left = [], []
    for node in list(result.graph.node):
        reason = None
        if node.domain in STANDARD_DOMAINS and node.op_type in NORMS and not _known(index, node, known_ops):
            reason = writer.write_out(node)
            if reason is None:
                norms.append((label(node), node.op_type))
                continue
            left.append((label(node), node.op_type, reason))
        writer.nodes.append(node)
    if not norms:
        return Decomposed(model, [], left)
    refill(result.graph.node, writer.nodes)
    return Decomposed(result, norms, left)


def _known(index: GraphIndex, node: NodeProto, known_ops: Collection[str]) -> bool:
    if node.op_type not in known_ops or node.op_type != "InstanceNormalization":
        return node.op_type in known_ops
    constant = all(name in index.initializers for name in node.input[1:3])
    rank = len(index.shapes.get(node.input[0], (None,) * 4))
    return constant and 3 <= rank <= 5


class _Writer:
    """Collects the nodes of the new graph; constants go into the model it is given."""

    def __init__(self, model: ModelProto, index: GraphIndex) -> None:
        self.model, self.index = model, index
        self.nodes: list[NodeProto] = []
        self._written = 0
        self._stem = ""
        self._axes_as_input = opset(model) >= REDUCE_AXES_INPUT

    def write_out(self, node: NodeProto) -> str | None:
        """Append what ``node`` computes; the reason where that is not possible, with nothing appended."""
        kind = self.index.elem_types.get(node.input[0])
        shape = self.index.shapes.get(node.input[0])
        if kind is None:
            return "the type of its input is not known"
        if shape is None:
            return "the rank of its input is not known"
        groups = attribute(node, "num_groups", 0)
        if node.op_type == "GroupNormalization" and groups < 1:
            return "it has no num_groups"
        self._stem = f"{label(node)}/{SUFFIX}"
        x = self._to_float(node.input[0], kind)
        if node.op_type == "LayerNormalization":
            self._layer(node, x, kind, len(shape))
        elif node.op_type == "InstanceNormalization":
            normal, _, _ = self._standardize(node, x, list(range(2, len(shape))))
            self._finish(node.output[0], self._affine(normal, node, kind, len(shape)), kind)
        else:
            self._group(node, x, kind, len(shape), groups)
        return None

    def _layer(self, node: NodeProto, x: str, kind: int, rank: int) -> None:
        axis = attribute(node, "axis", -1) % rank
        normal, mean, deviation = self._standardize(node, x, list(range(axis, rank)))
        if len(node.output) > 1 and node.output[1]:
            self._node("Identity", [mean], node.output[1])
        if len(node.output) > 2 and node.output[2]:
            self._node("Reciprocal", [deviation], node.output[2])
        for op, name in (("Mul", node.input[1]), ("Add", node.input[2] if len(node.input) > 2 else "")):
            if name:
                normal = self._node(op, [normal, self._to_float(name, kind)])
        self._finish(node.output[0], normal, kind)

    def _group(self, node: NodeProto, x: str, kind: int, rank: int, groups: int) -> None:
        """(N, C, ...) as (N, groups, everything else); opset 18 scales per group, opset 21 per channel."""
        shape = self._node("Shape", [node.input[0]])
        rows = self._node("Reshape", [x, self._ints("rows", [0, groups, -1])])
        normal, _, _ = self._standardize(node, rows, [2])
        per_group = opset(self.model) < 21
        if per_group:
            normal = self._affine(normal, node, kind, 3)
        normal = self._node("Reshape", [normal, shape])
        self._finish(node.output[0], normal if per_group else self._affine(normal, node, kind, rank), kind)

    def _standardize(self, node: NodeProto, x: str, axes: list[int]) -> tuple[str, str, str]:
        """(x - mean) / sqrt(var + epsilon), the mean and the root."""
        epsilon = self._constant("epsilon", np.asarray(attribute(node, "epsilon", 1e-5), dtype=np.float32))
        mean = self._mean(x, axes)
        centred = self._node("Sub", [x, mean])
        variance = self._mean(self._node("Mul", [centred, centred]), axes)
        deviation = self._node("Sqrt", [self._node("Add", [variance, epsilon])])
        return self._node("Div", [centred, deviation]), mean, deviation

    def _affine(self, normal: str, node: NodeProto, kind: int, rank: int) -> str:
        """Times scale plus bias, both (C,), along axis 1."""
        for op, name in (("Mul", node.input[1]), ("Add", node.input[2])):
            column = self._ints("column", [-1, *([1] * (rank - 2))])
            normal = self._node(op, [normal, self._node("Reshape", [self._to_float(name, kind), column])])
        return normal

    def _mean(self, x: str, axes: list[int]) -> str:
        if self._axes_as_input:
            return self._node("ReduceMean", [x, self._ints("axes", axes)], keepdims=1)
        return self._node("ReduceMean", [x], axes=axes, keepdims=1)

    def _to_float(self, name: str, kind: int) -> str:
        return name if kind == TensorProto.FLOAT else self._node("Cast", [name], to=TensorProto.FLOAT)

    def _finish(self, target: str, value: str, kind: int) -> None:
        """Give the last node the name of the tensor the norm computed."""
        if kind != TensorProto.FLOAT:
            self._node("Cast", [value], target, to=kind)
        else:
            self.nodes[-1].output[0] = target

    def _node(self, op: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        # A letter at the end: TensorRT's parser numbers further layers of one node name_0, name_1.
        name = f"{self._stem}/{self._written}{op}"
        self.nodes.append(helper.make_node(op, inputs, [output or name], name=name, **attributes))
        self._written += 1
        return output or name

    def _ints(self, what: str, values: list[int]) -> str:
        return self._constant(what, np.asarray(values, dtype=np.int64))

    def _constant(self, what: str, value: Array) -> str:
        name = f"{self._stem}/{self._written}{what}"
        self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        return name


def set_kernel_shapes(model: ModelProto) -> None:
    """Give every Conv and ConvTranspose its ``kernel_shape``, in place.

    ONNX reads it off the weight; TensorRT 8.5 does so only where the weight is a plain constant, not behind Q/DQ.
    """
    index = GraphIndex(model)
    for node in model.graph.node:
        if node.op_type not in {"Conv", "ConvTranspose"} or attribute(node, "kernel_shape") is not None:
            continue
        dims = index.shapes.get(node.input[1])
        if dims is not None and None not in dims:
            node.attribute.append(helper.make_attribute("kernel_shape", list(dims[2:])))
