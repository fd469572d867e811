"""custom_vision: exports of every form without a spec, pixels as they declare, zips read safely, plain decoders."""

from __future__ import annotations

import csv
import json
import math
import shutil
import stat
import struct
import tracemalloc
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import exports
import numpy as np
import onnx
import pytest
from actions.commands import Shell, write_spec
from cv.classification.replay_classifier import SIZES, probabilities, write_images
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nvidia_tao_deploy.cv.custom_vision import decode
from nvidia_tao_deploy.cv.custom_vision.decode import decode_boxes, decode_grid
from nvidia_tao_deploy.cv.custom_vision.spec import Spec
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.graph import archive
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec
from nvidia_tao_deploy.transforms.transform import Geometry

LABELS = ["zebra", "ant", "mole"]  # the export's order is not the alphabet's
TRUTH = [0, 1, 2, 1, 1, 0, 2, 2, 0, 1, 2]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


class Classes:
    """11 images in class folders, and scores for each."""

    def __init__(self, root: Path) -> None:
        self.root, self.images = root, root / "images"
        self.pixels = exports.class_images(self.images, LABELS, TRUTH)
        self.paths = sorted(self.images.rglob("*.png"))
        self.truth = [LABELS.index(path.parent.name) for path in self.paths]
        self.scores = probabilities(len(TRUTH), 3, 5)
        for row, label in list(zip(self.scores, self.truth, strict=True))[2:]:
            row[label] += 1
            row /= 2

    def export(self, form: exports.Form | None = None, features: Any = None, metadata: Any = None) -> Path:
        features = self.pixels[:, ::-1] if features is None else features
        return exports.write_model(self.root / "made.onnx", form or exports.scores(self.scores), features, metadata)

    def zip(self, **more: Any) -> Path:
        return exports.pack(self.root / "export.zip", self.export(**more), LABELS)

    def rows(self, folder: Path) -> list[tuple[str, str]]:
        with (folder / "result.csv").open(newline="") as file:
            return sorted((row[0], row[1]) for row in csv.reader(file))

    def expected(self) -> list[tuple[str, str]]:
        return [(str(p), LABELS[int(row.argmax())]) for p, row in zip(self.paths, self.scores, strict=True)]

    def accuracy(self) -> float:
        return float(np.mean(self.scores.argmax(axis=1) == self.truth))


@pytest.fixture
def classes(tmp_path: Path) -> Classes:
    return Classes(tmp_path)


def results(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return loaded


@pytest.mark.parametrize("form", ["model_output", "loss and classLabel"])
def test_a_zipped_classifier_runs_without_a_spec(shell: Shell, classes: Classes, form: str) -> None:
    made = exports.scores(classes.scores) if form == "model_output" else exports.dictionaries(classes.scores, LABELS)
    model, out = classes.zip(form=made), classes.root / "out"
    assert shell("custom_vision", "inference", "-m", model, "-i", classes.images, "-r", out) == 0, shell.err
    assert classes.rows(out) == classes.expected()
    assert shell("custom_vision", "evaluate", "-m", model, "-i", classes.images, "-r", out, "-b", 4) == 0, shell.err
    assert results(out)["top_k_accuracy"] == pytest.approx(classes.accuracy())
    assert "note" not in shell.out


def test_results_have_a_default_folder_and_one_image_is_enough(
    shell: Shell, classes: Classes, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classes.zip()
    monkeypatch.chdir(classes.root)
    assert shell("custom_vision", "inference", "-m", model, "-i", classes.paths[3]) == 0, shell.err
    assert classes.rows(classes.root / "results/custom_vision/trt_inference") == [classes.expected()[3]]


DECLARED = {
    ("Bgr8", "NominalRange_0_255"): lambda rgb: rgb[:, ::-1],
    ("Rgb8", "NominalRange_0_255"): lambda rgb: rgb,
    ("Rgb8", "Normalized_0_1"): lambda rgb: rgb / 255,
    ("Bgr8", "Normalized_1_1"): lambda rgb: rgb[:, ::-1] / 127.5 - 1,
    ("Bgr8", "NominalRange_16_235"): lambda rgb: 16 + rgb[:, ::-1] * 219 / 255,
    (): lambda rgb: rgb[:, ::-1],
}


@pytest.mark.parametrize("declared", DECLARED, ids=str)
def test_pixels_arrive_as_the_export_declares_them(shell: Shell, classes: Classes, declared: tuple[str, ...]) -> None:
    metadata = dict(zip(exports.METADATA, declared, strict=False))
    features = DECLARED[declared](classes.pixels.astype(np.float64))
    model = exports.write_model(
        classes.root / "model.onnx", exports.scores(classes.scores), features * exact(declared), metadata
    )
    if exact(declared) != 1:
        model = scaled(model)
    (classes.root / "labels.txt").write_text("\n".join(LABELS))
    out = classes.root / "out"
    assert shell("custom_vision", "inference", "-m", model, "-i", classes.images, "-r", out) == 0, shell.err
    assert classes.rows(out) == classes.expected()
    assert ("does not say how it takes pixels" in shell.out) == (not declared)


def exact(declared: tuple[str, ...]) -> float:
    """The replay tells images apart by distances on the scale 0..255; small ranges are brought there first."""
    return 255.0 if "Normalized" in "".join(declared) else 1.0


def scaled(model: Path) -> Path:
    import onnx
    from onnx import numpy_helper

    loaded = onnx.load(str(model))
    for tensor in loaded.graph.initializer:
        if tensor.name == "widen":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(255), "widen"))
    onnx.save(loaded, str(model))
    return model


