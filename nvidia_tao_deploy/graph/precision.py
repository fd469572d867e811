"""Mixed precision written into the graph: FP16 or BF16 with explicit Casts around FP32 islands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.version_converter
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nvidia_tao_deploy.errors import BuildError, SpecError
from nvidia_tao_deploy.graph.islands import (
    DEFAULT_KEEP_OPS,
    close_islands,
    node_key,
    seed_reason,
    touches_float,
)
from nvidia_tao_deploy.graph.simplify import remove_unused_initializers
from nvidia_tao_deploy.graph.tensors import (
    INLINE_PROTO_LIMIT,
    QUANTIZE_OPS,
    SHAPE_OPS,
    GraphIndex,
    all_nodes,
    captured_names,
    constants_to_initializers,
    copy_model,
    label,
    matches,
    opset,
    serialized_size,
    subgraphs,
)

FP16_MAX = 65504.0
LOW_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
TYPE_STRINGS: dict[int, str] = {TensorProto.FLOAT16: "tensor(float16)", TensorProto.BFLOAT16: "tensor(bfloat16)"}
BF16_OPSET = 22  # Conv, ConvTranspose and the pools accept bfloat16 from here on
QDQ_OPSET = 19  # QuantizeLinear and DequantizeLinear accept 16-bit data and scales from here on
# Inputs that must stay FP32 although the schema would allow 16 bits: TensorRT reads them as FP32 or on the host.
FP32_INPUTS = {"Resize": {1, 2}}
# The smallest FP16 weight scale with less than 0.4 % rounding error; smaller channels are rounded up to it.
MIN_FP16_SCALE = 2.0**-17
# Attributes that name the result type themselves (Cast, EyeLike, RandomNormal ..., DequantizeLinear from opset 23).
TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})
QUANTIZED = "fed by Q/DQ pairs"


@dataclass(frozen=True)
class CastResult:
    """A graph in mixed precision.

    Attributes:
        model: the new model; inputs and outputs are FP32 as before.
        counts: nodes that touch float data by precision, e.g. {"fp16": 120, "fp32": 31, "quantized": 7}; Q/DQ nodes
            themselves are not counted.
        kept: (node, reason) of every node that stays FP32 and is not fed by Q/DQ pairs.
        unmatched: globs of ``keep_nodes`` and ``layers`` that name no node.
    """

    model: ModelProto
    counts: dict[str, int]
    kept: list[tuple[str, str]]
    unmatched: list[str]


def cast_float(
    model: ModelProto,
    precision: str,
    *,
    keep_ops: Mapping[str, str] = DEFAULT_KEEP_OPS,
    keep_nodes: Sequence[str] = (),
    layers: Mapping[str, str] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    data_max: float = FP16_MAX,
    qdq_type: str = "fp32",
) -> CastResult:
    """Give every node that can take it ``precision``; the others, and all inputs and outputs, stay FP32.

    Args:
        model: an FP32 model, with or without Q/DQ pairs.
        precision: "fp16" or "bf16".
        keep_ops: op type -> reason, for operators that always stay FP32.
        keep_nodes: globs on node names that stay FP32.
        layers: node name or glob -> "fp32", "fp16" or "bf16"; an exact name, else the last matching glob, overrules
            the keep lists.
            Entries "int8"/"fp8"/"int32" are for the quantizer and ignored here.
        ranges: tensor name -> (min, max) seen on calibration data; beyond ``data_max`` a tensor stays FP32.
        data_max: largest magnitude allowed in 16 bits; 65504 is the largest FP16 number. It does not bind bf16,
            whose range is that of FP32.
        qdq_type: type of the float side of Q/DQ pairs. "fp32" leaves the pairs, the operators they feed and the
            activations between them FP32-typed: valid for every TensorRT and exact in ONNX Runtime, and a fused
            int8 kernel runs the same either way. "low" lowers scales and all: float operators between quantized
            ones then run in 16 bits, which strongly typed TensorRT >= 10 prefers; ONNX Runtime (1.31 seen) rounds
            the biases of such convolutions in FP16 unless ``session.disable_quant_qdq`` is set.

    Raises:
        SpecError: unknown precision.
        BuildError: bf16 needs a newer opset than the model can be converted to.
    """
    if precision not in LOW_TYPES:
        raise SpecError(f"precision {precision!r} is not one of {', '.join(LOW_TYPES)}")
    low_type = LOW_TYPES[precision]
    limit = data_max if precision == "fp16" else float("inf")
    lower_pairs = qdq_type == "low"
    result = _with_opset(copy_model(model), precision, lower_pairs)
    constants_to_initializers(result.graph)
    if lower_pairs:
        _round_scales(result, low_type)
    index = GraphIndex(result)
    pins, unmatched = _pins(index, keep_nodes, layers or {})
    kept = _choose(index, opset(result), low_type, keep_ops, ranges or {}, limit, pins, lower_pairs)
    reasons = [
        (label(node), kept.get(node_key(node), ""))
        for node in index.graph.node
        if touches_float(index, node) and node.op_type not in QUANTIZE_OPS
    ]
    _rewrite(result, index, kept, low_type)
    remove_unused_initializers(result)
    names = {"": precision, QUANTIZED: "quantized"}
    counts = Counter(names.get(reason, "fp32") for _, reason in reasons)
    islands = [(name, reason) for name, reason in reasons if names.get(reason) is None]
    return CastResult(result, dict(counts), islands, unmatched)


def _pins(
    index: GraphIndex, keep_nodes: Sequence[str], layers: Mapping[str, str]
) -> tuple[dict[str, tuple[bool, str]], list[str]]:
    """User's wishes: node key -> (lower it?, reason), and the globs that match nothing."""
    pins: dict[str, tuple[bool, str]] = {}
    unmatched = []
    wishes = [(glob, "fp32", f"keep_nodes {glob}") for glob in keep_nodes]
    wishes += [(glob, wish.lower(), f"layers_precision {glob}:{wish}") for glob, wish in layers.items()]
    names = {node.name for node in index.graph.node}
    wishes.sort(key=lambda wish: wish[0] in names)  # an exact name overrules a glob, otherwise the last one counts
    for glob, wish, reason in wishes:
        matched = [node for node in index.graph.node if matches(node, glob)]
        if not matched:
            unmatched.append(glob)
        if wish in {"fp32", *LOW_TYPES}:
            pins.update({node_key(node): (wish != "fp32", reason) for node in matched})
    return pins, unmatched


