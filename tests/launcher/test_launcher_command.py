"""The argument vector that ``tao_deploy`` gives to the engine, without any engine."""

from __future__ import annotations

import csv
import itertools
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvidia_tao_deploy.errors import UsageError
from nvidia_tao_deploy.launcher.arguments import parse
from nvidia_tao_deploy.launcher.engine import Engine, docker_is_local
from nvidia_tao_deploy.launcher.environment import env_arguments, hide_values, parse_env
from nvidia_tao_deploy.launcher.gpus import check_gpus, gpu_arguments, is_tegra
from nvidia_tao_deploy.launcher.mounts import Mount, mount_arguments, parse_volume
from nvidia_tao_deploy.launcher.request import container_arguments, make_request

DOCKER = Engine("docker", "/usr/bin/docker", (1, 41), "amd64")
PODMAN = Engine("podman", "/usr/bin/podman", (0,), "amd64", rootless=True)
DESKTOP, JETSON = "Linux pc 6.1.0 x86_64", "Linux jetson 5.15.148-tegra aarch64"


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NV_TAO_DEPLOY_TOP", raising=False)
    monkeypatch.delenv("LAUNCHER_MOUNTS", raising=False)
    monkeypatch.chdir(tmp_path)


def vector(words: list[str], engine: Engine = DOCKER, uname: str = DESKTOP, root: Path = Path("/nowhere")) -> list[str]:
    arguments, _ = container_arguments(
        make_request(parse(words)), engine, "image@sha256:0", "name", uname=uname, root=root
    )
    return arguments


def after(arguments: list[str], flag: str) -> list[str]:
    """Values of a repeatable flag, up to the image."""
    words = arguments[: arguments.index("image@sha256:0")]
    return [value for name, value in itertools.pairwise(words) if name == flag]


def test_a_whole_command(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    flags = ["--gpus", "0,1", "--volume", "d:/data:ro", "--env", "A=1", "--ulimit", "memlock=-1", "--port", "8888:8888"]
    assert vector([*flags, "--shm_size", "2G", "--no-tty", "--", "rtdetr", "evaluate", "--", "-e", "x"])[:6] == [
        "/usr/bin/docker",
        "run",
        "--rm",
        "--name",
        "name",
        "--init",
    ]
    arguments = vector([*flags, "--shm_size", "2G", "--no-tty", "--", "rtdetr", "evaluate", "--", "-e", "x"])
    assert arguments[arguments.index("image@sha256:0") + 1 :] == ["rtdetr", "evaluate", "--", "-e", "x"]
    assert after(arguments, "--gpus") == ['"device=0,1"']
    assert after(arguments, "--mount") == [
        f"type=bind,source={tmp_path},target=/workspace/tao-deploy",
        f"type=bind,source={tmp_path}/d,target=/data,readonly",
    ]
    assert after(arguments, "--env")[-1] == "A"
    assert after(arguments, "--shm-size") == ["2G"]
    assert after(arguments, "--ulimit") == ["memlock=-1"]
    assert after(arguments, "--publish") == ["8888:8888"]
    assert after(arguments, "--user") == [f"{os.getuid()}:{os.getgid()}"]
    assert "HOME=/tmp" in after(arguments, "--env")
    assert "--tty" not in arguments


def test_no_command_is_a_shell() -> None:
    assert vector([])[-1] == "/bin/bash"
    assert after(vector([]), "--shm-size") == ["16G"]


def test_podman_keeps_the_callers_id_and_takes_cdi_devices() -> None:
    arguments = vector(["--gpus", "0,GPU-6fa4b3f2-aaaa"], PODMAN)
    assert after(arguments, "--device") == ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-6fa4b3f2-aaaa"]
    assert after(arguments, "--userns") == ["keep-id"]


@pytest.mark.parametrize(
    ("gpus", "api", "tegra", "runtime", "words", "visible"),
    [
        ("all", (1, 41), False, None, ["--gpus", "all"], None),
        ("all", (1, 40), False, None, ["--gpus", "all"], None),
        ("1,GPU-a", (1, 41), False, None, ["--gpus", '"device=1,GPU-a"'], None),
        ("all", (1, 39), False, None, ["--runtime", "nvidia"], "all"),
        ("0", (1, 41), True, None, ["--runtime", "nvidia"], "0"),
        ("0", (1, 41), False, "nvidia", ["--runtime", "nvidia"], "0"),
        ("0", (1, 41), True, "crun", ["--runtime", "crun", "--gpus", '"device=0"'], None),
        ("none", (1, 41), True, None, [], "void"),
        ("none", (1, 39), False, None, [], "void"),
    ],
)
def test_gpu_words(gpus: str, api: tuple, tegra: bool, runtime: str, words: list[str], visible: str) -> None:
    found, env = gpu_arguments(gpus, engine="docker", api_version=api, tegra=tegra, runtime=runtime)
    assert found == words
    assert env.get("NVIDIA_VISIBLE_DEVICES") == visible


def test_default_gpus_follow_the_host(tmp_path: Path) -> None:
    assert after(vector([], root=tmp_path), "--gpus") == []
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    assert after(vector([], root=tmp_path), "--gpus") == ["all"]
    assert after(vector([], uname=JETSON, root=tmp_path), "--runtime") == ["nvidia"]
    assert is_tegra(JETSON, tmp_path)
    assert not is_tegra(DESKTOP, tmp_path)


@pytest.mark.parametrize("bad", ["", "0,,1", "-1", "all,0", "0;rm", 'a"b', "0 1", "GPU-", "GPU-$(id)"])
def test_wrong_gpus(bad: str) -> None:
    with pytest.raises(UsageError):
        check_gpus(bad)


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1))
def test_any_path_survives_the_mount_syntax(name: str) -> None:
    mount = Mount(f"/host/{name}", f"/inside/{name}", readonly=True)
    flag, value = mount_arguments(mount, "docker")
    assert flag == "--mount"
    assert next(csv.reader([value])) == ["type=bind", f"source={mount.source}", f"target={mount.target}", "readonly"]


