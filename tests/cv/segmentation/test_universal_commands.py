"""mask2former and oneformer from the command line, on replay models of their contracts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell, write_spec
from cv.segmentation import seg_replay as replay
from cv.segmentation.test_segformer_commands import complete
from PIL import Image, ImageDraw, ImageFont
from repository import MODELS

from nvidia_tao_deploy.cv.mask2former.spec import Spec as Mask2FormerSpec
from nvidia_tao_deploy.cv.oneformer import bind
from nvidia_tao_deploy.cv.oneformer.spec import Spec as OneFormerSpec
from nvidia_tao_deploy.cv.oneformer.task import task_tokens
from nvidia_tao_deploy.data.masks import IGNORE
from nvidia_tao_deploy.data.panoptic import CocoPanoptic, PanopticFile
from nvidia_tao_deploy.errors import DataError, ModelError, SpecError
from nvidia_tao_deploy.families.universal_segmentation import InstanceTruth, read_label_map
from nvidia_tao_deploy.predictions.queries import (
    instance_queries,
    instances,
    panoptic_map,
    panoptic_queries,
    semantic_map,
)
from nvidia_tao_deploy.predictions.segments import Region, SegmentClass, draw_regions, panoptic_regions
from nvidia_tao_deploy.predictions.types import PanopticMap
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.known import known_keys
from nvidia_tao_deploy.spec.load import load_spec
from nvidia_tao_deploy.transforms.transform import Geometry

WIDE, HIGH = replay.NET
MEAN, STD = 0.485, 0.229  # of the red channel; the others are darker or as bright after normalizing
CATEGORIES = [  # neither in the order of ids nor things first; id 2 is no category
    {"id": 4, "name": "sky", "isthing": 0},
    {"id": 1, "name": "person", "isthing": 1},
    {"id": 3, "name": "grass", "isthing": 0},
    {"id": 5, "name": "dog", "isthing": 1},
]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def constants(image: str = "inputs") -> dict[str, Any]:
    """One mean and deviation for all channels make the brightest value the grey level's."""
    return {"image": image, "scale": 1 / 255, "mean": 0.5, "std": 0.25}


PIXELS = {"pixel_mean": [0.5] * 3, "pixel_std": [0.25] * 3}


