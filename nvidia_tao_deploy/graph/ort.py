"""Running a model held in memory with ONNX Runtime on the CPU: the reference of this room."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.graph.simplify import fold_batch_norm
from nvidia_tao_deploy.graph.tensors import (
    INLINE_PROTO_LIMIT,
    all_nodes,
    constants_to_initializers,
    copy_model,
    refill,
    remove_unused_initializers,
    serialized_size,
)

# Drops a ReLU in front of QuantizeLinear, taking an FP8 zero point for the smallest number of its type (1.31 seen).
WRONG_REWRITES = ("ReluQuantRewrite",)
JOINS_BIASES = ("ConvAddFusion",)


def open_session(model: ModelProto, *, threads: int = 0) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU provider; ``threads``: intra-op, 0 for one per core.

    Raises:
        ModelError: ONNX Runtime cannot load the model, e.g. because of a plugin node.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    options.intra_op_num_threads = threads
    settings: dict[str, Any] = {"sess_options": options, "providers": ["CPUExecutionProvider"]}
    if needs_plain_pairs(model):
        # ONNX Runtime would turn FP8 pairs into QLinearConv (int8 only), and round biases next to FP16 scales in FP16.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        settings["disabled_optimizers"] = list(WRONG_REWRITES)
    try:
        if serialized_size(model) <= INLINE_PROTO_LIMIT:
            return ort.InferenceSession(model.SerializeToString(), **settings)
        with tempfile.TemporaryDirectory(prefix="tao_deploy_") as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(copy_model(model), str(path), save_as_external_data=True, location="weights.bin")
            return ort.InferenceSession(str(path), **settings)
    except Exception as error:  # ONNX Runtime's exception classes are private to its extension module
        text = " ".join(str(error).split())[:300]
        raise ModelError(
            f"ONNX Runtime cannot load the model: {text}",
            remedy="Lower plugin nodes to standard operators first (plugins: lower).",
        ) from error


def run(session: Any, outputs: Sequence[str], feeds: Mapping[str, Array], what: str) -> list[Array]:
    """The ``outputs`` of one batch.

    Raises:
        ModelError: the batch does not fit the model; ``what`` names it ("the model", "the prepared graph").
    """
    try:
        return list(session.run(list(outputs), dict(feeds)))
    except Exception as error:  # as above
        shapes = ", ".join(f"{name} {tuple(np.shape(array))}" for name, array in feeds.items())
        text = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{what} cannot run on calibration images ({shapes}): {text}",
            remedy="A batch may be baked into the model: export it with a dynamic batch, or set cal_batch_size to the "
            "one it was exported with.",
        ) from error


def needs_plain_pairs(model: ModelProto) -> bool:
    """Whether ONNX Runtime must leave Q/DQ pairs alone (``session.disable_quant_qdq``): FP8 or 16-bit scales."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    exact = {TensorProto.FLOAT, None}, {TensorProto.INT8, TensorProto.UINT8, None}
    return any(
        any(types.get(name) not in allowed for name, allowed in zip(node.input[1:3], exact, strict=False))
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    )


def kernels_are_constants(model: ModelProto) -> bool:
    """Whether every convolution has its kernel as a constant, not from a node.

    The CUDA provider's change to channels last takes other kernels for changed already: graphs with Q/DQ pairs end in
    wrong shapes or crash (ONNX Runtime 1.31.1).
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    convolutions = (node for node in all_nodes(model.graph) if node.op_type.startswith("Conv"))
    return all(node.input[1] in constants for node in convolutions)


def biases_apart(model: ModelProto) -> ModelProto:
    """``model`` with the constant biases of its 2-D convolutions added by nodes of their own, rounded as before.

    Those of batch norms among them. ONNX Runtime must not join them again (:data:`JOINS_BIASES`).
    """
    result = copy_model(model)
    graph = result.graph
    constants_to_initializers(graph)
    fold_batch_norm(result)  # ONNX Runtime would, into biases
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 3:
            continue
        weight, bias = map(constants.get, node.input[1:3])
        if weight is not None and bias is not None and len(weight.dims) == 4:
            name, (output,) = f"{node.output[0]}::bias", node.output
            graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(bias).reshape(1, -1, 1, 1), name))
            del node.input[2:]
            node.output[0] = f"{output}::unbiased"
            nodes.append(helper.make_node("Add", [node.output[0], name], [output], name=name))
    refill(graph.node, nodes)
    remove_unused_initializers(graph)
    return result
