"""The package builds as a wheel, and the wheel works away from the source tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from repository import MODELS, ROOT

from nvidia_tao_deploy.networks import COMMANDS


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources and unpacked by pip; nothing is fetched."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    source.mkdir()
    listed = subprocess.run(["git", "ls-files", "-z", "nvidia_tao_deploy"], cwd=ROOT, capture_output=True, check=True)
    files = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    for name in (*files, "setup.py", "pyproject.toml", "README.md", "LICENSE", "docker/manifest.json"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "-q", "-w", str(work), str(source)]
    subprocess.run(build, check=True)
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert any(name.endswith("LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "samples", "benchmarks"))]
    subprocess.run([*pip, "install", *offline, "-q", "--target", str(work / "site"), str(wheel)], check=True)
    return work / "site"


def test_every_command_is_installed(installed: Path) -> None:
    scripts = {path.name for path in (installed / "bin").iterdir()}
    assert {*COMMANDS, "model_agnostic", "tao_deploy"} <= scripts


def test_the_installed_package_evaluates_a_model(installed: Path, digits: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"results_dir: {tmp_path / 'results'}\n"
        f"dataset:\n  root_dir: {digits}\n  test_dataset:\n    images_dir: {digits / 'test'}\n"
        f"evaluate:\n  trt_engine: {MODELS / 'classification_pyt.onnx'}\n"
    )
    command = [sys.executable, str(installed / "bin" / "classification_pyt"), "evaluate", "-e", str(spec), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top_k_accuracy"] > 0.9
    where = "import nvidia_tao_deploy; print(nvidia_tao_deploy.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.stdout.startswith(str(installed))
