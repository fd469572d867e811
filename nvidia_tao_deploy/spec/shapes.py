"""What the fields of a section hold: values, blocks, lists of blocks or maps of blocks."""

from __future__ import annotations

import typing
from types import UnionType
from typing import Any

from nvidia_tao_deploy.spec.sections import Section


def fields_of(model: type[Section] | None) -> dict[str, Any]:
    """``{spec key: pydantic field}`` of a section."""
    if model is None:
        return {}
    return {field.alias or name: field for name, field in model.model_fields.items()}


def shape_of(field: Any) -> tuple[str, type[Section] | None]:
    """What a field holds: ``block``, ``list`` or ``map`` with its section, or ``value`` with None."""
    return _shape(field.annotation)


def _shape(annotation: Any) -> tuple[str, type[Section] | None]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _shape(arguments[0])
    if origin in (typing.Union, UnionType):
        inner = [item for item in arguments if item is not type(None)]
        return _shape(inner[0]) if len(inner) == 1 else ("value", None)
    # Python 3.10 takes list[str] for a class, so the origin is asked first.
    if origin is None and isinstance(annotation, type) and issubclass(annotation, Section):
        return "block", annotation
    if origin is list and _shape(arguments[0])[0] == "block":
        return "list", _shape(arguments[0])[1]
    if origin is dict and _shape(arguments[1])[0] == "block":
        return "map", _shape(arguments[1])[1]
    return "value", None


def allows_none(field: Any) -> bool:
    """Whether a field takes null."""
    return type(None) in typing.get_args(field.annotation)


def typed_paths(model: type[Section], prefix: str = "") -> list[tuple[str, Any]]:
    """Every dotted key of a model with its field, ``[]`` after lists and ``{}`` after maps of blocks."""
    found: list[tuple[str, Any]] = []
    for name, field in fields_of(model).items():
        kind, section = shape_of(field)
        suffix = {"list": "[]", "map": "{}"}.get(kind, "")
        found.append((f"{prefix}{name}{suffix}", field))
        if section is not None:
            found += typed_paths(section, f"{prefix}{name}{suffix}.")
    return found
