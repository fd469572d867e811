"""ml_recog: retrieval against scikit-learn, and the commands on a model that knows its images."""

from __future__ import annotations

import csv
import json
from ast import literal_eval
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell, status, write_spec
from cv.classification.replay_classifier import write_images, write_replay
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, confusion_matrix
from sklearn.neighbors import NearestNeighbors

from nvidia_tao_deploy.metrics import retrieval
from nvidia_tao_deploy.metrics.retrieval import mean_class_hit_rate, nearest, normalize_rows
from nvidia_tao_deploy.transforms.resize import resize as resize_to

MEAN, STD = np.array([0.485, 0.456, 0.406]), 0.226


@pytest.mark.parametrize(("gallery", "queries", "width", "k"), [(1, 1, 4, 1), (7, 3, 5, 7), (3000, 70, 32, 10)])
def test_neighbours_are_those_of_scikit_learn(
    gallery: int, queries: int, width: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "BLOCK", gallery * 16)  # several blocks
    monkeypatch.setattr(retrieval, "PAIRS", 64)
    random = np.random.default_rng(gallery)
    rows = random.normal(size=(gallery, width)).astype(np.float32)
    wanted = random.normal(size=(queries, width)).astype(np.float32)
    for left, right in ((rows, wanted), (normalize_rows(rows), normalize_rows(wanted))):
        found, squared = nearest(left, right, k)
        index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(left.astype(np.float64))
        distances, expected = index.kneighbors(right.astype(np.float64))
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(squared, distances**2, rtol=1e-9, atol=1e-12)


def test_close_neighbours_that_float32_cannot_tell_apart() -> None:
    """Neighbours differ by less than the rounding of a float32 product; double precision ranks them."""
    random = np.random.default_rng(0)
    query = normalize_rows(random.normal(size=(1, 256)))
    rows = np.repeat(query, 5000, axis=0)
    rows += random.normal(size=rows.shape).astype(np.float32) * 1e-5
    found, _ = nearest(rows, query, 20)
    exact = np.square(rows.astype(np.float64) - query).sum(axis=1)
    np.testing.assert_array_equal(found[0], np.argsort(exact, kind="stable")[:20])


def test_a_gallery_of_few_distinct_rows_takes_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead model gives one embedding for everything."""
    random = np.random.default_rng(6)
    distinct = random.normal(size=(3, 8)).astype(np.float32)
    gallery, queries = distinct[random.integers(0, 3, 3000)], random.normal(size=(40, 8)).astype(np.float32)
    pairs: list[int] = []
    plain = retrieval._squared_distances
    monkeypatch.setattr(
        retrieval, "_squared_distances", lambda q, g, rows, cols: (pairs.append(len(rows)), plain(q, g, rows, cols))[1]
    )
    indices, squared = nearest(gallery, queries, 4)
    apart = np.square(queries[:, None].astype(np.float64) - gallery[None]).sum(axis=2)
    np.testing.assert_array_equal(indices, np.argsort(apart, axis=1, kind="stable")[:, :4])
    np.testing.assert_allclose(squared, np.take_along_axis(apart, indices, axis=1))
    assert sum(pairs) <= 40 * 3 * 4


def test_among_equal_distances_the_lower_index_comes_first_and_zero_rows_stay() -> None:
    rows = np.array([[0, 1], [1, 0], [0, 0], [1, 0], [0, 1], [1, 0]], np.float32)
    found, squared = nearest(normalize_rows(rows * 3), np.array([[1, 0], [0, 0]], np.float32), 4)
    assert found.tolist() == [[1, 3, 5, 2], [2, 0, 1, 3]]
    assert squared[0].tolist() == [0, 0, 0, 1]
    many = np.tile(np.array([[1, 0]], np.float32), (3000, 1))
    assert nearest(many, many[:1], 5)[0].tolist() == [[0, 1, 2, 3, 4]]


def test_hit_rate_is_the_mean_over_the_classes_present() -> None:
    random = np.random.default_rng(1)
    classes = [0, 2, 5]
    truth, found = random.choice(classes, 200, p=[0.7, 0.2, 0.1]), random.choice(classes, (200, 1))
    assert mean_class_hit_rate(found, truth) == pytest.approx(balanced_accuracy_score(truth, found[:, 0]))
    several = random.choice(6, (200, 3))
    plain = [np.mean([c in row for row in several[truth == c].tolist()]) for c in classes]
    assert mean_class_hit_rate(several, truth) == pytest.approx(np.mean(plain))


@pytest.mark.parametrize(("width", "height"), [(224, 224), (37, 51), (39, 41), (30, 16)])
def test_the_crop_has_the_input_size_whatever_its_parity(width: int, height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    wide, high = int(width * 1.14), int(height * 1.14)
    resized = np.asarray(Image.fromarray(pixels).resize((wide, high), Image.Resampling.BILINEAR))
    left, top = round((wide - width) / 2), round((high - height) / 2)
    found = resize_to(pixels, (width, height), "enlarge_crop").pixels
    np.testing.assert_array_equal(found, resized[top : top + height, left : left + width])
    assert found.shape == (height, width, 3)
    if width == 224:
        assert (wide, left) == (255, 16)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


class Data:
    """A gallery of 3 classes and queries of 2 of them, embeddings for every image in path order."""

    def __init__(self, root: Path, seed: int = 0) -> None:
        self.root, self.reference, self.query = root, root / "reference", root / "query"
        self.classes = ["ant", "bee", "cow"]
        self.gallery = sorted(f"reference/{self.classes[i % 3]}/{i:02d}.png" for i in range(11))
        self.queries = sorted(f"query/{self.classes[i % 2]}/{i:02d}.png" for i in range(9))
        names = self.gallery + self.queries
        self.colors = write_images(root, names)
        self.labels = np.array([self.classes.index(name.split("/")[1]) for name in names])
        random = np.random.default_rng(seed)
        self.embeddings = random.normal(size=(len(names), 8)).astype(np.float32) * random.uniform(
            0.2, 5, (len(names), 1)
        )
        self.embeddings += np.eye(3, 8)[self.labels] * 2

    def model(self, **more: Any) -> Path:
        features = (self.colors / 255 - MEAN) / STD
        tables = {"fc_pred": self.embeddings}
        return write_replay(self.root / "model.onnx", features, tables, input_name="input", **more)

    def tree(self, model: Path, k: int = 3) -> dict[str, Any]:
        action = {"trt_engine": str(model), "batch_size": 4, "topk": k}
        return {
            "results_dir": str(self.root / "out"),
            "dataset": {"val_dataset": {"reference": str(self.reference), "query": str(self.query)}},
            "evaluate": action,
            "inference": {**action, "input_path": str(self.query)},
        }

    def expected(self, k: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Labels and squared distances of the neighbours, by scikit-learn."""
        rows = self.embeddings.astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        count = len(self.gallery)
        distances, found = NearestNeighbors(n_neighbors=k).fit(rows[:count]).kneighbors(rows[count:])
        return self.labels[found], distances**2

    def rows(self) -> list[list[str]]:
        with (self.root / "out/trt_inference/trt_result.csv").open(newline="") as file:
            return list(csv.reader(file))


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


