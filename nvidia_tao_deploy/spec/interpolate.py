"""``${a.b}`` in spec values, through OmegaConf."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import Container, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from nvidia_tao_deploy.spec.trees import Tree, leaves

Report = Callable[[str, str, str | None, str], None]
"""Called with the key, its text, the absent key that it refers to (if that is the reason), and the reason."""


class Unreadable(Exception):  # noqa: N818 - becomes a SpecError with a place
    """A value that OmegaConf cannot take, e.g. an interpolation whose brackets do not match."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


def resolved(tree: Tree, below: Sequence[Tree], report: Report) -> Tree:
    """``tree`` with every interpolation replaced by what it refers to.

    Args:
        below: layers that interpolations may refer to besides ``tree``, lowest first; null counts as absent.
        report: told about each value that cannot be resolved; the value becomes ``???``.

    Raises:
        Unreadable: OmegaConf does not take the values at all.
    """
    try:
        layers = [OmegaConf.create(_without_null(layer)) for layer in (*below, tree)]
        whole = _merged(layers)
    except (OmegaConfBaseException, ValueError, RecursionError) as error:
        raise _explained(tree, error) from error
    found: Tree = _resolved(tree, whole, "", report)
    return found


def _without_null(tree: Any) -> Any:
    """Blocks without their null values, so that an interpolation to one fails instead of reading ``None``."""
    if not isinstance(tree, dict):
        return tree
    return {key: _without_null(value) for key, value in tree.items() if value is not None}


def _merged(layers: Sequence[Any]) -> Any:
    try:
        return OmegaConf.merge(*layers)
    except TypeError:
        # A list where a block belongs; the check of the keys says where.
        return layers[-1]


def _resolved(plain: Any, node: Any, path: str, report: Report) -> Any:
    is_list = isinstance(plain, list)
    found = {}
    for key, value in enumerate(plain) if is_list else plain.items():
        at = f"{path}[{key}]" if is_list else f"{path}.{key}" if path else str(key)
        if isinstance(value, (dict, list)):
            found[key] = _resolved(value, node[key], at, report)
        elif isinstance(value, str) and "${" in value:
            found[key] = _value(value, node, key, at, report)
        else:
            found[key] = value
    return list(found.values()) if is_list else found


def _value(text: str, node: Any, key: Any, path: str, report: Report) -> Any:
    try:
        value = node[key]
        return OmegaConf.to_container(value, resolve=True) if isinstance(value, Container) else value
    except (InterpolationToMissingValueError, MissingMandatoryValue):
        return "???"
    except InterpolationKeyError as error:
        report(path, text, str(error).partition("'")[2].partition("'")[0], str(error))
    except (OmegaConfBaseException, ValueError, RecursionError) as error:
        report(path, text, None, str(error).splitlines()[0])
    return "???"


def _explained(tree: Tree, error: Exception) -> Unreadable:
    for key, value in leaves(tree):
        try:
            OmegaConf.create({"value": value})
        except (OmegaConfBaseException, ValueError):
            return Unreadable(f"cannot read {value!r}: a reference is written ${{section.key}}", key)
    return Unreadable(f"cannot merge the spec: {str(error).splitlines()[0]}")
