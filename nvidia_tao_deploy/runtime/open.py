"""From a model file to a session, by what the file is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.errors import ModelError, ModelFileError
from nvidia_tao_deploy.runtime.session import Session

ENGINE_SUFFIXES = (".engine", ".plan", ".trt")


def is_engine(path: Path) -> bool:
    """Whether the file is an engine: by a suffix, not only the last (``model.trt.int8``), or by how it begins."""
    if any(suffix.lower() in ENGINE_SUFFIXES for suffix in path.suffixes):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4)[1:] == b"trt"  # ftrt, ptrt of TensorRT, vtrt of TensorRT-RTX


def open_session(
    path: Path,
    *,
    providers: Sequence[str] = (),
    provider_options: Mapping[str, Mapping[str, Any]] | None = None,
    gpu: int = 0,
    cuda_graph: bool = False,
    contexts: int = 1,
    where: str | None = None,
) -> Session:
    """Open ``path``: engines (see :func:`is_engine`) on TensorRT, ``.onnx`` (or the one in a ``.zip``) on ONNX Runtime.

    Args:
        path: the model file.
        providers: ONNX Runtime's execution providers in order of preference.
        provider_options: their options.
        gpu: device index.
        cuda_graph: replay recorded CUDA graphs where the shapes allow it.
        contexts: execution contexts of an engine.
        where: the spec key that named the file, for messages.

    Raises:
        ModelError: the file is missing, empty, or of no known kind.
        RuntimeUnavailableError: an engine whose runtime or GPU is not here.
    """
    place = f"{where}: {path}" if where else str(path)
    if not path.is_file():
        what = "this is a folder, a model file is needed" if path.is_dir() else "no such model file"
        raise ModelFileError(what, where=place, remedy="Run gen_trt_engine first, or correct the path.")
    if path.stat().st_size == 0:
        raise ModelError("the model file is empty", where=place, remedy="Build or export it again.")
    suffix = path.suffix.lower()
    if suffix in (".onnx", ".zip"):
        from nvidia_tao_deploy.graph.load import load_model
        from nvidia_tao_deploy.graph.lower import PLUGIN_OPS, lower_plugins
        from nvidia_tao_deploy.graph.ort import kernels_are_constants, needs_plain_pairs
        from nvidia_tao_deploy.graph.plain_outputs import SCORES
        from nvidia_tao_deploy.graph.runnable import holds_bfloat16, runnable
        from nvidia_tao_deploy.runtime.cuda import gpu_available
        from nvidia_tao_deploy.runtime.onnxruntime import OnnxRuntimeSession

        in_file = model = load_model(path)  # says clearly what is wrong with a broken file
        as_in_file = suffix != ".zip" and not any(node.name.endswith(SCORES) for node in model.graph.node)
        if any(node.op_type in PLUGIN_OPS for node in model.graph.node):  # ONNX Runtime does not know these
            lowered = lower_plugins(model)
            for name, kind, reason in lowered.unsupported:
                raise ModelError(
                    f"ONNX Runtime has no {kind}, and node '{name}' cannot be written in standard operators: {reason}",
                    where=place,
                    remedy="Build an engine with a TensorRT that has this plugin, and give that.",
                )
            model = lowered.model
        elif holds_bfloat16(model) and not gpu_available():  # no CPU kernels: rounded by casts, computed in float32
            model = runnable(model)
        return OnnxRuntimeSession(
            path,
            content=None if as_in_file and model is in_file else model.SerializeToString(),
            providers=providers,
            provider_options=provider_options,
            gpu=gpu,
            cuda_graph=cuda_graph,
            plain_pairs=needs_plain_pairs(in_file),
            channels_last=model if kernels_are_constants(in_file) else None,
        )
    if is_engine(path):
        from nvidia_tao_deploy.engine.manifest import preflight
        from nvidia_tao_deploy.runtime.tensorrt import TensorRTSession

        preflight(path, gpu)
        return TensorRTSession(path, device=gpu, cuda_graph=cuda_graph, contexts=contexts)
    raise ModelError(
        f"cannot tell what kind of model '{path.name}' is",
        where=place,
        remedy="An .etlt file is encrypted: export the model again as .onnx."
        if suffix == ".etlt"
        else "Give an engine (.engine or .plan) or an ONNX file (.onnx).",
    )