def test_mount_sources_may_hold_colons_and_tildes(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert parse_volume(f"{tmp_path}/a:b:/x/") == Mount(f"{tmp_path}/a:b", "/x")
    assert parse_volume("~:/home/x:rw").source == str(tmp_path)
    assert mount_arguments(parse_volume(f"{tmp_path}:/x:ro,z"), "docker") == ["--volume", f"{tmp_path}:/x:ro,z"]


@pytest.mark.parametrize(
    "bad",
    [
        "/",
        "/:",
        "/:relative",
        ":/x",
        "/:/",
        "/:/a/../b",
        "/no/such/folder:/x",
        "/:/x:rw,ro",
        "/:/x:exec",
        "/:/x\n",
        "/:/x:",
    ],
)
def test_wrong_volumes(bad: str) -> None:
    with pytest.raises(UsageError):
        parse_volume(bad)


def test_one_destination_twice_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="mounted twice"):
        vector(["--volume", "a:/x", "--volume", "b:/x"])
    assert len(after(vector(["--volume", "a:/x", "--volume", "a:/x/"]), "--mount")) == 2


def test_podman_is_not_given_what_it_would_split() -> None:
    with pytest.raises(UsageError, match="podman"):
        mount_arguments(Mount("/a,b", "/x"), "podman")


@pytest.mark.parametrize(
    "entry", ["s3cret value", "=s3cret", "A B=s3cret", "-x=s3cret", "A\n=s3cret", "9=s3cret", "é=s3cret"]
)
def test_wrong_env_is_refused_and_not_quoted(entry: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_env((entry,))
    assert "s3cret" not in str(caught.value)


def test_env_values_stay_out_of_the_vector() -> None:
    env = parse_env(("TOKEN=s3cret", "DOCKER_HOST=tcp://s3cret", "LD_PRELOAD=/s3cret", "INHERITED"))
    arguments, child = env_arguments(env)
    assert child == {"TOKEN": "s3cret"}
    assert arguments[:2] == ["--env", "TOKEN"]
    assert arguments[-1] == "INHERITED"
    assert "s3cret" not in " ".join(hide_values(arguments, env))


@pytest.mark.parametrize(
    "words",
    [
        ["rtdetr", "evaluate"],
        ["--evn", "A=s3cret"],
        ["--env"],
        ["--gpu", "0"],
        ["--shm_size", "-1", "--", "x"],
        ["KEY=s3cret"],
    ],
)
def test_usage_errors_say_nothing_secret(words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        make_request(parse(words))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "bad"),
    [
        ("--port", "8888"),
        ("--port", "-v:1"),
        ("--port", "65536:1"),
        ("--port", "8888:0"),
        ("--port", "1:2 --privileged"),
        ("--ulimit", "nofile"),
        ("--ulimit", "--x=1"),
        ("--shm_size", "16 G"),
        ("--runtime", "--privileged"),
    ],
)
def test_wrong_values(flag: str, bad: str) -> None:
    with pytest.raises(UsageError):
        make_request(parse([f"{flag}={bad}"]))


