"""The interface every runtime implements. Tensors are addressed by name, never by position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TensorInfo:
    """Name, shape and dtype of one model input or output; a dynamic dimension is None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        dims = "x".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name} {self.dtype.name} {dims}"


@dataclass(frozen=True)
class BatchLimits:
    """The batch sizes a model accepts: ``minimum`` <= n <= ``maximum`` (None: no upper limit).

    A fixed-batch model has minimum == maximum; the pipeline pads short batches to it.
    """

    minimum: int = 1
    maximum: int | None = None

    def clamp(self, wanted: int) -> int:
        """The batch size nearest to ``wanted`` that the model accepts."""
        upper = wanted if self.maximum is None else min(wanted, self.maximum)
        return max(upper, self.minimum)


@runtime_checkable
class DeviceInput(Protocol):
    """An input that is computed on the GPU instead of copied to it; sessions with ``gpu`` set take these as feeds."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def write(self, pointer: int, stream: int) -> None:
        """Enqueue on ``stream`` what fills the contiguous array of this shape and dtype at device ``pointer``."""
        ...


class Session(Protocol):
    """A loaded model. Not shared between threads."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    batch: BatchLimits
    device: str  # for reports, e.g. "CPUExecutionProvider" or "TensorRT 8.5.3.1 on NVIDIA H200"

    def run(self, feeds: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Run one batch; the returned arrays are owned by the caller.

        Raises:
            ModelError: a feed is missing, of the wrong shape or dtype, or outside the profile.
        """
        ...

    def close(self) -> None:
        """Release device memory; calling it twice is allowed."""
        ...
