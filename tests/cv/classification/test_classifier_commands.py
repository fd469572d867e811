"""classification_tf1, _tf2 and _pyt through the command line: numbers of scikit-learn, files of the contract."""

from __future__ import annotations

import csv
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actions.commands import Shell, status, write_spec
from numpy.typing import NDArray
from replay_classifier import probabilities, write_images, write_replay
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from nvidia_tao_deploy.data.folder import ClassFolder
from nvidia_tao_deploy.families import classification as family
from nvidia_tao_deploy.predictions.types import Classification
from nvidia_tao_deploy.spec.load import load_spec

CLASSES = ["zebra", "ant", "cow", "bee", "dog"]  # index order of the class map, not sorted
CAFFE_BGR = [103.939, 116.779, 123.68]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


class Data:
    """13 images of 4 of 5 classes (one class has none), a class map, and scores for every image in path order."""

    def __init__(self, root: Path, classes: list[str] = CLASSES, absent: str | None = "cow") -> None:
        self.root, self.images, self.classes = root, root / "test", classes
        present = [name for name in classes if name != absent]
        names = sorted(f"{present[i % len(present)]}/{i:02d}.png" for i in range(13))
        for name in classes:
            (self.images / name).mkdir(parents=True)
        self.colors = write_images(self.images, names)
        self.names = names
        self.labels = np.array([classes.index(name.split("/")[0]) for name in names])
        self.map = root / "classmap.json"
        self.map.write_text(json.dumps({name: i for i, name in enumerate(classes)}))
        self.scores = probabilities(len(names), len(classes))

    def model(self, features: NDArray[Any], scores: NDArray[Any] | None = None, **more: Any) -> Path:
        output = more.pop("output", "predictions")
        tables = {output: self.scores if scores is None else scores}
        return write_replay(self.root / "model.onnx", features, tables, **more)

    def caffe(self) -> NDArray[Any]:
        return self.colors[:, ::-1] - np.array(CAFFE_BGR)

    def torch(self) -> NDArray[Any]:
        return (self.colors / 255 - np.array([0.485, 0.456, 0.406])) / 0.224

    def right(self, k: int) -> float:
        return float(top_k_accuracy_score(self.labels, self.scores, k=k, labels=range(len(self.classes))))


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


