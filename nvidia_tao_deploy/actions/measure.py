"""What reports measure: the number that decides, its change, and how fast a model runs."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.actions.model import OpenModel
from nvidia_tao_deploy.data.sample import Dataset, Sample
from nvidia_tao_deploy.errors import DataError, SpecError
from nvidia_tao_deploy.pipeline.stream import calibration_batches

# Keys of metrics that sum a task up, in order of preference; a metric with none of them has its first number first.
MAIN = ("mAP", "mIoU", "Mean IOU", "miou", "PQ", "t2i_mAP", "zero_shot_top_1", "abs_rel", "epe")
ERRORS = frozenset(
    {"epe", "abs_rel", "sq_rel", "rmse", "rmse_log", "bp1", "bp2", "bp3", "test_fpr", "test_fnr", "false_alarm"}
)
WARM_UP = 3
LEAST_RUNS = 5
METER_SECONDS = 0.02


@dataclass(frozen=True)
class Headline:
    """The number that decides: its key among a metric's, and whether more of it is better."""

    key: str
    higher_is_better: bool

    def loss(self, reference: float, value: float) -> float:
        """How much of ``reference`` is lost at ``value``, in percent of it: negative for a gain, NaN if undefined.

        Metrics are positive; COCO writes -1 where there is no truth to measure against.
        """
        if not (isfinite(reference) and isfinite(value)) or reference <= 0:
            return nan
        change = reference - value if self.higher_is_better else value - reference
        return 100.0 * change / abs(reference)


def headline(numbers: Mapping[str, Any], section: Any, where: str) -> Headline:
    """The number that ``section.metric`` names, else the metric's main one.

    Args:
        numbers: what ``Metric.compute`` gave.
        section: the spec's compare or diagnose section.
        where: of the key ``metric``, for the message.

    Raises:
        SpecError: the metric has no such number.
    """
    scalars = scalars_of(numbers)
    if section.metric is not None and section.metric not in scalars:
        raise SpecError(
            f"this network's metric has no number '{section.metric}'",
            where=where,
            remedy=f"It has {', '.join(scalars)}.",
        )
    if not scalars:
        raise SpecError("this network's metric gives no number to compare", where=where)
    key = section.metric or next((name for name in MAIN if name in scalars), next(iter(scalars)))
    higher = section.higher_is_better
    return Headline(key, key not in ERRORS if higher is None else higher)


def scalars_of(numbers: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers among a metric's results, NaN for undefined ones."""
    return {
        str(key): nan if value is None else float(value)
        for key, value in numbers.items()
        if value is None or (isinstance(value, (int, float, np.number)) and not isinstance(value, bool))
    }


class Subset:
    """Some samples of a dataset, evenly spread over it; everything else is the dataset's own."""

    def __init__(self, dataset: Dataset, count: int) -> None:
        self._dataset = dataset
        self.root: Path | None = dataset.root
        whole = len(dataset)
        self._indices = np.unique(np.linspace(0, whole - 1, min(count, whole)).round().astype(int)).tolist()

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self._dataset[self._indices[index]]


@dataclass
class Timing:
    """Rounds of running a model on one batch that lies ready in host memory, copies included.

    Attributes:
        batch: images per run.
        rounds: images/s of every round.
        latencies: seconds of every run of all rounds.
        memory_bytes: device memory over what was in use before the model was opened, at most; None: not known.
        watts: mean power of the GPU over the rounds; None: not known.
    """

    batch: int
    rounds: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    memory_bytes: int | None = None
    watts: float | None = None

    @property
    def throughput(self) -> float:
        """Images/s, the median round."""
        return float(np.median(self.rounds))

    def report(self) -> dict[str, Any]:
        """Figures for JSON: images/s with its range over the rounds, latency in ms, memory, power."""
        p50, p90, p99 = np.percentile(np.array(self.latencies) * 1e3, [50, 90, 99]).tolist()
        return {
            "batch_size": self.batch,
            "images_per_second": self.throughput,
            "images_per_second_range": [min(self.rounds), max(self.rounds)],
            "latency_ms": {"p50": p50, "p90": p90, "p99": p99},
            "device_memory_bytes": self.memory_bytes,
            "watts": self.watts,
            "images_per_second_per_watt": self.throughput / self.watts if self.watts else None,
        }


def timed(model: OpenModel, dataset: Dataset, *, batch: int, rounds: int, seconds: float, meter: Meter) -> Timing:
    """Run ``model`` on its first batch again and again.

    Args:
        model: the open model.
        dataset: where the batch comes from; filled up with its own images where it is too small.
        batch: wanted images per run, brought within what the model accepts; 0: evaluate's.
        rounds: how many rounds.
        seconds: least length of a round.
        meter: started before the model was opened.

    Raises:
        DataError: none of the first images can be read.
    """
    wanted = batch or max(1, model.network.batch_size(model.spec, "evaluate"))
    timing = Timing(model.session.batch.clamp(wanted))
    samples = [dataset[index] for index in range(min(timing.batch, len(dataset)))]
    inputs = list(model.ports.inputs.values())
    feeds = next(calibration_batches(samples, model.transform, inputs, timing.batch, strict=False), None)
    if feeds is None:
        raise DataError("not one image of the first batch can be read", where=str(samples[0].path))
    feeds = {name: _filled(rows, timing.batch) for name, rows in feeds.items()}
    for _ in range(WARM_UP):
        model.session.run(feeds)
    with meter.power():
        for _ in range(rounds):
            runs, began = 0, time.perf_counter()
            while runs < LEAST_RUNS or time.perf_counter() - began < seconds:
                mark = time.perf_counter()
                model.session.run(feeds)
                timing.latencies.append(time.perf_counter() - mark)
                runs += 1
            timing.rounds.append(runs * timing.batch / (time.perf_counter() - began))
    timing.memory_bytes, timing.watts = meter.memory_bytes, meter.watts
    return timing


def _filled(rows: NDArray[Any], count: int) -> NDArray[Any]:
    return rows if len(rows) == count else np.resize(rows, (count, *rows.shape[1:]))


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Meter:
    """Memory and power of one GPU by NVML, sampled while a model is open; everything is None without NVML.

    Args:
        gpu: index among the visible devices.
    """

    def __init__(self, gpu: int) -> None:
        self._library, self._handle = _nvml(gpu)
        self._before = self._used()
        self._watts: list[float] = []
        self._peak = self._before

    @property
    def memory_bytes(self) -> int | None:
        """Most memory in use since the start, over what was in use then (other processes' changes included)."""
        if self._before is None or self._peak is None:
            return None
        return max(0, max(self._peak, self._used() or 0) - self._before)

    @property
    def watts(self) -> float | None:
        """Mean power inside :meth:`power`."""
        return float(np.mean(self._watts)) if self._watts else None

    @contextmanager
    def power(self) -> Iterator[None]:
        """Sample memory and power in a thread of its own."""
        if self._library is None:
            yield
            return
        stop = threading.Event()
        thread = threading.Thread(target=self._sample, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _sample(self, stop: threading.Event) -> None:
        milliwatts = ctypes.c_uint(0)
        while not stop.wait(METER_SECONDS):
            if self._library.nvmlDeviceGetPowerUsage(self._handle, ctypes.byref(milliwatts)) == 0:
                self._watts.append(milliwatts.value / 1000)
            used = self._used()
            if used is not None:
                self._peak = max(self._peak or 0, used)

    def _used(self) -> int | None:
        if self._library is None:
            return None
        memory = _Memory()
        failed = self._library.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(memory))
        return None if failed else int(memory.used)


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
