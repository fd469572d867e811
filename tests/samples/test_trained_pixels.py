"""The trained segformer, unet, visual_changenet, optical_inspection and depth_net from the command line.

Commands run with the example specs as they stand, in a folder that looks like the repository.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell
from PIL import Image
from repository import MODELS, ROOT

from nvidia_tao_deploy.data.depth import read_map
from samples.boards_data import write_boards
from samples.depth_data import write_depth
from samples.networks import SAMPLE_NETWORKS
from samples.pixels_data import write_changes, write_masks

BARS = {"segformer": 0.95, "unet": 0.95, "visual_changenet": 0.97, "optical_inspection": 96.0, "depth_net": 0.96}
TENSORS = {
    "segformer": ({"input": (3, 128, 160)}, {"output": (4, 32, 40)}, 17),
    "unet": ({"input_1": (3, 128, 160)}, {"argmax_1": (128, 160, 1)}, 11),
    "visual_changenet": (
        {"input0": (3, 128, 128), "input1": (3, 128, 128)},
        {**{f"output{i}": (2, 8 << i, 8 << i) for i in range(4)}, "output_final": (2, 128, 128)},
        17,
    ),
    "optical_inspection": (
        {"input_1": (3, 128, 96), "input_2": (3, 128, 96)},
        {"output_1": (32,), "output_2": (32,)},
        17,
    ),
    "depth_net": ({"images": (3, 112, 224)}, {"outputs": (112, 224)}, 17),
}
# Overrides of evaluate that are wrong, and the metric they must stay below.
WRONG = [
    ("segformer", "dataset.segment.augmentation.mean=[0,0,0]", 0.8),
    ("segformer", "dataset.segment.augmentation.std=[1,1,1]", 0.8),
    ("unet", "dataset_config.preprocess=div_by_255", 0.8),
    ("visual_changenet", "dataset.segment.augmentation={mean: [0, 0, 0], std: [1, 1, 1]}", 0.93),
    ("visual_changenet", "dataset.segment.label_transform=none", 0.9),
    ("optical_inspection", "dataset.augmentation_config.rgb_input_std=[1,1,1]", 90),
    ("optical_inspection", "model.margin=0.0", 50),
    ("depth_net", "model.model_type=MetricDepthAnything", 0.3),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "samples").mkdir()
    (folder / "samples" / "models").symlink_to(MODELS)
    for write in (write_masks, write_changes, write_depth):
        write(folder / "demo" / "data", test=16, calibration=16)
    write_boards(folder / "demo" / "data", test=48, calibration=16)
    return folder


@pytest.fixture
def shell(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(home)
    return Shell(capsys)


def run(shell: Shell, network: str, action: str, *words: str) -> dict[str, Any]:
    assert shell(network, action, "-e", ROOT / "specs" / network / f"{action}.yaml", *words, "--json") == 0, shell.err
    return dict(json.loads(shell.out))


def measured(shell: Shell, network: str, model: str | Path = "", *words: str) -> float:
    model = model or MODELS / f"{network}.onnx"
    found = run(shell, network, "evaluate", f"evaluate.trt_engine={model}", *words)
    return float(found[SAMPLE_NETWORKS[network].metric])


@pytest.mark.parametrize("network", BARS)
def test_every_precision_is_right(shell: Shell, network: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    right = measured(shell, network)
    assert right > BARS[network]
    fewer = ["gen_trt_engine.tensorrt.calibration.cal_batches=2"]
    for precision in SAMPLE_NETWORKS[network].precisions:
        built = run(shell, network, "gen_trt_engine", f"gen_trt_engine.tensorrt.data_type={precision}", *fewer)
        found = measured(shell, network, built["prepared_onnx"])
        share = {"fp32": 1e-6, "fp16": 0.002, "int8": 0.01}[precision]
        assert found == pytest.approx(right, abs=share * SAMPLE_NETWORKS[network].whole)


@pytest.mark.parametrize("network", BARS)
def test_swapped_channels_break_it(shell: Shell, network: str, tmp_path: Path) -> None:
    model = onnx.load(MODELS / f"{network}.onnx")
    stem = next(tensor for tensor in model.graph.initializer if tuple(tensor.dims)[1:] == (3, 3, 3))
    swapped = np.ascontiguousarray(onnx.numpy_helper.to_array(stem)[:, ::-1])
    stem.CopyFrom(onnx.numpy_helper.from_array(swapped, stem.name))
    onnx.save(model, tmp_path / "swapped.onnx")
    assert measured(shell, network, tmp_path / "swapped.onnx") < 0.75 * SAMPLE_NETWORKS[network].whole


@pytest.mark.parametrize(("network", "wrong", "below"), WRONG)
def test_wrong_constants_break_it(shell: Shell, network: str, wrong: str, below: float) -> None:
    assert measured(shell, network, "", wrong) < below


@pytest.mark.parametrize("network", BARS)
def test_the_graph_is_what_the_exporter_writes(network: str) -> None:
    model = onnx.load(MODELS / f"{network}.onnx")
    inputs, outputs, opset = TENSORS[network]
    for values, wanted in ((model.graph.input, inputs), (model.graph.output, outputs)):
        shapes = {value.name: value.type.tensor_type.shape.dim for value in values}
        assert {name: tuple(d.dim_value for d in dims[1:]) for name, dims in shapes.items()} == wanted
        assert all(dims[0].dim_param for dims in shapes.values())
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]


def inference(shell: Shell, network: str, *words: str) -> Path:
    run(shell, network, "inference", f"inference.trt_engine={MODELS / f'{network}.onnx'}", *words)
    return Path("demo/results") / network / "trt_inference"


@pytest.mark.parametrize(("network", "at_source_size"), [("segformer", True), ("unet", False)])
def test_masks_hold_the_classes(shell: Shell, network: str, at_source_size: bool) -> None:
    out, data = inference(shell, network), Path("demo/data/pixel_classes")
    for path in sorted((data / "masks" / "test").iterdir()):
        truth, found = Image.open(path), Image.open(out / "mask_labels" / path.name)
        assert found.mode == "L"
        assert found.size == (truth.size if at_source_size else (160, 128))
        labels = np.asarray(truth.resize(found.size, Image.Resampling.NEAREST))
        assert (np.asarray(found) == labels).mean() > 0.96
        assert Image.open(out / "vis_overlay" / f"{path.stem}.jpg").size == truth.size


def test_changes_are_white(shell: Shell) -> None:
    out, data = inference(shell, "visual_changenet"), Path("demo/data/pixel_changes")
    for path in sorted((data / "label").glob("test_*")):
        picture = np.asarray(Image.open(out / f"{path.stem}.jpg.jpg").convert("L"))
        truth = np.asarray(Image.open(path).resize((128, 128), Image.Resampling.NEAREST))
        assert ((picture > 127) == (truth > 127)).mean() > 0.97
        combined = Image.open(out / "combined_visualisation" / f"{path.stem}.jpg.jpg")
        assert combined.size == (3 * 128 + 2 * 10, 128)


def test_scores_of_defects_are_high(shell: Shell) -> None:
    with (inference(shell, "optical_inspection") / "inference.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48
    assert np.mean([(float(row["output_score"]) > 1) == (row["label"] != "PASS") for row in rows]) > 0.96


def test_raw_depth_follows_the_truth(shell: Shell) -> None:
    out = inference(shell, "depth_net") / "predicted_depth"
    for path in sorted(Path("demo/data/depth/test/depth").iterdir()):
        picture = Image.open(out / f"images_{path.stem}.png")
        truth = read_map(path)
        assert picture.size == truth.shape[::-1]
        found = np.load(out / f"images_{path.stem}.npy")
        assert found.shape == (112, 224)
        nearest = Image.fromarray(1 / truth).resize((224, 112), Image.Resampling.NEAREST)
        assert np.corrcoef(found.ravel(), np.asarray(nearest).ravel())[0, 1] > 0.97
