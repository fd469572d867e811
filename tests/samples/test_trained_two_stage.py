"""The trained deformable_detr, faster_rcnn and mask_rcnn from the command line, with the specs that users copy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from actions.commands import Shell
from PIL import Image
from pycocotools import mask as codes
from pycocotools.coco import COCO
from repository import MODELS

from samples.render import CLASSES

Words = Callable[..., list[object]]
BARS = {"deformable_detr": ("AP50", 0.95), "faster_rcnn": ("mAP", 0.95), "mask_rcnn": ("mask_AP50", 0.95)}
# input and outputs, plugins in order, and attributes of some of them
GRAPHS = {
    "deformable_detr": (
        {"inputs": (3, 128, 160)},
        {"pred_logits": (100, 11), "pred_boxes": (100, 4)},
        ["MultiscaleDeformableAttnPlugin_TRT"] * 2,
        {"version": b"1", "namespace": b""},
    ),
    "faster_rcnn": (
        {"input_image": (3, 128, 160)},
        {"nms_out": (1, 32, 7), "nms_out_1": (1, 1, 1)},
        ["ProposalDynamic", "CropAndResizeDynamic", "NMSDynamic_TRT"],
        {
            "input_height": 128, "input_width": 160, "rpn_stride": 8, "roi_min_size": 1.0, "pre_nms_top_n": 200,
            "post_nms_top_n": 32, "anchor_sizes": [16.0, 24.0], "anchor_ratios": [0.5, 1.0], "crop_height": 7,
            "crop_width": 7, "shareLocation": 0, "varianceEncodedInTarget": 1, "backgroundLabelId": 10, "topK": 32,
            "keepTopK": 32, "codeType": 1, "numClasses": 11, "inputOrder": [1, 2, 0], "confSigmoid": 0,
            "isNormalized": 1,
        },
    ),
    "mask_rcnn": (
        {"Input": (3, 128, 192)},
        {"generate_detections": (20, 6), "mask_fcn_logits/BiasAdd": (20, 11, 28, 28)},
        [
            *["ResizeNearest_TRT"] * 3, "MultilevelProposeROI_TRT", "MultilevelCropAndResize_TRT",
            "GenerateDetection_TRT", "SpecialSlice_TRT", "MultilevelCropAndResize_TRT",
        ],
        {"prenms_topk": 4096, "fg_threshold": 0.0, "score_threshold": 0.0, "num_classes": 11, "scale": 2.0},
    ),
}  # fmt: skip


def measured(shell: Shell, words: list[object]) -> float:
    assert shell(*words, "--json") == 0, shell.err
    return float(json.loads(shell.out)[BARS[str(words[0])][0]])


@pytest.mark.parametrize("network", BARS)
def test_every_precision_finds_the_digits(shell: Shell, example: Words, network: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    right = measured(shell, example(network, "evaluate"))
    assert right > BARS[network][1]
    for precision in ("fp32", "fp16", "int8"):
        kind = f"gen_trt_engine.tensorrt.data_type={precision}"
        batches = "gen_trt_engine.tensorrt.calibration.cal_batches=1"
        assert shell(*example(network, "gen_trt_engine", kind, batches), "--json") == 0, shell.err
        found = measured(shell, example(network, "evaluate", model=json.loads(shell.out)["prepared_onnx"]))
        assert found == pytest.approx(right, abs={"fp32": 1e-4, "fp16": 0.01, "int8": 0.02}[precision])


@pytest.mark.parametrize("network", BARS)
def test_wrong_constants_break_what_they_feed(shell: Shell, example: Words, network: str, tmp_path: Path) -> None:
    model = onnx.load(MODELS / f"{network}.onnx")
    stem = next(tensor for tensor in model.graph.initializer if tuple(tensor.dims)[1:] == (3, 3, 3))
    weights, broken = onnx.numpy_helper.to_array(stem), tmp_path / "broken.onnx"
    for wrong in (weights[:, ::-1], weights / 255):  # channels swapped; levels taken for fractions
        stem.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(wrong), stem.name))
        onnx.save(model, broken)
        assert measured(shell, example(network, "evaluate", model=broken)) < 0.5


def test_what_the_spec_says_of_the_pictures_counts(shell: Shell, example: Words) -> None:
    keys = "model_config.input_image_config"
    for network, wrong, most in (
        ("deformable_detr", "dataset.augmentation.input_std=[1,1,1]", 0.9),
        ("faster_rcnn", f"{keys}.image_channel_order=rgb", 0.1),
        ("faster_rcnn", f"{keys}.image_scaling_factor=127.5", 0.1),
    ):
        assert measured(shell, example(network, "evaluate", wrong)) < most, wrong


@pytest.mark.parametrize("network", ["deformable_detr", "faster_rcnn"])
def test_labels_name_what_lies_there(
    shell: Shell, example: Words, network: str, scenes: tuple[Path, Path], tmp_path: Path
) -> None:
    assert shell(*example(network, "inference")) == 0, shell.err
    out = tmp_path / "results" / network / "trt_inference"
    hits = found = objects = 0
    for truth in sorted((scenes[1] / "test" / "labels").glob("*.txt")):  # the scenes of scenes_masks are the same
        rows = [line.split(" ") for line in (out / "labels" / truth.name).read_text().splitlines()]
        assert all(row[0] in CLASSES and len(row) in (15, 16) for row in rows)
        wanted = [line.split(" ") for line in truth.read_text().splitlines()]
        hits += sum(any(np.abs(box(row) - box(one)).max() < 8 for row in rows if row[0] == one[0]) for one in wanted)
        found, objects = found + len(rows), objects + len(wanted)
        with Image.open(out / "images_annotated" / f"{truth.stem}.jpg") as picture:
            assert picture.size == Image.open(scenes[1] / "test" / "images" / f"{truth.stem}.jpg").size
    assert hits / objects > 0.9
    assert hits / found > 0.9


def box(row: list[str]) -> np.ndarray:
    return np.float64(row[4:8])


def test_masks_cover_the_ink(shell: Shell, example: Words, scene_masks: Path, tmp_path: Path) -> None:
    assert shell(*example("mask_rcnn", "inference")) == 0, shell.err
    out, truth = tmp_path / "results/mask_rcnn/trt_inference", COCO(scene_masks / "annotations/test.json")
    found = covered = objects = 0
    for image in truth.dataset["images"]:
        rows = json.loads((out / "labels" / image["file_name"]).with_suffix(".json").read_text())
        for wanted in truth.imgToAnns[image["id"]]:
            same = [row["segmentation"] for row in rows if row["category_id"] == wanted["category_id"]]
            overlap = codes.iou(same, [truth.annToRLE(wanted)], [0]) if same else np.zeros((1, 1))
            covered, objects = covered + int(np.max(overlap) > 0.6), objects + 1
        found += len(rows)
    assert covered / objects > 0.85
    assert covered / found > 0.8


@pytest.mark.parametrize("network", GRAPHS)
def test_the_graph_is_what_the_exporter_writes(network: str) -> None:
    inputs, outputs, plugins, numbers = GRAPHS[network]
    model = onnx.load(MODELS / f"{network}.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    for values, wanted in ((model.graph.input, inputs), (model.graph.output, outputs)):
        shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
        assert shapes == {name: [0, *shape] for name, shape in wanted.items()}
    nodes = [node for node in model.graph.node if not onnx.defs.has(node.op_type)]
    assert [node.op_type for node in nodes] == plugins
    held = {one.name: onnx.helper.get_attribute_value(one) for node in nodes for one in node.attribute}
    assert {key: held[key] for key in numbers} == numbers
    if network == "faster_rcnn":
        assert [node.name for node in nodes] == ["proposal", "CropAndResize_plugin", "NMS"]
