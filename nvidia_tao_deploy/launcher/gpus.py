"""How GPUs are handed to a container, by engine and platform."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from nvidia_tao_deploy.errors import UsageError

_DEVICE = re.compile(r"[0-9]+(?::[0-9]+)?|(?:GPU|MIG)-[0-9A-Za-z][0-9A-Za-z/-]*")
# Docker 19.03 (API 1.40) brought --gpus.
_FIRST_API_WITH_GPUS = (1, 40)


def check_gpus(value: str) -> str:
    """``all``, ``none``, or a comma list of indices (``0``), MIG indices (``0:1``) and UUIDs; returned as it is.

    Raises:
        UsageError: anything else.
    """
    if value in ("all", "none") or all(_DEVICE.fullmatch(item) for item in value.split(",")):
        return value
    raise UsageError(
        f"--gpus {value!r} is not known", remedy="Use all, none, indices such as 0,1, or UUIDs of nvidia-smi -L."
    )


def gpus_present(root: Path = Path("/")) -> bool:
    """True if this host has an NVIDIA driver (discrete GPU, Tegra or WSL)."""
    return any((root / path).exists() for path in ("dev/nvidiactl", "dev/nvhost-gpu", "dev/nvgpu", "dev/dxg"))


def is_tegra(uname: str, root: Path = Path("/")) -> bool:
    """True on Jetson and Thor: the word ``tegra`` in ``uname -a``, or the release file of L4T."""
    return "tegra" in uname.lower() or (root / "etc/nv_tegra_release").exists()


def gpu_arguments(
    gpus: str, *, engine: str, api_version: tuple[int, ...], tegra: bool, runtime: str | None
) -> tuple[list[str], Mapping[str, str]]:
    """Arguments and environment variables that give ``gpus`` to a container.

    podman takes CDI devices; docker takes ``--gpus``; Tegra, docker before API 1.40 and ``--runtime nvidia`` take the
    NVIDIA runtime, which reads NVIDIA_VISIBLE_DEVICES.
    """
    arguments = ["--runtime", runtime] if runtime else []
    if engine == "podman" and runtime != "nvidia":
        devices = [] if gpus == "none" else gpus.split(",")
        return arguments + [word for item in devices for word in ("--device", f"nvidia.com/gpu={item}")], {}
    if gpus == "none":
        # The images ask for all GPUs in their own environment; where the NVIDIA runtime is the default it would obey.
        return arguments, {"NVIDIA_VISIBLE_DEVICES": "void"}
    if runtime == "nvidia" or (runtime is None and (tegra or api_version < _FIRST_API_WITH_GPUS)):
        return ["--runtime", "nvidia"], {"NVIDIA_DRIVER_CAPABILITIES": "all", "NVIDIA_VISIBLE_DEVICES": gpus}
    if gpus == "all":
        return [*arguments, "--gpus", "all"], {}
    # The quotes are part of the value: docker reads it as a CSV record.
    return [*arguments, "--gpus", f'"device={gpus}"'], {}
