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
from collections.abc import Callable, Iterator, Sequence
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
    checks = (_python, _driver, _cuda, _tensorrt, _tensorrt_rtx, _onnx_runtime, _docker, _podman, _toolkit, _jetson)
    return [finding for check in (*checks, _resources) for finding in check(host)]


def _finding(name: str, found: str, remedy: str = "", status: str = MISSING) -> Finding:
    """A line that is ok without a remedy."""
    return Finding(name, status if remedy else OK, found, remedy)


def _python(host: Host) -> Iterator[Finding]:
    found = "{}.{}".format(*host.python)
    if versions.PYTHON[0] <= host.python <= versions.PYTHON[1]:
        yield _finding("Python", f"{found}, nvidia_tao_deploy {__version__}")
    else:
        low, high = ("{}.{}".format(*item) for item in versions.PYTHON)
        yield _finding("Python", found, f"Use Python {low} to {high}.")


def _driver(host: Host) -> Iterator[Finding]:
    name, query = "GPU driver", "--query-gpu=index,name,driver_version,compute_cap,memory.total"
    present = gpus_present(host.root)
    if listing := host.run("nvidia-smi", query, "--format=csv,noheader"):
        for line in listing.strip().splitlines():
            yield _gpu(host, line)
    elif host.tegra:
        remedy = "" if present else "Flash or repair the BSP: no GPU device file."
        yield _finding(name, "Tegra, part of L4T", remedy)
    elif present:
        yield _finding(name, "device files, but nvidia-smi does not answer", "Reboot, or reinstall the driver.")
    else:
        remedy = "Without a GPU, ONNX files run on the CPU; for engines install the NVIDIA driver."
        yield _finding(name, "none", remedy, NOTE)


def _gpu(host: Host, line: str) -> Finding:
    index, name, driver, capability, memory = (*(part.strip() for part in line.split(",")), *[""] * 5)[:5]
    found, remedy = f"{name}, driver {driver}, compute capability {capability}, {memory}", ""
    tensorrt = _first(host, versions.TENSORRT_PACKAGES)
    if tensorrt and re.fullmatch(r"\d+\.\d+", capability):
        minimum = versions.tensorrt_facts(tensorrt[1]).compute_capability
        if versions.number(capability) < minimum:
            need = "{}.{}".format(*minimum)
            remedy = f"TensorRT {tensorrt[1]} needs compute capability {need}: install an older TensorRT."
    return _finding(f"GPU {index}", found, remedy)


def _cuda(host: Host) -> Iterator[Finding]:
    if host.cuda_driver:
        yield _finding("CUDA", "driver supports up to {}.{}".format(*host.cuda_driver))
    else:
        remedy = "Comes with the NVIDIA driver; needed for TensorRT only."
        yield _finding("CUDA", "no driver library (libcuda)", remedy, NOTE)


def _tensorrt(host: Host) -> Iterator[Finding]:
    name, package = "TensorRT", _first(host, versions.TENSORRT_PACKAGES)
    if package is None:
        remedy = "pip install tensorrt-cu13 (or -cu12), or use the container; on Jetson it is part of JetPack."
        yield _finding(name, "not installed", remedy, NOTE)
        return
    facts = versions.tensorrt_facts(package[1])
    several = sorted({host.packages[item] for item in versions.TENSORRT_PACKAGES if item in host.packages})
    if host.python > facts.python:
        remedy = "It has no wheels for this Python: use Python {}.{} or a newer TensorRT.".format(*facts.python)
        yield _finding(name, " ".join(package), remedy)
    elif len(several) > 1:
        remedy = "Uninstall all tensorrt packages, then install one."
        yield _finding(name, f"several: {', '.join(several)}", remedy)
    else:
        yield _against_driver(host, name, package, versions.cuda_of(package[0], facts.cuda))


def _tensorrt_rtx(host: Host) -> Iterator[Finding]:
    name, package = "TensorRT-RTX", _first(host, versions.RTX_PACKAGES)
    if package is not None:
        yield _against_driver(host, name, package, versions.cuda_of(package[0], 13))
    else:
        remedy = "pip install tensorrt-rtx-cu13 to build engines ahead of time, without a GPU."
        yield _finding(name, "not installed", remedy, NOTE)


def _onnx_runtime(host: Host) -> Iterator[Finding]:
    name, tensorrt = "ONNX Runtime", _first(host, versions.TENSORRT_PACKAGES)
    packages = [item for item in versions.ORT_PACKAGES if item in host.packages]
    found, status, remedy = ", ".join(f"{item} {host.packages[item]}" for item in packages), NOTE, ""
    if not packages:
        status = NOTE if tensorrt or _first(host, versions.RTX_PACKAGES) else MISSING
        found, remedy = "not installed", "pip install onnxruntime, or onnxruntime-gpu with a GPU."
    elif len(packages) > 1:
        status = MISSING
        remedy = f"They overwrite each other: pip uninstall {' '.join(packages)}, then install one."
    elif packages == ["onnxruntime"] and host.cuda_driver and not host.tegra:
        remedy = "It runs on the CPU only: install onnxruntime-gpu in its place to use the GPU."
    elif packages == ["onnxruntime-gpu"] and tensorrt and versions.number(tensorrt[1])[0] >= 11:
        remedy = "Its TensorRT provider wants libnvinfer 10 and does not load beside TensorRT 11."
    yield _finding(name, found, remedy, status)