def test_wrong_pixels_would_be_seen(shell: Shell, classes: Classes) -> None:
    model, out = classes.zip(), classes.root / "out"
    words = ("custom_vision", "evaluate", "-m", model, "-i", classes.images, "-r", out)
    assert shell(*words, "dataset.pixel_format=rgb") == 0
    assert results(out)["top_k_accuracy"] < classes.accuracy()
    assert shell(*words, "dataset.pixel_range=unit") == 0
    assert results(out)["top_k_accuracy"] < classes.accuracy()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engines_keep_what_the_export_says(shell: Shell, classes: Classes, precision: str) -> None:
    model = classes.zip(form=exports.dictionaries(classes.scores, LABELS), metadata={"Image.BitmapPixelFormat": "Rgb8"},
                        features=classes.pixels)  # fmt: skip
    build = classes.root / "build"
    words = ("--data_type", precision, "--cal_image_dir", classes.images, "--batches", 11, "--max_batch_size", 4)
    assert shell("custom_vision", "gen_trt_engine", "-m", model, *words, "-r", build) == 0, shell.err
    engine = build / f"model_{precision}.engine"
    manifest = json.loads(Path(f"{engine}.json").read_text())
    assert (manifest["labels"], manifest["transform"]["color"]) == (LABELS, "RGB")
    assert f"onnx_file={model}" in manifest["command"]
    assert " -e " not in manifest["command"]
    model.unlink()
    out = classes.root / "out"
    words = ("custom_vision", "evaluate", "-m", f"{engine}.onnx", "-i", classes.images, "-r", out)
    assert shell(*words) == 0, shell.err
    assert results(out)["top_k_accuracy"] == pytest.approx(classes.accuracy())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_float16_export_runs_and_is_built_in_every_precision(shell: Shell, classes: Classes, precision: str) -> None:
    half, out = TensorProto.FLOAT16, classes.root / "out"
    random = np.random.default_rng(4)
    kernels = [random.normal(0, 0.2, (16, channels, 3, 3)).astype(np.float16) for channels in (3, 16)]
    kernels.append((random.normal(0, 0.1, (3, 16, 1, 1))).astype(np.float16))
    weights = [numpy_helper.from_array(kernel, f"w{i}") for i, kernel in enumerate(kernels)]
    numbers = {"scale": np.float16(1 / 64), "middle": np.float16(2)}
    nodes = [helper.make_node("Constant", [], [k], value=numpy_helper.from_array(v)) for k, v in numbers.items()]
    nodes += [helper.make_node("Mul", ["data", "scale"], ["m"]), helper.make_node("Sub", ["m", "middle"], ["x0"])]
    nodes += [helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(3)]
    nodes += [helper.make_node("Cast", ["x3"], ["x4"], to=half), helper.make_node("GlobalAveragePool", ["x4"], ["p"])]
    nodes += [helper.make_node("Flatten", ["p"], ["f"]), helper.make_node("Softmax", ["f"], ["model_output"])]
    ends = [
        helper.make_tensor_value_info(*end)
        for end in (("data", half, ["N", 3, 8, 8]), ("model_output", half, ["N", 3]))
    ]
    model = helper.make_model(helper.make_graph(nodes, "half", ends[:1], ends[1:], weights), ir_version=8)
    model.opset_import[0].version = 13
    onnx.save(model, str(classes.root / "half.onnx"))
    made = exports.pack(classes.root / "half.zip", classes.root / "half.onnx", LABELS)
    assert shell("custom_vision", "inference", "-m", made, "-i", classes.images, "-r", out) == 0, shell.err
    wanted = classes.rows(out)
    assert len({label for _, label in wanted}) > 1
    build = ("-m", made, "--data_type", precision, "--cal_image_dir", classes.images, "--batches", 11, "-r", out)
    assert shell("custom_vision", "gen_trt_engine", *build) == 0, shell.err
    words = ("-m", out / f"model_{precision}.engine.onnx", "-i", classes.images, "-r", out)
    assert shell("custom_vision", "inference", *words) == 0, shell.err
    assert np.mean([row == other for row, other in zip(classes.rows(out), wanted, strict=True)]) > 0.8


