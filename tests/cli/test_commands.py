"""The command line: what it accepts, what it prints where, how it ends, and how fast it starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from actions.commands import Shell, status, write_spec
from repository import MODELS, ROOT

from nvidia_tao_deploy.cli import main as cli
from nvidia_tao_deploy.networks import ALIASES, COMMANDS, NETWORKS

CLASSIFIER = MODELS / "classification_pyt.onnx"


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def spec(tmp_path: Path, digits: Path) -> Path:
    content = {
        "model_name": "classification_pyt",
        "results_dir": str(tmp_path / "results"),
        "dataset": {"root_dir": str(digits), "test_dataset": {"images_dir": str(digits / "test")}},
        "evaluate": {"trt_engine": str(CLASSIFIER)},
    }
    return write_spec(tmp_path / "spec.yaml", content)


@pytest.mark.parametrize("network", ["rtdetr", "detectnet_v2", "model_agnostic"])
def test_help_starts_fast_and_imports_nothing_heavy(network: str) -> None:
    script = (
        "import sys; from nvidia_tao_deploy.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'cv2', 'PIL', 'pydantic', 'omegaconf', 'tensorrt', 'polygraphy'};"
        "print('loaded:', sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script, network, "--help"], capture_output=True, text=True)
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stdout
    assert "gen_trt_engine" in done.stdout
    assert min(seconds) < 0.3


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_for_itself_and_its_actions(shell: Shell, command: str) -> None:
    assert shell(command, "--help") == 0
    entry = NETWORKS[ALIASES.get(command, command)]
    listed = shell.out
    for action in (*entry.actions, "default_specs"):
        assert f"    {action} " in listed
        assert shell(command, action, "--help") == 0
        assert f"{command} {action}" in shell.out


@pytest.mark.parametrize("action", ["gen_trt_engine", "evaluate", "inference"])
def test_the_model_flag_of_custom_vision_names_what_it_takes(shell: Shell, action: str) -> None:
    assert shell("custom_vision", action, "--help") == 0
    model = " ".join(shell.out.partition("--model_path MODEL_PATH")[2].split("  -")[0].split())
    assert ".zip" in model
    assert "folder" in model


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ((), "ACTION"),
        (("evaluat",), "evaluate"),
        (("evaluate",), "-e SPEC"),
        (("evaluate", "-e", "x.yaml", "--gpu"), "--gpu"),
        (("evaluate", "-e", "x.yaml", "inference"), "inference"),
        (("evaluate", "-e", "x.yaml", "--nonsense=1"), "--nonsense"),
        (("default_specs", "evaluate.batch_size=1"), "results_dir"),
    ],
)
def test_a_wrong_command_line_is_exit_2_with_a_way_out(shell: Shell, words: tuple[str, ...], meant: str) -> None:
    message = shell.refused(2, "rtdetr", *words)
    assert meant in message


def test_json_puts_the_result_and_nothing_else_on_standard_output(shell: Shell, spec: Path) -> None:
    assert shell("classification_pyt", "evaluate", "-e", spec, "--json") == 0
    results = json.loads(shell.out)
    assert results["top_k_accuracy"] > 0.9
    assert "Execution status: PASS" in shell.err


def test_flags_stand_before_or_after_the_action(shell: Shell, spec: Path) -> None:
    assert shell("classification_pyt", "--json", "evaluate", "-e", spec) == 0
    json.loads(shell.out)
    assert shell("classification_pyt", "--gpu_index", "0", "evaluate", "--experiment_spec_file", spec) == 0
    assert "Execution status: PASS" in shell.out
    for name in ("--experiment_spec", "--exp"):  # the protobuf networks' name, and a beginning as argparse takes it
        assert shell("classification_pyt", "evaluate", name, spec, f"{name}={spec}") == 0, shell.err
    assert "device number" in shell.refused(2, "classification_pyt", "--gpu_index", "x", "evaluate", "-e", spec)


def test_log_file_gets_what_the_terminal_gets(shell: Shell, spec: Path, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "run.txt"
    assert shell("classification_pyt", "evaluate", "-e", spec, "--log_file", log) == 0
    assert log.read_text() == shell.out
    assert shell("classification_pyt", "evaluate", "-e", spec, "--log_file", log, "strict=maybe") == 2
    assert "Execution status: FAIL" in log.read_text()
    assert log.read_text().startswith("Trt_evaluate results")


def test_a_services_job_finds_its_log(
    shell: Shell, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_ID", "17")
    monkeypatch.setenv("TAO_MICROSERVICES_TTY_LOG", str(tmp_path))
    assert shell("classification_pyt", "evaluate", "-e", spec, "--log_file", tmp_path / "own.txt") == 0
    log = tmp_path / "17" / "microservices_log.txt"
    assert "Execution status: PASS" in log.read_text()
    assert log.read_text() == shell.out == (tmp_path / "own.txt").read_text()
    monkeypatch.setenv("TAO_MICROSERVICES_TTY_LOG", str(spec))
    assert shell("classification_pyt", "evaluate", "-e", spec) == 0
    assert "note: JOB_ID: cannot write" in shell.err


def test_overrides_stand_anywhere_and_win(shell: Shell, spec: Path, tmp_path: Path) -> None:
    words = (f"results_dir={tmp_path / 'other place'}", "-e", spec, "dataset.batch_size=3", "--json")
    assert shell("classification_pyt", "evaluate", *words, "model.head.topk=[3]") == 0
    folder = tmp_path / "other place" / "trt_evaluate"
    assert yaml.safe_load((folder / "experiment.yaml").read_text())["dataset"]["batch_size"] == 3
    assert status(folder)[-1]["status"] == "SUCCESS"


def test_the_encryption_key_is_masked(shell: Shell, spec: Path, tmp_path: Path) -> None:
    assert shell("classification_pyt", "evaluate", "-e", spec, "encryption_key=topsecret") == 0
    for file in (tmp_path / "results").rglob("*"):
        assert not file.is_file() or "topsecret" not in file.read_text()
    assert "topsecret" not in shell.out


def test_model_agnostic_takes_the_network_from_spec_override_or_flag(shell: Shell, spec: Path, tmp_path: Path) -> None:
    assert shell("model_agnostic", "evaluate", "-e", spec) == 0
    unnamed = write_spec(tmp_path / "unnamed.yaml", {**yaml.safe_load(spec.read_text()), "model_name": None})
    assert "model_name" in shell.refused(2, "model_agnostic", "evaluate", "-e", unnamed)
    assert shell("model_agnostic", "evaluate", "-e", unnamed, "model_name=classification_pyt") == 0
    assert shell("model_agnostic", "evaluate", "-e", unnamed, "-m", "classification_pyt") == 0
    assert "resnet" in shell.refused(2, "model_agnostic", "evaluate", "-e", unnamed, "-m", "resnet")
    assert "Did you mean rtdetr?" in shell.refused(2, "model_agnostic", "evaluate", "-e", unnamed, "-m", "rtdert")


def test_what_is_missing_is_asked_for_by_its_flag(shell: Shell, tmp_path: Path) -> None:
    text = ROOT / "specs/detectnet_v2/experiment.txt"
    assert "Give -r" in shell.refused(2, "detectnet_v2", "evaluate", "-e", text)
    message = shell.refused(2, "detectnet_v2", "evaluate", "-e", text, "-r", tmp_path)
    assert message.count("evaluate.image_dir") == 2  # where it would stand, and how to give it
    assert "Give -i/--image_dir" in message
    message = shell.refused(1, "detectnet_v2", "evaluate", "-e", text, "-r", tmp_path, "-i", tmp_path, "-l", "none")
    assert "command line: -l/--label_dir: none: no such" in message
    assert "Give -" not in shell.refused(2, "rtdetr", "gen_trt_engine", "-e", write_spec(tmp_path / "empty.yaml", {}))


def test_the_spec_of_another_network_is_recognized(shell: Shell, tmp_path: Path) -> None:
    def refused(network: str, spec: str) -> str:
        return shell.refused(2, network, "evaluate", "-e", ROOT / "specs" / spec, f"results_dir={tmp_path}")

    assert "Specs of classification_pyt have such keys" in refused("rtdetr", "classification_pyt/evaluate.yaml")
    assert "Specs of rtdetr have such keys" in refused("detectnet_v2", "rtdetr/evaluate.yaml")
    assert "a spec of retinanet or ssd" in refused("detectnet_v2", "ssd/experiment.txt")
    typo = write_spec(tmp_path / "typo.yaml", {"evaluate": {"trt_engin": "a"}})
    message = shell.refused(2, "rtdetr", "evaluate", "-e", typo)
    assert "Did you mean evaluate.trt_engine?" in message
    assert "Specs of" not in message


def test_a_value_that_does_not_fit_is_told_what_the_key_is(shell: Shell, spec: Path, tmp_path: Path) -> None:
    message = shell.refused(2, "classification_pyt", "evaluate", "-e", spec, "evaluate.batch_size=four")
    assert "'four' does not fit: it should be a whole number\n  Images per batch" in message
    message = shell.refused(2, "classification_pyt", "evaluate", "-e", spec, "evaluate=4")
    assert "a block of keys belongs here, not 4\n  Keys here: batch_size" in message
    missing = tmp_path / "annotations.json"
    missing.write_text("# no JSON")
    keys = {"json_file": str(missing), "image_dir": str(tmp_path)}
    file = write_spec(tmp_path / "rtdetr.yaml", {"dataset": {"test_data_sources": keys}})
    message = shell.refused(
        1, "rtdetr", "evaluate", "-e", file, f"results_dir={tmp_path}", "evaluate.trt_engine=x.onnx"
    )
    assert f"{file}:4: dataset.test_data_sources.json_file: {missing}:1: malformed JSON" in message


def test_an_engine_path_that_is_a_folder_is_refused_before_the_build(shell: Shell, tmp_path: Path) -> None:
    file = write_spec(tmp_path / "spec.yaml", {"results_dir": str(tmp_path)})
    paths = [f"gen_trt_engine.onnx_file={CLASSIFIER}", f"gen_trt_engine.trt_engine={tmp_path}"]
    assert f"{tmp_path} is a folder" in shell.refused(2, "classification_pyt", "gen_trt_engine", "-e", file, *paths)
    assert "Preparing" not in shell.out


def test_the_spec_file_may_stand_before_the_action_and_without_its_flag_is_asked_for(shell: Shell, spec: Path) -> None:
    removed = shell.refused(2, "classification_pyt", "-e", spec, "evaluate", "~evaluate.batch_size")
    assert "override ~evaluate.batch_size: there is no key 'batch_size' to remove" in removed
    assert shell("classification_pyt", "-e", spec, "evaluate") == 0, shell.err
    assert f"Give the spec file as -e {spec}" in shell.refused(2, "classification_pyt", "evaluate", spec)


def test_a_root_dir_that_is_not_there_does_not_reorder_the_classes(shell: Shell, spec: Path) -> None:
    message = shell.refused(1, "classification_pyt", "evaluate", "-e", spec, "dataset.root_dir=/nosuch")
    assert "override dataset.root_dir=/nosuch: no such folder" in message


def test_an_error_about_a_key_names_where_it_was_set(shell: Shell, spec: Path) -> None:
    message = shell.refused(2, "classification_pyt", "evaluate", "-e", spec, "runtime.providers=[none]")
    assert "override runtime.providers=[none]: 'none' is not in" in message


def test_a_full_disk_behind_the_output_is_no_defect_of_ours(spec: Path) -> None:
    command = "import sys; from nvidia_tao_deploy.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["classification_pyt", "evaluate", "-e", str(spec)]
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", command, *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "Error: cannot write the output: No space left on device" in done.stderr
    assert "defect" not in done.stderr
    assert status(spec.parent / "results" / "trt_evaluate")[-1]["status"] == "FAILURE"


def test_usage_lines_say_what_is_optional(shell: Shell) -> None:
    for command, action, usage in (
        ("rtdetr", "evaluate", "-e SPEC [options]"),
        ("lprnet", "gen_trt_engine", "[-e SPEC] [options]"),
        ("rtdetr", "default_specs", "default_specs [options] [results_dir=DIR]"),
    ):
        assert shell(command, action, "--help") == 0
        assert usage in shell.out
    assert "--json" not in shell.out


@pytest.mark.parametrize("command", list(NETWORKS))
def test_default_specs_are_commented_and_load_again(shell: Shell, command: str, tmp_path: Path) -> None:
    assert shell(command, "default_specs", f"results_dir={tmp_path}") == 0, shell.err
    written = tmp_path / "experiment.yaml"
    assert "#" in written.read_text()
    assert isinstance(yaml.safe_load(written.read_text()), dict)
    assert shell("model_agnostic", "default_specs", "-m", command) == 0
    assert shell.out == written.read_text()
    message = shell.refused(2, command, "gen_trt_engine", "-e", written, f"results_dir={tmp_path / 'r'}")
    assert "no value is given, and this action needs one" in message
    assert shell(command, "default_specs", "--schema") == 0
    assert "properties" in json.loads(shell.out)


def test_python_calls_do_what_the_commands_do(spec: Path) -> None:
    from nvidia_tao_deploy.cv.classification_pyt import evaluate

    results = evaluate(spec, ["dataset.batch_size=5"])
    assert results["top_k_accuracy"] > 0.9
    content = yaml.safe_load(spec.read_text())
    assert evaluate(content)["top_k_accuracy"] == results["top_k_accuracy"]


def test_an_error_that_comes_of_ctrl_c_is_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def execute(_command) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt as error:
            raise ImportError("half of a module") from error

    monkeypatch.setattr(cli, "_execute", execute)
    assert cli.main(["rtdetr", "evaluate", "-e", "spec.yaml"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
