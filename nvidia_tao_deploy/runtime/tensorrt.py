"""Engines on TensorRT 8.5 to 11 and TensorRT-RTX: one code for all, on the name-based API that they share."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import ModelError, RuntimeUnavailableError
from nvidia_tao_deploy.runtime import cuda
from nvidia_tao_deploy.runtime.pinned import is_pinned
from nvidia_tao_deploy.runtime.session import BatchLimits, DeviceInput, TensorInfo

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

    Two runs may be under way at once, each in a slot of buffers for the largest shapes of profile 0 (page-locked on the
    host, and on the device) with a stream for its copies. One stream executes the slots in turn, so one batch's copies
    overlap another's execution; a single context serves both, since before TensorRT 10 two contexts may not share a
    profile. The second slot is made when it is first needed. Inputs in page-locked memory are copied from where they
    are. Where TensorRT 8 narrowed int64 to int32, inputs and outputs keep the model's type if there is a manifest to
    know it from.

    Attributes:
        slots: runs that may be under way at once, each in a thread of its own.
        gpu: device index.
    """

    slots = 2

    def __init__(self, path: Path, device: int = 0, *, cuda_graph: bool = False) -> None:
        """Load ``path`` on GPU ``device``.

        Args:
            path: the plan.
            device: GPU index.
            cuda_graph: record a CUDA graph per slot and input shapes and replay it, where no output's shape depends on
                data and the engine lets itself be recorded.

        Raises:
            ModelError: the file is missing or is no plan that the installed library reads.
            RuntimeUnavailableError: no GPU, library or CUDA binding for it here.
        """
        from nvidia_tao_deploy.engine import backend as backends
        from nvidia_tao_deploy.engine.manifest import Manifest, engine_runtime

        path = Path(path)
        backend = backends.load(engine_runtime(path))
        manifest = Manifest.beside(path)
        self._trt = backend.module
        self._path = path
        self.gpu = device
        self._local = threading.local()
        self._closed = False
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._allocators: dict[str, Any] = {}
        self._made: list[_Slot] = []
        self._free: SimpleQueue[_Slot] = SimpleQueue()
        self._growing = threading.Lock()
        self._turn = threading.Lock()  # of the one context: addresses, shapes and enqueueing belong together
        self._bound: _Slot | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._with_graphs = cuda_graph
        self._select_device()
        self._execution = cuda.Stream()
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
        self._free.put(self._new_slot())

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

    def _new_slot(self) -> _Slot:
        """Buffers for the largest shapes of profile 0."""
        slot = _Slot()
        self._made.append(slot)
        with self._turn:
            self._execution.synchronize()
            for info in self.inputs:
                largest = self._limits[info.name][1]
                slot.buffers[info.name] = _Buffer(_nbytes(largest, self._engine_dtypes[info.name]))
                self._bind(slot, info.name)
                if info.name not in self._on_host:
                    self._set_shape(info.name, largest)
            self._bound, self._shapes = slot, {}
            if self._on_host & {info.name for info in self.inputs}:
                return slot  # output shapes depend on values that are not known yet: made at the first run
            for info in self.outputs:
                shape = tuple(self._context.get_tensor_shape(info.name))
                if min(shape, default=0) < 0:
                    self._use_allocator(info.name)
                else:
                    self._fit_output(slot, info.name, shape)
        return slot

    def _take_slot(self) -> _Slot:
        """A free slot; a new one while there are fewer than ``slots`` (one where outputs need allocators)."""
        try:
            return self._free.get_nowait()
        except Empty:
            pass
        with self._growing:
            if len(self._made) < (1 if self._allocators else self.slots):
                try:
                    return self._new_slot()
                except RuntimeUnavailableError:  # no memory for a second one: the first has to do
                    self.slots = 1
                    self._made.pop().close()
                    self._bound = None
        return self._free.get()

    def _use_allocator(self, name: str) -> None:
        if name in self._allocators:
            return
        allocator = _make_allocator(self._trt)
        if not self._context.set_output_allocator(name, allocator):
            raise ModelError(f"output {name!r} has a shape known only after running, and no allocator is accepted")
        self._allocators[name] = allocator

    def _fit_output(self, slot: _Slot, name: str, shape: tuple[int, ...]) -> None:
        needed = _nbytes(shape, self._engine_dtypes[name])
        buffer = slot.buffers.get(name)
        if buffer is None or buffer.host.nbytes < needed:
            if buffer is not None:
                buffer.close()
            slot.buffers[name] = _Buffer(needed)
            slot.drop_graphs()
            self._bind(slot, name)

    def _bind(self, slot: _Slot, name: str) -> None:
        buffer = slot.buffers[name]
        pointer = buffer.host.pointer if name in self._on_host else buffer.device.pointer
        if not self._context.set_tensor_address(name, pointer):
            raise ModelError(f"TensorRT refused the buffer of tensor {name!r}", where=str(self._path))

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if not self._context.set_input_shape(name, shape):
            raise ModelError(f"TensorRT refused shape {shape} for input {name!r}", where=str(self._path))

    def run(self, feeds: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
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
        slot = self._take_slot()
        try:
            return self._run_in(slot, arrays)
        finally:
            self._free.put(slot)

    def _run_in(self, slot: _Slot, arrays: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        for name, array in arrays.items():
            self._upload(slot, name, array)
        slot.uploaded.record(slot.stream)
        with self._turn:
            shapes = self._enqueue(slot, arrays)
            self._execution.wait(slot.uploaded)
            self._execute(slot, arrays)
            slot.executed.record(self._execution)
            if self._allocators:
                self._execution.synchronize()  # their memory is the next run's too
            allocated = self._allocated_results()
        slot.stream.wait(slot.executed)
        for name, shape in shapes.items():
            if name not in self._on_host:
                self._download(slot, name, _nbytes(shape, self._engine_dtypes[name]))
        slot.stream.synchronize()
        results = {name: self._result(slot, name, shape) for name, shape in shapes.items()}
        results.update(allocated)
        return {info.name: results[info.name] for info in self.outputs}

    def _enqueue(self, slot: _Slot, arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Make the context this slot's; the shapes of the outputs that are known before running."""
        if self._bound is not slot:
            for name in slot.buffers:
                self._bind(slot, name)
            self._bound = slot
        shapes = {name: array.shape for name, array in arrays.items() if name not in self._on_host}
        if shapes != self._shapes:
            self._execution.synchronize()  # shapes are the context's, and it may be executing the other slot
            for name, shape in shapes.items():
                self._set_shape(name, shape)
            self._shapes = shapes
        return self._output_shapes(slot)

    def _checked(self, info: TensorInfo, feeds: Mapping[str, Any]) -> Any:
        if info.name not in feeds:
            raise ModelError(f"no array for input {info.name!r}", remedy=f"Inputs: {', '.join(map(str, self.inputs))}.")
        feed = feeds[info.name]
        array = feed if isinstance(feed, DeviceInput) else np.asarray(feed)
        if array.dtype != info.dtype and array.dtype != self._engine_dtypes[info.name]:
            raise ModelError(
                f"input {info.name!r} is {info.dtype.name}, the array is {array.dtype.name}",
                remedy="Cast the array before running.",
            )
        smallest, largest = self._limits[info.name]
        if len(array.shape) != len(smallest):
            raise ModelError(f"input {info.name!r} has {len(smallest)} axes, the array's shape is {array.shape}")
        for axis, (low, size, high) in enumerate(zip(smallest, array.shape, largest, strict=True)):
            if not low <= size <= high:
                raise ModelError(
                    f"input {info.name!r}: axis {axis} has size {size}, the engine takes {low} to {high}",
                    remedy="Change the batch, or build the engine again with a profile that covers it.",
                )
        return array

    def _upload(self, slot: _Slot, name: str, array: Any) -> None:
        dtype, buffer = self._engine_dtypes[name], slot.buffers[name]
        if isinstance(array, DeviceInput):
            array.write(buffer.device.pointer, slot.stream.handle)
            return
        nbytes = _nbytes(array.shape, dtype)
        if array.dtype == dtype and name not in self._on_host and is_pinned(array):
            # The caller's array is not touched before run returns, and it returns after this copy is over.
            cuda.copy_to_device(buffer.device.pointer, array.ctypes.data, nbytes, slot.stream)
            return
        if array.dtype != dtype and dtype.kind == "i" and np.any(array != array.astype(dtype)):
            raise ModelError(f"input {name!r} holds values that do not fit {dtype.name}, the engine's type")
        np.copyto(buffer.host.array(array.shape, dtype), array, casting="unsafe")
        if name not in self._on_host:
            cuda.copy_to_device(buffer.device.pointer, buffer.host.pointer, nbytes, slot.stream)

    def _output_shapes(self, slot: _Slot) -> dict[str, tuple[int, ...]]:
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
            self._fit_output(slot, info.name, shape)
            shapes[info.name] = shape
        return shapes

    def _execute(self, slot: _Slot, arrays: Mapping[str, Any]) -> None:
        """Enqueue the execution; from the second time that a slot sees these shapes on, as a recorded graph."""
        key = tuple(array.shape for array in arrays.values())
        if key in slot.graphs:
            slot.graphs[key].launch(self._execution)
            return
        wanted = self._with_graphs and not self._allocators and not self._on_host
        if wanted and key in slot.seen:  # TensorRT wants one plain run with the shapes before it is recorded
            self._execution.synchronize()
            try:
                slot.graphs[key] = cuda.Graph(self._execution, self._enqueue_plain)
            except RuntimeUnavailableError:
                self._with_graphs = False  # an engine with layers that cannot be recorded
            else:
                slot.graphs[key].launch(self._execution)
                return
        slot.seen.add(key)
        _, errors = _logger(self._trt)
        errors.clear()
        if not self._enqueue_plain():
            raise ModelError(f"the engine failed to run: {_last(errors)}", where=str(self._path))

    def _enqueue_plain(self) -> bool:
        return bool(self._context.execute_async_v3(self._execution.handle))

    def _download(self, slot: _Slot, name: str, nbytes: int) -> None:
        buffer = slot.buffers[name]
        cuda.copy_to_host(buffer.host.pointer, buffer.device.pointer, nbytes, slot.stream)

    def _result(self, slot: _Slot, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        view = slot.buffers[name].host.array(shape, self._engine_dtypes[name])
        return view.astype(self._declared(name), copy=True)

    def _declared(self, name: str) -> np.dtype[Any]:
        return next(info.dtype for info in self.outputs if info.name == name)

    def _allocated_results(self) -> dict[str, NDArray[Any]]:
        results = {}
        for name, allocator in self._allocators.items():
            dtype = self._engine_dtypes[name]
            host = np.empty(allocator.shape, dtype)
            if host.size:
                cuda.copy_to_host(host.ctypes.data, allocator.memory.pointer, host.nbytes, self._execution)
            results[name] = host
        if results:
            self._execution.synchronize()
        return {name: host.astype(self._declared(name), copy=False) for name, host in results.items()}

    def _select_device(self) -> None:
        # The current device belongs to the thread, and pipelines run sessions in threads of their own.
        if not getattr(self._local, "selected", False):
            self._local.selected = True
            cuda.set_device(self.gpu)

    def close(self) -> None:
        """Release device memory; calling it twice is allowed."""
        if self._closed:
            return
        self._closed = True
        for slot in self._made:
            slot.drop_graphs()
        self._context = None  # before its engine, the engine before its runtime
        self._engine = None
        self._runtime = None
        for allocator in self._allocators.values():
            allocator.close()
        for slot in self._made:
            slot.close()
        self._allocators, self._made, self._bound = {}, [], None
        self._execution.close()

    def __enter__(self) -> TensorRTSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Slot:
    """What one run under way needs of its own."""

    def __init__(self) -> None:
        self.buffers: dict[str, _Buffer] = {}
        self.graphs: dict[tuple[tuple[int, ...], ...], cuda.Graph] = {}
        self.seen: set[tuple[tuple[int, ...], ...]] = set()
        self.stream = cuda.Stream()
        self.uploaded, self.executed = cuda.Event(), cuda.Event()

    def drop_graphs(self) -> None:
        for graph in self.graphs.values():
            graph.close()
        self.graphs.clear()
        self.seen.clear()

    def close(self) -> None:
        self.drop_graphs()
        for buffer in self.buffers.values():
            buffer.close()
        self.buffers = {}
        for owned in (self.uploaded, self.executed, self.stream):
            owned.close()


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
