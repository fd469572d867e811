"""What a user gets wrong: exit code, one clear message naming the place, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell, status, write_spec
from onnx import TensorProto, helper
from PIL import Image
from repository import MODELS

from nvidia_tao_deploy.cli.main import main
from nvidia_tao_deploy.runtime import cuda

CLASSIFIER = MODELS / "classification_pyt.onnx"


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def spec(tmp_path: Path, digits: Path) -> dict[str, Any]:
    """A good classification spec."""
    return {
        "results_dir": str(tmp_path / "results"),
        "dataset": {"root_dir": str(digits), "test_dataset": {"images_dir": str(digits / "test")}},
        "evaluate": {"trt_engine": str(CLASSIFIER)},
        "inference": {"trt_engine": str(CLASSIFIER)},
        "gen_trt_engine": {
            "onnx_file": str(CLASSIFIER),
            "trt_engine": str(tmp_path / "out" / "model.engine"),
            "tensorrt": {
                "max_batch_size": 4,
                "calibration": {"cal_image_dir": [str(digits / "calibration")], "cal_batch_size": 4, "cal_batches": 2},
            },
        },
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spec.yaml"


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) if folder.exists() else []


def test_missing_spec(shell: Shell, tmp_path: Path) -> None:
    message = shell.refused(2, "rtdetr", "evaluate", "-e", tmp_path / "nowhere.yaml")
    assert "nowhere.yaml" in message


def test_malformed_yaml_names_line_and_column(shell: Shell, path: Path) -> None:
    path.write_text("results_dir: /tmp/x\ndataset:\n  root_dir: [unclosed\nevaluate: {}\n")
    message = shell.refused(2, "classification_pyt", "evaluate", "-e", path)
    assert f"{path}:" in message
    assert "4" in message


def test_malformed_protobuf_text_names_line_and_column(shell: Shell, tmp_path: Path) -> None:
    text = tmp_path / "spec.txt"
    text.write_text("random_seed: 42\ndataset_config {\n  image_extension: jpg\n}\n")
    message = shell.refused(2, "detectnet_v2", "evaluate", "-e", text, "-m", "x.onnx", "-r", tmp_path / "r")
    assert f"{text}:3:" in message


def test_unknown_key_names_file_line_and_the_key_meant(shell: Shell, spec: dict[str, Any], path: Path) -> None:
    spec["dataset"]["test_dataset"]["image_dir"] = spec["dataset"]["test_dataset"].pop("images_dir")
    message = shell.refused(2, "classification_pyt", "evaluate", "-e", write_spec(path, spec))
    line = next(
        n for n, text in enumerate(path.read_text().splitlines(), 1) if "image_dir" in text and "cal" not in text
    )
    assert f"{path}:{line}" in message
    assert "images_dir" in message


def test_unknown_key_in_an_override(shell: Shell, spec: dict[str, Any], path: Path) -> None:
    message = shell.refused(2, "classification_pyt", "evaluate", "-e", write_spec(path, spec), "evaluate.trt_engin=x")
    assert "evaluate.trt_engin" in message
    assert "trt_engine" in message


def test_wrong_type(shell: Shell, spec: dict[str, Any], path: Path) -> None:
    spec["dataset"]["batch_size"] = "many"
    message = shell.refused(2, "classification_pyt", "evaluate", "-e", write_spec(path, spec))
    assert "dataset.batch_size" in message
    assert "many" in message


def test_value_out_of_range_and_not_allowed(shell: Shell, spec: dict[str, Any], path: Path) -> None:
    write_spec(path, spec)
    options = "gen_trt_engine.tensorrt"
    message = shell.refused(2, "classification_pyt", "gen_trt_engine", "-e", path, f"{options}.data_type=int99")
    assert "int99" in message
    assert "fp16" in message
    message = shell.refused(2, "classification_pyt", "gen_trt_engine", "-e", path, f"{options}.max_batch_size=0")
    assert "max_batch_size" in message


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.head.topk=[0]", "model.head.topk[0] = 0 does not fit: it should be greater than or equal to 1"),
        ("model.head.topk=[x]", "override model.head.topk=[x]: model.head.topk[0] = 'x' does not fit"),
        ("model.head.topk=[]", "override model.head.topk=[]: [] does not fit"),
        ("dataset.augmentation.mean=[1,1,1,1]", "dataset.augmentation.mean=[1,1,1,1]: [1, 1, 1, 1] does not fit"),
        ("dataset.augmentation.std=[1,0,1]", "dataset.augmentation.std[1] = 0 does not fit"),
    ],
)
def test_an_element_out_of_range_is_told_with_its_key_and_value(
    shell: Shell, spec: dict[str, Any], path: Path, override: str, told: str
) -> None:
    spec["model"] = {"head": {"topk": [1, 5]}}  # what the override replaces is not the place of the mistake
    assert told in shell.refused(2, "classification_pyt", "evaluate", "-e", write_spec(path, spec), override)


def test_a_key_inside_a_list_that_an_override_replaces(shell: Shell, tmp_path: Path) -> None:
    content = {"results_dir": str(tmp_path), "dataset": {"val": {"datasets": [{"image_dir": "a"}, {"image_dir": "b"}]}}}
    override = "dataset.val.datasets=[{image_dirs: c}]"
    message = shell.refused(2, "clip", "evaluate", "-e", write_spec(tmp_path / "s.yaml", content), override)
    assert f"override {override}" in message
    assert "unknown key 'dataset.val.datasets[0].image_dirs'" in message


def test_a_gpu_that_is_not_here(
    shell: Shell, spec: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = ("classification_pyt", "evaluate", "-e", write_spec(path, spec), "--gpu_index")
    monkeypatch.setattr(cuda, "gpus", tuple)
    assert shell(*words, 3) == 0, shell.err
    assert "note: evaluate.gpu_ids is 3, and no GPU is here" in shell.out
    assert shell(*words, 0) == 0, shell.err
    assert "no GPU is here" not in shell.out
    assert "there is no GPU GPU-1234 here" in shell.refused(2, *words, "GPU-1234")
    monkeypatch.setattr(cuda, "gpus", lambda: tuple(cuda.Gpu(i, "a", (9, 0), 1) for i in range(2)))
    for action, key in (("evaluate", "evaluate.gpu_ids"), ("gen_trt_engine", "gen_trt_engine.gpu_id")):
        message = shell.refused(2, words[0], action, *words[2:], 3)
        assert key in message
        assert "there is no GPU 3" in message
        assert "GPUs 0 to 1" in message


@pytest.mark.parametrize("missing", [None, "???", ""])
def test_missing_mandatory_value(shell: Shell, spec: dict[str, Any], path: Path, missing: str | None) -> None:
    spec["evaluate"]["trt_engine"] = missing
    message = shell.refused(2, "classification_pyt", "evaluate", "-e", write_spec(path, spec))
    assert "evaluate.trt_engine" in message
    assert status(Path(spec["results_dir"]) / "trt_evaluate")[-1]["status"] == "FAILURE"


def test_no_results_folder(shell: Shell, spec: dict[str, Any], path: Path) -> None:
    del spec["results_dir"]
    assert "results_dir" in shell.refused(2, "classification_pyt", "evaluate", "-e", write_spec(path, spec))


def test_missing_onnx(shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path) -> None:
    spec["gen_trt_engine"]["onnx_file"] = str(tmp_path / "gone.onnx")
    message = shell.refused(1, "classification_pyt", "gen_trt_engine", "-e", write_spec(path, spec))
    assert "gone.onnx" in message
    assert files_in(tmp_path / "out") == []


@pytest.mark.parametrize("content", [b"", CLASSIFIER.read_bytes()[:5000], b"not a model at all"])
def test_empty_truncated_or_foreign_onnx(
    shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path, content: bytes
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(content)
    for action, key in (("gen_trt_engine", "onnx_file"), ("evaluate", "trt_engine")):
        write_spec(path, {**spec, action: {**spec[action], key: str(broken)}})
        message = shell.refused(1, "classification_pyt", action, "-e", path)
        assert "broken.onnx" in message
    assert files_in(tmp_path / "out") == []
    assert not (Path(spec["results_dir"]) / "trt_evaluate" / "results.json").exists()


def test_onnx_with_another_input_than_the_contract(
    shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["sound"], ["flat"])],
        "audio",
        [helper.make_tensor_value_info("sound", TensorProto.FLOAT, ["n", 1600])],
        [helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n", 1600])],
    )
    model = tmp_path / "audio.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(model))
    for action, key in (("gen_trt_engine", "onnx_file"), ("evaluate", "trt_engine")):
        write_spec(path, {**spec, action: {**spec[action], key: str(model)}})
        message = shell.refused(1, "classification_pyt", action, "-e", path)
        assert "'input' of rank 4" in message
        assert "sound" in message


@pytest.mark.parametrize("action", ["gen_trt_engine", "evaluate"])
def test_a_model_of_another_network_and_a_folder_are_named_with_key_and_line(
    shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path, action: str
) -> None:
    key = {"gen_trt_engine": "onnx_file", "evaluate": "trt_engine"}[action]
    spec[action][key] = str(MODELS / "ssd.onnx")
    line = 1 + write_spec(path, spec).read_text().splitlines().index(f"  {key}: {MODELS / 'ssd.onnx'}")
    message = shell.refused(1, "classification_pyt", action, "-e", path)
    assert f"{path}:{line}: {action}.{key}: {MODELS / 'ssd.onnx'}: the model does not fit" in message
    assert "this is a folder" in shell.refused(
        1, "classification_pyt", action, "-e", path, f"{action}.{key}={tmp_path}"
    )


def test_a_missing_folder_is_named_with_its_key(shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path) -> None:
    spec["gen_trt_engine"]["tensorrt"] |= {"data_type": "int8"}
    spec["gen_trt_engine"]["tensorrt"]["calibration"]["cal_image_dir"].append(str(tmp_path / "none"))
    message = shell.refused(1, "classification_pyt", "gen_trt_engine", "-e", write_spec(path, spec))
    assert f"calibration.cal_image_dir[1]: {tmp_path / 'none'}: no such image folder" in message
    spec["gen_trt_engine"]["onnx_file"] = spec["evaluate"]["trt_engine"] = str(tmp_path / "none.onnx")
    message = shell.refused(1, "classification_pyt", "gen_trt_engine", "-e", write_spec(path, spec))
    assert f"gen_trt_engine.onnx_file: {tmp_path / 'none.onnx'}: no such" in message
    message = shell.refused(1, "classification_pyt", "compare", "-e", path)
    assert "gen_trt_engine.onnx_file: " in message


def test_a_run_that_ends_before_its_first_record_is_recorded(
    spec: dict[str, Any], path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nvidia_tao_deploy.actions.run.write_text", interrupted)
    assert main(["classification_pyt", "evaluate", "-e", str(write_spec(path, spec))]) == 130
    assert status(tmp_path / "results" / "trt_evaluate")[-1]["status"] == "FAILURE"


def test_etlt_says_how_to_get_onnx(shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path) -> None:
    (tmp_path / "model.etlt").write_bytes((0).to_bytes(4, "little") + os.urandom(64))
    spec["gen_trt_engine"]["onnx_file"] = str(tmp_path / "model.etlt")
    message = shell.refused(1, "classification_pyt", "gen_trt_engine", "-e", write_spec(path, spec))
    assert "encrypted" in message
    assert ".onnx" in message


@pytest.mark.parametrize(("name", "meant"), [("m.etlt", "export the model again as .onnx."), ("m.pb", "file (.onnx).")])
def test_a_file_of_another_kind_ends_in_what_to_do(
    shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path, name: str, meant: str
) -> None:
    (tmp_path / name).write_bytes(b"something")
    spec["evaluate"]["trt_engine"] = str(tmp_path / name)
    assert shell.refused(1, "classification_pyt", "evaluate", "-e", write_spec(path, spec)).endswith(f"{meant}\n")


def test_engine_where_onnx_is_needed_and_onnx_where_the_engine_goes(
    shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path
) -> None:
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"ftrt" + bytes(200))
    spec["gen_trt_engine"]["onnx_file"] = str(engine)
    message = shell.refused(1, "classification_pyt", "gen_trt_engine", "-e", write_spec(path, spec))
    assert "engine" in message
    assert "onnx" in message.lower()
    output = "gen_trt_engine.trt_engine=" + str(tmp_path / "model.onnx")
    keep = f"gen_trt_engine.onnx_file={CLASSIFIER}"
    message = shell.refused(2, "classification_pyt", "gen_trt_engine", "-e", path, output, keep)
    assert "model.onnx" in message


def test_an_engine_without_its_gpu_names_the_onnx_to_evaluate(
    shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path
) -> None:
    assert shell("classification_pyt", "gen_trt_engine", "-e", write_spec(path, spec)) == 0, shell.err
    engine = spec["gen_trt_engine"]["trt_engine"]
    message = shell.refused(1, "classification_pyt", "evaluate", "-e", path, f"evaluate.trt_engine={engine}")
    assert "GPU" in message
    assert str(Path(engine).parent) in message
    assert ".onnx" in message


def test_empty_image_folder(shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    spec["dataset"]["test_dataset"]["images_dir"] = str(tmp_path / "empty")
    for action in ("evaluate", "inference"):
        assert "empty" in shell.refused(1, "classification_pyt", action, "-e", write_spec(path, spec))


def test_an_unreadable_image_is_skipped_counted_and_named_and_strict_fails(
    shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path, digits: Path
) -> None:
    images = tmp_path / "test"
    shutil.copytree(digits / "test", images)
    victim = sorted(images.rglob("*.png"))[3]
    victim.write_bytes(victim.read_bytes()[:60])
    (victim.parent / "zz_empty.jpg").write_bytes(b"")
    spec["dataset"]["test_dataset"]["images_dir"] = str(images)
    write_spec(path, spec)
    assert shell("classification_pyt", "evaluate", "-e", path) == 0, shell.err
    assert str(victim) in shell.out
    results = json.loads((Path(spec["results_dir"]) / "trt_evaluate" / "results.json").read_text())
    assert results["images_skipped"] == 2
    assert results["images_evaluated"] == len(list(images.rglob("*.*"))) - 2
    assert victim.name in shell.refused(1, "classification_pyt", "evaluate", "-e", path, "strict=true")
    assert shell("classification_pyt", "inference", "-e", path) == 0
    rows = (Path(spec["results_dir"]) / "trt_inference" / "result.csv").read_text().splitlines()
    assert len(rows) == results["images_evaluated"]


def coco(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """A one-image COCO set and an rtdetr spec for it."""
    (tmp_path / "images").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((64, 80, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 80, "height": 64}],
        "categories": [{"id": 0, "name": "zero"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 2, 30, 30], "area": 900, "iscrowd": 0}],
        **changes,
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    return {
        "results_dir": str(tmp_path / "results"),
        "dataset": {
            "test_data_sources": {"json_file": str(tmp_path / "instances.json"), "image_dir": str(tmp_path / "images")}
        },
        "evaluate": {"trt_engine": str(MODELS / "rtdetr.onnx")},
    }


@pytest.mark.parametrize(
    ("key", "value"), [("image_id", 77), ("category_id", 55)], ids=["missing image", "missing category"]
)
def test_annotations_with_dangling_ids(shell: Shell, tmp_path: Path, path: Path, key: str, value: int) -> None:
    annotation = {"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 2, 30, 30], "area": 900, "iscrowd": 0}
    spec = coco(tmp_path, annotations=[{**annotation, key: value}])
    message = shell.refused(1, "rtdetr", "evaluate", "-e", write_spec(path, spec))
    assert "instances.json" in message
    assert str(value) in message


def test_annotation_json_that_is_not_json(shell: Shell, tmp_path: Path, path: Path) -> None:
    spec = coco(tmp_path)
    (tmp_path / "instances.json").write_text('{"images": [\n  {"id": 1,,}\n]}')
    message = shell.refused(1, "rtdetr", "evaluate", "-e", write_spec(path, spec))
    assert "instances.json" in message
    assert "2" in message


def test_label_names_that_never_match(shell: Shell, tmp_path: Path, path: Path, scenes: tuple[Path, Path]) -> None:
    labels = tmp_path / "labels"
    shutil.copytree(scenes[1] / "test" / "labels", labels)
    for file in labels.iterdir():
        file.write_text("\n".join("unicorn " + line.split(" ", 1)[1] for line in file.read_text().splitlines()))
    spec = {
        "results_dir": str(tmp_path / "results"),
        "cost_function_config": {"target_classes": [{"name": "zero"}]},
        "evaluate": {
            "trt_engine": str(MODELS / "detectnet_v2.onnx"),
            "image_dir": str(scenes[1] / "test" / "images"),
            "label_dir": str(labels),
        },
    }
    message = shell.refused(1, "detectnet_v2", "evaluate", "-e", write_spec(path, spec))
    assert "unicorn" in message
    assert "zero" in message


def test_a_model_whose_class_count_disagrees(
    shell: Shell, tmp_path: Path, path: Path, scenes: tuple[Path, Path]
) -> None:
    spec = {
        "results_dir": str(tmp_path / "results"),
        "cost_function_config": {"target_classes": [{"name": "zero"}, {"name": "one"}]},
        "postprocessing_config": {"target_class_config": {"default": {"clustering_config": {}}}},
        "evaluate": {
            "trt_engine": str(MODELS / "detectnet_v2.onnx"),
            "image_dir": str(scenes[1] / "test" / "images"),
            "label_dir": str(scenes[1] / "test" / "labels"),
        },
    }
    message = shell.refused(1, "detectnet_v2", "evaluate", "-e", write_spec(path, spec))
    assert "10 classes" in message
    assert "names 2" in message


def test_calibration_with_no_or_too_few_images(shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    options = spec["gen_trt_engine"]["tensorrt"]
    options["data_type"] = "int8"
    options["calibration"]["cal_batches"] = 900
    message = shell.refused(1, "classification_pyt", "gen_trt_engine", "-e", write_spec(path, spec))
    assert "3600" in message
    options["calibration"]["cal_image_dir"] = str(tmp_path / "nothing")
    assert "nothing" in shell.refused(1, "classification_pyt", "gen_trt_engine", "-e", write_spec(path, spec))
    options["calibration"]["cal_image_dir"] = []
    message = shell.refused(2, "classification_pyt", "gen_trt_engine", "-e", write_spec(path, spec))
    assert "cal_image_dir" in message
    assert files_in(tmp_path / "out") == []


def test_results_folder_that_cannot_be_written(shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spec["results_dir"] = str(tmp_path / "file" / "below")
    message = shell.refused(1, "classification_pyt", "evaluate", "-e", write_spec(path, spec))
    assert str(tmp_path / "file") in message


def test_a_full_disk_leaves_no_engine(spec: dict[str, Any], path: Path, tmp_path: Path) -> None:
    """The kernel's file-size limit fails writes the way a full disk does, in a process of its own."""
    write_spec(path, spec)
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000));"
        "from nvidia_tao_deploy.cli.main import main;"
        f"sys.exit(main(['classification_pyt', 'gen_trt_engine', '-e', {str(path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot write" in done.stderr
    assert "model.engine" in done.stderr
    assert not (tmp_path / "out" / "model.engine").exists()
    assert [name for name in files_in(tmp_path / "out") if name.endswith(".part")] == []


