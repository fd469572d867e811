"""Change between two images: per pixel (task segment), or as one score against a golden image (task classify)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.visual_changenet import classify, segment
from nvidia_tao_deploy.cv.visual_changenet.spec import Spec
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families.images import batch_size_or
from nvidia_tao_deploy.network import Decoder, Network, Port, Ports, expect
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.tiled import TiledTransform


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """Two images; ``output_final`` or ``output`` by name, else the last of class maps and the first of anything else.

    Roles are ``before`` and ``after`` where the output is a class map, ``unit`` and ``golden`` where it is a score.
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


def task(spec: Spec) -> Any:
    """The module of the spec's task; SpecError where the data are the other's, as in the published classify specs."""
    if spec.task == "segment" and spec.dataset.model_fields_set == {"classify"}:
        raise SpecError(
            "the task is segment, and the data are those of task classify",
            where=spec.where("task"),
            remedy="Set task: classify.",
        )
    return segment if spec.task == "segment" else classify


def transform(spec: Spec, ports: Ports) -> TiledTransform:
    """That of the model's task: building an engine does not ask for the spec's."""
    return segment.transform(spec, ports) if "after" in ports.inputs else classify.transform(spec, ports)


def decode(spec: Spec, ports: Ports, _action: str) -> Decoder:
    """That of the spec's task; ModelError where the model is for the other one, or does not fit the spec."""
    of_model = "segment" if "after" in ports.inputs else "classify"
    if of_model != spec.task:
        raise ModelError(
            f"the model is for task {of_model}, the spec's task is {spec.task}",
            where=spec.where("task"),
            remedy=f"Set task: {of_model}, or check the model.",
        )
    decoder: Decoder = task(spec).decode(spec, ports)
    return decoder


NETWORK = Network(
    spec=Spec,
    bind=bind,
    calibration=lambda spec: task(spec).calibration(spec),
    transform=transform,
    dataset=lambda spec, action: task(spec).dataset(spec, action),
    decode=decode,
    metric=lambda spec, data: task(spec).metric(spec, data),
    writer=lambda spec, folder, data, ports: task(spec).writer(spec, folder, data, ports),
    batch_size=lambda spec, action: batch_size_or(f"dataset.{spec.task}.batch_size")(spec, action),
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
