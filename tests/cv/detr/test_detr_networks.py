"""deformable_detr, dino and rtdetr from the command line, on models with a known right answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actions.commands import Shell, write_spec
from detr_replay import (
    SIZES,
    center_boxes,
    plain_decode,
    pycocotools_numbers,
    truth_boxes,
    write_coco,
    write_images,
    write_replay,
)
from PIL import Image

from nvidia_tao_deploy.cv.efficientdet_tf2.label_map import BUILT_IN
from nvidia_tao_deploy.cv.rtdetr import COCO_80_IDS
from nvidia_tao_deploy.metrics.coco import KEYS

NETWORKS = ("deformable_detr", "dino", "rtdetr")
CATEGORIES = {1: "car", 3: "person", 6: "traffic light"}
CHANNELS, QUERIES = 8, 40


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def answers(annotations: list[dict[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Outputs that find most of the truth, with noise; equal scores and boxes over the border among them."""
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(-4, 1.5, (len(SIZES), QUERIES, CHANNELS)), 1).astype(np.float32)
    boxes = rng.random((len(SIZES), QUERIES, 4)).astype(np.float32)
    for number, annotation in enumerate(annotations):
        row, query = annotation["image_id"] - 100, number % QUERIES
        boxes[row, query] = center_boxes(annotation["bbox"], row)[0] + rng.normal(0, 0.02, 4)
        logits[row, query, annotation["category_id"]] = rng.uniform(-1, 5)
    return {"pred_logits": logits, "pred_boxes": boxes}


class Case:
    """A folder with images, annotations, a model and a spec for it."""

    def __init__(self, folder: Path, network: str, **model: Any) -> None:
        self.folder, self.network = folder, network
        paths = write_images(folder / "images")
        self.annotations = truth_boxes(3, list(CATEGORIES))
        self.json = write_coco(folder / "truth.json", [p.name for p in paths], CATEGORIES, self.annotations)
        self.outputs = answers(self.annotations)
        self.model = write_replay(folder / "model.onnx", self.outputs, normalized=network != "rtdetr", **model)
        (folder / "classmap.txt").write_text("".join(f"name_{i}\n" for i in range(CHANNELS)))
        self.spec: dict[str, Any] = {
            "results_dir": str(folder / "results"),
            "model": {"num_select": 60},
            "dataset": {
                "test_data_sources": {"image_dir": str(folder / "images"), "json_file": str(self.json)},
                "infer_data_sources": {
                    "image_dir": str(folder / "images"),
                    "classmap": str(folder / "classmap.txt"),
                },
                "batch_size": 3,
            },
            "evaluate": {"trt_engine": str(self.model)},
            "inference": {"trt_engine": str(self.model), "conf_threshold": 0.3},
            "gen_trt_engine": {
                "onnx_file": str(self.model),
                "trt_engine": str(folder / "out" / "model.engine"),
                "tensorrt": {
                    "max_batch_size": 4,
                    "calibration": {"cal_image_dir": str(folder / "images"), "cal_batch_size": 2, "cal_batches": 3},
                },
            },
        }

    def words(self, action: str) -> list[Any]:
        return [self.network, action, "-e", write_spec(self.folder / "spec.yaml", self.spec)]

    def results(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "results" / "trt_evaluate" / "results.json").read_text()))

    def expected(self, k: int = 60, category: Any = None) -> list[dict[str, Any]]:
        """Detections by the contract, in plain Python."""
        rows = []
        for row, size in enumerate(SIZES):
            scores = 1 / (1 + np.exp(-self.outputs["pred_logits"][row], dtype=np.float32))
            for _, c, score, (x1, y1, x2, y2) in plain_decode(scores, self.outputs["pred_boxes"][row], size, k):
                one = {"image_id": 100 + row, "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                rows.append({**one, "category_id": c if category is None else category[c]})
        return rows


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("batch", [None, 4], ids=["dynamic", "batch 4"])
def test_evaluate_gives_pycocotools_numbers_over_every_image(
    network: str, batch: int | None, tmp_path: Path, shell: Shell
) -> None:
    case = Case(tmp_path, network, batch=batch, shuffled=True)
    assert shell(*case.words("evaluate")) == 0, shell.err
    found = case.results()
    wanted = pycocotools_numbers(case.json, case.expected())
    assert [found[key] for key in KEYS] == wanted
    assert 0.2 < found["AP"] < 0.95
    assert found["images_evaluated"] == len(SIZES)


def test_num_select_decides_in_both_actions(tmp_path: Path, shell: Shell) -> None:
    """The established evaluate used 100 and inference 100, whatever the spec said."""
    case = Case(tmp_path, "dino")
    case.spec["model"]["num_select"] = 3
    case.spec["inference"]["conf_threshold"] = 0.0
    assert shell(*case.words("evaluate")) == 0
    assert case.results()["AP"] == pycocotools_numbers(case.json, case.expected(3))[0]
    assert case.results()["AP"] != pycocotools_numbers(case.json, case.expected())[0]
    assert shell(*case.words("inference")) == 0
    lines = (tmp_path / "results" / "trt_inference" / "labels" / "image_0.txt").read_text().splitlines()
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("network", "more", "first"),
    [("deformable_detr", {}, 1), ("dino", {}, 1), ("dino", {"contiguous_labels": True}, 0), ("rtdetr", {}, 0)],
)
def test_labels_and_pictures(network: str, more: dict[str, Any], first: int, tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path, network)
    case.spec["dataset"] |= more
    assert shell(*case.words("inference")) == 0, shell.err
    folder = tmp_path / "results" / "trt_inference"
    names = {first + i: f"name_{i}" for i in range(CHANNELS)}
    for row, size in enumerate(SIZES):
        wanted = "".join(
            f"{names[d['category_id']]} 0.00 0 0.00 {d['bbox'][0]:.3f} {d['bbox'][1]:.3f} "
            f"{d['bbox'][0] + d['bbox'][2]:.3f} {d['bbox'][1] + d['bbox'][3]:.3f} "
            f"0.00 0.00 0.00 0.00 0.00 0.00 0.00 {d['score']:.3f}\n"
            for d in case.expected()
            if d["image_id"] == 100 + row and d["score"] >= 0.3 and d["category_id"] in names
        )
        assert (folder / "labels" / f"image_{row}.txt").read_text() == wanted
        with Image.open(folder / "images_annotated" / f"image_{row}.png") as picture:
            assert picture.size == size
            drawn = len(picture.convert("RGB").getcolors(10_000)) > 1
        assert drawn == bool(wanted)


