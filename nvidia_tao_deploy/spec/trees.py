"""Nested plain data: merging, dotted keys, and changing one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.errors import SpecError

Tree = dict[str, Any]


def dotted(path: tuple[str | int, ...]) -> str:
    """``("a", "b", 0)`` as ``a.b[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def merged(base: Any, over: Any, *, lists: bool = True) -> Any:
    """``over`` laid on ``base``: blocks are merged key by key, everything else is replaced; arguments stay as they are.

    ``lists`` of blocks of equal length are merged element by element, so that typed and other keys of one element meet.
    """
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: merged(base.get(key), value, lists=lists) for key, value in over.items()}}
    lists = lists and isinstance(base, list) and isinstance(over, list) and len(base) == len(over)
    if lists and all(isinstance(item, dict) for item in [*base, *over]):
        return [merged(low, high) for low, high in zip(base, over, strict=True)]
    return over


def at(tree: Any, key: str, default: Any = None) -> Any:
    """What is at a dotted key through blocks, ``default`` if nothing is."""
    for part in key.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return default
        tree = tree[part]
    return tree


def plain(value: Any) -> Any:
    """Mappings as dicts with text keys, tuples as lists, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def meets_list(tree: Any, path: Sequence[str | int]) -> bool:
    """Whether ``path`` leads through a list that is there."""
    for part in path[:-1]:
        tree = tree.get(part) if isinstance(tree, dict) else None
        if isinstance(tree, list):
            return True
    return False


def reach(tree: Any, path: Sequence[str | int], place: str) -> tuple[Any, Any]:
    """The container that holds the last part of ``path``, and that part as its key or index.

    Raises:
        SpecError: nothing is there; ``place`` names the override.
    """
    for depth, part in enumerate(path):
        key: Any = part
        if isinstance(tree, list):
            if not str(part).isdigit() or int(part) >= len(tree):
                raise SpecError(f"there is no element {part}; the list has {len(tree)}", where=place)
            key = int(part)
        elif not isinstance(tree, dict):
            raise SpecError(f"there is nothing at part {part} of the key", where=place)
        if depth == len(path) - 1:
            return tree, key
        if isinstance(tree, dict) and key not in tree:
            raise SpecError(f"the spec does not set {part}, so nothing in it can be replaced", where=place)
        tree = tree[key]
    raise SpecError("the key is empty", where=place)


def dotted_keys(value: Any, prefix: str) -> list[str]:
    """Every dotted key inside ``value``, blocks included."""
    if not isinstance(value, dict):
        return []
    return [found for key, item in value.items() for found in (f"{prefix}{key}", *dotted_keys(item, f"{prefix}{key}."))]


def leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every dotted key that holds a plain value, with that value."""
    if isinstance(tree, dict):
        return [leaf for key, item in tree.items() for leaf in leaves(item, f"{path}.{key}" if path else str(key))]
    if isinstance(tree, list):
        return [leaf for index, item in enumerate(tree) for leaf in leaves(item, f"{path}[{index}]")]
    return [(path, tree)]
