"""Several classifications of one image: one row of probabilities per task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.cv.multitask_classification.results import Prediction, TaskAccuracy, TaskWriter
from nvidia_tao_deploy.cv.multitask_classification.spec import Spec
from nvidia_tao_deploy.cv.multitask_classification.table import TaskTable, read_class_mapping, read_table
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.families import classification as family
from nvidia_tao_deploy.families.images import image_network
from nvidia_tao_deploy.network import Decoder, Ports
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.transform import Geometry


def bind(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> Ports:
    """The image, and one output (B, classes) per task, under their own names."""
    ports = family.bind_image(inputs, outputs, role="input_1")
    for tensor in outputs:
        if len(tensor.shape) != 2:
            raise ModelError(f"output {tensor} is not one row of scores per image")
    return ports


def mapping(spec: Spec, action: str) -> dict[str, list[str]]:
    """Class names by task from the training's mapping file; {} where there is none."""
    own = spec.inference.class_map if action == "inference" else None
    path = own or spec.evaluate.class_map or spec.get("gen_trt_engine.class_map")
    return read_class_mapping(path) if path else {}


def task_classes(spec: Spec, action: str) -> dict[str, list[str]]:
    """Class names by task: the mapping file's, else the values in the CSV."""
    return mapping(spec, action) or read_table(spec.require("dataset_config.val_csv_path")).classes()


def dataset(spec: Spec, action: str) -> TaskTable:
    """The CSV's rows; its columns are the labels when evaluating."""
    images = getattr(spec, action).image_dir or spec.require("dataset_config.image_directory_path")
    table = read_table(spec.require("dataset_config.val_csv_path"))
    classes = mapping(spec, action) or table.classes()
    return TaskTable(table, images, classes, labelled=action == "evaluate", strict=spec.strict)


def transform(spec: Spec, ports: Ports) -> ImageTransform:
    """Stretched, BGR minus the caffe mean."""
    bicubic = spec.model.resize_interpolation_method == "BICUBIC"
    return family.mode_transform(spec, ports, "input_1", mode="caffe", bicubic=bicubic)


def match_heads(tasks: Sequence[str], outputs: Sequence[str]) -> dict[str, str]:
    """Task -> output: by the task's name as a word of the output's, else by position in sorted task order.

    Raises:
        ModelError: there are not as many outputs as tasks.
    """
    if len(tasks) != len(outputs):
        raise ModelError(
            f"the model's outputs are {', '.join(outputs)}, and the tasks {', '.join(tasks)}",
            remedy="Check that model, CSV and class mapping belong together.",
        )
    named = {task: [output for output in outputs if _names(output, task)] for task in tasks}
    heads = {task: found[0] for task, found in named.items() if len(found) == 1}
    if len(set(heads.values())) == len(tasks):
        return heads
    return dict(zip(sorted(tasks), outputs, strict=True))


def _names(output: str, task: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(task)}(?![\w.-])", output) is not None


def decode(spec: Spec, ports: Ports, action: str) -> Decoder:
    """The probabilities of every task; ModelError where heads and classes do not fit."""
    classes, given = task_classes(spec, action), bool(mapping(spec, action))
    heads = match_heads(list(classes), list(ports.outputs))
    for task, output in heads.items():
        width, count = ports.outputs[output].shape[1], len(classes[task])
        if width is None or width == count:
            continue
        if given or width < count:
            raise ModelError(
                f"output '{output}' has {width} classes and task '{task}' has {count}",
                remedy="Check that model, CSV and class mapping belong together.",
            )
        say(
            f"note: output '{output}' has {width} classes, the CSV names {count} for task '{task}': its classes may be "
            f"numbered otherwise than in training. Set {action}.class_map to the training's class_mapping.json."
        )

    def run(outputs: Mapping[str, Array], geometries: Sequence[Geometry]) -> list[Prediction]:
        scores = {task: family.probabilities(outputs[output]) for task, output in heads.items()}
        return [{task: rows[i] for task, rows in scores.items()} for i in range(len(geometries))]

    return run


def metric(_spec: Spec, data: Dataset) -> TaskAccuracy:
    """Accuracy per task."""
    assert isinstance(data, TaskTable)
    return TaskAccuracy(data.classes)


def writer(_spec: Spec, folder: Path, data: Dataset, _ports: Ports) -> TaskWriter:
    """result.csv."""
    assert isinstance(data, TaskTable)
    return TaskWriter(folder, data.classes)


NETWORK = image_network(
    spec=Spec,
    bind=bind,
    transform=transform,
    dataset=dataset,
    decode=decode,
    metric=metric,
    writer=writer,
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
