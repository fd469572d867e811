"""The specs of ml_recog, optical_inspection and visual_changenet: whole trees are accepted, typos refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nvidia_tao_deploy.cv.ml_recog.spec import Spec as MlRecog
from nvidia_tao_deploy.cv.optical_inspection.spec import Spec as OpticalInspection
from nvidia_tao_deploy.cv.visual_changenet.spec import Spec as VisualChangenet
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.known import Node, known_keys
from nvidia_tao_deploy.spec.load import load_spec

VALUES = {"int": 1, "float": 0.5, "bool": True, "list[str]": ["x"], "list[int]": [1], "list[float]": [0.5, 0.5, 0.5]}
SENSIBLE = {
    "data_type": "FP16",
    "layers_precision": ["*:fp32"],
    "inference_input_type": "image",
    "concat_type": "linear",
    "grid_map": {"x": 1, "y": 2},
    "input_map": {"white": 0},
    "val_dataset": {"reference": "r", "query": "q"},
    "difference_module": "learnable",
    "task": "classify",
    "label_transform": "None",
    "label_suffix": ".png",
    "color_map": {"0": [1, 2, 3], "1": [4, 5, 6]},
    "num_classes": 2,
}


def tree_of(node: Node) -> dict[str, Any]:
    return {name: value_of(name, child) for name, child in node.children.items()}


def value_of(name: str, node: Node) -> Any:
    if name in SENSIBLE:
        return SENSIBLE[name]
    if node.kind != "value":
        return [tree_of(node)] if node.kind == "list" else tree_of(node)
    declared = node.type.removesuffix("?")
    return {"a": 1} if declared.startswith("dict") else VALUES.get(declared, "text")


@pytest.mark.parametrize("model", [MlRecog, OpticalInspection, VisualChangenet], ids=lambda model: model.network)
def test_the_whole_tree_is_accepted_and_a_typo_refused_with_its_line(model: Any, tmp_path: Path) -> None:
    tree = tree_of(known_keys(model.network))
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert load_spec(model, path).notes == []
    tree["dataset"]["clas_map"] = 1
    path.write_text(yaml.safe_dump(tree))
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "clas_map" in text)
    with pytest.raises(SpecError, match="clas_map") as caught:
        load_spec(model, path)
    assert f"{path}:{line}: dataset.clas_map" in str(caught.value)


def test_older_names_are_accepted() -> None:
    spec = load_spec(VisualChangenet, {"model": {"classify": {"diff_module": "learnable"}}, "task": None})
    assert spec.model.classify.difference_module == "learnable"
    assert spec.task == "segment"
    assert len(spec.notes) == 1


def test_lightings_keep_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("dataset:\n  input_map:\n    zeta: 0\n    alpha: 9\n    mid: 4\n")
    assert load_spec(OpticalInspection, path).dataset.lights == ("zeta", "alpha", "mid")
    assert load_spec(OpticalInspection, path, ["dataset.num_input=1"]).dataset.lights == ("zeta",)