class Scene:
    """Images with segments; a crowd and pixels without segment in each."""

    def __init__(self, root: Path) -> None:
        self.root, self.rng = root, np.random.default_rng(11)
        self.images = replay.write_images(root / "images")
        (root / "panoptic").mkdir()
        self.maps, self.rows = [], []  # segment numbers (h, w), and (category id, iscrowd) by number - 1
        annotations = []
        for number, size in enumerate(replay.SIZES):
            segments = replay.blobs(self.rng, size, 7).astype(int)
            rows = [(int(self.rng.choice([1, 3, 4, 5])), False) for _ in range(6)]
            rows[-1] = (rows[-1][0], True)
            ids = [0] + [1000 * (k + 1) + 70000 * number for k in range(6)]
            code = np.array(ids)[segments]
            picture = np.stack([code % 256, code // 256 % 256, code // 65536], axis=-1).astype(np.uint8)
            Image.fromarray(picture).save(root / "panoptic" / f"{number:03d}.png")
            info = [
                {"id": ids[k + 1], "category_id": category, "iscrowd": int(crowd)}
                for k, (category, crowd) in enumerate(rows)
            ]
            annotations.append({"image_id": 10 + number, "file_name": f"{number:03d}.png", "segments_info": info})
            self.maps.append(segments)
            self.rows.append(rows)
        images = [{"id": 10 + i, "file_name": path.name} for i, path in enumerate(self.images)]
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        (root / "panoptic.json").write_text(json.dumps(content))

    def truth(self, class_of: dict[int, int]) -> list[np.ndarray]:
        """Classes in source pixels, -1 ignored."""
        tables = [
            np.array([-1] + [-1 if crowd else class_of[category] for category, crowd in rows]) for rows in self.rows
        ]
        return [table[segments] for table, segments in zip(tables, self.maps, strict=True)]

    def scores(self, truth: list[np.ndarray], classes: int, size: tuple[int, int] = replay.NET) -> np.ndarray:
        """(n, C, H, W) in [0, 1], in good part right."""
        found = self.rng.uniform(0, 1, (len(truth), classes, size[1], size[0])).astype(np.float32)
        for row, labels in zip(found, truth, strict=True):
            small = np.asarray(Image.fromarray(labels.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
            for c in range(classes):
                row[c] += 0.8 * (small == c)
        return found / 2

    def label_map(self, **more: Any) -> str:
        path = self.root / "labels.json"
        path.write_text(json.dumps([{**row, **more} for row in CATEGORIES]))
        return str(path)


def results(root: Path) -> dict[str, Any]:
    return json.loads((root / "results" / "trt_evaluate" / "results.json").read_text())


def assert_iou(found: dict[str, Any], truth: list[np.ndarray], predicted: list[np.ndarray], names: list[str]) -> None:
    nearest = Image.Resampling.NEAREST
    on_net = [np.asarray(Image.fromarray(t.astype(np.int32)).resize(replay.NET, nearest)) for t in truth]
    wanted = replay.sklearn_figures(on_net, predicted, len(names))
    assert found["mIoU"] == pytest.approx(np.nanmean(wanted["iou"]), abs=1e-12)
    assert found["ACC_all"] == pytest.approx(wanted["accuracy"], abs=1e-12)
    for name, value in zip(names, wanted["iou"], strict=True):
        assert found["IoU"][name] == (None if np.isnan(value) else pytest.approx(value, abs=1e-12))
    assert 0.2 < found["mIoU"] < 0.95
    assert found["images_evaluated"] == len(replay.SIZES)


def mask2former(scene: Scene, tables: dict[str, np.ndarray], classes: int = 5, **dataset: Any) -> Path:
    onnx.save(replay.replay(tables, **constants()), scene.root / "model.onnx")
    content = {
        "results_dir": str(scene.root / "results"),
        "model": {"sem_seg_head": {"num_classes": classes}},
        "dataset": {**PIXELS, "test": {"img_dir": str(scene.root / "images"), "batch_size": 3}, **dataset},
        "evaluate": {"trt_engine": str(scene.root / "model.onnx")},
        "inference": {"trt_engine": str(scene.root / "model.onnx")},
    }
    return write_spec(scene.root / "spec.yaml", content)


def panoptic_data(scene: Scene, **more: Any) -> dict[str, Any]:
    return {
        "type": "coco_panoptic",
        "panoptic_json": str(scene.root / "panoptic.json"),
        "panoptic_dir": str(scene.root / "panoptic"),
        "img_dir": str(scene.root / "images"),
        "batch_size": 2,
        **more,
    }


@pytest.mark.parametrize("contiguous", [False, True])
def test_semantic_models_are_measured_by_miou(shell: Shell, tmp_path: Path, contiguous: bool) -> None:
    """The established evaluate takes raw ids whatever contiguous_id says."""
    scene = Scene(tmp_path)
    class_of = {row["id"]: i if contiguous else row["id"] - 1 for i, row in enumerate(CATEGORIES)}
    classes = 4 if contiguous else 5
    truth = scene.truth(class_of)
    scores = scene.scores(truth, classes)
    path = mask2former(scene, {"pred_masks": scores}, classes, val=panoptic_data(scene), contiguous_id=contiguous)
    assert shell("mask2former", "evaluate", "-e", path) == 0, shell.err
    names = ["sky", "person", "grass", "dog"] if contiguous else ["person", "1", "grass", "sky", "dog"]
    assert_iou(results(tmp_path), truth, list(scores.argmax(axis=1)), names)
    assert "mIOU: 0." in shell.out


@pytest.mark.parametrize("classes", [3, 4])
def test_three_or_four_classes_are_still_semantic(shell: Shell, tmp_path: Path, classes: int) -> None:
    """ADE: 0 and 255 do not count, k is class k - 1; the established tool reads 3 classes as instances."""
    scene = Scene(tmp_path)
    (tmp_path / "ade").mkdir()
    truth, lines = [], []
    for path, size in zip(scene.images, replay.SIZES, strict=True):
        mask = np.array([0, *range(1, classes + 1), 255], np.uint8)[replay.blobs(scene.rng, size, classes + 2)]
        Image.fromarray(mask).save(tmp_path / "ade" / path.name)
        truth.append(np.where((mask == 0) | (mask == 255), -1, mask.astype(int) - 1))
        lines.append(json.dumps({"img": f"images/{path.name}", "segm": f"ade/{path.name}"}))
    (tmp_path / "ade.jsonl").write_text("\n".join(lines) + "\n")
    scores = scene.scores(truth, classes)
    val = {"type": "ade", "annot_file": str(tmp_path / "ade.jsonl"), "root_dir": str(tmp_path), "batch_size": 3}
    path = mask2former(scene, {"pred_masks": scores}, classes, val=val)
    assert shell("mask2former", "evaluate", "-e", path) == 0, shell.err
    assert_iou(results(tmp_path), truth, list(scores.argmax(axis=1)), [str(k + 1) for k in range(classes)])
    assert results(tmp_path)["unmapped_pixels"] == 0


def instance_data(scene: Scene) -> tuple[dict[str, Any], list[np.ndarray]]:
    """COCO instances of rectangles (polygons and run lengths), later ones over earlier ones."""
    from pycocotools import mask as codes

    annotations, truth = [], []
    for number, (width, height) in enumerate(replay.SIZES):
        labels = np.full((height, width), -1)
        for k in range(3):
            x, y = int(scene.rng.integers(0, width // 2)), int(scene.rng.integers(0, height // 2))
            w, h = width // 3, height // 3
            category = int(scene.rng.choice([1, 3, 4, 5]))
            region = np.zeros((height, width), np.uint8, order="F")
            region[y : y + h, x : x + w] = 1
            segmentation: Any = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            if k == 1:
                code = codes.encode(region)
                segmentation = {"size": code["size"], "counts": code["counts"].decode()}
            crowd = int(k == 2 and number == 0)
            if not crowd:
                labels[region > 0] = category - 1
            annotations.append(
                {
                    "id": 3 * number + k + 1, "image_id": 10 + number, "category_id": category, "iscrowd": crowd,
                    "bbox": [x, y, w, h], "area": w * h, "segmentation": segmentation,
                }
            )  # fmt: skip
        truth.append(labels)
    images = [
        {"id": 10 + i, "file_name": path.name, "width": w, "height": h}
        for i, (path, (w, h)) in enumerate(zip(scene.images, replay.SIZES, strict=True))
    ]
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (scene.root / "instances.json").write_text(json.dumps(content))
    val = {"type": "coco", "instance_json": str(scene.root / "instances.json"), "img_dir": str(scene.root / "images")}
    return val, truth


def test_instances_as_label_maps(shell: Shell, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    val, truth = instance_data(scene)
    scores = scene.scores(truth, 5)
    assert shell("mask2former", "evaluate", "-e", mask2former(scene, {"pred_masks": scores}, val=val)) == 0, shell.err
    assert_iou(results(tmp_path), truth, list(scores.argmax(axis=1)), ["person", "1", "grass", "sky", "dog"])


def test_instance_models_are_measured_by_mask_ap(shell: Shell, tmp_path: Path) -> None:
    from pycocotools import mask as codes
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    scene = Scene(tmp_path)
    val, _ = instance_data(scene)
    annotations = json.loads((tmp_path / "instances.json").read_text())["annotations"]
    count, queries = len(replay.SIZES), 5
    masks = np.zeros((count, queries, HIGH, WIDE), np.float32)
    classes = scene.rng.integers(0, 5, (count, queries))
    scores = scene.rng.uniform(0.1, 1, (count, queries)).astype(np.float32)
    for i, (width, height) in enumerate(replay.SIZES):
        for k, row in enumerate([a for a in annotations if a["image_id"] == 10 + i]):
            x, y, w, h = np.array(row["bbox"]) * np.array([WIDE / width, HIGH / height] * 2)
            masks[i, k, int(y) : int(y + h), int(x) : int(x + w * scene.rng.uniform(0.6, 1.1))] = 1
            classes[i, k] = row["category_id"] - 1
    tables = {"pred_masks": masks, "pred_scores": scores, "pred_classes": classes.astype(np.int64)}
    path = mask2former(scene, tables, val=val, label_map=scene.label_map())
    assert shell("mask2former", "evaluate", "-e", path) == 0, shell.err
    found = []
    for i, size in enumerate(replay.SIZES):
        for k in range(queries):
            big = np.asarray(Image.fromarray(masks[i, k].astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
            code = codes.encode(np.asfortranarray(big))
            if classes[i, k] != 1:  # id 2 is no category
                entry = {"image_id": 10 + i, "category_id": int(classes[i, k]) + 1, "segmentation": code}
                found.append({**entry, "score": float(scores[i, k])})
    truth = COCO(str(tmp_path / "instances.json"))
    evaluation = COCOeval(truth, truth.loadRes(found), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert results(tmp_path)["mask_AP50"] == pytest.approx(evaluation.stats[1], abs=1e-6)
    assert results(tmp_path)["mask_AP"] == pytest.approx(evaluation.stats[0], abs=1e-6)
    assert 0.1 < evaluation.stats[1] < 0.99
    assert shell("mask2former", "inference", "-e", path) == 0, shell.err
    pictures = sorted((tmp_path / "results" / "trt_inference").glob("*.jpg"))
    assert [Image.open(p).size for p in pictures] == replay.SIZES
    assert "coco_panoptic" not in shell.out
    (tmp_path / "panoptic.json").exists()
    message = shell.refused(2, "mask2former", "evaluate", "-e", path, "dataset.val.type=coco_panoptic",
                            f"dataset.val.panoptic_json={tmp_path / 'panoptic.json'}",
                            f"dataset.val.panoptic_dir={tmp_path / 'panoptic'}")  # fmt: skip
    assert "mode instance" in message


def plain_segments(
    prob: Any, masks: Any, scores: Any, classes: Any, isthing: list[bool], limits: tuple[float, float]
) -> Any:
    """Section 7 of the contract, pixel by pixel."""
    kept = [q for q in range(len(scores)) if scores[q] >= limits[0]]
    ids = np.zeros(prob.shape[1:], int)
    found: list[int] = []
    if not kept:
        return ids, found
    owner = np.zeros(ids.shape, int)
    for y, x in np.ndindex(ids.shape):
        best = kept[0]
        for q in kept[1:]:
            if prob[q, y, x] > prob[best, y, x]:
                best = q
        owner[y, x] = best
    stuff: dict[int, int] = {}
    for q in kept:
        own, mine = owner == q, masks[q] >= 0.5
        both = own & mine
        if not (own.sum() and mine.sum() and both.sum()) or own.sum() / mine.sum() < limits[1]:
            continue
        if not isthing[classes[q]] and classes[q] in stuff:
            ids[both] = stuff[classes[q]]
            continue
        found.append(int(classes[q]))
        ids[both] = len(found)
        if not isthing[classes[q]]:
            stuff[int(classes[q])] = len(found)
    return ids, found


@pytest.mark.parametrize("seed", range(8))
def test_segments_are_the_contracts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = np.kron(rng.choice([0.1, 0.4, 0.5, 0.9], (6, 4, 6)), np.ones((3, 3)))
    scores = rng.choice([0.2, 0.4, 0.8], 6) if seed else np.zeros(6)
    classes, isthing = rng.integers(0, 3, 6), [True, False, False]
    prob = scores[:, None, None] * masks
    geometry = Geometry((18, 12), (18, 12), (1.0, 1.0))
    found = panoptic_map(
        prob, masks, scores, classes, geometry, isthing=isthing, object_threshold=0.4, overlap_threshold=0.5
    )
    ids, rows = plain_segments(prob, masks, scores, classes, isthing, (0.4, 0.5))
    np.testing.assert_array_equal(found.segment_ids, ids)
    assert found.class_ids.tolist() == rows


def test_panoptic_models_are_measured_and_drawn(shell: Shell, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    count, queries = len(replay.SIZES), 6
    masks = np.zeros((count, queries, HIGH, WIDE), np.float32)
    classes = np.zeros((count, queries), np.int64)
    for i, (segments, rows) in enumerate(zip(scene.maps, scene.rows, strict=True)):
        small = replay.on_net(segments.astype(np.uint8))
        for k, (category, _) in enumerate(rows):
            masks[i, k] = np.where(small == k + 1, 0.9, 0.1)
            classes[i, k] = category - 1
    wrong = scene.rng.random(classes.shape) < 0.2
    classes[wrong] = scene.rng.choice([0, 2, 3, 4], int(wrong.sum()))
    scores = np.full((count, queries), 0.8, np.float32)
    scores[3] = 0.1  # nothing is found: the established tool crashes
    prob = masks * scores[:, :, None, None]
    tables = {"prob_masks": prob, "pred_masks": masks, "pred_scores": scores, "pred_classes": classes}
    path = mask2former(scene, tables, val=panoptic_data(scene), label_map=scene.label_map())
    assert shell("mask2former", "evaluate", "-e", path) == 0, shell.err
    found = results(tmp_path)
    assert 0.3 < found["PQ"] < 0.95
    assert found["PQ"] == pytest.approx(np.mean([v for v in found["PQ_by_class"].values() if v is not None]))
    assert found["PQ_by_class"]["1"] is None
    assert shell("mask2former", "inference", "-e", path) == 0, shell.err
    plain = np.asarray(Image.open(tmp_path / "results" / "trt_inference" / "003.jpg")).astype(int)
    assert np.abs(plain - replay.level(3)).max() <= 2
    drawn = np.asarray(Image.open(tmp_path / "results" / "trt_inference" / "000.jpg"))
    assert drawn.shape == (80, 120, 3)
    assert np.ptp(drawn.astype(int)) > 40


@pytest.mark.onnx_file
def test_red_stays_red(shell: Shell, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scores = np.zeros((len(replay.SIZES), 5, HIGH, WIDE), np.float32)
    scores[:, 2] = 1  # grass
    path = mask2former(scene, {"pred_masks": scores}, label_map=scene.label_map(color=[255, 0, 0]))
    assert shell("mask2former", "inference", "-e", path) == 0, shell.err
    picture = np.asarray(Image.open(tmp_path / "results" / "trt_inference" / "000.jpg")).reshape(-1, 3)
    red, green, blue = np.median(picture, axis=0)
    assert red > 200
    assert max(green, blue) < 60
    assert "is class" not in shell.out
    message = shell.refused(1, "mask2former", "inference", "-e", path, "model.sem_seg_head.num_classes=4")
    assert "num_classes is 4" in message


def test_instances_of_random_outputs() -> None:
    rng = np.random.default_rng(0)
    geometry = Geometry((20, 30), (10, 10), (0.5, 1 / 3))
    masks = (rng.random((4, 10, 10)) < 0.1).astype(np.float32)
    masks[2] = 0
    found = instances(masks, np.array([0.9, 0.4, 0.8, 0.1]), np.array([3, 2, 1, 0]), geometry, 0.4)
    assert found.class_ids.tolist() == [3, 1]
    assert found.masks is not None
    big = np.asarray(Image.fromarray(masks[0].astype(np.uint8)).resize((20, 30), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(found.masks[0], big > 0)
    ys, xs = np.nonzero(big)
    assert found.boxes_xyxy.tolist() == [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], [0, 0, 0, 0]]
    assert len(instances(masks, np.zeros(4), np.zeros(4, int), geometry, 0.4)) == 0
    with pytest.raises(ModelError, match="NaN"):
        instances(masks, np.full(4, np.nan), np.zeros(4, int), geometry, 0.4)


def test_drawing_paints_regions_and_keeps_the_rest() -> None:
    image = np.full((60, 80, 3), 100, np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[10:50, 10:70] = True
    drawn = draw_regions(image, [Region(mask, (200, 0, 0), "")], 0.5)
    assert (drawn[~mask] == 100).all()
    assert (drawn[20:40, 20:60] == (150, 50, 50)).all()
    assert (image == 100).all()
    named = draw_regions(image, [Region(mask, (200, 0, 0), "thing")], 0.5)
    assert (named[~mask] == 100).all()
    assert (named != drawn).any()
    assert draw_regions(image, [Region(np.zeros_like(mask), (1, 2, 3), "none")], 0.5).tolist() == image.tolist()


# oneformer


def plain_semantic(logits: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """As training: bilinear mask logits, sigmoid, sum over queries."""
    big = 1 / (1 + np.exp(-replay.bilinear(masks, (WIDE, HIGH))))
    odds = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return np.einsum("qc,qhw->chw", (odds / odds.sum(-1, keepdims=True))[:, :-1], big).argmax(0)


def save_oneformer(scene: Scene, logits: np.ndarray, masks: np.ndarray, word: int = 1550) -> None:
    """A model that answers the sentence with this word."""
    model = replay.replay(
        {"pred_logits": logits, "pred_masks": masks},
        image="inputs", scale=1 / 255, mean=0.406, std=0.225, tokens=("task", 77), word=word,
    )  # fmt: skip
    onnx.save(model, scene.root / "model.onnx")


def oneformer(scene: Scene, classes: int, **dataset: Any) -> tuple[Path, list[np.ndarray]]:
    """A model whose query q is class q, told by the sentence; what it says in plain numpy."""
    queries = classes + 1
    size = (WIDE // 4, HIGH // 4)
    class_of = {row["id"]: i if classes == 4 else row["id"] for i, row in enumerate(CATEGORIES)}
    truth = scene.truth(class_of)
    masks = np.pad(12 * scene.scores(truth, classes, size) - 5, ((0, 0), (0, 1), (0, 0), (0, 0))).astype(np.float32)
    logits = scene.rng.normal(0, 0.4, (len(truth), queries, classes + 1)).astype(np.float32)
    logits[:, np.arange(queries), np.arange(queries)] += 4
    save_oneformer(scene, logits, masks)
    content = {
        "results_dir": str(scene.root / "results"),
        "model": {"sem_seg_head": {"num_classes": classes}},
        "dataset": {
            "val": {
                "annotations": str(scene.root / "panoptic.json"),
                "images": str(scene.root / "images"),
                "panoptic": str(scene.root / "panoptic"),
                "batch_size": 2,
            },
            "test": {"images": str(scene.root / "images"), "batch_size": 3},
            **dataset,
        },
        "evaluate": {"trt_engine": str(scene.root / "model.onnx")},
        "inference": {"trt_engine": str(scene.root / "model.onnx")},
    }
    found = [plain_semantic(*row) for row in zip(logits, masks, strict=True)]
    return write_spec(scene.root / "spec.yaml", content), found


@pytest.mark.parametrize("contiguous", [True, False])
def test_oneformer_is_measured_by_miou(shell: Shell, tmp_path: Path, contiguous: bool) -> None:
    scene = Scene(tmp_path)
    classes = 4 if contiguous else 6
    path, found = oneformer(scene, classes, contiguous_id=contiguous)
    assert shell("oneformer", "evaluate", "-e", path) == 0, shell.err
    class_of = {row["id"]: i if contiguous else row["id"] for i, row in enumerate(CATEGORIES)}
    names = ["sky", "person", "grass", "dog"] if contiguous else ["0", "person", "2", "grass", "sky", "dog"]
    truth = scene.truth(class_of)
    nearest = Image.Resampling.NEAREST
    on_net = [np.asarray(Image.fromarray(t.astype(np.int32)).resize(replay.NET, nearest)) for t in truth]
    wanted = replay.sklearn_figures(on_net, found, classes)
    assert results(tmp_path)["mIoU"] == pytest.approx(np.nanmean(wanted["iou"]), abs=2e-3)  # float32 against float64
    assert results(tmp_path)["ACC_all"] == pytest.approx(wanted["accuracy"], abs=2e-3)
    assert list(results(tmp_path)["IoU"]) == names
    assert 0.3 < results(tmp_path)["mIoU"] < 0.98


def test_oneformer_draws_on_the_image(shell: Shell, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    path, _ = oneformer(scene, 4, label_map=scene.label_map(color=[0, 0, 0]))
    assert shell("oneformer", "inference", "-e", path) == 0, shell.err
    for number, size in enumerate(replay.SIZES):
        picture = Image.open(tmp_path / "results" / "trt_inference" / f"{number:03d}.jpg")
        assert picture.size == size
        # alpha 0.8 of black; the rest are edges and texts
        assert abs(np.percentile(np.asarray(picture), 20) - replay.level(number) * 0.2) < 10
    assert "takes 77 tokens" in shell.refused(2, "oneformer", "inference", "-e", path, "dataset.max_seq_len=64")


WORDS = {"instance": 49407, "panoptic": 24755}  # the sixth token of the sentence
GUESSES = 8  # queries per image, some of them wrong


def queries(scene: Scene, regions: list[list[tuple[np.ndarray, int]]]) -> tuple[np.ndarray, np.ndarray]:
    """Class logits (n, Q, 5) and mask logits (n, Q, h, w) of regions (whole-image mask, class) per image."""
    size = (WIDE // 4, HIGH // 4)
    logits = scene.rng.normal(0, 0.5, (len(regions), GUESSES, 5)).astype(np.float32)
    masks = scene.rng.normal(-2, 1, (len(regions), GUESSES, size[1], size[0])).astype(np.float32)
    for image, found in enumerate(regions):
        for query, (mask, class_id) in enumerate(found):
            masks[image, query] += 5 * (replay.on_net(mask.astype(np.uint8), size) > 0)
            logits[image, query, class_id if scene.rng.random() > 0.2 else scene.rng.integers(5)] += 3
        logits[image, len(found) :, 4] += 3
    return logits, masks


def plain_queries(task: str, logits: np.ndarray, masks: np.ndarray, top: int = 100) -> dict[str, np.ndarray]:
    """What mask2former's graph gives for one image."""
    odds = np.exp(logits.astype(np.float64))
    odds /= odds.sum(-1, keepdims=True)
    big = replay.bilinear(masks, replay.NET)
    soft = 1 / (1 + np.exp(-big))
    if task == "panoptic":
        scores = np.where(odds.argmax(1) == 4, 0, odds.max(1))
        classes = odds[:, :4].argmax(1)
        return {"prob_masks": scores[:, None, None] * soft, "pred_masks": soft, "pred_scores": scores,
                "pred_classes": classes}  # fmt: skip
    pairs = sorted((-odds[q, c], q, c) for q in range(len(odds)) for c in range(4))[:top]
    hard = [big[q] > 0 for _, q, _ in pairs]
    scores = [-p * (soft[q][m].sum() / (m.sum() + 1e-6)) for (p, q, _), m in zip(pairs, hard, strict=True)]
    return {"pred_masks": np.array(hard), "pred_scores": np.array(scores),
            "pred_classes": np.array([c for *_, c in pairs])}  # fmt: skip


@pytest.mark.parametrize("task", ["panoptic", "instance"])
def test_oneformers_other_tasks_are_what_mask2former_does(shell: Shell, tmp_path: Path, task: str) -> None:
    """The graph of mask2former ends where oneformer's decoding does."""
    scene = Scene(tmp_path)
    class_of = {row["id"]: i for i, row in enumerate(CATEGORIES)}
    if task == "panoptic":
        val = panoptic_data(scene)
        regions = [
            [(segments == k + 1, class_of[category]) for k, (category, _) in enumerate(rows)]
            for segments, rows in zip(scene.maps, scene.rows, strict=True)
        ]
    else:
        val, _ = instance_data(scene)
        regions = [[] for _ in replay.SIZES]
        for row in json.loads((tmp_path / "instances.json").read_text())["annotations"]:
            (x, y, w, h), image = row["bbox"], row["image_id"] - 10
            mask = np.zeros(replay.SIZES[image][::-1], bool)
            mask[y : y + h, x : x + w] = True
            regions[image].append((mask, class_of[row["category_id"]]))
    logits, masks = queries(scene, regions)
    rows = [plain_queries(task, *row) for row in zip(logits, masks, strict=True)]
    tables = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    tables = {key: table.astype(np.int64 if key == "pred_classes" else np.float32) for key, table in tables.items()}
    data = {"contiguous_id": True, "label_map": scene.label_map()}
    assert shell("mask2former", "evaluate", "-e", mask2former(scene, tables, 4, val=val, **data)) == 0, shell.err
    wanted = results(tmp_path)
    path, _ = oneformer(scene, 4, **data)
    save_oneformer(scene, logits, masks, WORDS[task])
    words = ["-e", path, f"export.task={task}"]
    if task == "instance":
        assert "category_id" in shell.refused(1, "oneformer", "evaluate", *words)
        words.append(f"dataset.val.annotations={tmp_path / 'instances.json'}")
    assert shell("oneformer", "evaluate", *words) == 0, shell.err
    found = results(tmp_path)
    keys = ("PQ", "SQ", "RQ", "PQ_th", "PQ_st") if task == "panoptic" else ("mask_AP", "mask_AP50", "mask_AP75")
    assert {key: found[key] for key in keys} == pytest.approx({key: wanted[key] for key in keys}, abs=2e-3)
    assert 0.2 < found[keys[0]] < 0.98
    assert shell("oneformer", "inference", *words) == 0, shell.err
    folder = tmp_path / "results" / "trt_inference"
    drawn = [np.asarray(Image.open(folder / f"{number:03d}.jpg")).astype(int) for number in range(len(replay.SIZES))]
    assert [image.shape[1::-1] for image in drawn] == replay.SIZES
    assert max(map(np.ptp, drawn)) > 40


@pytest.mark.parametrize("seed", range(4))
def test_queries_of_random_outputs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (9, 5)).astype(np.float32)
    masks = rng.normal(0, 3, (9, HIGH // 4, WIDE // 4)).astype(np.float32)
    if seed == 3:
        logits[:, 4] = 50  # nothing there
    plain = plain_queries("panoptic", logits, masks)
    kept = plain["pred_scores"] >= 0.4
    found = panoptic_queries(logits, masks, replay.NET, 0.4)
    for ours, key in zip(found, plain, strict=True):
        np.testing.assert_allclose(ours, plain[key][kept], atol=1e-4)
    plain = plain_queries("instance", logits, masks, 7)
    isthing = [True, False, True]
    things = plain["pred_classes"] != 1
    for ours, theirs in zip(instance_queries(logits, masks, replay.NET, 7, isthing), plain.values(), strict=True):
        assert (np.abs(ours - theirs[things].astype(float)) < 1e-4).mean() > 0.999
    with pytest.raises(ModelError, match="NaN"):
        panoptic_queries(logits * np.nan, masks, replay.NET, 0.4)


def test_task_tokens_are_the_contracts() -> None:
    wanted = {
        "semantic": [49406, 518, 10549, 533, 29119, 1550, 49407],
        "instance": [49406, 518, 10549, 533, 34572, 49407],
        "panoptic": [49406, 518, 10549, 533, 1072, 24755, 49407],
    }
    for task, ids in wanted.items():
        tokens = task_tokens(task, 77)
        assert tokens[: len(ids)].tolist() == ids
        assert (tokens[len(ids) :] == 49407).all()
        assert len(tokens) == 77


@pytest.mark.parametrize("seed", range(3))
def test_semantic_maps_are_trainings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (7, 12)).astype(np.float32)
    masks = rng.normal(0, 3, (7, HIGH // 4, WIDE // 4)).astype(np.float32)
    assert (semantic_map(logits, masks, replay.NET) == plain_semantic(logits, masks)).mean() > 0.999
    assert (semantic_map(np.zeros_like(logits), masks, replay.NET) == 0).all()
    with pytest.raises(ModelError, match="NaN"):
        semantic_map(logits * np.nan, masks, replay.NET)


@pytest.mark.parametrize("network", ["mask2former", "oneformer"])
def test_builds_keep_the_number(shell: Shell, tmp_path: Path, network: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    scene = Scene(tmp_path)
    if network == "oneformer":
        path, _ = oneformer(scene, 4)
    else:
        truth = scene.truth({row["id"]: row["id"] - 1 for row in CATEGORIES})
        path = mask2former(scene, {"pred_masks": scene.scores(truth, 5)}, val=panoptic_data(scene))
    assert shell(network, "evaluate", "-e", path) == 0, shell.err
    wanted = results(tmp_path)["mIoU"]
    for precision in ("fp32", "fp16"):
        words = [f"gen_trt_engine.onnx_file={tmp_path / 'model.onnx'}", "gen_trt_engine.tensorrt.max_batch_size=4"]
        words += [
            f"gen_trt_engine.trt_engine={tmp_path / 'm.engine'}",
            f"gen_trt_engine.tensorrt.data_type={precision}",
        ]
        words += ["gen_trt_engine.tensorrt.compute_capabilities=8.6", "gen_trt_engine.tensorrt.runtime=tensorrt_rtx"]
        assert shell(network, "gen_trt_engine", "-e", path, *words, "--json") == 0, shell.err
        ready = json.loads(shell.out)["prepared_onnx"]
        assert shell(network, "evaluate", "-e", path, f"evaluate.trt_engine={ready}") == 0, shell.err
        assert results(tmp_path)["mIoU"] == pytest.approx(wanted, abs=0.01)
    assert "int8" in shell.refused(2, network, "gen_trt_engine", "-e", path, *words[:-3],
                                   "gen_trt_engine.tensorrt.data_type=int8")  # fmt: skip


def test_bad_data_is_refused(shell: Shell, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    path, _ = oneformer(scene, 4)
    png = tmp_path / "panoptic" / "002.png"
    good = png.read_bytes()
    Image.new("RGB", (5, 5)).save(png)
    assert "5 x 5 pixels, its image 96 x 64" in shell.refused(1, "oneformer", "evaluate", "-e", path, "strict=true")
    Image.new("L", replay.SIZES[2], 3).save(png)
    assert "three channels" in shell.refused(1, "oneformer", "evaluate", "-e", path, "strict=true")
    Image.new("RGB", replay.SIZES[2], (9, 9, 9)).save(png)
    assert shell("oneformer", "evaluate", "-e", path) == 0, shell.err
    assert results(tmp_path)["unmapped_pixels"] == 96 * 64
    assert f"segment {9 + 9 * 256 + 9 * 65536} ({96 * 64} pixels)" in shell.out
    png.unlink()
    assert "1 segment PNG does not exist" in shell.refused(1, "oneformer", "evaluate", "-e", path)
    png.write_bytes(good)
    (tmp_path / "panoptic.json").write_text("{}")
    assert "not a COCO panoptic file" in shell.refused(1, "oneformer", "evaluate", "-e", path)
    spec = ["inference", "-e", path, f"dataset.label_map={tmp_path / 'labels.json'}"]
    (tmp_path / "labels.json").write_text(json.dumps([{"id": i, "name": str(i)} for i in range(9)]))
    assert "would be class 4, and the model has 4" in shell.refused(1, "oneformer", *spec)
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "model.onnx")
    assert "its own row of tokens" in shell.refused(1, "oneformer", *spec)


def test_a_map_of_one_channel_is_no_mask2former(shell: Shell, tmp_path: Path) -> None:
    """ocdnet's model, an image in and one map of its size out, would be taken for a semantic model of one class."""
    scene = Scene(tmp_path)
    path = mask2former(scene, {"pred_masks": np.zeros((7, 4, HIGH, WIDE), np.float32)})
    words = (f"gen_trt_engine.onnx_file={MODELS / 'ocdnet.onnx'}", f"gen_trt_engine.trt_engine={tmp_path / 'm.engine'}")
    message = shell.refused(1, "mask2former", "gen_trt_engine", "-e", path, *words)
    assert "ocdnet.onnx: output pred float32 ?x1x128x160 has one channel" in message
    assert not (tmp_path / "m.engine").exists()


def test_logits_of_a_quarter_of_the_size_are_no_mask2former(shell: Shell, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    path = mask2former(scene, {"pred_masks": np.zeros((7, 4, HIGH, WIDE), np.float32)})
    words = ("mask2former", "inference", "-e", path, f"inference.trt_engine={MODELS / 'segformer.onnx'}")
    message = shell.refused(1, *words)
    assert "of the input's height and width" in message
    assert "output float32 ?x4x32x40" in message


@pytest.mark.parametrize(("network", "spec"), [("mask2former", Mask2FormerSpec), ("oneformer", OneFormerSpec)])
def test_the_complete_tree_loads_and_a_typo_is_refused(network: str, spec: Any, tmp_path: Path) -> None:
    tree = complete(known_keys(network))
    tree["gen_trt_engine"]["tensorrt"]["data_type"] = "FP16"
    if network == "oneformer":
        tree["export"]["task"], tree["dataset"]["max_seq_len"] = "semantic", 77
        tree["model"]["backbone"]["radio"]["resolution"] = [8, 8]
        for part in ("val", "test"):
            tree["dataset"][part] = {"images": "a", "batch_size": 1, "num_workers": 1}
    loaded = load_spec(spec, tree)
    assert loaded.notes == []
    layers = loaded.gen_trt_engine.tensorrt.layers_precision
    assert layers[0] == "*:fp32"  # the user's own comes first
    assert any("transformer_cross_attention_layers" in entry for entry in layers)
    path = tmp_path / "spec.yaml"
    path.write_text("model:\n  sem_seg_head:\n    num_clases: 4\n")
    with pytest.raises(SpecError) as caught:
        load_spec(spec, path)
    assert f"{path}:3" in str(caught.value)


def test_a_text_stands_in_the_largest_part_and_below_a_small_one() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    for high, rows in ((100, slice(60, 160)), (20, slice(60 + 20, 100))):  # inside, below
        mask = np.zeros((200, 300), bool)
        mask[5:15, 5:15] = True  # the smaller part comes first
        mask[60 : 60 + high, 150:280] = True
        plain, named = (draw_regions(image, [Region(mask, (200, 0, 0), text)], 0.5) for text in ("", "thing"))
        y, x = np.nonzero((plain != named).any(axis=2))
        assert rows.start <= y.min() <= y.max() < rows.stop
        assert 150 <= x.min() <= x.max() < 280
        corner = np.s_[y.min(), x.min()]  # of the dark box, which is larger than the text by 2 pixels on every side
        np.testing.assert_allclose(named[corner], 0.2 * plain[corner], atol=1)
        left, top, right, bottom = ImageDraw.Draw(Image.new("RGB", (9, 9))).textbbox(
            (0, 0), "thing", font=ImageFont.load_default(size=10)
        )
        assert (np.ptp(x) + 1, np.ptp(y) + 1) == (right - left + 4, bottom - top + 4)


def test_classes_beyond_the_list_are_things_with_their_number() -> None:
    geometry = Geometry((4, 1), (4, 1), (1.0, 1.0))
    found = PanopticMap(np.array([[1, 2, 2, 3]], np.int32), np.array([0, 1, 2]), geometry)
    regions = panoptic_regions(found, [SegmentClass("sky", (1, 2, 3), isthing=False)])
    assert [region.text for region in regions] == ["sky", "1", "2"]
    assert [int(region.mask.sum()) for region in regions] == [1, 2, 1]


def test_categories_that_the_model_lacks_are_void_and_told(tmp_path: Path) -> None:
    """Of segments and of instances; crowds are void and not worth a word."""
    ids = np.array([[1, 1, 2, 3, 4, 0]], np.uint8)
    Image.fromarray(np.stack([ids, 0 * ids, 0 * ids], axis=-1)).save(tmp_path / "a.png")
    rows = ((1, 5, False), (2, 9, False), (3, 9, True), (7, 9, False))  # the last one is not in the picture
    truth = PanopticFile(tmp_path / "a.png", rows, {5: 0}).load((6, 1))
    assert truth.labels.tolist() == [[0, 0, *[IGNORE] * 4]]
    assert truth.unmapped == {"category 9": 1, "segment 4": 1}

    def annotation(number: int, category: int, left: int, wide: int, **more: Any) -> dict[str, Any]:
        outline = [left, 0, left + wide, 0, left + wide, 1, left, 1]
        return {"id": number, "category_id": category, "iscrowd": 0, "segmentation": [outline], **more}

    listed = (annotation(1, 5, 0, 4), annotation(2, 9, 2, 1), annotation(3, 9, 4, 1), annotation(4, 5, 5, 1, iscrowd=1))
    labelled = InstanceTruth(listed, {5: 0}, "x.json").load((6, 1))
    assert labelled.labels.tolist() == [[0, 0, IGNORE, 0, IGNORE, IGNORE]]
    assert labelled.unmapped == {"category 9": 2}


def test_panoptic_images_that_are_gone_are_skipped_and_told(tmp_path: Path) -> None:
    Scene(tmp_path)
    (tmp_path / "images" / "003.png").unlink()
    files = (tmp_path / "panoptic.json", tmp_path / "images", tmp_path / "panoptic")
    data = CocoPanoptic(*files, contiguous=False, first_id=1, classes=5)
    assert [data[i].id for i in range(len(data))] == [10 + i for i in range(len(replay.SIZES)) if i != 3]
    assert "003.png" in data.issues[0]
    with pytest.raises(DataError, match=r"003\.png"):
        CocoPanoptic(*files, contiguous=False, first_id=1, classes=5, strict=True)


def test_a_label_map_without_ids_is_a_list_of_classes_only(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps([{"name": "a"}, {"name": "b"}]))
    classes = read_label_map(tmp_path / "labels.json", 2, contiguous=True, first_id=0)
    assert [entry.name for entry in classes] == ["a", "b"]
    for first_id in (0, 1):
        with pytest.raises(DataError, match=r"'a' \(id None\) would be class -"):
            read_label_map(tmp_path / "labels.json", 2, contiguous=False, first_id=first_id)


@pytest.mark.parametrize("content", [3, [], {"1": "a"}, ["a"], [{"id": 1}], [{"id": "1", "name": "a"}]])
def test_what_is_no_label_map_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="not a label map"):
        read_label_map(tmp_path / "labels.json", 2, contiguous=False, first_id=1)


def test_things_of_one_class_differ_in_shade_a_little() -> None:
    geometry = Geometry((4, 1), (4, 1), (1.0, 1.0))
    found = PanopticMap(np.array([[1, 2, 3, 4]], np.int32), np.array([0, 0, 0, 1]), geometry)
    classes = [SegmentClass("car", (100, 120, 140)), SegmentClass("sky", (1, 2, 3), isthing=False)]
    sky, *cars = (region.color for region in panoptic_regions(found, classes))
    assert sky == (1, 2, 3)
    assert len(set(cars)) == 3
    moved = np.array(cars) - (100, 120, 140)
    assert moved.min() < -3
    assert 3 < moved.max() <= 0.12 * 255
    assert [region.color for region in panoptic_regions(found, classes)] == [sky, *cars]


@pytest.mark.parametrize("turned", [False, True])
def test_oneformers_tensors_are_told_by_rank(turned: bool) -> None:
    def tensor(name: str, *shape: int | None) -> TensorInfo:
        return TensorInfo(name, (None, *shape), np.dtype(np.float32))

    image, tokens, logits, masks = tensor("x", 3, 8, 8), tensor("y", 77), tensor("a", 9, 5), tensor("b", 9, 8, 8)
    inputs, outputs = [image, tokens], [logits, masks]
    ports = bind(inputs[::-1] if turned else inputs, outputs[::-1] if turned else outputs)
    assert (ports.inputs, ports.outputs) == (
        {"inputs": image, "tokens": tokens}, {"pred_logits": logits, "pred_masks": masks}
    )  # fmt: skip
