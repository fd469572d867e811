"""The complete spec trees are accepted, and a typo anywhere in them is refused with its line."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from cv.kitti import kitti_replay as replay

from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.known import proto_tables
from nvidia_tao_deploy.spec.load import load_spec

SPECIAL = {
    "image_mean": ["key: 'b' value: 1.5", "key: 'g' value: 2.5", "key: 'r' value: 3.5"],
    "output_depth": ["8"],
    "confidence_threshold": ["0.25"],
    "matching_iou_threshold": ["0.5"],
}
SCALARS = {"bool": "true", "string": "'text'", "float": "0.5", "double": "0.5"}


def spec_class(network: str) -> type:
    return importlib.import_module(f"nvidia_tao_deploy.cv.{network}").NETWORK.spec


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
        if field.name in SPECIAL:
            values = SPECIAL[field.name]
            lines += [
                f"{indent}{field.name} {{ {v} }}" if field.map_key else f"{indent}{field.name}: {v}" for v in values
            ]
        elif field.map_key:
            value = SCALARS.get(field.type, "7")
            lines.append(f"{indent}{field.name} {{ key: 'k' value: {value} }}")
        elif field.type in tables.messages:
            lines += [f"{indent}{field.name} {{", *lines_of(network, field.type, f"{indent}  "), f"{indent}}}"]
        else:
            enum = tables.enums.get(field.type)
            value = list(enum)[-1] if enum else SCALARS.get(field.type, "8")
            lines.append(f"{indent}{field.name}: {value}")
    return lines


@pytest.mark.parametrize("network", ["yolo_v3", "yolo_v4", "ssd", "retinanet"])
def test_the_complete_tree_is_accepted_and_no_typo_in_it(network: str, tmp_path: Path) -> None:
    lines = lines_of(network, "Experiment")
    path = tmp_path / "spec.txt"
    path.write_text("\n".join(lines) + "\n")
    spec = load_spec(spec_class(network), path)
    assert spec.notes == []
    assert spec.eval_config.average_precision_mode == "INTEGRATE"
    assert spec.augmentation_config.image_mean == {"b": 1.5, "g": 2.5, "r": 3.5}
    assert spec.dataset_config.validation_data_sources[0].image_directory_path == "text"
    assert len(lines) > 60
    for number in range(0, len(lines), 7):
        wrong = [*lines[:number], re.sub(r"(\w)(\s*[:{])", r"\1x\2", lines[number], count=1), *lines[number + 1 :]]
        if wrong == lines:
            continue  # a closing brace
        path.write_text("\n".join(wrong) + "\n")
        with pytest.raises(SpecError) as caught:
            load_spec(spec_class(network), path)
        assert f"{path}:{number + 1}:" in str(caught.value)


@pytest.mark.parametrize("network", list(replay.FAMILIES))
def test_text_and_yaml_hold_the_same(network: str, tmp_path: Path) -> None:
    text = load_spec(spec_class(network), replay.write_text_spec(tmp_path / "spec.txt", tmp_path))
    tree = replay.spec(network, tmp_path, nms_config={"confidence_threshold": 0.01}, eval_config={"batch_size": 3})
    for section in ("results_dir", "evaluate", "inference"):
        del tree[section]
    assert text == load_spec(spec_class(network), tree)
    page = importlib.import_module(f"nvidia_tao_deploy.cv.{network}")
    assert page.NETWORK.batch_size(text, "evaluate") == 3  # the spec's, where no flag is given
    assert page.NETWORK.batch_size(load_spec(spec_class(network), tree, ["evaluate.batch_size=0"]), "evaluate") == 3
    assert page.NETWORK.labels(text) == replay.CLASSES
    assert page.NETWORK.name == replay.BASE.get(network, network)


def test_zero_is_unset() -> None:
    zeros = {
        "nms_config": {"confidence_threshold": 0},
        "eval_config": {"matching_iou_threshold": 0.0, "average_precision_mode": 1, "batch_size": 0},
        "augmentation_config": {"output_depth": 0},
    }
    spec = load_spec(spec_class("yolo_v4_tiny"), zeros)
    assert spec.nms_config.confidence_threshold == 0.01
    assert spec.eval_config.matching_iou_threshold == 0.5
    assert spec.eval_config.average_precision_mode == "INTEGRATE"
    assert spec.augmentation_config.output_depth == 8


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eval_config.average_precision_mode", "MEDIAN"),
        ("eval_config.matching_iou_threshold", 1.5),
        ("nms_config.confidence_threshold", -0.1),
        ("augmentation_config.image_mean", {"b": 1, "g": 2}),
        ("augmentation_config.image_mean", {"red": 1}),
        ("augmentation_config.output_depth", 10),
        ("eval_config.batchsize", 3),
    ],
)
def test_wrong_values_are_refused_by_their_key(key: str, value: object) -> None:
    section, _, name = key.partition(".")
    with pytest.raises(SpecError, match=re.escape(key)):
        load_spec(spec_class("yolo_v4"), {section: {name: value}})
