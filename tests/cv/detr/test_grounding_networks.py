"""grounding_dino and the class task of mask_grounding_dino from the command line: the models look tokens up by word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from actions.commands import Shell, write_spec
from detr_replay import (
    SIZES,
    center_boxes,
    plain_decode,
    pycocotools_numbers,
    truth_boxes,
    vocabulary,
    write_coco,
    write_images,
    write_replay,
    write_vocabulary,
)
from PIL import Image

from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.metrics.coco import KEYS
from nvidia_tao_deploy.metrics.coco_masks import CocoMaskMetric
from nvidia_tao_deploy.predictions.types import Detections

# Ids that are neither contiguous nor in order; "ball" is in "football", and one name has two words.
CATEGORIES = {7: "football", 2: "ball", 5: "traffic light", 9: "car"}
PIECES = {"football": ["foot", "##ball"], "ball": ["ball"], "traffic light": ["traffic", "light"], "car": ["car"]}
IDS = vocabulary()
QUERIES, TOKENS = 24, 20


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


class Case:
    """Images, annotations (with masks), a tokenizer, a model and a spec."""

    def __init__(self, folder: Path, network: str, seed: int = 5, **model: Any) -> None:
        self.folder, self.network, self.masked = folder, network, network.startswith("mask")
        paths = write_images(folder / "images")
        rng = np.random.default_rng(seed)
        self.annotations = truth_boxes(seed, list(CATEGORIES))
        for a in self.annotations:
            x, y, w, h = a["bbox"]
            if self.masked:
                a["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        self.json = write_coco(folder / "truth.json", [p.name for p in paths], CATEGORIES, self.annotations)
        words = np.round(rng.normal(-4, 1.5, (len(SIZES), QUERIES, len(IDS))), 1).astype(np.float32)
        boxes = rng.random((len(SIZES), QUERIES, 4)).astype(np.float32)
        masks = rng.normal(-1, 1, (len(SIZES), QUERIES, 1, 24, 32)).astype(np.float32)
        for number, a in enumerate(self.annotations):
            row, query = a["image_id"] - 100, number % QUERIES
            boxes[row, query] = center_boxes(a["bbox"], row)[0] + rng.normal(0, 0.02, 4)
            for piece in PIECES[CATEGORIES[a["category_id"]]]:
                words[row, query, IDS[piece]] = rng.uniform(-1, 5)
            x, y, w, h = (v * s for v, s in zip(a["bbox"], (32 / SIZES[row][0], 24 / SIZES[row][1]) * 2, strict=True))
            masks[row, query, 0] = -4
            masks[row, query, 0, int(y) : int(np.ceil(y + h)), int(x) : int(np.ceil(x + w))] = 4
        self.outputs = {"pred_logits": words, "pred_boxes": boxes}
        if self.masked:
            self.outputs["pred_masks"] = masks
        self.model = write_replay(folder / "model.onnx", self.outputs, tokens=TOKENS, **model)
        self.spec: dict[str, Any] = {
            "results_dir": str(folder / "results"),
            "model": {"text_encoder_type": str(write_vocabulary(folder / "bert")), "num_select": 30},
            "dataset": {
                "test_data_sources": {"image_dir": str(folder / "images"), "json_file": str(self.json)},
                "infer_data_sources": {"image_dir": str(folder / "images"), "captions": list(CATEGORIES.values())},
                "batch_size": 3,
            },
            "evaluate": {"trt_engine": str(self.model)},
            "inference": {"trt_engine": str(self.model), "conf_threshold": 0.3},
            "gen_trt_engine": {
                "onnx_file": str(self.model),
                "trt_engine": str(folder / "out" / "model.engine"),
                "tensorrt": {"calibration": {"cal_batch_size": 2, "cal_batches": 3}},
            },
        }

    def words(self, action: str) -> list[Any]:
        return [self.network, action, "-e", write_spec(self.folder / "spec.yaml", self.spec)]

    def results(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "results" / "trt_evaluate" / "results.json").read_text()))

    def expected(self, names: list[str] | None = None, k: int = 30) -> list[dict[str, Any]]:
        """Detections by the contract, in plain Python; ``category_id`` by name."""
        ids = {name: i for i, name in CATEGORIES.items()}
        names = names or list(CATEGORIES.values())
        rows = []
        for row, size in enumerate(SIZES):
            p = 1 / (1 + np.exp(-self.outputs["pred_logits"][row], dtype=np.float32))
            scores = [[sum(float(q[IDS[w]]) for w in PIECES[n]) / len(PIECES[n]) for n in names] for q in p]
            found = plain_decode(scores, self.outputs["pred_boxes"][row], size, k)
            for query, c, score, (x1, y1, x2, y2) in found:
                one = {"image_id": 100 + row, "category_id": ids[names[c]], "score": score, "query": query}
                rows.append({**one, "bbox": [x1, y1, x2 - x1, y2 - y1]})
        return rows

    def mask(self, detection: dict[str, Any]) -> Any:
        row = detection["image_id"] - 100
        logits = self.outputs["pred_masks"][row, detection["query"], 0]
        resized = cv2.resize(logits, SIZES[row], interpolation=cv2.INTER_LINEAR)
        return 1 / (1 + np.exp(-resized.astype(np.float64))) > 0.5


@pytest.mark.parametrize("network", ["grounding_dino", "mask_grounding_dino"])
@pytest.mark.parametrize("batch", [None, 4], ids=["dynamic", "batch 4"])
def test_evaluate_gives_pycocotools_numbers(network: str, batch: int | None, tmp_path: Path, shell: Shell) -> None:
    """Category ids are those of the file: the established ones are the place in the list, plus 1 with masks."""
    case = Case(tmp_path, network, batch=batch, shuffled=True)
    assert shell(*case.words("evaluate")) == 0, shell.err
    found, rows = case.results(), case.expected()
    assert [found[key] for key in KEYS] == pytest.approx(pycocotools_numbers(case.json, rows), abs=1e-6)
    assert 0.2 < found["AP"] < 0.95
    assert found["images_evaluated"] == len(SIZES)
    if case.masked:
        from pycocotools import mask as codes

        for detection in rows:
            code = codes.encode(np.asfortranarray(case.mask(detection), dtype=np.uint8))
            detection["segmentation"] = {**code, "counts": code["counts"].decode()}
            del detection["bbox"]  # pycocotools takes the area of boxes where it sees one
        wanted = pycocotools_numbers(case.json, rows, "segm")
        assert [found[f"mask_{key}"] for key in KEYS] == pytest.approx(wanted, abs=1e-6)
        assert found["mask_AP50"] > 0.2


def test_boxes_alone_without_annotated_masks(tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path, "mask_grounding_dino")
    document = json.loads(case.json.read_text())
    del document["annotations"][0]["segmentation"]
    case.json.write_text(json.dumps(document))
    assert "have no segmentation" in shell.refused(1, *case.words("evaluate"))
    for annotation in document["annotations"]:
        annotation.pop("segmentation", None)
    case.json.write_text(json.dumps(document))
    assert shell(*case.words("evaluate")) == 0
    assert "mask_AP" not in case.results()


def test_masks_are_small_by_their_own_area(tmp_path: Path) -> None:
    """By the area of its box, a wrong detection of a small cross would be medium, and APs 1."""
    path = write_images(tmp_path / "images", [(100, 100)])[0]
    cross = [[0, 45, 100, 45, 100, 50, 0, 50], [45, 0, 50, 0, 50, 100, 45, 100]]
    truth = {"image_id": 100, "category_id": 7, "bbox": [0, 0, 100, 100], "segmentation": cross, "area": 975}
    other = {**truth, "segmentation": [[0, 0, 40, 0, 40, 40, 0, 40]], "bbox": [0, 0, 40, 40], "area": 1600}
    data = CocoDetection(write_coco(tmp_path / "t.json", [path.name], CATEGORIES, [truth, other]), path.parent)
    mask = np.zeros((2, 100, 100), bool)
    mask[0, 45:50], mask[0, :, 45:50] = True, True
    mask[1, 60:65], mask[1, :, 60:65] = True, True  # wrong, best scored
    metric = CocoMaskMetric(data)
    boxes = np.array([[0, 0, 100, 100]] * 2, float)
    metric.update(data[0], Detections(boxes, np.array([0.5, 0.9]), np.array([7, 7]), mask))
    assert metric.compute()["mask_APs"] == pytest.approx(0.5, abs=1e-3)  # the wrong one is small too


@pytest.mark.parametrize("network", ["grounding_dino", "mask_grounding_dino"])
def test_labels_and_pictures(network: str, tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path, network)
    names = ["car", "football", "ball"]
    case.spec["dataset"]["infer_data_sources"]["captions"] = [" car", "football", "ball "]
    case.spec["inference"]["color_map"] = {"car": "red", "football": [0, 255, 0]}
    assert shell(*case.words("inference")) == 0, shell.err
    folder = tmp_path / "results" / "trt_inference"
    some = 0
    for row, size in enumerate(SIZES):
        kept = [d for d in case.expected(names) if d["image_id"] == 100 + row and d["score"] >= 0.3]
        wanted = "".join(
            f"{CATEGORIES[d['category_id']]} 0.00 0 0.00 {d['bbox'][0]:.3f} {d['bbox'][1]:.3f} "
            f"{d['bbox'][0] + d['bbox'][2]:.3f} {d['bbox'][1] + d['bbox'][3]:.3f} "
            f"0.00 0.00 0.00 0.00 0.00 0.00 0.00 {d['score']:.3f}\n"
            for d in kept
        )
        assert (folder / "labels" / f"image_{row}.txt").read_text() == wanted
        some += len(kept)
        with Image.open(folder / "images_annotated" / f"image_{row}.png") as picture:
            assert picture.size == size
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        drawn = [d for d in kept if d["category_id"] in (7, 9)]
        assert (pixels.max(axis=2) != pixels.min(axis=2)).any() == bool(drawn)
        if case.masked and len(drawn) == 1 and (inside := case.mask(drawn[0])).any():
            colored = pixels.max(axis=2) != pixels.min(axis=2)
            assert colored[inside].mean() > 0.9
    assert some > 5


def test_one_caption_and_one_folder_as_plain_text(tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path, "grounding_dino")
    case.spec["dataset"]["infer_data_sources"]["captions"] = "traffic light"
    assert shell(*case.words("inference")) == 0
    text = "".join(p.read_text() for p in (tmp_path / "results/trt_inference/labels").glob("*.txt"))
    assert text.count("\n") == sum(d["score"] >= 0.3 for d in case.expected(["traffic light"]))


@pytest.mark.parametrize(
    ("network", "precision"),
    [
        *[("grounding_dino", precision) for precision in ("fp32", "fp16", "int8")],
        *[("mask_grounding_dino", precision) for precision in ("fp16", "int8")],
    ],
)
def test_engines(network: str, precision: str, tmp_path: Path, shell: Shell) -> None:
    """Calibration feeds image and text; int8 was refused by a missing key before."""
    case = Case(tmp_path, network)
    options = case.spec["gen_trt_engine"]["tensorrt"]
    options["data_type"] = precision
    if precision == "int8":
        options["calibration"]["cal_image_dir"] = str(tmp_path / "images")
    else:
        case.spec["model"]["text_encoder_type"] = "not there"  # nothing to tokenize in a build without calibration
    assert shell(*case.words("gen_trt_engine")) == 0, shell.out + shell.err
    manifest = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    profiles = manifest["profiles"]
    assert profiles["text_token_mask"]["min"] == [1, TOKENS, TOKENS]
    assert profiles["text_token_mask"]["max"] == [4, TOKENS, TOKENS]
    assert profiles["input_ids"]["max"] == [4, TOKENS]
    assert manifest["labels"] == list(CATEGORIES.values())
    case.spec["model"]["text_encoder_type"] = str(tmp_path / "bert")
    case.spec["evaluate"]["trt_engine"] = str(next((tmp_path / "out").glob("*.onnx")))
    assert shell(*case.words("evaluate")) == 0, shell.err
    wanted = pycocotools_numbers(case.json, case.expected())[0]
    assert case.results()["AP"] == pytest.approx(wanted, abs=1e-6 if precision == "fp32" else 0.05)


def test_what_is_wrong_with_prompts_is_said(tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path, "grounding_dino")
    sources = case.spec["dataset"]["infer_data_sources"]
    sources["captions"] = ["car"] * 9 + ["zebra"]
    message = shell.refused(2, *case.words("inference"))
    assert "22 tokens, the model takes 20" in message
    assert "zebra" in message
    sources["captions"] = ["car", "..", "what?"]
    assert shell(*case.words("inference")) == 0
    assert "read as several: .., what?" in shell.out
    sources["captions"] = []
    assert "captions: no value is given" in shell.refused(2, *case.words("inference"))
    case.spec["gen_trt_engine"]["tensorrt"].update(
        data_type="int8", calibration={"cal_image_dir": str(tmp_path / "images"), "cal_batches": 2}
    )
    case.spec["dataset"]["test_data_sources"] = {}
    assert "need something to look for" in shell.refused(2, *case.words("gen_trt_engine"))
    sources["captions"] = ["car"]
    case.spec["model"]["max_text_len"] = 256
    assert "the model takes 20 tokens, model.max_text_len says 256" in shell.refused(2, *case.words("inference"))
    del case.spec["model"]["max_text_len"]
    case.spec["model"]["text_encoder_type"] = str(tmp_path / "nowhere")
    message = shell.refused(2, *case.words("inference"))
    assert "no tokenizer" in message
    assert "vocab.txt" in message


def test_models_of_another_kind_are_refused(tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path, "grounding_dino")
    model = onnx.load(case.model)
    for value in model.graph.input:
        if value.name in ("input_ids", "attention_mask", "position_ids", "token_type_ids"):
            value.type.tensor_type.shape.dim[1].dim_param = "tokens"
    onnx.save(model, case.model)
    assert "no one fixed length" in shell.refused(1, *case.words("inference"))
    write_replay(case.model, case.outputs)
    assert "'input_ids'" in shell.refused(1, *case.words("inference"))
