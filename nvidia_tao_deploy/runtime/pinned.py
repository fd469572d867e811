"""Page-locking memory that is already there, so that the GPU copies from it at full speed and without waiting.

Goes through the driver library by ctypes, so it serves ONNX Runtime too and needs no CUDA package. Where there is no
GPU, or the driver refuses, the memory stays as it is: copies are slower, nothing else changes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from nvidia_tao_deploy.runtime.cuda import gpus

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
    driver = _context(gpu) if gpu is not None and array.nbytes else None
    address, size = array.ctypes.data, array.nbytes
    register = getattr(driver, "cuMemHostRegister_v2", None)
    if register is None or register(ctypes.c_void_p(address), ctypes.c_size_t(size), _PORTABLE) != 0:
        yield False
        return
    _locked[address] = size
    try:
        yield True
    finally:
        del _locked[address]
        _context(gpu)
        driver.cuMemHostUnregister(ctypes.c_void_p(address))  # type: ignore[union-attr]


def _context(gpu: int | None) -> ctypes.CDLL | None:
    """The driver library with ``gpu``'s primary context current in this thread; None where that cannot be had.

    The reference to the primary context that this takes is kept: the runtimes use the same context until the end.
    """
    if gpu is None or not 0 <= gpu < len(gpus()):
        return None
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, context = ctypes.c_int(0), ctypes.c_void_p()
    if driver.cuDeviceGet(ctypes.byref(device), gpu) != 0:
        return None
    if gpu not in _contexts:
        if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) != 0:
            return None
        _contexts[gpu] = context
    return driver if driver.cuCtxSetCurrent(_contexts[gpu]) == 0 else None


_contexts: dict[int, ctypes.c_void_p] = {}
