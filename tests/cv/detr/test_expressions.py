"""The expression task of mask_grounding_dino: decode and metric against plain Python, files, and whole commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from actions.commands import Shell, write_spec
from detr_replay import SIZES, center_boxes, vocabulary, write_images, write_replay, write_vocabulary

from nvidia_tao_deploy.cv.mask_grounding_dino import decode
from nvidia_tao_deploy.cv.mask_grounding_dino.decode import Grounded, decode_classes, decode_expressions
from nvidia_tao_deploy.cv.mask_grounding_dino.expressions import to_find
from nvidia_tao_deploy.cv.mask_grounding_dino.metric import MergedMasks
from nvidia_tao_deploy.cv.mask_grounding_dino.spec import Spec
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.predictions.types import Detections
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec
from nvidia_tao_deploy.transforms.prompt import PromptEncoder, PromptGeometry
from nvidia_tao_deploy.transforms.tokenizer import load_tokenizer

IDS = vocabulary()
TOKENS = 16
# one expression per line of the test data: row of the image, text, whether it has a target
LINES = [
    (0, "the red car", True),
    (0, "man on the left", True),
    (1, "ball", True),
    (2, "zebra", False),
    (3, "car", True),
]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def encoder(tmp_path: Path) -> PromptEncoder:
    return PromptEncoder(load_tokenizer(str(write_vocabulary(tmp_path / "bert"))), TOKENS)


def random_outputs(seed: int, batch: int, queries: int = 12) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "pred_logits": np.round(rng.normal(-1, 2, (batch, queries, TOKENS)), 1).astype(np.float32),
        "pred_boxes": rng.random((batch, queries, 4)).astype(np.float32),
        "pred_masks": rng.normal(0, 2, (batch, queries, 1, 5, 7)).astype(np.float32),
        "no_targets": rng.normal(-2, 2, (batch, 1)).astype(np.float32),
        # mostly background, so that it decides about masks
        "union_mask_logits": rng.normal([[[[1.2]], [[0]]]], 1, (batch, 2, 5, 7)).astype(np.float32),
    }


def plain_expression(raw: dict[str, Any], i: int, size: tuple[int, int], k: int, conf: float, iou: float) -> list[Any]:
    """(query, score, box, mask) by the contract, one query at a time."""
    width, height = size
    if 1 / (1 + np.exp(-float(raw["no_targets"][i, 0]))) > 0.5:
        return []
    scored = []
    for q in range(raw["pred_logits"].shape[1]):
        scored.append((max(float(1 / (1 + np.exp(-np.float32(v)))) for v in raw["pred_logits"][i, q]), q))
    scored.sort(key=lambda pair: -pair[0])
    union = np.argmax(raw["union_mask_logits"][i], axis=0).astype(np.float32)
    union = 1 / (1 + np.exp(-cv2.resize(union, size, interpolation=cv2.INTER_LINEAR))) > 0.5
    kept: list[Any] = []
    for score, q in scored[:k]:
        soft = cv2.resize(raw["pred_masks"][i, q, 0], size, interpolation=cv2.INTER_LINEAR)
        soft = 1 / (1 + np.exp(-soft.astype(np.float64)))
        cx, cy, w, h = raw["pred_boxes"][i, q].astype(np.float64)
        box = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
        box = [min(max(v, 0), m) for v, m in zip(box, (width, height) * 2, strict=True)]
        if (union * soft).sum() / (soft.sum() + 1e-6) <= 0.5 or score < conf:
            continue
        if iou > 0 and any(overlap(box, other[2]) > iou for other in kept):
            continue
        kept.append((q, score, box, soft > 0.5))
    return kept


def overlap(a: list[float], b: list[float]) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / union if union > 0 else 0.0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("k", "conf", "iou"), [(12, 0.0, 0.2), (5, 0.6, 0.5), (300, 0.3, 0.0), (12, 1.0, 0.2)])
def test_decode_equals_plain_python(seed: int, k: int, conf: float, iou: float, encoder: PromptEncoder) -> None:
    sizes = [(40, 30), (9, 31), (64, 3)]  # the last is lower than there are queries: an IndexError before
    raw = random_outputs(seed, 4)  # a row more than there are images: the padding of a short last batch
    prompt = encoder.expression("the red car on the left")
    geometries = [PromptGeometry(s, (32, 24), (32 / s[0], 24 / s[1]), prompt=prompt) for s in sizes]
    found = decode_expressions(
        raw, geometries, k, least=conf, text_threshold=0.5, inside_threshold=0.5, nms_threshold=iou
    )
    assert len(found) == 3
    for i, (result, size) in enumerate(zip(found, sizes, strict=True)):
        wanted = plain_expression(raw, i, size, k, conf, iou)
        detections = result.detections
        np.testing.assert_allclose(detections.scores, [row[1] for row in wanted], rtol=1e-6)
        np.testing.assert_allclose(detections.boxes_xyxy, np.array([r[2] for r in wanted]).reshape(-1, 4), atol=1e-4)
        assert detections.masks is not None
        assert detections.masks.shape == (len(wanted), size[1], size[0])
        for mask, row in zip(detections.masks, wanted, strict=True):
            np.testing.assert_array_equal(mask, row[3])
        for phrase, row in zip(result.phrases, wanted, strict=True):
            on = 1 / (1 + np.exp(-raw["pred_logits"][i, row[0]])) > 0.5
            assert phrase == (prompt.phrase(on & prompt.attention_mask) or "the red car on the left")


def test_masks_of_classes_keep_their_query_and_image(encoder: PromptEncoder) -> None:
    """The established metric took the first image's masks for all, and an odd number of detections crashed."""
    raw = random_outputs(1, 2)
    prompt = encoder.classes(["car", "traffic light"])
    sizes = [(40, 30), (9, 31)]
    geometries = [PromptGeometry(s, (32, 24), (32 / s[0], 24 / s[1]), prompt=prompt) for s in sizes]
    for found, i, size in zip(decode_classes(raw, geometries, 7, 0.0), range(2), sizes, strict=True):
        p = 1 / (1 + np.exp(-raw["pred_logits"][i]))
        scores = np.stack([p[:, 1], p[:, 3:5].mean(axis=1)], axis=1)
        order = np.argsort(-scores.ravel(), kind="stable")[:7]
        assert found.class_ids.tolist() == (order % 2).tolist()
        assert found.masks is not None
        for mask, pair in zip(found.masks, order, strict=True):
            wanted = cv2.resize(raw["pred_masks"][i, pair // 2, 0], size, interpolation=cv2.INTER_LINEAR) > 0
            np.testing.assert_array_equal(mask, wanted)
    fewer = decode_classes(raw, geometries, 7, 0.6)[0]
    assert fewer.masks is not None
    assert len(fewer) == len(fewer.masks) < 7
    raw["pred_masks"][0, 0, 0, 0, 0] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        decode_classes(raw, geometries, 7, 0.0)[0]


@pytest.mark.parametrize(("action", "count"), [("evaluate", 24), ("inference", 0)])
def test_evaluate_takes_classes_of_any_score(action: str, count: int, encoder: PromptEncoder) -> None:
    raw = random_outputs(1, 1)
    raw["pred_logits"][:] = -6  # 0.0025
    prompt = encoder.classes(["car", "traffic light"])
    shapes = {"input_ids": (1, TOKENS), "pred_logits": (1, 12, TOKENS)}
    tensors = {name: TensorInfo(name, shape, np.dtype(np.float32)) for name, shape in shapes.items()}
    run = decode(load_spec(Spec, {}), Ports(tensors, tensors), action)
    (found,) = run(raw, [PromptGeometry((40, 30), (32, 24), (0.8, 0.8), prompt=prompt)])
    assert len(found) == count


def grounded(masks: Any) -> Grounded:
    masks = np.array(masks, bool)
    count = len(masks)
    detections = Detections(np.zeros((count, 4)), np.ones(count), np.zeros(count, np.int64), masks)
    return Grounded(detections, ("",) * count)


def square(x: int, w: int) -> list[list[int]]:
    return [[x, 0, x + w, 0, x + w, 10, x, 10]]


def test_metric_by_hand() -> None:
    metric = MergedMasks()
    blank, left, right = np.zeros((2, 10, 20), bool)[:1], np.zeros((1, 10, 20), bool), np.zeros((1, 10, 20), bool)
    left[0, :, :8], right[0, :, 8:10] = True, True
    rows = [  # IoU 1 from two parts; 0.8; nothing rightly; something wrongly; nothing wrongly
        ((square(0, 10),), np.concatenate([left, right])),
        ((square(0, 5), square(5, 5)), left),
        ((), blank[:0]),
        ((), right),
        ((square(0, 4),), blank[:0]),
    ]
    for n, (target, masks) in enumerate(rows):
        metric.update(Sample(f"{n}", (Path("a.png"),), target), grounded(masks))
    found = metric.compute()
    iou = np.array([1, 0.8, 1, 0, 0])
    wanted = {
        "mean_iou": iou.mean(), "iou_std": iou.std(), "accuracy": 0.6, "overall_iou": 180 / (100 + 100 + 20 + 40),
        "cIoU": 100 * 180 / 260, "gIoU": 56.0, "mAP50": 60.0, "mAP": 100 * (7 * 0.6 + 3 * 0.4) / 10,
        "Pr@0.7": 200 / 3, "Pr@0.8": 200 / 3, "Pr@0.9": 100 / 3, "N_acc": 200 / 3, "T_acc": 50.0,
        "IoU@0.5": 0.6, "IoU@0.6": 0.6, "IoU@0.7": 0.6, "IoU@0.8": 0.6, "IoU@0.9": 0.4,
        "TP": 2, "TN": 1, "FP": 1, "FN": 1, "not_empty_predictions": 3, "num_images": 5,
    }  # fmt: skip
    assert found == pytest.approx(wanted)
    assert "mean_iou" in metric.report()


@pytest.mark.parametrize(("width", "hit"), [(10, 1), (9, 0)])
def test_an_expression_is_found_from_half_overlap(width: int, hit: int) -> None:
    metric, found = MergedMasks(), np.zeros((1, 10, 20), bool)
    found[0, :, :width] = True
    metric.update(Sample("0", (Path("a.png"),), (square(0, 20),)), grounded(found))
    assert (metric.compute()["accuracy"], metric.compute()["TP"]) == (hit, hit)


@pytest.mark.parametrize(("logit", "count"), [(0.01, 0), (0.0, 12), (-0.01, 12)])
def test_no_target_from_one_half_on(logit: float, count: int, encoder: PromptEncoder) -> None:
    raw = random_outputs(3, 1)
    raw["no_targets"][:] = logit
    geometry = PromptGeometry((40, 30), (32, 24), (0.8, 0.8), prompt=encoder.expression("the red car"))
    (found,) = decode_expressions(
        raw, [geometry], 12, least=0.0, text_threshold=0.5, inside_threshold=-1, nms_threshold=0
    )
    assert len(found.detections) == count


@pytest.mark.parametrize(("least", "count"), [(0.49, 12), (0.5, 12), (0.51, 0)])
def test_a_score_equal_to_the_threshold_counts(least: float, count: int, encoder: PromptEncoder) -> None:
    raw = random_outputs(3, 1)
    raw["pred_logits"][:] = 0  # one half
    raw["no_targets"][:] = -1
    geometry = PromptGeometry((40, 30), (32, 24), (0.8, 0.8), prompt=encoder.expression("the red car"))
    (found,) = decode_expressions(
        raw, [geometry], 12, least=least, text_threshold=0.5, inside_threshold=-1, nms_threshold=0
    )
    assert len(found.detections) == count
    assert found.detections.masks is not None
    assert bool(found.detections.masks.any()) == bool(count)
    raw["pred_masks"][:] = 0  # one half is not over one half
    (found,) = decode_expressions(
        raw, [geometry], 12, least=least, text_threshold=0.5, inside_threshold=-1, nms_threshold=0
    )
    assert found.detections.masks is not None
    assert not found.detections.masks.any()


class Case:
    """Images, expressions in both formats, and a model that finds them but for the one without target."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = write_images(folder / "images", SIZES[:4])
        queries = 3
        words = np.full((4, queries, len(IDS)), -8, np.float32)
        boxes = np.full((4, queries, 4), 0.5, np.float32)
        masks = np.full((4, queries, 1, 24, 32), -6, np.float32)
        self.boxes = []
        for number, (row, text, _) in enumerate(LINES):
            width, height = SIZES[row]
            box = [0.0 if number != 1 else width // 2, 0.0, width // 2, height // 2]
            self.boxes.append(box)
            query = number % queries
            # all words of the image's expressions: this little model is not told which one is meant
            for word in text.split():
                words[row, query, IDS[word]] = 4 - number / 10
            boxes[row, query] = center_boxes(box, row)[0]
            columns = slice(0, 16) if number != 1 else slice(16, 32)
            masks[row, query, 0, :12, columns] = 6
        self.outputs = {
            "pred_logits": words,
            "pred_boxes": boxes,
            "pred_masks": masks,
            "no_targets": np.array([[-4], [-4], [4], [-4]], np.float32),
            "union_mask_logits": np.stack([np.zeros((4, 24, 32)), np.ones((4, 24, 32))], axis=1).astype(np.float32),
        }
        self.model = write_replay(folder / "model.onnx", self.outputs, tokens=TOKENS)
        self.spec: dict[str, Any] = {
            "results_dir": str(folder / "results"),
            "model": {"text_encoder_type": str(write_vocabulary(folder / "bert"))},
            "dataset": {
                "test_data_sources": {"image_dir": str(folder / "images"), "data_type": "VG"},
                "infer_data_sources": {"image_dir": str(folder / "images"), "data_type": "VG"},
                "batch_size": 2,
            },
            "evaluate": {"trt_engine": str(self.model), "conf_threshold": 0.5},
            "inference": {"trt_engine": str(self.model), "text_threshold": 0.5},
        }

    def polygon(self, number: int) -> list[list[float]]:
        x, y, w, h = self.boxes[number]
        return [[x, y, x + w, y, x + w, y + h, x, y + h]]

    def coco(self) -> Path:
        annotations = []
        for number, (row, text, target) in enumerate(LINES):
            parts = [self.polygon(number)] if number != 4 else self.halves(number)
            for part in parts:  # the last expression has two objects: one sample all the same
                a = {"image_id": row, "category_id": 1, "bbox": self.boxes[number], "referring_expression": text}
                a |= {"segmentation": part, "sent_id": number, "id": len(annotations) + 1, "iscrowd": 0, "area": 1.0}
                annotations.append(a | ({} if target else {"empty": True}))
        annotations.append({**annotations[0], "id": len(annotations) + 1, "iscrowd": 1})
        images = [{"id": row, "file_name": path.name} for row, path in enumerate(self.paths)]
        document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
        path = self.folder / "truth.json"
        path.write_text(json.dumps(document))
        return path

    def halves(self, number: int) -> list[list[list[float]]]:
        x, y, w, h = self.boxes[number]
        middle = x + w // 2
        return [
            [[x, y, middle, y, middle, y + h, x, y + h]],
            [[middle, y, x + w, y, x + w, y + h, middle, y + h]],
        ]

    def lines(self) -> Path:
        rows = [
            {
                "file_name": f"/somewhere/else/{self.paths[row].name}",
                "sentence": {"raw": text, "ref_id": number, "sent_id": number},
                "annotations": [{"segmentation": self.polygon(number), "empty": not target}],
            }
            for number, (row, text, target) in enumerate(LINES)
        ]
        for name in ("gone.png", "away.png"):
            rows.append({"file_name": name, "sentence": {"raw": "car"}, "annotations": []})
        rows.append({"file_name": "image_0.png", "sentence": {"raw": "car"}})  # of no annotation nothing is known
        rows.append({"file_name": "image_0.png", "sentence": {"raw": "car"}, "annotations": "none"})
        rows.append({"file_name": "image_0.png", "sentence": {"raw": "car"}, "annotations": [1, 2]})
        rows.append({"file_name": "image_0.png", "sentence": {"raw": "ball"}, "annotations": [{"bbox": [1, 2, 3, 4]}]})
        path = self.folder / "truth.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not json\n")
        return path

    def words(self, action: str) -> list[Any]:
        return ["mask_grounding_dino", action, "-e", write_spec(self.folder / "spec.yaml", self.spec)]


@pytest.mark.parametrize("kind", ["coco", "lines"])
def test_evaluate(kind: str, tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path)
    case.spec["dataset"]["test_data_sources"]["json_file"] = str(getattr(case, kind)())
    assert shell(*case.words("evaluate")) == 0, shell.out + shell.err
    folder = tmp_path / "results" / "trt_evaluate"
    found = json.loads((folder / "results.json").read_text())
    assert found["num_images"] == len(LINES)
    # "the red car" and "man on the left" share "the": the model finds half of each besides its own
    assert found["TN"] == 1  # the expression without a target; lost in the conversion before
    assert found["T_acc"] == 100
    assert found["mean_iou"] > 0.7
    assert found["IoU@0.9"] < 1
    latest = json.loads((folder / "latest_results.json").read_text())
    assert latest["accuracy"] == 100 * found["accuracy"]
    assert latest["mean_iou"] == 100 * found["mean_iou"]
    assert latest["num_samples"] == len(LINES)
    if kind == "lines":
        assert "2 lines name images that are not below" in shell.out
        assert "gone.png (line 6), away.png (line 7) (skipped)" in shell.out
        assert (
            "4 lines skipped, they are no JSON object with file_name, sentence, annotations: 8, 9, 10, 12" in shell.out
        )
        assert "1 expression skipped, an annotation has no segmentation: line 11 (ball)" in shell.out
        assert shell.out.count("note: ") == 3
        assert "not below" in shell.refused(1, *case.words("evaluate"), "strict=true")
    else:
        assert "1 crowd annotations left out: 7" in shell.out
    records = [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]
    kpi = next(record["kpi"] for record in records if "kpi" in record)
    assert kpi == {key: value for key, value in latest.items() if not isinstance(value, str)}


def test_inference_names_files_and_phrases(tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path)
    lines = tmp_path / "find.jsonl"
    wanted = [
        ("image_0.png", "red car"),
        ("image_0.png", "man"),
        ("image_2.png", "zebra"),
        ("image_3.png", "car " * 20),
    ]
    lines.write_text("".join(json.dumps({"image_path": p, "expression": e}) + "\n" for p, e in [*wanted, ("x", "y")]))
    case.spec["dataset"]["infer_data_sources"]["captions"] = str(lines)
    case.spec["inference"]["color_map"] = {"red car": "(255,0,0)"}
    assert shell(*case.words("inference")) == 0, shell.err
    folder = tmp_path / "results" / "trt_inference"
    assert sorted(p.name for p in (folder / "labels").iterdir()) == ["image_0.txt", "image_0_1.txt", "image_2.txt"]
    score = 1 / (1 + np.exp(-4.0))
    assert (folder / "labels" / "image_0.txt").read_text() == (
        f"red car 0.00 0 0.00 0.000 0.000 32.000 24.000 0.00 0.00 0.00 0.00 0.00 0.00 0.00 {score:.3f}\n"
    )
    assert (folder / "labels" / "image_0_1.txt").read_text().startswith("man 0.00 0 0.00 32.000 0.000 64.000 24.000")
    assert (folder / "labels" / "image_2.txt").read_text() == ""
    assert "the model takes 16" in shell.out  # the long one is skipped, counted and named
    assert "1 skipped" in shell.out
    assert shell.out.count("line 5") == 1  # told once
    drawn = cv2.imread(str(folder / "images_annotated" / "image_0.png"))
    assert drawn[15, 10].tolist() == drawn[15, 29].tolist() == [6, 6, 106]  # red at alpha 100 over grey 10
    assert drawn[15, 30:33].tolist() == [[0, 0, 255]] * 3  # the outline, 3 pixels wide
    assert drawn[15, 33].tolist() == [10, 10, 10]
    plain = cv2.imread(str(folder / "images_annotated" / "image_0_1.png"))
    assert (plain == 10).all()  # "man" has no colour in the map: listed, not drawn


def test_what_does_not_fit_is_said(tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path)
    sources = case.spec["dataset"]["test_data_sources"]
    sources.update(json_file=str(case.lines()), data_type="OD")
    assert "Set dataset.test_data_sources.data_type to VG" in shell.refused(2, *case.words("evaluate"))
    asked = case.spec["dataset"]["infer_data_sources"]
    case.spec["dataset"]["infer_data_sources"] = {**asked, "captions": str(case.lines()), "data_type": "OD"}
    message = shell.refused(2, *case.words("inference"))
    assert "captions: JSON lines hold expressions" in message
    assert "Set dataset.infer_data_sources.data_type to VG" in message
    sources["data_type"] = "VG"
    three = {name: case.outputs[name] for name in ("pred_logits", "pred_boxes", "pred_masks")}
    write_replay(case.model, three, tokens=TOKENS)
    assert "no outputs for expressions" in shell.refused(1, *case.words("evaluate"))
    sources["json_file"] = str(tmp_path / "empty.jsonl")
    (tmp_path / "empty.jsonl").write_text("{}\n")
    assert "no expression with an image" in shell.refused(1, *case.words("evaluate"))
    sources["data_type"] = "XX"
    assert "data_type" in shell.refused(2, *case.words("evaluate"))


def test_images_to_search_are_below_the_first_folder(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.png").touch()
    rows = [{"image_path": f"{name}.png", "expression": "car"} for name in ("one", "two")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = to_find(tmp_path / "a.jsonl", [str(tmp_path / "one"), str(tmp_path / "two")])
    assert [found[i].path for i in range(len(found))] == [tmp_path / "one/one.png"]
    assert "two.png (line 2)" in found.issues[0]
