"""A Docker daemon and registry for the tests of this folder, and the images they run.

The daemon is the one of TAO_DEPLOY_TEST_DOCKER (a folder written by scripts/start_test_docker.sh) or one started here;
where neither is possible the tests are skipped with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from base_image import write_base
from containers import Caller, Daemon
from repository import ROOT

START = ROOT / "scripts" / "start_test_docker.sh"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nvidia_tao_deploy"


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    given = os.environ.get("TAO_DEPLOY_TEST_DOCKER")
    folder = Path(given) if given else Path(tempfile.mkdtemp(prefix="tao_docker_"))
    try:
        if not given:
            started = subprocess.run([str(START), str(folder)], capture_output=True, text=True, check=False)
            if started.returncode:
                pytest.skip(started.stderr.strip() or "dockerd cannot start here")
        words = (folder / "env").read_text().split()[1:]
        values = dict(word.split("=", 1) for word in words)
        env = {**os.environ, "DOCKER_HOST": values["DOCKER_HOST"], "DOCKER_BUILDKIT": "0"}
        env.pop("NV_TAO_DEPLOY_TOP", None)
        env["LAUNCHER_MOUNTS"] = ""
        base = "tao-deploy-test-base:1"
        found = Daemon(env, values["TAO_DEPLOY_TEST_REGISTRY"], base)
        tar = folder / "base.tar"
        try:
            write_base(tar)
        except (OSError, LookupError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no base image can be made here: {error}")
        found.docker("import", str(tar), base)
        tar.unlink()
        yield found
    finally:
        if not given:
            subprocess.run([str(START), "--stop", str(folder)], check=False)


@pytest.fixture(scope="session")
def manifest(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest that names the base image by the digest its push gave."""
    path = tmp_path_factory.mktemp("manifest") / "manifest.json"
    digest = daemon.push(daemon.base, "tests/tiny")
    path.write_text(json.dumps({"registry": daemon.registry, "repository": "tests/tiny", "digest": digest}))
    return path


@pytest.fixture(scope="session")
def cpu_manifest(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """docker/build.sh --cpu on the base image, pushed; the manifest it wrote."""
    path = tmp_path_factory.mktemp("cpu") / "manifest.json"
    python = Path("/usr/bin/python3")
    command = [str(ROOT / "docker" / "build.sh"), "--cpu", "--build", "--push", "--write", "--base", daemon.base]
    command += ["--wheelhouse", str(wheelhouse(python)), "--registry", daemon.registry, "--manifest", str(path)]
    # build.sh calls python3 to make the wheel: the one these tests run with.
    env = {**daemon.env, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{daemon.env['PATH']}"}
    built = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return path


@pytest.fixture
def caller(daemon: Daemon) -> Iterator[Caller]:
    found = Caller(daemon, Path(tempfile.mkdtemp(prefix="tao_caller_")))
    try:
        package = found.folder / "nvidia_tao_deploy"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "nvidia_tao_deploy" / "launcher", package / "launcher", ignore=ignored)
        for name in ("__init__.py", "version.py", "errors.py", "files.py", "networks.py"):
            shutil.copy(ROOT / "nvidia_tao_deploy" / name, package)
        found.out.mkdir()
        subprocess.run(["chmod", "-R", "a+rX", str(found.folder)], check=True)
        os.chown(found.out, found.uid, found.gid)
        os.chown(daemon.env["DOCKER_HOST"].removeprefix("unix://"), found.uid, found.gid)
        yield found
    finally:
        shutil.rmtree(found.folder)


def wheelhouse(python: Path) -> Path:
    """The wheels the package needs, for the base image's Python (this machine's own); kept between runs."""
    wanted = (ROOT / "setup.py").read_bytes() + (ROOT / "requirements" / "pinned.txt").read_bytes()
    folder = CACHE / f"wheelhouse-{hashlib.sha256(wanted).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        subprocess.run([str(python), "-m", "venv", str(work / "venv")], check=True)
        pip = [str(work / "venv" / "bin" / "python"), "-m", "pip"]
        # The package's own wheel, only for its list of dependencies.
        subprocess.run([str(ROOT / "release/python/build_wheel.sh"), str(work / "own")], check=True)
        own = next((work / "own").glob("*.whl"))
        download = [
            "download",
            "--quiet",
            "--dest",
            str(work / "wheels"),
            "-c",
            str(ROOT / "requirements/pinned.txt"),
            str(own),
        ]
        done = subprocess.run([*pip, *download], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no package index for the image's wheels: {done.stderr.strip().splitlines()[-1]}")
        (work / "wheels" / own.name).unlink()
        (work / "wheels").rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder
