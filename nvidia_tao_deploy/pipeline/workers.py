"""The workers that decode and transform: samples in, rows of the ring's batch buffers filled.

Threads do where the image libraries release the GIL for nearly all of their time (measured: two cores). On many cores
the few GIL-bound microseconds of every call add up, so there forked processes write into the same buffers through
shared memory. Row numbers go to all of them through one pipe, geometries come back to one thread through another.
"""

from __future__ import annotations

import math
import mmap
import os
import select
import signal
import struct
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler
from selectors import EVENT_READ, DefaultSelector
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Dataset, Sample
from nvidia_tao_deploy.errors import DataError, RuntimeUnavailableError, TaoDeployError
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.on_gpu import PixelRows
from nvidia_tao_deploy.transforms.transform import Geometry, Transform

Kind = Literal["auto", "threads", "processes"]
Buffers = dict[str, NDArray[Any]]
Filled = list["Geometry | DataError"]

MAX_WORKERS = 64
MIN_CHUNK, MAX_CHUNK = 4, 8
# From here on the GIL costs more than processes do.
PROCESSES_FROM = 6
_THREADS = "runtime.worker_kind=threads decodes in this process."
_JOB = struct.Struct("<QIIII")  # number, ring slot, first row, first dataset index, rows
_HEAD = struct.Struct("<I")  # length of the pickled answer that follows
# Of worker processes. The few threads that feed the GPU go first: with a worker on each core, ONNX Runtime ran 5,027
# ResNet-50 images/s so, and 2,090 without.
_NICE = 10
_ATOMIC = select.PIPE_BUF  # writes to a pipe of up to this many bytes come through in one piece


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """A pool and the ring of batch buffers it fills.

    Args:
        dataset: indexed by the workers.
        transform: fills one row.
        inputs: the model's inputs.
        batch_size: rows of a buffer.
        depth: buffers in the ring; memory is bounded by them.
        count: workers; 0: as many as there are cores.
        kind: "threads", "processes" (Linux), or "auto".
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: Transform,
        inputs: Sequence[TensorInfo],
        batch_size: int,
        depth: int,
        *,
        count: int = 0,
        kind: Kind = "auto",
    ) -> None:
        self.count = worker_count(count)
        self._dataset, self._transform = dataset, transform
        self._stop = threading.Event()
        self._chunk = chunk_size(batch_size, self.count)
        self._cv2_threads = _one_opencv_thread()
        processes = use_processes(kind, transform, self.count)
        make = shared_array if processes else np.zeros
        self.ring: list[Buffers] = [
            {info.name: make((batch_size, *(dim or 1 for dim in info.shape[1:])), info.dtype) for info in inputs}
            for _ in range(depth)
        ]
        self._children: _Children | None = None
        if processes:
            self._children = _Children(self.count, dataset, transform, self.ring)
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="transform")

    def fill(self, slot: int, samples: Sequence[Sample], start: int) -> Ticket:
        """Begin to fill rows 0.. of ring buffer ``slot`` with ``samples``, which begin at dataset index ``start``."""
        bounds = range(0, len(samples), self._chunk)
        if self._children is not None:
            chunks = [(row, start + row, min(self._chunk, len(samples) - row)) for row in bounds]
            work = self._children.submit(slot, chunks)
        else:
            work = [self._pool.submit(self._local, slot, row, samples[row : row + self._chunk]) for row in bounds]
        return Ticket(work)

    def _local(self, slot: int, row: int, samples: Sequence[Sample]) -> Filled:
        return fill_rows(self._transform, samples, self.ring[slot], row, self._stop.is_set)

    def close(self) -> None:
        """End all workers after the image each one has in hand; queued work is dropped."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._children is not None:
            self._children.close()
        if self._cv2_threads is not None:
            import cv2

            cv2.setNumThreads(self._cv2_threads)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Ticket:
    """A batch being filled."""

    def __init__(self, work: Sequence[Future[Filled]]) -> None:
        self._work = work

    def result(self) -> Filled:
        """Per row its geometry, or why the sample cannot be read; waits for the last row.

        Raises:
            TaoDeployError: anything but an unreadable sample.
        """
        return [outcome for part in self._work for outcome in part.result()]


def fill_rows(
    transform: Transform, samples: Sequence[Sample], buffers: Mapping[str, NDArray[Any]], row: int, stopped: Any
) -> Filled:
    """Transform ``samples`` into rows ``row``... of ``buffers``.

    Raises:
        TaoDeployError: the model does not take what the transform makes.
        RuntimeError: a defect in a transform; the file is named.
    """
    filled: Filled = []
    for number, sample in enumerate(samples, row):
        if stopped():
            break
        try:
            filled.append(transform(sample, {name: array[number, ...] for name, array in buffers.items()}))
        except DataError as error:
            filled.append(error)
        except TaoDeployError:
            raise
        except Exception as error:
            raise RuntimeError(f"{sample.path}: {type(error).__name__}: {error}") from error
    return filled


