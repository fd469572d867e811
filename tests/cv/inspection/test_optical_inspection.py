"""optical_inspection: pairs of units and golden images through the commands, on a model computed by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from actions.commands import Shell, status, write_spec
from cv.inspection.pair_models import MEAN, STD, normalized, paint, siamese
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import accuracy_score, recall_score

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.families.inspection_spec import PairData
from nvidia_tao_deploy.metrics.inspection import inspection_figures
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.tiled import TiledTransform

SIZE = (10, 6)  # width, height of one image on the network's input
LIGHTS = ["white", "amber", "side", "low", "uv", "ir"]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


class Board:
    """Units whose images are of one colour per light; the table's distances are computed from those colours."""

    def __init__(self, root: Path, lights: int = 4, count: int = 7, extension: str = ".png") -> None:
        self.root, self.images, self.csv = root, root / "images", root / "test.csv"
        self.lights, self.extension = LIGHTS[:lights], extension
        random = np.random.default_rng(5)
        self.colors = random.integers(0, 256, (count, 2, max(lights, 1), 3))
        self.colors[::2, 0] = np.clip(self.colors[::2, 1] + random.integers(-9, 9, self.colors[::2, 1].shape), 0, 255)
        self.rows = []
        for i in range(count):
            name = f"{i:03d}"  # a number must stay text
            for side, folder in enumerate(("units", "golden/A")):
                for light in range(max(lights, 1)):
                    ending = f"_{LIGHTS[light]}" if lights else ""
                    paint(self.images / folder / f"{name}{ending}{extension}", self.colors[i, side, light])
            self.rows.append([f"{i * 10}.50", "units", "golden/A", name, "PASS" if i % 3 else "scratch"])
        self.columns = ["serial", "input_path", "golden_path", "object_name", "label"]
        self.write()

    def write(self) -> None:
        self.csv.write_text("\n".join(",".join(row) for row in [self.columns, *self.rows]) + "\n")

    def distances(self) -> NDArray[np.float64]:
        seen = (self.colors / 255 - MEAN) / STD
        apart: NDArray[np.float64] = seen[:, 0] - seen[:, 1]
        return np.sqrt(np.square(apart).sum(axis=(1, 2)))

    def tree(self, model: Path, **data: Any) -> dict[str, Any]:
        source = {"csv_path": str(self.csv), "images_dir": str(self.images)}
        dataset: dict[str, Any] = {
            "infer_dataset": source,
            "image_ext": self.extension,
            "image_width": SIZE[0],
            "image_height": SIZE[1],
        }
        if self.lights:
            dataset |= {"input_map": {name: 9 - i for i, name in enumerate(self.lights)}, "num_input": len(self.lights)}
        return {
            "results_dir": str(self.root / "out"),
            "model": {"margin": 1.5},
            "dataset": dataset | data,
            "evaluate": {"trt_engine": str(model), "batch_size": 4},
            "inference": {"trt_engine": str(model), "batch_size": 4},
        }

    def scores(self, file: str) -> list[float]:
        with (self.root / "out" / file).open(newline="") as opened:
            return [float(row["output_score"]) for row in csv.DictReader(opened)]


ARRANGEMENTS: dict[str, tuple[int, dict[str, Any], tuple[int, int]]] = {
    "one image": (0, {}, (1, 1)),
    "linear": (4, {"concat_type": "linear"}, (4, 1)),
    "null": (3, {"concat_type": None}, (3, 1)),
    "grid 2 x 2": (4, {"concat_type": "grid", "grid_map": {"x": 2, "y": 2}}, (2, 2)),
    "grid 3 x 2": (6, {"concat_type": "grid", "grid_map": {"x": 3, "y": 2}}, (2, 3)),
    "grid 1 x 2": (2, {"concat_type": "GRID", "grid_map": {"x": 1, "y": 2}}, (2, 1)),
}


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_evaluate_and_inference_of_every_arrangement(shell: Shell, tmp_path: Path, name: str) -> None:
    lights, data, (rows, columns) = ARRANGEMENTS[name]
    board = Board(tmp_path, lights)
    model = siamese(tmp_path / "model.onnx", rows, columns, SIZE, batch=4 if lights == 4 else "N")
    spec = write_spec(tmp_path / "s.yaml", board.tree(model, **data))
    assert shell("optical_inspection", "inference", "-e", spec) == 0, shell.err
    np.testing.assert_allclose(board.scores("trt_inference/inference.csv"), board.distances(), rtol=1e-5, atol=1e-5)
    assert shell("optical_inspection", "evaluate", "-e", spec) == 0, shell.err
    assert board.scores("trt_evaluate/evaluate.csv") == board.scores("trt_inference/inference.csv")
    results = json.loads((tmp_path / "out/trt_evaluate/results.json").read_text())
    truth, failed = [row[4] != "PASS" for row in board.rows], board.distances() > 1.5
    assert results["total_accuracy"] == pytest.approx(100 * accuracy_score(truth, failed))
    assert results["defect_accuracy"] == pytest.approx(100 * recall_score(truth, failed))
    assert results["false_alarm"] == pytest.approx(100 - 100 * recall_score(truth, failed, pos_label=False))
    assert results["false_negative"] == pytest.approx(100 - results["defect_accuracy"])
    assert (results["margin"], results["count"]) == (1.5, 7)
    kpi = status(tmp_path / "out/trt_evaluate")[-1]["kpi"]
    assert kpi["test_acc"] == results["total_accuracy"]
    assert kpi["test_fpr"] == results["false_alarm"]