def _against_driver(host: Host, name: str, package: tuple[str, str], cuda: int) -> Finding:
    remedy = ""
    if not host.tegra and host.cuda_driver is not None and host.cuda_driver[0] < cuda:
        branch, have = versions.DRIVER_BRANCH.get(cuda, "newer"), host.cuda_driver[0]
        remedy = f"The driver supports CUDA {have}: install driver {branch} or the -cu{have} package."
    return _finding(name, f"{package[0]} {package[1]}, built for CUDA {cuda}", remedy)


def _docker(host: Host) -> Iterator[Finding]:
    client = host.run("docker", "--version")
    answer = host.run("docker", "version", "--format", "{{.Server.Version}} API {{.Server.APIVersion}}")
    if client is None:
        remedy = "Needed (or podman) for tao_deploy only: see docs.docker.com/engine/install."
        yield _finding("Docker", "not installed", remedy, NOTE)
    elif answer is None:
        found = f"{client.strip()}; the daemon does not answer"
        yield _finding("Docker", found, "Start it, join the group docker, or set DOCKER_HOST.")
    else:
        yield _finding("Docker", f"server {answer.strip()}")


def _podman(host: Host) -> Iterator[Finding]:
    version = host.run("podman", "--version")
    remedy = "" if version else "Needed only where Docker is not."
    yield _finding("podman", (version or "not installed").strip(), remedy, NOTE)


def _toolkit(host: Host) -> Iterator[Finding]:
    folders = (host.root / "etc/cdi", host.root / "var/run/cdi")
    specs = [str(path) for folder in folders for path in sorted(folder.glob("*nvidia*"))]
    runtimes = host.run("docker", "info", "--format", "{{json .Runtimes}}") or ""
    version = host.run("nvidia-ctk", "--version")
    ways = (["runtime nvidia"] if '"nvidia"' in runtimes else []) + ([f"CDI {', '.join(specs)}"] if specs else [])
    name = "NVIDIA Container Toolkit"
    if ways:
        yield _finding(name, "; ".join([*(version or "").strip().splitlines()[:1], *ways]))
    elif version:
        remedy = "sudo nvidia-ctk runtime configure --runtime=docker "
        remedy += "(podman: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml)."
        yield _finding(name, "installed, not registered", remedy)
    else:
        status = MISSING if host.tegra or gpus_present(host.root) else NOTE
        remedy = "Install nvidia-container-toolkit to use GPUs in containers."
        yield _finding(name, "not installed", remedy, status)


def _jetson(host: Host) -> Iterator[Finding]:
    if not host.tegra:
        return
    release = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", host.text("etc/nv_tegra_release") or "")
    found, remedy = "/etc/nv_tegra_release is not readable", "Inside a container, mount it from the host."
    if release:
        l4t = f"{release[1]}.{release[2]}"
        old = int(release[1]) < versions.FIRST_L4T_WITH_PYTHON
        found = f"{l4t}, JetPack {versions.jetpack(l4t)}"
        remedy = "Its own Python is 3.8: use Python 3.10 or newer, or the container." if old else ""
    yield _finding("L4T", found, remedy, NOTE)
    yield _csv_files(host)


def _csv_files(host: Host) -> Finding:
    """The lists from which the container runtime on Tegra mounts driver files, and whether those files exist."""
    name = "Tegra CSV files"
    folder = host.root / "etc/nvidia-container-runtime/host-files-for-container.d"
    lists = sorted(folder.glob("*.csv"))
    if not lists:
        if any((host.root / "etc/cdi").glob("*nvidia*")):
            return _finding(name, "none; a CDI specification is used")
        remedy = "sudo apt install nvidia-l4t-init nvidia-container, or nvidia-ctk cdi generate --mode=csv."
        return _finding(name, "none", remedy)
    kinds = re.compile(r"\s*(?:lib|sym|dev|dir)\s*,\s*/?(\S.*?)\s*$")
    lines = [line for path in lists for line in path.read_text(errors="replace").splitlines()]
    entries = [match[1] for line in lines if (match := kinds.match(line))]
    absent = [entry for entry in entries if not os.path.lexists(host.root / entry)]
    found, remedy = f"{len(lists)} lists, {len(entries)} entries, {len(absent)} absent on this host", ""
    if len(absent) * 2 > len(entries):
        remedy = f"They do not belong to this L4T (first absent: /{absent[0]}): reinstall nvidia-l4t-init."
    return _finding(name, found, remedy)


def _resources(host: Host) -> Iterator[Finding]:
    docker_root = (host.run("docker", "info", "--format", "{{.DockerRootDir}}") or "").strip()
    places = [("disk here", Path.cwd(), 2)]
    if docker_root and Path(docker_root).exists():
        places.append(("disk of Docker", Path(docker_root), 20))
    for name, path, needed in places:
        free = shutil.disk_usage(path).free / _GIB
        remedy = f"Have at least {needed} GiB free." if free < needed else ""
        yield _finding(name, f"{free:.1f} GiB free in {path}", remedy, NOTE)
    if memory := re.search(r"MemAvailable:\s+(\d+) kB", host.text("proc/meminfo") or ""):
        free = int(memory[1]) * 1024 / _GIB
        remedy = "" if free >= 4 else "Building engines wants 4 GiB or more."
        yield _finding("memory", f"{free:.1f} GiB available", remedy, NOTE)


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