def results(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return loaded


def rows(folder: Path) -> list[list[str]]:
    with (folder / "result.csv").open(newline="") as file:
        return list(csv.reader(file))


def expected_rows(data: Data, names: list[str] | None = None) -> list[list[str]]:
    best = data.scores.argmax(axis=1)
    named = names or data.classes
    return [
        [str(data.images / name), named[i], str(data.scores[row, i])]
        for row, (name, i) in enumerate(zip(data.names, best, strict=True))
    ]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_tf1_text_with_flags_and_yaml_give_the_numbers_of_scikit_learn(
    shell: Shell, data: Data, tmp_path: Path, k: int
) -> None:
    model = data.model(data.caffe())
    text = tmp_path / "experiment.txt"
    text.write_text(
        f'eval_config {{ top_k: {k} eval_dataset_path: "{data.images}" batch_size: 5 enable_center_crop: true }}\n'
        "model_config { resize_interpolation_method: BICUBIC }\n"
    )
    out = tmp_path / "text"
    words = ("-e", text, "-m", model, "-c", data.map, "-r", out)
    assert shell("classification_tf1", "evaluate", *words) == 0, shell.err
    assert results(out)["top_k_accuracy"] == pytest.approx(data.right(k), abs=1e-12)
    assert results(out)["images_evaluated"] == 13
    matrix = confusion_matrix(data.labels, data.scores.argmax(axis=1), labels=range(5))
    assert str(matrix) in shell.out
    assert "cow" in shell.out
    assert status(out)[-1]["status"] == "SUCCESS"

    tree = {
        "results_dir": str(tmp_path / "yaml"),
        "eval_config": {"top_k": k, "eval_dataset_path": str(data.images), "enable_center_crop": True},
        "model_config": {"resize_interpolation_method": 1},
        "evaluate": {"trt_engine": str(model), "class_map": str(data.map), "batch_size": 4},
    }
    assert shell("classification_tf1", "evaluate", "-e", write_spec(tmp_path / "s.yaml", tree)) == 0, shell.err
    assert results(tmp_path / "yaml" / "trt_evaluate")["top_k_accuracy"] == results(out)["top_k_accuracy"]


@pytest.mark.parametrize("given", [{}, {"top_k": 0}])
def test_tf1_looks_at_five_classes_unless_told(shell: Shell, data: Data, tmp_path: Path, given: dict[str, int]) -> None:
    tree = {
        "results_dir": str(tmp_path / "out"),
        "eval_config": {"eval_dataset_path": str(data.images), **given},
        "evaluate": {"trt_engine": str(data.model(data.caffe())), "class_map": str(data.map)},
    }
    assert shell("classification_tf1", "evaluate", "-e", write_spec(tmp_path / "s.yaml", tree)) == 0, shell.err
    assert data.right(3) < results(tmp_path / "out" / "trt_evaluate")["top_k_accuracy"] == 1


@pytest.mark.parametrize("action", ["evaluate", "inference"])
def test_logits_are_no_probabilities(shell: Shell, data: Data, tmp_path: Path, action: str) -> None:
    model = data.model(data.caffe(), scores=np.log(data.scores))  # as classification_pyt exports them
    (tmp_path / "s.txt").write_text("model_config { }")
    words = ("-e", tmp_path / "s.txt", "-m", model, "-i", data.images, "-c", data.map, "-r", tmp_path / "out")
    message = shell.refused(1, "classification_tf1", action, *words)
    assert "the model's scores lie in -" in message
    assert "classification_pyt takes logits" in message


def test_tf1_inference_writes_the_table_of_the_contract(shell: Shell, data: Data, tmp_path: Path) -> None:
    model = data.model(data.caffe(), batch=4)  # a fixed batch, the last one short
    text = tmp_path / "experiment.txt"
    text.write_text('train_config { preprocess_mode: "" }\n')
    base = ("classification_tf1", "inference", "-e", text, "-m", model, "-i", data.images)
    assert shell(*base, "-b", 4, "-c", data.map, "-r", tmp_path / "mapped") == 0, shell.err
    assert rows(tmp_path / "mapped") == expected_rows(data)
    # Without a map the sorted folders name the classes.
    assert shell(*base, "-r", tmp_path / "listed") == 0, shell.err
    assert rows(tmp_path / "listed") == expected_rows(data, sorted(CLASSES))


def test_tf1_inference_on_a_flat_folder_writes_indices(shell: Shell, data: Data, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    names = [f"{i:02d}.png" for i in range(6)]
    colors = write_images(flat, names)
    data.scores = data.scores[:6]
    model = data.model(colors[:, ::-1] - np.array(CAFFE_BGR))
    text = tmp_path / "experiment.txt"
    text.write_text("eval_config { batch_size: 2 }\n")
    words = ("inference", "-e", text, "-m", model, "-i", flat, "-r", tmp_path / "out")
    assert shell("classification_tf1", *words) == 0, shell.err
    assert [row[1] for row in rows(tmp_path / "out")] == [str(i) for i in data.scores.argmax(axis=1)]
    assert "indices are written" in shell.out


def test_stray_files_and_hidden_folders_shift_no_index(shell: Shell, data: Data, tmp_path: Path) -> None:
    (data.images / "aaa.txt").write_text("")
    (data.images / ".cache").mkdir()
    data.labels = np.array([sorted(CLASSES).index(name.split("/")[0]) for name in data.names])
    model = data.model(data.caffe())
    tree = {
        "results_dir": str(tmp_path / "out"),
        "eval_config": {"eval_dataset_path": str(data.images), "top_k": 1},
        "evaluate": {"trt_engine": str(model)},
    }
    assert shell("classification_tf1", "evaluate", "-e", write_spec(tmp_path / "s.yaml", tree)) == 0, shell.err
    assert results(tmp_path / "out" / "trt_evaluate")["top_k_accuracy"] == pytest.approx(data.right(1))


def test_linked_images_belong_to_the_folder_of_the_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    write_images(tmp_path / "store", ["x.png"])
    for name in ("a", "b"):
        (tmp_path / "root" / name).mkdir(parents=True)
    (tmp_path / "root" / "b" / "x.png").symlink_to(tmp_path / "store" / "x.png")
    found = ClassFolder(tmp_path / "root", family.folder_classes(tmp_path / "root", "").names)
    assert [found[i].target for i in range(len(found))] == [1]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_tf2_evaluate_and_inference(shell: Shell, data: Data, tmp_path: Path, layout: str) -> None:
    model = data.model(data.torch(), layout=layout)
    tree = {
        "results_dir": str(tmp_path / "out"),
        "data_format": "channels_first",  # the model's own shape decides
        "dataset": {"preprocess_mode": "torch", "image_mean": [0.485, 0.456, 0.406]},
        "evaluate": {
            "trt_engine": str(model),
            "dataset_path": str(data.images),
            "classmap": str(data.map),
            "top_k": 2,
            "batch_size": 6,
        },
        "inference": {"trt_engine": str(model), "image_dir": str(data.images), "classmap": "???"},
    }
    spec = write_spec(tmp_path / "s.yaml", tree)
    assert shell("classification_tf2", "evaluate", "-e", spec) == 0, shell.err
    found = results(tmp_path / "out" / "trt_evaluate")
    assert found["top_k_accuracy"] == pytest.approx(data.right(2), abs=1e-12)
    assert found["images_evaluated"] == 13
    assert status(tmp_path / "out" / "trt_evaluate")[-2]["kpi"] == {"top_k_accuracy": found["top_k_accuracy"]}
    assert shell("classification_tf2", "inference", "-e", spec) == 0, shell.err
    assert rows(tmp_path / "out" / "trt_inference") == expected_rows(data)
    # Without any map: the folders of evaluate.dataset_path.
    assert shell("classification_tf2", "inference", "-e", spec, "evaluate.classmap=null") == 0, shell.err
    assert rows(tmp_path / "out" / "trt_inference") == expected_rows(data, sorted(CLASSES))


def test_tf2_batch_size_of_inference_is_that_of_evaluate(data: Data) -> None:
    from nvidia_tao_deploy.cv.classification_tf2 import Spec, batch_size
    from nvidia_tao_deploy.spec.load import load_spec

    assert batch_size(load_spec(Spec, {}), "inference") == 64
    assert batch_size(load_spec(Spec, {"evaluate": {"batch_size": 7}}), "inference") == 7
    assert batch_size(load_spec(Spec, {"inference": {"batch_size": 3}}), "inference") == 3


@pytest.mark.parametrize("network", ["classification_tf1", "classification_tf2"])
@pytest.mark.parametrize("action", ["evaluate", "inference"])
def test_class_names_of_either_action_go_into_the_manifest(data: Data, network: str, action: str) -> None:
    page = import_module(f"nvidia_tao_deploy.cv.{network}").NETWORK
    key = "class_map" if network == "classification_tf1" else "classmap"
    assert list(page.labels(load_spec(page.spec, {action: {key: str(data.map)}}))) == CLASSES


def test_two_classes_are_decided_by_argmax(shell: Shell, tmp_path: Path) -> None:
    """Column 1 against a threshold would call both of these class 0."""
    data = Data(tmp_path, ["no", "yes"], absent=None)
    data.scores = np.where(data.labels[:, None] == [[0, 1]], 0.4, 0.3).astype(np.float32)
    tree = {
        "results_dir": str(tmp_path / "out"),
        "dataset": {"augmentation": {"enable_center_crop": False}},
        "evaluate": {"trt_engine": str(data.model(data.caffe())), "dataset_path": str(data.images), "top_k": 1},
    }
    assert shell("classification_tf2", "evaluate", "-e", write_spec(tmp_path / "s.yaml", tree)) == 0, shell.err
    assert results(tmp_path / "out" / "trt_evaluate")["top_k_accuracy"] == 1.0


def pyt_tree(data: Data, model: Path) -> dict[str, Any]:
    return {
        "results_dir": str(data.root / "out"),
        "model": {"head": {"topk": [2, 5]}},
        "dataset": {"root_dir": str(data.root), "test_dataset": {"images_dir": str(data.images)}, "batch_size": 8},
        "evaluate": {"trt_engine": str(model), "batch_size": 5},
        "inference": {"trt_engine": str(model)},
    }


def test_pyt_logits_file_order_of_classes_and_any_batch(shell: Shell, data: Data) -> None:
    """classes.txt is in file order with a blank line; the reported confidence is the softmax of the logits."""
    (data.root / "classes.txt").write_text("\n".join([*CLASSES[:2], "", *CLASSES[2:], ""]))
    logits = np.random.default_rng(5).normal(0, 4, data.scores.shape).astype(np.float32)
    features = (data.colors / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    model = data.model(features, logits, output="output", input_name="input")
    spec = write_spec(data.root / "s.yaml", pyt_tree(data, model))
    data.scores = logits
    assert shell("classification_pyt", "evaluate", "-e", spec) == 0, shell.err
    found = results(data.root / "out" / "trt_evaluate")
    assert found["top_k_accuracy"] == pytest.approx(data.right(2), abs=1e-12)
    assert found["images_evaluated"] == 13
    assert shell("classification_pyt", "inference", "-e", spec) == 0, shell.err
    for row, name, scores in zip(rows(data.root / "out" / "trt_inference"), data.names, logits, strict=True):
        wide = scores.astype(np.float64)
        odds = np.exp(wide) / np.exp(wide).sum()
        assert row == [str(data.images / name), CLASSES[int(scores.argmax())], str(np.float32(odds.max()))]


def test_pyt_without_root_dir_reads_no_class_list_of_the_working_folder(
    shell: Shell, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nvidia_tao_deploy.cv.classification_pyt import Spec, classes
    from nvidia_tao_deploy.spec.load import load_spec

    (data.root / "classes.txt").write_text("other\n")
    monkeypatch.chdir(data.root)
    spec = load_spec(Spec, {"dataset": {"test_dataset": {"images_dir": str(data.images)}}})
    assert classes(spec).names == sorted(CLASSES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 0,\n "b": }', "classmap.json:2"),
        ("[1, 2]", "not a class map"),
        ('{"a": "0"}', "not a class map"),
        ('{"a": true}', "not a class map"),
        ('{"a": 0, "b": "1"}', "not a class map"),
        ("{}", "not a class map"),
        ('{"a": 0, "b": 2}', "0 to 1"),
        ('{"a": 0, "b": 0}', "0 to 1"),
        ('{"a": 0, "a": 1}', "twice"),
        (None, "classmap.json"),
    ],
)
def test_class_maps_that_are_none(shell: Shell, data: Data, tmp_path: Path, content: str | None, message: str) -> None:
    data.map.unlink()
    if content is not None:
        data.map.write_text(content)
    text = tmp_path / "experiment.txt"
    text.write_text(f'eval_config {{ eval_dataset_path: "{data.images}" }}\n')
    model = data.model(data.caffe())
    words = ("evaluate", "-e", text, "-m", model, "-c", data.map, "-r", tmp_path / "out")
    assert message in shell.refused(1, "classification_tf1", *words)


def test_a_model_of_another_width_than_the_class_map(shell: Shell, data: Data, tmp_path: Path) -> None:
    data.map.write_text(json.dumps({name: i for i, name in enumerate([*CLASSES, "eel"])}))
    model = data.model(data.caffe())
    text = tmp_path / "experiment.txt"
    text.write_text(f'eval_config {{ eval_dataset_path: "{data.images}" }}\n')
    for action in ("evaluate", "inference"):
        words = (action, "-e", text, "-m", model, "-i", data.images, "-c", data.map, "-r", tmp_path / action)
        message = shell.refused(1, "classification_tf1", *words)
        assert "5 classes" in message
        assert "names 6" in message
        assert not (tmp_path / action / "result.csv").exists()


@pytest.mark.parametrize(
    ("network", "wrong", "message"),
    [
        ("classification_tf1", {"eval_config": {"topk": 3}}, "top_k"),
        ("classification_tf1", {"train_config": {"preprocess_mode": "coffee"}}, "caffe"),
        ("classification_tf1", {"train_config": {"image_mean": {"r": 1.0}}}, "no mean for channel 'b'"),
        ("classification_tf1", {"train_config": {"image_mean": {"x": 1.0}}}, "'x' is not a channel"),
        ("classification_tf1", {"model_config": {"resize_interpolation_method": 2}}, "BICUBIC"),
        ("classification_tf2", {"evaluate": {"class_map": "x"}}, "classmap"),
        ("classification_tf2", {"dataset": {"image_mean": [1, 2]}}, "1 or 3"),
        ("classification_tf2", {"model": {"input_image_depth": 12}}, "16"),
        ("classification_tf2", {"evaluate": {"top_k": 0}}, "top_k"),
        ("classification_pyt", {"dataset": {"augmentation": {"mean": [123.675, 116.28, 103.53]}}}, "on the scale 0..1"),
        ("dino", {"dataset": {"augmentation": {"input_mean": [0.5, 0.5, 2]}}}, "input_mean[2]: 2 does not fit"),
    ],
)
def test_specs_that_are_wrong(shell: Shell, tmp_path: Path, network: str, wrong: Any, message: str) -> None:
    spec = write_spec(tmp_path / "s.yaml", {"results_dir": str(tmp_path), **wrong})
    found = shell.refused(2, network, "evaluate", "-e", spec)
    assert f"{spec}:" in found
    assert message in found


def test_an_unknown_field_of_the_text_form_is_named_with_its_line(shell: Shell, tmp_path: Path) -> None:
    text = tmp_path / "experiment.txt"
    text.write_text("eval_config {\n  top_k: 1\n  image_mean: 3\n}\n")
    words = ("evaluate", "-e", text, "-m", "x", "-r", tmp_path)
    assert f"{text}:3:" in shell.refused(2, "classification_tf1", *words)


@pytest.mark.parametrize(
    ("network", "precision"),
    [
        ("classification_tf1", "fp32"),
        ("classification_tf1", "int8"),
        ("classification_tf2", "fp16"),
        ("classification_tf2", "int8"),
        ("classification_pyt", "int8"),
    ],
)
def test_engines_calibrated_through_the_evaluate_transform(
    shell: Shell, data: Data, tmp_path: Path, network: str, precision: str
) -> None:
    names = {"output": "output", "input_name": "input"} if network == "classification_pyt" else {}
    model = data.model(data.caffe(), **names)
    engine = tmp_path / "engines" / "model.engine"
    tree = {
        "results_dir": str(tmp_path / "out"),
        "gen_trt_engine": {
            "onnx_file": str(model),
            "trt_engine": str(engine),
            "tensorrt": {
                "data_type": precision,
                "max_batch_size": 4,
                "calibration": {"cal_image_dir": str(data.images), "cal_batch_size": 4, "cal_batches": 3},
            },
        },
    }
    spec = write_spec(tmp_path / "s.yaml", tree)
    assert shell(network, "gen_trt_engine", "-e", spec) == 0, shell.out + shell.err
    assert engine.stat().st_size > 0
    manifest = json.loads(next(engine.parent.glob("*.json")).read_text())
    color, center = {"classification_tf1": ("BGR", False), "classification_tf2": ("BGR", True)}.get(
        network, ("RGB", False)
    )
    described = json.dumps(manifest)
    assert f'"color": "{color}"' in described
    assert ("center_crop_bilinear" in described) == center
    assert precision in described


def test_tf2_samples_of_the_older_style_move_their_keys(shell: Shell, data: Data, tmp_path: Path) -> None:
    """Calibration keys right under gen_trt_engine, a workspace in GiB: one note each."""
    tree = {
        "results_dir": str(tmp_path / "out"),
        "gen_trt_engine": {
            "onnx_file": str(data.model(data.caffe())),
            "trt_engine": str(tmp_path / "model.engine"),
            "tensorrt": {"data_type": "int8", "max_workspace_size": 1},
            "cal_image_dir": str(data.images),
            "batch_size": 3,
            "batches": 4,
        },
        "inference": {"model_path": "x"},
        "verbose": True,
    }
    spec = write_spec(tmp_path / "s.yaml", tree)
    assert shell("classification_tf2", "gen_trt_engine", "-e", spec) == 0, shell.out + shell.err
    assert "max_workspace_size is now called gen_trt_engine.tensorrt.workspace_size" in shell.out
    assert "gen_trt_engine.batch_size is now called gen_trt_engine.tensorrt.calibration.cal_batch_size" in shell.out
    assert "12 images" in shell.out


def test_an_engine_needs_a_path(shell: Shell, data: Data, tmp_path: Path) -> None:
    text = tmp_path / "experiment.txt"
    text.write_text("eval_config { top_k: 1 }\n")
    words = ("gen_trt_engine", "-e", text, "-m", data.model(data.caffe()), "-r", tmp_path / "out")
    assert "trt_engine" in shell.refused(2, "classification_tf1", *words)


def test_softmax_is_stable_and_sums_to_one() -> None:
    logits = np.array([[1e4, 1e4, -1e4], [-700, 0, 700]], np.float32)
    found = np.stack([row.scores for row in family.softmax(logits)])
    np.testing.assert_allclose(found, [[0.5, 0.5, 0], [0, 0, 1]], atol=1e-300)
    assert family.softmax(np.empty((0, 3), np.float32)) == []
    assert Classification(found[0]).class_id == 0


def test_tf1_text_of_a_whole_training_is_accepted(data: Data, tmp_path: Path) -> None:
    from nvidia_tao_deploy.cv.classification_tf1 import Spec
    from nvidia_tao_deploy.spec.load import load_spec

    text = tmp_path / "experiment.txt"
    text.write_text(
        'model_config { arch: "resnet" n_layers: 18 use_batch_norm: true all_projections: true freeze_blocks: 0\n'
        '  freeze_blocks: 1 input_image_size: "3,224,224" dropout: 0.1 batch_norm_config { momentum: 0.9 }\n'
        '  activation { activation_type: "relu" activation_parameters { key: "a" value: 1 } } }\n'
        'train_config { train_dataset_path: "/a" val_dataset_path: "/b" preprocess_mode: "torch" n_epochs: 8\n'
        "  optimizer { sgd { lr: 0.01 momentum: 0.9 } } lr_config { cosine { learning_rate: 0.05 } }\n"
        '  image_mean { key: "b" value: 103.939 } image_mean { key: "g" value: 116.779 }\n'
        '  image_mean { key: "r" value: 123.68 } }\n'
        'eval_config { eval_dataset_path: "/c" model_path: "/m" top_k: 0 batch_size: 256 n_workers: 8 }\n'
    )
    spec = load_spec(Spec, text)
    assert spec.notes == []
    assert spec.train_config.image_mean["b"] == np.float32(103.939)
    assert spec.get("model_config.freeze_blocks") == [0, 1]
    same = tmp_path / "experiment.yaml"
    same.write_text(spec.to_yaml())
    assert load_spec(Spec, same) == spec
