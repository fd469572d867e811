"""The trained sample clip from the command line, with the specs that users copy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from actions.commands import Shell
from onnx import helper, numpy_helper, utils
from PIL import Image
from repository import MODELS, ROOT

RETRIEVAL, CLASSES = 0.9, 0.9
BREAKS = {"no scale": (255, 432), "no mean": (1, 1.7), "[0, 1]": (0.27, 0.45)}


@pytest.fixture
def shell(capsys):
    return Shell(capsys)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from samples.caption_data import write_captions
    from samples.data import write_digits

    out = tmp_path_factory.mktemp("captions")
    write_captions(out, test=40, calibration=40)
    write_digits(out, test=40, calibration=0)
    return out


@pytest.fixture
def words(data, tmp_path):
    """The words of a command: the example spec of an action, with this test's folders."""

    def make(action: str, *overrides: str) -> list[object]:
        text = (ROOT / "specs" / "clip" / f"{action}.yaml").read_text()
        for written, here in (("demo/data", data), ("demo", tmp_path), ("samples/models", MODELS)):
            text = text.replace(f"{written}/", f"{here}/")
        path = tmp_path / f"{action}.yaml"
        path.write_text(text)
        return ["clip", action, "-e", path, *overrides]

    return make


def measured(shell, words, tmp_path, *overrides: str) -> dict:
    assert shell(*words("evaluate", *overrides)) == 0, shell.err
    return json.loads((tmp_path / "results" / "clip" / "trt_evaluate" / "results.json").read_text())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_finds_captions_and_digits(shell, words, tmp_path, precision):
    assert shell(*words("gen_trt_engine", f"gen_trt_engine.tensorrt.data_type={precision}")) == 0, shell.err
    engine = tmp_path / "engines" / f"clip_{precision}.engine.onnx"
    found = measured(shell, words, tmp_path, f"evaluate.trt_engine={engine}")
    assert found["num_images"] == 40
    assert min(found["t2i_mAP"], found["i2t_mAP"]) >= RETRIEVAL
    assert min(found["t2i_AUC"], found["i2t_AUC"]) >= 0.99
    assert found["zero_shot_top_1"] >= CLASSES


@pytest.fixture
def towers(tmp_path):
    """clip_vision.onnx and clip_text.onnx."""
    folder = tmp_path / "two"
    folder.mkdir()
    shutil.copytree(MODELS / "clip_tokenizer", folder / "clip_tokenizer")
    shutil.copy(MODELS / "clip_config.yaml", folder)
    for tower, inputs, output in (("vision", ["image"], "image"), ("text", ["input_ids", "attention_mask"], "text")):
        path = folder / f"clip_{tower}.onnx"
        utils.extract_model(str(MODELS / "clip.onnx"), str(path), inputs, [f"{output}_embedding", "logit_scale"])
    return folder


def test_two_towers_do_as_well(shell, words, tmp_path, towers):
    found = measured(shell, words, tmp_path, f"evaluate.trt_engine={towers}")
    one = measured(shell, words, tmp_path, f"evaluate.trt_engine={MODELS / 'clip.onnx'}")
    assert found["t2i_mAP"] == pytest.approx(one["t2i_mAP"])
    assert found["zero_shot_AUC"] == pytest.approx(one["zero_shot_AUC"])


def test_two_towers_are_compared_as_one_model(shell, words, tmp_path, data, towers):
    calibration = f"gen_trt_engine.tensorrt.calibration.cal_image_dir=[{data / 'captions' / 'calibration'}]"
    quick = ("compare.precisions=[int8]", "compare.timing_seconds=0.05", "compare.repeats=1")
    command = words("evaluate", f"gen_trt_engine.onnx_file={towers / 'clip.onnx'}", calibration, *quick)
    assert shell("clip", "compare", *command[2:]) == 0, shell.err
    report = json.loads((tmp_path / "results" / "clip" / "compare" / "compare.json").read_text())
    fp32, _, int8 = report["precisions"]
    assert [row["precision"] for row in report["precisions"]] == ["fp32", "fp16", "int8"]
    assert min(fp32["metrics"]["t2i_mAP"], int8["metrics"]["i2t_mAP"]) >= RETRIEVAL
    folder = tmp_path / "results" / "clip" / "compare" / "int8"
    sizes = [(folder / f"clip_{tower}.engine").stat().st_size for tower in ("vision", "text")]
    assert int8["engine_bytes"] == sum(sizes)
    assert int8["layers"]["int8"] > 0
    missing = f"gen_trt_engine.onnx_file={towers / 'none.onnx'}"
    assert "no such model file" in shell.refused(1, "clip", "compare", *command[2:], missing)


