"""Spec files, overrides and flags to a typed spec."""

from __future__ import annotations

import copy
import difflib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar

from pydantic import ValidationError

from nvidia_tao_deploy.errors import SpecError, SpecValueError
from nvidia_tao_deploy.spec.drift import apply_drift, rules_for
from nvidia_tao_deploy.spec.flags import flag_of
from nvidia_tao_deploy.spec.known import Node, as_float32, checked, known_keys, networks
from nvidia_tao_deploy.spec.sections import NetworkSpec, Section, is_missing, is_missing_entry, place_of
from nvidia_tao_deploy.spec.shapes import allows_none, fields_of, shape_of, typed_paths
from nvidia_tao_deploy.spec.trees import Tree, dotted, dotted_keys, meets_list, merged, plain, reach

S = TypeVar("S", bound=NetworkSpec)
_NOTHING = Node("block", _content={})
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "text", "list": "a list"}

RESULT_FOLDERS = {"gen_trt_engine": "gen_trt_engine", "evaluate": "trt_evaluate", "inference": "trt_inference"}
"""Folder below ``results_dir`` of an action that sets none; interpolations to it work as if it were set."""


def load_spec(
    model: type[S],
    source: Path | str | Mapping[str, Any] | NetworkSpec,
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, Any] = {},
) -> S:
    """Read, merge and check a spec: defaults, then the source, then flags, then overrides; the last one wins.

    Args:
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
    for key, value in flags.items():
        reading.take_value(tuple(key.split(".")), value, f"command line: {flag_of(model.network, key) or key}")
    for text in overrides:
        reading.take_override(text)
    return typing.cast(S, reading.finish())


def _set_values(spec: NetworkSpec) -> Tree:
    """The values of a spec that differ from the defaults or were set."""
    full, default = (item.model_dump(mode="json", by_alias=True) for item in (spec, type(spec)()))
    given = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return typing.cast(Tree, merged(_difference(full, default), given))


def _difference(value: Tree, base: Tree) -> Tree:
    found: Tree = {}
    for key, item in value.items():
        other = base.get(key)
        if isinstance(item, dict) and isinstance(other, dict):
            item, other = _difference(item, other), {}
        if item != other:
            found[key] = item
    return found


def _is_key(key: str, model: type[Section] | None, node: Node | None) -> bool:
    """Whether a dotted key is a field of ``model`` or known to ``node``."""
    for part in key.split("."):
        field = fields_of(model).get(part)
        child = node.children.get(part) if node is not None else None
        if field is None and child is None:
            inside = node is not None and node.kind == "value" and node.type.startswith(("dict", "any"))
            return inside and model is None
        model = shape_of(field)[1] if field is not None else None
        node = child
    return True


def _keys_here(keys: Sequence[str]) -> str | None:
    more = f" and {len(keys) - 12} more" if len(keys) > 12 else ""
    return f"Keys here: {', '.join(sorted(keys)[:12])}{more}." if keys else None


class _Reading:
    """The state of one load: the merged tree, where each key came from, and what to tell the user."""

    def __init__(self, model: type[NetworkSpec]) -> None:
        self.model = model
        self.network = model.network
        self.known = known_keys(self.network)
        self.rules = (*model.drift, *rules_for(self.network))
        self.name = "spec"
        self.tree: Tree = {}
        self.as_given: Tree = {}  # with older keys still in place: interpolations may point at them
        self.places: dict[str, str] = {}
        self.notes: list[str] = []
        self.problems: list[SpecError] = []
        self.unknown: list[str] = []

    def take_source(self, source: Path | str | Mapping[str, Any] | NetworkSpec) -> None:
        if isinstance(source, NetworkSpec):
            self.name, self.places, self.notes = source._source, dict(source._places), list(source._notes)
            self.tree = merged(copy.deepcopy(source._tree), _set_values(source))
            self.as_given = copy.deepcopy(self.tree)
            return
        if isinstance(source, Mapping):
            tree, lines, notes = plain(source), dict[str, int](), list[str]()
        else:
            from nvidia_tao_deploy.spec.read import read_file

            self.name = str(source)
            tree, lines, notes = read_file(Path(source), self.network)
        self.notes += notes
        self.places = {key: f"{self.name}:{line}: {key}" for key, line in lines.items()}
        self.as_given = copy.deepcopy(tree)
        self.tree = tree
        self._rename(tree, self.places)

    def take_override(self, text: str) -> None:
        from nvidia_tao_deploy.spec.overrides import parse_override

        override = parse_override(text)
        place = f"override {text}"
        if override.removed:
            container, key = reach(self.tree, override.path, place)
            if isinstance(container, dict) and key not in container:
                raise SpecError(f"there is no key '{key}' to remove", where=place)
            del container[key]
        elif override.path == ("gpu_ids",) and self.is_key("gpu_ids"):
            # The TF2 networks' own gpu_ids is training's in a file; as an override it always chose the device too.
            for action in ("evaluate", "inference"):
                self.take_value((action, "gpu_ids"), override.value, place)
        else:
            self.take_value(override.path, override.value, place, added=override.added)

    def take_value(self, path: tuple[str | int, ...], value: Any, place: str, *, added: bool = False) -> None:
        """Lay one value of the command line over what is there."""
        if any(isinstance(part, int) for part in path) or meets_list(self.tree, path):
            container, key = reach(self.tree, path, place)
            container[key] = value
            self.places[dotted(path)] = place
            return
        layer: Any = value
        for part in reversed(path):
            layer = {part: layer}
        self.as_given = merged(self.as_given, copy.deepcopy(layer), lists=False)
        if added and not self.is_key(dotted(path)):
            self.notes.append(f"{dotted(path)} is not a key of this network; nothing reads it")
            return
        places = dict.fromkeys([dotted(path), *dotted_keys(value, f"{dotted(path)}.")], place)
        self._rename(layer, places)
        self.tree = merged(self.tree, layer, lists=False)
        elements = [key for key in self.places if "[" in key and key.partition("[")[0] in places]  # of lists replaced
        self.places = {key: place for key, place in self.places.items() if key not in elements} | places

    def _rename(self, layer: Tree, places: dict[str, str]) -> None:
        notes, moved = apply_drift(layer, self.rules, self.is_key)
        self.notes += [note for note in notes if note not in self.notes]
        for new, old in moved.items():
            for key, place in list(places.items()):
                if key == old or key.startswith((f"{old}.", f"{old}[")):
                    places[new + key[len(old) :]] = place

    def is_key(self, key: str) -> bool:
        """Whether a dotted key is read here or known from training."""
        return _is_key(key, self.model, self.known)

    def suggestion(self, key: str, siblings: Sequence[str]) -> str:
        """What an unknown key was probably meant to be."""
        parent, _, last = key.rpartition(".")
        prefix = f"{parent}." if parent else ""
        everywhere = self._all_keys()
        same_name = [path for path in everywhere if path.rpartition(".")[2].rstrip("[]{}") == last]
        for found in (
            [prefix + name for name in siblings if name.lower() == last.lower()],
            [prefix + name for name in difflib.get_close_matches(last, siblings, n=1, cutoff=0.9)],
            sorted(same_name, key=lambda path: -difflib.SequenceMatcher(None, path, key).ratio()),
            [prefix + name for name in difflib.get_close_matches(last, siblings, n=1, cutoff=0.7)],
            difflib.get_close_matches(key, [path for path in everywhere if not key.startswith(path)], n=1, cutoff=0.75),
            [prefix + name for name in difflib.get_close_matches(last, siblings, n=1, cutoff=0.5)],
        ):
            if found:
                return f"Did you mean {found[0]}?"
        return _keys_here(siblings) or "Remove it."

    def _all_keys(self) -> list[str]:
        found = [path for path, _ in typed_paths(self.model)]
        listed = set(found)
        return found + [path for path, _ in self.known.paths(depth=6) if path not in listed]

    def finish(self) -> NetworkSpec:
        self._resolve_interpolations()
        typed, kept = self._check(self.tree, self.model, self.known, "")
        try:
            spec = self.model.model_validate(typed)
        except ValidationError as error:
            self.problems += [self._problem(detail) for detail in error.errors()]
            spec = self.model()
        self._stop_if_wrong()
        spec._notes, spec._places, spec._source, spec._tree = self.notes, self.places, self.name, kept
        return spec

    def _stop_if_wrong(self) -> None:
        if not self.problems:
            return
        first, *others = self.problems
        theirs = [name for name in networks() if all(_is_key(key, None, known_keys(name)) for key in self.unknown)]
        lines = [first.remedy] if first.remedy else []
        if self.unknown and 0 < len(theirs) <= 3:
            lines = [] if others else lines  # of many, the first key's likeness says little
            lines.append(f"Specs of {' and '.join(theirs)} have such keys: is this the right one?")
        if others:
            lines.append(f"{len(others)} more problem{'s' if len(others) > 1 else ''}:")
            lines += [f"- {problem.where}: {problem.what}" for problem in others[:5]]
            lines += [f"- and {len(others) - 5} more"] if len(others) > 5 else []
        raise type(first)(first.what, where=first.where, remedy="\n  ".join(lines) or None)

    def where(self, key: str) -> str:
        return place_of(key, self.places) or f"{self.name}: {key}".removesuffix(": ")

    def _wrong(self, key: str, what: str, remedy: str | None = None) -> None:
        self.problems.append(SpecError(what, where=self.where(key), remedy=remedy))

    def _problem(self, detail: Any) -> SpecError:
        key = dotted(tuple(part for part in detail["loc"] if part != "[key]"))
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "value_error":
            place = key
            if key not in self.places or isinstance(detail["input"], (dict, Section)):
                inner = [f"{key}.{word}".lstrip(".") for word in message.split()]
                given_here = [word for word in inner if word in self.places] or [key]
                # What the command line said is what was tried last.
                late = (word for word in given_here if self.where(word).startswith(("override", "command")))
                place = next(late, given_here[0])
            return SpecValueError(message, where=self.where(place))
        given = detail["input"]
        shown = short(given) if isinstance(given, list) else repr(given) if not isinstance(given, dict) else "a block"
        kind, _, fault = detail["type"].partition("_")
        if kind in _KINDS and fault in ("type", "parsing", "from_float"):
            message = f"it should be {_KINDS[kind]}"
        message = message.replace("Input should be", "it should be")
        where = self.where(key)
        named = shown if key in where else f"{key} = {shown}"
        return SpecValueError(
            f"{named} does not fit: {message}", where=where, remedy=getattr(self._field(key), "description", None)
        )

    def _check(self, tree: Tree, model: type[Section] | None, known: Node, prefix: str) -> tuple[Tree, Tree]:
        """Walk one block: refuse unknown keys, check what only training reads.

        Returns:
            What the model validates, and every accepted key, typed or not.
        """
        typed: Tree = {}
        kept: Tree = {}
        fields, children = fields_of(model), known.children
        for key, value in tree.items():
            name = str(key)
            path = f"{prefix}{name}"
            field, node = fields.get(name), children.get(name)
            if field is not None:
                self._check_typed(path, name, value, field, node, typed, kept)
            elif node is not None:
                self._check_known(path, name, value, node, kept)
            else:
                self.unknown += [path, *dotted_keys(value, f"{path}.")]
                self._wrong(path, f"unknown key '{path}'", self.suggestion(path, list({**fields, **children})))
        return typed, kept

    def _check_typed(
        self, path: str, name: str, value: Any, field: Any, node: Node | None, typed: Tree, kept: Tree
    ) -> None:
        kind, section = shape_of(field)
        if is_missing_entry(value):
            kept[name] = value
            return
        if kind == "value":
            kept[name] = value
            if value is None and node is not None and node.type.endswith("?") and not allows_none(field):
                return
            typed[name] = as_float32(value, node) if node is not None else value
            return
        if value is not None:
            below = node if node is not None and node.kind != "value" else _NOTHING
            if found := self._blocks(path, kind, value, section, below):
                typed[name], kept[name] = found

    def _check_known(self, path: str, name: str, value: Any, node: Node, kept: Tree) -> None:
        if node.kind == "value":
            try:
                kept[name] = checked(value, node)
            except ValueError as error:
                self._wrong(path, str(error))
        elif is_missing(value):
            kept[name] = value
        elif found := self._blocks(path, node.kind, value, None, node):
            kept[name] = found[1]

    def _blocks(
        self, path: str, kind: str, value: Any, section: type[Section] | None, known: Node
    ) -> tuple[Any, Any] | None:
        """What `_check` returns, of a block, list of blocks or map of blocks; None if ``value`` is not of that form."""
        if kind == "block" and isinstance(value, dict):
            return self._check(value, section, known, f"{path}.")
        if kind == "list" and isinstance(value, list) and all(isinstance(item, dict) for item in value):
            items = [self._check(item, section, known, f"{path}[{index}].") for index, item in enumerate(value)]
            return [typed for typed, _ in items], [kept for _, kept in items]
        if kind == "map" and isinstance(value, dict) and all(isinstance(item, dict) for item in value.values()):
            named = {str(name): self._check(item, section, known, f"{path}.{name}.") for name, item in value.items()}
            return {name: both[0] for name, both in named.items()}, {name: both[1] for name, both in named.items()}
        form = {"list": "a list of blocks", "map": "a block of named blocks"}.get(kind, "a block of keys")
        self._wrong(
            path, f"{form} belongs here, not {value!r}", _keys_here([*{**fields_of(section), **known.children}])
        )
        return None

    def _resolve_interpolations(self) -> None:
        from nvidia_tao_deploy.spec.interpolate import Unreadable, resolved

        defaults = self.model().model_dump(mode="json", by_alias=True)
        if self.tree.get("results_dir"):
            for action, folder in RESULT_FOLDERS.items():
                defaults[action]["results_dir"] = f"${{results_dir}}/{folder}"
        try:
            self.tree = resolved(self.tree, (defaults, self.as_given), self._unresolved)
        except Unreadable as error:
            raise SpecError(str(error), where=self.where(error.key) if error.key else self.name) from error

    def _unresolved(self, key: str, text: str, target: str | None, reason: str) -> None:
        """Note why the value ``text`` of ``key`` has no value; ``target`` is the key it refers to, if it is absent."""
        field = self._field(key)
        if target is None:
            self._wrong(key, f"cannot resolve '{text}': {reason}")
        elif not self.is_key(target):
            self._wrong(key, f"'{text}' refers to {target}, which is not set", self.suggestion(target, []))
        elif field is not None and not allows_none(field):
            self._wrong(key, f"'{text}' refers to {target}, which is not set", "Set it in the spec file.")
        elif field is not None and text != f"${{{target}}}":
            self.notes.append(f"{key} has no value: it refers to {target}, which is not set")
        # Otherwise the value is as absent as the one it refers to.

    def _field(self, key: str) -> Any:
        """The typed field of a dotted key, None if there is none."""
        model: type[Section] | None = self.model
        field = None
        for part in key.replace("[", ".[").split("."):
            if part.startswith("["):
                continue
            field = fields_of(model).get(part)
            if field is None:
                return None
            model = shape_of(field)[1]
        return field
