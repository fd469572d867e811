"""The CUDA driver library by ctypes: contexts, memory, streams and kernels, with no CUDA package installed.

Serves what must work under ONNX Runtime too: page-locking (`runtime.pinned`) and transforms on the GPU
(`transforms.on_gpu`). It uses the primary context, which is the one the CUDA runtime, TensorRT and ONNX Runtime use, so
pointers and streams can be handed between them. ctypes releases the GIL during every call.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from nvidia_tao_deploy.errors import RuntimeUnavailableError
from nvidia_tao_deploy.runtime.cuda import driver_library, gpus

_NON_BLOCKING = 1
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
    library.cuMemcpyHtoDAsync_v2.argtypes = [pointer, handle, size, handle]
    library.cuMemcpyHtoD_v2.argtypes = [pointer, handle, size]
    library.cuMemcpyDtoH_v2.argtypes = [handle, pointer, size]
    library.cuStreamSynchronize.argtypes = library.cuStreamDestroy_v2.argtypes = [handle]
    library.cuLaunchKernel.argtypes = [handle, *[ctypes.c_uint] * 7, handle, handle, handle]
    return library


def call(name: str, *arguments: Any) -> None:
    """Call a driver function.

    Raises:
        RuntimeUnavailableError: it failed; the message has CUDA's name of the error.
    """
    library = _library()
    code = getattr(library, name)(*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        library.cuGetErrorName(code, ctypes.byref(text))
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
    """A stream; ``handle`` is what the CUDA runtime and ONNX Runtime take too."""

    def __init__(self) -> None:
        stream = ctypes.c_void_p()
        call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        self.handle = int(stream.value or 0)

    def synchronize(self) -> None:
        """Wait until everything enqueued has run."""
        call("cuStreamSynchronize", self.handle)

    def close(self) -> None:
        """Destroy it; calling it twice is allowed."""
        handle, self.handle = self.handle, 0
        if handle:
            call("cuStreamDestroy_v2", handle)


def upload(pointer: int, host: int, nbytes: int, stream: int | None = None) -> None:
    """Copy to the device; with a stream only enqueued, which needs page-locked memory to be worth it."""
    if stream is None:
        call("cuMemcpyHtoD_v2", pointer, host, nbytes)
    else:
        call("cuMemcpyHtoDAsync_v2", pointer, host, nbytes, stream)


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
        call("cuLaunchKernel", self._function, *grid, *block, 0, stream, pointers, None)
