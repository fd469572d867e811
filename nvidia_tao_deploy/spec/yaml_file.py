"""YAML text to plain data, with the line of every key."""

from __future__ import annotations

import re
from typing import Any

import yaml

from nvidia_tao_deploy.errors import SpecError


class _Loader(yaml.SafeLoader):
    """Safe YAML with OmegaConf's reading of scalars: ``1e-3`` is a number, dates stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def read_yaml(text: str, name: str) -> tuple[dict[str, Any], dict[str, int], list[str]]:
    """The YAML document of the file called ``name``; its root is a block of keys.

    Returns:
        The plain data, ``{dotted key: line}`` (list elements are ``key[0]``), and a note for each block that stands
        there twice: published specs do that, and their parts are merged. An empty document is an empty block.

    Raises:
        SpecError: malformed YAML (with line and column), a value given twice, or a root that is not a block of keys.
    """
    lines: dict[str, int] = {}
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return {}, {}, []
        if not isinstance(root, yaml.MappingNode):
            raise SpecError(
                "the spec is not a block of 'key: value' lines",
                where=f"{name}:{root.start_mark.line + 1}",
                remedy="Write keys like 'results_dir: /results', one per line.",
            )
        notes: list[str] = []
        _merge_repeated(root, "", name, notes, set())
        _mark_lines(root, "", lines)
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise SpecError(
            f"malformed YAML: {error.problem or error.context}",
            where=where,
            remedy="Mend the line (look at indentation, colons, quotes and brackets there and just above).",
        ) from error
    except yaml.YAMLError as error:
        raise SpecError(f"malformed YAML: {' '.join(str(error).split())}", where=name) from error
    except (ValueError, RecursionError) as error:
        # PyYAML lets e.g. `!!int x` and self-containing anchors through to Python.
        raise SpecError(f"malformed YAML: {error}", where=name) from error
    finally:
        if loader is not None:
            loader.dispose()
    return data, lines, notes


def _merge_repeated(node: yaml.Node, prefix: str, name: str, notes: list[str], above: set[int]) -> None:
    """Make one block of blocks with the same key; later values win there. A repeated plain value is a mistake."""
    if id(node) in above:
        raise SpecError("malformed YAML: a block contains itself", where=f"{name}:{node.start_mark.line + 1}")
    above = above | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _merge_repeated(item, f"{prefix.removesuffix('.')}[{index}].", name, notes, above)
    if not isinstance(node, yaml.MappingNode):
        return
    pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise SpecError("a key must be plain text", where=f"{name}:{line}")
        key = f"{prefix}{key_node.value}"
        if key_node.value in pairs:
            first_key, first = pairs[key_node.value]
            first_line = first_key.start_mark.line + 1
            if not isinstance(first, yaml.MappingNode) or not isinstance(value_node, yaml.MappingNode):
                what = f"{key} is given twice, in lines {first_line} and {line}"
                raise SpecError(what, where=f"{name}:{line}: {key}", remedy="Keep one of them.")
            notes.append(
                f"{key} is given twice, in lines {first_line} and {line}; both parts count, the later one wins"
            )
            value_node = _joined(first, value_node)
        pairs[key_node.value] = (key_node, value_node)
    node.value = list(pairs.values())
    for key_node, value_node in node.value:
        _merge_repeated(value_node, f"{prefix}{key_node.value}.", name, notes, above)


def _joined(first: yaml.MappingNode, second: yaml.MappingNode) -> yaml.MappingNode:
    pairs = {key.value: (key, value) for key, value in first.value}
    for key, value in second.value:
        below = pairs[key.value][1] if key.value in pairs else None
        if isinstance(below, yaml.MappingNode) and isinstance(value, yaml.MappingNode):
            value = _joined(below, value)
        pairs[key.value] = (key, value)
    return yaml.MappingNode(first.tag, list(pairs.values()), first.start_mark, second.end_mark)


def _mark_lines(node: yaml.Node, prefix: str, lines: dict[str, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = f"{prefix}{key_node.value}"
            lines[key] = key_node.start_mark.line + 1
            _mark_lines(value_node, f"{key}.", lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            key = f"{prefix.removesuffix('.')}[{index}]"
            lines[key] = item.start_mark.line + 1
            _mark_lines(item, f"{key}.", lines)
