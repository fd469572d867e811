"""The trained text networks from the command line, with the specs that users copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell
from onnx import helper, numpy_helper
from PIL import Image
from repository import MODELS, ROOT

METRIC = {"lprnet": "Accuracy", "ocrnet": "Accuracy", "ocrnet_attn": "Accuracy", "ocdnet": "F-measure"}
BAR = 0.9
# What a wrong constant makes of the right input: factor and offset.
BREAKS = {
    "lprnet": {"no scale": (255, 0), "[-1, 1]": (2, -1)},
    "ocrnet": {"no mean": (1, 1), "no mean and std": (0.5, 0.5), "no scale": (255, 254)},
    "ocrnet_attn": {"no mean": (1, 1), "no scale": (255, 254)},
    "ocdnet": {"no scale": (255, 0)},
}


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from samples.text_data import write_plates, write_text_scenes, write_words

    out = tmp_path_factory.mktemp("text")
    write_plates(out, test=40)
    write_words(out, test=40, calibration=60)
    write_text_scenes(out, test=24, calibration=40)
    return out


@pytest.fixture
def words(data: Path, tmp_path: Path) -> Any:
    """The words of a command: a network's example spec of an action, with this test's folders."""

    def make(network: str, action: str, *overrides: str) -> list[object]:
        command = network.removesuffix("_attn")
        text = (ROOT / "specs" / command / f"{action}.yaml").read_text()
        for written, here in (("demo/data", data), ("demo", tmp_path), ("samples/models", MODELS)):
            text = text.replace(f"{written}/", f"{here}/")
        path = tmp_path / f"{network}_{action}.yaml"
        path.write_text(text.replace("prediction: CTC", f"prediction: {'Attn' if command != network else 'CTC'}"))
        return [command, action, "-e", path, *overrides]

    return make


def measured(shell: Shell, command: list[object], network: str) -> float:
    assert shell(*command, "--json") == 0, shell.err
    return float(json.loads(shell.out)[METRIC[network]])


@pytest.mark.parametrize("network", METRIC)
def test_every_precision_reads(shell: Shell, words: Any, tmp_path: Path, network: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    found = {}
    for precision in ("fp32", "fp16") if network == "lprnet" else ("fp32", "fp16", "int8"):
        engine = tmp_path / f"{network}_{precision}.engine"
        overrides = (f"gen_trt_engine.onnx_file={MODELS / network}.onnx", f"gen_trt_engine.trt_engine={engine}")
        build = words(network, "gen_trt_engine", *overrides, f"gen_trt_engine.tensorrt.data_type={precision}")
        assert shell(*build) == 0, shell.err
        evaluate = words(network, "evaluate", f"evaluate.trt_engine={engine}.onnx")
        found[precision] = measured(shell, evaluate, network)
    assert found["fp32"] >= BAR
    assert min(found.values()) >= found["fp32"] - 0.05  # two of 40 lines


@pytest.mark.parametrize(("network", "broken"), [(network, name) for network in BREAKS for name in BREAKS[network]])
def test_a_wrong_constant_breaks_the_metric(
    shell: Shell, words: Any, tmp_path: Path, network: str, broken: str
) -> None:
    model = onnx.load(str(MODELS / f"{network}.onnx"))
    name = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["changed" if each == name else each for each in node.input]
    factor, offset = BREAKS[network][broken]
    for each, value in (("factor", factor), ("offset", offset)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), each))
    model.graph.node.insert(0, helper.make_node("Add", ["scaled", "offset"], ["changed"]))
    model.graph.node.insert(0, helper.make_node("Mul", [name, "factor"], ["scaled"]))
    onnx.save(model, str(tmp_path / "broken.onnx"))
    evaluate = words(network, "evaluate", f"evaluate.trt_engine={tmp_path / 'broken.onnx'}")
    assert measured(shell, evaluate, network) < 0.6


def test_swapped_channels_break_text_detection(shell: Shell, words: Any) -> None:
    evaluate = words("ocdnet", "evaluate", f"evaluate.trt_engine={MODELS / 'ocdnet.onnx'}")
    assert measured(shell, [*evaluate, "dataset.validate_dataset.args.img_mode=RGB"], "ocdnet") < 0.3


@pytest.mark.parametrize("network", ["lprnet", "ocrnet", "ocrnet_attn"])
def test_inference_writes_the_texts(shell: Shell, words: Any, data: Path, tmp_path: Path, network: str) -> None:
    model = MODELS / f"{network}.onnx"
    assert shell(*words(network, "inference", f"inference.trt_engine={model}")) == 0, shell.err
    folder = tmp_path / "results" / network.removesuffix("_attn") / "trt_inference"
    found = {Path(row["image"]).name: row["text"] for row in json.loads((folder / "predictions.json").read_text())}
    if network == "lprnet":
        wanted = {f"{path.stem}.jpg": path.read_text().strip() for path in (data / "plates" / "labels").iterdir()}
    else:
        wanted = dict(line.split() for line in (data / "words" / "test.txt").read_text().splitlines())
    assert np.mean([found[name] == text for name, text in wanted.items()]) >= BAR
    assert len((folder / "predictions.txt").read_text().splitlines()) == len(wanted) == 40


@pytest.mark.parametrize("polygon", ["false", "true"])
def test_inference_outlines_the_lines(shell: Shell, words: Any, data: Path, tmp_path: Path, polygon: str) -> None:
    overrides = (f"inference.trt_engine={MODELS / 'ocdnet.onnx'}", f"inference.polygon={polygon}")
    assert shell(*words("ocdnet", "inference", *overrides)) == 0, shell.err
    folder = tmp_path / "results" / "ocdnet" / "trt_inference"
    lines = 0
    for image in (data / "text_scenes" / "test" / "img").iterdir():
        rows = (folder / f"{image.stem}.txt").read_text().splitlines()
        truth = (data / "text_scenes" / "test" / "gt" / f"gt_{image.stem}.txt").read_text().splitlines()
        lines += len(rows) == len(truth)
        size = Image.open(image).size
        assert Image.open(folder / f"{image.stem}_result.jpg").size == size
        assert Image.open(folder / f"{image.stem}_pred.jpg").size == (160, 128)
        for row in rows:
            *corners, score = map(float, row.split(","))
            points = np.array(corners).reshape(-1, 2)
            assert (points >= 0).all()
            assert (points <= size).all()
            assert 0.55 <= score <= 1
    assert lines >= 20  # of 24 images
