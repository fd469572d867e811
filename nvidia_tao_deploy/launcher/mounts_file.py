"""The JSON file with mounts, variables and engine options, shared with the host launcher ``tao``."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.errors import UsageError
from nvidia_tao_deploy.launcher.environment import check_env
from nvidia_tao_deploy.launcher.mounts import Mount, make_mount

_OPTIONS = ("user", "ports", "shm_size", "ulimits", "privileged", "network", "tty")
_ADDRESS = r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}:|\[[0-9A-Fa-f:]+\]:"
_PORT = r"(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
# What the engine is told as it stands: its form, and that form in words.
_FORMS = {
    "network": (r"[A-Za-z0-9][A-Za-z0-9_.:-]*", "host, none, bridge or the name of a network"),
    "user": (r"[0-9]+(?::[0-9]+)?", "UID:GID in numbers"),
    "shm_size": (r"[0-9]+(?:\.[0-9]+)?(?:[kmgtKMGT][bB]?|[bB])?", "a size such as 16G"),
    "ulimit": (r"[a-z]+=(?:-1|[0-9]+)(?::(?:-1|[0-9]+))?", "NAME=SOFT[:HARD]"),
    "port": (
        rf"(?:{_ADDRESS})?(?:0|{_PORT}):{_PORT}(?:/(?:tcp|udp|sctp))?",
        "[IP:]HOST:CONTAINER, numbers up to 65535",
    ),
}


@dataclass(frozen=True)
class FileSettings:
    """What one mounts file asks for."""

    mounts: list[Mount] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    ports: tuple[str, ...] = ()
    shm_size: str | None = None
    ulimits: tuple[str, ...] = ()
    privileged: bool = False
    network: str | None = None
    tty: bool | None = None


def default_mounts_file() -> Path:
    """``LAUNCHER_MOUNTS`` if set, else ``~/.tao_mounts.json``."""
    return Path(os.environ.get("LAUNCHER_MOUNTS") or "~/.tao_mounts.json").expanduser()


def read_mounts_file(path: Path) -> FileSettings:
    """Read one file.

    Raises:
        UsageError: unreadable, not JSON, an unknown key, or a wrong value; values of Envs are never shown.
    """
    where = str(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"cannot read the mounts file: {error.strerror}"
        raise UsageError(what, where=where, remedy="Correct the path.") from error
    except ValueError as error:
        raise UsageError(f"the mounts file is not JSON: {error}", where=where, remedy="Correct it there.") from error
    _check_keys(data, ("Mounts", "Envs", "DockerOptions"), where)
    mounts = []
    for here, (source, target, mode) in _entries(data, "Mounts", ("source", "destination", "mode"), where):
        if not isinstance(source, str) or not isinstance(target, str) or not isinstance(mode, str | None):
            what = "source and destination must both be given, as text"
            raise UsageError(what, where=here, remedy="Add what is missing.")
        mounts.append(make_mount(source, target, mode, here))
    env = {}
    for here, (name, value) in _entries(data, "Envs", ("variable", "value"), where):
        if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, str | int | float):
            what = "variable and value must both be given, as text"
            raise UsageError(what, where=here, remedy="Add what is missing.")
        check_env(name, str(value), here)
        env[name] = str(value)
    options = data.get("DockerOptions") or {}
    here = f"{where}: DockerOptions"
    _check_keys(options, _OPTIONS, here)
    for key in ("privileged", "tty"):
        if not isinstance(options.get(key), bool | None):
            raise UsageError(f"{key} must be true or false", where=here, remedy="Correct it there.")
    ports, ulimits = options.get("ports") or {}, options.get("ulimits") or {}
    for key, value in (("ports", ports), ("ulimits", ulimits)):
        if not isinstance(value, dict):
            raise UsageError(f"{key} must be an object", where=here, remedy="Correct it there.")
    return FileSettings(
        mounts=mounts,
        env=env,
        user=checked("user", options.get("user"), here),
        ports=all_checked("port", [f"{host}:{container}" for container, host in ports.items()], here),
        shm_size=checked("shm_size", options.get("shm_size"), here),
        ulimits=all_checked("ulimit", [f"{name}={limit}" for name, limit in ulimits.items()], here),
        privileged=bool(options.get("privileged")),
        network=checked("network", options.get("network"), here),
        tty=options.get("tty"),
    )


def checked(name: str, value: Any, where: str) -> str | None:
    """``value`` as text if it is None or of the form of a ``network``, ``user``, ``shm_size``, ``ulimit`` or ``port``.

    Raises:
        UsageError: it is not.
    """
    if value is None:
        return None
    form, expected = _FORMS[name]
    if isinstance(value, bool) or not isinstance(value, str | int) or not re.fullmatch(form, str(value)):
        raise UsageError(f"{name} {value!r} is not known", where=where, remedy=f"Give {expected}.")
    return str(value)


def all_checked(name: str, values: Sequence[str], where: str) -> tuple[str, ...]:
    """``values``, each `checked`."""
    return tuple(str(checked(name, value, where)) for value in values)


def _check_keys(entry: Any, names: tuple[str, ...], where: str) -> None:
    if not isinstance(entry, dict):
        raise UsageError("a JSON object is expected", where=where, remedy=f"Known keys: {', '.join(names)}.")
    for key in entry:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            remedy = f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(names)}."
            raise UsageError(f"unknown key {key!r}", where=where, remedy=remedy)


def _entries(data: dict[str, Any], key: str, names: tuple[str, ...], where: str) -> Iterator[tuple[str, list[Any]]]:
    """Of each object of the list at ``key``: its place, and its values in the order of ``names``."""
    entries = data.get(key)
    if not isinstance(entries, list | None):
        raise UsageError(f"{key} must be a list", where=where, remedy="See docs/launcher.md.")
    for number, entry in enumerate(entries or []):
        here = f"{where}: {key}[{number}]"
        _check_keys(entry, names, here)
        yield here, [entry.get(name) for name in names]
