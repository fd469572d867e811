"""Which nodes of a model a target does not know."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx
from onnx import ModelProto

from nvidia_tao_deploy.graph.tensors import STANDARD_DOMAINS, all_nodes, label


@dataclass(frozen=True)
class UnsupportedNode:
    """A node that a target cannot run."""

    name: str
    op_type: str
    domain: str

    def __str__(self) -> str:
        kind = f"{self.domain}::{self.op_type}" if self.domain else self.op_type
        return f"{self.name} ({kind})"


def unsupported_nodes(model: ModelProto, known_ops: Collection[str]) -> list[UnsupportedNode]:
    """Nodes, subgraphs included, whose operator is not in ``known_ops`` ("Conv", "com.microsoft::Gelu").

    Calls of functions that the model itself defines count as known; their bodies are searched instead.
    """
    functions = {(function.domain, function.name) for function in model.functions}
    bodies = [node for function in model.functions for node in function.node]
    found = []
    for node in (*all_nodes(model.graph), *bodies):
        domain = "" if node.domain in STANDARD_DOMAINS else node.domain
        name = f"{domain}::{node.op_type}" if domain else node.op_type
        if (node.domain, node.op_type) not in functions and name not in known_ops:
            found.append(UnsupportedNode(label(node), node.op_type, domain))
    return found


def standard_ops(version: int) -> frozenset[str]:
    """Operator names of the ONNX standard at opset ``version``."""
    schemas = onnx.defs.get_all_schemas()
    return frozenset(s.name for s in schemas if s.domain == "" and onnx.defs.has(s.name, version, ""))
