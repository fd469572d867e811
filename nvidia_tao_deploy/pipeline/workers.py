"""The workers that decode and transform: samples in, rows of the ring's batch buffers filled.

Threads do where the image libraries release the GIL for nearly all of their time (measured: two cores). On many cores
the few GIL-bound microseconds of every call add up, so there forked processes write into the same buffers through
shared memory; only row numbers go to them and geometries come back.
"""

from __future__ import annotations

import math
import mmap
import os
import signal
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.sample import Dataset, Sample
from nvidia_tao_deploy.errors import DataError, RuntimeUnavailableError, TaoDeployError
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry, Transform

Kind = Literal["auto", "threads", "processes"]
Buffers = dict[str, NDArray[Any]]
Filled = list["Geometry | DataError"]

MAX_WORKERS = 64
MAX_CHUNK = 8
# From here on the GIL costs more than processes do.
PROCESSES_FROM = 6


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
        self._chunk = max(1, min(MAX_CHUNK, math.ceil(batch_size / self.count)))
        self._cv2_threads = _one_opencv_thread()
        processes = use_processes(kind, transform, self.count)
        make = shared_array if processes else np.zeros
        self.ring: list[Buffers] = [
            {info.name: make((batch_size, *(dim or 1 for dim in info.shape[1:])), info.dtype) for info in inputs}
            for _ in range(depth)
        ]
        self._children: list[Any] = []
        self._idle: SimpleQueue[Any] = SimpleQueue()
        if processes:
            self._fork()
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="transform")

    def fill(self, slot: int, samples: Sequence[Sample], start: int) -> Ticket:
        """Begin to fill rows 0.. of ring buffer ``slot`` with ``samples``, which begin at dataset index ``start``."""
        bounds = range(0, len(samples), self._chunk)
        if self._children:
            work = [
                self._pool.submit(
                    self._remote, slot, row, range(start + row, start + min(row + self._chunk, len(samples)))
                )
                for row in bounds
            ]
        else:
            work = [self._pool.submit(self._local, slot, row, samples[row : row + self._chunk]) for row in bounds]
        return Ticket(work)

    def _local(self, slot: int, row: int, samples: Sequence[Sample]) -> Filled:
        return fill_rows(self._transform, samples, self.ring[slot], row, self._stop.is_set)

    def _remote(self, slot: int, row: int, indices: range) -> Filled:
        process, connection = self._idle.get()
        try:
            connection.send((slot, row, indices))
            answer = connection.recv()
        except (EOFError, OSError) as error:
            if self._stop.is_set():
                return []
            process.join(1)
            raise RuntimeUnavailableError(
                f"a worker process that decodes images ended (exit code {process.exitcode}) at "
                f"{self._dataset[indices[0]].path} or one of the {len(indices) - 1} images after it",
                remedy="It may have run out of memory. runtime.worker_kind=threads decodes in this process.",
            ) from error
        finally:
            self._idle.put((process, connection))
        if isinstance(answer, BaseException):
            raise answer
        filled: Filled = answer
        return filled

    def _fork(self) -> None:
        from multiprocessing import get_context

        context = get_context("fork")
        parents: list[Any] = []
        for _ in range(self.count):
            here, there = context.Pipe()
            parents.append(here)
            arguments = (there, list(parents), self._dataset, self._transform, self.ring, os.getpid())
            process = context.Process(target=_serve, args=arguments, daemon=True)
            with warnings.catch_warnings():
                # The children touch neither the runtimes nor any lock of their threads: numpy, OpenCV, Pillow only.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            there.close()
            self._children.append(process)
            self._idle.put((process, here))

    def close(self) -> None:
        """End all workers after the image each one has in hand; queued work is dropped."""
        self._stop.set()
        for process in self._children:
            process.terminate()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._children:
            process.join(5)
        while not self._idle.empty():
            self._idle.get()[1].close()
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
            filled.append(transform(sample, {name: array[number] for name, array in buffers.items()}))
        except DataError as error:
            filled.append(error)
        except TaoDeployError:
            raise
        except Exception as error:
            raise RuntimeError(f"{sample.path}: {type(error).__name__}: {error}") from error
    return filled


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
    return isinstance(transform, ImageTransform) and transform.backend != "nvimgcodec"


def shared_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros in anonymous memory that forked children share; freed with the last view of it."""
    count = math.prod(shape)
    memory = mmap.mmap(-1, max(count * dtype.itemsize, 1))
    return np.frombuffer(memory, dtype, count).reshape(shape)


def _serve(
    connection: Any, inherited: list[Any], dataset: Dataset, transform: Transform, ring: Any, parent: int
) -> None:
    """A worker process: fill the rows it is told to until the other end closes or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in inherited:
        other.close()
    while True:
        while not connection.poll(1.0):
            if os.getppid() != parent:
                os._exit(0)
        try:
            slot, row, indices = connection.recv()
        except (EOFError, OSError):
            os._exit(0)
        try:
            answer: Any = fill_rows(transform, [dataset[i] for i in indices], ring[slot], row, lambda: False)
        except Exception as error:
            answer = error.with_traceback(None)
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)
        except Exception as error:  # what came out cannot be sent
            connection.send(RuntimeError(f"{dataset[indices[0]].path}: {type(error).__name__}: {error}"))


def _one_opencv_thread() -> int | None:
    """OpenCV works in the calling thread from now on: the workers are the parallelism. The number there was before."""
    try:
        import cv2
    except ImportError:
        return None
    before = int(cv2.getNumThreads())
    cv2.setNumThreads(1)
    return before