def _choose(
    index: GraphIndex,
    version: int,
    low_type: int,
    keep_ops: Mapping[str, str],
    ranges: Mapping[str, tuple[float, float]],
    data_max: float,
    pins: Mapping[str, tuple[bool, str]],
    lower_pairs: bool,
) -> dict[str, str]:
    """Node key -> reason for every node with float data that stays FP32."""
    kept: dict[str, str] = {}
    pinned_low = {key for key, (lower, _) in pins.items() if lower}
    for node in index.graph.node:
        if not touches_float(index, node):
            continue
        key = node_key(node)
        reason = _impossible(index, node, version, low_type)
        if node.op_type in QUANTIZE_OPS and not lower_pairs:
            reason = "Q/DQ pair"
        if reason is None and key in pins:
            reason = None if key in pinned_low else pins[key][1]
        elif reason is None:
            reason = seed_reason(index, node, keep_ops, ranges, data_max, low_type)
        if reason is not None:
            kept[key] = reason
    pairs = [node for node in index.graph.node if node.op_type in QUANTIZE_OPS]
    if not lower_pairs:
        _keep_fed_by_pairs(index, pairs, kept)
    close_islands(index, kept, pinned_low)
    if lower_pairs:  # they take the type of what is around them, so they are decided last
        _settle_pairs(index, pairs, kept)
    return kept


def _keep_fed_by_pairs(index: GraphIndex, pairs: list[NodeProto], kept: dict[str, str]) -> None:
    """A Cast between DequantizeLinear and the operator it feeds would stop the fusion to an int8 kernel."""
    for node in pairs:
        if node.op_type == "DequantizeLinear":
            for consumer in index.consumers.get(node.output[0], ()):
                if touches_float(index, consumer):
                    kept.setdefault(node_key(consumer), QUANTIZED)


