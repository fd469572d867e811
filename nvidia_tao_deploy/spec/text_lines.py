"""The line of every field in a protobuf text file, which the text-format parser does not tell."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nvidia_tao_deploy.spec.known import ProtoField, ProtoTables, proto_tables

_TOKEN = re.compile(
    r"""(?P<skip>[\s,;]+|\#[^\n]*)"""
    r"""|(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
    r"""|(?P<mark>[{}<>\[\]:])"""
    r"""|(?P<word>[^\s{}<>\[\]:,;"'\#]+)"""
)

Lines = list[tuple[str, int]]


def field_lines(text: str, network: str) -> dict[str, int]:
    """``{dotted key: line}`` of a text that is known to parse as the spec of ``network``.

    List elements are ``key[0]``, map entries ``key.entry``. Of a field given twice the last line counts.
    """
    tables = proto_tables(network)
    if tables is None:
        return {}
    roots = {name: item for root in tables.roots for name, item in tables.messages[root].items()}
    return dict(_Scanner(text, tables).block(roots, {}))


class _Scanner:
    """Walks the tokens of a well-formed text along the message tables."""

    def __init__(self, text: str, tables: ProtoTables) -> None:
        self.tables, self.at = tables, 0
        self.tokens: list[tuple[str, int]] = []
        line = 1
        for match in _TOKEN.finditer(text):
            if match.lastgroup != "skip":
                self.tokens.append((match[0], line))
            line += match[0].count("\n")

    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else "}"

    def block(self, fields: Mapping[str, ProtoField], counts: dict[str, int]) -> Lines:
        """Fields up to the closing brace; keys relative to the block."""
        found: Lines = []
        while self.peek() not in ("}", ">"):
            name, line = self.tokens[self.at]
            self.at += 1
            item = fields.get(name)
            if self.peek() == ":":
                self.at += 1
            if self.peek() != "[":
                found += self.value(name, item, line, counts)
                continue
            self.at += 1
            while self.peek() != "]":
                found += self.value(name, item, line, counts)
            self.at += 1
        return found

    def value(self, name: str, item: ProtoField | None, line: int, counts: dict[str, int]) -> Lines:
        """One value of a field, with the lines of what it holds."""
        opened = self.peek() in ("{", "<")
        if item is not None and item.map_key is not None and opened:
            return [(name, line), *self.entry(name, item, line)]
        key = name
        if item is not None and item.repeated:
            counts[name] = counts.get(name, -1) + 1
            key = f"{name}[{counts[name]}]"
        found = [(name, line), (key, line)]
        if not opened:
            self.scalar()
            return found
        self.at += 1
        inner = self.block(self.tables.messages.get(item.type, {}) if item else {}, {})
        self.at += 1
        return found + [(f"{key}.{below}", at) for below, at in inner]

    def entry(self, name: str, item: ProtoField, line: int) -> Lines:
        """A map entry ``{ key: .. value: .. }``."""
        self.at += 1
        key, inner = "", []
        while self.peek() not in ("}", ">"):
            part, at = self.tokens[self.at]
            self.at += 1
            if self.peek() == ":":
                self.at += 1
            if part == "key":
                key = self.scalar()
            else:
                inner = self.value("", ProtoField("", 2, item.type), at, {})
        self.at += 1
        return [(f"{name}.{key}", line)] + [(f"{name}.{key}{below}", at) for below, at in inner if below]

    def scalar(self) -> str:
        """One scalar; adjacent string literals are one value."""
        word = self.tokens[self.at][0]
        self.at += 1
        value = word.strip("'\"")
        while word[:1] in "'\"" and self.peek()[:1] in ("'", '"'):
            value += self.peek().strip("'\"")
            self.at += 1
        return value
