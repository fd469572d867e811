"""Protobuf text format to plain data, through descriptors built at run time from the packed tables."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message

from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.known import ProtoTables, networks, proto_tables
from nvidia_tao_deploy.spec.text_lines import field_lines

SPEC_MESSAGE = "SpecFile__"
"""A message with the fields of all roots of a network, so that a file may hold any of them, or all."""

_UNKNOWN_FIELD = re.compile(r'Message type "(?P<message>[^"]*)" has no field named "(?P<field>[^"]*)"')


@lru_cache(maxsize=8)
def message_class(network: str, message: str | None = None) -> type[Message]:
    """A network's class of that full name, from a descriptor pool of its own; None: with the fields of every root.

    Raises:
        KeyError: the network has no message tables, or no such message.
    """
    descriptor = _pool(network).FindMessageTypeByName(message or SPEC_MESSAGE)
    found: type[Message] = message_factory.GetMessageClass(descriptor)
    return found


def parse_text(text: str, network: str, name: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The text of the file called ``name`` as plain data, and ``{dotted key: line}``.

    Messages become dicts, maps dicts, repeated fields lists, enums their names; float32 fields Python floats of the
    same value. A field that the file does not set is absent.

    Raises:
        SpecError: malformed text or an unknown field, with line and column.
    """
    message = message_class(network)()
    try:
        text_format.Merge(text, message)
    except text_format.ParseError as error:
        raise _parse_error(error, text, network, name) from error
    except RecursionError as error:
        raise SpecError("malformed protobuf text: blocks are nested too deeply", where=name) from error
    return to_plain(message), field_lines(text, network)


def to_plain(message: Message) -> dict[str, Any]:
    """The set fields of ``message`` as plain data."""
    plain: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry:
            item = descriptor.message_type.fields_by_name["value"]
            plain[descriptor.name] = {key: _plain_value(value[key], item) for key in value}
        elif _is_repeated(descriptor):
            plain[descriptor.name] = [_plain_value(item, descriptor) for item in value]
        else:
            plain[descriptor.name] = _plain_value(value, descriptor)
    return plain


def _is_repeated(descriptor: Any) -> bool:
    # `label` is gone from newer protobuf releases, `is_repeated` is not in older ones.
    repeated = getattr(descriptor, "is_repeated", None)
    return bool(descriptor.label == descriptor.LABEL_REPEATED if repeated is None else repeated)


def _plain_value(value: Any, descriptor: Any) -> Any:
    if descriptor.type == descriptor.TYPE_MESSAGE:
        return to_plain(value)
    if descriptor.type == descriptor.TYPE_ENUM:
        named = descriptor.enum_type.values_by_number.get(value)
        return named.name if named else value
    return value


@lru_cache(maxsize=8)
def _pool(network: str) -> Any:
    tables = proto_tables(network)
    if tables is None:
        raise KeyError(network)
    # proto2 syntax gives every scalar presence: `threshold: 0` in a file is not the same as no threshold.
    file = descriptor_pb2.FileDescriptorProto(name=f"{network}_spec.proto", syntax="proto2")
    nested: dict[str, Any] = {}

    def declared(full_name: str) -> Any:
        if full_name not in nested:
            parent, _, name = full_name.rpartition(".")
            nested[full_name] = (declared(parent).nested_type if parent else file.message_type).add(name=name)
        return nested[full_name]

    for name, fields in tables.messages.items():
        _add_fields(declared(name), name, fields.values(), tables)
    roots = [item for root in tables.roots for item in tables.messages[root].values()]
    renumbered = [replace(item, number=number) for number, item in enumerate(roots, start=1)]
    _add_fields(declared(SPEC_MESSAGE), SPEC_MESSAGE, renumbered, tables)
    for name, values in tables.enums.items():
        parent, _, short = name.rpartition(".")
        enum = (declared(parent) if parent else file).enum_type.add(name=short)
        numbers = list(values.values())
        if len(set(numbers)) < len(numbers):
            enum.options.allow_alias = True
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add_fields(message: Any, full_name: str, fields: Any, tables: ProtoTables) -> None:
    oneofs: list[str] = []
    for item in fields:
        repeated = item.repeated or item.map_key is not None
        field = message.field.add(name=item.name, number=item.number, label=3 if repeated else 1)
        if item.map_key is not None:
            entry_name = "".join(word.capitalize() for word in item.name.split("_")) + "Entry"
            entry = message.nested_type.add(name=entry_name)
            entry.options.map_entry = True
            _set_type(entry.field.add(name="key", number=1, label=1), item.map_key, tables)
            _set_type(entry.field.add(name="value", number=2, label=1), item.type, tables)
            field.type, field.type_name = 11, f".{full_name}.{entry_name}"
        else:
            _set_type(field, item.type, tables)
        if item.oneof:
            if item.oneof not in oneofs:
                oneofs.append(item.oneof)
                message.oneof_decl.add(name=item.oneof)
            field.oneof_index = oneofs.index(item.oneof)


def _set_type(field: Any, kind: str, tables: ProtoTables) -> None:
    if kind in tables.messages:
        field.type, field.type_name = 11, f".{kind}"
    elif kind in tables.enums:
        field.type, field.type_name = 14, f".{kind}"
    else:
        field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")


def _fits(text: str, network: str) -> bool:
    try:
        text_format.Parse(text, message_class(network)())
    except text_format.ParseError:
        return False
    return True


def _parse_error(error: text_format.ParseError, text: str, network: str, name: str) -> SpecError:
    line, column = error.GetLine(), error.GetColumn()
    what = re.sub(r"^\d+:\d+ : ", "", str(error))
    remedy = "Mend the file at that line and column."
    unknown, tables = _UNKNOWN_FIELD.search(what), proto_tables(network)
    if unknown and tables:
        messages, top = tables.messages, unknown["message"] == SPEC_MESSAGE
        owners = tables.roots if top else (unknown["message"],)
        fields = [field for owner in owners for field in messages.get(owner, {})]
        what = f"unknown field '{unknown['field']}'" + ("" if top else f" in {unknown['message']}")
        close = difflib.get_close_matches(unknown["field"], fields, n=1)
        elsewhere = [owner for owner, has in messages.items() if unknown["field"] in has]
        if close:
            remedy = f"Did you mean '{close[0]}'?"
        elif elsewhere:
            remedy = f"It is a field of {' and '.join(elsewhere[:3])}."
        else:
            remedy = f"Fields here: {', '.join(fields)}."
    theirs = [other for other in networks() if unknown and proto_tables(other) and _fits(text, other)]
    if theirs:
        remedy = f"It would be a spec of {' or '.join(theirs)}."
    where = f"{name}:{line}:{column}" if line else name
    return SpecError(f"malformed protobuf text: {what}" if not unknown else what, where=where, remedy=remedy)
