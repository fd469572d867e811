"""The builder process: one build, told over a pipe, so that it can be ended at once and its crash is an error.

Messages are JSON, except calibration batches and the finished plan, which follow as raw bytes.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.engine import backend as backends
from nvidia_tao_deploy.engine.builder import build_plan
from nvidia_tao_deploy.engine.options import BuildOptions, BuildPlan
from nvidia_tao_deploy.errors import TaoDeployError


class Channel:
    """The parent's end as the worker sees it; TensorRT's threads report through it at the same time."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def emit(self, event: dict[str, Any]) -> None:
        """Send one event."""
        with self._lock:
            self._connection.send_bytes(json.dumps(event).encode())

    def send_plan(self, plan: bytes) -> None:
        """Send the finished engine."""
        self.emit({"event": "plan", "bytes": len(plan)})
        with self._lock:
            self._connection.send_bytes(plan)

    def receive(self) -> Any:
        """The parent's next message."""
        return json.loads(self._connection.recv_bytes())

    def next_batch(self) -> Mapping[str, NDArray[Any]] | None:
        """Ask the parent for a calibration batch; None at the end."""
        self.emit({"event": "batch"})
        header = self.receive()
        if header["end"]:
            return None
        return {
            entry["name"]: np.frombuffer(self._connection.recv_bytes(), entry["dtype"]).reshape(entry["shape"])
            for entry in header["arrays"]
        }


def main(descriptor: int) -> None:
    """Read one plan from the pipe at ``descriptor``, build it, send the result."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    channel = Channel(Connection(descriptor))
    message = channel.receive()
    plan = BuildPlan(**{**message["plan"], "options": BuildOptions(**message["plan"]["options"])})
    try:
        backend = backends.load(plan.runtime)
        source = channel.next_batch if message["has_batches"] else None
        channel.send_plan(build_plan(plan, backend, channel.emit, source))
    except TaoDeployError as error:
        what = error.what if error.where is None else f"{error.where}: {error.what}"
        channel.emit({"event": "error", "what": what, "remedy": error.remedy})
    # Destructors of TensorRT objects after a failed build have nothing left to do and sometimes crash.
    sys.stdout.flush()
    os._exit(0)


def _die_with_parent() -> None:
    sys.stdin.buffer.read()  # ends when the parent does, however it ends
    os._exit(1)
