"""``tao_deploy doctor``: what is here, what is missing, and what to do about each."""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from nvidia_tao_deploy.launcher import versions
from nvidia_tao_deploy.launcher.gpus import gpus_present, is_tegra
from nvidia_tao_deploy.version import __version__

OK, NOTE, MISSING = "ok", "note", "missing"
_GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        status: ``ok``, ``note`` (works, or is not needed everywhere) or ``missing`` (something will not work).
        found: what is there.
        remedy: what to do; empty when ok.
    """

    name: str
    status: str
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Host:
    """The machine as the checks see it; tests give another root, other programs and packages.

    Attributes:
        run: output of a program, or None if it is not there or fails.
        packages: installed distributions and their versions, by lower-case name.
        cuda_driver: CUDA version the driver supports, ``(12, 4)``, or None without a driver.
    """

    root: Path
    run: Callable[..., str | None]
    packages: dict[str, str]
    uname: str
    python: tuple[int, int] = field(default_factory=lambda: (sys.version_info.major, sys.version_info.minor))
    cuda_driver: tuple[int, int] | None = None

    @property
    def tegra(self) -> bool:
        """True on Jetson and Thor."""
        return is_tegra(self.uname, self.root)

    def text(self, path: str) -> str | None:
        """Content of a small file below the root, or None."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None


def this_host() -> Host:
    """The machine this runs on. Packages are read from their metadata: nothing is imported."""
    packages = {}
    for name in (*versions.TENSORRT_PACKAGES, *versions.RTX_PACKAGES, *versions.ORT_PACKAGES):
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return Host(Path("/"), _run, packages, " ".join(platform.uname()), cuda_driver=_cuda_driver())


def main(argv: Sequence[str]) -> int:
    """Print the report; 0 if nothing is missing, 1 otherwise."""
    about = "What is here, what is missing, and what to do."
    parser = argparse.ArgumentParser(prog="tao_deploy doctor", description=about)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(list(argv))
    findings = diagnose(this_host())
    missing = [item for item in findings if item.status == MISSING]
    if options.json:
        listed = [asdict(item) for item in findings]
        print(json.dumps({"version": __version__, "missing": len(missing), "findings": listed}, indent=2))
    else:
        width = max(len(item.name) for item in findings)
        for item in findings:
            print(f"{item.status:8}{item.name:{width}}  {item.found}")
            if item.remedy:
                print(f"{'':{width + 10}}-> {item.remedy}")
    return 1 if missing else 0


def diagnose(host: Host) -> list[Finding]:
    """All checks, in the order of the report."""
    checks = (_python, _driver, _cuda, _runtimes, _docker, _podman, _toolkit, _jetson, _resources)
    return [finding for check in checks for finding in check(host)]


def _python(host: Host) -> list[Finding]:
    found = "{}.{}".format(*host.python)
    if not versions.PYTHON[0] <= host.python <= versions.PYTHON[1]:
        low, high = ("{}.{}".format(*item) for item in versions.PYTHON)
        return [Finding("Python", MISSING, found, f"Use Python {low} to {high}.")]
    return [Finding("Python", OK, f"{found}, nvidia_tao_deploy {__version__}")]


def _driver(host: Host) -> list[Finding]:
    name, query = "GPU driver", "--query-gpu=index,name,driver_version,compute_cap,memory.total"
    listing = host.run("nvidia-smi", query, "--format=csv,noheader")
    if listing:
        return [_gpu(host, line) for line in listing.strip().splitlines()]
    if host.tegra and gpus_present(host.root):
        return [Finding(name, OK, "Tegra, part of L4T")]
    if host.tegra:
        return [Finding(name, MISSING, "Tegra, part of L4T", "Flash or repair the BSP: no GPU device file.")]
    if gpus_present(host.root):
        found = "device files, but nvidia-smi does not answer"
        return [Finding(name, MISSING, found, "Reboot, or reinstall the driver.")]
    remedy = "Without a GPU, ONNX files run on the CPU; for engines install the NVIDIA driver."
    return [Finding(name, NOTE, "none", remedy)]


def _gpu(host: Host, line: str) -> Finding:
    index, name, driver, capability, memory = (*(part.strip() for part in line.split(",")), *[""] * 5)[:5]
    found = f"{name}, driver {driver}, compute capability {capability}, {memory}"
    tensorrt = _first(host, versions.TENSORRT_PACKAGES)
    if tensorrt:
        minimum = versions.tensorrt_facts(tensorrt[1]).compute_capability
        if re.fullmatch(r"\d+\.\d+", capability) and versions.number(capability) < minimum:
            need = "{}.{}".format(*minimum)
            remedy = f"TensorRT {tensorrt[1]} needs compute capability {need}: install an older TensorRT."
            return Finding(f"GPU {index}", MISSING, found, remedy)
    return Finding(f"GPU {index}", OK, found)


