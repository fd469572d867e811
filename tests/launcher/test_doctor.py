"""``tao_deploy doctor`` on machines that are not here: a Jetson, a desktop with a GPU, nothing at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nvidia_tao_deploy.launcher.doctor import MISSING, NOTE, OK, Finding, Host, diagnose, main
from nvidia_tao_deploy.launcher.versions import jetpack, tensorrt_facts

SMI = "0, NVIDIA H200, 550.54, 9.0, 143771 MiB\n"


def host(tmp_path: Path, answers: dict[str, str] | None = None, **keys: object) -> Host:
    def run(*command: str) -> str | None:
        line = " ".join(command)
        return next((text for start, text in (answers or {}).items() if line.startswith(start)), None)

    defaults: dict = {"packages": {}, "uname": "Linux pc x86_64", "python": (3, 11)}
    return Host(tmp_path, run, **{**defaults, **keys})


def found(machine: Host) -> dict[str, Finding]:
    return {item.name: item for item in diagnose(machine)}


def test_nothing_installed(tmp_path: Path) -> None:
    report = found(host(tmp_path))
    assert report["Python"].status == OK
    assert report["ONNX Runtime"].status == MISSING
    assert report["Docker"].status == NOTE
    assert "L4T" not in report
    assert all(item.remedy for item in report.values() if item.status != OK)


def test_versions_that_do_not_fit(tmp_path: Path) -> None:
    smi = {"nvidia-smi": SMI}
    report = found(host(tmp_path, smi, packages={"tensorrt-cu13": "10.14.1"}, cuda_driver=(12, 4)))
    assert report["TensorRT"].status == MISSING
    assert "580" in report["TensorRT"].remedy
    assert report["GPU 0"].status == OK
    assert (
        found(host(tmp_path, smi, packages={"tensorrt-cu12": "10.14.1"}, cuda_driver=(12, 4)))["TensorRT"].status == OK
    )
    assert found(host(tmp_path, packages={"tensorrt": "8.6.1"}, python=(3, 12)))["TensorRT"].status == MISSING
    assert (
        found(host(tmp_path, packages={"tensorrt": "10.3.0", "tensorrt-cu12": "10.9.0"}))["TensorRT"].status == MISSING
    )
    old = {"nvidia-smi": "0, Tesla V100, 570.1, 7.0, 16384 MiB\n"}
    assert found(host(tmp_path, old, packages={"tensorrt": "10.5.0"}, cuda_driver=(12, 8)))["GPU 0"].status == MISSING
    both = found(host(tmp_path, packages={"onnxruntime": "1.20", "onnxruntime-gpu": "1.20"}))["ONNX Runtime"]
    assert both.status == MISSING
    assert "uninstall" in both.remedy
    assert found(host(tmp_path, python=(3, 9)))["Python"].status == MISSING


def test_container_engine_and_toolkit(tmp_path: Path) -> None:
    answers = {
        "docker --version": "Docker version 20",
        "docker version": "20.10 API 1.41\n",
        "nvidia-ctk": "NVIDIA Container Toolkit CLI 1.17\n",
    }
    report = found(host(tmp_path, answers))
    assert report["Docker"].found == "server 20.10 API 1.41"
    assert report["NVIDIA Container Toolkit"].status == MISSING
    registered = found(
        host(tmp_path, {**answers, "docker info --format {{json .Runtimes}}": '{"nvidia": {}, "runc": {}}'})
    )
    assert registered["NVIDIA Container Toolkit"].status == OK
    (tmp_path / "etc/cdi").mkdir(parents=True)
    (tmp_path / "etc/cdi/nvidia.yaml").touch()
    assert "CDI" in found(host(tmp_path, answers))["NVIDIA Container Toolkit"].found
    down = found(host(tmp_path, {"docker --version": "Docker version 20"}))["Docker"]
    assert down.status == MISSING


def test_jetson(tmp_path: Path) -> None:
    jetson = host(tmp_path, uname="Linux jetson 5.15.148-tegra aarch64")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n")
    lists = tmp_path / "etc/nvidia-container-runtime/host-files-for-container.d"
    assert found(jetson)["Tegra CSV files"].status == MISSING
    lists.mkdir(parents=True)
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/libcuda.so.1").touch()
    (lists / "drivers.csv").write_text("lib, /usr/lib/libcuda.so.1\ndev, /dev/nvmap\n# comment\n")
    report = found(jetson)
    assert report["L4T"].found == "36.4.3, JetPack 6.2"
    assert report["Tegra CSV files"].status == OK
    assert "2 entries, 1 absent" in report["Tegra CSV files"].found
    (lists / "more.csv").write_text("lib, /usr/lib/a\nlib, /usr/lib/b\n")
    assert found(jetson)["Tegra CSV files"].status == MISSING


@pytest.mark.parametrize(
    ("l4t", "name"),
    [("36.4.3", "6.2"), ("36.4.0", "6.1"), ("36.3.0", "6.0"), ("38.2.0", "7.0"), ("35.4.1", "5"), ("28.1", "unknown")],
)
def test_jetpack(l4t: str, name: str) -> None:
    assert jetpack(l4t) == name


def test_tensorrt_ranges() -> None:
    assert tensorrt_facts("8.5.3.1").python == (3, 10)
    assert tensorrt_facts("10.4.0").compute_capability == (7, 0)
    assert tensorrt_facts("10.16.1").compute_capability == (7, 5)
    assert tensorrt_facts("11.4.0").cuda == 13


def test_json_report_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == (1 if report["missing"] else 0)
    assert {"name", "status", "found", "remedy"} == set(report["findings"][0])
    assert "ONNX Runtime" in {item["name"] for item in report["findings"]}
