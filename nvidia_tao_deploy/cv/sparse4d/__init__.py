"""Sparse4D: objects around a vehicle from several cameras, tracked from frame to frame."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from nvidia_tao_deploy.actions.run import results_folder
from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.sparse4d.session import IDS, RESET, TemporalSession, check_tensors, contract
from nvidia_tao_deploy.cv.sparse4d.spec import Spec
from nvidia_tao_deploy.cv.sparse4d.tracking import objects
from nvidia_tao_deploy.cv.sparse4d.transform import FrameTransform
from nvidia_tao_deploy.cv.sparse4d.writer import LINES, RAW, SUMMARY, FrameResult, FrameWriter
from nvidia_tao_deploy.data.frames import FrameList
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.files import file_sha256, write_json
from nvidia_tao_deploy.network import Decoder, Network, Ports
from nvidia_tao_deploy.runtime.session import Session, TensorInfo
from nvidia_tao_deploy.transforms.transform import Geometry

if TYPE_CHECKING:
    from onnx import ModelProto

MSDA = "MSDA"
MSDA_NODES = 6


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """Every tensor under its own name; whether they fit is checked against section model of the spec."""
    return Ports({info.name: info for info in inputs}, {info.name: info for info in outputs})


def graph(spec: Spec, model: ModelProto) -> ModelProto:
    """The model with the one batch and the cameras of the spec, as every run has them.

    Raises:
        SpecError: the engine or its manifest is there already, or the plugin's library is not the one of its hash.
        ModelError: not this network, or of other sizes.
    """
    from nvidia_tao_deploy.graph.load import model_inputs, model_outputs
    from nvidia_tao_deploy.graph.tensors import copy_model

    _check_files(spec)
    check_tensors(spec.model, model_inputs(model), model_outputs(model))
    count = sum(node.op_type == MSDA for node in model.graph.node)
    if count not in (0, MSDA_NODES):  # none: they are written in standard operators already
        raise ModelError(f"the model has {count} {MSDA} nodes, sparse4d has {MSDA_NODES}")
    fixed = copy_model(model)
    for values, shapes in zip((fixed.graph.input, fixed.graph.output), contract(spec.model), strict=True):
        for value in values:
            for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
                dim.dim_value = size
    del fixed.graph.value_info[:]
    return fixed


def _check_files(spec: Spec) -> None:
    engine = spec.require("gen_trt_engine.trt_engine")
    there = [path for path in (engine, f"{engine}.json") if Path(path).exists()]
    if there and not spec.gen_trt_engine.overwrite:
        raise SpecError(
            f"{there[0]} is there already",
            where=spec.where("gen_trt_engine.save_engine"),
            remedy="Name another file, or set gen_trt_engine.overwrite=true.",
        )
    library, digest = spec.plugin.path, spec.plugin.sha256
    if library and digest and not (Path(library).is_file() and file_sha256(Path(library)) == digest.lower()):
        raise SpecError(f"{library} is not the library of plugin.sha256", where=spec.where("plugin.path"))


def transform(spec: Spec, _ports: Ports) -> FrameTransform:
    """Tensors as they are; images as in training."""
    return FrameTransform(spec.model, spec.dataset, spec.runtime.image_backend)


def dataset(spec: Spec, _action: str) -> FrameList:
    """The frames of ``inference.manifest``; SpecError where results of an earlier run would be replaced."""
    folder = results_folder(spec, "inference")
    there = [name for name in (LINES, SUMMARY, RAW) if (folder / name).exists()]
    if there and not spec.inference.overwrite:
        raise SpecError(
            f"{folder} holds {', '.join(there)} of an earlier run",
            where=spec.where("inference.results_dir"),
            remedy="Set another results_dir, or inference.overwrite=true.",
        )
    return FrameList(spec.require("inference.manifest"), spec.model.num_cameras)


def open_model(spec: Spec, _action: str, opened: Callable[[Path], Session]) -> TemporalSession:
    """The model with its memory, if it is the one that its manifest describes.

    Raises:
        ModelError: it is not, or does not fit the spec.
    """
    from nvidia_tao_deploy.engine.manifest import Manifest, manifest_path

    path = Path(spec.require("inference.trt_engine"))
    if path.is_file() and manifest_path(path).is_file() and Manifest.load(path).engine_sha256 != file_sha256(path):
        raise ModelError("the engine is not the one that its manifest describes", where=str(path))
    session = opened(path)
    try:
        return TemporalSession(session, spec.model, spec.inference)
    except ModelError:
        session.close()
        raise


def decode(spec: Spec, _ports: Ports, _action: str) -> Decoder:
    """Detections; ids come from the session, which has the memory."""

    def run(outputs: Mapping[str, NDArray[Any]], _geometries: Sequence[Geometry]) -> list[FrameResult]:
        raw = {name: array for name, array in outputs.items() if name not in (IDS, RESET)}
        found = objects(outputs, outputs[IDS][0], spec.inference)
        return [FrameResult(found, bool(outputs[RESET][0]), raw if spec.inference.save_raw else {})]

    return run


def writer(spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> FrameWriter:
    """predictions.jsonl, summary.json, raw outputs."""
    from nvidia_tao_deploy.engine.manifest import Manifest

    assert isinstance(data, FrameList)
    path = Path(spec.require("inference.trt_engine"))
    built = Manifest.beside(path)
    facts = {
        "engine_sha256": file_sha256(path),
        "plugin_sha256": spec.plugin.sha256 or None,
        "tensorrt": built.runtime_version if built else None,
        "manifest_sha256": file_sha256(data.path),
    }
    return FrameWriter(folder, facts)


NETWORK = Network(
    spec=Spec,
    bind=bind,
    transform=transform,
    dataset=dataset,
    decode=decode,
    writer=writer,
    batch_size=lambda _spec, _action: 1,
    graph=graph,
    open=open_model,
)
_gen_trt_engine, _, inference = verbs(NETWORK)


def gen_trt_engine(source: Any, overrides: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """Build an engine; its manifest also has the keys of the established sidecar."""
    result = _gen_trt_engine(source, overrides, **more)
    if not result:  # not rank 0
        return result
    path = Path(result["manifest"])
    content = json.loads(path.read_text())
    sidecar = {
        "version": 1,
        "model_name": NETWORK.name,
        "tensorrt": content["runtime_version"],
        "onnx_sha256": content["source_sha256"],
        "plugin_sha256": None,  # no plugin is in the engine
        "plugin_conformance": None,
        "input_shapes": {entry["name"]: entry["shape"] for entry in content["inputs"]},
        "model": content["spec"]["model"],
    }
    write_json(path, {**content, **sidecar})
    return result