def test_a_folder_and_a_spec_do_the_same(shell: Shell, classes: Classes) -> None:
    folder = classes.root / "export"
    folder.mkdir()
    shutil.move(classes.export(), folder / "model.onnx")
    (folder / "labels.txt").write_text("\n".join(LABELS))
    tree = {
        "results_dir": str(classes.root / "out"),
        "gen_trt_engine": {"onnx_file": str(folder)},
        "evaluate": {"trt_engine": str(folder), "image_dir": str(classes.images), "batch_size": 4},
        "inference": {"trt_engine": str(folder), "image_dir": str(classes.images)},
    }
    spec = write_spec(classes.root / "spec.yaml", tree)
    for action in ("evaluate", "inference", "gen_trt_engine"):
        assert shell("custom_vision", action, "-e", spec) == 0, shell.err
    assert results(classes.root / "out/trt_evaluate")["top_k_accuracy"] == pytest.approx(classes.accuracy())
    assert (classes.root / "out/gen_trt_engine/model_fp32.engine").is_file()
    tree["evaluate"]["imag_dir"] = "x"
    write_spec(spec, tree)
    assert "evaluate.image_dir" in shell.refused(2, "custom_vision", "evaluate", "-e", spec)


def test_labels_that_disagree_with_the_model(shell: Shell, classes: Classes) -> None:
    made, out = classes.export(), classes.root / "out"
    for labels in (LABELS[:2], [*LABELS, "extra"]):
        model = exports.pack(classes.root / "e.zip", made, labels)
        for words in (("inference", "-i", classes.images), ("gen_trt_engine",)):
            message = shell.refused(1, "custom_vision", words[0], "-m", model, *words[1:], "-r", out)
            assert f"the model has 3 classes, the data names {len(labels)}" in message
            assert "e.zip/labels.txt" in message
    assert not (out / "result.csv").exists()
    assert not list(out.glob("*.engine"))
    model = exports.pack(classes.root / "e.zip", made, None)
    assert shell("custom_vision", "inference", "-m", model, "-i", classes.images, "-r", out) == 0
    assert [row[1] for row in classes.rows(out)] == [str(int(row.argmax())) for row in classes.scores]
    message = shell.refused(2, "custom_vision", "evaluate", "-m", model, "-i", classes.images, "-r", out)
    assert "class names are not known" in message
    for labels, message in (([""], "class list is empty"), ([*LABELS[:2], "ant"], "stand more than once: ant")):
        model = exports.pack(classes.root / "e.zip", made, labels)
        assert message in shell.refused(1, "custom_vision", "evaluate", "-m", model, "-i", classes.images, "-r", out)
    model = exports.pack(classes.root / "e.zip", made, None)
    (classes.root / "own.txt").write_text("\n".join(LABELS))
    words = ("-m", model, "-i", classes.images, "-r", out, f"dataset.labels={classes.root / 'own.txt'}")
    assert shell("custom_vision", "evaluate", *words) == 0


