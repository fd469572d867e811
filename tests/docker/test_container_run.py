"""``tao_deploy`` against a real Docker daemon: what arrives in the container, what comes back, what is left behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from containers import Caller, Daemon
from repository import ROOT

LAUNCHER = [sys.executable, "-m", "nvidia_tao_deploy.launcher.main", "--shm_size", "64m"]
ECHO = ["python3", "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]
HOSTILE = [
    "a b",
    'quo"te',
    "quo'te",
    "semi;colon",
    "$(touch /tmp/owned)",
    "`id`",
    "new\nline",
    "-v",
    "--privileged",
    "a&&b",
    "",
    "ü,=:",
]


def launch(
    daemon: Daemon, manifest: Path, flags: list[str], command: list[str], cwd: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    words = [*LAUNCHER, "--manifest", str(manifest), *flags, "--", *command]
    full = {**daemon.env, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(
        words, cwd=cwd, env=full, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120
    )


def start(daemon: Daemon, manifest: Path, script: str, cwd: Path) -> subprocess.Popen[str]:
    """The launcher running ``script``, which has printed ``ready``."""
    words = [*LAUNCHER, "--manifest", str(manifest), "--", "bash", "-c", script]
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env={**daemon.env, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def wait_until_gone(daemon: Daemon, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while daemon.containers():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def test_command_words_arrive_literally(daemon: Daemon, manifest: Path, tmp_path: Path) -> None:
    result = launch(daemon, manifest, [], [*ECHO, *HOSTILE], tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == HOSTILE


def test_env_arrives_literally_and_is_not_printed(daemon: Daemon, manifest: Path, tmp_path: Path) -> None:
    values = {f"TAO_TEST_{number}": value for number, value in enumerate([*HOSTILE, "s3cret-value"])}
    flags = [word for name, value in values.items() for word in ("--env", f"{name}={value}")]
    # PATH steers the engine's own client, so it takes another way into the container.
    flags += ["--env", "PATH=/usr/bin:/s3cret-path", "--env", "TAO_TEST_INHERITED", "--env", "TAO_TEST_NOT_SET"]
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    result = launch(
        daemon, manifest, flags, ["/usr/bin/python3", "-c", script], tmp_path, TAO_TEST_INHERITED="s3cret too"
    )
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    assert {name: seen.get(name) for name in values} == values
    assert seen["PATH"] == "/usr/bin:/s3cret-path"
    assert seen["TAO_TEST_INHERITED"] == "s3cret too"
    assert "TAO_TEST_NOT_SET" not in seen
    assert "s3cret" not in result.stderr


def test_mounts_arrive_under_hostile_names(daemon: Daemon, manifest: Path, tmp_path: Path) -> None:
    flags = []
    names = ["a b", "com,ma", 'quo"te', "semi;colon", "$(id)", "-dash", "col:on", "ü"]
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        # Relative on purpose: docker alone would make a named volume of it.
        flags.append(f"--volume={name}:/mnt/{number}:ro")
    result = launch(
        daemon, manifest, flags, ["bash", "-c", "for f in /mnt/*/file; do cat $f; echo; done; touch /mnt/0/x"], tmp_path
    )
    assert result.stdout.splitlines() == names
    assert result.returncode == 1
    assert "Read-only file system" in result.stderr


def test_mounts_file_gives_mounts_envs_and_options(daemon: Daemon, manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "mounts.json"
    options = {"user": "4321:8765", "shm_size": "32m", "ulimits": {"nofile": 777}, "network": "none"}
    mounts = [{"source": str(tmp_path / "data"), "destination": "/data"}]
    file.write_text(
        json.dumps({"Mounts": mounts, "Envs": [{"variable": "FROM_FILE", "value": "x y"}], "DockerOptions": options})
    )
    script = "id -u; id -g; ulimit -n; echo $FROM_FILE; stat -f -c '%b %S' /dev/shm; ls -d /data"
    words = [*LAUNCHER[:3], "--manifest", str(manifest), "--mounts_file", str(file), "--", "bash", "-c", script]
    result = subprocess.run(
        words, cwd=tmp_path, env={**daemon.env, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    uid, gid, limit, value, shm, data = result.stdout.splitlines()
    blocks, size = map(int, shm.split())
    assert (uid, gid, limit, value, data) == ("4321", "8765", "777", "x y", "/data")
    assert blocks * size == 32 << 20


@pytest.mark.parametrize("code", [0, 1, 42, 137])
def test_exit_code_passes_through(daemon: Daemon, manifest: Path, tmp_path: Path, code: int) -> None:
    result = launch(daemon, manifest, [], ["bash", "-c", f"echo out; echo err >&2; exit {code}"], tmp_path)
    assert result.returncode == code
    assert result.stdout == "out\n"
    assert "err\n" in result.stderr


def test_command_that_is_not_there_is_127(daemon: Daemon, manifest: Path, tmp_path: Path) -> None:
    assert launch(daemon, manifest, [], ["no-such-command"], tmp_path).returncode == 127
    assert daemon.containers() == ""


def test_wrong_digest_fails(daemon: Daemon, manifest: Path, tmp_path: Path) -> None:
    data = json.loads(manifest.read_text())
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({**data, "digest": "sha256:" + "0" * 64}))
    result = launch(daemon, wrong, [], ["true"], tmp_path)
    assert result.returncode == 125
    assert "cannot pull" in result.stderr
    assert daemon.containers() == ""


def test_missing_image_is_pulled_by_digest_although_the_tag_is_here(daemon: Daemon, tmp_path: Path) -> None:
    other = tmp_path / "Dockerfile"
    other.write_text(f"FROM {daemon.base}\nCOPY Dockerfile /marker\n")
    daemon.docker("build", "--tag", "other:1", str(tmp_path))
    digest = daemon.push("other:1", "tests/other")
    name = f"{daemon.registry}/tests/other"
    daemon.docker("rmi", f"{name}:test", "other:1", f"{name}@{digest}", check=False)
    daemon.docker("tag", daemon.base, f"{name}:latest")
    path = tmp_path / "manifest.json"
    path.write_text(
        json.dumps(
            {"registry": daemon.registry, "repository": "tests/other", "digests": {"x86": digest, "arm": digest}}
        )
    )
    result = launch(daemon, path, [], ["cat", "/marker"], tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("FROM ")
    assert f"{name}@{digest}" in result.stderr
    # A tag is resolved first: the container still runs by digest.
    assert (
        f"{name}@{digest} cat /marker" in launch(daemon, path, ["--tag", "test"], ["cat", "/marker"], tmp_path).stderr
    )


def test_dry_run_prints_the_vector_and_starts_nothing(daemon: Daemon, manifest: Path, tmp_path: Path) -> None:
    import shlex

    result = launch(daemon, manifest, ["--dry-run", "--env", "KEY=s3cret"], HOSTILE, tmp_path)
    words = shlex.split(result.stdout)
    assert words[1:3] == ["run", "--rm"]
    assert words[-len(HOSTILE) :] == HOSTILE
    assert "s3cret" not in result.stdout + result.stderr


def test_results_belong_to_the_caller(caller: Caller, manifest: Path) -> None:
    """A caller that is not root: its own uid in the container and on the files, a writable HOME."""
    script = "id -u; id -g; touch $HOME/ok && mkdir /out/results && echo 1 > /out/results/r.json"
    flags = ["--run_as_user", "--shm_size", "64m", "--volume", f"{caller.out}:/out"]
    result = caller.launch(manifest, flags, ["bash", "-c", script])
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [str(caller.uid), str(caller.gid)]
    owner = (caller.out / "results" / "r.json").stat()
    assert (owner.st_uid, owner.st_gid) == (caller.uid, caller.gid)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 42), (signal.SIGTERM, 43), (signal.SIGUSR1, 44)])
def test_signals_reach_the_command(
    daemon: Daemon, manifest: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    traps = "trap 'exit 42' INT; trap 'exit 43' TERM; trap 'exit 44' USR1"
    process = start(daemon, manifest, f"{traps}; echo ready; while :; do sleep 0.1; done", tmp_path)
    process.send_signal(number)
    assert process.wait(timeout=30) == code
    assert daemon.containers() == ""


def test_a_signal_ends_a_command_that_handles_none(daemon: Daemon, manifest: Path, tmp_path: Path) -> None:
    """As process 1 of the container ``sleep`` would ignore it."""
    process = start(daemon, manifest, "echo ready; exec sleep 1000", tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=8) == 143
    assert daemon.containers() == ""


def test_a_second_interrupt_removes_a_stubborn_container(daemon: Daemon, manifest: Path, tmp_path: Path) -> None:
    process = start(daemon, manifest, "trap '' INT TERM; echo ready; while :; do sleep 0.1; done", tmp_path)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=8) == 130
    assert daemon.containers() == ""


def test_a_killed_launcher_leaves_no_container(daemon: Daemon, manifest: Path, tmp_path: Path) -> None:
    process = start(daemon, manifest, "echo ready; exec sleep 1000", tmp_path)
    process.kill()
    process.wait()
    assert wait_until_gone(daemon, 30)


def test_interrupt_before_the_container_runs(daemon: Daemon, manifest: Path, tmp_path: Path) -> None:
    words = [*LAUNCHER, "--manifest", str(manifest), "--", "sleep", "1000"]
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        env={**daemon.env, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while " run --rm " not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) in (130, -signal.SIGINT)
    assert wait_until_gone(daemon, 15)


def test_terminal_ctrl_c(daemon: Daemon, manifest: Path, tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        words = [*LAUNCHER, "--manifest", str(manifest), "--", "bash", "-c", "tty; echo ready; exec sleep 1000"]
        os.execve(  # noqa: S606 - the child of a fork
            sys.executable, words, {**daemon.env, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        )
    text = b""
    while b"\nready" not in text:
        text += os.read(terminal, 4096)
    assert b"/dev/pts/" in text
    time.sleep(0.3)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    assert wait_until_gone(daemon, 10)
