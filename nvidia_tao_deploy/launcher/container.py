"""One container from start to removal: signals in, exit code out, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NamedTuple

from nvidia_tao_deploy.launcher import guard
from nvidia_tao_deploy.launcher.engine import Engine, EngineMissingError

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PASSED = (*_ENDING, signal.SIGUSR1, signal.SIGUSR2)
_GRACE_S = 10.0
_DAEMON_FAILED = 125

_RETRY_S = 0.3
_CREATE_S = 5.0

# The end of the client (None) or a signal that the launcher received.
_Event = signal.Signals | None


class _Forced(NamedTuple):
    """The container has to be removed by force."""

    signal: int  # the first that asked for the end
    started: bool  # a signal reached the container, so it exists


def run_container(
    arguments: Sequence[str], environment: dict[str, str], engine: Engine, name: str, *, tty: bool
) -> int:
    """Start ``arguments``, wait, and return the container's exit code; 128 + signal if it had to be removed by force.

    Signals go to the command in the container. One that asks for the end (INT, TERM, HUP, QUIT) is followed by removal
    after 10 s, or at once when it comes a second time. If this process is killed outright, a guard process removes the
    container.

    Raises:
        EngineMissingError: the engine's client cannot be started.
    """
    events: SimpleQueue[_Event] = SimpleQueue()
    with _signals_to(events), _guarded(engine, name):
        try:
            # With a terminal the client must stay in its foreground group; without one, Ctrl-C must reach only us.
            client = subprocess.Popen(list(arguments), env={**os.environ, **environment}, start_new_session=not tty)
        except OSError as error:
            raise EngineMissingError(f"cannot start {arguments[0]}: {error.strerror}") from error
        threading.Thread(target=_report_end, args=(client, events), daemon=True).start()
        forced = _follow(events, engine, name)
        if forced is not None:
            client.kill()
            client.wait()
            _remove(engine, name, patience=0.0 if forced.started else _CREATE_S)
            return 128 + forced.signal
        code = client.wait()
        if code < 0 or code == _DAEMON_FAILED:
            _remove(engine, name)
        return 128 - code if code < 0 else code


def _report_end(client: subprocess.Popen[bytes], events: SimpleQueue[_Event]) -> None:
    client.wait()
    events.put(None)


def _follow(events: SimpleQueue[_Event], engine: Engine, name: str) -> _Forced | None:
    """Pass signals on until the client ends (None) or the container has to be removed.

    A signal that comes before the container runs is tried again until it does.
    """
    pending: signal.Signals | None = None
    deadline: float | None = None
    first, started = 0, False
    while True:
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        wait = remaining if pending is None else min(_RETRY_S, _RETRY_S if remaining is None else remaining)
        try:
            event = events.get(timeout=wait)
        except Empty:
            if deadline is not None and time.monotonic() >= deadline:
                return _Forced(first, started)
        else:
            if event is None:
                return None
            if event in _ENDING and deadline is not None:
                return _Forced(first, started)
            if event in _ENDING:
                first, deadline = event, time.monotonic() + _GRACE_S
            pending = event
        if (
            pending is not None
            and not engine.ask("kill", "--signal", pending.name.removeprefix("SIG"), name).returncode
        ):
            pending, started = None, True


def _remove(engine: Engine, name: str, patience: float = 0.0) -> None:
    """Remove the container if it is there; for ``patience`` seconds also one that the daemon is still creating."""
    deadline = time.monotonic() + patience
    while True:
        engine.ask("rm", "--force", name)
        if time.monotonic() >= deadline:
            return
        time.sleep(_RETRY_S)


@contextmanager
def _signals_to(events: SimpleQueue[_Event]) -> Iterator[None]:
    def note(number: int, _frame: FrameType | None) -> None:
        events.put(signal.Signals(number))

    before = {number: signal.signal(number, note) for number in _PASSED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _guarded(engine: Engine, name: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-I", str(Path(guard.__file__).resolve()), engine.executable, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    except BaseException:
        if process.stdin is not None:
            process.stdin.close()  # without the byte: the guard removes what may have been started
        raise
    with suppress(BrokenPipeError):
        process.communicate(b".")
