"""The loop over batches, written once: samples in, predictions out, in dataset order.

Workers decode and transform straight into the rows of a ring of batch buffers, one thread per slot of the session
runs the model (two slots overlap one batch's copies with the other's execution), and the caller's thread decodes
outputs and feeds the metric or writer. Memory is bounded by the ring.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Dataset, Sample, called
from nvidia_tao_deploy.errors import DataError, RuntimeUnavailableError, SpecError, TaoDeployError
from nvidia_tao_deploy.network import Decoder, Ports
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.tally import Tally
from nvidia_tao_deploy.pipeline.workers import Buffers, Filled, Kind, Ticket, Workers, chunk_size, worker_count
from nvidia_tao_deploy.runtime.pinned import pinned
from nvidia_tao_deploy.runtime.session import Session, TensorInfo
from nvidia_tao_deploy.transforms.on_gpu import Finisher, pixel_rows
from nvidia_tao_deploy.transforms.transform import Geometry, Transform

__all__ = ["Tally", "calibration_batches", "refuse_nothing_read", "run_numbered", "run_stream"]

MAX_RING_BYTES = 4 << 30
MAX_PIXEL_BYTES = 2 << 30  # of source images, which may be far larger than the network's input
SWITCH_SECONDS = 0.0002
_WARM_UP_FROM = 8  # batches; fewer are done as soon without
Where = Literal["auto", "cpu", "gpu"]
Feeds = Callable[[Buffers, int], AbstractContextManager[dict[str, Any]]]


@dataclass
class _Batch:
    first: int  # dataset index of row 0
    samples: list[Sample]
    buffers: Buffers
    ticket: Ticket


@dataclass
class _Done:
    """A batch after the model: the samples that could be read, and those that could not."""

    indices: list[int]
    samples: list[Sample]
    geometries: list[Geometry]
    skipped: list[tuple[str, str]]
    raw: dict[str, NDArray[Any]]
    waited: float = 0.0  # seconds for images
    ran: float = 0.0  # seconds in the model


def run_stream(
    dataset: Dataset,
    transform: Transform,
    session: Session,
    ports: Ports,
    decode: Decoder,
    *,
    batch_size: int,
    workers: int = 0,
    worker_kind: Kind = "auto",
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
        workers: threads or processes that decode and transform; 0: from the number of cores.
        worker_kind: see :class:`~nvidia_tao_deploy.pipeline.workers.Workers`.
        strict: an unreadable sample ends the run instead of being skipped and counted.
        tally: filled while running; skipped samples are named in it.

    Raises:
        DataError: a sample is unreadable and ``strict`` is set, or not one sample could be read.
        ModelError: the model cannot be run.
    """
    tally = tally if tally is not None else Tally()
    numbered = run_numbered(
        dataset,
        transform,
        session,
        ports,
        decode,
        batch_size=batch_size,
        workers=workers,
        worker_kind=worker_kind,
        strict=strict,
        tally=tally,
    )
    with closing(numbered):
        for _, sample, prediction in numbered:
            yield sample, prediction
    refuse_nothing_read(tally, called(dataset))


def refuse_nothing_read(tally: Tally, what: str) -> None:
    """A run that measured nothing is an error.

    Raises:
        DataError: not one sample could be read.
    """
    if not tally.images:
        name, reason = tally.skipped[0] if tally.skipped else ("the dataset", "it is empty")
        raise DataError(f"none of the {what} could be read; the first: {name}: {reason}")


