"""Which nodes of a float graph must stay in FP32 when the rest becomes FP16 or BF16.

The seeds are operators whose FP16 result is known to be wrong or fragile (norms, softmax, exponentials, box decode,
selections, grids). From them the islands are closed: arithmetic and data movement between two FP32 nodes stays FP32,
because a round trip through FP16 in the middle of a norm or of coordinate arithmetic loses what the island is for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, TensorProto

from nvidia_tao_deploy.graph.tensors import SHAPE_OPS, STANDARD_DOMAINS, GraphIndex

# Reason -> operators that always stay FP32.
_KEPT = {
    "normalization": "LayerNormalization SimplifiedLayerNormalization RMSNormalization InstanceNormalization "
    "GroupNormalization BatchNormalization LpNormalization MeanVarianceNormalization LRN",
    "softmax": "Softmax LogSoftmax Hardmax",
    "exponential or power": "Pow Exp Log Sin Cos Tan Asin Acos Atan",
    "reduction": "ReduceSum ReduceMean ReduceSumSquare ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceProd "
    "CumSum",
    "selection or coordinates": "TopK NonMaxSuppression NonZero ArgMax ArgMin Unique RoiAlign MaxRoiPool Range "
    "GridSample AffineGrid",
    "exact values": "Cast CastLike ConstantOfShape EyeLike Upsample Celu Mod",
    "control flow": "If Loop Scan SequenceMap",
    "random": "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli",
    "recurrence": "LSTM GRU RNN",
}
KEEP_OPS = {op: reason for reason, ops in _KEPT.items() for op in ops.split()}
ARITHMETIC = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sqrt", "Reciprocal", "Min", "Max", "Clip", "Sum", "Mean", "Where"),
        *("Sigmoid", "Tanh", "Floor", "Ceil", "Round", "Sign"),
    }
)
MOVEMENT = frozenset(
    {
        *("Transpose", "Reshape", "Flatten", "Slice", "Squeeze", "Unsqueeze", "Gather", "GatherND", "GatherElements"),
        *("Split", "Concat", "Expand", "Tile", "Identity", "ScatterND", "ScatterElements", "Pad"),
    }
)
# What may sit between a quantized convolution and the QuantizeLinear of the next one, inside one fused kernel.
ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "HardSigmoid", "HardSwish", "Gelu", "Swish", "Mish", "Erf", "MaxPool"}
)
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"})
# The smallest and largest magnitude a value may have in 16 bits; bfloat16 has the range of FP32.
SMALLEST: dict[int, float] = {TensorProto.FLOAT16: 2.0**-14, TensorProto.BFLOAT16: 0.0}
LARGEST: dict[int, float] = {TensorProto.FLOAT16: 65504.0, TensorProto.BFLOAT16: float("inf")}


def node_key(node: NodeProto) -> str:
    """A hashable identity within one graph: the first output written."""
    return next((name for name in node.output if name), node.name)


def float_inputs(index: GraphIndex, node: NodeProto) -> list[str]:
    """FP32 inputs of a node that are computed or fed, not constant."""
    return [name for name in node.input if name and index.is_float(name) and name not in index.initializers]


def touches_float(index: GraphIndex, node: NodeProto) -> bool:
    """Whether the node reads or writes FP32 values, constants included."""
    return node.op_type not in SHAPE_OPS and any(index.is_float(name) for name in (*node.input, *node.output) if name)


def seed_reason(
    index: GraphIndex, node: NodeProto, ranges: Mapping[str, tuple[float, float]], low_type: int
) -> str | None:
    """Why this node alone must stay FP32, or None."""
    if node.domain not in STANDARD_DOMAINS:
        return f"operator of domain {node.domain}"
    if node.op_type in KEEP_OPS:
        return KEEP_OPS[node.op_type]
    for name in (*node.input, *node.output):
        low, high = ranges.get(name, (0.0, 0.0))
        magnitude = max(abs(low), abs(high))
        if magnitude > LARGEST[low_type]:
            return f"range: |{name}| reaches {magnitude:.4g}"
    for name in node.input:
        if index.is_float(name) and name in index.initializers:
            reason = _constant_reason(index, name, low_type)
            if reason:
                return reason
    return None


def _constant_reason(index: GraphIndex, name: str, low_type: int) -> str | None:
    value = index.constant(name)
    if value is None or value.size == 0:
        return None
    largest = float(np.abs(value).max())
    if largest > LARGEST[low_type]:
        return f"constant {name} reaches {largest:.4g}"
    # Epsilons and scale factors lose their value when they fall below the normal numbers; weights merely round.
    if value.size == 1 and 0 < largest < SMALLEST[low_type]:
        return f"constant {name} is {largest:.3g}, too small"
    return None


def close_islands(index: GraphIndex, kept: dict[str, str], pinned_low: set[str]) -> None:
    """Grow ``kept`` (node key -> reason) in place until no FP32 island has a 16-bit gap inside it.

    ``pinned_low`` holds nodes the user asked to lower; they are never added.
    """
    nodes = [node for node in index.graph.node if touches_float(index, node)]
    by_key = {node_key(node): node for node in nodes}
    closable = {
        key
        for key, node in by_key.items()
        if node.op_type in ARITHMETIC | MOVEMENT | ACTIVATIONS and key not in kept and key not in pinned_low
    }
    _close_tail(index, nodes, kept, closable)
    while True:
        added = _between(index, nodes, kept, closable) | _surrounded(index, nodes, kept, closable)
        if not added:
            return
        for key in added:
            kept[key] = "inside an FP32 island"
        closable -= added


def _close_tail(index: GraphIndex, nodes: list[NodeProto], kept: dict[str, str], closable: set[str]) -> None:
    """Arithmetic behind the last weighted operators is decode (boxes, scores): it ends in the FP32 outputs."""
    before_weighted: set[str] = set()
    for node in reversed(nodes):
        key = node_key(node)
        if any(f.op_type in WEIGHTED or node_key(f) in before_weighted for f in index.followers(node)):
            before_weighted.add(key)
        elif key in closable and node.op_type in ARITHMETIC and not _is_bias(index, node):
            kept[key] = "decode behind the last weighted operator"
    closable.difference_update(kept)


def _between(index: GraphIndex, nodes: list[NodeProto], kept: dict[str, str], closable: set[str]) -> set[str]:
    """Closable nodes on a path from one kept node to another through closable nodes only."""
    forward: set[str] = set()
    for node in nodes:
        key = node_key(node)
        if key in closable:
            sources = [index.producers.get(name) for name in float_inputs(index, node)]
            if any(source is not None and node_key(source) in forward | kept.keys() for source in sources):
                forward.add(key)
    backward: set[str] = set()
    for node in reversed(nodes):
        key = node_key(node)
        if key in forward and any(
            node_key(follower) in backward or node_key(follower) in kept
            for follower in index.followers(node)
            if touches_float(index, follower)
        ):
            backward.add(key)
    return backward


def _surrounded(index: GraphIndex, nodes: list[NodeProto], kept: dict[str, str], closable: set[str]) -> set[str]:
    """Arithmetic whose values all come from FP32 (kept nodes, graph inputs) or all go into kept nodes."""
    added: set[str] = set()
    for node in nodes:
        key = node_key(node)
        if key not in closable or node.op_type not in ARITHMETIC:
            continue
        sources = [_real_source(index, name) for name in float_inputs(index, node)]
        from_kept = bool(sources) and all(source is None or node_key(source) in kept for source in sources)
        followers = [follower for follower in index.followers(node) if touches_float(index, follower)]
        into_kept = bool(followers) and all(node_key(follower) in kept for follower in followers)
        if from_kept or (into_kept and _prepares(index, node)):
            added.add(key)
    return added


def _prepares(index: GraphIndex, node: NodeProto) -> bool:
    """Whether a node in front of an FP32 one is part of the same formula (x - mean, d * d, 1 - x).

    Sums and products of two activations are not: they are biases, residual streams and gates, which are joined to
    the operator before them and cost bandwidth in FP32.
    """
    if node.op_type in {"Add", "Sum", "Where", "Min", "Max", "Mean"}:
        return False
    return node.op_type != "Mul" or len(set(float_inputs(index, node))) == 1


def _is_bias(index: GraphIndex, node: NodeProto) -> bool:
    sources = [index.producers.get(name) for name in float_inputs(index, node)]
    return node.op_type == "Add" and len(sources) == 1 and sources[0] is not None and sources[0].op_type in WEIGHTED


def _real_source(index: GraphIndex, name: str) -> NodeProto | None:
    """Producer of ``name`` looking through one-input data movement; None for a graph input."""
    source = index.producers.get(name)
    while source is not None and source.op_type in MOVEMENT:
        inputs = float_inputs(index, source)
        if len(inputs) != 1:
            return source
        source = index.producers.get(inputs[0])
    return source
