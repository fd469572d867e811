"""Environment variables for the container, passed so that their values show up nowhere."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nvidia_tao_deploy.errors import UsageError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
HIDDEN = "***"

# Variables that steer the engine's client, the dynamic loader or Go itself: given for the container, they must not
# reach the client, so they travel in the argument vector.
_CLIENT = re.compile(
    r"PATH|HOME|USER|LOGNAME|TMPDIR|TERM|NOTIFY_SOCKET|REGISTRY_AUTH_FILE|STORAGE_(?:DRIVER|OPTS)"
    r"|(?i:https?|no|all|ftp)_(?i:proxy)|(?:SSL_CERT|LD|LC|XDG|DBUS|GLIBC|MALLOC|BUILDKIT|CONTAINERS?|PODMAN|OTEL)_\w+"
    r"|GO(?:DEBUG|GC|MAXPROCS|MEMLIMIT|TRACEBACK)|SSH_(?:AUTH_SOCK|ASKPASS)"
    r"|DOCKER_(?:HOST|CONFIG|CONTEXT|CERT_PATH|API_VERSION|AUTH_CONFIG|CLI_\w+|TLS\w*|CONTENT_TRUST\w*|CUSTOM_HEADERS)"
)


def parse_env(entries: tuple[str, ...], where: str = "--env") -> dict[str, str | None]:
    """``NAME=VALUE`` entries, or ``NAME`` to inherit (value None); the last one wins.

    Raises:
        UsageError: a name that is none. The entry itself is not quoted: it may be a secret.
    """
    found: dict[str, str | None] = {}
    for number, entry in enumerate(entries, start=1):
        name, equals, value = entry.partition("=")
        check_env(name, value, f"{where}, entry {number}")
        found[name] = value if equals else None
    return found


def check_env(name: str, value: str, where: str) -> None:
    """Raise UsageError unless ``name`` is a variable name and ``value`` can be carried."""
    if not NAME.fullmatch(name) or "\0" in value:
        what = "an entry is not NAME=VALUE or NAME"
        raise UsageError(what, where=where, remedy="A name is letters, digits and _ (the entry is not shown here).")


def env_arguments(env: Mapping[str, str | None]) -> tuple[list[str], dict[str, str]]:
    """Arguments for the engine, and the variables to add to the environment of its client.

    ``--env NAME`` makes the client hand over its own variable, so the value is neither in the argument vector nor in
    the process list. Only variables that the client itself reads (PATH, HOME, LD_*, ...) go as ``NAME=VALUE``.
    """
    arguments: list[str] = []
    child: dict[str, str] = {}
    for name, value in env.items():
        if value is None:
            arguments += ["--env", name]
        elif _CLIENT.fullmatch(name):
            arguments += ["--env", f"{name}={value}"]
        else:
            child[name] = value
            arguments += ["--env", name]
    return arguments, child


def hide_values(arguments: list[str], env: Mapping[str, str | None]) -> list[str]:
    """``arguments`` for printing: the values of ``env`` replaced by ``***``."""
    hidden = {f"{name}={value}": f"{name}={HIDDEN}" for name, value in env.items() if value is not None}
    return [
        hidden.get(word, word) if before == "--env" else word
        for before, word in zip(["", *arguments], arguments, strict=False)
    ]
