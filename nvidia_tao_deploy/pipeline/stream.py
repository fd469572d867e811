"""The loop over batches, written once: samples in, predictions out, in dataset order.

Decoding and transforming run in worker threads (the image libraries release the GIL), the model runs in a thread
of its own, and the caller's thread decodes outputs and feeds the metric or writer. Memory is bounded by a ring of
batch buffers.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Dataset, Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.network import Decoder, Ports
from nvidia_tao_deploy.runtime.session import Session, TensorInfo
from nvidia_tao_deploy.transforms.transform import Geometry, Transform

RING = 3  # one batch being filled, one being run, one being decoded


@dataclass
class Tally:
    """What a run did: counts, skipped items with their reasons, and where the time went (seconds)."""

    images: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    wall: float = 0.0
    waiting_for_images: float = 0.0
    waiting_for_model: float = 0.0
    decoding: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def images_per_second(self) -> float:
        """Images per second of wall time, first batch to last."""
        return self.images / self.wall if self.wall > 0 else float("nan")

    def report(self) -> dict[str, Any]:
        """The figures for results.json: counts, images/s, shares of wall time, model latency in ms per batch."""
        latencies = np.array(self.latencies or [np.nan]) * 1e3
        p50, p90, p99 = np.percentile(latencies, [50, 90, 99])
        wall = self.wall or float("nan")
        return {
            "images_evaluated": self.images,
            "images_skipped": len(self.skipped),
            "images_per_second": self.images_per_second,
            "time_share": {
                "images": self.waiting_for_images / wall,
                "model": self.waiting_for_model / wall,
                "results": self.decoding / wall,
            },
            "batch_latency_ms": {"p50": p50, "p90": p90, "p99": p99},
        }


@dataclass
class _Batch:
    samples: list[Sample]
    buffers: dict[str, NDArray[Any]]
    tasks: list[Future[Geometry]]


def run_stream(
    dataset: Dataset,
    transform: Transform,
    session: Session,
    ports: Ports,
    decode: Decoder,
    *,
    batch_size: int,
    workers: int = 0,
    strict: bool = False,
    tally: Tally | None = None,
) -> Iterator[tuple[Sample, Any]]:
    """Yield (sample, prediction) for every readable sample of ``dataset``, in its order, the last short batch included.

    Args:
        dataset: what to run.
        transform: fills one row of the model's inputs.
        session: the loaded model.
        ports: the model's tensors by role.
        decode: raw outputs by role, and geometries -> predictions.
        batch_size: wanted batch; brought within what the model accepts.
        workers: threads that decode and transform; 0: from the number of cores.
        strict: an unreadable sample ends the run instead of being skipped and counted.
        tally: filled while running; skipped samples are named in it.

    Raises:
        DataError: a sample is unreadable and ``strict`` is set, or not one sample could be read.
        ModelError: the model cannot be run.
    """
    tally = tally if tally is not None else Tally()
    batch_size = session.batch.clamp(max(1, min(batch_size, len(dataset))))
    workers = workers or min(16, os.cpu_count() or 1)
    ring = deque({info.name: _buffer(batch_size, info) for info in ports.inputs.values()} for _ in range(RING))
    starts = iter(range(0, len(dataset), batch_size))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="transform")
    runner = ThreadPoolExecutor(1, thread_name_prefix="model")
    filling: deque[_Batch] = deque()
    running: deque[tuple[list[Sample], list[Geometry], dict[str, NDArray[Any]], Future[Any]]] = deque()

    def fill_next() -> None:
        start = next(starts, None) if ring else None
        if start is None:
            return
        buffers = ring.popleft()
        samples = [dataset[index] for index in range(start, min(start + batch_size, len(dataset)))]
        tasks = [
            pool.submit(transform, sample, {name: array[row] for name, array in buffers.items()})
            for row, sample in enumerate(samples)
        ]
        filling.append(_Batch(samples, buffers, tasks))

    began = time.perf_counter()
    try:
        for _ in range(RING - 1):
            fill_next()
        while filling or running:
            if filling:
                mark = time.perf_counter()
                batch = filling.popleft()
                samples, geometries = _collect(batch, strict, tally)
                tally.waiting_for_images += time.perf_counter() - mark
                if samples:
                    feeds = _feeds(batch.buffers, len(samples), session)
                    running.append((samples, geometries, batch.buffers, runner.submit(_timed, session, feeds, tally)))
                else:
                    ring.append(batch.buffers)
                fill_next()
                if len(running) < 2 and filling:
                    continue  # keep one batch running while the one before it is decoded
            if running:
                samples, geometries, buffers, future = running.popleft()
                mark = time.perf_counter()
                raw = future.result()
                tally.waiting_for_model += time.perf_counter() - mark
                ring.append(buffers)
                fill_next()
                mark = time.perf_counter()
                outputs = {role: raw[info.name][: len(samples)] for role, info in ports.outputs.items()}
                for sample, prediction in zip(samples, decode(outputs, geometries), strict=True):
                    tally.images += 1
                    yield sample, prediction
                now = time.perf_counter()
                tally.decoding += now - mark
                tally.wall = now - began
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        runner.shutdown(wait=True, cancel_futures=True)
    if not tally.images:
        name, reason = tally.skipped[0] if tally.skipped else ("the dataset", "it is empty")
        raise DataError(f"not one image could be read; the first: {name}: {reason}")


def _buffer(batch: int, info: TensorInfo) -> NDArray[Any]:
    return np.zeros((batch, *(dim or 1 for dim in info.shape[1:])), info.dtype)


def _timed(session: Session, feeds: Mapping[str, NDArray[Any]], tally: Tally) -> dict[str, NDArray[Any]]:
    mark = time.perf_counter()
    outputs = session.run(feeds)
    tally.latencies.append(time.perf_counter() - mark)
    return outputs


def _feeds(buffers: Mapping[str, NDArray[Any]], count: int, session: Session) -> dict[str, NDArray[Any]]:
    rows = max(count, session.batch.minimum)  # a fixed-batch model runs whole; the rows past count are dropped later
    return {name: array[:rows] for name, array in buffers.items()}


def _collect(batch: _Batch, strict: bool, tally: Tally) -> tuple[list[Sample], list[Geometry]]:
    """Wait for a batch; unreadable samples are taken out and the rows closed up."""
    samples: list[Sample] = []
    geometries: list[Geometry] = []
    for row, (sample, task) in enumerate(zip(batch.samples, batch.tasks, strict=True)):
        try:
            geometry = task.result()
        except DataError as error:
            if strict:
                raise
            tally.skipped.append((str(sample.path), error.what))
            continue
        if row != len(samples):
            for array in batch.buffers.values():
                array[len(samples)] = array[row]
        samples.append(sample)
        geometries.append(geometry)
    return samples, geometries


def calibration_batches(
    samples: Sequence[Sample], transform: Transform, inputs: Sequence[TensorInfo], batch_size: int, *, strict: bool
) -> Iterator[dict[str, NDArray[Any]]]:
    """Batches of model inputs for calibration, one at a time; unreadable samples are left out or, ``strict``, an error."""
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(samples), batch_size):
            chunk = samples[start : start + batch_size]
            buffers = {info.name: _buffer(len(chunk), info) for info in inputs}
            rows = [{name: array[row] for name, array in buffers.items()} for row in range(len(chunk))]
            tasks = [pool.submit(transform, sample, row) for sample, row in zip(chunk, rows, strict=True)]
            good, _ = _collect(_Batch(list(chunk), buffers, tasks), strict, Tally())
            if good:
                yield {name: array[: len(good)] for name, array in buffers.items()}
