"""Short ways to write a spec's fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo


def field(default: Any, description: str, **limits: Any) -> Any:
    """A key with its default, what it is, and whatever else ``pydantic.Field`` takes (ge, le, min_length, ...)."""
    return Field(default=default, description=description, **limits)


def section(of: type[BaseModel], description: str | None = None, **more: Any) -> Any:
    """A block of keys, described by its class's docstring unless told otherwise."""
    return Field(default_factory=of, description=description or of.__doc__, **more)


def changed_fields(block: Any, changes: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(type, field) of the keys of a block that change, by name.

    ``changes`` holds, by dotted key, a default, a :func:`field` with its own words, or a block that takes the place.
    """
    found = {}
    for name in dict.fromkeys(key.partition(".")[0] for key in changes):
        known, value = block.model_fields[name], changes.get(name)
        kind: Any = value if isinstance(value, type) else known.annotation
        below = {key[len(name) + 1 :]: inner for key, inner in changes.items() if key.startswith(f"{name}.")}
        if below:
            kind = create_model(kind.__name__, __base__=kind, __doc__=kind.__doc__, **changed_fields(kind, below))  # type: ignore[call-overload]
        if kind is known.annotation:
            found[name] = kind, value if isinstance(value, FieldInfo) else field(value, known.description)
            found[name][1].metadata = known.metadata
        else:
            found[name] = kind, section(kind, known.description)
    return found
