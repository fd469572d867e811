"""Page-locking memory that is already there, so that the GPU copies from it at full speed and without waiting.

Where there is no GPU, or the driver refuses, the memory stays as it is: copies are slower, nothing else changes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from nvidia_tao_deploy.errors import RuntimeUnavailableError
from nvidia_tao_deploy.runtime import driver

_PORTABLE = 1  # CU_MEMHOSTREGISTER_PORTABLE: pinned for every context of this process
_locked: dict[int, int] = {}  # address -> bytes, of what is page-locked now


def is_pinned(array: NDArray[Any]) -> bool:
    """Whether ``array`` is contiguous and lies in memory that :func:`pinned` holds locked."""
    if not _locked or not array.flags.c_contiguous:
        return False
    address = array.ctypes.data
    return any(start <= address and address + array.nbytes <= start + size for start, size in list(_locked.items()))


@contextmanager
def pinned(array: NDArray[Any], gpu: int | None) -> Iterator[bool]:
    """Page-lock ``array`` while the block runs; whether it worked. ``gpu`` None: nothing is done."""
    address, size = array.ctypes.data, array.nbytes
    if gpu is None or not size or not _register(gpu, address, size):
        yield False
        return
    _locked[address] = size
    try:
        yield True
    finally:
        del _locked[address]
        driver.make_current(gpu)
        driver.call("cuMemHostUnregister", ctypes.c_void_p(address))


def _register(gpu: int, address: int, size: int) -> bool:
    try:
        driver.make_current(gpu)
        driver.call("cuMemHostRegister_v2", ctypes.c_void_p(address), ctypes.c_size_t(size), _PORTABLE)
    except (RuntimeUnavailableError, AttributeError):  # no driver, or one without this call
        return False
    return True
