"""Spec trees of the query detectors: complete ones load, typos are refused, older files load with notes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.known import Node, known_keys
from nvidia_tao_deploy.spec.load import load_spec

NETWORKS = ("deformable_detr", "dino", "rtdetr", "grounding_dino", "mask_grounding_dino")
SENSIBLE = {
    "data_type": "fp16", "layers_precision": ["*:fp32"], "color_map": {"car": "red"}, "input_mean": [0.4],
    "input_std": [1], "eval_spatial_size": [640, 640],
}  # fmt: skip


def spec_of(network: str) -> Any:
    return importlib.import_module(f"nvidia_tao_deploy.cv.{network}.spec").Spec


def complete(node: Node, name: str = "") -> Any:
    if name in SENSIBLE:
        return SENSIBLE[name]
    if name in ("test_data_sources", "infer_data_sources"):
        return {"image_dir": "a"}
    if node.kind != "value":
        content = {key: complete(child, key) for key, child in node.children.items()}
        return {"block": content, "list": [content], "map": {"car": content}}[node.kind]
    if node.enum:
        return node.enum[0][0]
    kind = node.type.removesuffix("?")
    if kind.startswith("list"):
        return [[1, 2]] if "[list" in kind else ["a"] if "str" in kind else [1]
    if kind.startswith("dict"):
        return {"car": "1"}
    return {"int": 1, "float": 0.5, "bool": True}.get(kind, "text")


@pytest.mark.parametrize("network", NETWORKS)
def test_the_complete_tree_loads_and_a_typo_is_refused(network: str, tmp_path: Path) -> None:
    tree = complete(known_keys(network))
    assert load_spec(spec_of(network), tree).notes == []
    for section, key in (("model", "num_select"), ("dataset", "batch_size"), ("inference", "conf_threshold")):
        block = dict(tree[section])
        block[f"{key}s"] = block.pop(key)
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump({**tree, section: block}, sort_keys=False))
        line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if text.startswith(f"  {key}s:"))
        with pytest.raises(SpecError) as caught:
            load_spec(spec_of(network), path)
        assert caught.value.where == f"{path}:{line}: {section}.{key}s"


OLD = [
    ("rtdetr", "gen_trt_engine: {input_channel: 3, input_width: 960, input_height: 544, gpu_id: 0}", {}, 3),
    ("deformable_detr", "dataset: {num_classes: 4, batch_size: -1, workers: 8}\nmodel: {with_box_refine: true}",
     {"dataset.num_classes": 4}, 0),
    ("dino", "dataset: {infer_data_sources: {image_dir: '???', classmap: '???'}}\nencryption_key: '???'", {}, 0),
    ("mask_grounding_dino", "evaluate: {test_threshold: 0.25, nms_threshold: 0.7, conf_threshold: 0.1}",
     {"evaluate.text_threshold": 0.25, "evaluate.nms_threshold": 0.7}, 1),
    ("mask_grounding_dino", "dataset: {infer_data_sources: {image_dir: [a], captions: [b, c], data_type: VG}}",
     {"dataset.infer_data_sources.captions": ["b", "c"]}, 0),
    ("grounding_dino", "dataset: {infer_data_sources: {image_dir: a, captions: one}}\nevaluate: {input_width: 960}",
     {"dataset.infer_data_sources.captions": ["one"], "dataset.infer_data_sources.image_dir": ["a"]}, 0),
]  # fmt: skip


@pytest.mark.parametrize(("network", "text", "wanted", "notes"), OLD)
def test_files_of_earlier_releases_load(
    network: str, text: str, wanted: dict[str, Any], notes: int, tmp_path: Path
) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(text)
    spec = load_spec(spec_of(network), path)
    assert {key: spec.get(key) for key in wanted} == wanted
    assert len(spec.notes) == notes
