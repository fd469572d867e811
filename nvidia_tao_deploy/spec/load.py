"""Spec files, overrides and flags to a typed spec."""

from __future__ import annotations

import copy
import difflib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar

from pydantic import ValidationError

from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.drift import rules_for
from nvidia_tao_deploy.spec.dump import merged
from nvidia_tao_deploy.spec.known import Node, as_float32, checked, known_keys, proto_tables
from nvidia_tao_deploy.spec.rename import apply_drift
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, is_missing, place_of

S = TypeVar("S", bound=NetworkSpec)
Tree = dict[str, Any]
_NOTHING = Node("block", _content={})


def load_spec(
    model: type[S],
    source: Path | str | Mapping[str, Any] | NetworkSpec,
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, Any] = {},
) -> S:
    """Read, merge and check a spec: defaults, then the source, then flags, then overrides; the last one wins.

    Args:
        model: the network's spec class.
        source: a YAML or protobuf-text file, plain data, or a spec to change.
        overrides: ``key=value`` texts (see ``spec/overrides.py`` for their grammar).
        flags: dotted key to value, from the command line's flags.

    Returns:
        The typed spec; ``.notes`` holds what to tell the user, e.g. older key names.

    Raises:
        SpecError: missing file, malformed text, unknown key, wrong type, value out of range. ``where`` is
            ``file:line: dotted.key`` or ``override key=value``.
    """
    if type(source) is model and not overrides and not flags:
        return source
    reading = _Reading(model)
    reading.take_source(source)
    if flags:
        for key, value in flags.items():
            reading.take_value(tuple(key.split(".")), value, f"command line: {key}")
    for text in overrides:
        reading.take_override(text)
    return typing.cast(S, reading.finish())


