"""The CPU image built by docker/build.sh and launched by ``tao_deploy``: the same evaluate gives the same results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Caller
from repository import ROOT

from samples.data import write_digits, write_scenes

SPECS = {
    "classification_pyt": """
model: {head: {topk: [1]}}
dataset:
  root_dir: /data/digits
  test_dataset: {images_dir: /data/digits/test}
  batch_size: 16
""",
    "rtdetr": """
model: {num_select: 100}
dataset:
  test_data_sources:
    image_dir: /data/scenes_coco/images/test
    json_file: /data/scenes_coco/annotations/test.json
  remap_mscoco_category: false
  batch_size: 4
""",
}
METRIC = {"classification_pyt": "top_k_accuracy", "rtdetr": "AP50"}


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """Samples and models where any user can read them (pytest's own folders are closed to others)."""
    folder = Path(tempfile.mkdtemp(prefix="tao_data_"))
    write_digits(folder, test=40, calibration=10)
    write_scenes(folder, test=8, calibration=1)
    shutil.copytree(ROOT / "samples" / "models", folder / "models")
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("network", sorted(SPECS))
def test_evaluate_in_the_container(caller: Caller, cpu_manifest: Path, data: Path, network: str) -> None:
    spec = SPECS[network] + f"results_dir: /out/results\nevaluate: {{trt_engine: /data/models/{network}.onnx}}\n"
    (caller.out / "spec.yaml").write_text(spec)
    flags = [
        "--gpus",
        "none",
        "--shm_size",
        "256m",
        "--run_as_user",
        "--volume",
        f"{data}:/data:ro",
        "--volume",
        f"{caller.out}:/out",
    ]
    inside = caller.launch(cpu_manifest, flags, [network, "evaluate", "-e", "/out/spec.yaml"])
    assert inside.returncode == 0, inside.stdout + inside.stderr
    assert "under no mount" not in inside.stderr
    (written,) = (caller.out / "results").rglob("results.json")
    assert (written.stat().st_uid, written.stat().st_gid) == (caller.uid, caller.gid)

    outside = caller.out / "outside.yaml"
    here = spec.replace("/data/", f"{data}/")
    outside.write_text(here.replace("/out/results", str(caller.out / "outside")))
    program = Path(sys.executable).parent / network
    words = [str(program)] if program.exists() else [sys.executable, "-m", "nvidia_tao_deploy.cli.main", network]
    subprocess.run([*words, "evaluate", "-e", str(outside)], cwd=ROOT, check=True, capture_output=True)
    results = json.loads(written.read_text())
    (expected_file,) = (caller.out / "outside").rglob("results.json")
    expected = json.loads(expected_file.read_text())
    assert results[METRIC[network]] == pytest.approx(expected[METRIC[network]], abs=1e-6)


def test_a_failing_evaluate_fails_outside_and_names_what_is_not_mounted(caller: Caller, cpu_manifest: Path) -> None:
    (caller.out / "spec.yaml").write_text("evaluate: {trt_engine: /nowhere/model.onnx}\nresults_dir: /out/results\n")
    flags = ["--gpus", "none", "--shm_size", "256m", "--volume", f"{caller.out}:/out"]
    result = caller.launch(cpu_manifest, flags, ["classification_pyt", "evaluate", "-e", "/out/spec.yaml"])
    assert result.returncode in (1, 2)
    assert "/nowhere/model.onnx" in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor_is_content_with_the_image(caller: Caller, cpu_manifest: Path) -> None:
    result = caller.launch(cpu_manifest, ["--gpus", "none", "--shm_size", "64m"], ["tao_deploy", "doctor", "--json"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout)["missing"] == 0


def test_image_runs_as_no_root_and_has_a_health_check(caller: Caller, cpu_manifest: Path) -> None:
    manifest = json.loads(cpu_manifest.read_text())
    name = f"{manifest['registry']}/{manifest['repository']}@{next(iter(manifest['digests'].values()))}"
    config = json.loads(caller.daemon.docker("image", "inspect", "--format", "{{json .Config}}", name))
    assert config["User"] == "tao"
    assert config["Healthcheck"]["Test"][1:] == ["tao_deploy", "doctor"]
    assert os.path.basename(config["Cmd"][0]) == "bash"
