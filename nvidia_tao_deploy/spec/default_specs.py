"""A commented YAML spec, and the JSON Schema, from a network's spec class."""

from __future__ import annotations

import textwrap
import typing
from collections.abc import Iterator
from typing import Any, Literal

from nvidia_tao_deploy.spec.sections import NetworkSpec, Section
from nvidia_tao_deploy.spec.shapes import fields_of, shape_of

WIDTH = 110


def default_specs(model: type[NetworkSpec], network_name: str) -> str:
    """Every key that is read, with description, allowed values, range and default, as YAML.

    Mandatory values stand as ``???``. Loading the text gives the spec of an empty file.
    """
    head = [
        f"# Spec of {network_name}: every key that is read, with its default.",
        "# ??? marks values to fill in; an action needs only those of its own section. Keys may be left out.",
        "",
    ]
    return "\n".join([*head, *_block(model, model(), "")]) + "\n"


def json_schema(model: type[NetworkSpec]) -> dict[str, Any]:
    """The JSON Schema of the keys that are read."""
    schema = model.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": f"Spec of {model.network}"}


def _block(model: type[Section], values: Section, indent: str) -> Iterator[str]:
    for key, field in fields_of(model).items():
        name = next(name for name, item in model.model_fields.items() if item is field)
        kind, section = shape_of(field)
        if not indent and kind != "value":
            yield ""
        yield from _comment(field, indent)
        value = getattr(values, name)
        if kind == "block" and section is not None and value is not None:
            yield f"{indent}{key}:"
            yield from _block(section, value, f"{indent}  ")
            continue
        mandatory = (field.json_schema_extra or {}).get("mandatory")
        yield f"{indent}{key}: {'???' if mandatory else _inline(value)}"
        if section is not None:
            yield from _example(section, kind, indent)


def _example(section: type[Section], kind: str, indent: str) -> Iterator[str]:
    """The keys of a block that is not there by default, as comments."""
    yield f"{indent}# " + {"block": "Its keys:", "list": "Each element holds:", "map": "Each entry holds:"}[kind]
    for line in _block(section, section(), ""):
        if line:
            yield f"{indent}#   {line}"


def _comment(field: Any, indent: str) -> Iterator[str]:
    choices = " | ".join(str(item) for item in _literals(field.annotation))
    facts = [fact for fact in (choices, _range(field)) if fact]
    text = (field.description or "") + (f" [{'; '.join(facts)}]" if facts else "")
    for line in textwrap.wrap(text, WIDTH - len(indent)):
        yield f"{indent}# {line}"


def _literals(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) is Literal:
        yield from typing.get_args(annotation)
        return
    for argument in typing.get_args(annotation):
        if typing.get_origin(annotation) is not typing.Annotated or argument is typing.get_args(annotation)[0]:
            yield from _literals(argument)


def _range(field: Any) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return ", ".join(
        f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for name, sign in signs.items()
        if getattr(item, name, None) is not None
    )


def _inline(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(_plain(value), default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _plain(value: Any) -> Any:
    """Sections inside a default (a list of palette entries, say) as the mappings they stand for."""
    if isinstance(value, Section):
        return value.model_dump(by_alias=True)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value
