"""lprnet end to end: numbers, lines and files, in both spec styles; every mended defect; bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actions.commands import Shell, write_spec
from cv.ocr import ocr_replay as replay
from PIL import Image

from nvidia_tao_deploy.cv.lprnet import NETWORK, transform
from nvidia_tao_deploy.cv.lprnet.spec import Spec
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec

CHARS = list("0123456789ABCDEFGHIJ")
TEXTS = ["AB12", "", "0011", "J9J9J9", "A", "HH", "1234567"]
LABELS = ["AB12", "", "0011", "J9J9J8", "a", "HH", "12345é7"]
NAMES = [f"{name}.png" for name in ("g", "a", "c", "b", "f", "e", "d")]  # do not sort in the order of writing


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    replay.write_images(tmp_path / "images", NAMES)
    (tmp_path / "labels").mkdir()
    for name, label in zip(NAMES, LABELS, strict=True):
        (tmp_path / "labels" / f"{Path(name).stem}.txt").write_text(f" {label} \nsecond line\n")
    (tmp_path / "chars.txt").write_text("\n".join(CHARS) + "\n")
    write_model(tmp_path)
    return tmp_path


def write_model(folder: Path, *, batch: int | str = "N", channels: int = 3, names: bool = True) -> Path:
    steps = replay.spell(TEXTS, CHARS, 24, len(CHARS))
    ids, probabilities = steps["ids"].astype(np.int64), steps["probabilities"]
    tables = {"tf_op_layer_Max": probabilities, "tf_op_layer_ArgMax": ids}  # the other order: types decide
    if not names:
        tables = {"one": probabilities, "two": ids.astype(np.int32)}
    shape = [batch, channels, 48, 96]
    path = folder / "lprnet.onnx"
    return replay.write_replay(path, shape, tables, input_name="image_input", to_level=(255, 0))


def tree(folder: Path, **sections: Any) -> dict[str, Any]:
    source = {"image_directory_path": str(folder / "images"), "label_directory_path": str(folder / "labels")}
    return {
        "results_dir": str(folder / "out"),
        "dataset_config": {"validation_data_sources": [source], "characters_list_file": str(folder / "chars.txt")},
        "evaluate": {"trt_engine": str(folder / "lprnet.onnx")},
        "inference": {"trt_engine": str(folder / "lprnet.onnx")},
        **sections,
    }


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.parametrize(("batch", "channels", "names"), [("N", 3, True), (4, 3, False), (1, 1, True)])
def test_evaluate(shell: Shell, data: Path, batch: int | str, channels: int, names: bool) -> None:
    """7 plates in batches of 4: the last 3 count too; 4 of 7 are right."""
    write_model(data, batch=batch, channels=channels, names=names)
    spec = write_spec(data / "s.yaml", tree(data))
    assert shell("lprnet", "evaluate", "-e", spec, "-b", 4) == 0, shell.err
    found = results(data / "out/trt_evaluate")
    assert next(iter(found)) == "Accuracy"
    assert found["Accuracy"] == pytest.approx(4 / 7)
    assert found["character_accuracy"] == pytest.approx(np.mean([1, 1, 1, 5 / 6, 0, 1, 6 / 7]))
    assert found["labels_outside_dictionary"] == 2
    assert found["images_evaluated"] == 7
    assert "2 labels hold characters outside the dictionary: 'a' (1), 'é' (1); in d.png, f.png" in shell.out
    assert "Accuracy: 4/7" in shell.out


def test_text_specs_and_flags(shell: Shell, data: Path) -> None:
    text = data / "spec file.txt"
    text.write_text(
        f'dataset_config {{ validation_data_sources {{ image_directory_path: "{data / "images"}" '
        f'label_directory_path: "{data / "labels"}" }} characters_list_file: "{data / "chars.txt"}" }}\n'
        "eval_config { batch_size: 3 }\nlpr_config { max_label_length: 8 arch: 'baseline' }\n"
    )
    words = ("-e", text, "-m", data / "lprnet.onnx", "-r", data / "text")
    assert shell("lprnet", "evaluate", *words) == 0, shell.err
    assert results(data / "text")["Accuracy"] == pytest.approx(4 / 7)
    assert shell("lprnet", "inference", *words, "-i", data / "images") == 0, shell.err
    assert f"{data / 'images' / 'g.png'}: AB12 \n" in shell.out
    lines = (data / "text" / "predictions.txt").read_text().splitlines()
    order = np.argsort(NAMES)
    assert lines == [f"{data / 'images' / NAMES[i]}: {TEXTS[i]} " for i in order]
    table = json.loads((data / "text" / "predictions.json").read_text())
    assert [entry["text"] for entry in table] == [TEXTS[i] for i in order]
    assert [len(entry["character_confidences"]) for entry in table] == [len(TEXTS[i]) for i in order]
    spec = load_spec(Spec, text)
    assert NETWORK.batch_size(spec, "evaluate") == 3
    assert NETWORK.batch_size(load_spec(Spec, text, ["evaluate.batch_size=5"]), "evaluate") == 5
    assert list(NETWORK.labels(spec)) == CHARS


def test_inference_reads_every_source(shell: Shell, data: Path) -> None:
    """Two sources, no labels needed; the established code wants exactly one."""
    replay.write_images(data / "more", ["z.png"])
    content = tree(data)
    content["dataset_config"]["validation_data_sources"] += [{"image_directory_path": str(data / "more")}]
    assert shell("lprnet", "inference", "-e", write_spec(data / "s.yaml", content)) == 0, shell.err
    assert len((data / "out/trt_inference/predictions.txt").read_text().splitlines()) == 8
    message = shell.refused(2, "lprnet", "evaluate", "-e", data / "s.yaml")
    assert "validation source 2 has no label_directory_path" in message


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engine(shell: Shell, data: Path, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    engine = data / "lpr.engine"
    words = ("-m", data / "lprnet.onnx", "--data_type", precision, "--engine_file", engine, "--max_batch_size", 4)
    assert shell("lprnet", "gen_trt_engine", *words, "-r", data / "gen") == 0, shell.err
    assert engine.stat().st_size > 0
    prepared = next(data.glob("lpr*.onnx.onnx"), None) or next(p for p in data.glob("lpr*.onnx") if p.stem != "lprnet")
    spec = write_spec(data / "s.yaml", tree(data))
    assert shell("lprnet", "evaluate", "-e", spec, "-m", prepared, "-b", 2) == 0, shell.err
    assert results(data / "out/trt_evaluate")["Accuracy"] == pytest.approx(4 / 7)


def test_no_int8(shell: Shell, data: Path) -> None:
    shell.refused(
        2, "lprnet", "gen_trt_engine", "-m", "x.onnx", "--data_type", "int8", "-r", data, "--engine_file", "e"
    )
    spec = write_spec(data / "s.yaml", tree(data, gen_trt_engine={"tensorrt": {"data_type": "INT8"}}))
    assert "data_type" in shell.refused(2, "lprnet", "gen_trt_engine", "-e", spec)


def test_bad_input(shell: Shell, data: Path) -> None:
    """Images without label, broken images, a dictionary that is too short, another network's model."""
    spec = write_spec(data / "s.yaml", tree(data))
    (data / "labels" / "g.txt").unlink()
    (data / "images" / "e.png").write_bytes(b"no image")
    assert shell("lprnet", "evaluate", "-e", spec) == 0, shell.err
    assert "1 image without a label is left out: g.png" in shell.out
    assert "e.png" in shell.out
    assert results(data / "out/trt_evaluate")["Accuracy"] == pytest.approx(2 / 5)
    assert "g.png" in shell.refused(1, "lprnet", "evaluate", "-e", spec, "strict=true")
    (data / "chars.txt").write_text("0\n1\n")
    assert "class ids" in shell.refused(1, "lprnet", "evaluate", "-e", spec)
    steps = np.zeros((7, 4), np.float32)
    tables = {"a": steps, "b": steps}
    replay.write_replay(data / "lprnet.onnx", ["N", 3, 48, 96], tables, input_name="image_input", to_level=(255, 0))
    assert "integer class ids" in shell.refused(1, "lprnet", "evaluate", "-e", spec)
    (data / "chars.txt").unlink()
    assert "chars.txt" in shell.refused(1, "lprnet", "evaluate", "-e", spec)


