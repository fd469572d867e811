"""Fields as protobuf messages have them: enums by name or number, and 0 for what was not set."""

from __future__ import annotations

from typing import Any

from pydantic import BeforeValidator

from nvidia_tao_deploy.spec.known import float32


def enum_of(*names: str) -> BeforeValidator:
    """Accept an enum value by name in any case or by number, as protobuf text does."""

    def name_of(value: Any) -> Any:
        if isinstance(value, str) and not value.isdigit():
            return value.upper()
        if isinstance(value, bool) or not str(value).isdigit() or int(value) >= len(names):
            return value
        return names[int(value)]

    return BeforeValidator(name_of)


def zero_means(default: float) -> BeforeValidator:
    """0 is unset, as in a message; the default as a message's float32 is the default itself."""
    return BeforeValidator(lambda value: default if value in (0, "0", "0.0", float32(default)) else value)
