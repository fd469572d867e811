"""Manifests, digests, paths that no mount covers, exit codes, start-up time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nvidia_tao_deploy.errors import UsageError
from nvidia_tao_deploy.launcher.engine import ContainerError
from nvidia_tao_deploy.launcher.image import digest_reference, wanted_reference
from nvidia_tao_deploy.launcher.main import main
from nvidia_tao_deploy.launcher.manifest import main as write_manifest
from nvidia_tao_deploy.launcher.manifest import read_manifest
from nvidia_tao_deploy.launcher.mounts import Mount
from nvidia_tao_deploy.launcher.spec_paths import host_path, uncovered_paths, warning
from nvidia_tao_deploy.networks import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NAME = {"registry": "nvcr.io", "repository": "nvstaging/tao/deploy"}


def manifest(tmp_path: Path, **keys: object) -> Path:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**NAME, **keys}))
    return path


def test_digests_by_architecture(tmp_path: Path) -> None:
    both = read_manifest(manifest(tmp_path, digests={"x86": A, "arm": B}))
    assert [both.digest(name) for name in ("x86_64", "amd64", "aarch64", "arm64", "riscv64")] == [A, A, B, B, A]
    assert read_manifest(manifest(tmp_path, digest=A, digests={"arm": B})).digest("arm64") == A
    assert wanted_reference(both, None, "arm64") == f"nvcr.io/nvstaging/tao/deploy@{B}"
    assert wanted_reference(both, "t", "arm64") == "nvcr.io/nvstaging/tao/deploy:t"
    assert wanted_reference(read_manifest(manifest(tmp_path, tag="v1")), None, "amd64").endswith("deploy:v1")
    with pytest.raises(ContainerError, match="no digest for arm"):
        read_manifest(manifest(tmp_path, digests={"x86": A})).digest("arm64")
    with pytest.raises(ContainerError, match="no image yet"):
        read_manifest(manifest(tmp_path)).digest("amd64")
    with pytest.raises(UsageError):
        wanted_reference(both, "-t --privileged", "amd64")


@pytest.mark.parametrize(
    "keys",
    [
        {"digest": "sha256:12"},
        {"digest": A.upper()},
        {"digests": {"mips": A}},
        {"registry": "--x"},
        {"repository": "a b"},
        {"repository": "A"},
        {"x": 1},
    ],
)
def test_wrong_manifests(tmp_path: Path, keys: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        read_manifest(manifest(tmp_path, **keys))


def test_an_image_with_another_digest_is_an_error() -> None:
    assert digest_reference(f"r/n@{A}", {"RepoDigests": [f"r/n@{A}"]}) == f"r/n@{A}"
    with pytest.raises(ContainerError, match="another digest"):
        digest_reference(f"r/n@{A}", {"RepoDigests": [f"r/n@{B}"]})
    assert digest_reference("r:5000/n:tag", {"RepoDigests": [f"other@{A}", f"r:5000/n@{B}"]}) == f"r:5000/n@{B}"
    assert digest_reference("r/n:local", {"RepoDigests": [], "Id": A}) == A


def test_build_script_writes_digests(tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    assert write_manifest([str(path), "x86", A, "localhost:5000/a/b"]) == 0
    assert write_manifest([str(path), "arm", B]) == 0
    assert json.loads(path.read_text()) == {
        "registry": "localhost:5000",
        "repository": "a/b",
        "digests": {"x86": A, "arm": B},
    }
    assert write_manifest([str(path), "x86", B, "localhost:5000/other"]) == 0
    assert json.loads(path.read_text())["digests"] == {"x86": B}
    assert write_manifest([str(path), "x86", "latest"]) == 2
    assert json.loads(path.read_text())["digests"] == {"x86": B}


def test_the_repositorys_own_manifest_is_valid() -> None:
    read_manifest(ROOT / "docker" / "manifest.json")


def test_paths_that_no_mount_covers(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        "model: &m {path: /data/a.onnx, other: '???', self: *m}\n"
        "list: [/hidden/x, relative/y, '${results_dir}/z', /data/../etc/b]\n"
        "results_dir: /results\ndevice: /dev/video0\n"
    )
    mounts = [Mount(str(tmp_path), "/data")]
    command = [
        "rtdetr",
        "evaluate",
        "-e",
        "/data/spec.yaml",
        "evaluate.trt_engine=/models/m.onnx",
        "-r",
        "/data/out",
        "x=/results",
    ]
    assert uncovered_paths(command, mounts, "/workspace/tao-deploy") == {
        "/models/m.onnx": "in the command",
        "/results": "in the command",
        "/hidden/x": "/data/spec.yaml: list[0]",
        "/etc/b": "/data/spec.yaml: list[3]",
    }
    (tmp_path / "spec.txt").write_text('a { path: "/data/ok" b: "/else/where" }\n  # c: "/comment"\n')
    assert list(uncovered_paths(["ssd", "evaluate", "--experiment_spec=/data/spec.txt"], mounts, "/w")) == [
        "/else/where"
    ]
    assert list(uncovered_paths(["x", "-e", "spec.yaml"], mounts, "/w")) == ["/w/spec.yaml"]
    assert uncovered_paths(["bash", "-c", "ls /etc", "/etc"], mounts, "/w") == {}


def test_a_path_that_exists_here_comes_with_the_flag_to_mount_it(tmp_path: Path) -> None:
    ((path, where),) = uncovered_paths(["x", "-e", str(tmp_path / "s.yaml")], [], "/w").items()
    assert warning(path, where).endswith(f"--volume HOST_FOLDER:{tmp_path}")  # the file's folder
    (tmp_path / "s.yaml").touch()
    assert f"--volume {tmp_path}:{tmp_path}" in warning(path, where)


def test_the_longest_mount_wins() -> None:
    mounts = [Mount("/a", "/data"), Mount("/b", "/data/in")]
    assert host_path("/data/in/x", mounts) == "/b/x"
    assert host_path("/data/inner", mounts) == "/a/inner"
    assert host_path("/database", mounts) is None


def fake_docker(folder: Path, script: str) -> None:
    path = folder / "docker"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("NV_TAO_DEPLOY_TOP", "LAUNCHER_MOUNTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with open(os.devnull) as null:
        monkeypatch.setattr(sys, "stdin", null)
        yield tmp_path


def test_exit_codes_before_any_container(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(manifest(alone, digest=A))
    assert main(["rtdetr"]) == 2
    assert main(["--manifest", path, "--", "x"]) == 127
    assert "command not found" in capsys.readouterr().err
    fake_docker(alone, "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    assert main(["--manifest", path, "--", "x"]) == 127
    assert "Cannot connect" in capsys.readouterr().err
    assert main(["--manifest", path, "--dry-run", "--env", "A=s3cret", "--", "x y"]) == 0
    output = capsys.readouterr()
    assert output.out.endswith(f"@{A} 'x y'\n")
    assert "s3cret" not in output.out + output.err
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert {*COMMANDS} <= {*capsys.readouterr().out.split()}  # what the container can run is listed


def test_an_engine_that_answers_nonsense(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(manifest(alone, digest=A))
    fake_docker(
        alone,
        'case "$1" in version) echo \'{"Server": {"ApiVersion": "1.44", "Arch": "amd64"}}\';; image) echo "["; esac',
    )
    assert main(["--manifest", path, "--", "x"]) == 125
    assert "gave no JSON" in capsys.readouterr().err


def test_start_up_is_fast_and_imports_no_other_room() -> None:
    code = (
        "import sys\nfrom nvidia_tao_deploy.launcher.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('nvidia_tao_deploy.')}\n"
        "assert rooms <= {'version', 'launcher', 'errors', 'files', 'networks'}, rooms\n"
        "assert not {'numpy', 'yaml', 'onnx', 'pydantic'} & set(sys.modules)\n"
    )
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert time.perf_counter() - began < 2  # 0.1 s on an idle machine