def test_transform_is_opencv_on_whole_levels_of_the_upright_image(tmp_path: Path) -> None:
    import cv2

    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.jpg"
        Image.fromarray(pixels).save(path, exif=exif, quality=95)
        out = {"image_input": np.zeros((3, 48, 96), np.float32)}
        ports = Ports({"image_input": TensorInfo("image_input", (None, 3, 48, 96), np.dtype(np.float32))}, {})
        geometry = transform(Spec(), ports)(Sample("x", (path,)), out)
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        expected = (cv2.resize(image, (96, 48)).astype(np.float64) / 255).astype(np.float32).transpose(2, 0, 1)
        assert geometry.source_size == (image.shape[1], image.shape[0])
        np.testing.assert_allclose(out["image_input"], expected, atol=1e-7)


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "deep.png"])
def test_grey_is_opencvs(tmp_path: Path, name: str) -> None:
    """Of saturated colours the luma that a JPEG stores is tens of levels off the one of its RGB pixels."""
    import cv2

    path = tmp_path / name
    pixels = np.random.default_rng(0).integers(0, 2, (30, 50, 3)) * 255
    cv2.imwrite(str(path), (pixels * 257).astype(np.uint16) if name == "deep.png" else pixels)
    out = {"image_input": np.zeros((1, 48, 96), np.float32)}
    ports = Ports({"image_input": TensorInfo("image_input", (None, 1, 48, 96), np.dtype(np.float32))}, {})
    transform(Spec(), ports)(Sample("x", (path,)), out)
    expected = cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (96, 48)).astype(np.float32) / 255
    np.testing.assert_allclose(out["image_input"][0], expected, atol=1e-7)


def test_the_complete_tree_and_no_typo(tmp_path: Path) -> None:
    from cv.kitti.test_kitti_specs import lines_of

    lines = lines_of("lprnet", "Experiment")
    path = tmp_path / "spec.txt"
    path.write_text("\n".join(lines) + "\n")
    spec = load_spec(Spec, path)
    assert spec.notes == []
    assert spec.eval_config.batch_size == 8
    number = next(i for i, line in enumerate(lines) if "batch_size" in line)
    lines[number] = lines[number].replace("batch_size", "batchsize")
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(SpecError) as caught:
        load_spec(Spec, path)
    assert f"{path}:{number + 1}:" in str(caught.value)
