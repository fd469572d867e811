"""Mixed precision written into the graph: FP16 or BF16 with explicit Casts around FP32 islands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.version_converter
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nvidia_tao_deploy.errors import BuildError
from nvidia_tao_deploy.graph.islands import close_islands, node_key, seed_reason, touches_float
from nvidia_tao_deploy.graph.tensors import (
    INLINE_PROTO_LIMIT,
    QUANTIZE_OPS,
    SHAPE_OPS,
    GraphIndex,
    captured_names,
    constants_to_initializers,
    copy_model,
    label,
    matches,
    opset,
    refill,
    remove_unused_initializers,
    serialized_size,
    subgraphs,
)

LOW_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
TYPE_STRINGS: dict[int, str] = {TensorProto.FLOAT16: "tensor(float16)", TensorProto.BFLOAT16: "tensor(bfloat16)"}
BF16_OPSET = 22  # Conv, ConvTranspose and the pools accept bfloat16 from here on
# Inputs that must stay FP32 although the schema would allow 16 bits: TensorRT reads them as FP32 or on the host.
FP32_INPUTS = {"Resize": {1, 2}}
# Attributes that name the result type themselves (Cast, EyeLike, RandomNormal ..., DequantizeLinear from opset 23).
TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})
QUANTIZED = "fed by Q/DQ pairs"


@dataclass(frozen=True)
class CastResult:
    """A graph in mixed precision.

    Attributes:
        model: the new model; inputs and outputs are FP32 as before.
        kept: (node, reason) of every node that stays FP32 and is not fed by Q/DQ pairs.
        unmatched: globs of ``layers`` that name no node.
    """

    model: ModelProto
    kept: list[tuple[str, str]]
    unmatched: list[str]


def cast_float(
    model: ModelProto,
    precision: str,
    *,
    layers: Mapping[str, str] = {},
    ranges: Mapping[str, tuple[float, float]] = {},
) -> CastResult:
    """Give every node that can take it ``precision``; the others, and all inputs and outputs, stay FP32.

    Q/DQ pairs, the operators they feed and the activations between them stay FP32-typed too: that is valid for every
    TensorRT and exact in ONNX Runtime, and a fused int8 kernel runs the same either way.

    Args:
        model: an FP32 model, with or without Q/DQ pairs.
        precision: "fp16" or "bf16".
        layers: node name or glob -> "fp32", "fp16" or "bf16"; an exact name, else the last matching glob, overrules
            the operators kept by default. Entries "int8"/"fp8"/"int32" are for the quantizer and ignored here.
        ranges: tensor name -> (min, max) seen on calibration data; a tensor beyond 65504, the largest FP16 number,
            stays FP32. It does not bind bf16, whose range is that of FP32.

    Raises:
        BuildError: bf16 needs a newer opset than the model can be converted to.
    """
    low_type = LOW_TYPES[precision]
    remedy = f"Export the model with opset {BF16_OPSET}, or ask for fp16."
    result = workable(model, precision, BF16_OPSET if precision == "bf16" else 0, remedy)
    index = GraphIndex(result)
    pins, unmatched = _pins(index, layers)
    kept = _choose(index, opset(result), low_type, ranges, pins)
    islands = [
        (label(node), kept[node_key(node)])
        for node in index.graph.node
        if node.op_type not in QUANTIZE_OPS and kept.get(node_key(node), QUANTIZED) != QUANTIZED
    ]
    _rewrite(result, index, kept, low_type)
    remove_unused_initializers(result.graph)
    return CastResult(result, islands, unmatched)


def _pins(index: GraphIndex, layers: Mapping[str, str]) -> tuple[dict[str, tuple[bool, str]], list[str]]:
    """User's wishes: node key -> (lower it?, reason), and the globs that match nothing."""
    pins: dict[str, tuple[bool, str]] = {}
    unmatched = []
    names = {node.name for node in index.graph.node}
    # An exact name overrules a glob, otherwise the last one counts.
    for glob, wish in sorted(layers.items(), key=lambda entry: entry[0] in names):
        matched = [node for node in index.graph.node if matches(node, glob)]
        if not matched:
            unmatched.append(glob)
        if wish in {"fp32", *LOW_TYPES}:
            pins.update({node_key(node): (wish != "fp32", f"{glob}:{wish}") for node in matched})
    return pins, unmatched


def _choose(
    index: GraphIndex,
    version: int,
    low_type: int,
    ranges: Mapping[str, tuple[float, float]],
    pins: Mapping[str, tuple[bool, str]],
) -> dict[str, str]:
    """Node key -> reason for every node with float data that stays FP32."""
    kept: dict[str, str] = {}
    pinned_low = {key for key, (lower, _) in pins.items() if lower}
    for node in index.graph.node:
        if not touches_float(index, node):
            continue
        key = node_key(node)
        reason = "Q/DQ pair" if node.op_type in QUANTIZE_OPS else _impossible(index, node, version, low_type)
        if reason is None and key in pins:
            reason = None if key in pinned_low else pins[key][1]
        elif reason is None:
            reason = seed_reason(index, node, ranges, low_type)
        if reason is not None:
            kept[key] = reason
    for node in index.graph.node:
        if node.op_type == "DequantizeLinear":
            # A Cast between it and the operator it feeds would stop the fusion to an int8 kernel.
            for consumer in index.followers(node):
                if touches_float(index, consumer):
                    kept.setdefault(node_key(consumer), QUANTIZED)
    close_islands(index, kept, pinned_low)
    return kept


def _impossible(index: GraphIndex, node: NodeProto, version: int, low_type: int) -> str | None:
    """Why the operator has no 16-bit form at this opset, or why its values do not allow one."""
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
    for node in graph.node:
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
    refill(graph.node, nodes)
    for value in graph.value_info:
        if low_name.get(value.name) == value.name:
            value.type.tensor_type.elem_type = low_type


def _to_low(tensor: TensorProto, name: str, low_type: int) -> TensorProto:
    value = numpy_helper.to_array(tensor)
    if low_type == TensorProto.FLOAT16:
        return numpy_helper.from_array(value.astype(np.float16), name)
    import ml_dtypes

    bits = value.astype(ml_dtypes.bfloat16)
    return TensorProto(name=name, data_type=low_type, dims=list(value.shape), raw_data=bits.tobytes())


def workable(model: ModelProto, precision: str, least: int, remedy: str) -> ModelProto:
    """A copy of the model for a pass to change: of opset ``least`` or newer, its constants all initializers.

    Raises:
        BuildError: it cannot be converted to that opset.
    """
    found = opset(model)
    result = copy_model(model) if found >= least else convert_opset(model, least)
    if result is None:
        what = f"{precision} needs ONNX opset {least}, and the model (opset {found}) cannot be converted to it"
        raise BuildError(what, remedy=remedy)
    constants_to_initializers(result.graph)
    return result


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
