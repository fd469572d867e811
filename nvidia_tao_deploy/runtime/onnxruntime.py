"""Sessions on ONNX Runtime: TensorRT EP, CUDA EP or CPU EP."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import ModelError, RuntimeUnavailableError, SpecError
from nvidia_tao_deploy.runtime import driver
from nvidia_tao_deploy.runtime.session import BatchLimits, DeviceInput, TensorInfo

if TYPE_CHECKING:
    from onnx import ModelProto

_DTYPES: dict[str, type] = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
    "string": np.object_,
}

SHORT_NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}


class OnnxRuntimeSession:
    """An ONNX file loaded by ONNX Runtime (see :class:`~nvidia_tao_deploy.runtime.session.Session`).

    Inputs and outputs are bound: ONNX Runtime reads from the caller's arrays and writes into arrays made here, with no
    copies of its own. On a GPU two runs may be under way at once, so that one's copies overlap the other's execution.

    Attributes:
        slots: runs that may be under way at once, each in a thread of its own.
        refused: options that are not possible here, by name, with the reason.
        gpu: device index where a GPU provider runs the model, else None.
        whole_batches: a batch of another size than the last is planned anew, which takes longer than rows to spare.
    """

    def __init__(
        self,
        path: Path,
        *,
        content: bytes | None = None,
        providers: Sequence[str] = (),
        provider_options: Mapping[str, Mapping[str, Any]] | None = None,
        gpu: int = 0,
        threads: int = 0,
        cuda_graph: bool = False,
        plain_pairs: bool = False,
        channels_last: ModelProto | None = None,
    ) -> None:
        """Load ``path``.

        Args:
            path: the ONNX file.
            content: a serialized model to load in its place; the path is then for messages only.
            providers: execution providers in order of preference, by ONNX Runtime's names or tensorrt, cuda, cpu;
                empty: the best that is here.
            provider_options: options per provider name.
            gpu: device index for the GPU providers.
            threads: threads inside operators; 0: as many as there are cores.
            cuda_graph: on the CUDA provider, replay a recorded graph per batch size. For models whose shapes depend
                on the batch alone; one run at a time.
            plain_pairs: run Q/DQ pairs as they stand (``graph.ort.needs_plain_pairs``): ONNX Runtime would join FP8
                pairs to int8 operators, and not load the model.
            channels_last: what is loaded, where the CUDA provider may compute so (``graph.ort.kernels_are_constants``).

        Raises:
            ModelError: the file cannot be loaded.
            SpecError: a named provider is not in the installed ONNX Runtime.
        """
        import onnxruntime as ort

        if hasattr(ort, "preload_dlls") and "CUDAExecutionProvider" in ort.get_available_providers():
            ort.preload_dlls()  # finds CUDA and cuDNN that came as pip packages
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        disabled: list[str] = []
        if plain_pairs:
            from nvidia_tao_deploy.graph.ort import WRONG_REWRITES

            options.add_session_config_entry("session.disable_quant_qdq", "1")
            disabled = list(WRONG_REWRITES)
        # Idle threads that spin would take the cores that decode the next images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        chosen = [
            (name, _settings(name, gpu, channels_last is not None, provider_options))
            if name != SHORT_NAMES["cpu"]
            else name
            for name in _choose_providers(providers, ort.get_available_providers())
        ]
        if cuda_graph:
            for entry in chosen:
                if isinstance(entry, tuple) and entry[0] == SHORT_NAMES["cuda"]:
                    entry[1].setdefault("enable_cuda_graph", "1")
        if channels_last is not None and _adds_biases_slowly(chosen[0]):
            from nvidia_tao_deploy.graph.ort import JOINS_BIASES, biases_apart
            from nvidia_tao_deploy.graph.tensors import INLINE_PROTO_LIMIT, serialized_size

            if serialized_size(channels_last) <= INLINE_PROTO_LIMIT:
                content, disabled = biases_apart(channels_last).SerializeToString(), [*disabled, *JOINS_BIASES]
        try:
            self._session = ort.InferenceSession(
                content or str(path), options, providers=chosen, disabled_optimizers=disabled
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class of its own
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"ONNX Runtime cannot load the model: {reason}", where=str(path)) from error
        active = self._session.get_providers()
        if providers and active[0] != _full_name(providers[0]):
            raise RuntimeUnavailableError(
                f"ONNX Runtime could not start {_full_name(providers[0])} and fell back to {active[0]}",
                where="runtime.providers",
                remedy="Check the driver and the CUDA libraries, or name another provider.",
            )
        self.inputs = tuple(_tensor_info(node) for node in self._session.get_inputs())
        self.outputs = tuple(_tensor_info(node) for node in self._session.get_outputs())
        batch = self.inputs[0].shape[0] if self.inputs and self.inputs[0].shape else None
        self.batch = BatchLimits(batch, batch) if batch else BatchLimits()
        self.device = f"ONNX Runtime {ort.__version__} {active[0]}"
        on_gpu = active[0] in (SHORT_NAMES["cuda"], SHORT_NAMES["tensorrt"])
        self.gpu: int | None = _device_of(chosen, active[0], gpu) if on_gpu else None
        self.whole_batches = on_gpu
        self._graphs: _CudaGraphs | None = None
        if active[0] == SHORT_NAMES["cuda"] and _has_cuda_graph(chosen):
            self._graphs = _CudaGraphs(ort, self._session, self.inputs, self.outputs, self.gpu or 0)
        self.refused = {"contexts": "they are of engines, and this is an ONNX file"}
        if self._graphs is None:
            self.refused["cuda_graph"] = f"{active[0]} records none here"
        self.slots = 2 if on_gpu and self._graphs is None else 1
        self._ort = ort
        # Outputs whose first axis is fixed or has the name of the input's: their size is known before the run.
        axis = self._session.get_inputs()[0].shape[:1] if self.inputs else []
        nodes = self._session.get_outputs()
        self._batched = {
            node.name for node in nodes if isinstance((node.shape or [None])[0], int) or node.shape[:1] == axis
        }
        self._bindable = all(info.dtype != np.object_ for info in (*self.inputs, *self.outputs))
        self._under_way: set[Any] = set()
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._rooms: SimpleQueue[_DeviceRoom] = SimpleQueue()

    def run(self, feeds: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Run one batch; the returned arrays are owned by the caller.

        Raises:
            ModelError: a feed is missing, of the wrong shape or dtype, or the run failed or was cancelled.
        """
        options = self._ort.RunOptions()
        with self._lock:
            self._under_way.add(options)
        try:
            if self._graphs is not None:
                return self._graphs.run(feeds)
            if self._bindable:
                try:
                    return self._run_bound(feeds, options)
                except ModelError:
                    raise
                except Exception:
                    if options.terminate or any(isinstance(feed, DeviceInput) for feed in feeds.values()):
                        raise
                    # Files may declare output shapes that are not what comes out; a plain run says whether that is all.
                    self._bindable = False
            values = self._session.run(None, dict(feeds), options)
            return {info.name: value for info, value in zip(self.outputs, values, strict=True)}
        except ModelError:
            raise
        except Exception as error:  # as above
            raise ModelError(f"ONNX Runtime could not run the model: {str(error).strip().splitlines()[0]}") from error
        finally:
            with self._lock:
                self._under_way.discard(options)

    def _run_bound(self, feeds: Mapping[str, Any], options: Any) -> dict[str, NDArray[Any]]:
        arrays = _checked(self.inputs, feeds)
        with ExitStack() as stack:
            return self._run_arrays(arrays, options, stack)

    def _run_arrays(self, arrays: Mapping[str, Any], options: Any, stack: ExitStack) -> dict[str, NDArray[Any]]:
        binding = self._session.io_binding()
        for name, array in arrays.items():
            if isinstance(array, DeviceInput):
                pointer = stack.enter_context(self._room()).filled(array)
                binding.bind_input(name, "cuda", self.gpu, array.dtype.type, array.shape, pointer)
            else:
                binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        batch = next((array.shape[0] for array in arrays.values() if array.shape), None)
        made: dict[str, NDArray[Any]] = {}
        for info in self.outputs:
            shape = _output_shape(info, batch)
            if shape is None or info.name not in self._batched:  # only the run knows
                binding.bind_output(info.name, "cpu")
            else:
                array = made[info.name] = np.empty(shape, info.dtype)
                binding.bind_output(info.name, "cpu", 0, info.dtype.type, shape, array.ctypes.data)
        # Two models at once would leave the kernels that prepare the next input no room on the GPU.
        on_device = any(isinstance(array, DeviceInput) for array in arrays.values())
        with self._turn if on_device else nullcontext():
            self._session.run_with_iobinding(binding, options)
        if len(made) == len(self.outputs):
            return made
        values = zip(self.outputs, binding.get_outputs(), strict=True)
        return {info.name: made[info.name] if info.name in made else value.numpy() for info, value in values}

    @contextmanager
    def _room(self) -> Iterator[_DeviceRoom]:
        """Device memory and a stream for one run's input; kept for the next."""
        try:
            room = self._rooms.get_nowait()
        except Empty:
            room = _DeviceRoom(self.gpu or 0)
        try:
            yield room
        finally:
            self._rooms.put(room)

    def cancel(self) -> None:
        """Make the runs that are under way give up with an error; later runs are not affected."""
        with self._lock:
            for options in self._under_way:
                options.terminate = True

    def close(self) -> None:
        """Drop the session; ONNX Runtime frees its memory with it."""
        self._graphs = None
        self._session = None
        while not self._rooms.empty():
            self._rooms.get().close()


