"""The container engine on this machine: docker or podman, asked by argument vectors only."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.errors import TaoDeployError

_INSTALL = "Install Docker or podman, or pass --engine; tao_deploy doctor shows what is there."


class ContainerError(TaoDeployError):
    """The engine cannot start the container: image missing, digest wrong, daemon refuses."""

    exit_code = 125  # as of docker run


class EngineMissingError(TaoDeployError):
    """Neither docker nor podman is there, or its daemon does not answer."""

    exit_code = 127  # as of docker run


@dataclass(frozen=True)
class Engine:
    """A container engine that answered.

    Attributes:
        name: ``docker`` or ``podman``.
        executable: absolute path of its client.
        api_version: of the server, for example ``(1, 41)``; ``(0,)`` for podman, where nothing depends on it.
        architecture: of the server: ``amd64``, ``arm64``, ...
        rootless: root in a container is the calling user.
        local: the server shares this machine's files and devices.
        init: the engine can put its own small init before the command.
    """

    name: str
    executable: str
    api_version: tuple[int, ...]
    architecture: str
    rootless: bool = False
    local: bool = True
    init: bool = True

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one short engine command and return its captured result."""
        return _ask(self.executable, *arguments)


def find_engine(wanted: str | None) -> Engine:
    """Find the engine and ask its version.

    Raises:
        EngineMissingError: not installed, or the daemon does not answer.
    """
    names = (wanted,) if wanted else ("docker", "podman")
    for name in names:
        executable = shutil.which(name)
        if executable:
            return _docker(executable) if name == "docker" else _podman(executable)
    raise EngineMissingError(f"{' and '.join(names)}: command not found", remedy=_INSTALL)


def offline_engine(wanted: str | None) -> Engine:
    """A current engine of this name as a stand-in for ``--dry-run`` where none answers."""
    name = wanted or "docker"
    return Engine(
        name, shutil.which(name) or name, (1, 41), platform.machine(), rootless=name == "podman" and os.geteuid() != 0
    )


def _docker(executable: str) -> Engine:
    answer = _ask(executable, "version", "--format", "{{json .}}")
    server = _object(answer.stdout).get("Server") or {}
    if not server and answer.returncode == 0:
        return _podman(executable)  # the podman-docker package installs podman under docker's name
    if not server:
        reason = answer.stderr.strip() or "no answer"
        raise EngineMissingError(
            f"the Docker daemon does not answer: {reason}",
            remedy="Start it (systemctl start docker), join the group docker, set DOCKER_HOST, or use --engine podman.",
        )
    version = tuple(int(part) for part in str(server.get("ApiVersion", "0")).split(".") if part.isdigit())
    # Root is root under any daemon but a rootless one of another user, which root would not talk to.
    rootless = (
        os.geteuid() != 0 and "rootless" in _ask(executable, "info", "--format", "{{json .SecurityOptions}}").stdout
    )
    return Engine(
        "docker", executable, version, str(server.get("Arch", "amd64")), rootless, docker_is_local(os.environ)
    )


def _podman(executable: str) -> Engine:
    answer = _ask(executable, "version", "--format", "json")
    client = _object(answer.stdout).get("Client") or {}
    if answer.returncode or not client:
        raise EngineMissingError(f"podman does not answer: {answer.stderr.strip() or 'no answer'}", remedy=_INSTALL)
    architecture = str(client.get("OsArch", "/amd64")).partition("/")[2]
    helpers = ("/usr/libexec/podman/catatonit", "/usr/lib/podman/catatonit", "/usr/local/libexec/podman/catatonit")
    init = bool(shutil.which("catatonit")) or any(Path(path).exists() for path in helpers)
    return Engine("podman", executable, (0,), architecture, rootless=os.geteuid() != 0, init=init)


def docker_is_local(environ: Mapping[str, str]) -> bool:
    """False if ``environ`` points the client at a daemon on another machine."""
    return environ.get("DOCKER_HOST", "unix://").startswith(("unix://", "npipe://"))


def _ask(executable: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [executable, *arguments]
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise EngineMissingError(f"cannot start {executable}: {error.strerror}", remedy=_INSTALL) from error


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
