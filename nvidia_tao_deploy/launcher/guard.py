"""A small process that outlives a launcher killed with SIGKILL and removes its container.

Run by path, with the standard library alone: ``guard.py ENGINE NAME``. It reads standard input, whose other end the
launcher holds. A byte means that the launcher took care of everything; the end of the input without one means that
it is gone.
"""

from __future__ import annotations

import subprocess
import sys
import time

_GRACE_S = 10
_APPEAR_S = 5


def remove_container(engine: str, name: str) -> None:
    """Ask the container to end, and remove it when it has not after the grace time."""
    appear = time.monotonic() + _APPEAR_S
    # The launcher may have died between starting the client and the client creating the container.
    while _quiet(engine, "kill", "--signal", "TERM", name) and time.monotonic() < appear:
        time.sleep(0.5)
    deadline = time.monotonic() + _GRACE_S
    while time.monotonic() < deadline and not _quiet(engine, "container", "inspect", name):
        time.sleep(0.5)
    _quiet(engine, "rm", "--force", name)


def _quiet(*command: str) -> int:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    ).returncode


if __name__ == "__main__":
    if not sys.stdin.buffer.read(1):
        remove_container(sys.argv[1], sys.argv[2])
