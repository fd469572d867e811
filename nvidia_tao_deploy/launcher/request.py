"""What is asked for, with mounts files and defaults merged in, and the argument vector that starts it."""

from __future__ import annotations

import grp
import os
import platform
import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nvidia_tao_deploy.errors import UsageError
from nvidia_tao_deploy.launcher.arguments import Options
from nvidia_tao_deploy.launcher.engine import Engine
from nvidia_tao_deploy.launcher.environment import env_arguments, parse_env
from nvidia_tao_deploy.launcher.gpus import check_gpus, gpu_arguments, gpus_present, is_tegra
from nvidia_tao_deploy.launcher.mounts import Mount, make_mount, merge_mounts, mount_arguments, parse_volume
from nvidia_tao_deploy.launcher.mounts_file import (
    FileSettings,
    all_checked,
    checked,
    default_mounts_file,
    read_mounts_file,
)

WORKDIR = "/workspace/tao-deploy"
_STDIN, _STDOUT = 0, 1
_SHM_SIZE = "16G"
# The one folder that any uid can write in any image.
_HOME = "/tmp"  # noqa: S108


@dataclass(frozen=True)
class Request:
    """One container to start, checked; nothing in it depends on the engine.

    Attributes:
        gpus: ``all``, ``none``, a list, or None: all if this host has any.
        env: what the user set: values, or None to inherit.
        user: ``UID:GID``, or None for the caller.
    """

    command: tuple[str, ...]
    mounts: list[Mount]
    env: dict[str, str | None]
    gpus: str | None
    runtime: str | None
    shm_size: str
    ulimits: tuple[str, ...]
    ports: tuple[str, ...]
    user: str | None
    network: str | None
    privileged: bool
    tty: bool
    stdin: bool


def make_request(options: Options) -> Request:
    """Merge, from weak to strong: defaults, the default mounts file, ``--mounts_file``, the flags.

    Raises:
        UsageError: anything in the flags or files that is not valid, or two mounts for one destination.
    """
    files = [(str(path), read_mounts_file(path)) for path, needed in _mounts_files(options) if needed or path.exists()]
    volumes = [parse_volume(text) for text in options.volumes]
    groups = [*((where, settings.mounts) for where, settings in files), ("--volume", volumes)]
    if not any(mount.target == WORKDIR for _, mounts in groups for mount in mounts):
        groups.insert(0, ("the launcher itself", [_work_mount()]))
    mounts = merge_mounts(groups)
    env: dict[str, str | None] = {}
    for _, settings in files:
        env.update(settings.env)
    env.update(parse_env(options.env))
    merged = _merge_settings([settings for _, settings in files])
    terminal = os.isatty(_STDIN) and os.isatty(_STDOUT)
    wanted_tty = options.tty if options.tty is not None else terminal and merged.tty is not False
    return Request(
        command=options.command,
        mounts=mounts,
        env=env,
        gpus=None if options.gpus is None else check_gpus(options.gpus),
        runtime=checked("network", options.runtime, "--runtime"),
        shm_size=checked("shm_size", options.shm_size, "--shm_size") or merged.shm_size or _SHM_SIZE,
        ulimits=(*merged.ulimits, *all_checked("ulimit", options.ulimits, "--ulimit")),
        ports=(*merged.ports, *all_checked("port", options.ports, "--port")),
        user=None if options.run_as_user else merged.user,
        network=merged.network,
        privileged=merged.privileged,
        tty=wanted_tty,
        stdin=wanted_tty or not (os.isatty(_STDIN) or _is_null(_STDIN)),
    )


