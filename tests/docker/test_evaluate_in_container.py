"""The CPU image built by docker/build.sh and launched by ``tao_deploy``: the same evaluate gives the same results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Caller

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
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_digits(folder, test=40, calibration=10)
    write_scenes(folder, test=8, calibration=1)
    return folder


@pytest.mark.parametrize("network", sorted(SPECS))
def test_evaluate_in_the_container(caller: Caller, cpu_manifest: Path, data: Path, network: str) -> None:
    spec = SPECS[network] + "results_dir: /out/results\nevaluate: {trt_engine: /models/%s.onnx}\n" % network
    (caller.out / "spec.yaml").write_text(spec)
    models = ROOT / "samples" / "models"
    flags = ["--gpus", "none", "--shm_size", "256m", "--run_as_user", "--volume", f"{models}:/models:ro"]
    flags += ["--volume", f"{data}:/data:ro", "--volume", f"{caller.out}:/out"]
    inside = caller.launch(cpu_manifest, flags, [network, "evaluate", "-e", "/out/spec.yaml"])
    assert inside.returncode == 0, inside.stdout + inside.stderr
    assert "under no mount" not in inside.stderr
    written = caller.out / "results" / "results.json"
    assert (written.stat().st_uid, written.stat().st_gid) == (caller.uid, caller.gid)

    outside = caller.out / "outside.yaml"
    here = spec.replace("/data/", f"{data}/").replace("/models/", f"{models}/")
    outside.write_text(here.replace("/out/results", str(caller.out / "outside")))
    program = Path(sys.executable).parent / network
    words = [str(program)] if program.exists() else [sys.executable, "-m", "nvidia_tao_deploy.cli.main", network]
    subprocess.run([*words, "evaluate", "-e", str(outside)], cwd=ROOT, check=True, capture_output=True)
    results = json.loads(written.read_text())
    expected = json.loads((caller.out / "outside" / "results.json").read_text())
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
