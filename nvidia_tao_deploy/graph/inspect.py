"""What a model is made of: operators, opset, and the nodes a target does not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx
from onnx import ModelProto, NodeProto

from nvidia_tao_deploy.graph.tensors import all_nodes, label, opset


@dataclass(frozen=True)
class UnsupportedNode:
    """A node that a target cannot run."""

    name: str
    op_type: str
    domain: str

    def __str__(self) -> str:
        kind = f"{self.domain}::{self.op_type}" if self.domain else self.op_type
        return f"{self.name} ({kind})"


def op_histogram(model: ModelProto) -> dict[str, int]:
    """Operators of the graph and its subgraphs with their counts, most frequent first, then by name."""
    counts = Counter(_op_name(node) for node in all_nodes(model.graph))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def opset_version(model: ModelProto) -> int:
    """Version of the standard operator set."""
    return opset(model)


def unsupported_nodes(model: ModelProto, known_ops: Collection[str]) -> list[UnsupportedNode]:
    """Nodes, subgraphs included, whose operator is not in ``known_ops`` ("Conv", "com.microsoft::Gelu").

    Calls of functions that the model itself defines count as known; their bodies are searched instead.
    """
    functions = {(function.domain, function.name) for function in model.functions}
    bodies: Sequence[NodeProto] = [node for function in model.functions for node in function.node]
    return [
        UnsupportedNode(label(node), node.op_type, _domain(node))
        for node in (*all_nodes(model.graph), *bodies)
        if (node.domain, node.op_type) not in functions and _op_name(node) not in known_ops
    ]


def standard_ops(version: int) -> frozenset[str]:
    """Operator names of the ONNX standard at opset ``version``."""
    names = set()
    for schema in onnx.defs.get_all_schemas():
        if schema.domain == "" and onnx.defs.has(schema.name, version, ""):
            names.add(schema.name)
    return frozenset(names)


def _domain(node: NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else str(node.domain)


def _op_name(node: NodeProto) -> str:
    domain = _domain(node)
    return f"{domain}::{node.op_type}" if domain else str(node.op_type)