def test_a_background_line_is_read_the_established_way_by_rtdetr(tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path, "rtdetr")
    (tmp_path / "classmap.txt").write_text("background\n" + "".join(f"name_{i}\n" for i in range(CHANNELS)))
    assert shell(*case.words("inference")) == 0
    shifted = (tmp_path / "results/trt_inference/labels/image_0.txt").read_text()
    (tmp_path / "classmap.txt").write_text("".join(f"name_{i}\n" for i in range(CHANNELS)))
    assert shell(*case.words("inference")) == 0
    assert (tmp_path / "results/trt_inference/labels/image_0.txt").read_text() == shifted != ""


def test_the_80_categories_are_those_that_have_a_name() -> None:
    assert sorted(BUILT_IN["coco"]) == COCO_80_IDS
    assert len(COCO_80_IDS) == 80


def test_remapped_and_contiguous_labels(tmp_path: Path, shell: Shell) -> None:
    """Channel j is the j-th COCO category (rtdetr) or the j-th category of the file (dino)."""
    for network, key, ids in (
        ("rtdetr", "remap_mscoco_category", {0: 1, 1: 2, 2: 3, 10: 11, 11: 13, 79: 90}),
        ("dino", "contiguous_labels", {0: 13, 1: 44, 2: 90}),
    ):
        folder = tmp_path / network
        case = Case(folder, network)
        channel_of = dict(zip(CATEGORIES, ids, strict=False))
        width = 80 if network == "rtdetr" else 3
        logits = np.full((len(SIZES), QUERIES, width), -6, np.float32)
        for old, new in channel_of.items():
            logits[..., new] = case.outputs["pred_logits"][..., old]
        case.outputs["pred_logits"] = logits
        write_replay(case.model, case.outputs, normalized=network != "rtdetr")
        to_id = ids if network == "dino" else {j: i for j, i in ids.items() if j in channel_of.values()}
        for annotation in case.annotations:
            annotation["category_id"] = to_id[channel_of[annotation["category_id"]]]
        names = {i: f"c{i}" for i in to_id.values()}
        write_coco(case.json, [f"image_{row}.png" for row in range(len(SIZES))], names, case.annotations)
        case.spec["dataset"][key] = True
        assert shell(*case.words("evaluate")) == 0, shell.err
        rows = [d for d in case.expected(60, {j: to_id.get(j, 0) for j in range(width)}) if d["category_id"]]
        assert [case.results()[k] for k in KEYS] == pycocotools_numbers(case.json, rows)
        assert case.results()["AP"] > 0.2


