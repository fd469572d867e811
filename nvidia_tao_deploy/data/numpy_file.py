"""NumPy's own files, read by several threads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from nvidia_tao_deploy.arrays import Array

# numpy parses headers with ``ast``, whose count of depth is one for all threads in CPython 3.11 (SystemError: "AST
# constructor recursion depth mismatch", seen with 3.11.7).
_one_at_a_time = threading.Lock()


def read_npy(path: Path) -> Array:
    """The array of an NPY file; no pickles. OSError, ValueError or EOFError where it is none."""
    with _one_at_a_time:
        return np.asarray(np.load(path, allow_pickle=False))


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an NPZ file; no pickles. As :func:`read_npy`, or BadZipFile, TypeError or AttributeError."""
    with _one_at_a_time, np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}