class _Reading:
    """The state of one load: the merged tree, where each key came from, and what to tell the user."""

    def __init__(self, model: type[NetworkSpec]) -> None:
        self.model = model
        self.network = model.known_as or model.network
        self.known = known_keys(self.network)
        self.rules = (*model.drift, *rules_for(self.network))
        self.name = "spec"
        self.tree: Tree = {}
        self.as_given: Tree = {}  # with older keys still in place: interpolations may point at them
        self.places: dict[str, str] = {}
        self.notes: list[str] = []
        self.problems: list[SpecError] = []

    # -- sources -----------------------------------------------------------------------------------------------

    def take_source(self, source: Path | str | Mapping[str, Any] | NetworkSpec) -> None:
        if isinstance(source, NetworkSpec):
            self.name, self.places, self.notes = source._source, dict(source._places), list(source._notes)
            self.tree = merged(copy.deepcopy(source._tree), _set_values(source))
            self.as_given = copy.deepcopy(self.tree)
            return
        if isinstance(source, Mapping):
            tree, lines = _plain(source), {}
        else:
            self.name = str(source)
            tree, lines = read_file(Path(source), self.network)
        self.places = {key: f"{self.name}:{line}: {key}" for key, line in lines.items()}
        self.as_given = copy.deepcopy(tree)
        self.tree = tree
        self._rename(tree, self.places)

    def take_override(self, text: str) -> None:
        from nvidia_tao_deploy.spec.overrides import parse_override

        override = parse_override(text)
        place = f"override {text}"
        if override.removed:
            _drop(self.tree, override.path, place)
            return
        self.take_value(override.path, override.value, place, added=override.added)

    def take_value(self, path: tuple[str | int, ...], value: Any, place: str, *, added: bool = False) -> None:
        """Lay one value of the command line over what is there."""
        from nvidia_tao_deploy.spec.overrides import dotted

        if any(isinstance(part, int) for part in path) or _meets_list(self.tree, path):
            _set_in_list(self.tree, path, value, place)
            self.places[dotted(path)] = place
            return
        layer: Any = value
        for part in reversed(path):
            layer = {part: layer}
        self.as_given = _lay(self.as_given, copy.deepcopy(layer))
        if added and not self.is_key(dotted(path)):
            self.notes.append(f"{dotted(path)} is not a key of this network; nothing reads it")
            return
        places = dict.fromkeys([dotted(path), *_dotted_keys(value, f"{dotted(path)}.")], place)
        self._rename(layer, places)
        self.tree = _lay(self.tree, layer)
        self.places.update(places)

    def _rename(self, layer: Tree, places: dict[str, str]) -> None:
        notes, moved = apply_drift(layer, self.rules, self.is_key)
        self.notes += [note for note in notes if note not in self.notes]
        for new, old in moved.items():
            for key, place in list(places.items()):
                if key == old or key.startswith((f"{old}.", f"{old}[")):
                    places[new + key[len(old) :]] = place

    # -- keys --------------------------------------------------------------------------------------------------

    def is_key(self, key: str) -> bool:
        """Whether a dotted key is read here or known from training."""
        model: type[Section] | None = self.model
        node: Node | None = self.known
        for part in key.split("."):
            field = fields_of(model).get(part)
            child = node.children.get(part) if node is not None else None
            if field is None and child is None:
                inside = node is not None and node.kind == "value" and node.type.startswith(("dict", "any"))
                return inside and model is None
            model = shape_of(field)[1] if field is not None else None
            node = child
        return True

    def suggestion(self, key: str, siblings: Sequence[str]) -> str:
        """What an unknown key was probably meant to be."""
        parent, _, last = key.rpartition(".")
        prefix = f"{parent}." if parent else ""
        close = difflib.get_close_matches(last, siblings, n=1, cutoff=0.7)
        if not close:
            lowered = {name.lower(): name for name in siblings}
            close = [lowered[last.lower()]] if last.lower() in lowered else []
        if close:
            return f"Did you mean {prefix}{close[0]}?"
        everywhere = self._all_keys()
        same = [path for path in everywhere if path.rpartition(".")[2].removesuffix("[]").removesuffix("{}") == last]
        if not same:
            same = difflib.get_close_matches(key, everywhere, n=1, cutoff=0.75)
        if not same:
            same = difflib.get_close_matches(last, siblings, n=1, cutoff=0.5)
            same = [prefix + name for name in same]
        if same:
            best = max(same, key=lambda path: difflib.SequenceMatcher(None, path, key).ratio())
            return f"Did you mean {best}?"
        listed = ", ".join(sorted(siblings)[:12])
        return f"Keys here: {listed}{', ...' if len(siblings) > 12 else ''}." if listed else "Remove it."

    def _all_keys(self) -> list[str]:
        found = [path for path, _ in typed_paths(self.model)]
        return found + [path for path, _ in self.known.paths(depth=6) if path not in set(found)]

    # -- finishing ---------------------------------------------------------------------------------------------

    def finish(self) -> NetworkSpec:
        self._resolve_interpolations()
        kept: Tree = {}
        typed = self._check(self.tree, self.model, self.known, "", kept)
        self._stop_if_wrong()
        try:
            spec = self.model.model_validate(typed)
        except ValidationError as error:
            self.problems += [self._problem(detail) for detail in error.errors()]
            self._stop_if_wrong()
            raise AssertionError from error
        spec._notes, spec._places, spec._source, spec._tree = self.notes, self.places, self.name, kept
        return spec

    def _stop_if_wrong(self) -> None:
        if not self.problems:
            return
        first, *others = self.problems
        remedy = first.remedy or ""
        if others:
            listed = "".join(f"\n  - {problem.where}: {problem.what}" for problem in others[:5])
            rest = f"\n  - and {len(others) - 5} more" if len(others) > 5 else ""
            remedy += f"\n  {len(others)} more problem{'s' if len(others) > 1 else ''}:{listed}{rest}"
        raise SpecError(first.what, where=first.where, remedy=remedy or None)

    def where(self, key: str) -> str:
        return place_of(key, self.places) or f"{self.name}: {key}"

    def _wrong(self, key: str, what: str, remedy: str | None = None) -> None:
        self.problems.append(SpecError(what, where=self.where(key), remedy=remedy))

    def _problem(self, detail: Any) -> SpecError:
        from nvidia_tao_deploy.spec.overrides import dotted

        key = dotted(tuple(part for part in detail["loc"] if part != "[key]"))
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "value_error":
            place = key
            if key not in self.places or isinstance(detail["input"], (dict, Section)):
                mentioned = [f"{key}.{word}" for word in message.split() if f"{key}.{word}" in self.places]
                place = mentioned[0] if mentioned else key
            return SpecError(message, where=self.where(place))
        shown = repr(detail["input"]) if not isinstance(detail["input"], (dict, list)) else "a block or list"
        message = message.replace("Input should be", "it should be")
        return SpecError(f"{key} is {shown}: {message}", where=self.where(key), remedy="Give a value that fits.")

    def _check(self, tree: Tree, model: type[Section] | None, known: Node | None, prefix: str, kept: Tree) -> Tree:
        """Walk one block: refuse unknown keys, check what only training reads, return what the model validates.

        ``kept`` receives every accepted key, typed or not.
        """
        typed: Tree = {}
        fields = fields_of(model)
        children = known.children if known is not None else {}
        for key, value in tree.items():
            name = str(key)
            path = f"{prefix}{name}"
            field, node = fields.get(name), children.get(name)
            if field is not None:
                self._check_typed(path, name, value, field, node, typed, kept)
            elif node is not None:
                self._check_known(path, name, value, node, kept)
            else:
                self._wrong(path, f"unknown key '{path}'", self.suggestion(path, list({**fields, **children})))
        return typed

    def _check_typed(
        self, path: str, name: str, value: Any, field: Any, node: Node | None, typed: Tree, kept: Tree
    ) -> None:
        kind, section = shape_of(field)
        if _holds_missing(value):
            kept[name] = value
            return
        if kind == "value":
            kept[name] = value
            if value is None and node is not None and node.type.endswith("?") and not allows_none(field):
                return
            typed[name] = as_float32(value, node) if node is not None else value
            return
        if value is None:
            return
        below = node if node is not None and node.kind != "value" else _NOTHING
        if kind == "block":
            if not isinstance(value, dict):
                self._wrong(path, f"{path} holds further keys; it cannot be {value!r}")
                return
            kept[name] = {}
            typed[name] = self._check(value, section, below, f"{path}.", kept[name])
        elif kind == "list":
            if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
                self._wrong(path, f"{path} is a list of blocks; it cannot be {value!r}")
                return
            kept[name] = [{} for _ in value]
            typed[name] = [
                self._check(item, section, below, f"{path}[{index}].", kept[name][index])
                for index, item in enumerate(value)
            ]
        else:
            if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
                self._wrong(path, f"{path} is a block of named blocks; it cannot be {value!r}")
                return
            kept[name] = {str(entry): {} for entry in value}
            typed[name] = {
                str(entry): self._check(item, section, below, f"{path}.{entry}.", kept[name][str(entry)])
                for entry, item in value.items()
            }

    def _check_known(self, path: str, name: str, value: Any, node: Node, kept: Tree) -> None:
        if node.kind == "value":
            try:
                kept[name] = checked(value, node)
            except ValueError as error:
                self._wrong(path, f"{path}: {error}")
            return
        if value is None or is_missing(value):
            kept[name] = value
            return
        if node.kind == "list" and isinstance(value, list) and all(isinstance(item, dict) for item in value):
            kept[name] = [{} for _ in value]
            for index, item in enumerate(value):
                self._check(item, None, node, f"{path}[{index}].", kept[name][index])
        elif node.kind == "map" and isinstance(value, dict) and all(isinstance(v, dict) for v in value.values()):
            kept[name] = {str(entry): {} for entry in value}
            for entry, item in value.items():
                self._check(item, None, node, f"{path}.{entry}.", kept[name][str(entry)])
        elif node.kind == "block" and isinstance(value, dict):
            kept[name] = {}
            self._check(value, None, node, f"{path}.", kept[name])
        else:
            wanted = {"list": "a list of blocks", "map": "a block of named blocks"}.get(node.kind, "a block of keys")
            self._wrong(path, f"{path} is {wanted}; it cannot be {value!r}")

    # -- interpolation -----------------------------------------------------------------------------------------

    def _resolve_interpolations(self) -> None:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        defaults = self.model().model_dump(mode="json", by_alias=True)
        try:
            whole = OmegaConf.merge(*(OmegaConf.create(layer) for layer in (defaults, self.as_given, self.tree)))
        except (OmegaConfBaseException, ValueError, RecursionError) as error:
            self._explain(self.tree, error)
        self.tree = self._resolved(self.tree, whole, "")

    def _resolved(self, plain: Any, node: Any, path: str) -> Any:
        from nvidia_tao_deploy.spec.overrides import dotted

        def step(key: Any) -> str:
            if isinstance(plain, list):
                return f"{path}[{key}]"
            return f"{path}.{key}" if path else dotted((str(key),))

        entries = plain.items() if isinstance(plain, dict) else enumerate(plain)
        found = {}
        for key, value in entries:
            if isinstance(value, (dict, list)):
                found[key] = self._resolved(value, node[key], step(key))
            elif isinstance(value, str) and "${" in value:
                found[key] = self._interpolated(value, node, key, step(key))
            else:
                found[key] = value
        return found if isinstance(plain, dict) else list(found.values())

    def _interpolated(self, text: str, node: Any, key: Any, path: str) -> Any:
        from omegaconf import Container, OmegaConf
        from omegaconf.errors import (
            InterpolationKeyError,
            InterpolationToMissingValueError,
            MissingMandatoryValue,
            OmegaConfBaseException,
        )

        try:
            value = node[key]
            return OmegaConf.to_container(value, resolve=True) if isinstance(value, Container) else value
        except (InterpolationToMissingValueError, MissingMandatoryValue):
            return "???"
        except InterpolationKeyError as error:
            target = str(error).partition("'")[2].partition("'")[0]
            if not self._is_typed(path) and self.is_key(target):
                # A training key that follows another training key's default, which is not known here.
                return "???"
            remedy = "Set it in the spec file." if self.is_key(target) else self.suggestion(target, [])
            self._wrong(path, f"'{text}' refers to {target}, which is not set", remedy)
        except (OmegaConfBaseException, ValueError, RecursionError) as error:
            self._wrong(path, f"cannot resolve '{text}': {str(error).splitlines()[0]}")
        return "???"

    def _is_typed(self, key: str) -> bool:
        model: type[Section] | None = self.model
        for part in key.replace("[", ".[").split("."):
            if part.startswith("["):
                continue
            field = fields_of(model).get(part)
            if field is None:
                return False
            model = shape_of(field)[1]
        return True

    def _explain(self, tree: Any, error: Exception) -> typing.NoReturn:
        """Name the key whose value OmegaConf cannot take."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        for key, value in _leaves(tree):
            try:
                OmegaConf.create({"value": value})
            except (OmegaConfBaseException, ValueError) as found:
                raise SpecError(
                    f"cannot read {key} = {value!r}: {str(found).splitlines()[0]}", where=self.where(key)
                ) from found
        raise SpecError(f"cannot merge the spec: {str(error).splitlines()[0]}", where=self.name) from error


# -- files -----------------------------------------------------------------------------------------------------


def read_file(path: Path, network: str) -> tuple[Tree, dict[str, int]]:
    """A spec file as plain data with the line of each key; YAML or, for networks that have it, protobuf text.

    Raises:
        SpecError: the file is missing, unreadable, or malformed.
    """
    from nvidia_tao_deploy.spec.yaml_file import read_yaml

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise SpecError(
            f"spec file {path} does not exist", where=str(path), remedy="Check the path given with -e."
        ) from None
    except IsADirectoryError:
        raise SpecError(f"{path} is a folder, not a spec file", where=str(path)) from None
    except UnicodeDecodeError:
        raise SpecError(f"{path} is not a text file", where=str(path), remedy="Give a spec file with -e.") from None
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}", where=str(path)) from None
    name = str(path)
    has_text_form = proto_tables(network) is not None
    is_yaml_name = path.suffix.lower() in (".yaml", ".yml")
    if not has_text_form:
        return read_yaml(text, name)
    from nvidia_tao_deploy.spec.protobuf_text import parse_text

    yaml_error: SpecError | None = None
    if is_yaml_name:
        try:
            return read_yaml(text, name)
        except SpecError as error:
            yaml_error = error
    try:
        return parse_text(text, network, name)
    except SpecError as text_error:
        if yaml_error is not None:
            raise yaml_error from None
        try:
            return read_yaml(text, name)
        except SpecError as error:
            if _looks_like_yaml(text):
                raise error from None
        raise text_error from None


def _looks_like_yaml(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    blocks = sum(line.rstrip().endswith((":", "|", ">")) or line.lstrip().startswith("- ") for line in lines)
    braces = sum(line.rstrip().endswith(("{", "}", "<")) for line in lines)
    return blocks > braces


# -- shapes of fields ------------------------------------------------------------------------------------------


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
    if isinstance(annotation, type) and issubclass(annotation, Section):
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


# -- trees -----------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _lay(base: Any, over: Any) -> Any:
    """``over`` on ``base``; blocks merge, everything else is replaced."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {**base, **{key: _lay(base.get(key), value) for key, value in over.items()}}


