"""Normalizations written out in elementary operators, for parsers that do not know them as one operator.

TensorRT 8.5 has no LayerNormalization and no GroupNormalization, and takes InstanceNormalization only with constant
scale and bias on rank 3 to 5. The formula is y = (x - mean) / sqrt(var + epsilon) * scale + bias, always in float32:
the squares overflow FP16 beyond |x| = 256.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, helper

from nvidia_tao_deploy.graph.lower.emit import FLOAT, Emitter, Tensor
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

    Norms inside If and Loop bodies stay. With "InstanceNormalization" in ``known_ops``, instances with constant scale
    and bias on rank 3 to 5 stay; the others go, as TensorRT 8.5 needs it.
    """
    result = copy_model(model)
    constants_to_initializers(result.graph)
    index = GraphIndex(result)
    nodes, left = list[NodeProto](), list[tuple[str, str, str]]()
    norms = list[tuple[str, str]]()
    for node in result.graph.node:
        if node.domain in STANDARD_DOMAINS and node.op_type in NORMS and not _known(index, node, known_ops):
            reason = _unwritable(index, node)
            if reason is None:
                g = Emitter(f"{label(node)}/{SUFFIX}/{len(norms)}", opset(result), index.shapes, node.input[0])
                _write_out(g, node, index.elem_types[node.input[0]], len(index.shapes[node.input[0]]))
                nodes += g.nodes
                result.graph.initializer.extend(g.constants)
                norms.append((label(node), node.op_type))
                continue
            left.append((label(node), node.op_type, reason))
        nodes.append(node)
    if not norms:
        return Decomposed(model, [], left)
    refill(result.graph.node, nodes)
    return Decomposed(result, norms, left)


def _known(index: GraphIndex, node: NodeProto, known_ops: Collection[str]) -> bool:
    if node.op_type not in known_ops or node.op_type != "InstanceNormalization":
        return node.op_type in known_ops
    constant = all(name in index.initializers for name in node.input[1:3])
    rank = len(index.shapes.get(node.input[0], (None,) * 4))
    return constant and 3 <= rank <= 5


def _unwritable(index: GraphIndex, node: NodeProto) -> str | None:
    if node.input[0] not in index.elem_types:
        return "the type of its input is not known"
    if node.input[0] not in index.shapes:
        return "the rank of its input is not known"
    if node.op_type == "GroupNormalization" and attribute(node, "num_groups", 0) < 1:
        return "it has no num_groups"
    return None


def _write_out(g: Emitter, node: NodeProto, kind: int, rank: int) -> None:
    """Emit what ``node`` computes, of an input of element type ``kind``."""

    def to_float(name: str) -> Tensor:
        return name if kind == FLOAT else g.cast(name, FLOAT)

    def affine(normal: Tensor, rank: int) -> Tensor:
        """Times scale plus bias, both (C,), along axis 1."""
        for op, name in (("Mul", node.input[1]), ("Add", node.input[2])):
            normal = g(op, normal, g.reshape(to_float(name), -1, *([1] * (rank - 2))))
        return normal

    epsilon = float(attribute(node, "epsilon", 1e-5))
    x = to_float(node.input[0])
    if node.op_type == "LayerNormalization":
        normal, mean, deviation = _standardize(g, x, range(attribute(node, "axis", -1) % rank, rank), epsilon)
        for op, value, target in zip(("Identity", "Reciprocal"), (mean, deviation), node.output[1:], strict=False):
            if target:
                g.nodes.append(helper.make_node(op, [value], [target], name=f"{g.prefix}/{target}"))
        for op, name in zip(("Mul", "Add"), node.input[1:], strict=False):
            if name:
                normal = g(op, normal, to_float(name))
    elif node.op_type == "InstanceNormalization":
        normal = affine(_standardize(g, x, range(2, rank), epsilon)[0], rank)
    else:
        # (N, C, ...) as (N, groups, everything else); opset 18 scales per group, opset 21 per channel.
        shape = g("Shape", node.input[0])
        normal, _, _ = _standardize(g, g.reshape(x, 0, attribute(node, "num_groups"), -1), [2], epsilon)
        normal = g("Reshape", affine(normal, 3) if g.opset < 21 else normal, shape)
        normal = affine(normal, rank) if g.opset >= 21 else normal
    if kind != FLOAT:
        g.cast(normal, kind)
    g.nodes[-1].output[0] = node.output[0]  # of the tensor that the norm computed


def _standardize(g: Emitter, x: Tensor, axes: Sequence[int], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / sqrt(var + epsilon), the mean and the root."""
    mean = g.reduce("ReduceMean", x, axes)
    centred = g("Sub", x, mean)
    deviation = g("Sqrt", g("Add", g.reduce("ReduceMean", g("Mul", centred, centred), axes), epsilon))
    return g("Div", centred, deviation), mean, deviation


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
