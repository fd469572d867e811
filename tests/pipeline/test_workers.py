"""Worker processes give what threads give; failures and interrupts end everything soon; memory does not grow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, ModelError, RuntimeUnavailableError
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.pipeline.stream import Tally, ring_depth, run_stream
from nvidia_tao_deploy.pipeline.workers import Workers
from nvidia_tao_deploy.runtime.session import BatchLimits, TensorInfo
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry

ROOT = Path(__file__).resolve().parents[2]
IN = TensorInfo("input", (None, 3, 32, 24), np.dtype(np.float32))
OUT = TensorInfo("sums", (None, 3), np.dtype(np.float32))
PORTS = Ports({"input": IN}, {"sums": OUT})


class Files:
    root = None

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        return Sample(index, (self.paths[index],))


class Sums:
    inputs, outputs, device, batch = (IN,), (OUT,), "test", BatchLimits()

    def __init__(self, slots: int = 1) -> None:
        self.slots = slots

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        time.sleep(0.001)
        return {"sums": feeds["input"].sum(axis=(2, 3))}

    def close(self) -> None: ...


def rows(outputs: Mapping[str, Any], geometries: Any) -> list[tuple[float, ...]]:
    return [(*row, *g.source_size) for row, g in zip(outputs["sums"].tolist(), geometries, strict=True)]


def stream(dataset: Any, transform: Any, kind: Any, **more: Any) -> Any:
    session = more.pop("session", None) or Sums(more.pop("slots", 1))
    decode = more.pop("decode", rows)
    arguments: dict[str, Any] = {"batch_size": 4, "workers": 3, "worker_kind": kind, **more}
    return run_stream(dataset, transform, session, PORTS, decode, **arguments)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = []
    for i in range(23):
        path = folder / f"{i:02d}{'.jpg' if i % 2 else '.png'}"
        Image.fromarray(rng.integers(0, 256, (20 + i, 40, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    paths[5].write_bytes(b"broken")
    return Files(paths)


@pytest.mark.parametrize("resize", ["stretch", "stretch_bilinear", "letterbox"])
@pytest.mark.parametrize("slots", [1, 2])
def test_processes_and_threads_give_the_same(files: Files, resize: str, slots: int) -> None:
    transform, found, tallies = ImageTransform(resize=resize), {}, {}
    for kind in ("threads", "processes"):
        tallies[kind] = Tally()
        pairs = stream(files, transform, kind, slots=slots, tally=tallies[kind])
        found[kind] = [(sample.id, row) for sample, row in pairs]
    assert found["threads"] == found["processes"]
    assert [number for number, _ in found["threads"]] == [i for i in range(23) if i != 5]
    assert tallies["processes"].skipped == tallies["threads"].skipped
    assert "05.jpg" in tallies["processes"].skipped[0][0]
    assert 0.99 < sum(tallies["threads"].shares().values()) < 1.01


class Misbehaves(ImageTransform):
    """Does ``what`` at image 9."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def __call__(self, sample: Sample, out: Mapping[str, Any]) -> Geometry:
        if sample.id == 9:
            if self.what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "defect":
                raise KeyError("lost")
            if self.what == "model":
                raise ModelError("no such input", where="here")
            raise DataError("truncated", where=str(sample.path))
        return super().__call__(sample, out)


CASES = [
    ("defect", RuntimeError, r"09\.jpg: KeyError: 'lost'"),
    ("model", ModelError, "here: no such input"),
    ("data", DataError, r"09\.jpg: truncated"),
]


@pytest.mark.parametrize("kind", ["threads", "processes"])
@pytest.mark.parametrize(("what", "error", "message"), CASES)
def test_an_error_in_a_worker_ends_the_run(files: Files, kind: str, what: str, error: Any, message: str) -> None:
    good = Files([path for i, path in enumerate(files.paths) if i != 5] * 3)
    good.paths.insert(5, good.paths[0])
    with pytest.raises(error, match=message):
        list(stream(good, Misbehaves(what), kind, strict=True))
    ended(good)


def test_a_worker_process_that_is_killed_ends_the_run_and_is_named(files: Files) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"exit code -9.*0[89]\.(jpg|png)"):
        list(stream(files, Misbehaves("die"), "processes"))
    ended(files)