def test_the_aspect_is_kept_where_training_kept_it(tmp_path: Path, shell: Shell) -> None:
    """Padding is black, so on a canvas of another shape the replayed level would differ: the image fills it here."""
    case = Case(tmp_path, "rtdetr", size=(32, 32))
    only = 3  # the square image
    document = json.loads(case.json.read_text())
    document["images"] = [document["images"][only]]
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] == 100 + only]
    case.json.write_text(json.dumps(document))
    case.spec["dataset"]["augmentation"] = {"preserve_aspect_ratio": True}
    assert shell(*case.words("evaluate")) == 0
    rows = [d for d in case.expected() if d["image_id"] == 100 + only]
    assert case.results()["AP"] == pycocotools_numbers(case.json, rows)[0]


def test_grey_models_read_grey(tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path, "rtdetr", channels=1)
    assert shell(*case.words("evaluate")) == 0, shell.err
    assert case.results()["AP"] == pycocotools_numbers(case.json, case.expected())[0]


@pytest.mark.parametrize(
    ("network", "precision"),
    [(n, p) for n in NETWORKS for p in ("fp32", "fp16", "int8") if n != "dino" or p == "int8"],
)
def test_an_engine_of_each_precision_and_its_graph(network: str, precision: str, tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path, network)
    case.spec["gen_trt_engine"]["tensorrt"]["data_type"] = precision
    assert shell(*case.words("gen_trt_engine")) == 0, shell.out + shell.err
    assert (tmp_path / "out" / "model.engine").stat().st_size > 1000
    manifest = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert manifest["labels"][0] == "name_0"
    std = manifest["transform"]["std"]  # one and the same in all actions; .224 for all channels before
    assert std == ([1.0] if network == "rtdetr" else [0.229, 0.224, 0.225])
    case.spec["evaluate"]["trt_engine"] = str(next((tmp_path / "out").glob("*.onnx")))
    assert shell(*case.words("evaluate")) == 0
    wanted = pycocotools_numbers(case.json, case.expected())[0]
    assert case.results()["AP"] == pytest.approx(wanted, abs=1e-6 if precision == "fp32" else 0.02)


def test_mean_and_std_of_the_spec_count_in_inference_too(tmp_path: Path, shell: Shell) -> None:
    """The established inference used its own std: with other constants images are taken for each other."""
    case = Case(tmp_path, "deformable_detr")
    assert shell(*case.words("inference")) == 0
    right = (tmp_path / "results/trt_inference/labels/image_2.txt").read_text()
    case.spec["dataset"]["augmentation"] = {"input_mean": [0.6, 0.6, 0.6]}
    assert shell(*case.words("inference")) == 0
    assert (tmp_path / "results/trt_inference/labels/image_2.txt").read_text() != right


