"""multitask_classification: tables, class mappings, heads, numbers and files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actions.commands import Shell, write_spec
from replay_classifier import probabilities, write_images, write_replay
from sklearn.metrics import accuracy_score, confusion_matrix

from nvidia_tao_deploy.cv.multitask_classification import match_heads
from nvidia_tao_deploy.cv.multitask_classification.table import read_class_mapping, read_table
from nvidia_tao_deploy.errors import DataError, ModelError

COLORS, KINDS = ["blue", "green", "red"], ["car", "truck"]
CAFFE_BGR = np.array([103.939, 116.779, 123.68])


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


class Data:
    """11 images in a CSV whose columns are not in task order, and scores of both tasks for every image."""

    def __init__(self, root: Path) -> None:
        self.root, self.images, self.csv = root, root / "images", root / "val.csv"
        self.names = [f"sub/{i:02d}.png" for i in range(11)]
        self.pixels = write_images(self.images, self.names)
        self.labels = {"kind": [i % 2 for i in range(11)], "color": [i * 7 % 3 for i in range(11)]}
        self.scores = {"color": probabilities(11, 3, 1), "kind": probabilities(11, 2, 2)}
        self.write()
        self.mapping = root / "class_mapping.json"
        self.write_mapping({"color": COLORS, "kind": KINDS})

    def write(self, extra: tuple[str, ...] = ()) -> None:
        rows = [
            f"{name},{KINDS[self.labels['kind'][i]]},{COLORS[self.labels['color'][i]]}"
            for i, name in enumerate(self.names)
        ]
        self.csv.write_text("\n".join(["fname,kind,color", *extra, *rows]) + "\n")

    def write_mapping(self, classes: dict[str, list[str]]) -> None:
        blocks = {task: {str(i): name for i, name in enumerate(names)} for task, names in classes.items()}
        self.mapping.write_text(json.dumps({"tasks": sorted(classes), "class_mapping": blocks}))

    def model(self, outputs: dict[str, str], **more: Any) -> Path:
        """``outputs``: output name -> task, in the model's order."""
        tables = {output: self.scores[task] for output, task in outputs.items()}
        return write_replay(self.root / "model.onnx", self.pixels[:, ::-1] - CAFFE_BGR, tables, **more)

    def tree(self, model: Path) -> dict[str, Any]:
        return {
            "results_dir": str(self.root / "out"),
            "dataset_config": {"image_directory_path": str(self.images), "val_csv_path": str(self.csv)},
            "evaluate": {"trt_engine": str(model), "batch_size": 4},
            "inference": {"trt_engine": str(model), "batch_size": 3},
        }

    def right(self) -> dict[str, float]:
        return {
            task: float(accuracy_score(self.labels[task], self.scores[task].argmax(axis=1)))
            for task in ("color", "kind")
        }

    def results(self, folder: str = "out/trt_evaluate") -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.root / folder / "results.json").read_text())
        return loaded

    def rows(self, folder: str = "out/trt_inference") -> list[list[str]]:
        with (self.root / folder / "result.csv").open(newline="") as file:
            return list(csv.reader(file))

    def expected_rows(self) -> list[list[str]]:
        found = [["filename", "color", "kind"]]
        for i, name in enumerate(self.names):
            cells = []
            for task, names in (("color", COLORS), ("kind", KINDS)):
                row = self.scores[task][i]
                cells.append(f"{names[int(row.argmax())]} ({row.max():.4f})")
            found.append([str(self.images / name), *cells])
        return found


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


@pytest.mark.parametrize(
    "outputs",
    [{"output_0": "color", "output_1": "kind"}, {"kind/Softmax:0": "kind", "color/Softmax:0": "color"}],
    ids=["by position", "by name"],
)
def test_evaluate_in_both_spec_styles(shell: Shell, data: Data, outputs: dict[str, str]) -> None:
    model = data.model(outputs)
    assert shell("multitask_classification", "evaluate", "-e", write_spec(data.root / "s.yaml", data.tree(model))) == 0
    found = data.results()
    assert {task: found[task] for task in ("color", "kind")} == pytest.approx(data.right(), abs=1e-12)
    assert list(found)[:2] == ["color", "kind"]
    assert found["images_evaluated"] == 11
    for task, count in (("color", 3), ("kind", 2)):
        matrix = confusion_matrix(data.labels[task], data.scores[task].argmax(axis=1), labels=range(count))
        assert str(matrix) in shell.out
    text = data.root / "experiment.txt"
    text.write_text(
        "model_config { resize_interpolation_method: BILINEAR }\n"
        f'dataset_config {{ image_directory_path: "{data.images}" val_csv_path: "{data.csv}" }}\n'
    )
    words = ("evaluate", "-e", text, "-m", model, "-b", 4, "-r", data.root / "text")
    assert shell("multitask_classification", *words) == 0, shell.err
    assert data.results("text")["color"] == found["color"]