def test_the_report_keeps_the_table_as_it_was(shell: Shell, tmp_path: Path) -> None:
    board = Board(tmp_path, 0)
    spec = write_spec(tmp_path / "s.yaml", board.tree(siamese(tmp_path / "model.onnx", 1, 1, SIZE)))
    assert shell("optical_inspection", "inference", "-e", spec) == 0, shell.err
    with (tmp_path / "out/trt_inference/inference.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [*board.columns, "output_score"]
    assert [row[:-1] for row in rows] == board.rows  # serial 10.50 and object 001 are text
    assert all(row[-1] == str(np.float32(row[-1])) for row in rows)
    # inference needs no label column; a stale score column is replaced
    board.columns[4] = "output_score"
    board.write()
    assert shell("optical_inspection", "inference", "-e", spec) == 0, shell.err
    assert len(board.scores("trt_inference/inference.csv")) == 7
    assert "label missing" in shell.refused(1, "optical_inspection", "evaluate", "-e", spec)


def test_evaluate_prefers_test_dataset(shell: Shell, tmp_path: Path) -> None:
    board = Board(tmp_path, 0)
    tree = board.tree(siamese(tmp_path / "model.onnx", 1, 1, SIZE))
    (tmp_path / "two.csv").write_text("\n".join(board.csv.read_text().splitlines()[:3]))
    tree["dataset"]["test_dataset"] = {"csv_path": str(tmp_path / "two.csv"), "images_dir": str(board.images)}
    assert shell("optical_inspection", "evaluate", "-e", write_spec(tmp_path / "s.yaml", tree)) == 0, shell.err
    assert len(board.scores("trt_evaluate/evaluate.csv")) == 2


@pytest.mark.parametrize("resize", ["bilinear", "antialias"])
def test_transform_equals_the_contract(tmp_path: Path, resize: str) -> None:
    """Pictures of all kinds of pixels, not square, against OpenCV (or Pillow) and a plain loop over tiles."""
    from nvidia_tao_deploy.families.inspection import pair_transform

    random = np.random.default_rng(2)
    paths = []
    for i in range(12):
        pixels = random.integers(0, 256, (17 + i, 31, 3))
        paths.append(tmp_path / f"{i}.png")
        paint(paths[-1], pixels, mode=["RGB", "L", "RGBA"][i % 3])
    data = PairData(
        input_map=dict.fromkeys(LIGHTS, 0),
        concat_type="grid",
        grid_map={"x": 3, "y": 2},
        image_width=9,
        image_height=5,
        resize=resize,
    )
    shape = (None, 3, 10, 27)
    ports = Ports({f"input_{i}": TensorInfo(f"input_{i}", shape, np.dtype(np.float32)) for i in (1, 2)}, {})
    transform = pair_transform(data, ports, "input_1", "input_2", backend="opencv")
    assert isinstance(transform, TiledTransform)
    out = {f"input_{i}": np.zeros((3, 10, 27), np.float32) for i in (1, 2)}
    transform(Sample("x", tuple(paths)), out)
    for i, path in enumerate(paths):
        with Image.open(path) as picture:
            picture = picture.convert("RGB")
            small: NDArray[Any] = (
                cv2.resize(np.asarray(picture, np.float32), (9, 5), interpolation=cv2.INTER_LINEAR)
                if resize == "bilinear"
                else np.asarray(picture.resize((9, 5), Image.Resampling.BILINEAR), np.float32)
            )
        expected = ((small / 255 - MEAN) / STD).transpose(2, 0, 1)
        row, column = divmod(i % 6, 3)
        tile = out[f"input_{i // 6 + 1}"][:, row * 5 : row * 5 + 5, column * 9 : column * 9 + 9]
        np.testing.assert_allclose(tile, expected, atol=2e-6)


def test_figures_of_empty_sides_are_zero() -> None:
    scores = np.array([1, 2, 3], np.float32)
    good, bad = np.zeros(3, bool), np.ones(3, bool)
    assert inspection_figures(scores, good, 2.0) == pytest.approx(
        {"total_accuracy": 200 / 3, "defect_accuracy": 0, "false_alarm": 100 / 3, "false_negative": 0}
    )  # a score of exactly the margin is good
    assert inspection_figures(scores, bad, 2.0)["false_alarm"] == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"num_input": 6}, "num_input is 6 and input_map names 4 lightings"),
        ({"num_input": 2, "input_map": None}, "input_map names no lighting"),
        ({"concat_type": "grid"}, "grid_map"),
        ({"concat_type": "grid", "grid_map": {"x": 3, "y": 2}}, "does not hold 4 images"),
        (
            {
                "concat_type": "grid",
                "num_input": 3,
                "input_map": {"white": 0, "side": 1, "low": 2},
                "grid_map": {"x": 3},
            },
            "even number",
        ),
        ({"image_ext": None}, "image_ext"),
        ({"concat_type": "spiral"}, "concat_type"),
        ({"input_mapp": {}}, "input_mapp"),
    ],
)
def test_images_that_do_not_fit_together(shell: Shell, tmp_path: Path, data: dict[str, Any], message: str) -> None:
    board = Board(tmp_path, 4, count=2)
    model = siamese(tmp_path / "model.onnx", 4, 1, SIZE)
    spec = write_spec(tmp_path / "s.yaml", board.tree(model, **data))
    assert message in shell.refused(2, "optical_inspection", "evaluate", "-e", spec)
    assert not (tmp_path / "out/trt_evaluate/evaluate.csv").exists()