def test_large_vit_backbones_get_room_and_never_less_than_asked(tmp_path: Path) -> None:
    from nvidia_tao_deploy.cv.dino.spec import Spec
    from nvidia_tao_deploy.spec.load import load_spec

    for backbone, asked, used in (
        ("vit_large_dinov2", 1024, 20480),
        ("vit_large_nvdinov2", 1024, 20480),
        ("vit_large_dinov2", 22000, 22000),  # lowered to 20480 before
        ("resnet_50", 1024, 1024),
    ):
        tree = {"model": {"backbone": backbone}, "gen_trt_engine": {"tensorrt": {"workspace_size": asked}}}
        spec = load_spec(Spec, tree)
        assert spec.gen_trt_engine.tensorrt.workspace_size == used
        assert bool(spec.notes) == (asked != used)


def test_wrong_class_maps_and_models_are_told(tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path, "deformable_detr")
    (tmp_path / "classmap.txt").write_text("\n\n")
    assert "names no class" in shell.refused(2, *case.words("inference"))
    (tmp_path / "classmap.txt").write_text("\n" * CHANNELS + "late\n")
    assert "which has 8" in shell.refused(2, *case.words("inference"))
    (tmp_path / "classmap.txt").write_text("".join(f"n{i}\n" for i in range(CHANNELS + 3)))
    assert shell(*case.words("inference")) == 0
    assert "does not know: n7, n8, n9, n10" in shell.out
    assert "does not name their classes: 0 (" in shell.out  # no line names channel 0
    (tmp_path / "classmap.txt").write_text("n0\nn1\n\n")
    assert shell(*case.words("inference")) == 0
    unnamed = sum(d["score"] >= np.float32(0.3) and d["category_id"] not in (1, 2) for d in case.expected())
    assert f"{unnamed} detections left out, the class map does not name their classes: 0 (" in shell.out
    del case.spec["dataset"]["infer_data_sources"]["classmap"]
    assert "classmap: no value is given" in shell.refused(2, *case.words("inference"))
    case.spec["dataset"]["num_classes"] = 91
    assert shell(*case.words("evaluate")) == 0
    assert "the model has 8 classes, dataset.num_classes is 91" in shell.out
    names = [f"image_{row}.png" for row in range(len(SIZES))]
    moved = [{**a, "category_id": a["category_id"] + 20} for a in case.annotations]
    write_coco(case.json, names, {i + 20: name for i, name in CATEGORIES.items()}, moved)
    assert "no predicted class is a category" in shell.refused(1, *case.words("evaluate"))
    kite = {**case.annotations[0], "category_id": 40}  # the model has no channel for it
    write_coco(case.json, names, {**CATEGORIES, 40: "kite"}, [*case.annotations, kite])
    assert shell(*case.words("evaluate")) == 0
    assert "annotated, but not detected once: kite (40)" in shell.out
    write_coco(case.json, names, CATEGORIES, case.annotations)
    assert shell(*case.words("evaluate")) == 0
    assert "of classes that are no category of the annotation file: 0 (" in shell.out
    case.spec["dataset"]["eval_class_ids"] = [2]
    assert "eval_class_ids [2]" in shell.refused(1, *case.words("evaluate"))
    del case.spec["dataset"]["eval_class_ids"]
    case.spec["evaluate"]["trt_engine"] = str(write_replay(tmp_path / "b.onnx", {"pred_logits": np.zeros((1, 4, 4))}))
    assert "pred_boxes" in shell.refused(1, *case.words("evaluate"))


def test_eval_class_ids(tmp_path: Path, shell: Shell) -> None:
    case = Case(tmp_path, "deformable_detr")
    case.spec["dataset"]["eval_class_ids"] = [3]
    assert shell(*case.words("evaluate")) == 0
    document = json.loads(case.json.read_text())
    document["categories"] = [c for c in document["categories"] if c["id"] == 3]
    document["annotations"] = [a for a in document["annotations"] if a["category_id"] == 3]
    only = tmp_path / "only.json"
    only.write_text(json.dumps(document))
    rows = [d for d in case.expected() if d["category_id"] == 3]
    assert case.results()["AP"] == pycocotools_numbers(only, rows)[0]
    case.spec["dataset"]["eval_class_ids"] = []  # all
    assert shell(*case.words("evaluate")) == 0
    assert case.results()["AP"] == pycocotools_numbers(case.json, case.expected())[0]