@pytest.mark.parametrize("batch", ["N", 4])
def test_evaluate_gives_the_numbers_of_scikit_learn(shell: Shell, data: Data, batch: int | str) -> None:
    spec = write_spec(data.root / "s.yaml", data.tree(data.model(batch=batch)))
    assert shell("ml_recog", "evaluate", "-e", spec) == 0, shell.err
    folder = data.root / "out/trt_evaluate"
    results = json.loads((folder / "results.json").read_text())
    found, _ = data.expected(3)
    truth = data.labels[len(data.gallery) :]
    per_class = [np.mean((found[truth == c] == c).any(axis=1)) for c in (0, 1)]  # class cow has no query
    assert list(results)[:2] == ["top_k_accuracy", "top_1_accuracy"]
    assert results["top_k_accuracy"] == pytest.approx(np.mean(per_class))
    assert results["top_1_accuracy"] == pytest.approx(np.mean([np.mean(found[truth == c, 0] == c) for c in (0, 1)]))
    assert 0 < results["top_1_accuracy"] < results["top_k_accuracy"]
    assert (results["gallery_images"], results["query_images"]) == (11, 9)
    assert str(confusion_matrix(truth, found[:, 0], labels=range(3))) in shell.out
    assert "1 class has no image: cow" in shell.out
    assert status(folder)[-1]["kpi"]["top_1_accuracy"] == results["top_1_accuracy"]


def test_inference_table(shell: Shell, data: Data) -> None:
    spec = write_spec(data.root / "s.yaml", data.tree(data.model()))
    assert shell("ml_recog", "inference", "-e", spec) == 0, shell.err
    found, squared = data.expected(3)
    assert [row[0] for row in data.rows()] == [str(data.root / name) for name in data.queries]
    for row, labels, distances in zip(data.rows(), found, squared, strict=True):
        assert row[1] == str([data.classes[i] for i in labels])
        np.testing.assert_allclose(literal_eval(row[2]), distances, atol=6e-5)
        assert all(value == round(value, 4) for value in literal_eval(row[2]))
    # No query folder is needed, one neighbour is a list too, and one file alone is enough.
    one = data.root / data.queries[4]
    words = ("dataset.val_dataset.query=null", f"inference.input_path={one}", "inference.topk=1")
    assert shell("ml_recog", "inference", "-e", spec, *words, "inference.inference_input_type=image") == 0, shell.err
    assert [row[:2] for row in data.rows()] == [[str(one), str([data.classes[found[4, 0]]])]]
    # image_folder takes the top level only.
    message = shell.refused(
        1, "ml_recog", "inference", "-e", spec, "inference.inference_input_type=image_folder", "inference.topk=1"
    )
    assert "no image in this folder" in message


