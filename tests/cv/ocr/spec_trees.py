"""A complete spec tree of a YAML network: every key that its contract knows, with a value of its type."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.known import Node, known_keys
from nvidia_tao_deploy.spec.load import load_spec


def complete(node: Node, values: Mapping[str, Any], name: str = "") -> Any:
    """The tree; ``values`` by key name where not every value of the type is allowed."""
    if name in values:
        return values[name]
    if node.kind != "value":
        content = {key: complete(child, values, key) for key, child in node.children.items()}
        return {"block": content, "list": [content], "map": {"a": content}}[node.kind]
    kind = node.type.removesuffix("?")
    if kind.startswith("list"):
        return [{"a": "1"}] if "dict" in kind else ["a"] if "str" in kind else [1]
    return {"int": 1, "float": 0.5, "bool": True, "dict": {"a": "1"}}.get(kind, "text")


def check_tree(spec: type, network: str, values: Mapping[str, Any], typos: Mapping[str, str], tmp_path: Path) -> None:
    """The complete tree loads without notes; ``typos`` (section -> key) are refused with their line."""
    tree = complete(known_keys(network), values)
    assert load_spec(spec, tree).notes == []
    for section, key in typos.items():
        block = dict(tree[section])
        block[f"{key}x"] = block.pop(key)
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump({**tree, section: block}, sort_keys=False))
        line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if text.startswith(f"  {key}x:"))
        with pytest.raises(SpecError) as caught:
            load_spec(spec, path)
        assert caught.value.where == f"{path}:{line}: {section}.{key}x"