def _cuda(host: Host) -> list[Finding]:
    if host.cuda_driver:
        return [Finding("CUDA", OK, "driver supports up to {}.{}".format(*host.cuda_driver))]
    remedy = "Comes with the NVIDIA driver; needed for TensorRT only."
    return [Finding("CUDA", NOTE, "no driver library (libcuda)", remedy)]


def _runtimes(host: Host) -> list[Finding]:
    return [_tensorrt(host), _tensorrt_rtx(host), _onnx_runtime(host)]


def _tensorrt(host: Host) -> Finding:
    name, package = "TensorRT", _first(host, versions.TENSORRT_PACKAGES)
    if package is None:
        remedy = "pip install tensorrt-cu13 (or -cu12), or use the container; on Jetson it is part of JetPack."
        return Finding(name, NOTE, "not installed", remedy)
    facts = versions.tensorrt_facts(package[1])
    if host.python > facts.python:
        remedy = "It has no wheels for this Python: use Python {}.{} or a newer TensorRT.".format(*facts.python)
        return Finding(name, MISSING, " ".join(package), remedy)
    several = sorted({host.packages[item] for item in versions.TENSORRT_PACKAGES if item in host.packages})
    if len(several) > 1:
        remedy = "Uninstall all tensorrt packages, then install one."
        return Finding(name, MISSING, f"several: {', '.join(several)}", remedy)
    return _against_driver(host, name, package, versions.cuda_of(package[0], facts.cuda))


def _tensorrt_rtx(host: Host) -> Finding:
    name, package = "TensorRT-RTX", _first(host, versions.RTX_PACKAGES)
    if package is None:
        remedy = "pip install tensorrt-rtx-cu13 to build engines ahead of time, without a GPU."
        return Finding(name, NOTE, "not installed", remedy)
    return _against_driver(host, name, package, versions.cuda_of(package[0], 13))


def _onnx_runtime(host: Host) -> Finding:
    name, tensorrt = "ONNX Runtime", _first(host, versions.TENSORRT_PACKAGES)
    packages = [item for item in versions.ORT_PACKAGES if item in host.packages]
    if not packages:
        status = NOTE if tensorrt or _first(host, versions.RTX_PACKAGES) else MISSING
        return Finding(name, status, "not installed", "pip install onnxruntime, or onnxruntime-gpu with a GPU.")
    found = ", ".join(f"{item} {host.packages[item]}" for item in packages)
    if len(packages) > 1:
        remedy = f"They overwrite each other: pip uninstall {' '.join(packages)}, then install one."
        return Finding(name, MISSING, found, remedy)
    remedy = ""
    if packages == ["onnxruntime"] and host.cuda_driver and not host.tegra:
        remedy = "It runs on the CPU only: install onnxruntime-gpu in its place to use the GPU."
    if packages == ["onnxruntime-gpu"] and tensorrt and versions.number(tensorrt[1])[0] >= 11:
        remedy = "Its TensorRT provider wants libnvinfer 10 and does not load beside TensorRT 11."
    return Finding(name, NOTE if remedy else OK, found, remedy)


def _against_driver(host: Host, name: str, package: tuple[str, str], cuda: int) -> Finding:
    found = f"{package[0]} {package[1]}, built for CUDA {cuda}"
    if host.tegra or host.cuda_driver is None:
        return Finding(name, OK, found)
    if host.cuda_driver[0] < cuda:
        branch = versions.DRIVER_BRANCH.get(cuda, "newer")
        have = host.cuda_driver[0]
        remedy = f"The driver supports CUDA {have}: install driver {branch} or the -cu{have} package."
        return Finding(name, MISSING, found, remedy)
    return Finding(name, OK, found)


def _docker(host: Host) -> list[Finding]:
    client = host.run("docker", "--version")
    if client is None:
        remedy = "Needed (or podman) for tao_deploy only: see docs.docker.com/engine/install."
        return [Finding("Docker", NOTE, "not installed", remedy)]
    answer = host.run("docker", "version", "--format", "{{.Server.Version}} API {{.Server.APIVersion}}")
    if answer is None:
        found = f"{client.strip()}; the daemon does not answer"
        return [Finding("Docker", MISSING, found, "Start it, join the group docker, or set DOCKER_HOST.")]
    return [Finding("Docker", OK, f"server {answer.strip()}")]


def _podman(host: Host) -> list[Finding]:
    version = host.run("podman", "--version")
    if version:
        return [Finding("podman", OK, version.strip())]
    return [Finding("podman", NOTE, "not installed", "Needed only where Docker is not.")]


