"""How fast a model runs, and what it takes of a GPU: rounds of timing, memory and power by NVML."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.actions.measure import Subset
from nvidia_tao_deploy.actions.model import OpenModel
from nvidia_tao_deploy.data.sample import Dataset, called
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.pipeline.stream import calibration_batches
from nvidia_tao_deploy.runtime.pinned import pinned

LEAST_RUNS = 5
LOOKED_AT = 16  # samples at least, for a batch of any size
METER_SECONDS = 0.02

Feeds = Mapping[str, NDArray[Any]]


@dataclass
class Timing:
    """Rounds of running a model on one batch that lies ready in host memory, copies to and from the device included.

    Attributes:
        batch: images per run.
        rounds: images/s of every round.
        latencies: seconds of every run of all rounds, one run at a time.
        watts: mean power of the GPU in every round in which it is known.
    """

    batch: int
    rounds: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)

    @property
    def throughput(self) -> float:
        """Images/s, the median round."""
        return float(np.median(self.rounds))

    def round(self, model: OpenModel, feeds: Feeds, seconds: float, gpu: int) -> None:
        """Run ``model`` for at least ``seconds`` a batch at a time; on a GPU as long again with overlapping copies."""
        lanes = getattr(model.session, "slots", 1)
        run_for(model, feeds, seconds / 10)  # wakes up what slept while other models ran
        with metered(gpu) as reading:
            taken, elapsed = run_for(model, feeds, seconds)
        self.latencies += taken
        if lanes > 1:
            with metered(gpu) as reading:
                taken, elapsed = run_for(model, feeds, seconds, lanes)
        self.rounds.append(len(taken) * self.batch / elapsed)
        if reading.watts is not None:
            self.watts.append(reading.watts)

    def report(self) -> dict[str, Any]:
        """Figures for JSON: images/s with its range over the rounds, latency in ms per batch, power."""
        p50, p90, p99 = np.percentile(np.array(self.latencies) * 1e3, [50, 90, 99]).tolist()
        watts = float(np.mean(self.watts)) if self.watts else None
        return {
            "batch_size": self.batch,
            "images_per_second": self.throughput,
            "images_per_second_range": [min(self.rounds), max(self.rounds)],
            "latency_ms": {"p50": p50, "p90": p90, "p99": p99},
            "watts": watts,
            "images_per_second_per_watt": self.throughput / watts if watts else None,
        }


def run_for(model: OpenModel, feeds: Feeds, seconds: float, lanes: int = 1) -> tuple[list[float], float]:
    """(seconds of every run, seconds of all) of running ``model`` in so many threads at once."""

    def lane(_: int) -> list[float]:
        taken: list[float] = []
        while len(taken) < LEAST_RUNS or time.perf_counter() - began < seconds:
            mark = time.perf_counter()
            model.session.run(feeds)
            taken.append(time.perf_counter() - mark)
        return taken

    began = time.perf_counter()
    with ThreadPoolExecutor(lanes) as pool:
        taken = [one for each in pool.map(lane, range(lanes)) for one in each]
    return taken, time.perf_counter() - began


@contextmanager
def first_batch(model: OpenModel, dataset: Dataset, batch: int) -> Iterator[Feeds]:
    """Samples spread over ``dataset``, repeated where it has fewer; page-locked where the model runs on a GPU.

    Where samples have one of two sides, as images and texts of their own, every row has both.

    Raises:
        DataError: none of them can be read.
    """
    spread, inputs = Subset(dataset, max(batch, LOOKED_AT)), list(model.ports.inputs.values())
    samples = [spread[index] for index in range(len(spread))]
    found = next(calibration_batches(samples, model.transform, inputs, len(samples), strict=False), None)
    if found is None:
        raise DataError(f"not one of {len(samples)} {called(dataset)} can be read", where=str(samples[0].path))
    feeds = {}
    for name, rows in found.items():
        full = rows[rows.reshape(len(rows), -1).any(axis=1)]
        feeds[name] = np.resize(full if len(full) else rows, (batch, *rows.shape[1:]))
    with ExitStack() as stack:
        for array in feeds.values():
            stack.enter_context(pinned(array, getattr(model.session, "gpu", None)))
        yield feeds


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@dataclass
class Reading:
    """What :func:`metered` read; None without NVML.

    Attributes:
        memory_bytes: most memory in use over what was in use at the start (other processes' changes included).
        watts: mean power.
    """

    memory_bytes: int | None = None
    watts: float | None = None


@contextmanager
def metered(gpu: int) -> Iterator[Reading]:
    """Memory and power of a GPU (index among the visible ones) while the block runs; the reading is there after it."""
    reading, (library, handle) = Reading(), _nvml(gpu)
    if library is None:
        yield reading
        return
    used, power, stop = list[int](), list[float](), threading.Event()

    def read() -> None:
        memory, milliwatts = _Memory(), ctypes.c_uint(0)
        if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0:
            used.append(int(memory.used))
        if library.nvmlDeviceGetPowerUsage(handle, ctypes.byref(milliwatts)) == 0:
            power.append(milliwatts.value / 1000)

    def sample() -> None:
        while not stop.wait(METER_SECONDS):
            read()

    read()
    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield reading
    finally:
        stop.set()
        thread.join()
        read()
        reading.memory_bytes = max(used) - used[0] if used else None
        reading.watts = float(np.mean(power)) if power else None


@lru_cache
def _nvml(gpu: int) -> tuple[Any, Any]:
    """(library, device handle), or (None, None)."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None, None
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    name = visible[gpu] if gpu < len(visible) else str(gpu)
    handle = ctypes.c_void_p()
    if library.nvmlInit_v2() != 0:
        return None, None
    if name.isdigit():
        failed = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle))
    else:
        failed = library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
    return (None, None) if failed else (library, handle)