def _settle_pairs(index: GraphIndex, pairs: list[NodeProto], kept: dict[str, str]) -> None:
    """A weighted operator and the DequantizeLinear before it share one type: a Cast between them would stop fusion."""
    for node in pairs:
        if node.op_type != "DequantizeLinear":
            continue
        consumers = [c for c in index.consumers.get(node.output[0], ()) if touches_float(index, c)]
        if node_key(node) in kept:
            for consumer in consumers:
                kept.setdefault(node_key(consumer), "behind an FP32 DequantizeLinear")
        elif consumers and all(node_key(consumer) in kept for consumer in consumers):
            kept[node_key(node)] = "feeds FP32 nodes only"
    for node in pairs:
        if node.op_type == "DequantizeLinear":
            source = index.producers.get(node.input[0])
            if source is not None and source.op_type == "QuantizeLinear" and source.input[0] in index.initializers:
                _follow(kept, node, source)  # weights: Q and DQ read one scale and one constant
        elif index.producers.get(node.input[0]) is None and node.input[0] not in index.initializers:
            kept.setdefault(node_key(node), "reads an FP32 input")


def _follow(kept: dict[str, str], leader: NodeProto, follower: NodeProto) -> None:
    if node_key(leader) in kept:
        kept[node_key(follower)] = kept[node_key(leader)]
    else:
        kept.pop(node_key(follower), None)


def _impossible(index: GraphIndex, node: NodeProto, version: int, low_type: int) -> str | None:
    """Why the operator has no 16-bit form at this opset, or why its values do not allow one."""
    if node.op_type in QUANTIZE_OPS:
        scale = index.constant(node.input[1])
        if scale is None:
            return "scale is not a constant"
        smallest = float(np.abs(scale).min()) if scale.size else 0.0
        per_tensor_limit = 2.0**-14 if low_type == TensorProto.FLOAT16 else 0.0
        if scale.size == 1 and smallest < per_tensor_limit:
            return f"scale {smallest:.3g} is too small for 16 bits"
    if not onnx.defs.has(node.op_type, version, node.domain):
        return "unknown operator"
    if next(subgraphs(node), None) is not None:
        return "control flow"
    if any(entry.name in TYPE_ATTRIBUTES for entry in node.attribute) or node.op_type == "ConstantOfShape":
        return "its result type is fixed"
    for name in (*node.input, *node.output):
        if name and name not in index.elem_types:
            return f"type of tensor {name} is not known"
    inputs, outputs = _lowerable(node, version, low_type)
    floats_in = [i for i, name in enumerate(node.input) if name and index.is_float(name)]
    floats_out = [i for i, name in enumerate(node.output) if name and index.is_float(name)]
    if not (inputs & set(floats_in) or outputs & set(floats_out)):
        return f"no 16-bit form at opset {version}"
    return None


def _lowerable(node: NodeProto, version: int, low_type: int) -> tuple[set[int], set[int]]:
    """Positions of the inputs and outputs whose type parameter admits the 16-bit type."""
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    allowed = {
        constraint.type_param_str
        for constraint in schema.type_constraints
        if TYPE_STRINGS[low_type] in constraint.allowed_type_strs
    }
    fixed = FP32_INPUTS.get(node.op_type, set())

    def positions(formal: Sequence[onnx.defs.OpSchema.FormalParameter], count: int) -> set[int]:
        return {i for i in range(count) if formal and formal[min(i, len(formal) - 1)].type_str in allowed}

    return positions(schema.inputs, len(node.input)) - fixed, positions(schema.outputs, len(node.output))