def _toolkit(host: Host) -> list[Finding]:
    folders = (host.root / "etc/cdi", host.root / "var/run/cdi")
    specs = [str(path) for folder in folders for path in sorted(folder.glob("*nvidia*"))]
    runtimes = host.run("docker", "info", "--format", "{{json .Runtimes}}") or ""
    version = host.run("nvidia-ctk", "--version")
    ways = (["runtime nvidia"] if '"nvidia"' in runtimes else []) + ([f"CDI {', '.join(specs)}"] if specs else [])
    name = "NVIDIA Container Toolkit"
    if version and ways:
        return [Finding(name, OK, f"{version.strip().splitlines()[0]}; {'; '.join(ways)}")]
    if version:
        remedy = (
            "sudo nvidia-ctk runtime configure --runtime=docker "
            "(podman: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml)."
        )
        return [Finding(name, MISSING, "installed, not registered", remedy)]
    if ways:
        return [Finding(name, OK, "; ".join(ways))]
    status = MISSING if host.tegra or gpus_present(host.root) else NOTE
    return [Finding(name, status, "not installed", "Install nvidia-container-toolkit to use GPUs in containers.")]


def _jetson(host: Host) -> list[Finding]:
    if not host.tegra:
        return []
    release = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", host.text("etc/nv_tegra_release") or "")
    found, remedy = "/etc/nv_tegra_release is not readable", "Inside a container, mount it from the host."
    if release:
        l4t = f"{release[1]}.{release[2]}"
        old = int(release[1]) < versions.FIRST_L4T_WITH_PYTHON
        found = f"{l4t}, JetPack {versions.jetpack(l4t)}"
        remedy = "Its own Python is 3.8: use Python 3.10 or newer, or the container." if old else ""
    return [Finding("L4T", NOTE if remedy else OK, found, remedy), _csv_files(host)]


def _csv_files(host: Host) -> Finding:
    """The lists from which the container runtime on Tegra mounts driver files, and whether those files exist."""
    name = "Tegra CSV files"
    folder = host.root / "etc/nvidia-container-runtime/host-files-for-container.d"
    lists = sorted(folder.glob("*.csv"))
    if not lists:
        if any((host.root / "etc/cdi").glob("*nvidia*")):
            return Finding(name, OK, "none; a CDI specification is used")
        remedy = "sudo apt install nvidia-l4t-init nvidia-container, or nvidia-ctk cdi generate --mode=csv."
        return Finding(name, MISSING, "none", remedy)
    kinds = re.compile(r"\s*(?:lib|sym|dev|dir)\s*,\s*/?(\S.*?)\s*$")
    entries = [
        match[1]
        for path in lists
        for line in path.read_text(errors="replace").splitlines()
        if (match := kinds.match(line))
    ]
    absent = [entry for entry in entries if not os.path.lexists(host.root / entry)]
    found = f"{len(lists)} lists, {len(entries)} entries, {len(absent)} absent on this host"
    if len(absent) * 2 > len(entries):
        remedy = f"They do not belong to this L4T (first absent: /{absent[0]}): reinstall nvidia-l4t-init."
        return Finding(name, MISSING, found, remedy)
    return Finding(name, OK, found)


def _resources(host: Host) -> list[Finding]:
    findings = []
    docker_root = (host.run("docker", "info", "--format", "{{.DockerRootDir}}") or "").strip()
    places = [("disk here", Path.cwd(), 2)]
    if docker_root and Path(docker_root).exists():
        places.append(("disk of Docker", Path(docker_root), 20))
    for name, path, needed in places:
        free = shutil.disk_usage(path).free / _GIB
        remedy = f"Have at least {needed} GiB free." if free < needed else ""
        findings.append(Finding(name, NOTE if remedy else OK, f"{free:.1f} GiB free in {path}", remedy))
    memory = re.search(r"MemAvailable:\s+(\d+) kB", host.text("proc/meminfo") or "")
    if memory:
        free = int(memory[1]) * 1024 / _GIB
        remedy = "" if free >= 4 else "Building engines wants 4 GiB or more."
        findings.append(Finding("memory", NOTE if remedy else OK, f"{free:.1f} GiB available", remedy))
    return findings


def _first(host: Host, names: Sequence[str]) -> tuple[str, str] | None:
    return next(((name, host.packages[name]) for name in names if name in host.packages), None)


def _run(*command: str) -> str | None:
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _cuda_driver() -> tuple[int, int] | None:
    """CUDA version of the driver, by its own library: no context is made."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
        value = ctypes.c_int(0)
        failed = library.cuDriverGetVersion(ctypes.byref(value))
    except (OSError, AttributeError):
        return None
    return None if failed or not value.value else (value.value // 1000, value.value % 1000 // 10)