def _holds_missing(value: Any) -> bool:
    if isinstance(value, list):
        return any(isinstance(item, str) and item.strip("?") == "" and len(item) > 1 for item in value)
    return isinstance(value, str) and bool(value) and is_missing(value)


def _meets_list(tree: Any, path: Sequence[str | int]) -> bool:
    for part in path[:-1]:
        tree = tree.get(part) if isinstance(tree, dict) else None
        if isinstance(tree, list):
            return True
    return False


def _reach(tree: Any, path: Sequence[str | int], place: str) -> tuple[Any, Any]:
    """The container that holds the last part of ``path``, and that part as its key or index."""
    for depth, part in enumerate(path):
        key: Any = part
        if isinstance(tree, list):
            if not str(part).isdigit() or int(part) >= len(tree):
                raise SpecError(f"there is no element {part}; the list has {len(tree)}", where=place)
            key = int(part)
        elif not isinstance(tree, dict):
            raise SpecError(f"there is nothing at part {part} of the key", where=place)
        if depth == len(path) - 1:
            return tree, key
        if isinstance(tree, dict) and key not in tree:
            raise SpecError(f"there is nothing at part {part} of the key", where=place)
        tree = tree[key]
    raise SpecError("the key is empty", where=place)


def _set_in_list(tree: Tree, path: tuple[str | int, ...], value: Any, place: str) -> None:
    container, key = _reach(tree, path, place)
    container[key] = value


