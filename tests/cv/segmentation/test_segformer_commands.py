"""segformer from the command line, on replay models of the contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell, write_spec
from cv.segmentation import seg_replay as replay
from PIL import Image
from repository import MODELS

from nvidia_tao_deploy.cv.segformer import mask_codes
from nvidia_tao_deploy.cv.segformer.spec import Spec
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.predictions.masks import resized_logits
from nvidia_tao_deploy.predictions.segmentation import argmax_map
from nvidia_tao_deploy.spec.known import Node, known_keys
from nvidia_tao_deploy.spec.load import load_spec

# sky and road swap places (5 -> 1, 1 -> 0 would cascade), bus counts as car
PALETTE = [
    {"seg_class": "void", "label_id": 0, "mapping_class": "void", "rgb": [0, 0, 0]},
    {"seg_class": "road", "label_id": 5, "mapping_class": "road", "rgb": [128, 64, 128]},
    {"seg_class": "sky", "label_id": 1, "mapping_class": "sky", "rgb": [70, 130, 180]},
    {"seg_class": "car", "label_id": 7, "mapping_class": "car", "rgb": [0, 0, 142]},
    {"seg_class": "bus", "label_id": 9, "mapping_class": "car", "rgb": [0, 60, 100]},
]
NAMES = ["void", "sky", "road", "car/bus"]
TRAIN_ID = np.array([0, 2, 1, 3, 3])  # by place in the palette
LOW = (replay.NET[0] // 4, replay.NET[1] // 4)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def plain_argmax(logits: np.ndarray) -> np.ndarray:
    """Bilinear with half-pixel centres, then the first largest."""
    return replay.bilinear(logits, replay.NET).argmax(0)


class Scene:
    """<root>/images|masks/<split>; masks of colours, label ids or 0 and 255."""

    def __init__(self, root: Path, kind: str = "colors", classes: int = 5) -> None:
        rng = np.random.default_rng(9)
        self.root = root
        self.images = replay.write_images(root / "images" / "val")
        replay.write_images(root / "images" / "test", suffix=".jpg")
        (root / "masks" / "val").mkdir(parents=True)
        self.entries = [replay.blobs(rng, size, classes) for size in replay.SIZES]
        table = {
            "colors": np.array([entry["rgb"] for entry in PALETTE], np.uint8),
            "palette": np.array([entry["rgb"] for entry in PALETTE], np.uint8),
            "labels": np.array([entry["label_id"] for entry in PALETTE], np.uint8),
            "binary": np.array([0, 255], np.uint8),
        }[kind]
        for path, entries in zip(self.images, self.entries, strict=True):
            picture = Image.fromarray(table[entries])
            if kind == "palette":
                picture = Image.fromarray(entries)
                picture.putpalette(table.ravel().tolist())
            picture.save(root / "masks" / "val" / f"{path.stem}.png")
        count = 2 if kind == "binary" else 4
        lookup = np.array([0, 1]) if kind == "binary" else TRAIN_ID
        self.truth = [lookup[entries].astype(np.uint8) for entries in self.entries]
        self.logits = rng.normal(0, 0.7, (len(self.images), count, *LOW[::-1])).astype(np.float32)
        for row, truth in zip(self.logits, self.truth, strict=True):
            for c in range(count):
                row[c] += 1.5 * (replay.on_net(truth, LOW) == c)
        self.found = [plain_argmax(row) for row in self.logits]
        self.model()

    def model(self, **options: Any) -> None:
        constants = {"image": "input", "scale": 1 / 255, "mean": 0.5, "std": 0.5, **options}
        onnx.save(replay.replay({"output": self.logits}, **constants), self.root / "segformer.onnx")

    def spec(self, **segment: Any) -> Path:
        content = {
            "results_dir": str(self.root / "results"),
            "dataset": {
                "segment": {"root_dir": str(self.root), "label_transform": "None", "palette": PALETTE, **segment}
            },
            "evaluate": {"trt_engine": str(self.root / "segformer.onnx")},
            "inference": {"trt_engine": str(self.root / "segformer.onnx")},
        }
        return write_spec(self.root / "spec.yaml", content)

    def assert_results(self, names: list[str]) -> dict[str, Any]:
        found = json.loads((self.root / "results" / "trt_evaluate" / "results.json").read_text())
        truth = [replay.on_net(t).astype(int) for t in self.truth]
        wanted = replay.sklearn_figures(truth, self.found, len(names))
        assert found["Mean IOU"] == pytest.approx(wanted["iou"].mean(), abs=1e-12)
        assert [found[name]["iou"] for name in names] == pytest.approx(list(wanted["iou"]), abs=1e-12)
        assert [found[name]["F1 Score"] for name in names] == pytest.approx(list(wanted["f1"]), abs=1e-12)
        assert 0.3 < found["Mean IOU"] < 0.95
        assert found["images_evaluated"] == len(replay.SIZES)
        return found


@pytest.mark.parametrize("kind", ["colors", "labels", "palette"])
def test_evaluate_reads_masks_as_training_does(shell: Shell, tmp_path: Path, kind: str) -> None:
    scene = Scene(tmp_path, kind)
    assert shell("segformer", "evaluate", "-e", scene.spec(batch_size=3)) == 0, shell.err
    assert scene.assert_results(NAMES)["unmapped_pixels"] == 0


@pytest.mark.parametrize("white", [1, 255])
def test_norm_is_black_and_white(shell: Shell, tmp_path: Path, white: int) -> None:
    scene = Scene(tmp_path, "binary", 2)
    palette = [
        {"seg_class": "ground", "label_id": 0, "mapping_class": "ground", "rgb": [0, 0, 0]},
        {"seg_class": "thing", "label_id": 1, "mapping_class": "thing", "rgb": [white] * 3},
    ]
    assert shell("segformer", "evaluate", "-e", scene.spec(palette=palette, label_transform="norm")) == 0, shell.err
    scene.assert_results(["ground", "thing"])
    assert shell("segformer", "inference", "-e", scene.spec(palette=palette, label_transform="norm")) == 0, shell.err
    overlay = np.asarray(Image.open(tmp_path / "results" / "trt_inference" / "vis_overlay" / "000.jpg")).astype(int)
    assert np.ptp(overlay) > 40  # the classes can be told apart


def test_inference_writes_maps_and_overlays_of_the_sources_size(shell: Shell, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    assert shell("segformer", "inference", "-e", scene.spec(), "inference.batch_size=2") == 0, shell.err
    out = tmp_path / "results" / "trt_inference"
    colors = np.array([PALETTE[i]["rgb"] for i in (0, 2, 1, 3)])
    for number, size in enumerate(replay.SIZES):
        labels = replay.on_net(scene.found[number].astype(np.uint8), size)
        with Image.open(out / "mask_labels" / f"{number:03d}.png") as picture:
            assert picture.mode == "L"
            np.testing.assert_array_equal(np.asarray(picture), labels)
        overlay = np.asarray(Image.open(out / "vis_overlay" / f"{number:03d}.jpg")).astype(int)
        wanted = (replay.level(number) + colors[labels]) // 2
        assert overlay.shape == wanted.shape
        assert np.abs(overlay - wanted).mean() < 6  # JPEG


def test_decode_is_the_formula_on_random_logits() -> None:
    rng = np.random.default_rng(0)
    for classes in (1, 2, 19, 300):
        logits = rng.normal(size=(classes, *LOW[::-1])).astype(np.float32)
        found = argmax_map(resized_logits(logits, replay.NET), classes)
        assert found.dtype == (np.uint16 if classes == 300 else np.uint8)
        assert (found == plain_argmax(logits)).mean() > 0.999  # the last bit of a float decides the rest
    ties = argmax_map(iter(np.zeros((5, 4, 4), np.float32)), 5)
    assert (ties == 0).all()


def test_every_precision_builds_and_keeps_the_number(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    scene = Scene(tmp_path)
    path = scene.spec()
    for precision in ("fp32", "fp16", "int8"):
        overrides = {
            "onnx_file": tmp_path / "segformer.onnx",
            "trt_engine": tmp_path / f"{precision}.engine",
            "tensorrt.data_type": precision.upper(),
            "tensorrt.max_batch_size": 4,
            "tensorrt.compute_capabilities": "8.6",
            "tensorrt.runtime": "tensorrt_rtx",
            "tensorrt.calibration.cal_image_dir": f"[{tmp_path / 'images' / 'val'}]",
            "tensorrt.calibration.cal_batches": 6,
        }
        words = [f"gen_trt_engine.{key}={value}" for key, value in overrides.items()]
        assert shell("segformer", "gen_trt_engine", "-e", path, *words, "--json") == 0, shell.err
        built = json.loads(shell.out)
        assert shell("segformer", "evaluate", "-e", path, f"evaluate.trt_engine={built['prepared_onnx']}") == 0, (
            shell.err
        )
        if precision == "fp32":
            scene.assert_results(NAMES)
        found = json.loads((tmp_path / "results" / "trt_evaluate" / "results.json").read_text())
        wanted = replay.sklearn_figures([replay.on_net(t).astype(int) for t in scene.truth], scene.found, 4)
        assert found["Mean IOU"] == pytest.approx(wanted["iou"].mean(), abs=2e-3)
    assert json.loads(Path(built["manifest"]).read_text())["labels"] == NAMES


def test_strange_masks_are_refused_or_counted(shell: Shell, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    path = scene.spec()
    mask = tmp_path / "masks" / "val" / "002.png"
    Image.new("RGB", replay.SIZES[2], (1, 2, 3)).save(mask)
    message = shell.refused(1, "segformer", "evaluate", "-e", path, "strict=true")
    assert "no pixel has the colour of a class" in message
    assert "(1, 2, 3)" in message
    pixels = np.array(PALETTE)[scene.entries[2]]
    colors = np.array([[e["rgb"] for e in row] for row in pixels], np.uint8)
    colors[:10] = (9, 9, 9)
    Image.fromarray(colors).save(mask)
    for policy, label in (("ignore", -1), ("first_class", 0)):
        assert shell("segformer", "evaluate", "-e", path, f"evaluate.unmapped_labels={policy}") == 0, shell.err
        assert "(9, 9, 9) (960 pixels)" in shell.out
        found = json.loads((tmp_path / "results" / "trt_evaluate" / "results.json").read_text())
        truth = [t.astype(int) for t in scene.truth]
        truth[2] = truth[2].copy()
        truth[2][:10] = label
        on_net = [
            np.asarray(Image.fromarray(t.astype(np.int32)).resize(replay.NET, Image.Resampling.NEAREST)) for t in truth
        ]
        wanted = replay.sklearn_figures(on_net, scene.found, 4)
        assert found["Mean IOU"] == pytest.approx(wanted["iou"].mean(), abs=1e-12)
        assert found["unmapped_pixels"] == 960
    mask.unlink()
    assert "1 of 7 images have no mask" in shell.refused(1, "segformer", "evaluate", "-e", path)
    scene.logits = scene.logits[:, :3]
    scene.model()
    assert "the model has 3 classes and the palette 4" in shell.refused(1, "segformer", "inference", "-e", path)
    words = ("segformer", "inference", "-e", path, f"inference.trt_engine={MODELS / 'unet.onnx'}")
    assert "'output' of rank 4 of floats; the model has argmax_1 int64" in shell.refused(1, *words)
    assert "no such image folder" in shell.refused(
        1, "segformer", "inference", "-e", path, "dataset.segment.predict_split=nowhere"
    )


def test_colours_that_norm_makes_one_are_refused(tmp_path: Path) -> None:
    spec = load_spec(Spec, {"dataset": {"segment": {"palette": PALETTE, "label_transform": "norm"}}})
    with pytest.raises(SpecError, match="colour of another class"):
        mask_codes(spec)


def complete(node: Node, name: str = "") -> Any:
    special = {
        "data_type": "INT8",
        "layers_precision": ["*:fp32"],
        "label_transform": "None",
        "mean": [0.5],
        "std": [0.5],
    }
    if name == "palette":
        return PALETTE
    if name in special:
        return special[name]
    if node.kind != "value":
        content = {key: complete(child, key) for key, child in node.children.items()}
        return {"block": content, "list": [content], "map": {"a": content}}[node.kind]
    kind = node.type.removesuffix("?")
    if kind.startswith("list"):
        return ["a"] if "str" in kind else [1]
    if kind.startswith("dict"):
        return {"a": "1"}
    return {"int": 1, "float": 0.5, "bool": True}.get(kind, "text")


def test_the_complete_tree_loads_and_a_typo_is_refused(tmp_path: Path) -> None:
    tree = complete(known_keys("segformer"))
    assert load_spec(Spec, tree).notes == []
    path = tmp_path / "spec.yaml"
    path.write_text("dataset:\n  segment:\n    palette:\n      - {seg_class: a, label_id: 0, rgbs: [1, 1, 1]}\n")
    with pytest.raises(SpecError) as caught:
        load_spec(Spec, path)
    assert f"{path}:4" in str(caught.value)
    assert "rgbs" in str(caught.value)
