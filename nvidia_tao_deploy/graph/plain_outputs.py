"""Classifiers that end in ONNX-ML: their scores as a tensor instead of a list of dictionaries."""

from __future__ import annotations

from onnx import GraphProto, ModelProto, TensorProto, helper

from nvidia_tao_deploy.graph.tensors import dims_of, fed_inputs, refill

ML_DOMAIN = "ai.onnx.ml"
SCORES = "/zipmap_scores"  # ends the names of the nodes written here


def plain_outputs(model: ModelProto) -> None:
    """In place: a ZipMap's output becomes the scores (N, C) it was made from, under its name; text outputs go.

    Converters for Windows ML and ML.NET write ``loss`` (a dictionary {label: score} per image) and ``classLabel`` (the
    best label as text), which no engine can hold. Models without ZipMap are not touched.
    """
    graph = model.graph
    maps = {node.output[0]: node for node in graph.node if node.op_type == "ZipMap"}
    if not maps:
        return
    batch = next((dims_of(value)[0] for value in fed_inputs(graph)), None)
    kept = []
    for output in graph.output:
        node = maps.get(output.name)
        if node is not None:
            labels = [len(a.strings) or len(a.ints) for a in node.attribute if a.name.startswith("classlabels")]
            graph.node.append(helper.make_node("Identity", [node.input[0]], [node.output[0]], f"{output.name}{SCORES}"))
            graph.node.remove(node)
            kept.append(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [batch or "N", labels[0]]))
        elif output.type.tensor_type.elem_type not in (TensorProto.UNDEFINED, TensorProto.STRING):
            kept.append(output)
    refill(graph.output, kept)
    _drop_unused(graph)
    if not any(node.domain == ML_DOMAIN for node in graph.node):
        refill(model.opset_import, [entry for entry in model.opset_import if entry.domain != ML_DOMAIN])


def _drop_unused(graph: GraphProto) -> None:
    needed = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    refill(graph.node, reversed(nodes))
