"""The only module that talks to CUDA: devices, streams, memory, copies, events.

Asking about the GPU (`gpu_available`, `gpu_name`, `compute_capability`) goes through the driver library by
ctypes and works on machines with no CUDA at all. Everything that allocates needs ``cuda-python`` (its
``cuda.bindings.runtime``, or ``cuda.cudart`` of releases before 12.6).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import RuntimeUnavailableError

_DRIVER_LIBRARIES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
_BLOCKING_SYNC = 4  # CU_CTX_SCHED_BLOCKING_SYNC
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{MAJOR,MINOR}


@dataclass(frozen=True)
class Gpu:
    """One CUDA device as the driver describes it."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    total_memory: int  # bytes


@lru_cache(maxsize=1)
def gpus() -> tuple[Gpu, ...]:
    """The CUDA devices of this machine; empty without a driver. Does not create a CUDA context."""
    driver = driver_library()
    if driver is None or driver.cuInit(0) != 0:
        return ()
    count = ctypes.c_int(0)
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(gpu for gpu in (_describe(driver, index) for index in range(count.value)) if gpu is not None)


def gpu_available() -> bool:
    """Whether a CUDA device can be used here."""
    return bool(gpus())


def gpu_name(device: int = 0) -> str | None:
    """The device's marketing name, None if there is no such device."""
    found = gpus()
    return found[device].name if 0 <= device < len(found) else None


def compute_capability(device: int = 0) -> tuple[int, int] | None:
    """(major, minor) of the device, None if there is no such device."""
    found = gpus()
    return found[device].compute_capability if 0 <= device < len(found) else None


def driver_version() -> str | None:
    """The CUDA version the driver supports, such as "13.0"; None without a driver."""
    driver = driver_library()
    version = ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def driver_library() -> ctypes.CDLL | None:
    """The driver library, a new handle of it each time; None without a driver."""
    for name in _DRIVER_LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _describe(driver: ctypes.CDLL, index: int) -> Gpu | None:
    handle = ctypes.c_int(0)
    if driver.cuDeviceGet(ctypes.byref(handle), index) != 0:
        return None
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, 256, handle)
    values = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int(0)
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        values.append(value.value)
    memory = ctypes.c_size_t(0)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    return Gpu(index, name.value.decode(errors="replace"), (values[0], values[1]), memory.value)


