"""Two engines, one for pictures and one for texts, as one session."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import ModelError, ModelFileError
from nvidia_tao_deploy.runtime.session import BatchLimits, Session

TOWERS = ("vision", "text")
_NAME = re.compile(r"(?P<base>.*?)(?:_(?P<tower>vision|text))?(?P<suffix>(?:\.(?:engine|plan|trt|onnx))+)", re.DOTALL)


def tower_files(given: Path) -> dict[str, Path]:
    """The files that ``trt_engine`` stands for: {"combined": file}, or those there are of "vision" and "text".

    A folder: its pair ``*_vision``, ``*_text``, else its first other engine, else a lone tower. A file: itself, with
    its partner where its name ends in ``_vision`` or ``_text``. ``base.engine`` that does not exist: its towers.

    Raises:
        ModelError: there are none.
    """
    if given.is_dir():
        engines = sorted(path for path in given.iterdir() if path.suffix in (".engine", ".plan", ".trt"))
        found = [_partners(path) for path in engines or sorted(given.glob("*.onnx"))]
        best = next((f for f in found if len(f) == 2), next((f for f in found if "combined" in f), None))
        if found:
            return best or found[0]
    else:
        files = _partners(given)
        if files:
            return files
    raise ModelFileError(
        "no such model file",
        where=str(given),
        remedy="Give an engine, a folder of engines, or base.engine for base_vision.engine and base_text.engine.",
    )


def _partners(path: Path) -> dict[str, Path]:
    match = _NAME.fullmatch(path.name)
    if match is None or (path.is_file() and match["tower"] is None):
        return {"combined": path} if path.is_file() else {}
    files = {tower: path.with_name(f"{match['base']}_{tower}{match['suffix']}") for tower in TOWERS}
    return {tower: file for tower, file in files.items() if file.is_file()}


class TowerSession:
    """Runs each tower on its own inputs; a tower whose inputs are all zero in a batch is left out and gives zeros.

    Raises:
        ModelError: the towers have no batch size in common.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = list(sessions)
        self.inputs = tuple(info for session in sessions for info in session.inputs)
        # Both give logit_scale and logit_bias.
        self.outputs = tuple({info.name: info for session in sessions for info in session.outputs}.values())
        most = [session.batch.maximum for session in sessions if session.batch.maximum is not None]
        self.batch = BatchLimits(max(session.batch.minimum for session in sessions), min(most, default=None))
        if self.batch.maximum is not None and self.batch.minimum > self.batch.maximum:
            limits = " and ".join(f"{each.batch.minimum} to {each.batch.maximum}" for each in sessions)
            raise ModelError(f"the vision and text engines take different batches: {limits}")
        self.device = sessions[0].device
        self.refused = {**getattr(sessions[0], "refused", {}), "contexts": "towers run a batch at a time"}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run one batch; see :class:`Session`."""
        results: dict[str, NDArray[Any]] = {}
        for session in self._sessions:
            own = {info.name: feeds[info.name] for info in session.inputs}
            if any(rows.any() for rows in own.values()):
                results |= session.run(own)
            else:
                rows = len(next(iter(own.values())))
                results |= {
                    info.name: np.zeros((rows, *(dim or 1 for dim in info.shape[1:])), info.dtype)
                    for info in session.outputs
                    if info.name not in results
                }
        return results

    def cancel(self) -> None:
        """Give up a run under way where the runtime can."""
        for session in self._sessions:
            getattr(session, "cancel", lambda: None)()

    def close(self) -> None:
        """Release both."""
        for session in self._sessions:
            session.close()