class _DeviceRoom:
    """Where an input that is computed on the GPU is put."""

    def __init__(self, gpu: int) -> None:
        driver.make_current(gpu)
        self._gpu, self._stream, self._memory = gpu, driver.Stream(), driver.Memory(1)

    def filled(self, given: DeviceInput) -> int:
        """The device address of the input, computed."""
        driver.make_current(self._gpu)
        needed = math.prod(given.shape) * given.dtype.itemsize
        if self._memory.nbytes < needed:
            self._memory.close()
            self._memory = driver.Memory(needed)
        given.write(self._memory.pointer, self._stream.handle)
        self._stream.synchronize()
        return self._memory.pointer

    def close(self) -> None:
        driver.make_current(self._gpu)
        self._stream.close()
        self._memory.close()


class _CudaGraphs:
    """Fixed device buffers per batch size, which a recorded CUDA graph needs; ONNX Runtime records and replays."""

    def __init__(
        self, ort: Any, session: Any, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], gpu: int
    ) -> None:
        self._ort, self._session, self._gpu = ort, session, gpu
        self._inputs, self._outputs = inputs, outputs
        driver.make_current(gpu)
        self._stream = driver.Stream()
        self._bound: dict[tuple[Any, ...], tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {}

    def run(self, feeds: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        arrays = _checked(self._inputs, feeds)
        key = tuple(array.shape for array in arrays.values())
        if key not in self._bound:
            self._bound[key] = self._bind(arrays)
        binding, options, inputs, outputs = self._bound[key]
        for name, array in arrays.items():
            if isinstance(array, DeviceInput):
                array.write(inputs[name].data_ptr(), self._stream.handle)
            else:
                inputs[name].update_inplace(array)
        self._stream.synchronize()
        self._session.run_with_iobinding(binding, options)
        return {name: value.numpy() for name, value in outputs.items()}

    def _bind(self, arrays: Mapping[str, NDArray[Any]]) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
        value = self._ort.OrtValue
        inputs = {
            name: value.ortvalue_from_shape_and_type(array.shape, array.dtype.type, "cuda", self._gpu)
            for name, array in arrays.items()
        }
        batch = next((array.shape[0] for array in arrays.values() if array.shape), None)
        outputs = {}
        for info in self._outputs:
            shape = _output_shape(info, batch)
            if shape is None:
                raise ModelError(
                    f"output '{info.name}' has a shape that depends on more than the batch, so no CUDA graph fits it",
                    remedy="Set runtime.cuda_graph=false.",
                )
            outputs[info.name] = value.ortvalue_from_shape_and_type(shape, info.dtype.type, "cuda", self._gpu)
        binding, options = self._session.io_binding(), self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(len(self._bound) + 1))
        for name, bound in inputs.items():
            binding.bind_ortvalue_input(name, bound)
        for name, bound in outputs.items():
            binding.bind_ortvalue_output(name, bound)
        return binding, options, inputs, outputs


def _checked(inputs: Sequence[TensorInfo], feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The feeds in the model's order, contiguous; binding goes by address, so types and shapes are compared here."""
    unknown = sorted(set(feeds) - {info.name for info in inputs})
    if unknown:
        raise ModelError(
            f"the model has no input {', '.join(unknown)}", remedy=f"It has {', '.join(map(str, inputs))}."
        )
    arrays = {}
    for info in inputs:
        if info.name not in feeds:
            raise ModelError(f"no array for input {info.name!r}", remedy=f"Inputs: {', '.join(map(str, inputs))}.")
        array = feeds[info.name]
        if not isinstance(array, DeviceInput):
            array = np.ascontiguousarray(array) if info.shape else np.asarray(array)
        fits = len(info.shape) == len(array.shape) and all(
            want in (None, has) for want, has in zip(info.shape, array.shape, strict=True)
        )
        if array.dtype != info.dtype or not fits:
            raise ModelError(f"input {info} was given an array of {array.dtype.name} {array.shape}")
        arrays[info.name] = array
    return arrays


def _output_shape(info: TensorInfo, batch: int | None) -> tuple[int, ...] | None:
    """The shape where only the first axis is open, taken for the batch; None where more is."""
    first, rest = info.shape[:1], info.shape[1:]
    if None in rest or not first or batch is None:
        return None
    return (first[0] or batch, *(dim for dim in rest if dim is not None))


def _has_cuda_graph(chosen: Sequence[Any]) -> bool:
    return any(isinstance(entry, tuple) and str(entry[1].get("enable_cuda_graph", "0")) == "1" for entry in chosen)


def _adds_biases_slowly(provider: Any) -> bool:
    """Whether it is the CUDA provider in channels last, its convolutions not told to fuse their biases.

    45 % of an FP16 ResNet-50's time goes to cuDNN's kernel that adds them (ONNX Runtime 1.31.1, H200): 11,130 images/s,
    and 14,510 where nodes of their own do. Fused, it is 15,750; but the plans for that take 2 to 7 s, and
    ConvTranspose has none (docs/benchmarks.md).
    """
    if not isinstance(provider, tuple) or provider[0] != SHORT_NAMES["cuda"]:
        return False
    return str(provider[1].get("prefer_nhwc")) == "1" and str(provider[1].get("fuse_conv_bias")) != "1"


def _device_of(chosen: Sequence[Any], active: str, gpu: int) -> int:
    own = [entry[1] for entry in chosen if isinstance(entry, tuple) and entry[0] == active]
    return int(own[0].get("device_id", gpu)) if own else gpu


def _tensor_info(node: Any) -> TensorInfo:
    element = str(node.type).removeprefix("tensor(").removesuffix(")")
    shape = tuple(dim if isinstance(dim, int) and dim > 0 else None for dim in node.shape)
    return TensorInfo(node.name, shape, np.dtype(_DTYPES.get(element, np.float32)))


def _full_name(provider: str) -> str:
    return SHORT_NAMES.get(provider.lower(), provider)


def _settings(
    provider: str, gpu: int, channels_last: bool, given: Mapping[str, Mapping[str, Any]] | None
) -> dict[str, Any]:
    """A GPU provider's options, the ones ``given`` for it first.

    ResNet-50 on an H200: cuDNN's own choice of kernels runs as fast as the one that is measured at 0.7 s for every new
    batch size; channels last, as its tensor cores want them, gives 11,130 images/s in FP16 instead of 8,880.
    """
    own = next((options for key, options in (given or {}).items() if _full_name(key) == provider), {})
    if provider != SHORT_NAMES["cuda"]:
        return {"device_id": gpu, **own}
    layout = {"prefer_nhwc": "1"} if channels_last else {}
    return {"device_id": gpu, "cudnn_conv_algo_search": "HEURISTIC", **layout, **own}


def _choose_providers(wanted: Sequence[str], available: Sequence[str]) -> list[str]:
    if wanted:
        names = [_full_name(name) for name in wanted]
        for name in names:
            if name not in available:
                raise SpecError(
                    f"'{name}' is not in the installed ONNX Runtime, which offers {', '.join(available)}",
                    where="runtime.providers",
                    remedy="Install onnxruntime-gpu for the GPU providers, or name another provider.",
                )
        return names
    from nvidia_tao_deploy.runtime.cuda import gpu_available

    names = [SHORT_NAMES["cpu"]]
    if gpu_available() and SHORT_NAMES["cuda"] in available:
        names.insert(0, SHORT_NAMES["cuda"])
        # The wheel lists the TensorRT provider also where TensorRT's libraries are missing.
        if SHORT_NAMES["tensorrt"] in available and (find_spec("tensorrt") or find_spec("tensorrt_libs")):
            names.insert(0, SHORT_NAMES["tensorrt"])
    return names