def run_numbered(
    dataset: Dataset,
    transform: Transform,
    session: Session,
    ports: Ports,
    decode: Decoder,
    *,
    batch_size: int,
    tally: Tally,
    workers: int = 0,
    worker_kind: Kind = "auto",
    transform_on: Where = "auto",
    strict: bool = False,
    batches: Iterator[int] | None = None,
    ready: Callable[[], None] = lambda: None,
) -> Generator[tuple[int, Sample, Any], None, None]:
    """:func:`run_stream` with the dataset index of each sample, and for some of the batches if wanted (a rank's share).

    Args not named there:
        transform_on: where images are resized and normalized; "auto": on the GPU where the model runs on one and the
            transform can be had there.
        batches: the batches to run, by number; None: all. That none of them can be read is no error. The second is
            asked for after ``ready``.
        ready: called when all is set up, before the first batch; the clock starts after it.
    """
    batch_size = session.batch.clamp(max(1, min(batch_size, len(dataset))))
    total = math.ceil(len(dataset) / batch_size)
    numbers = iter(range(total)) if batches is None else batches
    first = next(numbers, None)
    tally.lanes = lanes = max(1, min(getattr(session, "slots", 1), total))
    finisher = None
    if first is not None:
        finisher = _finisher(transform, session, ports, dataset, transform_on, batch_size, lanes)
    ready()
    if first is not None:
        tally.began = time.perf_counter()
        first_half: Transform = transform if finisher is None else finisher.rows
        inputs = list(ports.inputs.values()) if finisher is None else list(finisher.rows.inputs)
        tally.transform_on = "cpu" if finisher is None else "gpu"
        depth = ring_depth(inputs, batch_size, worker_count(workers), lanes, total)
        pool = Workers(dataset, first_half, inputs, batch_size, depth, count=workers, kind=worker_kind)
        with ExitStack() as stack:
            if finisher is not None:
                stack.callback(finisher.close)
            # While outputs are decoded here, the threads that feed the model would wait 5 ms for each of their turns.
            stack.callback(sys.setswitchinterval, sys.getswitchinterval())
            sys.setswitchinterval(SWITCH_SECONDS)
            stack.callback(pool.close)  # last: page-locked buffers are released first
            lock_pages = partial(_lock_pages, stack.enter_context(ExitStack()), set(), getattr(session, "gpu", None))
            runner = ThreadPoolExecutor(lanes, thread_name_prefix="model")
            stack.callback(_end, runner, pool, session)
            if total > _WARM_UP_FROM and getattr(session, "gpu", None) is not None:
                runner.submit(_warm_up, session, batch_size)
            feeds = _as_they_are if finisher is None else finisher.feeds
            run = partial(_run, session=session, strict=strict, feeds=feeds, lock_pages=lock_pages)
            yield from _loop(dataset, ports, decode, pool, runner, run, batch_size, chain([first], numbers), tally)


def _loop(
    dataset: Dataset,
    ports: Ports,
    decode: Decoder,
    pool: Workers,
    runner: ThreadPoolExecutor,
    run: Callable[[_Batch], _Done],
    batch_size: int,
    numbers: Iterator[int],
    tally: Tally,
) -> Iterator[tuple[int, Sample, Any]]:
    pending: deque[tuple[int, Future[_Done]]] = deque()

    def start_next(slot: int) -> None:
        number = next(numbers, None)
        if number is None:
            return
        first = number * batch_size
        samples = [dataset[index] for index in range(first, min(first + batch_size, len(dataset)))]
        batch = _Batch(first, samples, pool.ring[slot], pool.fill(slot, samples, first))
        pending.append((slot, runner.submit(run, batch)))

    for slot in range(len(pool.ring)):
        start_next(slot)
    while pending:
        slot, future = pending.popleft()
        done = future.result()
        start_next(slot)  # the buffer is free as soon as its batch has run
        tally.skipped += done.skipped
        tally.waiting_for_images += done.waited
        if done.samples:
            tally.running += done.ran
            tally.latencies.append(done.ran)
            outputs = {role: done.raw[info.name][: len(done.samples)] for role, info in ports.outputs.items()}
            predictions = _decoded(decode, outputs, done)
            del outputs, done.raw
            tally.resized += _resized(done)
            for index, sample, prediction in zip(done.indices, done.samples, predictions, strict=True):
                tally.images += 1
                yield index, sample, prediction
        tally.wall = time.perf_counter() - tally.began


def _resized(done: _Done) -> Iterator[tuple[str, str]]:
    """The images that were scaled or turned after they were annotated."""
    for sample, geometry in zip(done.samples, done.geometries, strict=True):
        stated = sample.meta.get("annotated_size")
        if stated is not None and stated != geometry.source_size:
            is_now, was = ("{}x{}".format(*size) for size in (geometry.source_size, stated))
            yield str(sample.path), f"{is_now}, annotated as {was}"


def _decoded(decode: Decoder, outputs: dict[str, NDArray[Any]], done: _Done) -> Sequence[Any]:
    try:
        return decode(outputs, done.geometries)
    except TaoDeployError:
        raise
    except Exception as error:
        names = f"{done.samples[0].path} to {done.samples[-1].path}"
        raise RuntimeError(f"decoding the outputs of {names}: {type(error).__name__}: {error}") from error


def _finisher(
    transform: Transform, session: Session, ports: Ports, dataset: Dataset, where: Where, batch_size: int, lanes: int
) -> Finisher | None:
    """The GPU's half of the transform, where it is wanted and can be had."""
    gpu = getattr(session, "gpu", None)
    if where == "cpu" or (where == "auto" and gpu is None):
        return None
    most = MAX_PIXEL_BYTES // (batch_size * (lanes + 3))  # photographs beyond it are finished by the workers
    rows = pixel_rows(transform, ports.inputs, dataset, most)
    if gpu is None or rows is None:
        if where == "auto":
            return None
        reason = "the model does not run on a GPU" if gpu is None else "this network's transform has no GPU version"
        raise SpecError(f"images cannot be transformed on the GPU: {reason}", where="runtime.transform_on: gpu")
    try:
        return Finisher(rows, gpu, batch_size, lanes)
    except RuntimeUnavailableError as error:
        if where == "gpu":
            raise
        say(f"note: images are transformed on the CPU: {error.what}")
        return None