@pytest.mark.filterwarnings("error")  # NaN: a class whose texts the subset leaves out
def test_one_of_two_towers_is_diagnosed(shell, words, tmp_path, data, towers):
    calibration = f"gen_trt_engine.tensorrt.calibration.cal_image_dir=[{data / 'captions' / 'calibration'}]"
    method = "gen_trt_engine.tensorrt.calibration.method=minmax"
    command = ["diagnose", *words("evaluate")[2:], calibration, method, "diagnose.budget_minutes=0.05"]
    both = towers / "clip.onnx"
    message = shell.refused(2, "clip", *command, f"gen_trt_engine.onnx_file={both}")
    assert f"{both} stands for {towers / 'clip_vision.onnx'} and {towers / 'clip_text.onnx'}" in message
    assert f"gen_trt_engine.onnx_file={towers / 'clip_vision.onnx'}" in message
    for tower in ("vision", "text"):
        file = towers / f"clip_{tower}.onnx"
        assert shell("clip", *command, f"gen_trt_engine.onnx_file={file}") == 0, shell.err
        report = json.loads((tmp_path / "results" / "clip" / "diagnose" / "diagnose.json").read_text())
        layers = {node.name for node in onnx.load(file).graph.node}
        assert report["layers"]
        assert {row["name"] for row in report["layers"]} <= layers
        assert report["fp32"] > RETRIEVAL
        assert report["unit"] == "samples"


def test_both_towers_are_timed_where_texts_stand_before_images(shell, words, tmp_path, data, towers, monkeypatch):
    """Class texts, then images of class folders: a batch of the first samples has no image at all."""
    seen = []

    def run_for(model, feeds, seconds, lanes=1):
        seen.append({name: rows.reshape(len(rows), -1).any(axis=1) for name, rows in feeds.items()})
        return [0.1], 0.1

    monkeypatch.setattr("nvidia_tao_deploy.actions.timing.run_for", run_for)
    monkeypatch.setattr("nvidia_tao_deploy.actions.compare.run_for", run_for)
    quick = ("compare.precisions=[fp32]", "compare.batch_sizes=[4,1]", "compare.repeats=1", "dataset.val.datasets=[]")
    command = words("evaluate", f"gen_trt_engine.onnx_file={towers / 'clip.onnx'}", *quick)
    assert shell("clip", "compare", *command[2:]) == 0, shell.err
    assert {"image", "input_ids"} <= set(seen[0])
    assert {len(rows) for feeds in seen for rows in feeds.values()} == {4, 1}
    assert all(rows.all() for feeds in seen for rows in feeds.values())


def broken(tmp_path: Path, factor: float, offset: float) -> Path:
    """The model behind a wrong constant, its sidecars beside it."""
    folder = tmp_path / "broken"
    shutil.copytree(MODELS / "clip_tokenizer", folder / "clip_tokenizer")
    shutil.copy(MODELS / "clip_config.yaml", folder)
    model = onnx.load(MODELS / "clip.onnx")
    for node in model.graph.node:
        node.input[:] = ["wrong" if name == "image" else name for name in node.input]
    model.graph.initializer.extend(
        numpy_helper.from_array(np.float32(value), name) for name, value in (("factor", factor), ("offset", offset))
    )
    model.graph.node.insert(0, helper.make_node("Mul", ["image", "factor"], ["scaled"]))
    model.graph.node.insert(1, helper.make_node("Add", ["scaled", "offset"], ["wrong"]))
    onnx.save(model, folder / "clip.onnx")
    return folder / "clip.onnx"


@pytest.mark.parametrize("what", BREAKS)
def test_a_wrong_constant_breaks_it(shell, words, tmp_path, what):
    found = measured(shell, words, tmp_path, f"evaluate.trt_engine={broken(tmp_path, *BREAKS[what])}")
    assert found["t2i_mAP"] < RETRIEVAL - 0.1


def test_swapped_channels_break_it(shell, words, tmp_path, data):
    """Orange becomes blue: it is the captions with the inks exchanged that are found."""
    for path in (data / "captions" / "test").iterdir():
        if path.suffix == ".png":
            (tmp_path / "swapped").mkdir(exist_ok=True)
            Image.merge("RGB", Image.open(path).split()[::-1]).save(tmp_path / "swapped" / path.name)
    source = f"[{{image_dir: {tmp_path / 'swapped'}, caption_dir: {data / 'captions' / 'test'}}}]"
    model = f"evaluate.trt_engine={MODELS / 'clip.onnx'}"
    assert measured(shell, words, tmp_path, model, f"dataset.val.datasets={source}")["t2i_mAP"] < 0.5


def test_inference_names_the_digits(shell, words, tmp_path):
    assert shell(*words("inference", f"inference.trt_engine={MODELS / 'clip.onnx'}")) == 0, shell.err
    folder = tmp_path / "results" / "clip" / "trt_inference"
    with h5py.File(folder / "image_embeddings.h5") as file:
        assert file["embeddings"].shape == (40, 64)
    rows = [line.split(",") for line in (folder / "image_to_text.csv").read_text().splitlines()[1:]]
    best = [(Path(row[0]).parent.name, row[2]) for row in rows if row[1] == "1"]
    assert len(best) == 40
    assert sum(f"a photo of a {name}" == text for name, text in best) >= 40 * CLASSES
