"""Spec files, overrides and flags become one typed spec; every mistake names its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nvidia_tao_deploy.cv.classification_pyt.spec import Spec as ClassificationSpec
from nvidia_tao_deploy.cv.detectnet_v2.spec import Spec as DetectnetSpec
from nvidia_tao_deploy.cv.rtdetr.spec import Spec as RtdetrSpec
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.load import load_spec


@pytest.fixture
def spec_file(tmp_path: Path):
    def write(text: str, name: str = "spec.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_defaults_then_file_then_flags_then_overrides(spec_file):
    path = spec_file("evaluate: {batch_size: 2, num_gpus: 1}\ninference: {batch_size: 2}\ndataset: {batch_size: 2}\n")
    flags = {"evaluate.batch_size": 3, "inference.batch_size": 3}
    spec = load_spec(RtdetrSpec, path, ["evaluate.batch_size=4"], flags=flags)
    assert (spec.evaluate.batch_size, spec.inference.batch_size, spec.dataset.batch_size) == (4, 3, 2)
    assert spec.model.num_select == 300
    assert spec.where("evaluate.batch_size") == "override evaluate.batch_size=4"
    assert spec.where("inference.batch_size") == "command line: inference.batch_size"
    assert spec.where("dataset.batch_size") == f"{path}:3: dataset.batch_size"
    assert spec.where("results_dir") == f"{path}: results_dir"


def test_sources_may_be_plain_data_or_a_spec():
    first = load_spec(RtdetrSpec, {"evaluate": {"batch_size": 2}, "train": {"num_epochs": 7}})
    assert load_spec(RtdetrSpec, first) is first
    first.inference.conf_threshold = 0.25
    second = load_spec(RtdetrSpec, first, ["evaluate.batch_size=3"])
    assert (second.evaluate.batch_size, second.inference.conf_threshold, second.get("train.num_epochs")) == (3, 0.25, 7)
    assert first.evaluate.batch_size == 2


@pytest.mark.parametrize(
    ("text", "line", "key", "remedy"),
    [
        ("results_dir: /r\nevaluate:\n  trt_engin: x\n", 3, "evaluate.trt_engin", "evaluate.trt_engine"),
        ("modle:\n  num_select: 3\n", 1, "modle", "model"),
        ("gen_trt_engine:\n  tensorrt:\n    calibration:\n      cal_bacthes: 3\n", 4, "cal_bacthes", "cal_batches"),
        ("trt_engine: x\n", 1, "trt_engine", ".trt_engine"),
        ("train:\n  optim:\n    lr_step: 3\n", 3, "train.optim.lr_step", "train.optim.lr_steps"),
        (
            "quantize:\n  layers:\n    - module_name: a\n      wieghts: {dtype: int8}\n",
            4,
            "layers[0].wieghts",
            "weights",
        ),
        ("dataset: {test_data_sources: {json: x}}\n", 1, "dataset.test_data_sources.json", "json_file"),
        ("Evaluate: {}\n", 1, "Evaluate", "evaluate"),
    ],
)
def test_unknown_keys_are_refused_with_line_and_suggestion(spec_file, text, line, key, remedy):
    path = spec_file(text)
    with pytest.raises(SpecError, match="unknown key") as caught:
        load_spec(RtdetrSpec, path)
    assert caught.value.where.startswith(f"{path}:{line}: ")
    assert caught.value.where.endswith(key)
    assert "Did you mean" in caught.value.remedy
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    "override",
    [
        "evaluate.batch_size=abc",
        "evaluate.batch_size=1.5",
        "evaluate.batch_size=-2",
        "evaluate.batch_size=null",
        "evaluate.gpu_ids=[-1]",
        "evaluate=3",
        "evaluate.batch_size.x=3",
        "evaluate={foo: 1}",
        "dataset=[1]",
        "strict=maybe",
        "model.num_select=1001",
        "inference.conf_threshold=1.01",
        "inference.conf_threshold=nan",
        "gen_trt_engine.tensorrt.data_type=int99",
        "gen_trt_engine.tensorrt.layers_precision=[conv1]",
        "gen_trt_engine.tensorrt.layers_precision=['conv1:half']",
        "gen_trt_engine.tensorrt.compute_capabilities=['eight']",
        "gen_trt_engine.tensorrt.workspace_size=-1",
        "gen_trt_engine.tensorrt.calibration.percentile=101",
        "gen_trt_engine.tensorrt.runtime=onnxruntime",
        "runtime.image_backend=jpeg4py",
        "train.num_epochs=ten",
        "train.optim=3",
        "quantize.layers=3",
    ],
)
def test_wrong_types_and_values_are_refused_naming_the_override(override):
    with pytest.raises(SpecError) as caught:
        load_spec(RtdetrSpec, {}, [override])
    assert caught.value.where == f"override {override}"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("gen_trt_engine.tensorrt.data_type=INT8", "gen_trt_engine.tensorrt.data_type", "int8"),
        ('evaluate.batch_size="16"', "evaluate.batch_size", 16),
        ("strict='TRUE'", "strict", True),
        ("evaluate.gpu_ids=2", "evaluate.gpu_ids", [2]),
        ("evaluate.gpu_ids=[0, 1]", "evaluate.gpu_ids", [0, 1]),
        ("dataset.infer_data_sources.image_dir=/a", "dataset.infer_data_sources.image_dir", ["/a"]),
        (
            "gen_trt_engine.tensorrt.calibration.cal_image_dir=/a",
            "gen_trt_engine.tensorrt.calibration.cal_image_dir",
            ["/a"],
        ),
        (
            "gen_trt_engine.tensorrt.layers_precision=['/a/b:0:FP16','*:fp32']",
            "gen_trt_engine.tensorrt.layers_precision",
            ["/a/b:0:fp16", "*:fp32"],
        ),
        ("gen_trt_engine.tensorrt.layers_precision=null", "gen_trt_engine.tensorrt.layers_precision", []),
        (
            "gen_trt_engine.tensorrt.compute_capabilities=[8.6,'12.0']",
            "gen_trt_engine.tensorrt.compute_capabilities",
            ["8.6", "12.0"],
        ),
        ("results_dir=7", "results_dir", "7"),
        ("evaluate=null", "evaluate.batch_size", -1),
    ],
)
def test_values_are_converted_as_the_established_tool_does(override, key, value):
    assert load_spec(RtdetrSpec, {}, [override]).get(key) == value


@pytest.mark.parametrize(
    ("given", "profile"),
    [
        ({}, (1, 1, 4)),
        ({"max": 16}, (1, 1, 16)),
        ({"opt": 8}, (1, 8, 8)),
        ({"min": 6}, (6, 6, 6)),
        ({"max": 2}, (1, 1, 2)),
        ({"min": 2, "max": 8}, (2, 2, 8)),
        ({"min": 1, "opt": 4, "max": 8}, (1, 4, 8)),
        ({"min": 4, "max": 2}, None),
        ({"opt": 9, "max": 8}, None),
        ({"min": 4, "opt": 2}, None),
    ],
)
def test_the_profile_is_ordered_and_untouched_defaults_give_way(given, profile):
    source = {"gen_trt_engine": {"tensorrt": {f"{name}_batch_size": value for name, value in given.items()}}}
    if profile is None:
        with pytest.raises(SpecError, match="min_batch_size <= opt_batch_size <= max_batch_size"):
            load_spec(RtdetrSpec, source)
        return
    built = load_spec(RtdetrSpec, source).gen_trt_engine.tensorrt
    assert (built.min_batch_size, built.opt_batch_size, built.max_batch_size) == profile


def test_ordering_mistakes_name_the_line(spec_file):
    path = spec_file("gen_trt_engine:\n  tensorrt:\n    min_batch_size: 4\n    max_batch_size: 2\n")
    with pytest.raises(SpecError) as caught:
        load_spec(ClassificationSpec, path)
    assert caught.value.where.startswith(f"{path}:3: ")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1,\nb: 2\n", ":"),
        ("evaluate:\n  a: 1\n b: 2\n", ":3:"),
        ("evaluate: {x: 1\n", ":"),
        ("\tresults_dir: x\n", ":1:1"),
        ("results_dir: 'x\n", ":"),
        ("- results_dir\n", ":1"),
        ("just text\n", ":1"),
        ("results_dir: a\nresults_dir: b\n", ":2"),
        ("results_dir: !!python/object/apply:os.system ['true']\n", ":1:"),
        ("results_dir: &a [*a]\n", ":1"),
        ("a: 1\n---\nb: 2\n", ":"),
        ("\x00", ""),
        ("a: " + "[" * 3000, ""),
    ],
)
def test_malformed_yaml_names_line_and_column(spec_file, text, place):
    path = spec_file(text)
    with pytest.raises(SpecError) as caught:
        load_spec(RtdetrSpec, path)
    assert caught.value.where.startswith(f"{path}{place}")


def test_missing_and_unreadable_files(tmp_path):
    for path, what in ((tmp_path / "none.yaml", "does not exist"), (tmp_path, "folder")):
        with pytest.raises(SpecError, match=what):
            load_spec(RtdetrSpec, path)
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07\xff\xfe\x00\x80")
    with pytest.raises(SpecError, match="not a text file"):
        load_spec(RtdetrSpec, tmp_path / "model.onnx")


def test_an_empty_file_is_an_empty_spec(spec_file):
    assert load_spec(RtdetrSpec, spec_file("# nothing\n")) == RtdetrSpec()


def test_yaml_reads_exponents_as_numbers_and_dates_as_text(spec_file):
    spec = load_spec(RtdetrSpec, spec_file("inference: {conf_threshold: 1e-3}\nresults_dir: 2024-01-02\n"))
    assert spec.inference.conf_threshold == 0.001
    assert spec.results_dir == "2024-01-02"


def test_interpolation_sees_file_defaults_and_overrides(spec_file):
    path = spec_file(
        "results_dir: /r\n"
        "evaluate: {batch_size: '${dataset.batch_size}', results_dir: '${results_dir}/eval'}\n"
        "inference: {batch_size: '${evaluate.batch_size}'}\n"
        "train: {results_dir: '${results_dir}/train', seed: '${train.num_epochs}'}\n"
    )
    spec = load_spec(RtdetrSpec, path, ["results_dir=/s", "model.num_select=${dataset.batch_size}"])
    assert (spec.evaluate.batch_size, spec.inference.batch_size, spec.model.num_select) == (4, 4, 4)
    assert spec.evaluate.results_dir == "/s/eval"
    assert spec.get("train.results_dir") == "/s/train"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("${evaluate.batch_sise}", "not set"),
        ("${evaluate.results_dir", "cannot read"),
        ("${no_such_resolver:1}", "cannot resolve"),
        ("${evaluate.results_dir}", "cannot resolve"),
    ],
)
def test_interpolations_that_lead_nowhere(spec_file, value, what):
    path = spec_file(f"evaluate:\n  results_dir: '{value}'\n")
    with pytest.raises(SpecError, match=what) as caught:
        load_spec(RtdetrSpec, path)
    assert caught.value.where == f"{path}:2: evaluate.results_dir"


def test_what_follows_an_unset_key_is_unset(spec_file):
    path = spec_file(
        "export: {onnx_file: '${export.results_dir}/m.onnx'}\n"
        "gen_trt_engine: {onnx_file: '${export.onnx_file}', trt_engine: '${gen_trt_engine.results_dir}/m.engine'}\n"
        "inference: {results_dir: '${evaluate.results_dir}'}\n"
    )
    spec = load_spec(RtdetrSpec, path)
    assert (spec.gen_trt_engine.onnx_file, spec.gen_trt_engine.trt_engine, spec.inference.results_dir) == (None,) * 3
    assert len(spec.notes) == 2
    with pytest.raises(SpecError, match="no value is given"):
        spec.require("gen_trt_engine.trt_engine")
    spec = load_spec(RtdetrSpec, path, ["results_dir=/r"])
    assert spec.gen_trt_engine.trt_engine == "/r/gen_trt_engine/m.engine"
    assert spec.inference.results_dir == "/r/trt_evaluate"
    assert spec.gen_trt_engine.results_dir is None
    with pytest.raises(SpecError, match="num_epochs, which is not set"):
        load_spec(RtdetrSpec, path, ["evaluate.batch_size=${train.num_epochs}"])


def test_a_block_given_twice_is_merged_with_a_note(spec_file):
    path = spec_file("evaluate: {batch_size: 1, num_gpus: 1}\nstrict: true\nevaluate:\n  batch_size: 2\n")
    spec = load_spec(RtdetrSpec, path)
    assert (spec.evaluate.batch_size, spec.strict) == (2, True)
    assert spec.where("evaluate.batch_size") == f"{path}:4: evaluate.batch_size"
    assert spec.notes == ["evaluate is given twice, in lines 1 and 3; both parts count, the later one wins"]


def test_question_marks_and_empty_text_are_missing(spec_file):
    path = spec_file("gen_trt_engine:\n  onnx_file: ???\n  trt_engine: ''\nresults_dir: '??'\n")
    spec = load_spec(RtdetrSpec, path)
    for key, line in (("gen_trt_engine.onnx_file", 2), ("gen_trt_engine.trt_engine", 3), ("results_dir", 4)):
        with pytest.raises(SpecError, match=key) as caught:
            spec.require(key)
        assert caught.value.where == f"{path}:{line}: {key}"
    with pytest.raises(SpecError) as caught:
        spec.require("dataset.infer_data_sources.image_dir")
    assert caught.value.where == f"{path}: dataset.infer_data_sources.image_dir"
    assert load_spec(RtdetrSpec, path, ["results_dir=/x"]).require("results_dir") == "/x"


def test_yaml_output_loads_back_and_masks_the_key(spec_file):
    path = spec_file("encryption_key: secret\nevaluate: {batch_size: 2}\ntrain: {num_epochs: 3}\nresults_dir: a\n")
    spec = load_spec(RtdetrSpec, path)
    text = spec.to_yaml()
    assert "secret" not in text
    assert "***" in text
    again = load_spec(RtdetrSpec, spec_file(text, "again.yaml"), ["encryption_key=secret"])
    assert again == spec
    assert again.get("train.num_epochs") == 3


def test_several_mistakes_are_told_at_once(spec_file):
    path = spec_file("evaluate: {batch_size: x}\ninference: {conf_threshold: 2, batch_sice: 3}\n")
    with pytest.raises(SpecError) as caught:
        load_spec(RtdetrSpec, path)
    assert "2 more problems" in str(caught.value)


def test_every_section_default_has_the_type_of_its_annotation():
    from nvidia_tao_deploy.spec.shapes import fields_of, shape_of

    def check(values):
        for key, field in fields_of(type(values)).items():
            kind, section = shape_of(field)
            value = getattr(values, next(name for name, item in type(values).model_fields.items() if item is field))
            if kind == "block" and value is not None:
                assert type(value) is section, key
                check(value)

    for model in (RtdetrSpec, ClassificationSpec, DetectnetSpec):
        check(model())


def test_importing_the_models_imports_no_parser():
    code = (
        "import sys, nvidia_tao_deploy.spec, nvidia_tao_deploy.spec.load, nvidia_tao_deploy.spec.flags\n"
        "import nvidia_tao_deploy.cv.detectnet_v2.spec\n"
        "print([name for name in ('omegaconf', 'google.protobuf', 'yaml') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_profile_out_of_order_is_blamed_on_what_the_command_line_said(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("gen_trt_engine:\n  tensorrt:\n    min_batch_size: 1\n    max_batch_size: 8\n")
    text = "gen_trt_engine.tensorrt.opt_batch_size=9"
    with pytest.raises(SpecError) as caught:
        load_spec(RtdetrSpec, path, [text])
    assert caught.value.where == f"override {text}"
