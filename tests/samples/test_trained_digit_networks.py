"""multitask_classification and ml_recog, trained on digits: right through the commands, wrong with a wrong constant."""

from __future__ import annotations

import csv
import json
from ast import literal_eval
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actions.commands import Shell
from PIL import Image
from repository import MODELS, ROOT

SPECS = ROOT / "specs"


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from samples.data import write_digits

    return write_digits(tmp_path_factory.mktemp("digits"), test=60, calibration=80)


def words(network: str, data: Path, out: Path) -> list[str]:
    """The example spec's keys that name files of the demo, pointed at this test's."""
    common = [f"results_dir={out}", f"gen_trt_engine.tensorrt.calibration.cal_image_dir=[{data / 'calibration'}]"]
    common += [f"gen_trt_engine.onnx_file={MODELS / network}.onnx"]
    if network == "ml_recog":
        folders = {"reference": data / "calibration", "query": data / "test"}
        common += [f"dataset.val_dataset.{key}={folder}" for key, folder in folders.items()]
        return [*common, f"inference.input_path={data / 'test'}"]
    tasks = {"image_directory_path": data, "val_csv_path": data / "test.csv"}
    common += [f"dataset_config.{key}={path}" for key, path in tasks.items()]
    return common + [f"{action}.class_map={data / 'class_mapping.json'}" for action in ("evaluate", "inference")]


def evaluated(shell: Shell, network: str, model: Path, data: Path, out: Path, *more: str) -> dict[str, Any]:
    spec = SPECS / network / "evaluate.yaml"
    code = shell(network, "evaluate", "-e", spec, *words(network, data, out), f"evaluate.trt_engine={model}", *more)
    assert code == 0, shell.err
    found: dict[str, Any] = json.loads((out / "trt_evaluate" / "results.json").read_text())
    return found


BARS = {"multitask_classification": ("digit", "decoy"), "ml_recog": ("top_1_accuracy", "top_k_accuracy")}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("network", BARS)
def test_every_precision_reads_the_digits(
    shell: Shell, data: Path, tmp_path: Path, network: str, precision: str
) -> None:
    engine = tmp_path / "model.engine"
    settings = (f"gen_trt_engine.trt_engine={engine}", f"gen_trt_engine.tensorrt.data_type={precision}")
    build = ("gen_trt_engine", "-e", SPECS / network / "gen_trt_engine.yaml", *words(network, data, tmp_path))
    assert shell(network, *build, *settings) == 0, shell.err
    found = evaluated(shell, network, Path(f"{engine}.onnx"), data, tmp_path)
    assert min(found[key] for key in BARS[network]) >= 0.93
    if precision == "int8":
        exact = evaluated(shell, network, MODELS / f"{network}.onnx", data, tmp_path)
        assert all(found[key] >= exact[key] - 0.02 for key in BARS[network])


def test_a_wrong_constant_breaks_recognition(shell: Shell, data: Path, tmp_path: Path) -> None:
    model = MODELS / "ml_recog.onnx"
    for wrong in ("dataset.pixel_mean=[0,0,0]", "dataset.pixel_std=[1,1,1]"):
        assert evaluated(shell, "ml_recog", model, data, tmp_path, wrong)["top_1_accuracy"] < 0.85


@pytest.mark.parametrize("network", BARS)
def test_swapped_channels_break_both(shell: Shell, data: Path, tmp_path: Path, network: str) -> None:
    swapped = tmp_path / "digits"
    for path in sorted(data.rglob("*.*")):
        target = swapped / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        # A gallery read with the same mistake could still match: only the queries are swapped.
        if path.suffix == ".png" and "test" in path.parts:
            Image.fromarray(np.asarray(Image.open(path))[..., ::-1]).save(target)
        else:
            target.write_bytes(path.read_bytes())
    found = evaluated(shell, network, MODELS / f"{network}.onnx", swapped, tmp_path)
    assert max(found[key] for key in BARS[network][:1]) < 0.5


def test_without_the_mean_the_tasks_break(data: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(MODELS / "multitask_classification.onnx"))
    with (data / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    sized = [Image.open(data / row["file"]).resize((64, 64), Image.Resampling.BILINEAR) for row in rows]
    images = np.stack([np.asarray(image, np.float32)[..., ::-1].transpose(2, 0, 1) for image in sized])
    classes = json.loads((data / "class_mapping.json").read_text())["class_mapping"]

    def accuracy(images: np.ndarray) -> list[float]:
        found = dict(zip(["decoy", "digit"], session.run(None, {"input_1": images}), strict=True))
        right = {
            task: [classes[task][str(best)] == row[task] for best, row in zip(scores.argmax(axis=1), rows, strict=True)]
            for task, scores in found.items()
        }
        return [float(np.mean(hits)) for hits in right.values()]

    mean = np.array([103.939, 116.779, 123.68], np.float32)[:, None, None]
    assert min(accuracy(images - mean)) >= 0.93
    assert max(accuracy(images)) < 0.9
    assert max(accuracy((images - mean) / 255)) < 0.9


def test_inference_writes_the_tables(shell: Shell, data: Path, tmp_path: Path) -> None:
    for network in BARS:
        spec = SPECS / network / "inference.yaml"
        model = f"inference.trt_engine={MODELS / network}.onnx"
        assert shell(network, "inference", "-e", spec, *words(network, data, tmp_path / network), model) == 0, shell.err
    with (tmp_path / "multitask_classification/trt_inference/result.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["filename", "decoy", "digit"]
    right = [Path(name).parent.name == digit.split()[0] for name, _, digit in rows]
    assert len(rows) == 60
    assert np.mean(right) >= 0.93
    with (tmp_path / "ml_recog/trt_inference/trt_result.csv").open() as file:
        neighbours = list(csv.reader(file))
    assert len(neighbours) == 60
    for _, names, distances in neighbours:
        assert len(literal_eval(names)) == 5
        assert literal_eval(distances) == sorted(literal_eval(distances))
    assert np.mean([Path(path).parent.name == literal_eval(names)[0] for path, names, _ in neighbours]) >= 0.93
