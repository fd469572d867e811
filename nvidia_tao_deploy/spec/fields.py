"""Short ways to write a spec's fields."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


def field(default: Any, description: str, **limits: Any) -> Any:
    """A key with its default, what it is, and whatever else ``pydantic.Field`` takes (ge, le, min_length, ...)."""
    return Field(default=default, description=description, **limits)


def section(of: type[BaseModel], description: str | None = None, **more: Any) -> Any:
    """A block of keys, described by its class's docstring unless told otherwise."""
    return Field(default_factory=of, description=description or of.__doc__, **more)
