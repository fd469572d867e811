"""Bind mounts: the ``SRC:DST[:mode]`` syntax and what the engine is told."""

from __future__ import annotations

import csv
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nvidia_tao_deploy.errors import UsageError

# The destination holds no colon, so a source may: the last ":/" starts the destination.
_VOLUME = re.compile(r"(?P<source>.+):(?P<target>/[^:]*)(?::(?P<mode>[^:/]*))?", re.DOTALL)
_MODES = {"ro", "rw", "z", "Z"}


@dataclass(frozen=True)
class Mount:
    """A host path (absolute, existing) seen at ``target`` (absolute) in the container.

    ``label`` is ``z`` or ``Z`` to relabel for SELinux, or empty.
    """

    source: str
    target: str
    readonly: bool = False
    label: str = ""


def parse_volume(text: str, where: str = "--volume") -> Mount:
    """Read ``SRC:DST`` or ``SRC:DST:mode``; mode is ``ro``, ``rw``, ``z``, ``Z`` or a comma list of them.

    Raises:
        UsageError: not of that form, or ``make_mount`` refuses it.
    """
    match = _VOLUME.fullmatch(text)
    if not match:
        raise UsageError(
            f"{text!r} is not SRC:DST[:ro]", where=where, remedy="The destination is an absolute path in the container."
        )
    return make_mount(match["source"], match["target"], match["mode"], where)


def make_mount(source: str, target: str, mode: str | None, where: str) -> Mount:
    """A checked mount: ``~`` expanded, a relative source made absolute from the current folder, the target normalised.

    Raises:
        UsageError: the source is missing, the target is no absolute path or is ``/``, the mode is unknown, or a path
            holds a control character (no engine syntax carries those safely).
    """
    for path in (source, target):
        if not path or any(ord(char) < 32 or ord(char) == 127 for char in path):
            raise UsageError(
                f"{path!r} is empty or holds a control character", where=where, remedy="Rename the folder."
            )
    modes = set(mode.split(",")) if mode is not None else set()
    if modes - _MODES or {"ro", "rw"} <= modes or {"z", "Z"} <= modes:
        raise UsageError(f"mode {mode!r} is not known", where=where, remedy="Use ro, rw, z or Z.")
    host = os.path.abspath(Path(source).expanduser())
    if not os.path.exists(host):
        raise UsageError(f"{host} does not exist on this host", where=where, remedy="Create it or correct the path.")
    parts = PurePosixPath(target)
    if not parts.is_absolute() or ".." in parts.parts or len(parts.parts) < 2:
        raise UsageError(
            f"{target!r} is no absolute path below /", where=where, remedy="Give the full path in the container."
        )
    clean = "/" + "/".join(parts.parts[1:])
    return Mount(host, clean, "ro" in modes, "Z" if "Z" in modes else "z" if "z" in modes else "")


def merge_mounts(groups: list[tuple[str, list[Mount]]]) -> list[Mount]:
    """All mounts of groups (where they come from, mounts) in order, exact repetitions once.

    Raises:
        UsageError: two different mounts for one destination.
    """
    seen: dict[str, tuple[str, Mount]] = {}
    for where, mounts in groups:
        for mount in mounts:
            first_where, first = seen.setdefault(mount.target, (where, mount))
            if first != mount:
                what = f"{mount.target} is mounted twice: {first.source} ({first_where}), {mount.source} ({where})"
                raise UsageError(what, remedy="Drop one of them.")
    return [mount for _, mount in seen.values()]


def mount_arguments(mount: Mount, engine: str) -> list[str]:
    """Arguments of ``docker run`` or ``podman run`` for one mount.

    ``--mount`` is a CSV record, so commas, quotes and colons in paths arrive as they are; an SELinux label exists only
    in the older ``--volume`` form, which cannot carry a colon.

    Raises:
        UsageError: the engine cannot be told this path literally.
    """
    if mount.label:
        if ":" in mount.source:
            what = f"{mount.source!r} holds a colon, which a mount with mode z or Z cannot carry"
            raise UsageError(what, remedy="Drop the mode or rename.")
        access = "ro" if mount.readonly else "rw"
        return ["--volume", f"{mount.source}:{mount.target}:{access},{mount.label}"]
    if engine == "podman" and any(char in mount.source + mount.target for char in ',"'):
        raise UsageError(
            f"{mount.source!r} holds a comma or a quote, which podman splits", remedy="Rename the folder or use docker."
        )
    fields = ["type=bind", f"source={mount.source}", f"target={mount.target}"]
    if mount.readonly:
        fields.append("readonly")
    record = io.StringIO()
    csv.writer(record, lineterminator="").writerow(fields)
    return ["--mount", record.getvalue()]
