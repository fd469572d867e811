"""The packed key trees: complete, accepted without noise, and a typo anywhere is refused."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml

from nvidia_tao_deploy.cv.classification_pyt.spec import Spec as ClassificationSpec
from nvidia_tao_deploy.cv.detectnet_v2.spec import Spec as DetectnetSpec
from nvidia_tao_deploy.cv.rtdetr.spec import Spec as RtdetrSpec
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.multimodal.clip.spec import Spec as ClipSpec
from nvidia_tao_deploy.multimodal.video_clip.spec import Spec as VideoClipSpec
from nvidia_tao_deploy.spec.known import Node, known_keys, networks, proto_tables
from nvidia_tao_deploy.spec.load import load_spec

MODELS = [RtdetrSpec, ClassificationSpec, DetectnetSpec, ClipSpec, VideoClipSpec]
YAML_KEYS = {
    "centerpose": 161, "classification_pyt": 190, "classification_tf2": 124, "clip": 137, "deformable_detr": 178,
    "depth_net": 278, "dino": 239, "efficientdet_tf2": 137, "grounding_dino": 189, "mae": 121, "mask2former": 208,
    "mask_grounding_dino": 203, "ml_recog": 128, "nvdinov2": 121, "ocdnet": 185, "ocrnet": 151, "oneformer": 255,
    "optical_inspection": 132, "pointpillars": 114, "rtdetr": 240, "segformer": 147, "sparse4d": 29, "video_clip": 48,
    "visual_changenet": 213,
}  # fmt: skip
PROTO = {
    "classification_tf1", "detectnet_v2", "efficientdet_tf1", "faster_rcnn", "lprnet", "mask_rcnn",
    "multitask_classification", "retinanet", "ssd", "unet", "yolo_v3", "yolo_v4",
}  # fmt: skip


def sample(node: Node, rng: random.Random) -> Any:
    """A value that fits a known key."""
    if node.kind == "block":
        return {name: sample(child, rng) for name, child in node.children.items()}
    if node.kind == "list":
        return [{name: sample(child, rng) for name, child in node.children.items()} for _ in range(2)]
    if node.kind == "map":
        return {"car": {name: sample(child, rng) for name, child in node.children.items()}}
    declared = node.type.removesuffix("?")
    if declared.startswith("list"):
        inner = declared.removeprefix("list").strip("[]")
        return [scalar(inner, node, rng)] * 2 if "[" not in declared[5:] else [[1, 2]]
    if declared.startswith("dict"):
        return {"car": scalar(declared.partition(",")[2].strip("]"), node, rng)} if "[" in declared else {"a": 1}
    return scalar(declared, node, rng)


def scalar(declared: str, node: Node, rng: random.Random) -> Any:
    if node.enum:
        return rng.choice(node.enum)[0]
    if "int" in declared:
        return rng.choice([1, "1"])
    if declared in ("float", "float32", "double"):
        return rng.choice([1, 0.5, "0.5"])
    if declared == "bool":
        return rng.choice([True, False, "TRUE", "False"])
    return "text"


# Keys that are read take only values that mean something.
SENSIBLE = {
    "gen_trt_engine.tensorrt.data_type": "FP16",
    "gen_trt_engine.tensorrt.layers_precision": ["*:fp32"],
    "dataset.augmentation.eval_spatial_size": [640, 640],
    "inference.color_map": {"car": "red"},
}


def complete(model: Any) -> dict[str, Any]:
    tree = sample(known_keys(model.network), random.Random(0))
    for key, value in SENSIBLE.items():
        *parents, last = key.split(".")
        block = tree
        for part in parents:
            block = block.get(part, {})
        if last in block:
            block[last] = value
    for name in ("evaluate", "inference"):
        tree.get(name, {}).pop("unused", None)
    for section in ("test_data_sources", "infer_data_sources"):
        if section in tree.get("dataset", {}):
            tree["dataset"][section] = {"image_dir": "a"}
    return tree


def test_all_networks_are_packed_with_every_key():
    assert set(networks()) == set(YAML_KEYS) | PROTO
    for network, count in YAML_KEYS.items():
        leaves = {path for path, node in known_keys(network).paths() if node.kind == "value"}
        groups = {path for path, node in known_keys(network).paths() if node.kind == "list" or path == "distill"}
        optional = {path for path, node in known_keys(network).paths() if path.endswith((".weights", ".activations"))}
        listed = leaves | groups | (optional if "quantize" in known_keys(network).children else set())
        assert abs(len(listed) - count) <= 3, (network, len(listed), count)
    assert {network for network in networks() if proto_tables(network)} == PROTO


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.network)
def test_every_known_key_is_accepted_without_a_note(model):
    tree = complete(model)
    spec = load_spec(model, tree)
    assert spec.notes == []
    assert len(list(known_keys(model.network).paths())) > 50


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.network)
def test_a_typo_anywhere_is_refused_with_its_line(model, tmp_path):
    rng = random.Random(1)
    tree = complete(model)
    places: list[tuple[dict[str, Any], str]] = []

    def collect(value: Any, named: bool) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if not named and key != "car":
                    places.append((value, key))
                collect(item, key.endswith(("kwargs", "color_map", "mapping", "overlap", "custom_args")))
        elif isinstance(value, list):
            for item in value:
                collect(item, False)

    collect({name: block for name, block in tree.items() if isinstance(block, dict)}, False)
    path = tmp_path / "spec.yaml"
    tried = 0
    for block, key in rng.sample(places, 24):
        if ("a" in block and block == {"a": 1}) or block.get("car") is not None or len(key) < 6 or block is None:
            continue
        typo = key[:1] + key[2] + key[1] + key[3:] if key[1] != key[2] else key[:-1]
        if typo in block:
            continue
        block[typo] = block.pop(key)
        path.write_text(yaml.safe_dump(tree, sort_keys=False, width=1000))
        lines = path.read_text().splitlines()
        block[key] = block.pop(typo)
        if not [line for line in lines if line.strip().startswith((f"{typo}:", f"- {typo}:"))]:
            continue
        with pytest.raises(SpecError, match=f"unknown key '.*{typo}'") as caught:
            load_spec(model, path)
        number = int(caught.value.where.removeprefix(f"{path}:").partition(":")[0])
        assert f"{typo}:" in lines[number - 1]
        assert f"Did you mean {caught.value.where.rpartition(': ')[2][: -len(typo)]}{key}?" in caught.value.remedy
        tried += 1
    assert tried > 8


def test_types_of_training_keys_are_checked_loosely():
    for value in ("12", 12, None, "???"):
        load_spec(RtdetrSpec, {"train": {"num_epochs": value}})
    for bad in ("twelve", 1.5, [1], {"a": 1}):
        with pytest.raises(SpecError) as caught:
            load_spec(RtdetrSpec, {"train": {"num_epochs": bad}})
        assert caught.value.where == "spec: train.num_epochs"


def test_a_block_that_is_given_but_empty_is_the_default():
    source = {"evaluate": None, "train": None, "gen_trt_engine": {"tensorrt": None}}
    assert load_spec(RtdetrSpec, source) == RtdetrSpec()