def test_mounts_files_merge_from_weak_to_strong(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    mount = {"source": "~/d", "destination": "/d"}
    options = {
        "user": "1:2",
        "ports": {"80": 8080},
        "shm_size": "1G",
        "ulimits": {"stack": 67108864},
        "network": "host",
    }
    weak = {
        "Mounts": [mount],
        "Envs": [{"variable": "A", "value": "1"}, {"variable": "B", "value": "2"}],
        "DockerOptions": options,
    }
    (tmp_path / ".tao_mounts.json").write_text(json.dumps(weak))
    strong = {
        "Mounts": [],
        "Envs": [{"variable": "B", "value": "3"}],
        "DockerOptions": {"shm_size": "2G", "privileged": True},
    }
    (tmp_path / "more.json").write_text(json.dumps(strong))
    words = ["--mounts_file", "more.json", "--env", "A=9"]
    request = make_request(parse(words))
    assert request.env == {"A": "9", "B": "3"}
    arguments = vector(words)
    assert after(arguments, "--mount")[1] == f"type=bind,source={tmp_path}/d,target=/d"
    assert after(arguments, "--user") == ["1:2"]
    assert after(arguments, "--publish") == ["8080:80"]
    assert after(arguments, "--shm-size") == ["2G"]
    assert after(arguments, "--ulimit") == ["stack=67108864"]
    assert after(arguments, "--network") == ["host"]
    assert "--privileged" in arguments
    assert after(vector([*words, "--run_as_user"]), "--user") == [f"{os.getuid()}:{os.getgid()}"]


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"mounts": []}',
        '{"Mounts": {}}',
        '{"Mounts": [{"source": "/"}]}',
        '{"Mounts": [{"source": "/", "destination": "x"}]}',
        '{"Mounts": [{"source": "/", "destination": "/x\\n/y"}]}',
        '{"Envs": [{"variable": "A=B", "value": "s3cret"}]}',
        '{"Envs": [{"variable": "A", "value": "s3cret\\u0000"}]}',
        '{"DockerOptions": {"network": "--privileged"}}',
        '{"DockerOptions": {"user": "root;id"}}',
        '{"DockerOptions": {"ulimits": {"--x": 1}}}',
        '{"DockerOptions": {"ports": {"80": "80 -v /:/x"}}}',
        '{"DockerOptions": {"privileged": "yes"}}',
        '{"DockerOptions": {"entrypoint": "x"}}',
    ],
)
def test_hostile_mounts_files(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(UsageError) as caught:
        make_request(parse(["--mounts_file", "m.json"]))
    assert "m.json" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_named_mounts_file_must_exist() -> None:
    with pytest.raises(UsageError, match="cannot read"):
        make_request(parse(["--mounts_file", "none.json"]))


def test_the_checkout_goes_before_the_images_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "PYTHONPATH=/workspace/tao-deploy" not in vector([])
    (tmp_path / "top" / "nvidia_tao_deploy").mkdir(parents=True)
    (tmp_path / "top" / "nvidia_tao_deploy" / "version.py").touch()
    monkeypatch.setenv("NV_TAO_DEPLOY_TOP", str(tmp_path / "top"))
    assert "PYTHONPATH=/workspace/tao-deploy" in vector([])
    assert after(vector([]), "--mount")[0] == f"type=bind,source={tmp_path}/top,target=/workspace/tao-deploy"


def test_remote_daemons_are_known() -> None:
    assert docker_is_local({})
    assert docker_is_local({"DOCKER_HOST": "unix:///x"})
    assert not docker_is_local({"DOCKER_HOST": "ssh://host"})
