"""visual_changenet: change per pixel against scikit-learn, and pairs against one or several golden images."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell, status, write_spec
from cv.inspection.pair_models import change_map, difference, normalized, paint
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

from nvidia_tao_deploy.cv.visual_changenet import NETWORK, bind
from nvidia_tao_deploy.cv.visual_changenet.pictures import palette, read_label
from nvidia_tao_deploy.cv.visual_changenet.segment import class_maps
from nvidia_tao_deploy.cv.visual_changenet.spec import Spec
from nvidia_tao_deploy.data.pairs import PairFiles
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.metrics.change import ChangeMetric, change_figures
from nvidia_tao_deploy.metrics.segmentation import confusion_matrix
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec

SIDE = 24
LEVELS = [0, 100, 200]  # grey of after, by class; before is black


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


class Scenes:
    """Pictures of the network's size: before is black, after's grey names a class; labels agree in part."""

    def __init__(self, root: Path, classes: int = 2, count: int = 5) -> None:
        self.root, self.classes = root, classes
        random = np.random.default_rng(7)
        self.names = [f"{'deep/' if i == 3 else ''}{i}.{'jpg' if i == 1 else 'png'}" for i in range(count)]
        self.seen = random.integers(0, classes, (count, SIDE, SIDE))
        self.seen[1] = 1  # JPEG keeps one colour as it is
        wrong = random.random(self.seen.shape) < 0.2
        self.truth = np.where(wrong, random.integers(0, classes, self.seen.shape), self.seen)
        for name, seen, truth in zip(self.names, self.seen, self.truth, strict=True):
            paint(root / "A" / name, np.zeros((SIDE, SIDE, 3)))
            paint(root / "B" / name, np.repeat(np.array(LEVELS)[seen][..., None], 3, axis=2))
            label = (root / "label" / name).with_suffix(".png")
            label.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((truth * (255 if classes == 2 else 1)).astype(np.uint8)).save(label)
        (root / "list").mkdir()
        (root / "list/test.txt").write_text("".join(f"{name} 1 x\n" for name in self.names))

    def model(self, **more: Any) -> Path:
        centers = [2 * LEVELS[i] / 255 for i in range(self.classes)]  # mean and std 0.5: values are x / 127.5 - 1
        return change_map(self.root / "model.onnx", centers, SIDE, **more)

    def tree(self, model: Path, **data: Any) -> dict[str, Any]:
        transform = "norm" if self.classes == 2 else "None"
        segment = {"root_dir": str(self.root), "num_classes": self.classes, "label_transform": transform}
        return {
            "results_dir": str(self.root / "out"),
            "dataset": {"segment": segment | data},
            "evaluate": {"trt_engine": str(model), "batch_size": 2},
            "inference": {"trt_engine": str(model)},
        }

    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "out/trt_evaluate/results.json").read_text())
        return found


@pytest.mark.parametrize(("classes", "batch"), [(2, "N"), (3, 2)])
def test_evaluate_gives_the_figures_of_scikit_learn(
    shell: Shell, tmp_path: Path, classes: int, batch: int | str
) -> None:
    scenes = Scenes(tmp_path, classes)
    spec = write_spec(tmp_path / "s.yaml", scenes.tree(scenes.model(batch=batch)))
    assert shell("visual_changenet", "evaluate", "-e", spec) == 0, shell.err
    found, truth, seen = scenes.results(), scenes.truth.ravel(), scenes.seen.ravel()
    for name, score in (
        ("iou", jaccard_score),
        ("F1", f1_score),
        ("precision", precision_score),
        ("recall", recall_score),
    ):
        expected = score(truth, seen, average=None, labels=range(classes))
        assert [found[f"{name}_{i}"] for i in range(classes)] == pytest.approx(list(expected), abs=1e-6)
        mean = {"iou": "miou", "F1": "mf1"}.get(name, f"m{name}")
        assert found[mean] == pytest.approx(expected.mean(), abs=1e-6)
    assert found["acc"] == pytest.approx(accuracy_score(truth, seen), abs=1e-6)
    assert found["images_evaluated"] == 5  # the last of three batches is short
    assert status(tmp_path / "out/trt_evaluate")[-1]["kpi"]["miou"] == found["miou"]


def test_labels_of_0_and_1_read_as_0_and_255_are_told(shell: Shell, tmp_path: Path) -> None:
    scenes = Scenes(tmp_path, 2)
    for path in (tmp_path / "label").glob("**/*.png"):
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    spec = write_spec(tmp_path / "s.yaml", scenes.tree(scenes.model()))
    assert shell("visual_changenet", "evaluate", "-e", spec, "dataset.segment.label_transform=norm") == 0, shell.err
    assert "no label pixel is of class 1: check label_transform" in shell.out
    assert "label_transform norm leaves" not in shell.out
    assert shell("visual_changenet", "evaluate", "-e", spec, "dataset.segment.label_transform=none") == 0, shell.err
    assert "no label pixel" not in shell.out
    three = Scenes(tmp_path / "three", 3)
    spec = write_spec(tmp_path / "s.yaml", three.tree(three.model()))
    for how, told in (("norm", True), ("none", False)):
        assert shell("visual_changenet", "evaluate", "-e", spec, f"dataset.segment.label_transform={how}") == 0
        assert ("label_transform norm leaves the classes 0 and 1 of 3" in shell.out) == told


def test_labels_that_are_no_class_are_left_out_and_told() -> None:
    metric = ChangeMetric(2, lambda _sample, _size: np.array([[0, 1, 1, 255]], np.uint16))
    metric.update(Sample("a", ()), np.array([[0, 1, 0, 0]]))
    assert metric.compute()["acc"] == pytest.approx(2 / 3)
    assert "1 pixel" in metric.report()
    assert "(25.0 %)" in metric.report()


def test_absent_classes_count_as_zero_and_figures_follow_the_formula() -> None:
    matrix = np.array([[5, 1, 0], [2, 3, 0], [0, 0, 0]])
    found, e = change_figures(matrix), float(np.finfo(np.float32).eps)
    assert found["iou_2"] == 0
    assert found["iou_1"] == 3 / (5 + 4 - 3 + e)
    assert found["miou"] == (5 / (6 + 7 - 5 + e) + 3 / (6 + e)) / 3
    precision, recall = 3 / (4 + e), 3 / (5 + e)
    assert found["F1_1"] == 2 * precision * recall / (precision + recall + e)
    assert list(found) == [
        *("acc", "miou", "mf1"),
        *(f"{kind}_{i}" for kind in ("iou", "F1", "precision", "recall") for i in range(3)),
        *("mprecision", "mrecall"),
    ]
    labels = np.array([0, 1, 2, 255, 7], np.uint16)  # beyond the classes: not counted
    assert confusion_matrix(labels, np.array([0, 0, 2, 1, 1], np.uint8), 3).sum() == 3


@pytest.mark.parametrize("action", ["evaluate", "inference"])
def test_pictures(shell: Shell, tmp_path: Path, action: str) -> None:
    scenes = Scenes(tmp_path)
    spec = write_spec(tmp_path / "s.yaml", scenes.tree(scenes.model()))
    assert shell("visual_changenet", action, "-e", spec) == 0, shell.err
    folder = tmp_path / f"out/trt_{action}"
    for name, seen, truth in zip(scenes.names, scenes.seen, scenes.truth, strict=True):
        with Image.open(folder / f"{name}.jpg") as picture:
            assert (picture.format, picture.size) == ("JPEG", (SIDE, SIDE))
            assert np.mean((np.asarray(picture)[..., 0] > 127) == seen) > 0.95
        with Image.open(folder / "combined_visualisation" / f"{name}.jpg") as picture:
            pixels = np.asarray(picture)[..., 0].astype(int)
        parts = 4 if action == "evaluate" else 3
        assert pixels.shape == (SIDE, parts * SIDE + (parts - 1) * 10)
        columns = [pixels[:, i * (SIDE + 10) : i * (SIDE + 10) + SIDE] for i in range(parts)]
        assert columns[0].max() < 60
        assert np.abs(columns[1] - np.array(LEVELS)[seen]).mean() < 12
        assert np.mean((columns[2] > 127) == seen) > 0.93
        if action == "evaluate":
            assert np.mean((columns[3] > 127) == truth) > 0.93
    if action == "evaluate":
        other = tmp_path / "numbers"
        words = ("evaluate.visualize=false", f"results_dir={other}")
        assert shell("visual_changenet", action, "-e", spec, *words) == 0, shell.err
        assert not list(other.rglob("*.jpg"))


def test_palettes() -> None:
    assert palette(2, "LandSCD", [[1, 2, 3], [4, 5, 6]]).tolist() == [[0, 0, 0], [255, 255, 255]]
    land = "255 255 255 255 165 0 230 30 100 70 140 0 218 112 214 0 170 240 127 235 170 230 80 0 205 220 57 218 165 32"
    assert palette(10, "LandSCD", None).ravel().tolist() == [int(level) for level in land.split()]
    assert palette(3, "x", [[1, 2, 3], [4, 5, 6], [7, 8, 9]]).tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    fixed = palette(40, "x", None)
    assert fixed[0].tolist() == [255, 255, 255]
    assert len({tuple(color) for color in fixed.tolist()}) == 40
    assert np.array_equal(fixed, palette(40, "x", None))


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
@pytest.mark.parametrize("white", [True, False])
def test_labels_are_resized_to_the_nearest_pixel(tmp_path: Path, mode: str, white: bool) -> None:
    """No class is invented and no edge eroded; only pure white is change."""
    values = np.random.default_rng(0).choice([0, 3, 254, 255], (30, 20)).astype(np.uint8)
    picture = Image.fromarray(values)
    if mode == "P":
        picture.putpalette([255 - i // 3 for i in range(768)])
    (picture.convert("RGB") if mode == "RGB" else picture).save(tmp_path / "l.png")
    for size in ((20, 30), (7, 9), (50, 41)):
        found = read_label(Sample("x", (), tmp_path / "l.png"), size, white_is_change=white)
        expected = np.asarray(
            Image.fromarray(values // 255 if white else values).resize(size, Image.Resampling.NEAREST)
        )
        np.testing.assert_array_equal(found, expected)


def test_class_maps_take_the_lowest_class_among_ties() -> None:
    logits = np.random.default_rng(0).integers(0, 3, (4, 5, 6, 7)).astype(np.float32)
    expected = logits.argmax(axis=1)
    for found, wanted in zip(class_maps({"output": logits}, []), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert class_maps({"output": logits[:0]}, []) == []
    logits[2, 1, 0, 0] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        class_maps({"output": logits}, [])


def test_outputs_are_found_by_name_else_by_position() -> None:
    def info(name: str, *shape: int | None) -> TensorInfo:
        return TensorInfo(name, (None, *shape), np.dtype(np.float32))

    images = [info("input1", 3, 8, 8), info("input0", 3, 8, 8)]
    maps = [info("output_final", 2, 8, 8), info("output0", 2, 4, 4)]
    ports = bind(images, maps)
    assert (ports.outputs["output"].name, ports.inputs["before"].name) == ("output_final", "input0")
    assert bind(images, [info("x", 2, 4, 4), info("y", 2, 8, 8)]).outputs["output"].name == "y"
    pair = [info("a", 3, 8, 8), info("b", 4, 3, 8, 8)]
    assert bind(pair, [info("x", 2)]).inputs["golden"].name == "b"
    assert bind([info("a", 3, 8, 8), info("b", 3, 8, 8)], [info("x")]).inputs["unit"].name == "a"
    for wrong in ([info("a", 3, 8, 8)], [info("a", 1, 8, 8), info("b", 1, 8, 8)]):
        with pytest.raises(ModelError):
            bind(wrong, [info("x", 2)])
    with pytest.raises(ModelError, match="neither"):
        bind(pair, [info("x", 2, 3)])


def test_bad_input_of_task_segment(shell: Shell, tmp_path: Path) -> None:
    scenes = Scenes(tmp_path)
    spec = write_spec(tmp_path / "s.yaml", scenes.tree(scenes.model()))
    base = ("visual_changenet", "evaluate", "-e", spec)
    prefix = "dataset.segment."
    for override, code, message in (
        (f"{prefix}num_classes=3", 1, "the model has 2 classes, num_classes is 3"),
        (f"{prefix}img_size=256", 1, "24 x 24 pixels, img_size is 256"),
        (f"{prefix}test_split=none", 1, "none.txt"),
        (f"{prefix}image_folder_name=C", 1, "no such folder of pictures"),
        (f"{prefix}root_dir=null", 2, "root_dir"),
        (f"{prefix}label_suffix=.gif", 1, "no label file"),
        (f"{prefix}label_transform=nrom", 2, "label_transform"),
        (f"{prefix}color_map={{0:[1,2,3]}}", 2, "color_map must name the classes 0 to 1"),
        ("task=detect", 2, "task"),
        ("task=classify", 2, "test_dataset.csv_path"),
    ):
        assert message in shell.refused(code, *base, override), override
    (tmp_path / "list/test.txt").write_text("2.png")  # one line is a list too
    assert shell(*base) == 0, shell.err
    assert scenes.results()["images_evaluated"] == 1
    (tmp_path / "list/test.txt").write_text("\n".join(scenes.names))
    (tmp_path / "label/0.png").unlink()
    (tmp_path / "B/2.png").write_bytes(b"no picture")
    assert shell(*base) == 0, shell.err
    assert (scenes.results()["images_evaluated"], scenes.results()["images_skipped"]) == (3, 1)
    assert "1 pair skipped, it has no label file" in shell.out
    assert f"{tmp_path}/B/2.png: cannot decode" in shell.out
    assert "no label file" in shell.refused(1, *base, "strict=true")
    Image.new("L", (SIDE, SIDE)).save(tmp_path / "label/0.png")
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "B/2.png")
    (tmp_path / "label/1.png").write_bytes(b"no picture")
    for visualize in ("true", "false"):
        assert shell(*base, f"evaluate.visualize={visualize}") == 0, shell.err
        assert (scenes.results()["images_evaluated"], scenes.results()["images_skipped"]) == (4, 1)
        assert f"skipped: {tmp_path}/A/1.jpg: {tmp_path}/label/1.png: cannot decode mask" in shell.out
    assert "cannot decode mask" in shell.refused(1, *base, "strict=true")
    # labels that are no class: told, and an error where nothing is left
    for name in scenes.names:
        Image.new("L", (SIDE, SIDE), 9).save((tmp_path / "label" / name).with_suffix(".png"))
    assert "not one of 2880 label pixels is a class" in shell.refused(1, *base, f"{prefix}label_transform=null")


def build(tmp_path: Path, tree: dict[str, Any], **calibration: Any) -> Path:
    tree["gen_trt_engine"] = {
        "onnx_file": str(tmp_path / "model.onnx"),
        "trt_engine": str(tmp_path / "e.engine"),
        "tensorrt": {
            "data_type": "int8",
            "calibration": {"cal_batch_size": 2, "cal_batches": 2, "method": "minmax", **calibration},
        },
    }
    return write_spec(tmp_path / "s.yaml", tree)


@pytest.mark.parametrize("source", ["cal_image_dir", "list"])
def test_int8_of_task_segment_calibrates_both_inputs(shell: Shell, tmp_path: Path, source: str) -> None:
    scenes = Scenes(tmp_path)
    tree = scenes.tree(scenes.model())
    folders = {}
    if source == "cal_image_dir":  # the two folders, as single-input networks name theirs
        tree["dataset"] = {}
        folders = {"cal_image_dir": [str(tmp_path / "A"), str(tmp_path / "B")]}
    spec = build(tmp_path, tree, **folders)
    assert shell("visual_changenet", "gen_trt_engine", "-e", spec) == 0, shell.out + shell.err
    model = onnx.load(next(tmp_path.glob("e.engine*.onnx")))
    values = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    scales = [float(values[n.input[1]].max()) for n in model.graph.node if n.op_type == "QuantizeLinear"]
    # after - before reaches 2 * 100 / 255; with one picture fed twice, or zeros, it would not
    assert any(scale == pytest.approx(2 * LEVELS[1] / 255 / 127, rel=0.02) for scale in scales), scales
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    refused = ("visual_changenet", "gen_trt_engine", "-e", build(tmp_path, tree, cal_image_dir=str(empty)))
    assert "no folders A and B here" in shell.refused(1, *refused)


def test_int8_of_task_classify_calibrates_on_pairs(shell: Shell, tmp_path: Path) -> None:
    units = Units(tmp_path)
    spec = build(tmp_path, units.tree(difference(tmp_path / "model.onnx", "euclidean", (10, 6))))
    shell("visual_changenet", "gen_trt_engine", "-e", spec)  # nothing in this model can be quantized
    assert "Calibration pairs: 6 of dataset.classify.infer_dataset" in shell.out


class Units:
    """One-coloured units and golden images in per-type folders."""

    def __init__(self, root: Path, golden: int = 1, count: int = 6) -> None:
        self.root, self.golden = root, golden
        random = np.random.default_rng(3)
        self.unit = random.integers(0, 256, (count, 3))
        self.reference = np.clip(self.unit + random.integers(-60, 60, self.unit.shape), 0, 255)
        rows = ["input_path,golden_path,object_name,label"]
        for i in range(count):
            paint(root / f"images/units/{i}.png", self.unit[i])
            for g in range(golden):  # of one type all are alike, so that any choice gives the same answer
                name = i if golden == 1 else f"g{g}"
                paint(root / f"images/type{i}/{name}.png", self.reference[i])
            rows.append(f"units,type{i},{i},{'PASS' if i % 2 else 'no'}")
        (root / "t.csv").write_text("\n".join(rows))

    def tree(self, model: Path, module: str = "euclidean") -> dict[str, Any]:
        source = {"csv_path": str(self.root / "t.csv"), "images_dir": str(self.root / "images")}
        return {
            "results_dir": str(self.root / "out"),
            "task": "classify",
            "model": {"classify": {"difference_module": module, "eval_margin": 0.9}},
            "dataset": {
                "classify": {
                    "infer_dataset": source,
                    "image_ext": ".png",
                    "image_width": 10,
                    "image_height": 6,
                    "num_golden": self.golden,
                    "batch_size": 4,
                }
            },
            "evaluate": {"trt_engine": str(model)},
            "inference": {"trt_engine": str(model)},
        }

    def distances(self) -> NDArray[np.float64]:
        apart = np.array([normalized(u) - normalized(g) for u, g in zip(self.unit, self.reference, strict=True)])
        return np.asarray(np.sqrt(np.square(apart).sum(axis=1)))


@pytest.mark.parametrize(("module", "golden"), [("euclidean", 1), ("learnable", 1), ("learnable", 3)])
def test_classify_scores_and_reports(shell: Shell, tmp_path: Path, module: str, golden: int) -> None:
    units = Units(tmp_path, golden)
    model = difference(tmp_path / "model.onnx", module, (10, 6), golden)
    spec = write_spec(tmp_path / "s.yaml", units.tree(model, module))
    expected = units.distances()
    if module == "learnable":
        expected = 1 / (1 + np.exp(-4 * expected))
    for action in ("inference", "evaluate"):
        assert shell("visual_changenet", action, "-e", spec) == 0, shell.err
        with (tmp_path / f"out/trt_{action}/{action}.csv").open(newline="") as file:
            scores = [float(row["output_score"]) for row in csv.DictReader(file)]  # plain numbers, no brackets
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
    results = json.loads((tmp_path / "out/trt_evaluate/results.json").read_text())
    truth = np.arange(6) % 2 == 0
    assert results["total_accuracy"] == pytest.approx(100 * np.mean((expected > 0.9) == truth))
    unset = write_spec(tmp_path / "u.yaml", {key: value for key, value in units.tree(model).items() if key != "task"})
    assert "Set task: classify" in shell.refused(2, "visual_changenet", "evaluate", "-e", unset)
    other = "learnable" if module == "euclidean" else "euclidean"
    override = f"model.classify.difference_module={other}"
    code = 2 if golden > 1 else 1  # a distance is to one golden image
    assert other in shell.refused(code, "visual_changenet", "evaluate", "-e", spec, override)
    task = shell.refused(
        1, "visual_changenet", "inference", "-e", spec, "task=segment", f"dataset.segment.root_dir={tmp_path}"
    )
    assert "list" in task


@pytest.mark.parametrize(("count", "golden"), [(1, 3), (3, 1)])
def test_a_model_of_another_number_of_golden_images_is_refused(
    shell: Shell, tmp_path: Path, count: int, golden: int
) -> None:
    """A model of one golden image, fed with the last of three, gave a score."""
    model = difference(tmp_path / "model.onnx", "learnable", (10, 6), count)
    spec = write_spec(tmp_path / "s.yaml", Units(tmp_path, golden).tree(model, "learnable"))
    message = shell.refused(1, "visual_changenet", "inference", "-e", spec)
    assert "number of images" in message
    assert f"({golden}, 3, 6, 10)" in message


def test_golden_images_are_drawn_the_same_way_every_time(tmp_path: Path) -> None:
    for name in ("light_1", "light_2", "b", "c", "d"):
        for light in ("light", "dark"):
            paint(tmp_path / f"golden_light/{name}_{light}.png", [1, 2, 3])
    (tmp_path / "golden_light/notes.txt").write_text("")
    row = {"input_path": "u", "golden_path": "golden_light", "object_name": "x"}
    for count in (3, 5, 8):
        files = PairFiles(tmp_path, ".png", ("light", "dark"), count)
        found = files.of(row)
        assert found is not None
        assert found == files.of(row)
        assert len(found) == 2 + 2 * count
        assert all(path.is_file() for path in found[2:])  # only the trailing light is taken off the name
        assert len(set(found[2:])) == 2 * min(count, 5) or count == 8
    assert PairFiles(tmp_path, ".jpg", (), 2).of(row) is None


def test_large_backbones_get_a_larger_workspace() -> None:
    spec = load_spec(Spec, {"model": {"backbone": {"type": "vit_large_dinov2"}}})
    assert spec.gen_trt_engine.tensorrt.workspace_size == 20480
    assert load_spec(Spec, {}).gen_trt_engine.tensorrt.workspace_size == 1024
    assert load_spec(Spec, {}).gen_trt_engine.tensorrt.max_batch_size == 8


def test_batch_sizes() -> None:
    spec = load_spec(Spec, {"dataset": {"segment": {"batch_size": 3}}, "inference": {"batch_size": 5}})
    assert NETWORK.batch_size(spec, "evaluate") == 3
    assert NETWORK.batch_size(spec, "inference") == 5
    assert NETWORK.batch_size(load_spec(Spec, {"task": "classify"}), "evaluate") == 8
