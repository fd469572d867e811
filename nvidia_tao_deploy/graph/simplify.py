"""Constant folding, shape inference and operator fusion before any precision work."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import onnx
import onnx.inliner
from onnx import ModelProto, NodeProto, numpy_helper

from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.graph.tensors import (
    INLINE_PROTO_LIMIT,
    GraphIndex,
    attribute,
    captured_names,
    constants_to_initializers,
    copy_model,
    dims_of,
    fed_inputs,
    foreign_ops,
    refill,
    remove_unused_initializers,
    serialized_size,
)


def simplify(model: ModelProto) -> tuple[ModelProto, str | None]:
    """The same function with fewer nodes, and a note when nothing could be done.

    Constants and BatchNormalization are folded, dead nodes go. Inputs, outputs and nodes of unknown operators (plugins)
    stay.
    """
    note = None
    result = model = onnx.inliner.inline_local_functions(model) if model.functions else copy_model(model)
    if serialized_size(model) > INLINE_PROTO_LIMIT:
        note = "not simplified: the model has more than 2 GiB of weights"
    else:
        try:
            result = _slim(model)
        except Exception as error:  # third-party pass: whatever it raises, the original model is still right
            note = f"not simplified: onnxslim failed ({type(error).__name__}: {str(error)[:160]})"
    constants_to_initializers(result.graph)
    fold_batch_norm(result)
    remove_unused_initializers(result.graph)
    return result, note


def _slim(model: ModelProto) -> ModelProto:
    import onnxslim

    # BatchNormalization is folded by fold_batch_norm, which keeps the names of the convolutions.
    with contextlib.redirect_stdout(io.StringIO()):
        slimmed = onnxslim.slim(copy_model(model), skip_fusion_patterns=["FusionConvBN"])
    if not isinstance(slimmed, ModelProto):
        raise ModelError("onnxslim returned no model")
    if _interface(slimmed) != _interface(model):
        raise ModelError("inputs or outputs changed")
    if foreign_ops(slimmed) != foreign_ops(model):
        raise ModelError("plugin nodes changed")
    # onnxslim may re-order or annotate the declarations; the exporter's own are the contract.
    refill(slimmed.graph.input, model.graph.input)
    refill(slimmed.graph.output, model.graph.output)
    # What follows a plugin is annotated without a type, which ONNX Runtime refuses once the plugin is lowered.
    refill(slimmed.graph.value_info, [v for v in slimmed.graph.value_info if v.type.tensor_type.elem_type])
    slimmed.ir_version = max(slimmed.ir_version, model.ir_version)
    return slimmed


def _interface(model: ModelProto) -> tuple[list[str], list[str]]:
    graph = model.graph
    return sorted(value.name for value in fed_inputs(graph)), sorted(value.name for value in graph.output)


def fold_batch_norm(model: ModelProto) -> int:
    """Fold inference BatchNormalization into the Conv or ConvTranspose before it, in place; returns how many.

    w' = w * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta, computed in float64.
    """
    index = GraphIndex(model)
    captured = captured_names(model.graph)
    folded: list[NodeProto] = []
    for norm in model.graph.node:
        if norm.op_type != "BatchNormalization" or attribute(norm, "training_mode", 0) or len(norm.output) > 1:
            continue
        conv = index.producers.get(norm.input[0])
        if conv is None or conv.op_type not in {"Conv", "ConvTranspose"}:
            continue
        middle = norm.input[0]
        if len(index.consumers[middle]) > 1 or middle in index.outputs or middle in captured:
            continue
        if _fold_one(model, index, conv, norm):
            folded.append(norm)
    for norm in folded:
        model.graph.node.remove(norm)
    return len(folded)


def _fold_one(model: ModelProto, index: GraphIndex, conv: NodeProto, norm: NodeProto) -> bool:
    weight = index.constant(conv.input[1])
    parameters = [index.constant(name) for name in norm.input[1:5]]
    has_bias = len(conv.input) > 2 and conv.input[2] != ""
    bias = index.constant(conv.input[2]) if has_bias else np.zeros(1)
    if weight is None or bias is None or any(value is None for value in parameters) or weight.dtype != np.float32:
        return False
    gamma, beta, mean, var = (np.asarray(value, dtype=np.float64) for value in parameters)
    factor = gamma / np.sqrt(var + attribute(norm, "epsilon", 1e-5))
    groups = attribute(conv, "group", 1)
    if conv.op_type == "Conv":
        scaled = weight.astype(np.float64) * factor.reshape(-1, *([1] * (weight.ndim - 1)))
    else:  # (C, M/group, ...): output channel g * M/group + m sits at [g's rows, m]
        per_group = weight.shape[1]
        rows = weight.reshape(groups, -1, per_group, *weight.shape[2:]).astype(np.float64)
        scaled = (rows * factor.reshape(groups, 1, per_group, *([1] * (weight.ndim - 2)))).reshape(weight.shape)
    names = [f"{conv.input[1]}::{norm.output[0]}", f"{norm.output[0]}::bias"]
    for name, value in zip(names, (scaled, (bias.astype(np.float64) - mean) * factor + beta), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    conv.input[1] = names[0]
    del conv.input[2:]
    conv.input.append(names[1])
    conv.output[0] = norm.output[0]
    return True


def set_batch(model: ModelProto, batch: int | None) -> ModelProto:
    """A copy whose inputs and outputs have ``batch`` (or a dynamic "batch" for None) as first dimension.

    Outputs whose first dimension is a fixed number other than the old batch are left alone. Reshape nodes with the
    old batch baked into their constant shape cannot be known to mean the batch; check with ``parity.compare``.
    """
    result = copy_model(model)
    inputs = fed_inputs(result.graph)
    old = {dims_of(value)[:1] for value in inputs} - {()}
    for value in (*inputs, *result.graph.output):
        if dims_of(value)[:1] not in old:
            continue
        dims = value.type.tensor_type.shape.dim
        dims[0].Clear()
        if batch is None:
            dims[0].dim_param = "batch"
        else:
            dims[0].dim_value = batch
    del result.graph.value_info[:]  # the recorded shapes are of the old batch
    return result
