"""The shell scripts' flags and the release files: usage errors, versions, the slim wheel's settings."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD, DEPLOY = "docker/build.sh", "release/docker/deploy.sh"


def bash(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, **env}
    return subprocess.run(["bash", *words], cwd=ROOT, env=full, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([BUILD], "usage"),
        ([BUILD, "--push"], "give --build"),
        ([BUILD, "--build", "--nonsense"], "unknown flag --nonsense"),
        ([BUILD, "--build", "--multiplatform"], "--multiplatform needs --push"),
        ([BUILD, "--build", "--write"], "--write needs --push"),
        ([BUILD, "--build", "--platform", "linux/mips"], "linux/mips"),
        ([BUILD, "--build", "--l4t", "--x86"], "linux/arm64 only"),
        ([BUILD, "--build", "--base"], "--base needs a value"),
        ([DEPLOY], "usage"),
        ([DEPLOY, "--wheel"], "give --build or --run"),
        ([DEPLOY, "--run", "--push"], "go with --build"),
        ([DEPLOY, "--build", "-x"], "unknown flag -x"),
        (["scripts/start_test_docker.sh"], "scripts/start_test_docker.sh"),
        (["release/python/build_wheel.sh"], "build_wheel.sh"),
    ],
)
def test_wrong_flags_exit_with_2(words: list[str], message: str) -> None:
    result = bash(*words)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr


@pytest.mark.parametrize("script", [BUILD, DEPLOY])
def test_help(script: str) -> None:
    result = bash(script, "--help")
    assert result.returncode == 0
    assert "--build" in result.stdout


def test_environment_script_must_be_sourced() -> None:
    result = bash("scripts/envsetup.sh")
    assert result.returncode == 1
    assert "source scripts/envsetup.sh" in result.stderr


def test_environment_script_defines_the_command(tmp_path: Path) -> None:
    script = (
        f'set -eu; cd /; source {ROOT}/scripts/envsetup.sh; echo "$NV_TAO_DEPLOY_TOP"; tao_deploy --help | head -n 1'
    )
    result = bash("-c", script, HOME=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [str(ROOT), "usage: tao_deploy [flags] [-- command ...]"]


def test_environment_script_without_python_fails_but_does_not_end_the_shell(tmp_path: Path) -> None:
    for name in ("dirname", "id"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    result = bash("-c", f"PATH={tmp_path}; . {ROOT}/scripts/envsetup.sh; echo status $?; type tao_deploy")
    assert "setup failed" in result.stderr
    assert "status 1" in result.stdout
    assert "function" not in result.stdout


def test_version_takes_its_patch_from_build_info(tmp_path: Path) -> None:
    release_version = runpy.run_path(str(ROOT / "release/python/version.py"))["release_version"]
    plain = release_version(None)
    assert plain == runpy.run_path(str(ROOT / "nvidia_tao_deploy/version.py"))["__version__"]
    (tmp_path / "build.info").write_text(" 77\n")
    assert release_version(tmp_path / "build.info").split(".")[2] == "77"
    (tmp_path / "build.info").write_text("77; rm")
    with pytest.raises(ValueError, match="patch"):
        release_version(tmp_path / "build.info")


def test_slim_wheel_takes_everything_but_dependencies_from_setup() -> None:
    module = runpy.run_path(str(ROOT / "release/setup_l4t.py"))
    settings = module["l4t_settings"](
        {"name": "n", "install_requires": ["x"], "extras_require": {"rtx": ["y"], "mpi": ["z"]}}
    )
    assert settings["name"] == "n"
    assert settings["extras_require"] == {"mpi": ["z"]}
    assert settings["options"] == {"bdist_wheel": {"plat_name": "linux_aarch64"}}
    assert "numpy>=2.0" in settings["install_requires"]
    assert not any("tensorrt" in name or "onnxruntime-gpu" in name for name in settings["install_requires"])


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-l4t.txt"])
def test_image_requirements_follow_setup(name: str) -> None:
    """The lists of the images that replace the wheel's dependencies name all of them."""
    setup = set(
        re.findall(
            r'"([a-z-]+)[>=\d.]*",', (ROOT / "setup.py").read_text().partition("install_requires")[2].partition("]")[0]
        )
    )
    listed = {re.split(r"[>=;]", line)[0] for line in (ROOT / "docker" / name).read_text().splitlines()}
    assert setup <= listed


def test_no_version_is_written_twice() -> None:
    """The release image gets base, version and tag from elsewhere; the recipe's name carries the package's version."""
    version = runpy.run_path(str(ROOT / "release/python/version.py"))["release_version"](None)
    for path in ("release/docker/Dockerfile.release", DEPLOY):
        assert not re.search(r"sha256:|\d+\.\d+\.\d+", (ROOT / path).read_text())
    (recipe,) = (ROOT / "release/yocto").glob("*.bb")
    assert recipe.name == f"python3-nvidia-tao-deploy_{version}.bb"
