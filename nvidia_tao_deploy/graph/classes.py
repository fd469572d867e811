"""How many classes a detector tells apart, where its graph still says so."""

from __future__ import annotations

from onnx import ModelProto

from nvidia_tao_deploy.graph.lower.plugins import typed


def class_count(model: ModelProto) -> int | None:
    """Classes, without the background, of the suppression plugin a detector ends in; None: no such plugin."""
    for node in model.graph.node:
        numbers: dict[str, int] = {attribute.name: attribute.i for attribute in node.attribute}
        if "numClasses" in numbers:
            return numbers["numClasses"] - (numbers.get("backgroundLabelId", -1) >= 0)
        if node.op_type == "EfficientNMS_TRT":
            *_, columns = typed(model).shapes.get(node.input[1]) or (None,)
            return None if columns is None else columns - (numbers.get("background_class", -1) >= 0)
    return None
