"""Engines on TensorRT 8.5 to 11 and TensorRT-RTX: one code for all, on the name-based API that they share."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import ModelError, RuntimeUnavailableError
from nvidia_tao_deploy.runtime import cuda
from nvidia_tao_deploy.runtime.session import BatchLimits, TensorInfo

# trt.nptype raises for the newer types, so the table is ours; names of ml_dtypes where numpy has none.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
    "FP8": "float8_e4m3fn",
}
_ML_DTYPES = {"bfloat16", "float8_e4m3fn"}
# What TensorRT narrows on its way in: the model's type -> the engine's type.
_NARROWED = {("int64", "int32"), ("float64", "float32")}


class TensorRTSession:
    """A serialized plan loaded on a GPU (see `nvidia_tao_deploy.runtime.session.Session`).

    Buffers for the largest shapes of profile 0 are made once: pinned on the host, so that copies run on the
    session's own stream, and one on the device per tensor. ``run`` enqueues copies, execution and copies back and
    waits once. Where TensorRT 8 narrowed int64 to int32, inputs and outputs keep the model's type if there is a
    manifest to know it from.
    """

    def __init__(self, path: Path, device: int = 0, *, cuda_graph: bool = False) -> None:
        """Load ``path`` on GPU ``device``.

        Raises:
            ModelError: the file is missing or is no plan that the installed library reads.
            RuntimeUnavailableError: no GPU, library or CUDA binding for it here.
        """
        from nvidia_tao_deploy.engine import backend as backends
        from nvidia_tao_deploy.engine.manifest import Manifest, engine_runtime, manifest_path

        path = Path(path)
        backend = backends.load(engine_runtime(path))
        manifest = Manifest.load(path) if manifest_path(path).is_file() else None
        self._trt = backend.module
        self._path = path
        self._gpu = device
        self._thread: int | None = None
        self._closed = False
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._buffers: dict[str, _Buffer] = {}
        self._allocators: dict[str, Any] = {}
        self._select_device()
        self._stream = cuda.Stream()
        try:
            self._load(backend, manifest)
        except BaseException:
            self.close()
            raise
        self.device = f"{backend.title} on {cuda.gpu_name(device)}"

    def _load(self, backend: Any, manifest: Any) -> None:
        trt = self._trt
        logger, errors = _logger(trt)
        errors.clear()
        if backend.features.plugins:
            trt.init_libnvinfer_plugins(logger, "")
        try:
            self._runtime = trt.Runtime(logger)
        except TypeError as error:  # what the binding makes of a factory that returned nothing
            raise RuntimeUnavailableError(
                f"{backend.title} could not start: {_last(errors)}",
                remedy="Check the GPU driver: it may be missing or older than this library needs.",
            ) from error
        if manifest is not None and "VERSION_COMPATIBLE" in manifest.build_options.get("flags", []):
            # Such plans carry the runtime they were built with as code; only those are allowed to.
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(self._path.read_bytes())
        if self._engine is None:
            raise ModelError(
                f"{backend.title} cannot load this engine: {_last(errors)}",
                where=str(self._path),
                remedy="Engines run only on the TensorRT version and GPU they were built for: build it again here.",
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise RuntimeUnavailableError(
                f"no execution context for {self._path}: {_last(errors)}",
                remedy="The GPU's memory may be full: free it or build with a smaller max batch.",
            )
        self._describe(manifest)
        self._allocate()

    def _describe(self, manifest: Any) -> None:
        """Names, shapes, types and shape limits of all tensors."""
        engine, trt = self._engine, self._trt
        declared = {} if manifest is None else {t["name"]: t["dtype"] for t in (*manifest.inputs, *manifest.outputs)}
        inputs: list[TensorInfo] = []
        outputs: list[TensorInfo] = []
        self._engine_dtypes: dict[str, np.dtype[Any]] = {}
        self._limits: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        self._on_host: set[str] = set()
        for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            shape = tuple(engine.get_tensor_shape(name))
            dtype = self._engine_dtypes[name] = numpy_dtype(engine.get_tensor_dtype(name).name, name)
            if engine.get_tensor_location(name) == trt.TensorLocation.HOST:
                self._on_host.add(name)
            kept = declared.get(name, dtype.name)
            info = TensorInfo(
                name,
                tuple(None if size < 0 else int(size) for size in shape),
                np.dtype(kept) if (kept, dtype.name) in _NARROWED else dtype,
            )
            (inputs if is_input else outputs).append(info)
            if is_input:
                self._limits[name] = self._profile_limits(name, shape)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.batch = _batch_limits(self.inputs, self._limits)

    def _profile_limits(self, name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if min(shape, default=0) >= 0:
            return shape, shape
        smallest, _, largest = self._engine.get_tensor_profile_shape(name, 0)
        return tuple(smallest), tuple(largest)

    def _allocate(self) -> None:
        """Buffers for the largest shapes of profile 0."""
        for info in self.inputs:
            largest = self._limits[info.name][1]
            self._buffers[info.name] = _Buffer(_nbytes(largest, self._engine_dtypes[info.name]))
            self._bind(info.name)
            if info.name not in self._on_host:
                self._set_shape(info.name, largest)
        if self._on_host & {info.name for info in self.inputs}:
            return  # output shapes depend on values that are not known yet: made at the first run
        for info in self.outputs:
            shape = tuple(self._context.get_tensor_shape(info.name))
            if min(shape, default=0) < 0:
                self._use_allocator(info.name)
            else:
                self._fit_output(info.name, shape)

    def _use_allocator(self, name: str) -> None:
        allocator = _make_allocator(self._trt)
        if not self._context.set_output_allocator(name, allocator):
            raise ModelError(f"output {name!r} has a shape known only after running, and no allocator is accepted")
        self._allocators[name] = allocator

    def _fit_output(self, name: str, shape: tuple[int, ...]) -> None:
        needed = _nbytes(shape, self._engine_dtypes[name])
        buffer = self._buffers.get(name)
        if buffer is None or buffer.host.nbytes < needed:
            if buffer is not None:
                buffer.close()
            self._buffers[name] = _Buffer(needed)
            self._bind(name)

    def _bind(self, name: str) -> None:
        buffer = self._buffers[name]
        pointer = buffer.host.pointer if name in self._on_host else buffer.device.pointer
        if not self._context.set_tensor_address(name, pointer):
            raise ModelError(f"TensorRT refused the buffer of tensor {name!r}", where=str(self._path))

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if not self._context.set_input_shape(name, shape):
            raise ModelError(f"TensorRT refused shape {shape} for input {name!r}", where=str(self._path))

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run one batch; the returned arrays are owned by the caller.

        Raises:
            ModelError: a feed is missing, unknown, of another dtype or rank, or outside the profile; or the
                execution failed.
        """
        if self._closed:
            raise ModelError("the session is closed", where=str(self._path))
        arrays = {info.name: self._checked(info, feeds) for info in self.inputs}
        if len(feeds) > len(arrays):
            unknown = ", ".join(sorted(set(feeds) - set(arrays)))
            raise ModelError(f"the engine has no input {unknown}", remedy=f"Its inputs: {', '.join(arrays)}.")
        self._select_device()
        for name, array in arrays.items():
            self._upload(name, array)
        shapes = self._output_shapes()
        self._execute()
        for name, shape in shapes.items():
            if name not in self._on_host:
                self._download(name, _nbytes(shape, self._engine_dtypes[name]))
        self._stream.synchronize()
        results = {name: self._result(name, shape) for name, shape in shapes.items()}
        results.update(self._allocated_results())
        return {info.name: results[info.name] for info in self.outputs}

    def _checked(self, info: TensorInfo, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        if info.name not in feeds:
            raise ModelError(f"no array for input {info.name!r}", remedy=f"Inputs: {', '.join(map(str, self.inputs))}.")
        array = np.asarray(feeds[info.name])
        if array.dtype != info.dtype and array.dtype != self._engine_dtypes[info.name]:
            raise ModelError(
                f"input {info.name!r} is {info.dtype.name}, the array is {array.dtype.name}",
                remedy="Cast the array before running.",
            )
        smallest, largest = self._limits[info.name]
        if array.ndim != len(smallest):
            raise ModelError(f"input {info.name!r} has {len(smallest)} axes, the array's shape is {array.shape}")
        for axis, (low, size, high) in enumerate(zip(smallest, array.shape, largest, strict=True)):
            if not low <= size <= high:
                raise ModelError(
                    f"input {info.name!r}: axis {axis} has size {size}, the engine takes {low} to {high}",
                    remedy="Change the batch, or build the engine again with a profile that covers it.",
                )
        return array

    def _upload(self, name: str, array: NDArray[Any]) -> None:
        dtype, buffer = self._engine_dtypes[name], self._buffers[name]
        if array.dtype != dtype and dtype.kind == "i" and np.any(array != array.astype(dtype)):
            raise ModelError(f"input {name!r} holds values that do not fit {dtype.name}, the engine's type")
        np.copyto(buffer.host.array(array.shape, dtype), array, casting="unsafe")
        if name in self._on_host:
            return
        self._set_shape(name, array.shape)
        nbytes = _nbytes(array.shape, dtype)
        cuda.copy_to_device(buffer.device.pointer, buffer.host.pointer, nbytes, self._stream)

    def _output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs that are known before running; their buffers are large enough afterwards."""
        missing = list(self._context.infer_shapes())
        if missing:
            raise ModelError(f"shapes are still unknown for {', '.join(missing)}", where=str(self._path))
        shapes = {}
        for info in self.outputs:
            if info.name in self._allocators:
                continue
            shape = tuple(int(size) for size in self._context.get_tensor_shape(info.name))
            if min(shape, default=0) < 0:
                self._use_allocator(info.name)
                continue
            self._fit_output(info.name, shape)
            shapes[info.name] = shape
        return shapes

    def _execute(self) -> None:
        _, errors = _logger(self._trt)
        errors.clear()
        if not self._context.execute_async_v3(self._stream.handle):
            raise ModelError(f"the engine failed to run: {_last(errors)}", where=str(self._path))

    def _download(self, name: str, nbytes: int) -> None:
        buffer = self._buffers[name]
        cuda.copy_to_host(buffer.host.pointer, buffer.device.pointer, nbytes, self._stream)

    def _result(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        view = self._buffers[name].host.array(shape, self._engine_dtypes[name])
        return view.astype(self._declared(name), copy=True)

    def _declared(self, name: str) -> np.dtype[Any]:
        return next(info.dtype for info in self.outputs if info.name == name)

    def _allocated_results(self) -> dict[str, NDArray[Any]]:
        results = {}
        for name, allocator in self._allocators.items():
            dtype = self._engine_dtypes[name]
            host = np.empty(allocator.shape, dtype)
            if host.size:
                cuda.copy_to_host(host.ctypes.data, allocator.memory.pointer, host.nbytes, self._stream)
            results[name] = host
        if results:
            self._stream.synchronize()
        return {name: host.astype(self._declared(name), copy=False) for name, host in results.items()}

    def _select_device(self) -> None:
        # The current device belongs to the thread, and pipelines run sessions in threads of their own.
        if self._thread != threading.get_ident():
            self._thread = threading.get_ident()
            cuda.set_device(self._gpu)

    def close(self) -> None:
        """Release device memory; calling it twice is allowed."""
        if self._closed:
            return
        self._closed = True
        self._context = None  # before its engine, the engine before its runtime
        self._engine = None
        self._runtime = None
        for allocator in self._allocators.values():
            allocator.close()
        for buffer in self._buffers.values():
            buffer.close()
        self._allocators, self._buffers = {}, {}
        self._stream.close()

    def __enter__(self) -> TensorRTSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Buffer:
    """A tensor's pinned host block and device block."""

    def __init__(self, nbytes: int) -> None:
        self.host = cuda.PinnedMemory(nbytes)
        self.device = cuda.DeviceMemory(nbytes)

    def close(self) -> None:
        self.host.close()
        self.device.close()


def numpy_dtype(name: str, tensor: str) -> np.dtype[Any]:
    """The numpy type for ``trt.DataType`` member ``name``.

    Raises:
        ModelError: no array type holds it (4-bit types); ``tensor`` is named.
    """
    known = _DTYPES.get(name)
    if known is None:
        raise ModelError(f"tensor {tensor!r} has type {name}, which no array can hold", remedy="Cast it in the model.")
    if known in _ML_DTYPES:
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, known))
        return dtype
    return np.dtype(known)


