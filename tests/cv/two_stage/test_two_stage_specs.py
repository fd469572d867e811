"""The complete spec trees are accepted, a typo anywhere in them is refused with its place, and zero is unset."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.known import Node, known_keys, proto_tables
from nvidia_tao_deploy.spec.load import load_spec

TEXTS = {
    "image_channel_mean": "image_channel_mean { key: 'b' value: 1.5 } image_channel_mean { key: 'g' value: 2.5 } "
    "image_channel_mean { key: 'r' value: 3.5 }",
    "image_channel_order": 'image_channel_order: "rgb"',
    "gt_matching_iou_threshold_range": "gt_matching_iou_threshold_range { start: 0.5 end: 0.95 step: 0.05 }",
}
SCALARS = {"bool": "true", "string": "'text'", "float": "0.5"}


def spec_class(network: str) -> Any:
    return importlib.import_module(f"nvidia_tao_deploy.cv.{network}.spec").Spec


def lines_of(network: str, message: str, indent: str = "") -> list[str]:
    """Every field of a message once, as protobuf text; of a oneof the first member."""
    tables = proto_tables(network)
    assert tables is not None
    lines: list[str] = []
    seen: set[str] = set()
    for field in tables.messages[message].values():
        if field.oneof in seen:
            continue
        seen |= {field.oneof} if field.oneof else set()
        if field.name in TEXTS:
            lines.append(f"{indent}{TEXTS[field.name]}")
        elif field.map_key:
            lines.append(f"{indent}{field.name} {{ key: 'k' value: {SCALARS[field.type]} }}")
        elif field.type in tables.messages:
            lines += [f"{indent}{field.name} {{", *lines_of(network, field.type, f"{indent}  "), f"{indent}}}"]
        else:
            enum = tables.enums.get(field.type)
            lines.append(f"{indent}{field.name}: {list(enum)[-1] if enum else SCALARS.get(field.type, '8')}")
    return lines


@pytest.mark.parametrize("network", ["efficientdet_tf1", "faster_rcnn", "mask_rcnn"])
def test_the_complete_tree_is_accepted_and_no_typo_in_it(network: str, tmp_path: Path) -> None:
    lines = lines_of(network, "Experiment")
    path = tmp_path / "spec.txt"
    path.write_text("\n".join(lines) + "\n")
    spec = load_spec(spec_class(network), path)
    assert not [note for note in spec.notes if "enc_key" not in note]
    assert len(lines) > 40
    for number in range(0, len(lines), 5):
        wrong = [*lines[:number], re.sub(r"(\w)(\s*[:{])", r"\1x\2", lines[number], count=1), *lines[number + 1 :]]
        if wrong == lines:
            continue  # a closing brace
        path.write_text("\n".join(wrong) + "\n")
        with pytest.raises(SpecError) as caught:
            load_spec(spec_class(network), path)
        assert f"{path}:{number + 1}:" in str(caught.value)


def filled(node: Node) -> Any:
    """A value of every key below."""
    if node.kind == "value":
        kind = node.type.rstrip("?")
        return {"int": 1, "float": 0.5, "bool": True}.get(kind, [] if kind.startswith("list") else "fp32")
    content = {name: filled(child) for name, child in node.children.items()}
    return [content] if node.kind == "list" else content


def test_the_complete_tree_of_efficientdet_tf2() -> None:
    tree = filled(known_keys("efficientdet_tf2"))
    spec = load_spec(spec_class("efficientdet_tf2"), tree)
    assert spec.gen_trt_engine.tensorrt.workspace_size == 1024  # max_workspace_size is GiB
    for section in ("dataset", "evaluate", "inference", "gen_trt_engine", "train", "export"):
        key = f"{section}.{next(iter(tree[section]))}"
        name = key.rpartition(".")[2]
        wrong = {**tree, section: {**tree[section], f"{name}x": 1}}
        with pytest.raises(SpecError, match=re.escape(f"{key}x")):
            load_spec(spec_class("efficientdet_tf2"), wrong)


def test_zero_and_empty_are_unset() -> None:
    evaluation = {"object_confidence_thres": 0, "gt_matching_iou_threshold": 0.0, "batch_size": 0}
    image = {"image_scaling_factor": 0, "image_channel_order": ""}
    tree = {"evaluation_config": evaluation, "model_config": {"input_image_config": image}}
    spec = load_spec(spec_class("faster_rcnn"), tree)
    assert spec.evaluation_config.object_confidence_thres == 1e-4
    assert spec.evaluation_config.iou_thresholds == [0.5]
    assert spec.model.input_image_config.image_scaling_factor == 1.0
    assert spec.model.input_image_config.image_channel_order == "bgr"
    page = importlib.import_module("nvidia_tao_deploy.cv.faster_rcnn")
    assert page.NETWORK.batch_size(spec, "evaluate") == 1
    assert (
        page.NETWORK.batch_size(
            load_spec(spec_class("faster_rcnn"), {"inference_config": {"batch_size": 6}}), "inference"
        )
        == 6
    )


def test_a_range_holds_both_ends(tmp_path: Path) -> None:
    """The fields hold float32, which must not lose the last threshold."""
    (tmp_path / "spec.txt").write_text(f"evaluation_config {{ {TEXTS['gt_matching_iou_threshold_range']} }}\n")
    spec = load_spec(spec_class("faster_rcnn"), tmp_path / "spec.txt")
    assert spec.evaluation_config.iou_thresholds == pytest.approx([0.5 + 0.05 * n for n in range(10)])


@pytest.mark.parametrize(
    ("network", "key", "value"),
    [
        ("faster_rcnn", "evaluation_config.gt_matching_iou_threshold_range", {"start": 0.9, "end": 0.5, "step": 0.1}),
        ("faster_rcnn", "evaluation_config.gt_matching_iou_threshold_range", {"start": 0.5, "end": 0.9}),
        ("faster_rcnn", "evaluation_config.gt_matching_iou_threshold", 1.5),
        ("faster_rcnn", "model_config.input_image_config", {"image_channel_order": "grb"}),
        ("faster_rcnn", "model_config.input_image_config", {"image_channel_mean": {"b": 1.0}}),
        ("faster_rcnn", "inference_config.bbox_visualize_threshold", 2),
        ("mask_rcnn", "data_config.num_classes", -1),
        ("mask_rcnn", "data_config.numclasses", 3),
        ("efficientdet_tf1", "eval_config.eval_samples", "many"),
        ("efficientdet_tf2", "inference.min_score_thresh", 30),
    ],
)
def test_wrong_values_are_refused_by_their_key(network: str, key: str, value: object) -> None:
    section, _, name = key.partition(".")
    with pytest.raises(SpecError, match=re.escape(key)):
        load_spec(spec_class(network), {section: {name: value}})


@pytest.mark.parametrize(("network", "names"), [("faster_rcnn", ["Car", "bus"]), ("yolo_v4", ["bus", "car"])])
def test_class_names_in_the_manifest_keep_the_case_that_counts(network: str, names: list[str]) -> None:
    page = importlib.import_module(f"nvidia_tao_deploy.cv.{network}").NETWORK
    tree = {"dataset_config": {"target_class_mapping": {"a": "bus", "b": "Car"}}}
    assert page.labels(load_spec(page.spec, tree)) == names