def _drop(tree: Tree, path: tuple[str | int, ...], place: str) -> None:
    container, key = _reach(tree, path, place)
    if isinstance(container, dict) and key not in container:
        raise SpecError(f"there is no key '{key}' to remove", where=place)
    del container[key]


def _dotted_keys(value: Any, prefix: str) -> list[str]:
    if not isinstance(value, dict):
        return []
    return [
        found for key, item in value.items() for found in (f"{prefix}{key}", *_dotted_keys(item, f"{prefix}{key}."))
    ]


def _leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, dict):
        return [leaf for key, item in tree.items() for leaf in _leaves(item, f"{path}.{key}" if path else str(key))]
    if isinstance(tree, list):
        return [leaf for index, item in enumerate(tree) for leaf in _leaves(item, f"{path}[{index}]")]
    return [(path, tree)]


def _set_values(spec: NetworkSpec) -> Tree:
    """The values of a spec that differ from the defaults or were set."""
    full = spec.model_dump(mode="json", by_alias=True)
    default = type(spec)().model_dump(mode="json", by_alias=True)
    return typing.cast(
        Tree, merged(_difference(full, default), spec.model_dump(mode="json", by_alias=True, exclude_unset=True))
    )


def _difference(value: Tree, base: Tree) -> Tree:
    found: Tree = {}
    for key, item in value.items():
        other = base.get(key)
        if isinstance(item, dict) and isinstance(other, dict):
            below = _difference(item, other)
            if below:
                found[key] = below
        elif item != other:
            found[key] = item
    return found
