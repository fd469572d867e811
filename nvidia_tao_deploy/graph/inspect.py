"""Which nodes of a model a target does not know."""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import ModelProto, NodeProto

from nvidia_tao_deploy.graph.tensors import STANDARD_DOMAINS, all_nodes, label


def operator_of(node: NodeProto) -> str:
    """ "Conv", "com.microsoft::Gelu"."""
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}::{node.op_type}"


def shown(node: NodeProto) -> str:
    """Its name and operator, for messages."""
    return f"{label(node)} ({operator_of(node)})"


def unsupported_nodes(model: ModelProto, known_ops: Collection[str]) -> list[NodeProto]:
    """Nodes, subgraphs included, whose :func:`operator_of` is not in ``known_ops``.

    Calls of functions that the model itself defines count as known; their bodies are searched instead.
    """
    functions = {(function.domain, function.name) for function in model.functions}
    bodies = [node for function in model.functions for node in function.node]
    return [
        node
        for node in (*all_nodes(model.graph), *bodies)
        if (node.domain, node.op_type) not in functions and operator_of(node) not in known_ops
    ]


def standard_ops(version: int) -> frozenset[str]:
    """Operator names of the ONNX standard at opset ``version``."""
    schemas = onnx.defs.get_all_schemas()
    return frozenset(s.name for s in schemas if s.domain == "" and onnx.defs.has(s.name, version, ""))