def test_bad_tables_and_files(shell: Shell, tmp_path: Path) -> None:
    board = Board(tmp_path, 4)
    model = siamese(tmp_path / "model.onnx", 4, 1, SIZE)
    spec = write_spec(tmp_path / "s.yaml", board.tree(model))
    base = ("optical_inspection", "inference", "-e", spec)
    assert "no such folder of images" in shell.refused(1, *base, "dataset.infer_dataset.images_dir=/nowhere")
    assert "/nowhere.csv" in shell.refused(1, *base, "dataset.infer_dataset.csv_path=/nowhere.csv")
    assert "dataset.infer_dataset.csv_path" in shell.refused(2, *base, "dataset.infer_dataset.csv_path=null")
    for text, message in (
        ("", "input_path, golden_path, object_name missing"),
        ("input_path,object_name\nunits,000\n", "the column golden_path missing"),
        ("input_path,golden_path,object_name\n", "the table has no rows"),
        ("input_path,golden_path,object_name\nunits,golden/A,000,1,2\n", "5 cells under 3 columns"),
        ("input_path,golden_path,object_name\nunits,golden/A,\n", "no object_name"),
        ("input_path,golden_path,object_name\nunits,golden/A,nothing\n", "none of the images could be read"),
        ("", "it names none"),
    ):
        board.csv.write_text(text)
        assert message in shell.refused(1, *base)
        assert not (tmp_path / "out/trt_inference/inference.csv").exists()
    board.write()
    (board.images / "golden/A/002_side.png").unlink()  # one golden file of eight
    assert shell(*base) == 0, shell.err
    assert len(board.scores("trt_inference/inference.csv")) == 6
    assert f"{board.images}/golden/A/002_side.png: cannot read" in shell.out
    assert "6 images, 1 skipped" in shell.out
    first = board.images / "units/004_amber.png"  # the first light of the file, whose keys are sorted
    first.unlink()
    assert shell(*base) == 0, shell.err
    assert f"skipped: {first}: cannot read image: " in shell.out
    assert "002_side.png" in shell.refused(1, *base, "strict=true")
    assert "of shape (3, 24, 10), the model's is (3, 24, 20)" in shell.refused(
        1, *base, f"inference.trt_engine={siamese(tmp_path / 'wide.onnx', 4, 2, SIZE)}"
    )