# Zips.


def with_entry(archive_path: Path, model: Path, info: zipfile.ZipInfo, content: bytes) -> Path:
    exports.pack(archive_path, model, LABELS)
    with zipfile.ZipFile(archive_path, "a", zipfile.ZIP_DEFLATED) as target:
        target.writestr(info, content)
    return archive_path


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


ATTACKS = {
    "parent": (zipfile.ZipInfo("../outside.txt"), b"x", "leaves the archive"),
    "hidden parent": (zipfile.ZipInfo("a/../../outside.txt"), b"x", "leaves the archive"),
    "windows parent": (zipfile.ZipInfo("..\\outside.txt"), b"x", "leaves the archive"),
    "absolute": (zipfile.ZipInfo("/etc/outside.txt"), b"x", "leaves the archive"),
    "drive": (zipfile.ZipInfo("C:/outside.txt"), b"x", "leaves the archive"),
    "link": (link("more.txt"), b"/etc/passwd", "is a link"),
    "second model": (zipfile.ZipInfo("other/model.onnx"), b"x", "2 ONNX files"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_unsafe_archives_are_refused(shell: Shell, classes: Classes, attack: str) -> None:
    info, content, message = ATTACKS[attack]
    inside = classes.root / "inside"
    inside.mkdir()
    model = with_entry(inside / "evil.zip", classes.export(), info, content)
    said = shell.refused(1, "custom_vision", "inference", "-m", model, "-i", classes.images, "-r", inside / "out")
    assert message in said
    assert "evil.zip" in said
    assert [path.name for path in classes.root.rglob("outside.txt")] == []


def test_bombs_are_refused_by_ratio_size_and_count(
    shell: Shell, classes: Classes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = classes.export()
    bomb = zipfile.ZipInfo("zeros.bin")
    bomb.compress_type = zipfile.ZIP_DEFLATED
    model = with_entry(classes.root / "bomb.zip", made, bomb, bytes(4 * 2**20))
    words = ("custom_vision", "inference", "-m", model, "-i", classes.images, "-r", classes.root / "out")
    assert "'zeros.bin' unpacks to 4194304 bytes" in shell.refused(1, *words)
    monkeypatch.setattr(archive, "MAX_BYTES", 2000)
    assert "more than 2000" in shell.refused(1, *words)
    monkeypatch.setattr(archive, "MAX_ENTRIES", 2)
    assert "entries" in shell.refused(1, *words)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bomb_that_lies_about_its_size_takes_no_memory(tmp_path: Path, method: int) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", method) as target:
        target.writestr("model.onnx", bytes(2**26))
    content = bytearray(bomb.read_bytes())
    struct.pack_into("<I", content, content.rindex(b"PK\x01\x02") + 24, 900_000)  # the stated size
    bomb.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            archive.read_model(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_broken_archives_say_so(shell: Shell, classes: Classes) -> None:
    model = classes.zip()
    whole = model.read_bytes()
    words = ("-m", model, "-i", classes.images, "-r", classes.root / "out")
    model.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in shell.refused(1, "custom_vision", "inference", *words)
    flipped = bytearray(whole)
    flipped[200] ^= 0xFF
    model.write_bytes(bytes(flipped))
    assert "zip archive cannot be read" in shell.refused(1, "custom_vision", "inference", *words)
    with zipfile.ZipFile(model, "w") as target:
        target.writestr("model.pb", b"x")
    assert "no ONNX file" in shell.refused(1, "custom_vision", "inference", *words)
    (classes.root / "no.zip").unlink(missing_ok=True)
    words = ("-m", classes.root / "no.zip", *words[2:])
    assert "no such model file" in shell.refused(1, "custom_vision", "inference", *words)


# Detectors.


def plain_grid(cells: NDArray[Any]) -> list[tuple[float, int, list[float]]]:
    """One image (5 * (5 + C), H, W): (score, class, box in shares), best first, by loops."""
    anchors = [(0.573, 0.677), (1.87, 2.06), (3.34, 5.47), (7.88, 3.53), (9.77, 9.17)]
    channels, height, width = cells.shape
    per = channels // 5
    rows = []
    for y in range(height):
        for x in range(width):
            for a, (aw, ah) in enumerate(anchors):
                v = [float(cells[a * per + k, y, x]) for k in range(per)]
                cx, cy = ((cell + 1 / (1 + math.exp(-t))) / n for cell, t, n in ((x, v[0], width), (y, v[1], height)))
                w, h = math.exp(v[2]) * aw / width, math.exp(v[3]) * ah / height
                top = max(v[5:])
                odds = [math.exp(value - top) for value in v[5:]]
                best = max(range(len(odds)), key=lambda i: odds[i])
                score = odds[best] / sum(odds) / (1 + math.exp(-v[4]))
                if score > 0.01:
                    rows.append((score, best, [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]))
    rows.sort(key=lambda row: -row[0])
    kept: list[tuple[float, int, list[float]]] = []
    for row in rows:
        if all(plain_iou(row[2], other[2]) <= 0.45 for other in kept) and len(kept) < 64:
            kept.append(row)
    return kept


def plain_iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def geometry(width: int, height: int) -> Geometry:
    return Geometry((width, height), (416, 416), (416 / width, 416 / height))


@pytest.mark.parametrize("size", [(13, 13), (3, 5)])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_grid_decode_equals_a_plain_one(size: tuple[int, int], spread: float) -> None:
    rng = np.random.default_rng(int(spread * 10) + size[0])
    cells = rng.normal(0, spread, (3, 5 * (5 + 4), *size)).astype(np.float32)
    cells[:, 4::9] -= spread
    cells[1, 9:18] = cells[1, :9]  # ties
    cells[2, 4::9] = -20  # nothing found
    shapes = [(640, 480), (100, 300), (13, 7)]
    found = decode_grid(cells, [geometry(*shape) for shape in shapes])
    assert len(found[2]) == 0
    assert len(found[0]) > 5
    for image, (rows, (width, height)) in enumerate(zip(found, shapes, strict=True)):
        wanted = plain_grid(cells[image])
        assert rows.class_ids.tolist() == [row[1] for row in wanted]
        np.testing.assert_allclose(rows.scores, [row[0] for row in wanted], rtol=1e-9)
        boxes = np.array([row[2] for row in wanted]).reshape(-1, 4) * [width, height, width, height]
        np.testing.assert_allclose(rows.boxes_xyxy, boxes.clip(0, [width, height] * 2), atol=1e-6)


def test_box_decode_sorts_places_and_cuts() -> None:
    boxes = np.array([[[0, 0, 0.5, 1], [0.25, 0.5, 2, 0.75], [0, 0, 1, 1], [0.1, 0.1, 0.2, 0.2]]], np.float32)
    scores, classes = np.array([[0.2, 0.9, 0.01, 0.9]], np.float32), np.array([[1.0, 0.0, 2.0, 2.0]], np.float32)
    (found,) = decode_boxes(boxes, scores, classes, [geometry(200, 100)])
    assert found.class_ids.tolist() == [0, 2, 1]
    np.testing.assert_allclose(found.boxes_xyxy, [[50, 50, 200, 75], [20, 10, 40, 20], [0, 0, 100, 100]], atol=1e-5)
    (none,) = decode_boxes(boxes[:, :0], scores[:, :0], classes[:, :0], [geometry(200, 100)])
    assert len(none) == 0


class Scenes:
    """7 images whose model finds random boxes, with annotations near some of them; categories in another order."""

    def __init__(self, root: Path, form: str) -> None:
        self.root, self.images = root, root / "images"
        self.names = [f"{i:02d}.png" for i in range(7)]
        self.pixels = write_images(self.images, self.names)
        rng = np.random.default_rng(11)
        if form == "grid":
            cells = rng.normal(0, 1.0, (7, 5 * (5 + 3), 4, 3)).astype(np.float32)
            cells[:, 4::8] -= 3
            made, self.found = exports.grid(cells), [plain_grid(image) for image in cells]
        else:
            corners = np.sort(rng.random((7, 9, 2, 2)), axis=2).reshape(7, 9, 4).astype(np.float32)
            scores = np.sort(rng.random((7, 9)).astype(np.float32))[:, ::-1]
            classes = rng.integers(0, 3, (7, 9))
            made = exports.boxes(corners, scores, classes)
            self.found = [
                [(float(s), int(c), b.tolist()) for s, c, b in zip(scores[i], classes[i], corners[i], strict=True)]
                for i in range(7)
            ]
        model = exports.write_model(root / "made.onnx", made, self.pixels[:, ::-1])
        self.zip = exports.pack(root / "export.zip", model, LABELS)
        self.category = {"ant": 3, "zebra": 7, "mole": 20, "unseen": 21}
        self.json = root / "truth.json"
        self.json.write_text(json.dumps(self.truth()))

    def placed(self, image: int) -> list[tuple[float, int, list[float]]]:
        width, height = SIZES[image % len(SIZES)]
        limits = [width, height, width, height]
        return [
            (score, label, [min(max(v * limit, 0), limit) for v, limit in zip(box, limits, strict=True)])
            for score, label, box in self.found[image]
        ]

    def truth(self) -> dict[str, Any]:
        images, annotations = [], []
        for i, name in enumerate(self.names):
            width, height = SIZES[i % len(SIZES)]
            images.append({"id": i + 1, "file_name": name, "width": width, "height": height})
            for j, (_, label, (x1, y1, x2, y2)) in enumerate(self.placed(i)[:4]):
                shift = 0.1 * j * (x2 - x1)
                box = [x1 + shift, y1, x2 - x1, y2 - y1]
                annotations.append(
                    {
                        "id": len(annotations) + 1, "image_id": i + 1, "category_id": self.category[LABELS[label]],
                        "bbox": box, "area": box[2] * box[3], "iscrowd": 0,
                    }
                )  # fmt: skip
        categories = [{"id": number, "name": name} for name, number in self.category.items()]
        return {"images": images, "annotations": annotations, "categories": categories}

    def expected_ap(self) -> float:
        truth = COCO(str(self.json))
        rows = [
            {
                "image_id": i + 1, "category_id": self.category[LABELS[label]], "score": score,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            }
            for i in range(7) for score, label, (x1, y1, x2, y2) in self.placed(i)
        ]  # fmt: skip
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return float(evaluation.stats[0])


@pytest.mark.parametrize("form", ["grid", "boxes"])
def test_detectors_of_both_forms(shell: Shell, tmp_path: Path, form: str) -> None:
    scenes, out = Scenes(tmp_path, form), tmp_path / "out"
    words = ("custom_vision", "evaluate", "-m", scenes.zip, "-i", scenes.images, "-l", scenes.json, "-r", out)
    assert shell(*words, "-b", 3) == 0, shell.err
    assert "no class for these categories, their objects count as missed: unseen" in shell.out
    wanted = scenes.expected_ap()
    assert 0.2 < wanted < 0.99
    assert results(out)["AP"] == pytest.approx(wanted, abs=1e-4)
    assert shell("custom_vision", "inference", "-m", scenes.zip, "-i", scenes.images, "-t", 0.3, "-r", out) == 0
    for i, name in enumerate(scenes.names):
        lines = (out / "labels" / name).with_suffix(".txt").read_text().splitlines()
        rows = [line.split() for line in lines]
        wanted_rows = [row for row in scenes.placed(i) if row[0] >= 0.3]
        assert [row[0] for row in rows] == [LABELS[label] for _, label, _ in wanted_rows]
        np.testing.assert_allclose(
            np.array([[float(v) for v in row[4:8]] for row in rows]).reshape(-1, 4),
            np.array([box for _, _, box in wanted_rows]).reshape(-1, 4),
            atol=0.01,
        )
        assert (out / "images_annotated" / name).is_file()


@pytest.mark.parametrize("form", ["grid", "boxes"])
def test_detectors_as_engines(shell: Shell, tmp_path: Path, form: str) -> None:
    scenes, out = Scenes(tmp_path, form), tmp_path / "out"
    assert shell("custom_vision", "gen_trt_engine", "-m", scenes.zip, "--data_type", "fp16", "-r", out) == 0, shell.err
    prepared = out / "model_fp16.engine.onnx"
    words = ("-i", scenes.images, "-l", scenes.json, "-r", out)
    assert shell("custom_vision", "evaluate", "-m", prepared, *words) == 0, shell.err
    assert results(out)["AP"] == pytest.approx(scenes.expected_ap(), abs=0.05)


def test_the_kind_of_data_must_fit_the_kind_of_model(shell: Shell, tmp_path: Path) -> None:
    scenes = Scenes(tmp_path / "d", "boxes") if (tmp_path / "d").mkdir() is None else None
    (tmp_path / "c").mkdir()
    classes = Classes(tmp_path / "c")
    assert scenes is not None
    out = tmp_path / "out"
    words = ("custom_vision", "evaluate", "-m", classes.zip(), "-i", scenes.images, "-l", scenes.json, "-r", out)
    assert "the model is a classifier" in shell.refused(2, *words)
    words = ("custom_vision", "evaluate", "-m", scenes.zip, "-i", classes.images, "-r", out)
    assert "the model is a detector" in shell.refused(2, *words)
    words = ("custom_vision", "evaluate", "-m", scenes.zip, "-i", scenes.images, "-r", out)
    assert "A detector needs COCO annotations" in shell.refused(1, *words)


def test_a_command_without_a_model_or_images_asks_for_its_flag(shell: Shell, classes: Classes) -> None:
    out = ("-r", classes.root / "out")
    for words, flag in (
        (("gen_trt_engine",), "Give -m"),
        (("inference", "-i", classes.images), "Give -m"),
        (("inference", "-m", classes.zip()), "Give -i"),
        (
            ("inference", "-m", classes.images, "-i", classes.images),
            "-m/--model_path: inference.trt_engine is a folder with 0 ONNX files",
        ),
    ):
        assert flag in shell.refused(2, "custom_vision", *words, *out)


def test_other_models_are_told_from_exports(shell: Shell, classes: Classes) -> None:
    for form, message in (
        *((exports.grid(np.zeros((11, n, 2, 2), np.float32)), "no grid of 5 anchors") for n in (24, 25, 31)),
        (exports.Form({"a": classes.scores, "b": classes.scores}, {"a": (3,), "b": (3,)}), "detected_boxes"),
    ):
        model = classes.zip(form=form)
        words = ("custom_vision", "inference", "-m", model, "-i", classes.images, "-r", classes.root / "out")
        assert message in shell.refused(1, *words)


@pytest.mark.parametrize("highest", [1, 2])
def test_a_class_without_a_name_is_refused(tmp_path: Path, highest: int) -> None:
    (tmp_path / "labels.txt").write_text("ant\nbee\n")
    ports = Ports({}, {name: TensorInfo(name, shape, np.dtype(np.float32)) for name, shape in (
        ("detected_boxes", (None, 2, 4)), ("detected_scores", (None, 2)), ("detected_classes", (None, 2)))},
        tmp_path / "model.onnx")  # fmt: skip
    run = decode(load_spec(Spec, {"dataset": {"labels": str(tmp_path / "labels.txt")}}), ports, "inference")
    outputs = {"detected_boxes": np.zeros((1, 2, 4)), "detected_scores": np.full((1, 2), 0.9),
               "detected_classes": np.array([[0, highest]])}  # fmt: skip
    with nullcontext() if highest < 2 else pytest.raises(ModelError, match="class 2, 2 are named"):
        assert run(outputs, [Geometry((4, 4), (4, 4), (1, 1))])[0].class_ids.tolist() == [0, highest]
