"""The CUDA driver library by ctypes: contexts, memory, streams and kernels, with no CUDA package installed.

Serves what must work under ONNX Runtime too: page-locking (`runtime.pinned`) and transforms on the GPU
(`transforms.on_gpu`). It uses the primary context, which is the one the CUDA runtime, TensorRT and ONNX Runtime use, so
pointers and streams can be handed between them. Calls that wait release the GIL; those that only enqueue keep it, since
getting it back from a busy thread takes longer than they do.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from nvidia_tao_deploy.errors import RuntimeUnavailableError
from nvidia_tao_deploy.runtime.cuda import driver_library, gpus, wait_asleep

_NON_BLOCKING = 1
_FIRST = -1000  # the driver takes the highest priority there is
_NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_contexts: dict[int, ctypes.c_void_p] = {}
_thread = threading.local()


@lru_cache(maxsize=1)
def _library() -> Any:
    library = driver_library()
    if library is None:
        raise RuntimeUnavailableError("there is no CUDA driver on this machine")
    pointer, size, handle = ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p
    library.cuMemAlloc_v2.argtypes = [ctypes.POINTER(pointer), size]
    library.cuMemFree_v2.argtypes = [pointer]
    library.cuMemcpyHtoD_v2.argtypes = [pointer, handle, size]
    library.cuMemcpyDtoH_v2.argtypes = [handle, pointer, size]
    library.cuStreamSynchronize.argtypes = library.cuStreamDestroy_v2.argtypes = [handle]
    return library


@lru_cache(maxsize=1)
def _enqueuing() -> Any:
    library = ctypes.PyDLL(_library()._name)
    pointer, size, handle = ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p
    library.cuMemcpyHtoDAsync_v2.argtypes = [pointer, handle, size, handle]
    library.cuMemcpyDtoDAsync_v2.argtypes = [pointer, pointer, size, handle]
    library.cuMemcpy2DAsync_v2.argtypes = [ctypes.POINTER(_Copy2D), handle]
    library.cuLaunchKernel.argtypes = [handle, *[ctypes.c_uint] * 7, handle, handle, handle]
    return library


class _Copy2D(ctypes.Structure):
    """CUDA_MEMCPY2D."""

    _fields_ = [
        (f"{side}_{name}", kind)
        for side in ("source", "target")
        for name, kind in (
            ("x", ctypes.c_size_t), ("y", ctypes.c_size_t), ("type", ctypes.c_int), ("host", ctypes.c_void_p),
            ("device", ctypes.c_uint64), ("array", ctypes.c_void_p), ("pitch", ctypes.c_size_t),
        )
    ] + [("width", ctypes.c_size_t), ("height", ctypes.c_size_t)]  # fmt: skip


def call(name: str, *arguments: Any, enqueues: bool = False) -> None:
    """Call a driver function; ``enqueues``: it returns at once.

    Raises:
        RuntimeUnavailableError: it failed; the message has CUDA's name of the error.
    """
    code = getattr(_enqueuing() if enqueues else _library(), name)(*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        _library().cuGetErrorName(code, ctypes.byref(text))
        raise RuntimeUnavailableError(
            f"a CUDA call failed: {name}: {(text.value or b'unknown error').decode()}",
            remedy="See nvidia-smi for the state of the GPU.",
        )


def make_current(gpu: int) -> None:
    """Make the primary context of ``gpu`` this thread's.

    The reference to it that this takes is kept: the runtimes use the same context until the end.

    Raises:
        RuntimeUnavailableError: there is no such GPU.
    """
    if getattr(_thread, "gpu", None) == gpu:
        return
    if not 0 <= gpu < len(gpus()):
        raise RuntimeUnavailableError(f"there is no GPU {gpu}")
    if gpu not in _contexts:
        device, context = ctypes.c_int(0), ctypes.c_void_p()
        call("cuDeviceGet", ctypes.byref(device), gpu)
        wait_asleep(gpu)
        call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        _contexts[gpu] = context
    call("cuCtxSetCurrent", _contexts[gpu])
    _thread.gpu = gpu


class Memory:
    """``nbytes`` of device memory at ``pointer``, in the context that is current."""

    def __init__(self, nbytes: int) -> None:
        pointer = ctypes.c_uint64()
        call("cuMemAlloc_v2", ctypes.byref(pointer), max(nbytes, 1))
        self.pointer, self.nbytes = int(pointer.value), nbytes

    def close(self) -> None:
        """Free it; calling it twice is allowed."""
        pointer, self.pointer = self.pointer, 0
        if pointer:
            call("cuMemFree_v2", pointer)


class Stream:
    """A stream; ``handle`` is what the CUDA runtime and ONNX Runtime take too.

    Args:
        first: its kernels go before those of other streams that wait for the GPU.
    """

    def __init__(self, first: bool = False) -> None:
        stream = ctypes.c_void_p()
        call("cuStreamCreateWithPriority", ctypes.byref(stream), _NON_BLOCKING, _FIRST if first else 0)
        self.handle = int(stream.value or 0)

    def synchronize(self) -> None:
        """Wait until everything enqueued has run."""
        call("cuStreamSynchronize", self.handle)

    def close(self) -> None:
        """Destroy it; calling it twice is allowed."""
        handle, self.handle = self.handle, 0
        if handle:
            call("cuStreamDestroy_v2", handle)


def follow(stream: int, leader: int) -> None:
    """Let what is enqueued on ``stream`` from now on wait for what is on ``leader`` already."""
    event = ctypes.c_void_p()
    call("cuEventCreate", ctypes.byref(event), _NO_TIMING, enqueues=True)
    call("cuEventRecord", event, ctypes.c_void_p(leader), enqueues=True)
    call("cuStreamWaitEvent", ctypes.c_void_p(stream), event, 0, enqueues=True)
    call("cuEventDestroy_v2", event, enqueues=True)  # the driver keeps it until it has passed


def upload(pointer: int, host: int, nbytes: int, stream: int | None = None) -> None:
    """Copy to the device; with a stream only enqueued, which needs page-locked memory to be worth it."""
    if stream is None:
        call("cuMemcpyHtoD_v2", pointer, host, nbytes)
    else:
        call("cuMemcpyHtoDAsync_v2", pointer, host, nbytes, stream, enqueues=True)


def upload_rows(pointer: int, host: int, pitch: int, used: int, rows: int, stream: int) -> None:
    """Enqueue a copy of the first ``used`` bytes of each of ``rows`` rows, ``pitch`` bytes apart on both sides."""
    copy = _Copy2D(source_type=1, source_host=host, source_pitch=pitch, width=used, height=rows)
    copy.target_type, copy.target_device, copy.target_pitch = 2, pointer, pitch
    call("cuMemcpy2DAsync_v2", ctypes.byref(copy), stream, enqueues=True)


def copy(target: int, source: int, nbytes: int, stream: int) -> None:
    """Enqueue a copy on the device."""
    call("cuMemcpyDtoDAsync_v2", target, source, nbytes, stream, enqueues=True)


def download(host: int, pointer: int, nbytes: int) -> None:
    """Copy to the host, and wait for it."""
    call("cuMemcpyDtoH_v2", host, pointer, nbytes)


class Kernel:
    """A function of a PTX module, compiled by the driver for the GPU whose context is current."""

    def __init__(self, ptx: bytes, name: str) -> None:
        self._module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        call("cuModuleLoadData", ctypes.byref(self._module), ctypes.c_char_p(ptx + b"\0"))
        call("cuModuleGetFunction", ctypes.byref(self._function), self._module, name.encode())

    def launch(
        self, grid: tuple[int, int, int], block: tuple[int, int, int], stream: int, arguments: Sequence[Any]
    ) -> None:
        """Enqueue it with ctypes values or structures as arguments."""
        pointers = (ctypes.c_void_p * len(arguments))(
            *(ctypes.cast(ctypes.pointer(argument), ctypes.c_void_p) for argument in arguments)
        )
        call("cuLaunchKernel", self._function, *grid, *block, 0, stream, pointers, None, enqueues=True)