def test_a_unit_without_a_label_is_named(shell: Shell, tmp_path: Path) -> None:
    board = Board(tmp_path, 0)
    board.rows[3][4] = ""
    board.write()
    spec = write_spec(tmp_path / "s.yaml", board.tree(siamese(tmp_path / "model.onnx", 1, 1, SIZE)))
    assert shell("optical_inspection", "evaluate", "-e", spec) == 0, shell.err
    assert f"{board.csv}:5 skipped: no label" in shell.out
    results = json.loads((tmp_path / "out/trt_evaluate/results.json").read_text())
    assert (results["count"], results["data_notes"]) == (6, [f"{board.csv}:5 skipped: no label"])
    board.rows[3][3] = ""
    board.write()
    assert shell("optical_inspection", "inference", "-e", spec) == 0, shell.err
    assert shell.out.count(f"note: {board.csv}:5 skipped: no object_name") == 1


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engines_and_calibration_of_both_inputs(shell: Shell, tmp_path: Path, precision: str) -> None:
    board = Board(tmp_path, 4, count=8)
    board.colors[:, 1] = 255  # golden images all white: their range is not the units'
    for i in range(8):
        for light in board.lights:
            paint(board.images / f"golden/A/{i:03d}_{light}.png", [255, 255, 255])
    (board.images / "units/000_side.png").unlink()
    tree = board.tree(siamese(tmp_path / "model.onnx", 4, 1, SIZE))
    calibration = {"cal_batch_size": 2, "cal_batches": 3, "method": "minmax", "cal_cache_file": str(tmp_path / "c")}
    if precision == "fp16":
        calibration = {"cal_image_dir": str(board.images)}
    tree["gen_trt_engine"] = {
        "onnx_file": str(tmp_path / "model.onnx"),
        "trt_engine": str(tmp_path / "e.engine"),
        "tensorrt": {"data_type": precision, "calibration": calibration},
    }
    spec = write_spec(tmp_path / "s.yaml", tree)
    assert shell("optical_inspection", "gen_trt_engine", "-e", spec) == 0, shell.out + shell.err
    prepared = next(tmp_path.glob("e.engine*.onnx"))
    if precision == "fp16":
        assert "parity of 'output_2'" in shell.out
    if precision == "int8":
        assert "Calibration pairs: 7 of dataset.infer_dataset, 1 row left out" in shell.out
        scales = {
            node.input[0]: onnx.numpy_helper.to_array(value)
            for node in onnx.load(prepared).graph.node
            if node.op_type == "QuantizeLinear"
            for value in onnx.load(prepared).graph.initializer
            if value.name == node.input[1]
        }
        white = np.abs(normalized([255, 255, 255])).max() / 127
        golden = [float(np.max(scale)) for name, scale in scales.items() if name.endswith("_2")]
        assert golden
        assert all(scale == pytest.approx(white, rel=1e-3) for scale in golden)
        words = ("optical_inspection", "inference", "-e", spec, f"inference.trt_engine={prepared}")
        assert shell(*words) == 0, shell.err
        np.testing.assert_allclose(
            board.scores("trt_inference/inference.csv"), board.distances()[1:], rtol=0.05, atol=0.1
        )


def test_building_asks_for_no_images(shell: Shell, tmp_path: Path) -> None:
    siamese(tmp_path / "model.onnx", 4, 1, SIZE)
    tree = {
        "results_dir": str(tmp_path / "out"),
        "dataset": {"num_input": 8, "concat_type": "grid"},  # as an untouched template has it
        "gen_trt_engine": {"onnx_file": str(tmp_path / "model.onnx"), "trt_engine": str(tmp_path / "e.engine")},
    }
    spec = write_spec(tmp_path / "s.yaml", tree)
    assert shell("optical_inspection", "gen_trt_engine", "-e", spec) == 0, shell.err
    message = shell.refused(
        2, "optical_inspection", "gen_trt_engine", "-e", spec, "gen_trt_engine.tensorrt.data_type=int8"
    )
    assert "dataset.train_dataset.csv_path" in message


@pytest.mark.parametrize("defects", [0, 1, 2, 3])
def test_shares_of_few_units(defects: int) -> None:
    """Of 3 units the first ones are defective, and all of these but one are found; a score at the margin is good."""
    scores = np.array([2.0, 2.5, 2.5] if defects else [2.0, 2.0, 2.5], np.float32)
    found = inspection_figures(scores, np.arange(3) < defects, 2.0)
    wrong = 3 - defects if defects else 1  # good units that are called defective
    assert found == pytest.approx({
        "total_accuracy": 100 * (max(defects - 1, 0) + (3 - defects - wrong)) / 3,
        "defect_accuracy": 100 * (defects - 1) / defects if defects else 0,
        "false_alarm": 100 * wrong / (3 - defects) if defects < 3 else 0,
        "false_negative": 100 / defects if defects else 0,
    })  # fmt: skip