def _nbytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def _batch_limits(
    inputs: tuple[TensorInfo, ...], limits: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
) -> BatchLimits:
    for info in inputs:
        if info.shape:
            smallest, largest = limits[info.name]
            return BatchLimits(smallest[0], largest[0])
    return BatchLimits(1, 1)


_LOGGERS: dict[str, tuple[Any, deque[str]]] = {}


def _logger(trt: Any) -> tuple[Any, deque[str]]:
    """The one logger of this process for the library ``trt`` (it ignores a second one) and its last errors."""
    key = trt.__name__
    if key not in _LOGGERS:
        errors: deque[str] = deque(maxlen=20)

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    errors.append(message.strip())

        _LOGGERS[key] = (Logger(), errors)
    return _LOGGERS[key]


def _last(errors: deque[str]) -> str:
    # The first error names the cause; later ones say that its caller failed too.
    return re.sub(r"\s+", " ", errors[0]) if errors else "it gave no reason"


def _make_allocator(trt: Any) -> Any:
    """Memory for one output whose shape is known only after running."""

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.memory = cuda.DeviceMemory(1)
            self.shape: tuple[int, ...] = ()

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            del tensor_name, memory, alignment  # cudaMalloc aligns to 256 bytes
            if size > self.memory.nbytes:
                self.memory.close()
                self.memory = cuda.DeviceMemory(size)
            return self.memory.pointer

        def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            del stream
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            del tensor_name
            self.shape = tuple(int(length) for length in shape)

        def close(self) -> None:
            self.memory.close()

    return Allocator()
