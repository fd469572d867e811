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


def read_yaml(text: str, name: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Parse one YAML document whose root is a block of keys.

    Args:
        text: the document.
        name: the file's name for error messages.

    Returns:
        The plain data and ``{dotted key: line}``; list elements are ``key[0]``. An empty document is an empty block.

    Raises:
        SpecError: malformed YAML (with line and column), a key given twice, or a root that is not a block of keys.
    """
    loader = _Loader(text)
    lines: dict[str, int] = {}
    try:
        root = loader.get_single_node()
        if root is None:
            return {}, {}
        if not isinstance(root, yaml.MappingNode):
            raise SpecError(
                "the spec is not a block of 'key: value' lines",
                where=f"{name}:{root.start_mark.line + 1}",
                remedy="Write keys like 'results_dir: /results', one per line.",
            )
        _mark_lines(root, "", lines, name, set())
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
        loader.dispose()
    return data, lines


def _mark_lines(node: yaml.Node, prefix: str, lines: dict[str, int], name: str, above: set[int]) -> None:
    if id(node) in above:
        raise SpecError("malformed YAML: a block contains itself", where=f"{name}:{node.start_mark.line + 1}")
    above = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise SpecError("a key must be plain text", where=f"{name}:{line}")
            key = f"{prefix}{key_node.value}"
            if key in seen:
                raise SpecError(
                    f"{key} is given twice, in lines {seen[key]} and {line}",
                    where=f"{name}:{line}: {key}",
                    remedy="Keep one of them.",
                )
            seen[key] = lines[key] = line
            _mark_lines(value_node, f"{key}.", lines, name, above)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            key = f"{prefix.removesuffix('.')}[{index}]"
            lines[key] = item.start_mark.line + 1
            _mark_lines(item, f"{key}.", lines, name, above)