def _rewrite(model: ModelProto, index: GraphIndex, kept: Mapping[str, str], low_type: int) -> None:
    """Re-type tensors and insert the Casts. A 16-bit tensor keeps its name unless FP32 readers need that name."""
    graph = model.graph
    version = opset(model)
    suffix = "fp16" if low_type == TensorProto.FLOAT16 else "bf16"
    needs_name = index.outputs | captured_names(graph)
    low_name: dict[str, str] = {}  # FP32 tensor of the old graph -> its 16-bit tensor in the new one
    high_name: dict[str, str] = {}  # 16-bit tensors only: old name -> FP32 tensor in the new graph
    constants: dict[str, str] = {}
    nodes: list[NodeProto] = []

    def cast(source: str, target: str, to: int) -> None:
        nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}::Cast", to=to))

    def low(name: str) -> str:
        if name in index.initializers:
            if name not in constants:
                constants[name] = f"{name}::{suffix}"
                graph.initializer.append(_to_low(index.initializers[name], constants[name], low_type))
            return constants[name]
        if name not in low_name:
            low_name[name] = f"{name}::{suffix}"
            cast(name, low_name[name], low_type)
        return low_name[name]

    def high(name: str) -> str:
        if name not in low_name or name in fp32_tensors:
            return name
        if name not in high_name:
            high_name[name] = f"{name}::fp32"
            cast(low_name[name], high_name[name], TensorProto.FLOAT)
        return high_name[name]

    fp32_tensors = set(index.inputs) | set(index.initializers)
    for original in list(graph.node):
        node = NodeProto()
        node.CopyFrom(original)
        lowered = touches_float(index, node) and node_key(node) not in kept
        inputs, outputs = _lowerable(node, version, low_type) if lowered else (set(), set())
        for i, name in enumerate(node.input):
            if name and index.is_float(name) and node.op_type not in SHAPE_OPS:
                node.input[i] = low(name) if i in inputs else high(name)
        pending = []
        for i, name in enumerate(node.output):
            if not name or not index.is_float(name):
                continue
            if i not in outputs:
                fp32_tensors.add(name)
            elif name in needs_name:
                low_name[name] = node.output[i] = f"{name}::{suffix}"
                fp32_tensors.add(name)
                pending.append(name)
            else:
                low_name[name] = name
        nodes.append(node)
        for name in pending:
            cast(low_name[name], name, TensorProto.FLOAT)
    del graph.node[:]
    graph.node.extend(nodes)
    for value in graph.value_info:
        if low_name.get(value.name) == value.name:
            value.type.tensor_type.elem_type = low_type


def _round_scales(model: ModelProto, low_type: int) -> None:
    """Make every scale a number both types hold, in place: a pair split over two types must not disagree."""
    import ml_dtypes

    scales = {node.input[1] for node in model.graph.node if node.op_type in QUANTIZE_OPS}
    dtype = np.float16 if low_type == TensorProto.FLOAT16 else ml_dtypes.bfloat16
    for tensor in model.graph.initializer:
        if tensor.name not in scales or tensor.data_type != TensorProto.FLOAT:
            continue
        value = numpy_helper.to_array(tensor)
        if low_type == TensorProto.FLOAT16:
            if value.size == 1 and value.max() < 2.0**-14:
                continue  # stays FP32, see _impossible
            value = np.clip(value, MIN_FP16_SCALE, FP16_MAX)
        tensor.CopyFrom(numpy_helper.from_array(value.astype(dtype).astype(np.float32), tensor.name))


def _to_low(tensor: TensorProto, name: str, low_type: int) -> TensorProto:
    value = numpy_helper.to_array(tensor)
    if low_type == TensorProto.FLOAT16:
        return numpy_helper.from_array(value.astype(np.float16), name)
    import ml_dtypes

    bits = value.astype(ml_dtypes.bfloat16)
    return TensorProto(name=name, data_type=low_type, dims=list(value.shape), raw_data=bits.tobytes())


def _with_opset(model: ModelProto, precision: str, lower_pairs: bool) -> ModelProto:
    """The model at an opset whose operators accept the precision, converted when needed."""
    quantized = any(node.op_type in QUANTIZE_OPS for node in all_nodes(model.graph))
    if precision == "bf16":
        wanted = BF16_OPSET
    elif quantized and lower_pairs:
        wanted = QDQ_OPSET
    else:
        return model
    if opset(model) >= wanted:
        return model
    converted = convert_opset(model, wanted)
    if converted is not None:
        return converted
    if precision == "bf16":
        raise BuildError(
            f"bf16 needs ONNX opset {wanted}, and the model (opset {opset(model)}) cannot be converted to it",
            remedy=f"Export the model with opset {wanted}, or ask for fp16.",
        )
    return model  # Q/DQ and what they feed then stay FP32: right, but slower


def convert_opset(model: ModelProto, version: int) -> ModelProto | None:
    """The model at opset ``version``, or None when ONNX's converter cannot do it."""
    if serialized_size(model) > INLINE_PROTO_LIMIT:
        return None
    try:
        converted = onnx.version_converter.convert_version(model, version)
        onnx.checker.check_model(converted)
    except (RuntimeError, ValueError, onnx.checker.ValidationError):
        return None
    return converted
