"""FAKES: a CUDA whose device memory is host memory, and a name-based TensorRT whose engines run in ONNX Runtime.

The fake engine reads its inputs from the addresses it was given and writes its outputs to the addresses it was
given, only inside ``execute_async_v3``; it refuses what TensorRT refuses (unset addresses, shapes outside the
profile, freed memory, before TensorRT 10 a second context in a profile, two threads in one context).
"""

# ruff: noqa: ARG002, N815  (the signatures are TensorRT's)
from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

KINDS = {"FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_}


class HostCuda:
    """The calls of ``cuda.bindings.runtime`` that the session makes, on host memory."""

    cudaStreamNonBlocking = 1
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self) -> None:
        self.live: dict[int, Any] = {}
        self.devices: list[int] = []
        self.allocations = 0
        self.synchronizations = 0
        self.recording: list[Any] | None = None
        self.refuses_capture = False
        self.captured = self.replayed = 0
        self.most_allocations = 1 << 30

    def _allocate(self, size: int) -> tuple[int, int]:
        if self.allocations >= self.most_allocations:
            return 2, 0
        block = ctypes.create_string_buffer(size)
        self.live[ctypes.addressof(block)] = block
        self.allocations += 1
        return 0, ctypes.addressof(block)

    def _free(self, pointer: int) -> tuple[int]:
        del self.live[pointer]
        return (0,)

    cudaMalloc = cudaMallocHost = _allocate
    cudaFree = cudaFreeHost = _free

    def cudaSetDevice(self, device: int) -> tuple[int]:
        self.devices.append(device)
        return (0,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:
        assert flags == self.cudaStreamNonBlocking
        return 0, 4711

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        self.synchronizations += 1
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:
        self.recording = []
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, Any]:
        work, self.recording = self.recording, None
        return (900 if self.refuses_capture else 0), work

    def cudaGraphInstantiateWithFlags(self, work: Any, flags: int) -> tuple[int, Any]:
        self.captured += 1
        return 0, work

    def cudaGraphDestroy(self, work: Any) -> tuple[int]:
        return (0,)

    def cudaGraphExecDestroy(self, work: Any) -> tuple[int]:
        return (0,)

    def cudaGraphLaunch(self, work: Any, stream: int) -> tuple[int]:
        self.replayed += 1
        for step in work:
            step()
        return (0,)

    def cudaEventCreate(self) -> tuple[int, int]:
        return 0, 4712

    def cudaEventDestroy(self, event: int) -> tuple[int]:
        return (0,)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[int]:
        return (0,)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[int]:
        return (0,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        ctypes.memmove(target, source, size)
        return (0,)


class Enum:
    def __init__(self, name: str) -> None:
        self.name = name


class FakeTensorRT:
    """A module with Runtime, ILogger and IOutputAllocator; ``narrow``: int64 becomes int32, as on 8.x.

    Set before loading: ``profiles`` (all of an engine's), ``shared`` (contexts may share one), ``most_contexts``.
    """

    __version__ = "8.5.3.1"
    __name__ = "fake_runtime"

    class TensorIOMode:
        INPUT, OUTPUT = "input", "output"

    class TensorLocation:
        HOST, DEVICE = "host", "device"

    class ILogger:
        INTERNAL_ERROR, ERROR = "internal", "error"

        def __init__(self) -> None:
            pass

    class IOutputAllocator:
        def __init__(self) -> None:
            pass

    def __init__(self, onnx_path: Path, profile: dict[str, Any], cuda: HostCuda, *, narrow: bool = False) -> None:
        self.order: list[str] = []
        self.profiles, self.shared, self.most_contexts = [profile], False, 8
        self.contexts = 0
        self.together: threading.Barrier | None = None  # executions that wait for each other
        owner = self

        class Runtime:
            def __init__(self, logger: Any) -> None:
                self._logger = logger

            def deserialize_cuda_engine(self, data: bytes) -> Any:
                if data != b"plan":
                    self._logger.log("error", "1: [stdArchiveReader.cpp] Serialization assertion failed. Magic tag")
                    return None
                return Engine(owner, onnx_path, cuda, narrow)

            def __del__(self) -> None:
                owner.order.append("runtime")

        self.Runtime = Runtime

    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool:
        return True


class Engine:
    def __init__(self, trt: FakeTensorRT, path: Path, cuda: HostCuda, narrow: bool) -> None:
        import onnxruntime as ort

        self.trt, self.cuda = trt, cuda
        self.num_optimization_profiles = len(trt.profiles)
        self.taken: set[int] = set()
        self.session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.inputs = {node.name: node for node in self.session.get_inputs()}
        self.outputs = {node.name: node for node in self.session.get_outputs()}
        self.names = [*self.inputs, *self.outputs]
        self.num_io_tensors = len(self.names)
        self.narrow = narrow

    def __del__(self) -> None:
        self.trt.order.append("engine")

    def _node(self, name: str) -> Any:
        return self.inputs.get(name) or self.outputs[name]

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def get_tensor_location(self, name: str) -> str:
        return "device"

    def get_tensor_dtype(self, name: str) -> Any:
        kind = {
            "tensor(float)": "FLOAT",
            "tensor(float16)": "HALF",
            "tensor(int64)": "INT64",
            "tensor(int32)": "INT32",
        }[self._node(name).type]
        return Enum("INT32" if self.narrow and kind == "INT64" else kind)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self._node(name).shape)

    def get_tensor_profile_shape(self, name: str, index: int) -> Any:
        return self.trt.profiles[index][name]

    def create_execution_context(self) -> Any:
        if self.trt.contexts == self.trt.most_contexts:
            return None
        self.trt.contexts += 1
        return Context(self)


