"""A model in 16 bits as one in 32, so that a build may choose its precision."""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from nvidia_tao_deploy.graph.tensors import copy_model


def widen(model: ModelProto) -> ModelProto:
    """The model with float32 for float16 everywhere: weights, constants, casts, inputs, outputs, inner graphs."""
    wide = copy_model(model)
    _widen(wide.graph)
    return wide


def _widen(graph: GraphProto) -> None:
    tensors = list(graph.initializer)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for entry in node.attribute:
            tensors += [entry.t, *entry.tensors]
            for inner in (entry.g, *entry.graphs):
                _widen(inner)
            if entry.name in ("to", "dtype") and entry.i == TensorProto.FLOAT16:
                entry.i = TensorProto.FLOAT
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
