"""The graph as ONNX Runtime's CPU provider can run it, for the checks and the calibration of graphs that it cannot."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nvidia_tao_deploy.graph.lower import PLUGIN_OPS, lower_plugins
from nvidia_tao_deploy.graph.tensors import GraphIndex, all_nodes, copy_model, refill


def runnable(model: ModelProto) -> ModelProto:
    """``model`` with plugin nodes lowered and bfloat16 computed in float32, rounded after every node.

    Tensor names of everything else stay. A model that needs neither is returned as it is; plugins that cannot be
    lowered stay in it, and ONNX Runtime will name them.
    """
    if any(node.op_type in PLUGIN_OPS for node in all_nodes(model.graph)):
        model = lower_plugins(model).model
    if holds_bfloat16(model):
        model = _widen(model)
    return model


def holds_bfloat16(model: ModelProto) -> bool:
    """Whether anything in the model is bfloat16."""
    if any(tensor.data_type == TensorProto.BFLOAT16 for tensor in model.graph.initializer):
        return True
    return any(
        node.op_type == "Cast" and any(entry.i == TensorProto.BFLOAT16 for entry in node.attribute)
        for node in model.graph.node
    )


def _widen(model: ModelProto) -> ModelProto:
    """Values rounded by Casts and computed wide: on the CPU ONNX Runtime has no other bfloat16 kernels."""
    index = GraphIndex(model)
    narrow = {name for name, kind in index.elem_types.items() if kind == TensorProto.BFLOAT16}
    result = copy_model(model)
    graph = result.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            wide = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    nodes: list[NodeProto] = []
    for node in graph.node:
        rounded = [name for name in node.output if name in narrow]
        if node.op_type == "Cast" and rounded:
            node.attribute[0].i = TensorProto.FLOAT
        for position, name in enumerate(node.output):
            if name in rounded:
                node.output[position] = f"{name}::wide"
        nodes.append(node)
        for name in rounded:
            nodes.append(helper.make_node("Cast", [f"{name}::wide"], [f"{name}::bits"], to=TensorProto.BFLOAT16))
            nodes.append(helper.make_node("Cast", [f"{name}::bits"], [name], to=TensorProto.FLOAT))
    refill(graph.node, nodes)
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return result