@lru_cache(maxsize=1)
def cudart() -> Any:
    """The CUDA runtime binding.

    Raises:
        RuntimeUnavailableError: cuda-python is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ImportError:
        pass
    else:
        return runtime
    try:
        from cuda import cudart as legacy
    except ImportError as error:
        raise RuntimeUnavailableError(
            "engines need the CUDA bindings for Python, which are not installed",
            remedy="pip install cuda-python (any release from 11.8; it needs only the GPU driver).",
        ) from error
    return legacy


def check(result: tuple[Any, ...]) -> Any:
    """The value of a CUDA call's ``(error, value...)`` tuple: None, the value, or a tuple of values.

    Raises:
        RuntimeUnavailableError: the call failed; the message has CUDA's name of the error.
    """
    error, values = result[0], result[1:]
    if int(error) != 0:
        name = getattr(error, "name", str(error))
        remedy = _REMEDIES.get(name, "See nvidia-smi for the state of the GPU.")
        raise RuntimeUnavailableError(f"a CUDA call failed: {name}", remedy=remedy)
    if not values:
        return None
    return values[0] if len(values) == 1 else values


_REMEDIES = {
    "cudaErrorMemoryAllocation": "The GPU's memory is full: lower the batch size or close other programs on that GPU.",
    "cudaErrorInsufficientDriver": "No usable GPU driver: install one, or use the prepared .onnx with ONNX Runtime.",
    "cudaErrorNoDevice": "There is no GPU here: use the prepared .onnx with ONNX Runtime.",
    "cudaErrorInvalidDevice": "There is no GPU of that index: check gpu_id and CUDA_VISIBLE_DEVICES.",
}


def _address(handle: Any) -> int:
    # Not int(handle): that some handle classes convert is undocumented.
    if isinstance(handle, int):
        return handle
    try:
        from cuda.bindings.utils import get_cuda_native_handle
    except ImportError:
        return int(handle)
    return int(get_cuda_native_handle(handle))


@lru_cache(maxsize=64)
def wait_asleep(device: int) -> None:
    """Let threads that wait for ``device`` sleep; by default each keeps a core busy that could decode images.

    To be called before the device is used first. Where the driver refuses they go on spinning: no harm but speed.
    """
    driver, handle = driver_library(), ctypes.c_int(0)
    if driver is not None and driver.cuDeviceGet(ctypes.byref(handle), device) == 0:
        driver.cuDevicePrimaryCtxSetFlags_v2(handle, _BLOCKING_SYNC)


def set_device(device: int) -> None:
    """Make ``device`` current for this thread (its primary context)."""
    wait_asleep(device)
    check(cudart().cudaSetDevice(device))


class Stream:
    """A non-blocking CUDA stream; ``int(stream.handle)`` is what TensorRT takes."""

    def __init__(self) -> None:
        runtime = cudart()
        self._stream: Any = check(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self.handle = _address(self._stream)

    def synchronize(self) -> None:
        """Wait until everything enqueued has run."""
        check(cudart().cudaStreamSynchronize(self._stream))

    def wait(self, event: Event) -> None:
        """Let work enqueued from now on wait for ``event``."""
        check(cudart().cudaStreamWaitEvent(self._stream, event.native, 0))

    @property
    def native(self) -> Any:
        """The binding's own stream object."""
        return self._stream

    def close(self) -> None:
        """Destroy the stream; calling it twice is allowed."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            check(cudart().cudaStreamDestroy(stream))


class Event:
    """A CUDA event with timing."""

    def __init__(self) -> None:
        self.native: Any = check(cudart().cudaEventCreate())

    def record(self, stream: Stream) -> None:
        """Mark the present end of ``stream``."""
        check(cudart().cudaEventRecord(self.native, stream.native))

    def synchronize(self) -> None:
        """Wait until the mark is reached."""
        check(cudart().cudaEventSynchronize(self.native))

    def since(self, start: Event) -> float:
        """Milliseconds of GPU time from ``start`` to this event."""
        return float(check(cudart().cudaEventElapsedTime(start.native, self.native)))

    def close(self) -> None:
        """Destroy the event; calling it twice is allowed."""
        if self.native is not None:
            event, self.native = self.native, None
            check(cudart().cudaEventDestroy(event))


class Graph:
    """Work recorded from a stream, replayed with one call."""

    def __init__(self, stream: Stream, enqueue: Callable[[], bool]) -> None:
        """Record what ``enqueue`` puts on ``stream``; nothing of it runs yet.

        Raises:
            RuntimeUnavailableError: it cannot be recorded.
        """
        runtime = cudart()
        check(
            runtime.cudaStreamBeginCapture(
                stream.native, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
            )
        )
        try:
            accepted = enqueue()
        finally:
            ended = runtime.cudaStreamEndCapture(stream.native)
        graph = check(ended)
        if not accepted:
            raise RuntimeUnavailableError("the work was not accepted while it was recorded")
        self._executable: Any = check(runtime.cudaGraphInstantiateWithFlags(graph, 0))
        check(runtime.cudaGraphDestroy(graph))

    def launch(self, stream: Stream) -> None:
        """Enqueue the recorded work on ``stream``."""
        check(cudart().cudaGraphLaunch(self._executable, stream.native))

    def close(self) -> None:
        """Destroy the graph; calling it twice is allowed."""
        if self._executable is not None:
            executable, self._executable = self._executable, None
            check(cudart().cudaGraphExecDestroy(executable))


class DeviceMemory:
    """A block of device memory of ``nbytes`` bytes at address ``pointer``."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = max(int(nbytes), 1)
        self.pointer = int(check(cudart().cudaMalloc(self.nbytes)))

    def close(self) -> None:
        """Free the block; calling it twice is allowed."""
        if self.pointer:
            pointer, self.pointer = self.pointer, 0
            check(cudart().cudaFree(pointer))


class PinnedMemory:
    """Page-locked host memory: what makes asynchronous copies asynchronous.

    ``bytes`` is a uint8 view of it; it must not be used after `close`.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = max(int(nbytes), 1)
        self.pointer = int(check(cudart().cudaMallocHost(self.nbytes)))
        raw: Any = (ctypes.c_uint8 * self.nbytes).from_address(self.pointer)
        self.bytes: NDArray[np.uint8] = np.frombuffer(raw, dtype=np.uint8)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The beginning of the block seen as an array of ``shape`` and ``dtype``; no copy."""
        count = int(np.prod(shape, dtype=np.int64))
        return self.bytes[: count * dtype.itemsize].view(dtype).reshape(shape)

    def close(self) -> None:
        """Free the block; calling it twice is allowed."""
        if self.pointer:
            pointer, self.pointer = self.pointer, 0
            self.bytes = np.empty(0, np.uint8)
            check(cudart().cudaFreeHost(pointer))


def copy_to_device(device: int, host: int, nbytes: int, stream: Stream) -> None:
    """Enqueue a copy of ``nbytes`` from host address ``host`` to device address ``device``."""
    kind = cudart().cudaMemcpyKind.cudaMemcpyHostToDevice
    check(cudart().cudaMemcpyAsync(device, host, nbytes, kind, stream.native))


def copy_to_host(host: int, device: int, nbytes: int, stream: Stream) -> None:
    """Enqueue a copy of ``nbytes`` from device address ``device`` to host address ``host``."""
    kind = cudart().cudaMemcpyKind.cudaMemcpyDeviceToHost
    check(cudart().cudaMemcpyAsync(host, device, nbytes, kind, stream.native))
