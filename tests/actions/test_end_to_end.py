"""The commands a user types, on the sample networks: every precision is built, and the numbers are the right ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from actions.commands import Shell, status, write_spec
from cv import test_detectnet_v2_decode as plain
from metrics.test_kitti_metric import plain_ap, plain_entries
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from repository import MODELS
from sklearn.metrics import top_k_accuracy_score

CLASSES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CLUSTERING = {"coverage_threshold": 0.4, "dbscan_eps": 0.4, "dbscan_min_samples": 1, "minimum_bounding_box_height": 4}


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def build_section(tmp_path: Path, network: str, images: Path) -> dict[str, Any]:
    calibration = {"cal_image_dir": [str(images)], "cal_batch_size": 4, "cal_batches": 4}
    return {
        "onnx_file": str(MODELS / f"{network}.onnx"),
        "trt_engine": str(tmp_path / "engines" / f"{network}_${{gen_trt_engine.tensorrt.data_type}}.engine"),
        "tensorrt": {"opt_batch_size": 4, "max_batch_size": 8, "calibration": calibration},
    }


@pytest.fixture
def classification(tmp_path: Path, digits: Path) -> dict[str, Any]:
    return {
        "results_dir": str(tmp_path / "results"),
        "dataset": {
            "root_dir": str(digits),
            "test_dataset": {"images_dir": str(digits / "test")},
            "batch_size": 7,
        },
        "gen_trt_engine": build_section(tmp_path, "classification_pyt", digits / "calibration"),
    }


@pytest.fixture
def rtdetr(tmp_path: Path, scenes: tuple[Path, Path]) -> dict[str, Any]:
    coco = scenes[0]
    return {
        "results_dir": str(tmp_path / "results"),
        "dataset": {
            "test_data_sources": {
                "json_file": str(coco / "annotations" / "test.json"),
                "image_dir": str(coco / "images" / "test"),
            },
            "infer_data_sources": {
                "image_dir": [str(coco / "images" / "test")],
                "classmap": str(coco / "classmap.txt"),
            },
            "batch_size": 5,
        },
        "gen_trt_engine": build_section(tmp_path, "rtdetr", coco / "images" / "calibration"),
    }


@pytest.fixture
def detectnet(tmp_path: Path, scenes: tuple[Path, Path]) -> dict[str, Any]:
    kitti = scenes[1]
    return {
        "results_dir": str(tmp_path / "results"),
        "dataset_config": {"target_class_mapping": {name: name for name in CLASSES}},
        "cost_function_config": {"target_classes": [{"name": name} for name in CLASSES]},
        "postprocessing_config": {"target_class_config": {"default": {"clustering_config": CLUSTERING}}},
        "evaluate": {
            "image_dir": str(kitti / "test" / "images"),
            "label_dir": str(kitti / "test" / "labels"),
            "batch_size": 5,
        },
        "inference": {"image_dir": str(kitti / "test" / "images")},
        "gen_trt_engine": build_section(tmp_path, "detectnet_v2", kitti / "calibration" / "images"),
    }


def session(model: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("network", ["classification_pyt", "rtdetr", "detectnet_v2"])
def test_every_precision_is_built_measured_and_run(
    shell: Shell,
    network: str,
    tmp_path: Path,
    classification: dict[str, Any],
    rtdetr: dict[str, Any],
    detectnet: dict[str, Any],
) -> None:
    content = {"classification_pyt": classification, "rtdetr": rtdetr, "detectnet_v2": detectnet}[network]
    headline = {"classification_pyt": "top_k_accuracy", "rtdetr": "AP50", "detectnet_v2": "mAP"}[network]
    spec = write_spec(tmp_path / "spec.yaml", content)
    measured = {}
    for precision in ("fp32", "fp16", "int8"):
        data_type = f"gen_trt_engine.tensorrt.data_type={precision}"
        assert shell(network, "gen_trt_engine", "-e", spec, data_type, "--json") == 0, shell.err
        built = json.loads(shell.out)
        manifest = json.loads(Path(built["manifest"]).read_text())
        assert Path(built["engine"]).stat().st_size == built["engine_bytes"] == manifest["engine_bytes"]
        assert built["counts"].get(precision, 0) >= 1
        assert manifest["runtime"] == "tensorrt_rtx"
        assert len(manifest["source_sha256"]) == 64
        if precision == "int8":
            assert len(manifest["calibration"]["images"]) == 16
            assert built["counts"]["int8"] > built["counts"]["total"] / 2
        model = f"evaluate.trt_engine={built['prepared_onnx']}"
        assert shell(network, "evaluate", "-e", spec, model, "--json") == 0, shell.err
        results = json.loads(shell.out)
        assert results == json.loads((tmp_path / "results" / "trt_evaluate" / "results.json").read_text())
        measured[precision] = results[headline]
    assert measured["fp32"] >= 0.85
    assert measured["fp16"] == pytest.approx(measured["fp32"], abs=0.02)
    assert measured["int8"] == pytest.approx(measured["fp32"], abs=0.05)
    assert shell(network, "inference", "-e", spec, f"inference.trt_engine={built['prepared_onnx']}", "--json") == 0
    for folder in ("gen_trt_engine", "trt_evaluate", "trt_inference"):
        last = status(tmp_path / "results" / folder)[-1]
        assert last["status"] == "SUCCESS"
        assert (tmp_path / "results" / folder / "experiment.yaml").is_file()
    assert "kpi" in status(tmp_path / "results" / "trt_evaluate")[-1]


def test_classification_accuracy_is_scikit_learns(
    shell: Shell, tmp_path: Path, digits: Path, classification: dict[str, Any]
) -> None:
    model = MODELS / "classification_pyt.onnx"
    spec = write_spec(tmp_path / "spec.yaml", classification)
    assert (
        shell("classification_pyt", "evaluate", "-e", spec, f"evaluate.trt_engine={model}", "model.head.topk=[2]") == 0
    )
    runner, scores, labels = session(model), [], []
    for path in sorted((digits / "test").rglob("*.png")):
        image = Image.open(path).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)
        pixels = (np.asarray(image, np.float64) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        scores.append(runner.run(None, {"input": pixels.transpose(2, 0, 1)[None].astype(np.float32)})[0][0])
        labels.append(CLASSES.index(path.parent.name))
    results = json.loads((tmp_path / "results" / "trt_evaluate" / "results.json").read_text())
    expected = top_k_accuracy_score(labels, scores, k=2, labels=range(10))
    assert results["top_k_accuracy"] == expected
    assert results["images_evaluated"] == len(labels)


def test_classification_inference_writes_softmax_confidences(
    shell: Shell, tmp_path: Path, digits: Path, classification: dict[str, Any]
) -> None:
    model = MODELS / "classification_pyt.onnx"
    spec = write_spec(tmp_path / "spec.yaml", classification)
    assert shell("classification_pyt", "inference", "-e", spec, f"inference.trt_engine={model}") == 0, shell.err
    rows = [line.rsplit(",", 2) for line in (tmp_path / "results/trt_inference/result.csv").read_text().splitlines()]
    assert [row[0] for row in rows] == [str(path) for path in sorted((digits / "test").rglob("*.png"))]
    assert all(0.1 <= float(row[2]) <= 1 for row in rows)
    assert np.mean([Path(row[0]).parent.name == row[1] for row in rows]) > 0.9


def test_rtdetr_map_is_pycocotools(
    shell: Shell, tmp_path: Path, scenes: tuple[Path, Path], rtdetr: dict[str, Any]
) -> None:
    model = MODELS / "rtdetr.onnx"
    spec = write_spec(tmp_path / "spec.yaml", rtdetr)
    assert shell("rtdetr", "evaluate", "-e", spec, f"evaluate.trt_engine={model}", "runtime.image_backend=pillow") == 0
    truth = COCO(str(scenes[0] / "annotations" / "test.json"))
    runner, detections = session(model), []
    height, width = runner.get_inputs()[0].shape[2:]
    for image_id, entry in truth.imgs.items():
        image = np.asarray(Image.open(scenes[0] / "images" / "test" / entry["file_name"]).convert("RGB"), np.float32)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR) / np.float32(255)
        logits, boxes = runner.run(["pred_logits", "pred_boxes"], {"inputs": small.transpose(2, 0, 1)[None]})
        scores = 1 / (1 + np.exp(-logits[0].ravel()))
        for flat in np.argsort(-scores, kind="stable")[:300]:
            cx, cy, w, h = boxes[0, flat // logits.shape[2]]
            corners = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], np.float32).astype(np.float64)
            size = np.array([entry["width"], entry["height"]] * 2)
            x1, y1, x2, y2 = np.clip(corners * size, 0, size)
            detections.append(
                {
                    "image_id": image_id,
                    "category_id": int(flat % logits.shape[2]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(scores[flat]),
                }
            )
    evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    results = json.loads((tmp_path / "results" / "trt_evaluate" / "results.json").read_text())
    keys = ["AP", "AP50", "AP75", "APs", "APm", "APl", "ARmax1", "ARmax10", "ARmax100", "ARs", "ARm", "ARl"]
    assert [results[key] for key in keys] == pytest.approx([float(np.float32(v)) for v in evaluation.stats], abs=1e-6)


def test_detectnet_map_is_the_definitions(
    shell: Shell,
    tmp_path: Path,
    scenes: tuple[Path, Path],
    detectnet: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = MODELS / "detectnet_v2.onnx"
    spec = write_spec(tmp_path / "spec.yaml", detectnet)
    assert shell("detectnet", "evaluate", "-e", spec, "-m", model, "runtime.image_backend=pillow") == 0, shell.err
    from nvidia_tao_deploy.cv.detectnet_v2.spec import Clustering

    runner = session(model)
    _, _, height, width = runner.get_inputs()[0].shape
    monkeypatch.setattr(plain, "NET", (width, height))
    monkeypatch.setattr(plain, "GRID", (width // 16, height // 16))
    settings = [Clustering(**CLUSTERING)] * 10
    entries: list[list[Any]] = [[] for _ in CLASSES]
    for path in sorted((scenes[1] / "test" / "images").iterdir()):
        image = Image.open(path).convert("RGB")
        pixels = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS), np.float32) / np.float32(255)
        outputs = dict(
            zip(
                [o.name for o in runner.get_outputs()],
                runner.run(None, {"input_1": pixels.transpose(2, 0, 1)[None]}),
                strict=True,
            )
        )
        found = plain.plain_decode(outputs["output_cov"][0], outputs["output_bbox"][0], image.size, settings)
        truth = []
        for line in (scenes[1] / "test" / "labels" / f"{path.stem}.txt").read_text().splitlines():
            words = line.split()
            truth.append((CLASSES.index(words[0]) + 1, words[2] != "0", *(float(round(float(v))) for v in words[4:8])))
        for class_id in range(1, 11):
            entries[class_id - 1] += plain_entries(truth, found, class_id, 0.5)
    expected = [plain_ap(rows, 0.01, "SAMPLE") for rows in entries]
    results = json.loads((tmp_path / "results" / "trt_evaluate" / "results.json").read_text())
    got = [results[f"AP_{name}"] for name in CLASSES]
    assert got == pytest.approx(expected, abs=1e-9)
    assert results["mAP"] == pytest.approx(math.fsum(expected) / 10, abs=1e-9)


def test_accuracy_does_not_depend_on_the_batch_size(shell: Shell, tmp_path: Path, detectnet: dict[str, Any]) -> None:
    spec = write_spec(tmp_path / "spec.yaml", detectnet)
    numbers = []
    for batch in (1, 7, 24):
        words = ("-e", spec, "-m", MODELS / "detectnet_v2.onnx", "-b", batch, "--json")
        assert shell("detectnet_v2", "evaluate", *words) == 0, shell.err
        results = json.loads(shell.out)
        numbers.append({key: value for key, value in results.items() if key.startswith(("AP", "mAP"))})
    assert numbers[0] == numbers[1] == numbers[2]


@pytest.mark.parametrize(
    ("network", "breakage"),
    [
        ("classification_pyt", "dataset.augmentation.mean=[0,0,0]"),
        ("detectnet_v2", "model_config.objective_set.bbox.scale=20"),
    ],
)
def test_a_wrong_constant_breaks_the_metric(
    shell: Shell,
    network: str,
    breakage: str,
    tmp_path: Path,
    classification: dict[str, Any],
    detectnet: dict[str, Any],
) -> None:
    content, headline = (classification, "top_k_accuracy") if "class" in network else (detectnet, "mAP")
    spec = write_spec(tmp_path / "spec.yaml", content)
    model = f"evaluate.trt_engine={MODELS / f'{network}.onnx'}"
    assert shell(network, "evaluate", "-e", spec, model, "--json") == 0
    right = json.loads(shell.out)[headline]
    assert shell(network, "evaluate", "-e", spec, model, breakage, "--json") == 0
    assert json.loads(shell.out)[headline] < right - 0.2


def test_detectnet_labels_and_pictures(
    shell: Shell, tmp_path: Path, scenes: tuple[Path, Path], detectnet: dict[str, Any]
) -> None:
    spec = write_spec(tmp_path / "spec.yaml", detectnet)
    assert shell("detectnet_v2", "inference", "-e", spec, "-m", MODELS / "detectnet_v2.onnx") == 0, shell.err
    images = sorted((scenes[1] / "test" / "images").iterdir())
    folder = tmp_path / "results" / "trt_inference"
    assert sorted(p.name for p in (folder / "images_annotated").iterdir()) == [p.name for p in images]
    lines = []
    for image in images:
        with Image.open(image) as source, Image.open(folder / "images_annotated" / image.name) as drawn:
            assert drawn.size == source.size
        lines += (folder / "labels" / f"{image.stem}.txt").read_text().splitlines()
    assert lines
    for line in lines:
        words = line.split(" ")
        assert len(words) == 16
        assert words[0] in CLASSES
        assert words[1:4] == ["0.00", "0", "0.00"]
        assert words[8:15] == ["0.00"] * 7
        assert all(len(value.split(".")[1]) == 3 for value in (*words[4:8], words[15]))