def test_class_maps(shell: Shell, data: Data) -> None:
    """A YAML mapping renames; a text file orders; stray files shift nothing."""
    (data.reference / "aaa.txt").write_text("")
    (data.reference / ".hidden").mkdir()
    spec = write_spec(data.root / "s.yaml", data.tree(data.model(), k=1))
    found, _ = data.expected(1)
    maps = {"map.yaml": "cow: Kuh\nbee: Biene\n", "list.txt": "cow\nbee\nant\n"}
    shown = {"map.yaml": ["ant", "Biene", "Kuh"], "list.txt": data.classes}
    for name, text in maps.items():
        (data.root / name).write_text(text)
        assert shell("ml_recog", "inference", "-e", spec, f"dataset.class_map={data.root / name}") == 0, shell.err
        assert [row[1] for row in data.rows()] == [str([shown[name][label]]) for label in found[:, 0]]
        assert shell("ml_recog", "evaluate", "-e", spec, f"dataset.class_map={data.root / name}") == 0, shell.err
    (data.root / "other.yaml").write_text("x: y\n")
    message = shell.refused(1, "ml_recog", "evaluate", "-e", spec, f"dataset.class_map={data.root / 'other.yaml'}")
    assert "names none of the gallery's folders" in message


def test_the_last_gallery_image_counts(shell: Shell, data: Data) -> None:
    """11 gallery images in batches of 4: the established tool drops the last three, here one decides every answer."""
    data.embeddings[:] = np.eye(8)[0]
    data.embeddings[10] = np.eye(8)[1]
    data.embeddings[11:] = np.eye(8)[1]
    spec = write_spec(data.root / "s.yaml", data.tree(data.model(), k=1))
    assert shell("ml_recog", "inference", "-e", spec) == 0, shell.err
    assert {row[1] for row in data.rows()} == {"['cow']"}


def test_gallery_without_queries_and_queries_without_gallery(shell: Shell, data: Data) -> None:
    spec = write_spec(data.root / "s.yaml", data.tree(data.model()))
    empty = data.root / "empty"
    (empty / "ant").mkdir(parents=True)
    bare = data.root / "bare"
    bare.mkdir()
    for key, action, code in (("reference", "inference", 1), ("reference", "evaluate", 1), ("query", "evaluate", 1)):
        for folder, what in ((empty, "no image"), (bare, "class folder" if key == "reference" else "no image")):
            message = shell.refused(code, "ml_recog", action, "-e", spec, f"dataset.val_dataset.{key}={folder}")
            assert what in message
        assert "dataset.val_dataset" in shell.refused(
            2, "ml_recog", action, "-e", spec, f"dataset.val_dataset.{key}=null"
        )
    for topk in (12, 11):  # known at once, or when one image turns out to be none
        message = shell.refused(2, "ml_recog", "evaluate", "-e", spec, f"evaluate.topk={topk}")
        assert f"topk is {topk} and the gallery has {topk - 1} images" in message
        (data.root / data.gallery[0]).write_bytes(b"no image")
    for name in data.queries:
        (data.root / name).write_bytes(b"no image")
    assert "no readable query" in shell.refused(1, "ml_recog", "evaluate", "-e", spec)
    assert not (data.root / "out/trt_evaluate/results.json").exists()
    assert status(data.root / "out/trt_evaluate")[-1]["status"] == "FAILURE"


def test_an_unreadable_image_is_counted_and_another_size_refused(shell: Shell, data: Data) -> None:
    (data.root / data.gallery[0]).write_bytes(b"no image")
    spec = write_spec(data.root / "s.yaml", data.tree(data.model()))
    assert shell("ml_recog", "evaluate", "-e", spec) == 0, shell.err
    results = json.loads((data.root / "out/trt_evaluate/results.json").read_text())
    assert (results["gallery_images"], results["images_skipped"]) == (10, 1)
    assert f"skipped: {data.root / data.gallery[0]}" in shell.out
    message = shell.refused(1, "ml_recog", "evaluate", "-e", spec, "model.input_width=224")
    assert "the model's input_width is 12, the spec says 224" in message


@pytest.mark.parametrize("precision", ["FP32", "fp16", "INT8"])
def test_engines(shell: Shell, data: Data, precision: str) -> None:
    tree = data.tree(data.model())
    calibration = {"cal_image_dir": [str(data.reference)], "cal_batch_size": 2, "cal_batches": 3}
    tree["gen_trt_engine"] = {
        "onnx_file": str(data.root / "model.onnx"),
        "trt_engine": str(data.root / "e.engine"),
        "tensorrt": {"data_type": precision, "calibration": calibration if precision == "INT8" else {}},
    }
    assert shell("ml_recog", "gen_trt_engine", "-e", write_spec(data.root / "s.yaml", tree)) == 0, shell.out + shell.err
    manifest = json.loads(next(data.root.glob("e.engine*.json")).read_text())
    assert manifest["labels"] == data.classes
    prepared = onnx.load(next(data.root.glob("e.engine*.onnx")))
    assert any(node.op_type == "QuantizeLinear" for node in prepared.graph.node) == (precision == "INT8")