def container_arguments(
    request: Request, engine: Engine, image: str, name: str, *, uname: str | None = None, root: Path = Path("/")
) -> tuple[list[str], dict[str, str]]:
    """The argument vector that starts the container, and variables for the environment of the engine's client.

    ``uname`` and ``root`` (of device files) are this machine's unless a test gives others.
    """
    tegra = is_tegra(uname if uname is not None else " ".join(platform.uname()), root)
    gpus = request.gpus or ("all" if not engine.local or gpus_present(root) else "none")
    gpu_words, gpu_env = gpu_arguments(
        gpus, engine=engine.name, api_version=engine.api_version, tegra=tegra, runtime=request.runtime
    )
    own_env = {**gpu_env, "HOME": _HOME, "USER": _user_name()}
    if _holds_package(request.mounts):
        own_env["PYTHONPATH"] = WORKDIR
    own = [word for key, value in own_env.items() if key not in request.env for word in ("--env", f"{key}={value}")]
    given, child_env = env_arguments(request.env)
    words = [engine.executable, "run", "--rm", "--name", name]
    if engine.init:
        # Without an init the command is process 1, which ignores every signal it does not handle.
        words.append("--init")
    if request.stdin:
        words.append("--interactive")
    words.append("--tty" if request.tty else "--sig-proxy=false")
    words += gpu_words
    for mount in request.mounts:
        words += mount_arguments(mount, engine.name)
    words += [*own, *given]
    words += ["--shm-size", request.shm_size]
    for limit in request.ulimits:
        words += ["--ulimit", limit]
    words += _user_words(request.user, engine)
    if tegra and gpus != "none":
        words += _device_groups()
    for port in request.ports:
        words += ["--publish", port]
    if request.network:
        words += ["--network", request.network]
    if request.privileged:
        words.append("--privileged")
    return [*words, "--workdir", WORKDIR, image, *request.command], child_env


def _user_words(user: str | None, engine: Engine) -> list[str]:
    if user is not None:
        return ["--user", user]
    if engine.rootless and engine.name == "podman":
        return ["--userns", "keep-id", "--user", f"{os.getuid()}:{os.getgid()}"]
    if engine.rootless:
        return ["--user", "0:0"]  # root in a rootless container is the caller
    return ["--user", f"{os.getuid()}:{os.getgid()}"]


def _device_groups() -> list[str]:
    """On Tegra the GPU's device files belong to these groups of the host."""
    words: list[str] = []
    for name in ("video", "render"):
        try:
            words += ["--group-add", str(grp.getgrnam(name).gr_gid)]
        except KeyError:
            continue
    return words


def _mounts_files(options: Options) -> list[tuple[Path, bool]]:
    """(file, must exist) in reading order."""
    files = [(default_mounts_file(), bool(os.environ.get("LAUNCHER_MOUNTS")))]
    if options.mounts_file is not None:
        files.append((Path(options.mounts_file).expanduser(), True))
    return files


def _work_mount() -> Mount:
    top = os.environ.get("NV_TAO_DEPLOY_TOP")
    return make_mount(top or os.getcwd(), WORKDIR, None, "NV_TAO_DEPLOY_TOP" if top else "the current folder")


def _holds_package(mounts: Sequence[Mount]) -> bool:
    """True if the checkout is mounted as the work folder: its code then goes before the image's."""
    return any(
        mount.target == WORKDIR and os.path.isfile(os.path.join(mount.source, "nvidia_tao_deploy", "version.py"))
        for mount in mounts
    )


def _merge_settings(files: list[FileSettings]) -> FileSettings:
    merged = FileSettings()
    for item in files:
        merged = FileSettings(
            user=item.user or merged.user,
            ports=merged.ports + item.ports,
            shm_size=item.shm_size or merged.shm_size,
            ulimits=merged.ulimits + item.ulimits,
            privileged=merged.privileged or item.privileged,
            network=item.network or merged.network,
            tty=merged.tty if item.tty is None else item.tty,
        )
    return merged


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid{os.getuid()}"


def _is_null(descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(os.devnull))
    except OSError:
        raise UsageError("standard input is closed", remedy="Redirect it: tao_deploy ... < /dev/null") from None