def chunk_size(batch_size: int, workers: int) -> int:
    """Images that a worker takes at once; from :data:`PROCESSES_FROM` on at least some, since each message costs."""
    least = MIN_CHUNK if workers >= PROCESSES_FROM else 1
    return min(batch_size, MAX_CHUNK, max(least, math.ceil(batch_size / workers)))


def worker_count(asked: int) -> int:
    """``asked``, or as many workers as cores."""
    return asked or min(MAX_WORKERS, cores())


def use_processes(kind: Kind, transform: Transform, count: int) -> bool:
    """Whether to fork. "auto": on many cores, for image transforms (others may hold what cannot be sent back)."""
    if kind == "processes":
        if not hasattr(os, "fork"):
            raise RuntimeUnavailableError("worker processes need fork", remedy="Set runtime.worker_kind=threads.")
        return True
    if kind == "threads" or count < PROCESSES_FROM or not hasattr(os, "fork"):
        return False
    # A GPU decoder does not survive a fork; other transforms may leave what cannot be sent back.
    return isinstance(transform, PixelRows) or (
        isinstance(transform, ImageTransform) and transform.backend != "nvimgcodec"
    )


def shared_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros in anonymous memory that forked children share; freed with the last view of it."""
    count = math.prod(shape)
    memory = mmap.mmap(-1, max(count * dtype.itemsize, 1))
    return np.frombuffer(memory, dtype, count).reshape(shape)


class _Children:
    """Forked processes that fill rows of the ring.

    All read jobs from one pipe and write answers to another. Every message is at most PIPE_BUF bytes, so the kernel
    passes it whole: there is no lock that a killed process could take with it, and one thread here takes many answers
    with one read.
    """

    def __init__(self, count: int, dataset: Dataset, transform: Transform, ring: list[Buffers]) -> None:
        self._dataset = dataset
        self._jobs: dict[int, tuple[Future[Filled], int, int]] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._error: Exception | None = None  # nobody collects answers any more
        self._next = 0
        jobs_out, self._jobs_in = os.pipe()
        self._answers_out, answers_in = os.pipe()
        self._processes: list[Any] = []
        self._in_hand = shared_array((count,), np.dtype(np.int64))  # each process's job
        self._forked = threading.Event()
        # The children touch neither the runtimes nor any lock of their threads: numpy, OpenCV, Pillow only.
        warnings.filterwarnings("ignore", r".*multi-threaded, use of fork", DeprecationWarning)
        arguments = (jobs_out, answers_in, (self._jobs_in, self._answers_out), dataset, transform, ring)
        self._collector = threading.Thread(target=self._run, args=(count, arguments), name="collector", daemon=True)
        self._collector.start()

    def _run(self, count: int, arguments: tuple[Any, ...]) -> None:
        """Fork here, as beside a GPU's memory maps each takes 10 ms and the first can work meanwhile; then collect."""
        from multiprocessing import get_context
        from multiprocessing.connection import wait

        data = b""
        try:
            for index in range(count):
                if self._closing:
                    break
                hand = self._in_hand[index : index + 1]
                process = get_context("fork").Process(target=_serve, args=(*arguments, hand), daemon=True)
                process.start()
                self._processes.append(process)
                if wait([self._answers_out], 0):
                    data = self._answer(data + os.read(self._answers_out, 1 << 20))
        except OSError as error:
            self._give_up(RuntimeUnavailableError(f"no more worker processes can be started: {error}", remedy=_THREADS))
        finally:
            for end in arguments[:2]:
                os.close(end)
            self._forked.set()
        self._collect(data)

    def submit(self, slot: int, chunks: Sequence[tuple[int, int, int]]) -> list[Future[Filled]]:
        """Fill parts of ring buffer ``slot``: each a first row, a first dataset index, and a number of samples."""
        futures: list[Future[Filled]] = [Future() for _ in chunks]
        data = b""
        with self._lock:
            for future, (row, start, count) in zip(futures, chunks, strict=True):
                if self._error is not None:
                    future.set_exception(self._error)
                    continue
                number, self._next = self._next, self._next + 1
                self._jobs[number] = future, start, count
                data += _JOB.pack(number, slot, row, start, count)
        most = _ATOMIC // _JOB.size * _JOB.size
        try:
            for position in range(0, len(data), most):
                os.write(self._jobs_in, data[position : position + most])
        except OSError:  # every process is gone: the collector says so
            self._fail()
        return futures

    def _collect(self, data: bytes) -> None:
        """Hand answers to their futures until the pipe closes or a process dies; ``data`` was read already."""
        with DefaultSelector() as selector:
            for watched in (self._answers_out, *(process.sentinel for process in self._processes)):
                selector.register(watched, EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self._answers_out in ready:
                    part = os.read(self._answers_out, 1 << 20)
                    data = self._answer(data + part)
                    if part:
                        continue
                if not self._closing and self._error is None:
                    self._fail()
                return

    def _answer(self, data: bytes) -> bytes:
        """Take the whole answers out of ``data``; what is left is the beginning of the next."""
        position = 0
        while len(data) - position >= _HEAD.size:
            end = position + _HEAD.size + _HEAD.unpack_from(data, position)[0]
            if end > len(data):
                break
            # From our own fork, through a pipe without a name.
            number, answer = ForkingPickler.loads(data[position + _HEAD.size : end])
            position = end
            with self._lock:
                job = self._jobs.pop(number, None)
            if job is None:  # given up meanwhile
                continue
            if isinstance(answer, BaseException):
                job[0].set_exception(answer)
            else:
                job[0].set_result(answer)
        return data[position:]

    def _fail(self) -> None:
        """A process died: every job that is under way ends with an error that names what it had in hand."""
        for process in self._processes:
            process.join(0.1)  # the sentinel may be ready before the exit code is
        codes = [process.exitcode for process in self._processes]
        dead = next((index for index, code in enumerate(codes) if code is not None), 0)
        with self._lock:
            jobs = self._jobs
            _, start, count = jobs.get(int(self._in_hand[dead])) or next(iter(jobs.values()), (None, 0, 1))
        self._give_up(
            RuntimeUnavailableError(
                f"a worker process that decodes images ended (exit code {codes[dead]}) at "
                f"{self._dataset[start].path} or one of the {count - 1} images after it",
                remedy=f"It may have run out of memory. {_THREADS}",
            )
        )

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            jobs, self._jobs, self._error = self._jobs, {}, error
        for future, _, _ in jobs.values():
            future.set_exception(error)

    def close(self) -> None:
        """End the processes; what they have in hand is dropped. Calling it twice is allowed."""
        if self._closing:
            return
        self._closing = True
        self._forked.wait()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(5)
        self._collector.join(5)
        for future, _, _ in self._jobs.values():
            future.cancel()  # whoever waits for it need not any more
        os.close(self._jobs_in)
        os.close(self._answers_out)


def _serve(
    jobs: int,
    answers: int,
    unused: tuple[int, int],
    dataset: Dataset,
    transform: Transform,
    ring: list[Buffers],
    in_hand: NDArray[np.int64],
) -> None:
    """A worker process: fill the rows it is told to until the job pipe's other end is closed or gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.nice(_NICE)
    for other in unused:
        os.close(other)
    while job := os.read(jobs, _JOB.size):
        number, slot, row, start, count = _JOB.unpack(job)
        in_hand[0] = number
        try:
            samples = [dataset[index] for index in range(start, start + count)]
            answer: Any = fill_rows(transform, samples, ring[slot], row, lambda: False)
        except Exception as error:
            answer = error.with_traceback(None)
        try:
            os.write(answers, _message(number, answer, str(dataset[start].path)))
        except BrokenPipeError:
            break
    os._exit(0)


def _message(number: int, answer: Any, first: str) -> bytes:
    """The answer as one write; what does not fit or cannot be sent comes as text."""
    try:
        body = ForkingPickler.dumps((number, answer))
        if isinstance(answer, BaseException):
            ForkingPickler.loads(body)  # some exceptions can be written and not read
    except Exception:
        body = ForkingPickler.dumps((number, RuntimeError(f"{first}: {type(answer).__name__}: {answer}"[:1000])))
    if len(body) + _HEAD.size > _ATOMIC:
        if isinstance(answer, list):
            rows = [DataError(row.what[:200]) if isinstance(row, DataError) else row for row in answer]
            body = ForkingPickler.dumps((number, rows))
        else:
            body = ForkingPickler.dumps((number, type(answer)(str(answer)[:1000])))
    return _HEAD.pack(len(body)) + bytes(body)


def _one_opencv_thread() -> int | None:
    """OpenCV works in the calling thread from now on: the workers are the parallelism. The number there was before."""
    try:
        import cv2
    except ImportError:
        return None
    before = int(cv2.getNumThreads())
    cv2.setNumThreads(1)
    return before
