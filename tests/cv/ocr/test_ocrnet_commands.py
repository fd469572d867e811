"""ocrnet end to end, CTC and attention; the transform; mended defects; bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actions.commands import Shell, write_spec
from cv.ocr import ocr_replay as replay
from cv.ocr.spec_trees import check_tree
from PIL import Image

from nvidia_tao_deploy.cv.ocrnet import transform
from nvidia_tao_deploy.cv.ocrnet.spec import Spec
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec

CHARS = list("abcdefghij0123456789")
TEXTS = ["abc", "", "aabb", "0123456789", "j", "a1b2", "hh"]
LABELS = ["abc", "", "aabb", "0123456780", "J", "a1b2", "hh"]
NAMES = ["4.png", "2.png", "7.bmp", "1.png", "5.PNG", "3.png", "6.png"]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    replay.write_images(tmp_path / "images", NAMES)
    lines = [f"{name} {label}" for name, label in zip(NAMES, LABELS, strict=True)]
    (tmp_path / "gt.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "chars.txt").write_text("\n".join(CHARS) + "\n")
    write_model(tmp_path)
    return tmp_path


def steps_of(kind: str) -> dict[str, np.ndarray]:
    if kind == "CTC":
        return replay.spell(TEXTS, ["", *CHARS], 25, 0)
    rows = [[*(2 + CHARS.index(c) for c in text), *([1] if len(text) < 10 else []), *[5] * 10][:10] for text in TEXTS]
    probabilities = np.random.default_rng(2).uniform(0.5, 1, (7, 10)).astype(np.float32)
    return {"ids": np.array(rows), "probabilities": probabilities}


def write_model(folder: Path, kind: str = "CTC", *, batch: int | str = "N", channels: int = 1) -> Path:
    steps = steps_of(kind)
    tables = {"output_id": steps["ids"].astype(np.int32), "output_prob": steps["probabilities"]}
    path = folder / "ocrnet.onnx"
    extra = {"4321": np.zeros((7, 2), np.float32)}
    shape = [batch, channels, 32, 100]
    return replay.write_replay(path, shape, tables, input_name="input", to_level=(127.5, 127.5), extra=extra)


def tree(folder: Path, kind: str = "CTC") -> dict[str, Any]:
    return {
        "results_dir": str(folder / "out"),
        "model": {"prediction": kind},
        "dataset": {"character_list_file": str(folder / "chars.txt")},
        "evaluate": {
            "trt_engine": str(folder / "ocrnet.onnx"),
            "test_dataset_dir": str(folder / "images"),
            "test_dataset_gt_file": str(folder / "gt.txt"),
            "batch_size": 4,
        },
        "inference": {"trt_engine": str(folder / "ocrnet.onnx"), "inference_dataset_dir": str(folder / "images")},
    }


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out/trt_evaluate/results.json").read_text())
    return found


@pytest.mark.parametrize(("kind", "batch", "channels"), [("CTC", "N", 1), ("Attn", 4, 1), ("CTC", 1, 3)])
def test_evaluate_and_inference(shell: Shell, data: Path, kind: str, batch: int | str, channels: int) -> None:
    write_model(data, kind, batch=batch, channels=channels)
    spec = write_spec(data / "s.yaml", tree(data, kind))
    assert shell("ocrnet", "evaluate", "-e", spec) == 0, shell.err
    found = results(data)
    assert found["Accuracy"] == pytest.approx(5 / 7)  # of all 7, not of one full batch
    assert found["character_accuracy"] == pytest.approx(np.mean([1, 1, 1, 0.9, 0, 1, 1]))
    assert found["labels_outside_dictionary"] == 1
    assert "'J' (1)" in shell.out
    assert shell("ocrnet", "inference", "-e", spec, "inference.batch_size=3") == 0, shell.err
    lines = (data / "out/trt_inference/predictions.txt").read_text().splitlines()
    steps = steps_of(kind)
    for line, number in zip(lines, np.argsort(NAMES), strict=True):
        ids, probabilities = steps["ids"][number], steps["probabilities"][number]
        ended = np.flatnonzero(ids == 1)
        used = probabilities if kind == "CTC" or not len(ended) else probabilities[: ended[0]]
        start = f"{data / 'images' / NAMES[number]}: {TEXTS[number]} "
        assert line.startswith(start)
        assert float(line[len(start) :]) == pytest.approx(float(np.prod(used.astype(np.float64))), rel=1e-5)
        assert line in shell.out


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engine(shell: Shell, data: Path, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    content = tree(data)
    content["gen_trt_engine"] = {
        "onnx_file": str(data / "ocrnet.onnx"),
        "trt_engine": str(data / "ocr.engine"),
        "tensorrt": {
            "data_type": precision,
            "max_batch_size": 4,
            "calibration": {"cal_image_dir": str(data / "images"), "cal_batch_size": 1, "cal_batches": 7},
        },
    }
    spec = write_spec(data / "s.yaml", content)
    assert shell("ocrnet", "gen_trt_engine", "-e", spec) == 0, shell.err
    prepared = next(p for p in data.glob("ocr*.onnx") if p.stem != "ocrnet")
    assert shell("ocrnet", "evaluate", "-e", spec, f"evaluate.trt_engine={prepared}") == 0, shell.err
    assert results(data)["Accuracy"] == pytest.approx(5 / 7)
    manifest = json.loads(next(data.glob("ocr*.json")).read_text())
    assert manifest["labels"] == CHARS


def test_transform_is_pillow_bicubic(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 170, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    out = {"input": np.zeros((1, 32, 100), np.float32)}
    ports = Ports({"input": TensorInfo("input", (None, 1, 32, 100), np.dtype(np.float32))}, {})
    transform(Spec(), ports)(Sample("a", (tmp_path / "a.png",)), out)
    grey = Image.open(tmp_path / "a.png").convert("L").resize((100, 32), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(out["input"][0], (np.asarray(grey, np.float32) / 255 - 0.5) / 0.5, atol=1e-6)


@pytest.mark.parametrize(("size", "wide"), [((70, 41), 55), ((33, 50), 22), ((170, 50), 100), ((100, 32), 100)])
def test_keep_aspect_ratio(tmp_path: Path, size: tuple[int, int], wide: int) -> None:
    """To the model's height, the width rounded up and at most the model's; its last column fills the rest."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    out = {"input": np.zeros((1, 32, 100), np.float32)}
    ports = Ports({"input": TensorInfo("input", (None, 1, 32, 100), np.dtype(np.float32))}, {})
    spec = load_spec(Spec, {"dataset": {"augmentation": {"keep_aspect_ratio": True}}})
    transform(spec, ports)(Sample("a", (tmp_path / "a.png",)), out)
    found = np.rint((out["input"][0] * 0.5 + 0.5) * 255)
    resized = np.asarray(Image.fromarray(pixels).resize((wide, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(found[:, :wide], resized)
    assert (found[:, wide:] == resized[:, -1:]).all()
    assert transform(Spec(), ports).describe()["resize"] == "stretch_bicubic"


def test_bad_input(shell: Shell, data: Path) -> None:
    spec = write_spec(data / "s.yaml", tree(data))
    message = shell.refused(2, "ocrnet", "evaluate", "-e", spec, "evaluate.input_width=120")
    assert "width 120 is not that of the model's input" in message
    assert "evaluate.input_width" in message
    assert "test_dataset_gt_file" in shell.refused(
        2, "ocrnet", "evaluate", "-e", spec, "evaluate.test_dataset_gt_file=null"
    )
    with (data / "gt.txt").open("a") as file:
        file.write("\n\ngone.png x\n4.png abc d\n")
    assert shell("ocrnet", "evaluate", "-e", spec) == 0, shell.err
    assert "gone.png (line 10, no such file)" in shell.out
    assert "2 blank lines" in shell.out
    assert results(data)["Accuracy"] == pytest.approx(5 / 8)  # the label with a space counts as wrong
    assert "gone.png" in shell.refused(1, "ocrnet", "evaluate", "-e", spec, "strict=true")
    assert "prediction" in shell.refused(2, "ocrnet", "evaluate", "-e", spec, "model.prediction=Greedy")
    path = write_spec(data / "typo.yaml", {**tree(data), "evaluate": {"batchsize": 3}})
    assert "batch_size" in shell.refused(2, "ocrnet", "evaluate", "-e", path)


def test_another_networks_model_is_refused(shell: Shell, data: Path) -> None:
    """A model of lprnet has ids and probabilities too; its names, or the manifest of its engine, give it away."""
    spec = write_spec(data / "s.yaml", tree(data))
    steps = steps_of("CTC")
    tables = {"tf_op_layer_ArgMax:0": steps["ids"].astype(np.int32), "tf_op_layer_Max:0": steps["probabilities"]}
    path, settings = data / "lpr.onnx", {"input_name": "input", "to_level": (127.5, 127.5)}
    replay.write_replay(path, ["N", 1, 32, 100], tables, **settings)
    message = shell.refused(1, "ocrnet", "evaluate", "-e", spec, f"evaluate.trt_engine={path}")
    for words in ("'output_id'", "'output_prob'", "tf_op_layer_ArgMax:0 int32", "as lprnet has", "Run lprnet with it"):
        assert words in message
    engine = data / "a.engine"
    replay.write_replay(
        Path(f"{engine}.onnx"), ["N", 1, 32, 100], dict(zip("ab", tables.values(), strict=True)), **settings
    )
    words = ("ocrnet", "evaluate", "-e", spec, f"evaluate.trt_engine={engine}.onnx")
    assert shell(*words) == 0, shell.err  # names that mean nothing: told apart by type
    manifest = {"runtime": "tensorrt", "runtime_version": "10", "precision": "fp32"}
    Path(f"{engine}.json").write_text(json.dumps({**manifest, "network": "lprnet"}))
    assert "was built for lprnet, and this is ocrnet" in shell.refused(1, *words)
    Path(f"{engine}.json").write_text(json.dumps({**manifest, "network": "ocrnet"}))
    assert shell(*words) == 0, shell.err


@pytest.mark.parametrize(("kind", "right"), [("CTC", "CTC"), ("Attn", "attention (Attn)")])
def test_the_wrong_prediction_gets_a_hint(shell: Shell, data: Path, kind: str, right: str) -> None:
    write_model(data, kind)
    (data / "chars.txt").write_text("\n".join([*CHARS, "x", "y"]) + "\n")  # so that every id has a class
    spec = write_spec(data / "s.yaml", tree(data, kind))
    assert shell("ocrnet", "evaluate", "-e", spec) == 0, shell.err
    assert "model.prediction" not in shell.out
    wrong = "Attn" if kind == "CTC" else "CTC"
    assert shell("ocrnet", "evaluate", "-e", spec, f"model.prediction={wrong}") == 0, shell.err
    assert shell.out.count(f"note: most ids look like {right}: check model.prediction") == 1


def test_the_complete_tree_and_no_typo(tmp_path: Path) -> None:
    values = {"data_type": "FP16", "layers_precision": ["*:fp32"], "prediction": "Attn"}
    check_tree(Spec, "ocrnet", values, {"evaluate": "test_dataset_dir", "dataset": "character_list_file"}, tmp_path)
