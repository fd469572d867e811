"""Paths a command will use in the container that no mount covers, found in its words and its spec before the start."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from nvidia_tao_deploy.launcher.mounts import Mount

_SPEC_FLAGS = ("-e", "--experiment_spec_file", "--experiment_spec")
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<path>/[^"'\n]+)(?P=quote)""")
_SYSTEM = ("/dev", "/proc", "/sys")
_SPEC_BYTES = 4 << 20


def warning(path: str, where: str) -> str:
    """What to say of a path in the container without a mount; ``where``: it is named."""
    text = f"{path!r} ({where}) is under no mount: not seen in the container, lost if written there"
    if os.path.exists(path):
        folder = path if os.path.isdir(path) else os.path.dirname(path)
        return f"{text}\n  It exists on this host: add --volume {folder}:{folder}"
    folder = os.path.dirname(path) if os.path.splitext(path)[1] else path
    return f"{text}\n  Mount a host folder there: --volume HOST_FOLDER:{folder}"


def uncovered_paths(command: Sequence[str], mounts: Sequence[Mount], workdir: str) -> dict[str, str]:
    """Absolute paths outside all mounts, in order, and where they are named; commands without a spec file have none.

    A relative spec path starts from ``workdir``.
    """
    spec = _spec_word(command)
    if spec is None:
        return {}
    spec = os.path.normpath(os.path.join(workdir, spec))
    found = [(spec, "the spec file")]
    found += [(path, "in the command") for word in command[1:] for path in _path_in_word(word)]
    host = host_path(spec, mounts)
    if host is not None and os.path.isfile(host):
        found += [(path, f"{spec}: {key}" if key else spec) for key, path in spec_file_paths(Path(host))]
    seen: dict[str, str] = {}
    for path, where in found:
        clean = os.path.normpath(path)
        if host_path(clean, mounts) is None and not any(PurePosixPath(clean).is_relative_to(top) for top in _SYSTEM):
            seen.setdefault(clean, where)
    return seen


def host_path(path: str, mounts: Sequence[Mount]) -> str | None:
    """The host path behind ``path`` of the container, by the longest mount that holds it, or None."""
    inside = PurePosixPath(path)
    covering = [mount for mount in mounts if inside.is_relative_to(mount.target)]
    if not covering:
        return None
    mount = max(covering, key=lambda item: len(item.target))
    return os.path.join(mount.source, inside.relative_to(mount.target)) if path != mount.target else mount.source


def spec_file_paths(path: Path) -> list[tuple[str, str]]:
    """(dotted key, absolute path) of a YAML spec; (``""``, path) for every quoted absolute path of any other text.

    ``???`` and ``${...}`` are plain text here; what a value with an interpolation becomes is not known and not guessed.
    """
    try:
        text = path.read_bytes()[:_SPEC_BYTES].decode("utf-8", "replace")
    except OSError:
        return []  # the command will say so itself, in its own words
    if path.suffix.lower() not in (".txt", ".pbtxt", ".prototxt"):
        found = _yaml_file_paths(text)
        if found is not None:
            return found
    without_comments = re.sub(r"(?m)^\s*#.*$", "", text)
    return [("", match["path"]) for match in _QUOTED.finditer(without_comments) if "${" not in match["path"]]


def _yaml_file_paths(text: str) -> list[tuple[str, str]] | None:
    """Paths of a YAML text; None if it is no YAML or this host has no parser: the quoted paths can still be read."""
    try:
        import yaml
    except ImportError:
        return None
    try:
        return list(_yaml_paths(yaml.safe_load(text), "", set()))
    except (yaml.YAMLError, RecursionError):
        return None


def _yaml_paths(value: Any, key: str, seen: set[int]) -> Iterator[tuple[str, str]]:
    if isinstance(value, (dict, list)):
        # Aliases make YAML a graph, even a cyclic one: every node is read once.
        if id(value) in seen:
            return
        seen.add(id(value))
        named = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in named:
            step = f"[{name}]" if isinstance(value, list) else f".{name}" if key else str(name)
            yield from _yaml_paths(item, f"{key}{step}", seen)
    elif isinstance(value, str) and _is_path(value):
        yield key, value


def _spec_word(command: Sequence[str]) -> str | None:
    for word, after in zip(command, [*command[1:], ""], strict=True):
        if word in _SPEC_FLAGS:
            return after or None
        flag, equals, value = word.partition("=")
        if flag in _SPEC_FLAGS and equals and value:
            return value
    return None


def _path_in_word(word: str) -> list[str]:
    value = word.partition("=")[2] if re.match(r"\+{0,2}-{0,2}[\w.\[\]-]+=", word) else word
    value = value.strip("\"'")
    return [value] if _is_path(value) else []


def _is_path(value: str) -> bool:
    return value.startswith("/") and len(value) > 1 and "${" not in value and "\n" not in value
