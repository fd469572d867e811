"""The committed sample networks, measured on the sample data with code that shares nothing with the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.special import expit
from sklearn.cluster import DBSCAN

from samples.data import write_digits, write_scenes
from samples.render import CLASSES

MODELS = Path(__file__).parents[2] / "samples" / "models"
Images = np.ndarray
Break = Callable[[Images], Images]


def session(name: str):
    return onnxruntime.InferenceSession(str(MODELS / name), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def digit_images(tmp_path_factory) -> tuple[Images, Images]:
    folder = write_digits(tmp_path_factory.mktemp("data"), test=120, calibration=0)
    classes = (folder / "classes.txt").read_text().split()
    paths = sorted((folder / "test").glob("*/*.png"))
    pixels = [np.asarray(Image.open(path).resize((64, 64), Image.Resampling.BILINEAR), np.float32) for path in paths]
    return np.stack(pixels), np.array([classes.index(path.parent.name) for path in paths])


MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
CLASSIFICATION_BREAKS = {
    "swapped channels": lambda x: (x[..., ::-1] / 255 - MEAN) / STD,
    "no mean": lambda x: x / 255 / STD,
    "no std": lambda x: x / 255 - MEAN,
    "no mean, no std": lambda x: x / 255,
    "no scale": lambda x: (x - MEAN) / STD,
}


def top1(images: Images, targets: Images) -> float:
    (logits,) = session("classification_pyt.onnx").run(["output"], {"input": images.transpose(0, 3, 1, 2)})
    return float((logits.argmax(1) == targets).mean())


def test_classification_reads_the_digits(digit_images):
    images, targets = digit_images
    assert top1((images / 255 - MEAN) / STD, targets) >= 0.95


@pytest.mark.parametrize("broken", CLASSIFICATION_BREAKS.values(), ids=CLASSIFICATION_BREAKS)
def test_classification_breaks_with_its_preprocessing(digit_images, broken: Break):
    images, targets = digit_images
    assert top1(np.ascontiguousarray(broken(images)), targets) < 0.75


CONTRACTS = {
    "classification_pyt.onnx": ({"input": (3, 64, 64)}, {"output": (10,)}),
    "multitask_classification.onnx": ({"input_1": (3, 64, 64)}, {"decoy": (2,), "digit": (10,)}),
    "ml_recog.onnx": ({"input": (3, 64, 64)}, {"fc_pred": (32,)}),
    "detectnet_v2.onnx": ({"input_1": (3, 256, 320)}, {"output_cov": (10, 16, 20), "output_bbox": (40, 16, 20)}),
    "rtdetr.onnx": ({"inputs": (3, 128, 160)}, {"pred_logits": (100, 10), "pred_boxes": (100, 4)}),
    "rtdetr_conv.onnx": ({"inputs": (3, 128, 160)}, {"pred_logits": (100, 10), "pred_boxes": (100, 4)}),
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_models_keep_the_exporters_contract(name: str):
    model = onnx.load(str(MODELS / name))
    onnx.checker.check_model(model, full_check=True)
    assert (MODELS / name).stat().st_size <= 2_000_000
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    for values, wanted in zip((model.graph.input, model.graph.output), CONTRACTS[name], strict=True):
        for value, (tensor_name, shape) in zip(values, wanted.items(), strict=True):
            dims = value.type.tensor_type.shape.dim
            assert value.name == tensor_name
            assert dims[0].dim_param
            assert tuple(dim.dim_value for dim in dims[1:]) == shape
    # TensorRT 8.5 has no LayerNormalization; only rtdetr.onnx, which has a convolutional twin, may hold one.
    has_norm = any(node.op_type == "LayerNormalization" for node in model.graph.node)
    assert has_norm == (name == "rtdetr.onnx")


@pytest.fixture(scope="module")
def scene_folders(tmp_path_factory) -> tuple[Path, Path]:
    return write_scenes(tmp_path_factory.mktemp("data"), test=60, calibration=0)


DETECTION_BREAKS = {
    "swapped channels": lambda x: x[..., ::-1] / 255,
    "no scale": lambda x: x,
    "ImageNet mean and std": lambda x: (x / 255 - MEAN) / STD,
}


@pytest.fixture(scope="module")
def coco_scenes(scene_folders):
    truth = COCO(str(scene_folders[0] / "annotations" / "test.json"))
    images = []
    for image in truth.dataset["images"]:
        pixels = np.asarray(Image.open(scene_folders[0] / "images" / "test" / image["file_name"]), np.float32)
        images.append(cv2.resize(pixels, (160, 128), interpolation=cv2.INTER_LINEAR))
    return truth, np.stack(images)


def average_precision(name: str, truth, images: Images) -> tuple[float, float]:
    """AP over IoU .50:.05:.95, and at .50."""
    feed = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    logits, boxes = session(name).run(["pred_logits", "pred_boxes"], {"inputs": feed})
    scores = expit(logits.astype(np.float64))
    rows = []
    for image, per_class, (cx, cy, w, h) in zip(truth.dataset["images"], scores, boxes.transpose(0, 2, 1), strict=True):
        corner = np.stack([(cx - w / 2) * image["width"], (cy - h / 2) * image["height"]], 1)
        size = np.stack([w * image["width"], h * image["height"]], 1)
        best = np.argsort(-per_class.ravel(), kind="stable")[:300]
        query, class_id = np.divmod(best, 10)
        rows.append(
            np.column_stack([np.full(300, image["id"]), corner[query], size[query], per_class.flat[best], class_id])
        )
    evaluation = COCOeval(truth, truth.loadRes(np.concatenate(rows)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


@pytest.mark.parametrize("name", ["rtdetr.onnx", "rtdetr_conv.onnx"])
def test_rtdetr_finds_the_digits(coco_scenes, name: str):
    truth, images = coco_scenes
    assert average_precision(name, truth, images / 255)[1] >= 0.85


@pytest.mark.parametrize("name", ["rtdetr.onnx", "rtdetr_conv.onnx"])
def test_rtdetr_breaks_with_its_preprocessing(coco_scenes, name: str):
    truth, images = coco_scenes
    for broken in ("swapped channels", "no scale"):
        assert average_precision(name, truth, np.ascontiguousarray(DETECTION_BREAKS[broken](images)))[1] < 0.65
    # Mean and std shift the tones only: the digits are still found, but their boxes are much worse.
    right, _ = average_precision(name, truth, images / 255)
    wrong, _ = average_precision(name, truth, DETECTION_BREAKS["ImageNet mean and std"](images))
    assert wrong < right - 0.15


@pytest.fixture(scope="module")
def kitti_scenes(scene_folders):
    images, targets, sizes = [], [], []
    for path in sorted((scene_folders[1] / "test" / "images").iterdir()):
        image = Image.open(path)
        rows = [line.split() for line in (scene_folders[1] / "test" / "labels" / f"{path.stem}.txt").open()]
        targets.append(np.array([[CLASSES.index(row[0]), *map(float, row[4:8])] for row in rows]).reshape(-1, 5))
        sizes.append(image.size)
        images.append(np.asarray(image.resize((320, 256), Image.Resampling.LANCZOS), np.float32))
    return np.stack(images), targets, sizes


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairwise, (n, 4) and (m, 4) corners to (n, m)."""
    overlap = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = overlap.clip(0).prod(-1)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(1), (b[:, 2:] - b[:, :2]).prod(1)
    return shared / (area_a[:, None] + area_b[None] - shared + 0.01)


