"""ONNX file in, serialized engine out. The build runs in a process of its own.

TensorRT holds the interpreter inside one call for minutes. In a child process an interrupt or a time limit ends
the build within a fraction of a second, a crash of the library is an error like any other, TensorRT and
TensorRT-RTX never meet in one process, and each build has the one logger that TensorRT allows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.engine.backend import Backend, choose_runtime
from nvidia_tao_deploy.engine.facts import GraphFacts, read
from nvidia_tao_deploy.engine.options import BuildOptions, BuildPlan, plan_build
from nvidia_tao_deploy.errors import BuildError
from nvidia_tao_deploy.runtime import cuda

Progress = Callable[[str], None]
_HEARTBEAT = 10.0  # seconds of silence after which the elapsed time is reported
_POLL = 0.2

_START = (
    "import sys; sys.path[:] = sys.argv[2:]; from nvidia_tao_deploy.engine.worker import main; main(int(sys.argv[1]))"
)


@dataclass(frozen=True)
class BuiltEngine:
    """A plain serialized plan, as trtexec, Triton and DeepStream read it, and what is known about its build."""

    plan: bytes
    facts: GraphFacts
    runtime: str
    version: str
    targets: tuple[tuple[int, int], ...]  # RTX targets, or the GPU's compute capability
    gpu: str | None
    seconds: float
    strongly_typed: bool
    flags: tuple[str, ...]
    hardware_compatibility: str | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    layer_precisions: Mapping[str, int] | None  # read back from the engine: convolutions and products per precision
    opaque_layers: int = 0  # layers of the engine that hold many operators and do not tell their precisions


def build(
    model_path: Path,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
    *,
    backend: Backend | None = None,
    shown_as: Path | None = None,
) -> BuiltEngine:
    """Build the prepared ONNX graph at ``model_path``.

    ``progress`` receives lines for the user; ``shown_as`` is the model's name in messages when ``model_path`` is a
    temporary one. Nothing is written but the timing cache and the calibration cache; on any error or interrupt the
    builder process is ended and nothing is left behind.

    Raises:
        ModelError: the ONNX file cannot be read.
        RuntimeUnavailableError: no builder for ``options.runtime`` here.
        BuildError: an option, the graph or the builder itself refused, or ``options.timeout_s`` passed.
    """
    options = options or BuildOptions()
    progress = progress or (lambda _: None)
    facts = read(Path(model_path))
    backend = backend or choose_runtime(options.runtime)
    plan = plan_build(Path(model_path), facts, options, backend, shown_as=shown_as)
    for note in plan.notes:
        progress(f"Note: {note}")
    progress(f"Building {facts.precision} engine with {backend.title}{_for_targets(plan, options)}")
    started = time.monotonic()
    talk = _Conversation(plan, options, progress)
    data = _run(talk)
    seconds = time.monotonic() - started
    progress(f"Built {len(data) / 2**20:.1f} MiB in {seconds:.1f} s")
    capability = cuda.compute_capability(options.device)
    own = (capability,) if capability is not None else ()
    return BuiltEngine(
        plan=data,
        facts=facts,
        runtime=backend.name,
        version=backend.version,
        targets=plan.targets or own,
        gpu=cuda.gpu_name(options.device) if backend.name == "tensorrt" else None,
        seconds=round(seconds, 2),
        strongly_typed=plan.strongly_typed,
        flags=plan.set_flags,
        hardware_compatibility=options.hardware_compatibility,
        notes=plan.notes,
        warnings=tuple(dict.fromkeys(talk.warnings)),
        layer_precisions=talk.layers,
        opaque_layers=talk.opaque,
    )


def _for_targets(plan: BuildPlan, options: BuildOptions) -> str:
    if plan.targets:
        return " for compute capability " + ", ".join(f"{major}.{minor}" for major, minor in plan.targets)
    name = cuda.gpu_name(options.device)
    return f" for {name}" if name else ""


def _run(talk: _Conversation) -> bytes:
    ours, theirs = Pipe(duplex=True)
    with tempfile.TemporaryFile() as stderr:
        # A session of its own keeps the terminal's Ctrl-C away from the child: the parent ends it, in order.
        process = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs.fileno()), *sys.path],
            stdin=subprocess.PIPE,
            stdout=stderr,
            stderr=stderr,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
        try:
            theirs.close()
            return talk.until_plan(ours)
        except (EOFError, ConnectionError) as error:
            raise _crashed(process, stderr) from error
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
            ours.close()


class _Conversation:
    """The parent's side of one build."""

    def __init__(self, plan: BuildPlan, options: BuildOptions, progress: Progress) -> None:
        self._plan, self._options, self._progress = plan, options, progress
        self._started = self._spoken = time.monotonic()
        self._connection: Connection
        self.warnings: list[str] = []
        self.layers: dict[str, int] | None = None
        self.opaque = 0
        batches = options.implicit.batches if options.implicit else None
        self._batches: Iterator[Mapping[str, NDArray[Any]]] | None = iter(batches()) if batches else None

    def until_plan(self, connection: Connection) -> bytes:
        """Serve the worker at the other end until it sends the engine."""
        self._connection = connection
        self._send({"plan": asdict(self._plan), "has_batches": self._batches is not None})
        while True:
            if not self._connection.poll(_POLL):
                if time.monotonic() - self._spoken > _HEARTBEAT:
                    self._tell(f"Building, {time.monotonic() - self._started:.0f} s so far")
            else:
                event = json.loads(self._connection.recv_bytes())
                if event["event"] == "plan":
                    return self._connection.recv_bytes()
                self._handle(event["event"], event)
            self._check_time()

    def _tell(self, text: str) -> None:
        self._spoken = time.monotonic()
        self._progress(text)

    def _handle(self, kind: str, event: dict[str, Any]) -> None:
        if kind == "error":
            raise BuildError(event["what"], remedy=event["remedy"])
        if kind == "batch":
            self._send_batch()
        elif kind == "layers":
            self.layers, self.opaque = event["counts"], event["opaque"]
        elif kind == "progress":
            self._tell(f"{event['phase']}: {event['step']} of {event['steps']}")
        else:
            if kind == "warning" or event["severity"] == "WARNING":
                self.warnings.append(event["text"])
            if kind == "warning":
                self._tell(f"Warning: {event['text']}")
            elif self._options.verbose:
                self._tell(f"[{event['severity']}] {event['text']}")

    def _send(self, message: dict[str, Any]) -> None:
        self._connection.send_bytes(json.dumps(message, default=str).encode())  # paths

    def _send_batch(self) -> None:
        batch = next(self._batches, None) if self._batches is not None else None
        if batch is None:
            self._send({"end": True})
            return
        arrays = {name: np.ascontiguousarray(array) for name, array in batch.items()}
        self._check_batch(arrays)
        header = [{"name": n, "shape": list(a.shape), "dtype": a.dtype.str} for n, a in arrays.items()]
        self._send({"end": False, "arrays": header})
        for array in arrays.values():
            self._connection.send_bytes(array.tobytes())

    def _check_batch(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name, (shape, dtype) in self._plan.calibration_inputs.items():
            if name not in arrays:
                raise BuildError(f"the calibration batches lack input {name!r}", remedy="Feed every input.")
            if list(arrays[name].shape) != list(shape) or arrays[name].dtype.name != dtype:
                raise BuildError(
                    f"the calibration batch of {name!r} is {arrays[name].dtype.name} {arrays[name].shape}, the "
                    f"profile's opt shape is {dtype} {tuple(shape)}",
                    remedy="TensorRT calibrates at the opt shape: make cal_batch_size equal to opt_batch_size.",
                )

    def _check_time(self) -> None:
        limit = self._options.timeout_s
        if limit is not None and time.monotonic() - self._started > limit:
            raise BuildError(
                f"the build was ended after its limit of {limit:g} s",
                remedy="Raise the limit, lower builder_optimization_level, or build a smaller max batch.",
            )


def _crashed(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> BuildError:
    code = process.wait(timeout=10)
    stderr.seek(0)
    tail = stderr.read().decode(errors="replace").strip().splitlines()[-8:]
    how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
    killed = " The kernel ends processes when memory runs out: lower max_batch_size." if code == -9 else ""
    said = "\n  ".join(["", *tail]) if tail else ""
    return BuildError(f"the builder process {how}{said}", remedy=f"Run again with --verbose.{killed}")