@pytest.mark.parametrize(
    ("sent_signal", "code", "said"), [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "Terminated.")]
)
def test_a_signal_ends_the_run_within_a_second_with_its_exit_code_and_a_failure_record(
    spec: dict[str, Any], path: Path, tmp_path: Path, digits: Path, sent_signal: signal.Signals, code: int, said: str
) -> None:
    images = tmp_path / "many"
    images.mkdir()
    source = next((digits / "test").rglob("*.png"))
    for number in range(20_000):
        os.link(source, images / f"{number}.png")
    spec["dataset"]["test_dataset"]["images_dir"] = str(images)
    write_spec(path, spec)
    words = [sys.executable, "-m", "nvidia_tao_deploy.cli.main", "classification_pyt", "inference", "-e", str(path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = Path(spec["results_dir"]) / "trt_inference"
    deadline = time.monotonic() + 60
    while not (folder / "status.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)
    assert process.poll() is None, "the run ended before it could be interrupted"
    sent = time.monotonic()
    process.send_signal(sent_signal)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert time.monotonic() - sent < 2.0  # a second for the run, and the interpreter's own end
    assert err.endswith(f"{said}\n")
    assert "Traceback" not in err
    assert status(folder)[-1]["status"] == "FAILURE"
    assert status(folder)[-1]["message"] == "User/System interruption: Inference was interrupted"
    assert not (folder / "result.csv").exists()


@pytest.mark.parametrize(
    ("action", "override", "prefix"),
    [
        ("evaluate", "evaluate.trt_engine={}/no.onnx", "File system error: "),
        ("evaluate", "evaluate.trt_engine={}/no.engine", "File system error: "),
        ("evaluate", "dataset.test_dataset.images_dir={}/no", "File system error: "),
        ("gen_trt_engine", "gen_trt_engine.onnx_file={}/no.onnx", "File system error: "),
        ("evaluate", "evaluate.trt_engine={}/text.onnx", "Parameter validation error: "),
        ("evaluate", "evaluate.batch_size=many", "Parameter validation error: "),
        ("gen_trt_engine", "gen_trt_engine.tensorrt.data_type=int7", "Parameter validation error: "),
        ("evaluate", "evaluate.batch_sise=1", "Configuration error: "),
        ("evaluate", "evaluate.trt_engine=???", "Configuration error: "),
    ],
)
def test_the_failure_record_begins_with_the_contracts_word_for_its_kind(
    shell: Shell, spec: dict[str, Any], path: Path, tmp_path: Path, action: str, override: str, prefix: str
) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    folder = Path(spec["results_dir"]) / ("trt_evaluate" if action == "evaluate" else action)
    folder.mkdir(parents=True)
    write_spec(path, spec)
    assert shell("classification_pyt", action, "-e", str(path), override.format(tmp_path)) != 0
    assert status(folder)[-1]["message"].startswith(prefix)


def test_settings_without_effect_are_told(shell: Shell, spec: dict[str, Any], path: Path) -> None:
    words = ("classification_pyt", "evaluate", "-e", write_spec(path, spec))
    assert shell(*words, "runtime.providers=[cpu]", "runtime.cuda_graph=true", "runtime.contexts=2") == 0, shell.err
    assert "note: runtime.cuda_graph=true is not possible here: CPUExecutionProvider records none here" in shell.out
    assert "note: runtime.contexts=2 is not possible here: they are of engines, and this is an ONNX file" in shell.out
    assert shell(*words, "runtime.providers=[cpu]") == 0, shell.err
    assert "not possible here" not in shell.out
    assert "runtime.contexts" in shell.refused(2, *words, "runtime.contexts=0")
