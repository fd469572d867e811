"""Engines on TensorRT 8.5 to 11 and TensorRT-RTX: one code for all, on the name-based API that they share."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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

    Runs may be under way at once, each in a slot of buffers for the largest shapes of profile 0 (page-locked on the
    host, and on the device) with a stream for its copies. There is one slot more than there are execution contexts,
    which have a stream each: copies of one batch overlap the execution of others. Slots are made when they are first
    needed. Inputs in page-locked memory are copied from where they are. Where TensorRT 8 narrowed int64 to int32,
    inputs and outputs keep the model's type if there is a manifest to know it from.

    Attributes:
        slots: runs that may be under way at once, each in a thread of its own.
        gpu: device index.
        refused: options that are not possible here, by name, with the reason.
    """

    def __init__(self, path: Path, device: int = 0, *, cuda_graph: bool = False, contexts: int = 1) -> None:
        """Load ``path`` on GPU ``device``.

        Args:
            path: the plan.
            device: GPU index.
            cuda_graph: record a CUDA graph per slot and input shapes and replay it, where no output's shape depends on
                data and the engine lets itself be recorded.
            contexts: batches that execute at once, where TensorRT lets contexts share what they are for: inputs of
                fixed shapes, a profile for each, TensorRT 10 and later.

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
        self._lanes: list[_Lane] = []
        self._idle: SimpleQueue[_Lane] = SimpleQueue()
        self._made: list[_Slot] = []
        self._free: SimpleQueue[_Slot] = SimpleQueue()
        self._growing = threading.Lock()
        self._with_graphs = cuda_graph
        self.slots = 0
        self.refused: dict[str, str] = {}
        self._select_device()
        try:
            self._load(backend, manifest)
            self._add_contexts(contexts, backend)
            self.slots = len(self._lanes) + 1
            self._free.put(self._new_slot())
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
        context = self._engine.create_execution_context()
        if context is None:
            raise RuntimeUnavailableError(
                f"no execution context for {self._path}: {_last(errors)}",
                remedy="The GPU's memory may be full: free it or build with a smaller max batch.",
            )
        self._keep(context)
        self._describe(manifest)

    def _keep(self, context: Any) -> _Lane:
        lane = _Lane(context)
        self._lanes.append(lane)
        self._idle.put(lane)
        return lane

    def _add_contexts(self, wanted: int, backend: Any) -> None:
        """Contexts beside the first one, as many as TensorRT lets work there."""
        is_open = bool(self._on_host) or any(None in info.shape for info in self.inputs)
        own = is_open and not backend.features.shared_profiles
        for profile in range(1, wanted):
            if own and not self._is_like_the_first(profile):
                self.refused["contexts"] = (
                    f"{backend.title} wants a profile for each, and this engine has {profile}: build it again with "
                    f"runtime.contexts={wanted}"
                )
                return
            context = self._engine.create_execution_context()
            if context is None:
                self.refused["contexts"] = "no memory for another context's activations"
                return
            lane = self._keep(context)
            if own and not context.set_optimization_profile_async(profile, lane.stream.handle):
                raise ModelError(f"TensorRT refused profile {profile}", where=str(self._path))

    def _is_like_the_first(self, profile: int) -> bool:
        return profile < self._engine.num_optimization_profiles and all(
            self._profile_limits(name, profile) == limits for name, limits in self._limits.items()
        )

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
                self._limits[name] = self._profile_limits(name)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.batch = _batch_limits(self.inputs, self._limits)

    def _profile_limits(self, name: str, profile: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
        shape = tuple(self._engine.get_tensor_shape(name))
        if min(shape, default=0) >= 0:
            return shape, shape
        smallest, _, largest = self._engine.get_tensor_profile_shape(name, profile)
        return tuple(smallest), tuple(largest)

    @contextmanager
    def _turn(self) -> Iterator[_Lane]:
        """A context for one run's enqueueing; what enqueues next gets the one that was enqueued to longest ago."""
        lane = self._idle.get()
        try:
            yield lane
        finally:
            self._idle.put(lane)

    def _new_slot(self) -> _Slot:
        """Buffers for the largest shapes of profile 0."""
        slot, largest = _Slot(), {name: limits[1] for name, limits in self._limits.items()}
        try:
            for name, shape in largest.items():
                slot.fit(name, _nbytes(shape, self._engine_dtypes[name]))
            if not self._on_host & largest.keys():  # else output shapes depend on values: made at the first run
                with self._turn() as lane:
                    self._prepare(lane, slot, largest)
        except BaseException:
            slot.close()
            raise
        self._made.append(slot)
        return slot

    def _take_slot(self) -> _Slot:
        """A free slot; a new one while there are fewer than ``slots``."""
        try:
            return self._free.get_nowait()
        except Empty:
            pass
        with self._growing:
            if len(self._made) < self.slots:
                try:
                    return self._new_slot()
                except RuntimeUnavailableError:  # no memory for another one: these have to do
                    self.slots = len(self._made)
        return self._free.get()

    def _use_allocator(self, lane: _Lane, name: str) -> None:
        if name in lane.allocators:
            return
        allocator = _make_allocator(self._trt)
        if not lane.context.set_output_allocator(name, allocator):
            raise ModelError(f"output {name!r} has a shape known only after running, and no allocator is accepted")
        lane.allocators[name] = allocator

    def _bind(self, lane: _Lane, slot: _Slot) -> None:
        if lane.bound is slot.layout:
            return
        for name, buffer in slot.buffers.items():
            pointer = buffer.host.pointer if name in self._on_host else buffer.device.pointer
            if not lane.context.set_tensor_address(name, pointer):
                raise ModelError(f"TensorRT refused the buffer of tensor {name!r}", where=str(self._path))
        lane.bound = slot.layout

    def _set_shape(self, lane: _Lane, name: str, shape: tuple[int, ...]) -> None:
        if not lane.context.set_input_shape(name, shape):
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
        with self._turn() as lane:
            given = {name: array.shape for name, array in arrays.items() if name not in self._on_host}
            shapes = self._prepare(lane, slot, given)
            lane.stream.wait(slot.uploaded)
            self._execute(lane, slot, arrays)
            slot.executed.record(lane.stream)
            if lane.allocators:
                lane.stream.synchronize()  # their memory is the next run's too
            allocated = self._allocated_results(lane)
        slot.stream.wait(slot.executed)
        for name, shape in shapes.items():
            if name not in self._on_host:
                self._download(slot, name, _nbytes(shape, self._engine_dtypes[name]))
        slot.stream.synchronize()
        results = {name: self._result(slot, name, shape) for name, shape in shapes.items()}
        results.update(allocated)
        return {info.name: results[info.name] for info in self.outputs}

    def _prepare(self, lane: _Lane, slot: _Slot, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Give the context these input shapes and the slot's buffers; the output shapes that are known before running.

        The buffers of those outputs are large enough afterwards.
        """
        if shapes != lane.shapes:
            lane.stream.synchronize()  # shapes are the context's, and it may be executing another slot
            for name, shape in shapes.items():
                self._set_shape(lane, name, shape)
            lane.shapes = shapes
        self._bind(lane, slot)  # values of shape tensors are read from there
        found = self._output_shapes(lane, slot)
        self._bind(lane, slot)  # a buffer of an output may be new
        return found

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

    def _output_shapes(self, lane: _Lane, slot: _Slot) -> dict[str, tuple[int, ...]]:
        missing = list(lane.context.infer_shapes())
        if missing:
            raise ModelError(f"shapes are still unknown for {', '.join(missing)}", where=str(self._path))
        shapes = {}
        for info in self.outputs:
            if info.name in lane.allocators:
                continue
            shape = tuple(int(size) for size in lane.context.get_tensor_shape(info.name))
            if min(shape, default=0) < 0:
                self._use_allocator(lane, info.name)
                continue
            slot.fit(info.name, _nbytes(shape, self._engine_dtypes[info.name]))
            shapes[info.name] = shape
        return shapes

    def _execute(self, lane: _Lane, slot: _Slot, arrays: Mapping[str, Any]) -> None:
        """Enqueue the execution; from the second time that a slot sees these shapes on, as a recorded graph."""
        key = (lane, *(array.shape for array in arrays.values()))
        if key in slot.graphs:
            slot.graphs[key].launch(lane.stream)
            return
        wanted = self._with_graphs and not lane.allocators and not self._on_host
        if wanted and key in slot.seen:  # TensorRT wants one plain run with the shapes before it is recorded
            lane.stream.synchronize()
            try:
                slot.graphs[key] = cuda.Graph(lane.stream, lane.enqueue)
            except RuntimeUnavailableError:
                self._with_graphs = False  # an engine with layers that cannot be recorded
            else:
                slot.graphs[key].launch(lane.stream)
                return
        slot.seen.add(key)
        _, errors = _logger(self._trt)
        errors.clear()
        if not lane.enqueue():
            raise ModelError(f"the engine failed to run: {_last(errors)}", where=str(self._path))

    def _download(self, slot: _Slot, name: str, nbytes: int) -> None:
        buffer = slot.buffers[name]
        cuda.copy_to_host(buffer.host.pointer, buffer.device.pointer, nbytes, slot.stream)

    def _result(self, slot: _Slot, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        view = slot.buffers[name].host.array(shape, self._engine_dtypes[name])
        return view.astype(self._declared(name), copy=True)

    def _declared(self, name: str) -> np.dtype[Any]:
        return next(info.dtype for info in self.outputs if info.name == name)

    def _allocated_results(self, lane: _Lane) -> dict[str, NDArray[Any]]:
        results = {}
        for name, allocator in lane.allocators.items():
            dtype = self._engine_dtypes[name]
            host = np.empty(allocator.shape, dtype)
            if host.size:
                cuda.copy_to_host(host.ctypes.data, allocator.memory.pointer, host.nbytes, lane.stream)
            results[name] = host
        if results:
            lane.stream.synchronize()
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
            slot.close()
        for lane in self._lanes:
            lane.close()
        self._made, self._lanes = [], []
        self._engine = None  # after its contexts and before its runtime
        self._runtime = None

    def __enter__(self) -> TensorRTSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Lane:
    """An execution context and the stream that executes it; of one thread at a time."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.stream = cuda.Stream()
        self.bound: object = None  # the layout whose addresses the context has
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.allocators: dict[str, Any] = {}

    def enqueue(self) -> bool:
        return bool(self.context.execute_async_v3(self.stream.handle))

    def close(self) -> None:
        self.context = None
        for allocator in self.allocators.values():
            allocator.close()
        self.allocators = {}
        self.stream.close()


class _Slot:
    """What one run under way needs of its own."""

    def __init__(self) -> None:
        self.buffers: dict[str, _Buffer] = {}
        self.layout = object()  # another one when a buffer moves
        self.graphs: dict[tuple[Any, ...], cuda.Graph] = {}
        self.seen: set[tuple[Any, ...]] = set()
        self.stream = cuda.Stream()
        self.uploaded, self.executed = cuda.Event(), cuda.Event()

    def fit(self, name: str, nbytes: int) -> None:
        """Make the tensor's buffer at least so large."""
        buffer = self.buffers.get(name)
        if buffer is not None:
            if buffer.host.nbytes >= nbytes:
                return
            buffer.close()
            self.drop_graphs()
        self.buffers[name] = _Buffer(nbytes)
        self.layout = object()

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
        try:
            self.device = cuda.DeviceMemory(nbytes)
        except BaseException:
            self.host.close()
            raise

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