def test_inference_table(shell: Shell, data: Data) -> None:
    model = data.model({"color": "color", "kind": "kind"}, batch=4)
    spec = write_spec(data.root / "s.yaml", data.tree(model))
    assert shell("multitask_classification", "inference", "-e", spec) == 0, shell.err
    assert data.rows() == data.expected_rows()
    # With a mapping the table needs no labels at all.
    data.csv.write_text("\n".join(["fname", *data.names]))
    assert shell("multitask_classification", "inference", "-e", spec, f"inference.class_map={data.mapping}") == 0
    assert data.rows() == data.expected_rows()


def test_skipped_rows_do_not_shift_the_labels(shell: Shell, data: Data) -> None:
    """Rows before the others: no such file, no image, no value; they are named, and the numbers stay."""
    data.write(extra=("gone.png,car,red", "notes.txt,car,red", "sub/00.png,,red"))
    (data.images / "notes.txt").write_text("")
    spec = write_spec(data.root / "s.yaml", data.tree(data.model({"a": "color", "b": "kind"})))
    assert shell("multitask_classification", "evaluate", "-e", spec) == 0, shell.err
    assert data.results()["kind"] == pytest.approx(data.right()["kind"])
    assert f"{data.csv}:2: gone.png skipped: no such file" in shell.out
    assert f"{data.csv}:3: notes.txt skipped" in shell.out
    assert f"{data.csv}:4: sub/00.png skipped: no value for task 'kind'" in shell.out
    assert "gone.png" in shell.refused(1, "multitask_classification", "evaluate", "-e", spec, "strict=true")


def test_a_relative_image_folder(shell: Shell, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.root)
    tree = data.tree(data.model({"a": "color", "b": "kind"}))
    tree["dataset_config"]["image_directory_path"] = "images"
    spec = write_spec(data.root / "s.yaml", tree)
    assert shell("multitask_classification", "evaluate", "-e", spec) == 0, shell.err
    assert data.results()["images_evaluated"] == 11


def test_the_class_mapping_keeps_the_numbers_of_the_training(shell: Shell, data: Data) -> None:
    """Training knew a class 'black' that this CSV lacks: without the mapping every color index is one too low."""
    data.scores["color"] = np.insert(data.scores["color"], 0, 0, axis=1)
    data.write_mapping({"color": ["black", *COLORS], "kind": KINDS})
    spec = write_spec(data.root / "s.yaml", data.tree(data.model({"color": "color", "kind": "kind"})))
    assert shell("multitask_classification", "evaluate", "-e", spec) == 0, shell.err
    assert "output 'color' has 4 classes, the CSV names 3 for task 'color'" in shell.out
    shifted = data.results()["color"]
    mapped = f"evaluate.class_map={data.mapping}"
    assert shell("multitask_classification", "evaluate", "-e", spec, mapped) == 0, shell.err
    assert "numbered otherwise" not in shell.out
    expected = accuracy_score(np.array(data.labels["color"]) + 1, data.scores["color"].argmax(axis=1))
    assert data.results()["color"] == pytest.approx(expected)
    assert shifted != data.results()["color"]
    # A mapping given for the build serves the other actions too; one that only lists the tasks gives way to the CSV.
    given = f"gen_trt_engine.class_map={data.mapping}"
    assert shell("multitask_classification", "evaluate", "-e", spec, given) == 0, shell.err
    assert data.results()["color"] == pytest.approx(expected)
    data.mapping.write_text('{"tasks": ["color", "kind"]}')
    assert shell("multitask_classification", "evaluate", "-e", spec, given) == 0, shell.err
    assert data.results()["color"] == shifted


def test_heads_and_classes_that_do_not_fit(shell: Shell, data: Data) -> None:
    data.write_mapping({"color": [*COLORS, "white"], "kind": KINDS})
    spec = write_spec(data.root / "s.yaml", data.tree(data.model({"a": "color", "b": "kind"})))
    for action in ("evaluate", "inference"):
        mapped = f"{action}.class_map={data.mapping}"
        message = shell.refused(1, "multitask_classification", action, "-e", spec, mapped)
        assert "output 'a' has 3 classes and task 'color' has 4" in message
    data.scores["color"] = data.scores["color"][:, :2]
    data.model({"a": "color", "b": "kind"})
    assert "has 2 classes" in shell.refused(1, "multitask_classification", "evaluate", "-e", spec)
    data.model({"a": "color"})
    assert "the model's outputs are a, and the tasks color, kind" in shell.refused(
        1, "multitask_classification", "evaluate", "-e", spec
    )


