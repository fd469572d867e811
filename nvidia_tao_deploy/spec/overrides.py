"""The grammar of ``key=value`` overrides: hydra's scalars, lists, blocks and escapes, without eval."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nvidia_tao_deploy.errors import SpecError

_WHOLE = r"(?:0|[1-9](?:_?\d)*)"  # 007 is text
_INT = re.compile(rf"[+-]?{_WHOLE}$")
_FLOAT = re.compile(
    rf"[+-]?(?:(?:{_WHOLE}\.(?:\d(?:_?\d)*)?|\.\d(?:_?\d)*)(?:e[+-]?\d(?:_?\d)*)?|{_WHOLE}e[+-]?\d(?:_?\d)*|inf|nan)$",
    re.IGNORECASE,
)
_ESCAPED = re.compile(r"\\([\\()\[\]{}:=, \t])")


@dataclass(frozen=True)
class Override:
    """One ``key=value`` of the command line.

    Attributes:
        path: the key's parts; a number is an index into a list.
        value: the parsed value.
        added: typed with ``+``, so a key that is not known is let through.
        removed: typed with ``~``: the key is taken out of the spec.
    """

    path: tuple[str | int, ...]
    value: Any = None
    added: bool = False
    removed: bool = False


def parse_override(text: str) -> Override:
    """Read one override.

    Raises:
        SpecError: it is not ``key=value``, or the value's quotes or brackets do not match.
    """
    sign = next((sign for sign in ("++", "+", "~") if text.startswith(sign)), "")
    key, equals, value = text.removeprefix(sign).partition("=")
    key = key.strip()
    if not key or (not equals and sign != "~"):
        raise SpecError(
            f"'{text}' is not an override", where="command line", remedy="Write key=value, e.g. evaluate.batch_size=8"
        )
    path = _path(key, text)
    if sign == "~":
        return Override(path, removed=True)
    return Override(path, parse_value(value, text), added=bool(sign))


def parse_value(value: str, text: str | None = None) -> Any:
    """The value part: null, true/false, numbers, quoted or plain text, ``[a, b]``, ``{a: 1}``.

    Raises:
        SpecError: quotes or brackets do not match.
    """
    reader = _Reader(value, text or value)
    result = reader.value(top=True)
    reader.end()
    return result


def _path(key: str, text: str) -> tuple[str | int, ...]:
    parts: list[str | int] = []
    for part in key.split("."):
        match = re.fullmatch(r"([^\[\]]*)((?:\[\d+\])*)", part)
        if not match or not part or (not match[1] and not parts and not match[2]):
            raise SpecError(
                f"'{key}' is not a dotted key", where=f"override {text}", remedy="Write it like a.b.c=value"
            )
        if match[1]:
            parts.append(match[1])
        parts += [int(index) for index in re.findall(r"\[(\d+)\]", match[2])]
    return tuple(parts)


class _Reader:
    """Reads one value from left to right."""

    def __init__(self, value: str, text: str) -> None:
        self.rest, self.at, self.text = value, 0, text

    def fail(self, what: str) -> SpecError:
        return SpecError(
            f"cannot read the value of '{self.text}': {what} at character {self.at + 1} of the value",
            where=f"override {self.text}",
            remedy="Quote text that holds brackets or commas: key='\"a[1],b\"'",
        )

    def blank(self) -> None:
        while self.at < len(self.rest) and self.rest[self.at].isspace():
            self.at += 1

    def peek(self) -> str:
        return self.rest[self.at] if self.at < len(self.rest) else ""

    def end(self) -> None:
        self.blank()
        if self.peek():
            raise self.fail(f"unexpected '{self.peek()}'")

    def value(self, top: bool = False) -> Any:
        self.blank()
        first = self.peek()
        if first == "[":
            return self.entries("]", self.value)
        if first == "{":
            return dict(self.entries("}", self.pair))
        if first in ("'", '"'):
            return self.quoted()
        return scalar(self.plain("" if top else ",]}"))

    def entries(self, closing: str, entry: Callable[[], Any]) -> list[Any]:
        """What stands between the brackets, each ``entry`` read after a comma."""
        self.at += 1
        found: list[Any] = []
        self.blank()
        while self.peek() != closing:
            if not self.peek():
                raise self.fail(f"'{closing}' is missing")
            found.append(entry())
            self.blank()
            if self.peek() == ",":
                self.at += 1
                self.blank()
            elif self.peek() != closing:
                raise self.fail(f"',' or '{closing}' is missing")
        self.at += 1
        return found

    def pair(self) -> tuple[str, Any]:
        key = self.quoted() if self.peek() in ("'", '"') else _unescaped(self.plain(":,}").strip())
        self.blank()
        if self.peek() != ":" or key == "":
            raise self.fail("'key: value' is expected")
        self.at += 1
        return key, self.value()

    def quoted(self) -> str:
        """Text between quotes; backslashes stand for themselves, but for those before a quote."""
        quote = self.peek()
        match = re.compile(rf"{quote}((?:[^{quote}\\]|\\.)*){quote}", re.DOTALL).match(self.rest, self.at)
        if match is None:
            self.at = len(self.rest)
            raise self.fail(f"the closing {quote} is missing")
        self.at = match.end()
        return re.sub(rf"(\\+)(?={quote}|\Z)", lambda run: "\\" * (len(run[0]) // 2), match[1])

    def plain(self, stops: str) -> str:
        """Text up to a stop character; the brackets of ``${...}`` belong to the text."""
        start, depth = self.at, 0
        while self.peek() and (depth or self.peek() not in stops):
            if _ESCAPED.match(self.rest, self.at):
                self.at += 1
            elif self.rest.startswith("${", self.at):
                depth += 1
                self.at += 1
            elif depth and self.peek() == "}":
                depth -= 1
            self.at += 1
        if depth:
            raise self.fail("the '}' of '${' is missing")
        return self.rest[start : self.at]


def scalar(text: str) -> Any:
    """An unquoted word as null, bool, int, float or text."""
    word = text.strip()
    lowered = word.lower()
    if lowered == "null":
        return None
    if lowered in ("true", "false"):
        return lowered == "true"
    if _INT.match(word):
        return int(word.replace("_", ""))
    if _FLOAT.match(word):
        return float(word.replace("_", ""))
    return _unescaped(word)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)