def clusters(coverage: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """DBSCAN over one class's cells, with the settings of samples/README.md: rows [confidence, x1, y1, x2, y2]."""
    y, x = np.nonzero(coverage > 0.4)
    weight = coverage[y, x]
    if not len(weight):
        return np.empty((0, 5))
    sides = offsets[:, y, x].T * 35
    centre = np.stack([16 * x + 0.5, 16 * y + 0.5], 1)
    boxes = np.concatenate([centre - sides[:, :2], centre + sides[:, 2:]], 1)
    distance = (1 - iou(boxes, boxes)).clip(0)
    labels = DBSCAN(eps=0.4, min_samples=1, metric="precomputed").fit(distance, sample_weight=weight).labels_
    members = [labels == label for label in range(labels.max() + 1)]
    rows = [[weight[m].sum(), *np.average(boxes[m], axis=0, weights=weight[m])] for m in members]
    return np.array([row for row in rows if row[4] - row[2] > 4]).reshape(-1, 5)


def kitti_map(scenes, images: Images) -> float:
    """Mean over classes of the 11-point AP at IoU 0.5, from its definition."""
    _, targets, sizes = scenes
    feed = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
    coverage, offsets = session("detectnet_v2.onnx").run(["output_cov", "output_bbox"], {"input_1": feed})
    offsets = offsets.reshape(len(images), 10, 4, 16, 20)
    precisions = []
    for class_id in range(10):
        hits: list[tuple[float, bool]] = []
        positives = 0
        for image, (target, (width, height)) in enumerate(zip(targets, sizes, strict=True)):
            wanted = target[target[:, 0] == class_id, 1:]
            positives += len(wanted)
            found = clusters(coverage[image, class_id], offsets[image, class_id])
            found[:, 1:] = found[:, 1:].clip(0, [320, 256, 320, 256]) * np.tile([width / 320, height / 256], 2)
            free = np.ones(len(wanted))
            for row in found[np.argsort(-found[:, 0], kind="stable")]:
                overlap = iou(row[None, 1:], wanted)[0] * free if len(wanted) else np.zeros(1)
                hit = bool(overlap.max() >= 0.5)
                if hit:
                    free[overlap.argmax()] = 0
                hits.append((row[0], hit))
        order = sorted(hits, key=lambda item: -item[0])
        right = np.cumsum([hit for _, hit in order]) if order else np.zeros(1)
        recall, precision = right / positives, right / np.arange(1, len(right) + 1)
        precisions.append(np.mean([precision[recall >= k * 0.1].max(initial=0) for k in range(11)]))
    return float(np.mean(precisions))


def test_detectnet_finds_the_digits(kitti_scenes):
    assert kitti_map(kitti_scenes, kitti_scenes[0] / 255) >= 0.85


@pytest.mark.parametrize("broken", DETECTION_BREAKS.values(), ids=DETECTION_BREAKS)
def test_detectnet_breaks_with_its_preprocessing(kitti_scenes, broken: Break):
    assert kitti_map(kitti_scenes, broken(kitti_scenes[0])) < 0.65
