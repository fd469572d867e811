"""Moves older keys of a spec to where they live now and says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nvidia_tao_deploy.spec.drift import Drift
from nvidia_tao_deploy.spec.trees import at

_ABSENT = object()


def apply_drift(
    tree: dict[str, Any], rules: Iterable[Drift], is_key: Callable[[str], bool]
) -> tuple[list[str], dict[str, str]]:
    """Move the values of older keys inside ``tree``, in place.

    Args:
        tree: one layer of a spec (the file, or one override), nested and without dotted keys.
        rules: the older keys, first match wins.

    Returns:
        One note per older key that was there, and ``{new key: old key}`` for those that moved.
    """
    notes: list[str] = []
    moved: dict[str, str] = {}
    for rule in rules:
        value = at(tree, rule.old, _ABSENT)
        if value is _ABSENT or (rule.only_if and not isinstance(value, rule.only_if)):
            continue
        if is_key(rule.old) and not rule.only_if:
            continue
        targets = (rule.new,) if isinstance(rule.new, str) else rule.new or ()
        targets = tuple(target for target in targets if is_key(target))
        if rule.new and not targets:
            continue
        _remove(tree, rule.old)
        if not targets:
            notes.append(f"no longer used: {rule.old}" + (f" ({rule.why})" if rule.why else ""))
            continue
        converted = rule.convert(value) if rule.convert and value is not None else value
        kept = [target for target in targets if at(tree, target, _ABSENT) is not _ABSENT]
        for target in targets:
            if target not in kept:
                _put(tree, target, converted)
                moved[target] = rule.old
        said = f"{rule.old} is now called {' and '.join(targets)}"
        notes.append(said + (f"; the value of {' and '.join(kept)} counts" if kept else ""))
    return notes, moved


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for part in parents:
        child = tree.get(part)
        if not isinstance(child, dict):
            child = tree[part] = {}
        tree = child
    tree[last] = value


def _remove(tree: dict[str, Any], key: str) -> None:
    """Delete the key and the blocks that it leaves empty."""
    parent, _, last = key.rpartition(".")
    block = at(tree, parent) if parent else tree
    del block[last]
    if parent and not block:
        _remove(tree, parent)
