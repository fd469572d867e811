"""Refusal of outputs that no decoder can make sense of."""

from __future__ import annotations

import numpy as np

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.errors import ModelError


def refuse_nan(*arrays: Array) -> None:
    """ModelError where a value is NaN; infinities pass."""
    if any(array.size and np.isnan(array.max()) for array in arrays):  # NaN is the maximum of what holds it
        raise ModelError(
            "the model's outputs hold NaN",
            remedy="A layer overflows in reduced precision: build in fp32, or keep that layer in fp32.",
        )
