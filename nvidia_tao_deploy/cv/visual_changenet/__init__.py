"""Change between two images: per pixel (task segment), or as one score against a golden image (task classify)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.visual_changenet import classify, segment
from nvidia_tao_deploy.cv.visual_changenet.spec import Spec
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.metrics.metric import Metric
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports, Writer, expect
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.tiled import TiledTransform


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """Two images; ``output_final`` or ``output`` by name, else the last of class maps and the first of anything else.

    Roles are ``before`` and ``after`` where the output is a class map, ``unit`` and ``golden`` where it is a score.

    Raises:
        ModelError: the model is neither.
    """
    by_name = {tensor.name: tensor for tensor in outputs}
    chosen = by_name.get("output_final") or by_name.get("output")
    if chosen is None and outputs:
        chosen = outputs[-1] if len(outputs[-1].shape) == 4 else outputs[0]
    if chosen is None or len(chosen.shape) not in (1, 2, 4):
        raise ModelError(
            f"the model's output is neither a class map nor a score: {'; '.join(map(str, outputs)) or 'none'}",
            remedy="Check that the file was exported for this network.",
        )
    if len(chosen.shape) == 4:
        wanted = (Port("before", ("input0",), channels=(3,)), Port("after", ("input1",), channels=(3,)))
    else:
        several = any(len(tensor.shape) == 5 for tensor in inputs)
        golden = Port("golden", ("input_2",), rank=5) if several else Port("golden", ("input_2",), channels=(3,))
        wanted = (Port("unit", ("input_1",), channels=(3,)), golden)
    return Ports(expect(wanted, ())(inputs, outputs).inputs, {"output": chosen})


def dataset(spec: Spec, action: str) -> Dataset:
    """The pairs of the spec's task."""
    return segment.dataset(spec, action) if spec.task == "segment" else classify.dataset(spec, action)


def calibration(spec: Spec) -> Dataset:
    """Pairs for calibration."""
    return segment.calibration(spec) if spec.task == "segment" else classify.calibration(spec)


def transform(spec: Spec, ports: Ports) -> TiledTransform:
    """That of the model's task: building an engine does not ask for the spec's."""
    return segment.transform(spec, ports) if "after" in ports.inputs else classify.transform(spec, ports)


def decode(spec: Spec, ports: Ports, _action: str) -> Decoder:
    """That of the spec's task.

    Raises:
        ModelError: the model is for the other task, or does not fit the spec.
    """
    of_model = "segment" if "after" in ports.inputs else "classify"
    if of_model != spec.task:
        raise ModelError(
            f"the model is for task {of_model}, the spec's task is {spec.task}",
            where=spec.where("task"),
            remedy=f"Set task: {of_model}, or check the model.",
        )
    return segment.decode(spec, ports) if of_model == "segment" else classify.decode(spec, ports)


def metric(spec: Spec, data: Dataset) -> Metric:
    """That of the spec's task."""
    return segment.metric(spec, data) if spec.task == "segment" else classify.metric(spec, data)


def writer(spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> Writer:
    """That of the spec's task."""
    return segment.writer(spec, folder, data) if spec.task == "segment" else classify.writer(folder, data)


def batch_size(spec: Spec, action: str) -> int:
    """``<action>.batch_size`` if it is positive, else ``dataset.<task>.batch_size``."""
    own: int = getattr(spec, action).batch_size
    return own if own > 0 else max(1, getattr(spec.dataset, spec.task).batch_size)


NETWORK = Network(
    name="visual_changenet",
    spec=Spec,
    bind=bind,
    calibration=calibration,
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=metric,
    writer=writer,
    batch_size=batch_size,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
