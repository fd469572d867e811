"""Sessions on ONNX Runtime: TensorRT EP, CUDA EP or CPU EP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import ModelError, RuntimeUnavailableError, SpecError
from nvidia_tao_deploy.runtime.session import BatchLimits, TensorInfo

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
    """An ONNX file loaded by ONNX Runtime (see :class:`~nvidia_tao_deploy.runtime.session.Session`)."""

    def __init__(
        self,
        path: Path,
        *,
        content: bytes | None = None,
        providers: Sequence[str] = (),
        provider_options: Mapping[str, Mapping[str, Any]] | None = None,
        gpu: int = 0,
        threads: int = 0,
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
        chosen = [
            (name, {"device_id": gpu, **_options_of(name, provider_options)}) if name != SHORT_NAMES["cpu"] else name
            for name in _choose_providers(providers, ort.get_available_providers())
        ]
        try:
            self._session = ort.InferenceSession(content or str(path), options, providers=chosen)
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

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run one batch."""
        try:
            values = self._session.run(None, dict(feeds))
        except Exception as error:  # as above
            raise ModelError(f"ONNX Runtime could not run the model: {str(error).strip().splitlines()[0]}") from error
        return {info.name: value for info, value in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        """Drop the session; ONNX Runtime frees its memory with it."""
        self._session = None


def _tensor_info(node: Any) -> TensorInfo:
    element = str(node.type).removeprefix("tensor(").removesuffix(")")
    shape = tuple(dim if isinstance(dim, int) and dim > 0 else None for dim in node.shape)
    return TensorInfo(node.name, shape, np.dtype(_DTYPES.get(element, np.float32)))


def _full_name(provider: str) -> str:
    return SHORT_NAMES.get(provider.lower(), provider)


def _options_of(provider: str, options: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    return next((dict(value) for key, value in (options or {}).items() if _full_name(key) == provider), {})


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
