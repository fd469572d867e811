"""The complete key trees of the networks, read from the packed files in ``spec/known``."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

FOLDER = Path(__file__).parent / "known"

_EXPECTED: dict[type, str] = {bool: "true or false", int: "an integer", float: "a number"}
_ADAPTERS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in _EXPECTED}
INT_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}


@dataclass(frozen=True)
class ProtoField:
    """One field of a protobuf message, unpacked from ``"<number> [repeated|map <key>] <type> [oneof <name>]"``."""

    name: str
    number: int
    type: str
    repeated: bool = False
    map_key: str | None = None
    oneof: str | None = None

    @classmethod
    def unpack(cls, name: str, text: str) -> ProtoField:
        """Read the packed form."""
        number, *words = text.split()
        oneof = words[-1] if "oneof" in words else None
        if words[0] == "map":
            return cls(name, int(number), words[2], map_key=words[1], oneof=oneof)
        repeated = words[0] == "repeated"
        return cls(name, int(number), words[repeated], repeated, oneof=oneof)


@dataclass(frozen=True)
class ProtoTables:
    """Messages, enums and root messages of one protobuf network."""

    roots: tuple[str, ...]
    messages: Mapping[str, Mapping[str, ProtoField]]
    enums: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Node:
    """One place in a key tree: a value (``type`` set), a block, a list of blocks or a map of blocks."""

    kind: str
    type: str = ""
    enum: tuple[tuple[str, int], ...] = ()
    _content: Any = None
    _tables: ProtoTables | None = field(default=None, repr=False)

    @cached_property
    def children(self) -> Mapping[str, Node]:
        """Keys of a block; of the element for lists and maps."""
        if self.kind == "value":
            return {}
        if self._tables is not None:
            fields = [item for name in self._content for item in self._tables.messages[name].values()]
            return {item.name: _proto_node(item, self._tables) for item in fields}
        return {name: _schema_node(content) for name, content in self._content.items()}

    def paths(self, prefix: str = "", depth: int = 12) -> Iterator[tuple[str, Node]]:
        """Every dotted key below, with ``[]`` after lists and ``{}`` after maps of blocks."""
        for name, child in self.children.items():
            suffix = {"list": "[]", "map": "{}"}.get(child.kind, "")
            yield f"{prefix}{name}{suffix}", child
            if child.kind != "value" and depth:
                yield from child.paths(f"{prefix}{name}{suffix}.", depth - 1)


@lru_cache(maxsize=8)
def known_keys(network: str) -> Node:
    """The key tree of ``network``; an empty block when nothing is packed for it."""
    content = _content(network)
    if "messages" in content:
        tables = _tables(content)
        return Node("block", _content=tables.roots, _tables=tables)
    return Node("block", _content=content)


def proto_tables(network: str) -> ProtoTables | None:
    """The message tables of a protobuf network, None for every other."""
    content = _content(network)
    return _tables(content) if "messages" in content else None


def networks() -> tuple[str, ...]:
    """Names of all packed networks."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def _content(network: str) -> dict[str, Any]:
    path = FOLDER / f"{network}.json"
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if network and path.is_file() else {}
    return loaded


def _tables(content: Mapping[str, Any]) -> ProtoTables:
    messages = {
        message: {name: ProtoField.unpack(name, text) for name, text in fields.items()}
        for message, fields in content["messages"].items()
    }
    return ProtoTables(tuple(content["roots"]), messages, content["enums"])


def _schema_node(content: Any) -> Node:
    if isinstance(content, str):
        return Node("value", type=content)
    if isinstance(content, list):
        return Node("list", _content=content[0])
    if set(content) == {"{}"}:
        return Node("map", _content=content["{}"])
    return Node("block", _content=content)


def _proto_node(item: ProtoField, tables: ProtoTables) -> Node:
    if item.type in tables.messages:
        kind = "map" if item.map_key else "list" if item.repeated else "block"
        return Node(kind, _content=(item.type,), _tables=tables)
    enum = tuple(tables.enums.get(item.type, {}).items())
    scalar = "enum" if enum else {"float": "float32"}.get(item.type, item.type)
    if item.map_key:
        return Node("value", type=f"dict[{item.map_key},{scalar}]", enum=enum)
    return Node("value", type=f"list[{scalar}]" if item.repeated else scalar, enum=enum)


def checked(value: Any, node: Node) -> Any:
    """``value`` if its type fits a key that nothing here reads, converted the way the typed keys are.

    Loose on purpose: null is accepted anywhere, text that holds a number is a number, containers are checked one
    level deep.

    Raises:
        ValueError: the type is wrong; the message says what is expected.
    """
    declared = node.type.removesuffix("?")
    if value is None or declared == "any" or declared.startswith("union"):
        return value
    name, _, inner = declared.removesuffix("]").partition("[")
    if name in ("list", "tuple"):
        if not isinstance(value, (list, tuple)):
            if isinstance(value, dict):
                raise ValueError("a list is expected, not a block of keys")
            value = [value]
        return [_scalar(entry, inner, node) for entry in value] if inner and "[" not in inner else list(value)
    if name == "dict":
        if isinstance(value, list):
            # The established tool lets a list stand where the schema says dict.
            return value
        if not isinstance(value, dict):
            raise ValueError(f"a block of keys is expected, not {value!r}")
        item = inner.partition(",")[2]
        if "[" in item:
            return value
        return {
            key: entry if isinstance(entry, (list, dict)) else _scalar(entry, item, node)
            for key, entry in value.items()
        }
    return _scalar(value, declared, node)


def _scalar(value: Any, declared: str, node: Node) -> Any:
    if declared in ("any", "dict", "list", "") or value is None or (isinstance(value, str) and value == "???"):
        return value
    if isinstance(value, (list, dict)):
        raise ValueError(f"a single value is expected, not {'a list' if isinstance(value, list) else 'a block'}")
    if declared == "enum":
        return enum_name(value, dict(node.enum))
    if declared in ("str", "string", "bytes"):
        return value if isinstance(value, str) else str(value)
    kind = {"bool": bool, "float": float, "double": float, "float32": float}.get(declared, int)
    try:
        parsed = _ADAPTERS[kind].validate_python(value)
    except ValidationError:
        raise ValueError(f"{_EXPECTED[kind]} is expected, not {value!r}") from None
    limits = INT_RANGES.get(declared)
    if limits and not limits[0] <= parsed <= limits[1]:
        raise ValueError(f"{parsed} is outside {limits[0]}..{limits[1]}")
    return float32(parsed) if declared == "float32" else parsed


def enum_name(value: Any, enum: Mapping[str, int]) -> str:
    """The enum value's name, given by name in any case or by number.

    Raises:
        ValueError: there is no such value.
    """
    for name, number in enum.items():
        if str(value).lower() == name.lower() or (not isinstance(value, bool) and value == number):
            return name
    raise ValueError(f"{value!r} is not one of {', '.join(enum)}")


def as_float32(value: Any, node: Node) -> Any:
    """``value`` with its numbers rounded to float32 when ``node`` is a float field of a message, else unchanged.

    Both forms of a spec then hold the same numbers, whether they were read from YAML or from protobuf text.
    """
    if "float32" not in node.type or value is None:
        return value
    if isinstance(value, list):
        return [as_float32(item, node) for item in value]
    if isinstance(value, dict):
        return {key: as_float32(item, node) for key, item in value.items()}
    if isinstance(value, bool):
        return value
    try:
        return float32(float(value))
    except (TypeError, ValueError):
        return value


def float32(value: float) -> float:
    """The float32 nearest to ``value``, as Python's float; out-of-range values become infinite."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
