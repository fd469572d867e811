"""Fields as protobuf messages have them: enums by name or number, and 0 or empty text for what was not set."""

from __future__ import annotations

from typing import Annotated, Any, Literal

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


Interpolation = Annotated[Literal["BILINEAR", "BICUBIC"], enum_of("BILINEAR", "BICUBIC")]
AveragePrecision = Annotated[Literal["SAMPLE", "INTEGRATE"], enum_of("SAMPLE", "INTEGRATE")]


def zero_means(default: float) -> BeforeValidator:
    """0 is unset, as in a message; the default as a message's float32 is the default itself."""
    return BeforeValidator(lambda value: default if value in (0, "0", "0.0", float32(default)) else value)


def empty_means(default: str) -> BeforeValidator:
    """Empty text is unset, as in a message; text is taken in any case and becomes the default's."""
    cased = str.lower if default.islower() else str.upper
    return BeforeValidator(lambda value: cased(value.strip()) or default if isinstance(value, str) else value)