def test_match_heads() -> None:
    assert match_heads(["a", "b"], ["b/Softmax:0", "a/Softmax:0"]) == {"a": "a/Softmax:0", "b": "b/Softmax:0"}
    assert match_heads(["base_color", "color"], ["color", "base_color"]) == {
        "base_color": "base_color",
        "color": "color",
    }
    assert match_heads(["b", "a"], ["x", "y"]) == {"a": "x", "b": "y"}
    assert match_heads(["a", "b"], ["b", "y"]) == {"a": "b", "b": "y"}  # one name alone decides nothing
    with pytest.raises(ModelError, match="outputs are a, b, c, and the tasks a, b"):
        match_heads(["a", "b"], ["a", "b", "c"])


def test_classes_of_a_table_are_sorted_as_the_trainer_reads_them(tmp_path: Path) -> None:
    """Numbers by value; text, and columns that mix both, by text; quoted cells may hold commas and line breaks."""
    path = tmp_path / "t.csv"
    path.write_text('f,number,mixed,text,real\na,10,10,"x, y",1\n\nb,2,2,"p\nq",0.5\nc,2,b,Z,10\n', newline="")
    table = read_table(path)
    assert table.classes() == {
        "mixed": ["10", "2", "b"],
        "number": ["2", "10"],
        "real": ["0.5", "1.0", "10.0"],
        "text": ["Z", "p\nq", "x, y"],
    }
    assert [line for line, _, _ in table.rows] == [2, 5, 6]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "header"),
        ("f,a,a\nx,1,2\n", "header"),
        ("f,a\nx.png,1,2\n", "t.csv:2: 3 cells"),
        ('f,a\nx.png,"1\n', "not a CSV"),
        ("f,a\nx.png,\n", "task 'a' has no value"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "t.csv").classes()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"tasks": []}',
        '{"tasks": ["a"], "class_mapping": {"b": {"0": "x"}}}',
        '{"tasks": ["a"], "class_mapping": {"a": {"1": "x"}}}',
        '{"tasks": ["a"], "class_mapping": {"a": ["x"]}}',
        "{",
    ],
)
def test_class_mappings_that_are_wrong(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(DataError, match=r"m\.json"):
        read_class_mapping(tmp_path / "m.json")


def test_other_bad_input(shell: Shell, data: Data) -> None:
    tree = data.tree(data.model({"a": "color", "b": "kind"}))
    spec = write_spec(data.root / "s.yaml", tree)
    run = ("multitask_classification", "evaluate", "-e", spec)
    assert "val_csv_path" in shell.refused(2, *run, "dataset_config.val_csv_path=null")
    assert "image_directory_path" in shell.refused(2, *run, "dataset_config.image_directory_path=''")
    assert "nowhere.csv" in shell.refused(1, *run, f"dataset_config.val_csv_path={data.root}/nowhere.csv")
    assert "not one row" in shell.refused(1, *run, f"evaluate.image_dir={data.root}/nowhere")
    data.write_mapping({"color": COLORS, "size": KINDS})
    message = shell.refused(1, *run, f"evaluate.class_map={data.mapping}")
    assert "kind" in message
    assert "size" in message
    spec.write_text(spec.read_text() + "eval_config:\n  top_k: 3\n")
    assert f"{spec}:" in shell.refused(2, *run)  # the published sample is one of another network
    text = data.root / "e.txt"
    text.write_text("model_config {\n  resize_interpolation: BILINEAR\n}\n")
    words = ("evaluate", "-e", text, "-m", "x", "-r", data.root)
    assert f"{text}:2:" in shell.refused(2, "multitask_classification", *words)


def test_an_int8_engine_from_images(shell: Shell, data: Data) -> None:
    engine = data.root / "engines" / "model.engine"
    text = data.root / "experiment.txt"
    text.write_text("model_config { resize_interpolation_method: BICUBIC }\n")
    words = ("-e", text, "-m", data.model({"color": "color", "kind": "kind"}), "--engine_file", engine)
    words += ("--data_type", "int8", "--cal_image_dir", data.images, "--batch_size", 2, "--batches", 4)
    words += ("--max_batch_size", 4, "-r", data.root / "build")
    assert shell("multitask_classification", "gen_trt_engine", *words) == 0, shell.out + shell.err
    assert "8 images" in shell.out
    described = next(engine.parent.glob("*.json")).read_text()
    assert "stretch_bicubic" in described
    assert '"BGR"' in described
