"""diagnose finds layers that were made hostile to int8, and the mix it proposes brings the metric back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell, status, write_spec
from actions.test_compare import check_page
from onnx import numpy_helper
from repository import MODELS

from nvidia_tao_deploy.actions.diagnose import smallest_prefix
from samples.boards_data import write_boards

# Convolution whose output gets an outlier channel -> the one that undoes it, and so gets an input int8 cannot hold.
HOSTILE = {
    "/backbone/layer1/conv1/conv/Conv": "/backbone/layer1/conv2/conv/Conv",
    "/backbone/layer2/conv1/conv/Conv": "/backbone/layer2/conv2/conv/Conv",
}
HOSTILE_DETECTOR = {
    "/backbone/layer1/conv1/conv/Conv": "/backbone/layer1/conv2/conv/Conv",
    "/backbone/layer3/conv1/conv/Conv": "/backbone/layer3/conv2/conv/Conv",
}
OUTLIER = 2000.0


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def write_hostile(path: Path, network: str = "classification_pyt", pairs: dict[str, str] = HOSTILE) -> Path:
    """A sample network with the same outputs, in which two layers have one input channel 2,000 times too large."""
    model = onnx.load(MODELS / f"{network}.onnx")
    nodes = {node.name: node for node in model.graph.node}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for first, second in pairs.items():
        weight, bias = (numpy_helper.to_array(tensors[name]).copy() for name in nodes[first].input[1:3])
        undone = numpy_helper.to_array(tensors[nodes[second].input[1]]).copy()
        channel = int(np.abs(weight).sum(axis=(1, 2, 3)).argmax())
        weight[channel] *= OUTLIER
        bias[channel] *= OUTLIER
        undone[:, channel] /= OUTLIER
        for name, value in zip((*nodes[first].input[1:3], nodes[second].input[1]), (weight, bias, undone), strict=True):
            tensors[name].CopyFrom(numpy_helper.from_array(value, name))
    onnx.save(model, path)
    return path


def content(tmp_path: Path, digits: Path, model: Path) -> dict[str, Any]:
    calibration = {
        "cal_image_dir": [str(digits / "calibration")],
        "cal_batch_size": 4,
        "cal_batches": 4,
        "method": "minmax",
    }
    return {
        "results_dir": str(tmp_path / "results"),
        "dataset": {
            "root_dir": str(digits),
            "test_dataset": {"images_dir": str(digits / "test")},
            "batch_size": 20,
        },
        "gen_trt_engine": {
            "onnx_file": str(model),
            "trt_engine": str(tmp_path / "model.engine"),
            "tensorrt": {"opt_batch_size": 4, "max_batch_size": 20, "calibration": calibration},
        },
        "diagnose": {"subset": 40, "keep_in": "fp32"},
    }


def test_hostile_layers_are_found_and_the_mix_brings_the_metric_back(
    shell: Shell, tmp_path: Path, digits: Path
) -> None:
    spec = write_spec(tmp_path / "spec.yaml", content(tmp_path, digits, write_hostile(tmp_path / "hostile.onnx")))
    assert shell("classification_pyt", "diagnose", "-e", spec, "--json") == 0, shell.err
    report = json.loads(shell.out)
    folder = tmp_path / "results" / "diagnose"
    assert report == json.loads((folder / "diagnose.json").read_text())
    hostile = set(HOSTILE.values())
    assert {entry["name"] for entry in report["layers"][:2]} == hostile
    worst = report["blocks"][:2]
    assert {name for block in worst for name in block["layers"]} >= hostile
    assert report["quantized"]["loss_percent"] > 10
    assert report["finished"]
    assert report["within_budget"]
    assert report["mixed"]["loss_percent"] <= 1
    assert {entry.rpartition(":")[0] for entry in report["layers_precision"]} == hostile
    others = [entry for entry in report["layers"] if entry["name"] not in hostile]
    assert np.mean([not entry["kept_in_float"] for entry in others]) >= 0.8
    assert len(others) >= 4
    check_page((folder / "diagnose.html").read_text())
    assert status(folder)[-1]["status"] == "SUCCESS"

    # A second run takes everything from the state file and comes to the same result.
    assert shell("classification_pyt", "diagnose", "-e", spec, "--json") == 0, shell.err
    assert "measurements taken up" in shell.err
    assert json.loads(shell.out) == report

    # The list is what a build wants: the built graph reaches the accuracy over the whole test set.
    layers = f"gen_trt_engine.tensorrt.layers_precision={json.dumps(report['layers_precision'])}"
    reached = {}
    for name, words in (("all", ()), ("mixed", (layers,))):
        build = ("gen_trt_engine.tensorrt.data_type=int8", *words, "--json")
        assert shell("classification_pyt", "gen_trt_engine", "-e", spec, *build) == 0, shell.err
        built = json.loads(shell.out)
        model = f"evaluate.trt_engine={built['prepared_onnx']}"
        assert shell("classification_pyt", "evaluate", "-e", spec, model, "--json") == 0, shell.err
        reached[name] = json.loads(shell.out)["top_k_accuracy"]
    assert built["counts"]["int8"] == len(others)
    assert reached["all"] < 0.9
    assert reached["mixed"] >= 0.97


def test_a_build_with_a_limit_finds_its_own_mix(shell: Shell, tmp_path: Path, digits: Path) -> None:
    tree = content(tmp_path, digits, write_hostile(tmp_path / "hostile.onnx"))
    del tree["gen_trt_engine"]["tensorrt"]["calibration"]["method"]
    spec = write_spec(tmp_path / "spec.yaml", tree)
    calibration = "gen_trt_engine.tensorrt.calibration"
    build = ("classification_pyt", "gen_trt_engine", "-e", spec, "gen_trt_engine.tensorrt.data_type=int8")
    assert shell(*build, f"{calibration}.max_metric_drop=0.5", "diagnose.keep_in=fp16", "--json") == 0, shell.err
    built = json.loads(shell.out)
    assert built["counts"]["int8"] == 5
    assert built["counts"]["total"] == 8
    model = f"evaluate.trt_engine={built['prepared_onnx']}"
    assert shell("classification_pyt", "evaluate", "-e", spec, model, "--json") == 0, shell.err
    assert json.loads(shell.out)["top_k_accuracy"] >= 0.97
    check_page((tmp_path / "results" / "gen_trt_engine" / "diagnose.html").read_text())
    manifest = json.loads(Path(built["manifest"]).read_text())
    assert len(manifest["spec"]["gen_trt_engine"]["tensorrt"]["layers_precision"]) == 2
    # The spec names no method: all were tried, on images that are not those of the calibration.
    report = json.loads((tmp_path / "results" / "gen_trt_engine" / "diagnose.json").read_text())
    losses = report["loss_percent_by_method"]
    assert set(losses) == {"entropy", "minmax", "percentile", "mse"}
    assert losses[manifest["calibration"]["method"]] == min(losses.values())
    fp16 = "gen_trt_engine.tensorrt.data_type=fp16"
    assert shell(*build, f"{calibration}.max_metric_drop=0.5", fp16) == 0, shell.err
    assert "max_metric_drop is for int8 and fp8 and does nothing in fp16" in shell.out
    message = shell.refused(2, *build, f"{calibration}.max_metric_drop=0.5", f"{calibration}.mode=implicit")
    assert "max_metric_drop" in message


def test_a_detector_is_brought_back_by_its_own_map(shell: Shell, tmp_path: Path, scenes: tuple[Path, Path]) -> None:
    coco = scenes[0]
    model = write_hostile(tmp_path / "hostile.onnx", "rtdetr_conv", HOSTILE_DETECTOR)
    sources = {"json_file": str(coco / "annotations" / "test.json"), "image_dir": str(coco / "images" / "test")}
    calibration = {"cal_image_dir": [str(coco / "images" / "calibration")], "cal_batch_size": 4, "cal_batches": 3}
    tensorrt = {"data_type": "int8", "max_batch_size": 4, "calibration": {**calibration, "max_metric_drop": 2}}
    tree = {
        "results_dir": str(tmp_path / "results"),
        "dataset": {"test_data_sources": sources, "batch_size": 4},
        "gen_trt_engine": {"onnx_file": str(model), "trt_engine": str(tmp_path / "m.engine"), "tensorrt": tensorrt},
    }
    spec = write_spec(tmp_path / "spec.yaml", tree)
    assert shell("rtdetr", "gen_trt_engine", "-e", spec, "diagnose.subset=16", "--json") == 0, shell.err
    report = json.loads((tmp_path / "results" / "gen_trt_engine" / "diagnose.json").read_text())
    assert {entry["name"] for entry in report["layers"][:2]} == set(HOSTILE_DETECTOR.values())
    assert report["quantized"]["loss_percent"] > 20
    others = [entry for entry in report["layers"] if entry["name"] not in HOSTILE_DETECTOR.values()]
    assert np.mean([not entry["kept_in_float"] for entry in others]) >= 0.8
    reached = {}
    for path in (tmp_path / "m.engine.onnx", model):
        assert shell("rtdetr", "evaluate", "-e", spec, f"evaluate.trt_engine={path}", "--json") == 0, shell.err
        reached[path.name] = json.loads(shell.out)["AP"]
    assert reached["m.engine.onnx"] >= 0.98 * reached["hostile.onnx"]


def test_time_that_runs_out_leaves_a_report_and_the_next_run_goes_on(
    shell: Shell, tmp_path: Path, digits: Path
) -> None:
    spec = write_spec(tmp_path / "spec.yaml", content(tmp_path, digits, MODELS / "classification_pyt.onnx"))
    words = ("classification_pyt", "diagnose", "-e", spec, "--json", "diagnose.subset=10")
    assert shell(*words, "diagnose.budget_minutes=0.00001") == 0, shell.err
    early = json.loads(shell.out)
    assert not early["finished"]
    assert any("budget_minutes ended" in line for line in early["summary"])
    assert shell(*words) == 0, shell.err
    late = json.loads(shell.out)
    assert late["finished"]
    assert all(entry["loss_percent"] is not None for entry in late["layers"])
    # Another subset is another question: nothing is taken over.
    assert shell(*words, "diagnose.subset=12") == 0, shell.err
    assert "starting anew" in shell.err


def test_files_of_a_metric_are_not_left_behind(shell: Shell, tmp_path: Path) -> None:
    boards = write_boards(tmp_path, test=8, calibration=8)
    test, train = (
        {"csv_path": str(boards / name), "images_dir": str(boards)} for name in ("test.csv", "calibration.csv")
    )
    calibration = {"cal_image_dir": [str(boards)], "cal_batch_size": 8, "method": "minmax"}
    tree = {
        "results_dir": str(tmp_path / "results"),
        "dataset": {
            "test_dataset": test,
            "train_dataset": train,
            "image_ext": ".png",
            "num_input": 2,
            "input_map": {"WhiteLight": 0, "SideLight": 1},
            "concat_type": "linear",
            "image_width": 96,
            "image_height": 64,
        },
        "gen_trt_engine": {
            "onnx_file": str(MODELS / "optical_inspection.onnx"),
            "tensorrt": {"max_batch_size": 8, "calibration": calibration},
        },
        "diagnose": {"subset": 8, "budget_minutes": 0.0001},
    }
    spec = write_spec(tmp_path / "spec.yaml", tree)
    assert shell("optical_inspection", "diagnose", "-e", spec) == 0, shell.err
    left = {path.name for path in (tmp_path / "results" / "diagnose").iterdir()}
    assert left == {"diagnose.json", "diagnose.html", "diagnose_state.json", "experiment.yaml", "status.json"}
    # Where evaluate writes and what it opens is nothing that a measurement depends on.
    assert shell("optical_inspection", "diagnose", "-e", spec, f"evaluate.results_dir={tmp_path / 'other'}") == 0
    assert "measurements taken up" in shell.out


def test_the_best_of_several_calibration_methods_is_used(shell: Shell, tmp_path: Path, digits: Path) -> None:
    tree = content(tmp_path, digits, MODELS / "classification_pyt.onnx")
    # Half of all values cut off: no good method, and the worst by far.
    tree["gen_trt_engine"]["tensorrt"]["calibration"]["percentile"] = 50
    spec = write_spec(tmp_path / "spec.yaml", tree)
    words = ("diagnose.methods=[percentile,minmax]", "diagnose.subset=20", "--json")
    assert shell("classification_pyt", "diagnose", "-e", spec, *words) == 0, shell.err
    report = json.loads(shell.out)
    losses = report["loss_percent_by_method"]
    assert losses["percentile"] > losses["minmax"]
    assert report["calibration_method"] == "minmax"
    assert report["quantized"]["loss_percent"] == losses["minmax"]
    limit = "gen_trt_engine.tensorrt.calibration.max_metric_drop=1"
    build = ("gen_trt_engine", "-e", spec, "gen_trt_engine.tensorrt.data_type=int8", limit, *words)
    assert shell("classification_pyt", *build) == 0, shell.err
    manifest = json.loads(Path(json.loads(shell.out)["manifest"]).read_text())
    assert manifest["calibration"]["method"] == "minmax"


@pytest.mark.parametrize("least", range(12))
def test_the_smallest_prefix_is_found_in_few_steps(least: int) -> None:
    asked: list[int] = []

    def fits(count: int) -> bool:
        asked.append(count)
        return count >= least

    assert smallest_prefix(11, fits) == least
    assert len(asked) <= 9


def test_without_time_the_last_prefix_known_to_fit_counts() -> None:
    assert smallest_prefix(10, lambda _: None) == 10
    assert smallest_prefix(10, lambda count: {0: False, 1: False, 2: False, 4: True}.get(count)) == 4
