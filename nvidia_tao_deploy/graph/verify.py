"""What precision a graph really has, counted over its convolutions and matrix products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from nvidia_tao_deploy.errors import BuildError
from nvidia_tao_deploy.graph.tensors import QUANTIZE_OPS, GraphIndex, all_nodes, subgraphs

COUNTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
LEGACY_QUANTIZED_OPS = frozenset(
    {
        *("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"),
        *("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"),
    }
)
PRECISIONS = ("int8", "fp8", "bf16", "fp16", "fp32")
FLOAT_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp32",  # TensorRT narrows it
}
QUANTIZED_NAMES: dict[int, str] = {
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT8E5M2: "fp8",
}


def is_quantized(model: ModelProto) -> bool:
    """Whether the model carries Q/DQ pairs or QLinear operators, in any graph and any domain."""
    return any(node.op_type in QUANTIZE_OPS | LEGACY_QUANTIZED_OPS for node in all_nodes(model.graph))


def count_precisions(model: ModelProto) -> dict[str, int]:
    """Convolutions and matrix products by precision, e.g. {"int8": 83, "fp16": 37, "total": 120}.

    An operator counts as int8 or fp8 when its data and its weight (both inputs) come out of DequantizeLinear;
    otherwise by the type of its data input. Subgraphs are included; precisions that do not occur are left out.
    """
    index = GraphIndex(model)
    counts: Counter[str] = Counter()
    _count(model.graph, index.elem_types, index.producers, counts)
    return {name: counts[name] for name in (*PRECISIONS, "unknown") if counts[name]} | {"total": counts.total()}


def _count(graph: GraphProto, types: dict[str, int], outer: Mapping[str, NodeProto], counts: Counter[str]) -> None:
    producers = dict(outer)
    for value in (*graph.value_info, *graph.input, *graph.output):
        types.setdefault(value.name, value.type.tensor_type.elem_type)
    for tensor in graph.initializer:
        types.setdefault(tensor.name, tensor.data_type)
    for node in graph.node:
        producers.update({name: node for name in node.output if name})
        if node.op_type in COUNTED_OPS:
            counts[_precision_of(node, producers, types)] += 1
        for body in subgraphs(node):
            _count(body, types, producers, counts)


def _precision_of(node: NodeProto, producers: Mapping[str, NodeProto], types: Mapping[str, int]) -> str:
    sources = [producers.get(name) for name in node.input[:2]]
    quantized = [
        QUANTIZED_NAMES.get(_quantized_type(source, producers, types))
        for source in sources
        if source is not None and source.op_type == "DequantizeLinear"
    ]
    if len(quantized) == 2 and quantized[0] is not None and quantized[0] == quantized[1]:
        return quantized[0]
    kinds = [types.get(name, TensorProto.UNDEFINED) for name in node.input[:2]]
    return next((FLOAT_NAMES[kind] for kind in kinds if kind in FLOAT_NAMES), "unknown")


def _quantized_type(node: NodeProto, producers: Mapping[str, NodeProto], types: Mapping[str, int]) -> int:
    source = producers.get(node.input[0])
    for candidate in (node, source):
        if candidate is not None and len(candidate.input) > 2 and candidate.input[2] in types:
            return types[candidate.input[2]]
    return types.get(node.input[0], TensorProto.UINT8)


def describe_precision(counts: Mapping[str, int]) -> str:
    """E.g. "int8: 83 of 120 convolutions and matmuls, fp16: 37"."""
    total = counts.get("total", 0)
    if total == 0:
        return "no convolutions or matmuls"
    first, *rest = [f"{name}: {counts[name]}" for name in (*PRECISIONS, "unknown") if counts.get(name)]
    return ", ".join([f"{first} of {total} convolutions and matmuls", *rest])


def verify_precision(model: ModelProto, asked: str) -> dict[str, int]:
    """Check that the graph holds the precision that was asked for; returns ``count_precisions``.

    int8, fp8, fp16 and bf16 need at least one convolution or matmul of that type; fp32 allows no 16-bit one. A model
    without any convolution or matmul passes for fp32 and fails for int8 and fp8.

    Raises:
        BuildError: what was asked for is not there.
    """
    counts = count_precisions(model)
    wanted = asked.lower()
    if wanted == "fp32":
        missing = counts["total"] > 0 and not counts.get("fp32") and not is_quantized(model)
    elif wanted in {"fp16", "bf16"}:
        missing = counts["total"] > 0 and not counts.get(wanted)
    else:
        missing = not counts.get(wanted)
    if missing:
        raise BuildError(
            f"{wanted} was asked for, but the prepared graph has {describe_precision(counts)}",
            remedy="See the list of nodes kept in float and why; relax layers_precision or ask for another precision.",
        )
    return counts