@contextmanager
def _as_they_are(buffers: Buffers, count: int) -> Iterator[dict[str, Any]]:
    yield {name: array[:count] for name, array in buffers.items()}


def _lock_pages(stack: ExitStack, locked: set[int], gpu: int | None, buffers: Buffers) -> None:
    """Page-lock a batch's buffers until ``stack`` closes, the first time they come by.

    In a model thread, which waits for the first images anyway: all of the ring at once would take 0.2 s before them.
    """
    if id(buffers) not in locked:
        locked.add(id(buffers))
        for array in buffers.values():
            stack.enter_context(pinned(array, gpu))


def _warm_up(session: Session, batch_size: int) -> None:
    """Run black images, so that kernels are loaded and planned while the first ones are read; nobody takes the result.

    Images only: what a plugin makes of an empty point cloud nobody knows.
    """
    if all(len(info.shape) == 4 and None not in info.shape[1:] and info.dtype.kind == "f" for info in session.inputs):
        session.run({info.name: np.zeros((batch_size, *info.shape[1:]), info.dtype) for info in session.inputs})


def _run(batch: _Batch, session: Session, strict: bool, feeds: Feeds, lock_pages: Callable[[Buffers], None]) -> _Done:
    """In a model thread: wait for the batch's images, then run it."""
    mark = time.perf_counter()
    lock_pages(batch.buffers)
    outcomes = batch.ticket.result()
    ready = time.perf_counter()
    done = _close_up(batch.first, batch.samples, outcomes, batch.buffers, strict)
    done.waited = ready - mark
    if done.samples:
        # A fixed-batch model runs whole, with rows to drop later.
        whole = len(next(iter(batch.buffers.values()))) if getattr(session, "whole_batches", False) else 0
        rows = max(len(done.samples), session.batch.minimum, whole)
        try:
            with feeds(batch.buffers, rows) as arrays:
                done.raw = session.run(arrays)
        except DataError as error:  # a file that only the GPU was asked to decode
            names = f"{done.samples[0].path} to {done.samples[-1].path}"
            raise DataError(error.what, where=names, remedy=error.remedy) from error
        done.ran = time.perf_counter() - ready
    return done


def _close_up(first: int, samples: Sequence[Sample], outcomes: Filled, buffers: Buffers, strict: bool) -> _Done:
    """Unreadable samples are taken out and the rows closed up; row 0 is dataset index ``first``."""
    done = _Done([], [], [], [], {})
    for row, (sample, outcome) in enumerate(zip(samples, outcomes, strict=True)):
        if isinstance(outcome, DataError):
            if strict:
                raise outcome
            done.skipped.append((str(sample.path), outcome.what))
            continue
        if row != len(done.samples):
            for array in buffers.values():
                array[len(done.samples)] = array[row]
        done.indices.append(first + row)
        done.samples.append(sample)
        done.geometries.append(outcome)
    return done


def _end(runner: ThreadPoolExecutor, pool: Workers, session: Session) -> None:
    """Stop every stage; a run of the model under way is told to give up where the runtime can."""
    runner.shutdown(wait=False, cancel_futures=True)
    pool.close()
    cancel = getattr(session, "cancel", None)
    if cancel is not None:
        cancel()
    runner.shutdown(wait=True)


def ring_depth(inputs: Sequence[TensorInfo], batch_size: int, workers: int, lanes: int, batches: int) -> int:
    """Buffers that keep every worker busy while every lane runs one: two chunks ahead per worker, one batch at least.

    Bounded by :data:`MAX_RING_BYTES` (two more than lanes are always had) and by the number of batches.
    """
    row = sum(math.prod(dim or 1 for dim in info.shape[1:]) * info.dtype.itemsize for info in inputs)
    ahead = 1 + max(1, math.ceil(2 * workers * chunk_size(batch_size, workers) / batch_size))
    affordable = MAX_RING_BYTES // max(row * batch_size, 1)
    return min(lanes + max(2, min(ahead, affordable - lanes)), batches)


def calibration_batches(
    samples: Sequence[Sample], transform: Transform, inputs: Sequence[TensorInfo], batch_size: int, *, strict: bool
) -> Iterator[dict[str, NDArray[Any]]]:
    """Batches of model inputs for calibration; unreadable samples are left out or, where ``strict``, an error."""
    with Workers(_Listed(samples), transform, inputs, batch_size, 1, kind="threads") as pool:
        for start in range(0, len(samples), batch_size):
            chunk = samples[start : start + batch_size]
            done = _close_up(start, chunk, pool.fill(0, chunk, start).result(), pool.ring[0], strict)
            if done.samples:
                yield {name: array[: len(done.samples)].copy() for name, array in pool.ring[0].items()}


class _Listed:
    """A list as a dataset."""

    root: Path | None = None

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int, /) -> Sample:
        return self._samples[index]