@pytest.mark.parametrize("started", [0, 2])
def test_a_worker_process_that_cannot_be_started_ends_the_run(
    files: Files, monkeypatch: pytest.MonkeyPatch, started: int
) -> None:
    from multiprocessing.context import ForkProcess

    plain, left = ForkProcess.start, [started]

    def start(process: ForkProcess) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        plain(process)

    monkeypatch.setattr(ForkProcess, "start", start)
    with pytest.raises(RuntimeUnavailableError, match=r"no more worker processes.*temporarily unavailable"):
        list(stream(files, ImageTransform(), "processes"))


def test_an_error_in_decoding_names_the_batch(files: Files) -> None:
    def fails(outputs: Any, geometries: Any) -> Any:
        raise ZeroDivisionError("no boxes")

    with pytest.raises(RuntimeError, match=r"00\.png to .*03\.jpg: ZeroDivisionError: no boxes"):
        list(stream(files, ImageTransform(), "threads", decode=fails))


def ended(_: Any) -> None:
    """No thread or process of the run is left."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        left = [t for t in threading.enumerate() if t.name.startswith(("transform", "model"))]
        if not left and not multiprocessing_children():
            return
        time.sleep(0.01)
    raise AssertionError(f"left: {left} {multiprocessing_children()}")


def multiprocessing_children() -> list[Any]:
    import multiprocessing

    return multiprocessing.active_children()


def test_the_ring_is_bounded() -> None:
    small = [TensorInfo("x", (None, 3, 8, 8), np.dtype(np.float32))]
    huge = [TensorInfo("x", (None, 3, 4096, 4096), np.dtype(np.float32))]
    assert ring_depth(small, 1, 16, 1, 10_000) == 34  # two images ahead for every worker
    assert ring_depth(small, 64, 16, 2, 10_000) == 5  # two chunks of 4
    assert ring_depth(small, 64, 16, 2, 3) == 3
    assert ring_depth(huge, 16, 64, 1, 10_000) == 3
    assert ring_depth(huge, 1, 64, 1, 10_000) == 21


INTERRUPTED = """
import sys, time, os
sys.path.insert(0, {root!r}); sys.path.insert(0, {here!r})
import test_workers as t
from concurrent.futures import CancelledError
from pathlib import Path
files = t.Files([Path({image!r})] * 100000)
began = False
try:
    for n, pair in enumerate(t.stream(files, t.ImageTransform(), {kind!r})):
        if n == 50:
            print("running", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_ctrl_c_ends_within_a_second(files: Files, kind: str) -> None:
    code = INTERRUPTED.format(root=str(ROOT), here=str(Path(__file__).parent), image=str(files.paths[1]), kind=kind)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    assert process.wait(10) == 130
    assert time.monotonic() - began < 1.0
    assert process.stdout.read() == "interrupted\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody of the group is left


MEMORY = """
import resource, sys
sys.path.insert(0, {root!r}); sys.path.insert(0, {here!r})
import test_workers as t
from concurrent.futures import CancelledError
from pathlib import Path
files = t.Files([Path({image!r})] * {count})
seen = sum(1 for _ in t.stream(files, t.ImageTransform(), "threads", batch_size=16))
print(seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_images(files: Files) -> None:
    peaks = {}
    for count in (1000, 5000):
        parts = {"root": str(ROOT), "here": str(Path(__file__).parent), "image": str(files.paths[1]), "count": count}
        done = subprocess.run(
            [sys.executable, "-c", MEMORY.format(**parts)], capture_output=True, text=True, check=True
        )
        seen, peaks[count] = map(int, done.stdout.split())
        assert seen == count
    assert peaks[5000] < peaks[1000] * 1.05


class Slow(ImageTransform):
    """Takes long over every image."""

    def __call__(self, sample: Sample, out: Mapping[str, Any]) -> Geometry:
        time.sleep(30)
        return super().__call__(sample, out)


def test_who_waits_for_processes_that_are_ended_waits_no_longer(files: Files) -> None:
    pool = Workers(files, Slow(), [IN], 4, 1, count=2, kind="processes")
    ticket = pool.fill(0, [files[0]], 0)
    closing = threading.Timer(0.3, pool.close)
    closing.start()
    began = time.monotonic()
    with pytest.raises(CancelledError):
        ticket.result()
    closing.join()
    assert time.monotonic() - began < 5