class Context:
    """Outputs whose axis is named "M" depend on data; others have the batch as their only dynamic axis."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.allocators: dict[str, Any] = {}
        self.turn = threading.Lock()
        self.profile: int | None = None
        self.dynamic = any(-1 in engine.get_tensor_shape(name) for name in engine.inputs)
        self._choose(0)

    def _choose(self, index: int) -> bool:
        free = index not in self.engine.taken or self.engine.trt.shared
        if free:
            self.engine.taken.add(index)
            self.profile = index
        return free

    def __del__(self) -> None:
        self.engine.trt.order.append("context")

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream == 4711
        return self._choose(index)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        if not self.dynamic:
            return tuple(shape) == self.engine.get_tensor_shape(name)
        if self.profile is None:
            return False
        low, _, high = self.engine.trt.profiles[self.profile][name]
        return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self.addresses[name] = pointer
        return pointer in self.engine.cuda.live

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self.allocators[name] = allocator
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.shapes:
            return self.shapes[name]
        batch = next(iter(self.shapes.values()))[0]
        named = {"N": batch}
        return tuple(size if isinstance(size, int) else named.get(size, -1) for size in self.engine._node(name).shape)

    def execute_async_v3(self, stream: int) -> bool:
        engine = self.engine
        assert stream == 4711  # the session's own stream, never the default one
        assert self.turn.acquire(blocking=False)
        try:
            return self._enqueue(engine)
        finally:
            self.turn.release()

    def _enqueue(self, engine: Engine) -> bool:
        if engine.trt.together is not None:
            engine.trt.together.wait()
        if engine.cuda.recording is not None:  # runs when replayed, on the addresses and shapes of now
            addresses, shapes = dict(self.addresses), dict(self.shapes)
            engine.cuda.recording.append(lambda: self._execute(addresses, shapes))
            return True
        self._execute(self.addresses, self.shapes)
        return True

    def _execute(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        engine = self.engine
        feeds = {name: self._read(name, addresses, shapes) for name in engine.inputs}
        for name, value in zip(engine.outputs, engine.session.run(None, feeds), strict=True):
            value = value.astype(KINDS[engine.get_tensor_dtype(name).name])
            pointer = addresses.get(name, 0)
            if name in self.allocators:
                pointer = self.allocators[name].reallocate_output(name, 0, max(value.nbytes, 1), 256)
                self.allocators[name].notify_shape(name, value.shape)
            assert len(engine.cuda.live[pointer]) >= value.nbytes
            ctypes.memmove(pointer, np.ascontiguousarray(value).ctypes.data, value.nbytes)

    def _read(self, name: str, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> Any:
        kind = np.dtype(KINDS[self.engine.get_tensor_dtype(name).name])
        shape = shapes[name]
        size = int(np.prod(shape)) * kind.itemsize
        block = self.engine.cuda.live[addresses[name]]
        array = np.frombuffer(bytes(block)[:size], kind).reshape(shape)
        return array.astype(np.int64) if "int64" in self.engine._node(name).type else array
