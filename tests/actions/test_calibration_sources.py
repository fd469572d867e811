"""gen_trt_engine from the command line: where scales come from, what precisions are built, and what is refused."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell, write_spec
from onnx import helper, numpy_helper
from PIL import Image
from repository import MODELS

from nvidia_tao_deploy.calibration.cache import read_cache
from nvidia_tao_deploy.calibration.tensorfile import read_tensorfile
from nvidia_tao_deploy.engine.implicit import usable_cache
from nvidia_tao_deploy.graph.load import load_model
from nvidia_tao_deploy.graph.quantize import quantizable_tensors, quantize
from nvidia_tao_deploy.graph.simplify import simplify

INT8 = "gen_trt_engine.tensorrt.data_type=int8"
CALIBRATION = "gen_trt_engine.tensorrt.calibration"
NO_IMAGES = f"{CALIBRATION}.cal_image_dir=[]"


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


class Job:
    """One spec of classification_pyt, built again and again."""

    def __init__(self, shell: Shell, folder: Path, images: Path) -> None:
        self.shell, self.folder = shell, folder
        self.images = folder / "images"
        self.images.mkdir()
        for i, path in enumerate(sorted(images.rglob("*.png"))[:12]):
            shutil.copy(path, self.images / f"{i:02}.png")
        self.model = folder / "model.onnx"
        shutil.copy(MODELS / "classification_pyt.onnx", self.model)
        self.cache = folder / "cal.cache"
        self.spec = write_spec(
            folder / "spec.yaml",
            {
                "results_dir": str(folder / "results"),
                "gen_trt_engine": {
                    "onnx_file": str(self.model),
                    "trt_engine": str(folder / "model.engine"),
                    "tensorrt": {
                        "data_type": "int8",
                        "max_batch_size": 4,
                        "calibration": {
                            "cal_image_dir": [str(self.images)],
                            "cal_batch_size": 4,
                            "cal_batches": 2,
                            "cal_cache_file": str(self.cache),
                        },
                    },
                },
            },
        )
        self.words = ("classification_pyt", "gen_trt_engine", "-e", self.spec)

    def build(self, *overrides: str) -> dict[str, Any]:
        """Must succeed; the manifest. What was said is in ``shell.err``."""
        assert self.shell(*self.words, *overrides, "--json") == 0, self.shell.err
        manifest: dict[str, Any] = json.loads((self.folder / "model.engine.json").read_text())
        return manifest

    def refused(self, *overrides: str, code: int = 1) -> str:
        message = self.shell.refused(code, *self.words, *overrides)
        assert not (self.folder / "model.engine").exists()
        return message

    @property
    def said(self) -> str:
        return self.shell.out + self.shell.err

    def prepared(self) -> onnx.ModelProto:
        return onnx.load(self.folder / "model.engine.onnx")

    def tensors(self) -> list[str]:
        """The activations an int8 build asks scales for."""
        return quantizable_tensors(simplify(load_model(self.model))[0])

    def scales(self) -> dict[str, float]:
        """Scales of the activations in the prepared graph."""
        graph = self.prepared().graph
        values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        return {
            node.input[0].removesuffix("::fp32"): float(values[node.input[1]])  # behind a Cast where fp16 feeds it
            for node in graph.node
            if node.op_type == "QuantizeLinear" and values[node.input[1]].ndim == 0
        }


@pytest.fixture
def job(shell: Shell, tmp_path: Path, digits: Path) -> Job:
    return Job(shell, tmp_path, digits / "calibration")


def write_foreign_cache(path: Path, scales: dict[str, float], header: str = "TRT-8503-EntropyCalibration2") -> None:
    """As TensorRT writes it, by hand."""
    lines = [header, *(f"{name}: {struct.pack('>f', value).hex()}" for name, value in scales.items())]
    path.write_text("\n".join(lines) + "\n")


def test_a_cache_is_written_and_reused_where_it_fits(job: Job) -> None:
    first = job.build()
    graph, scales = job.prepared().SerializeToString(), job.scales()
    written = read_cache(job.cache)
    assert (written.version, written.algorithm) == ((10, 16, 1), "EntropyCalibration2")
    assert set(written.scales) == set(job.tensors())
    assert scales == pytest.approx(written.scales)
    # TensorRT's own calibrator takes the file as it is: same header, nothing to say.
    contents = job.cache.read_bytes()
    assert usable_cache(contents, "10.16.1.11", "EntropyCalibration2", can_calibrate=True) == (contents, None)
    assert len(first["calibration"]["images"]) == 8
    again = job.build()
    assert "Calibrating" not in job.said
    assert f"{len(scales)} tensors matched" in job.said
    assert again["calibration"]["source"] == "cache"
    assert job.prepared().SerializeToString() == graph
    job.build(NO_IMAGES)
    assert job.prepared().SerializeToString() == graph


def change_model(job: Job) -> None:
    model = onnx.load(job.model)
    model.doc_string = "exported again"
    onnx.save(model, job.model)


def change_image(job: Job) -> None:
    for path in job.images.iterdir():
        Image.new("RGB", (40, 40), "gray").save(path)


@pytest.mark.parametrize(
    ("what", "change", "override"),
    [
        ("the ONNX model changed", change_model, ()),
        ("the images changed", change_image, ()),
        ("the method changed (entropy -> minmax)", None, (f"{CALIBRATION}.method=minmax",)),
        ("the transform changed", None, ("dataset.augmentation.mean=[0.1,0.1,0.1]",)),
    ],
)
def test_a_cache_that_does_not_fit_is_calibrated_anew(job: Job, what: str, change: Any, override: Any) -> None:
    job.build()
    before = job.cache.read_text()
    if change:
        change(job)
    job.build(*override)
    assert f"does not fit, calibrating anew: {what}" in job.said
    assert "Calibrating" in job.said
    if "ONNX" not in what:
        assert job.cache.read_text() != before
    if "minmax" in what:
        assert read_cache(job.cache).algorithm == "MinMaxCalibration"


def test_a_cache_that_lacks_tensors_of_this_build_is_calibrated_anew(job: Job) -> None:
    everything = job.tensors()
    name = next(node.name for node in simplify(load_model(job.model))[0].graph.node if node.op_type == "Conv")
    job.build(f'gen_trt_engine.tensorrt.layers_precision=["{name}:fp32"]')
    assert set(read_cache(job.cache).scales) < set(everything)
    job.build()
    assert "lacks 1 of the tensors to quantize now, calibrating anew" in job.said
    assert set(read_cache(job.cache).scales) == set(everything)
    job.build(f'gen_trt_engine.tensorrt.layers_precision=["{name}:fp32"]')
    assert "Calibrating" not in job.said  # it holds more than is needed


def test_a_cache_that_does_not_fit_is_refused_without_images(job: Job) -> None:
    job.build()
    (job.folder / "model.engine").unlink()
    change_model(job)
    message = job.refused(NO_IMAGES)
    assert "the ONNX model changed" in message
    assert "cal_image_dir" in message


def test_images_that_are_gone_stop_only_what_needs_them(job: Job) -> None:
    gone = f"{CALIBRATION}.cal_image_dir=/nowhere"
    job.refused(gone)
    job.build(gone, "gen_trt_engine.tensorrt.data_type=fp16", "gen_trt_engine.timing_cache=no/timing.cache")
    assert "timing_cache is not used" in job.said
    assert "without calibration images: no such image folder" in job.said
    job.build()
    scales = job.scales()
    for override in (gone, f"{CALIBRATION}.cal_batches=1000"):
        job.build(override)
        assert "without calibration images" in job.said
        assert job.scales() == scales


def test_a_cache_of_tensorrt_8_becomes_scales(job: Job) -> None:
    tensors = job.tensors()
    table = {name: 0.01 * (i + 1) for i, name in enumerate(tensors)}
    producers = {o: n for n in simplify(load_model(job.model))[0].graph.node for o in n.output}
    moved = next(name for name in tensors if name in producers and producers[name].op_type == "Relu")
    dropped = [name for name in tensors if name not in producers or producers[name].op_type != "Relu"][-1]
    table[producers[moved].input[0]] = table.pop(moved)  # as where TensorRT kept only what goes into the ReLU
    del table[dropped]
    table |= {"(Unnamed Layer* 8) [Constant]_output": 0.5, "gone: with a colon": 0.25}
    write_foreign_cache(job.cache, table)
    manifest = job.build(NO_IMAGES)
    report = f"{len(tensors) - 2} tensors matched, 1 fused with an earlier one, 1 without a scale, 1 entries unused"
    assert report in job.said
    assert manifest["calibration"]["report"] == report
    assert manifest["calibration"]["unmatched"] == [dropped]
    assert "no record of its origin" in job.said
    scales = job.scales()
    assert dropped not in scales
    assert scales[moved] == pytest.approx(table[producers[moved].input[0]])


def test_a_cache_of_another_model_is_refused(job: Job) -> None:
    write_foreign_cache(job.cache, {"backbone/conv": 0.1, "head": 0.2})
    message = job.refused()
    assert "none of its tensor names is in the model" in message
    job.cache.write_text("not a cache\n")
    assert "TRT-<version>-<algorithm>" in job.refused()


def test_an_fp8_build_uses_a_cache_by_its_ranges(job: Job) -> None:
    """amax = 127 * int8 scale = 448 * fp8 scale."""
    table = dict.fromkeys(job.tensors(), 0.03)
    write_foreign_cache(job.cache, table)
    job.build("gen_trt_engine.tensorrt.data_type=fp8", NO_IMAGES)
    names = quantizable_tensors(simplify(load_model(job.model))[0], precision="fp8")
    scales = [job.scales()[name] for name in names]
    assert scales == pytest.approx([0.03 * 127 / 448] * len(scales))
    job.cache.unlink()
    job.build("gen_trt_engine.tensorrt.data_type=fp8")
    wide = read_cache(job.cache).scales
    assert [448 * job.scales()[n] for n in names] == pytest.approx([127 * wide[n] for n in names], rel=1e-5)


def test_scales_of_quantization_aware_training(job: Job) -> None:
    amax = {name: 2.0 + i for i, name in enumerate(job.tensors())}
    table = job.folder / "qat.json"
    table.write_text(json.dumps({"tensor_scales": amax}))
    given = f"{CALIBRATION}.cal_json_file={table}"
    manifest = job.build(given, NO_IMAGES)
    assert manifest["calibration"]["source"] == "qat"
    assert job.scales() == pytest.approx({name: value / 127 for name, value in amax.items()})
    assert read_cache(job.cache).scales == pytest.approx({name: value / 127 for name, value in amax.items()})
    (job.folder / "model.engine").unlink()
    assert "would be replaced" in job.refused(given, code=2)
    forced = job.build(given, f"{CALIBRATION}.force_ptq=true", f"{CALIBRATION}.cal_cache_file=null")
    assert forced["calibration"]["source"] == "images"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot read the QAT scales: No such file"),
        ('{"scales": {}}', "tensor_scales"),
        ('{"tensor_scales": {"input": -1}}', "not a positive number"),
        ('{"tensor_scales": {"other": 1.0}}', "none of its tensor names is in the model"),
    ],
)
def test_broken_qat_scales_are_refused(job: Job, content: str | None, expected: str) -> None:
    table = job.folder / "qat.json"
    if content is not None:
        table.write_text(content)
    assert expected in job.refused(f"{CALIBRATION}.cal_json_file={table}", NO_IMAGES)


def test_a_tensorfile_is_written_and_then_replaces_the_images(job: Job) -> None:
    pytest.importorskip("h5py")
    file = job.folder / "batches.tensorfile"
    words = (f"{CALIBRATION}.cal_data_file={file}", f"{CALIBRATION}.cal_cache_file=null")
    job.build(*words)
    graph = job.prepared().SerializeToString()
    records = list(read_tensorfile(file))
    assert [np.shape(record) for record in records] == [(4, 3, 64, 64)] * 2
    shutil.rmtree(job.images)
    manifest = job.build(*words, NO_IMAGES)
    assert manifest["calibration"]["data_file"] == str(file)
    assert job.prepared().SerializeToString() == graph


def test_a_model_that_carries_its_own_quantization(job: Job) -> None:
    job.build()
    quantized = job.folder / "qat.onnx"
    model = simplify(load_model(job.model))[0]
    onnx.save(quantize(model, dict.fromkeys(quantizable_tensors(model), 0.05)).model, quantized)
    shutil.rmtree(job.images)  # nothing is calibrated
    manifest = job.build(f"gen_trt_engine.onnx_file={quantized}")
    assert "carries its own quantization" in job.said
    assert manifest["calibration"] is None
    assert set(job.scales().values()) == {float(np.float32(0.05))}
    assert manifest["verified_precision"]["int8"] > 0


def test_layers_precision_by_name_and_by_glob(job: Job) -> None:
    everything = job.build()["verified_precision"]
    names = [node.name for node in simplify(load_model(job.model))[0].graph.node if node.op_type == "Conv"]
    listed = f'gen_trt_engine.tensorrt.layers_precision=["{names[1]}:fp32","{names[2][:-1]}?:fp16","typo*:fp32"]'
    some = job.build(listed)["verified_precision"]
    assert some["int8"] == everything["int8"] - 2
    assert some["fp32"] == 1
    assert "layers_precision 'typo*' names no node" in job.said
    assert job.said.count("names no node") == 1
    fp16 = job.build(
        "gen_trt_engine.tensorrt.data_type=fp16",
        f'gen_trt_engine.tensorrt.layers_precision=["*:fp32","{names[0]}:fp16"]',
    )
    assert fp16["verified_precision"]["fp16"] == 1


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "fp8"])
def test_every_other_precision_is_built_checked_and_told(job: Job, precision: str) -> None:
    manifest = job.build(f"gen_trt_engine.tensorrt.data_type={precision}")
    assert manifest["verified_precision"]["source"] == "prepared graph"
    assert manifest["verified_precision"][precision] >= 5
    assert f"{precision}: {manifest['verified_precision'][precision]} of 8 convolutions and matmuls" in job.said
    parity = manifest["parity"]["output"]
    assert parity["agreement_of"] == "arg-max"
    assert parity["agreement"] >= 0.85
    assert parity["cosine"] > 0.98
    assert "same arg-max" in job.said
    evaluated = (
        "classification_pyt",
        "inference",
        "-e",
        job.spec,
        f"inference.trt_engine={job.folder}/model.engine.onnx",
    )
    classes = [f"dataset.root_dir={job.folder}", f"dataset.test_dataset.images_dir={job.images}"]
    (job.folder / "classes.txt").write_text("\n".join("abcdefghij"))
    assert job.shell(*evaluated, *classes) == 0, job.said  # ONNX Runtime takes the prepared graph on the CPU


def test_a_workspace_that_was_meant_in_gib_is_told(job: Job) -> None:
    words = "gen_trt_engine.tensorrt.data_type=fp32", "gen_trt_engine.tensorrt.workspace_size=4"
    assert "Raise workspace_size" in job.refused(*words)  # as TensorRT-RTX finds it
    assert "4 MiB is very little" in job.said
    job.build("gen_trt_engine.tensorrt.data_type=fp32", "gen_trt_engine.tensorrt.workspace_size=0")
    assert "very little" not in job.said


def test_a_parity_limit_fails_the_build(job: Job) -> None:
    message = job.refused("gen_trt_engine.tensorrt.parity.max_abs=0")
    assert "over max_abs 0" in message


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (f"{CALIBRATION}.mode=implicit", "no implicit int8 calibration (removed in 11, never in RTX)"),
        ("gen_trt_engine.tensorrt.version_compatible=true", "no version compatible engines"),
        ("gen_trt_engine.tensorrt.hardware_compatibility=ampere_plus", "no hardware compatibility ampere_plus"),
        ("gen_trt_engine.tensorrt.dla_core=0", "no DLA"),
        ("gen_trt_engine.tensorrt.refittable=true", "need a GPU"),
        ("gen_trt_engine.tensorrt.compute_capabilities=['9.0']", "compute capability 9.0"),
        (f"{CALIBRATION}.method=percentile {CALIBRATION}.quantizer=modelopt", "no calibration method 'percentile'"),
    ],
)
def test_what_this_builder_cannot_do_is_refused_with_the_reason(job: Job, override: str, reason: str) -> None:
    code = 2 if "percentile" in override else 1
    assert reason in job.refused(*override.split(), code=code)


def test_a_layer_precision_that_does_not_exist_is_refused(job: Job) -> None:
    assert "int7" in job.refused('gen_trt_engine.tensorrt.layers_precision=["a:int7"]', code=2)


@pytest.mark.parametrize(
    ("op", "plugins", "remedy"),
    [("EfficientNMS_TRT", "keep", "tensorrt.plugins"), ("Frobnicate", "auto", "Export the model without")],
)
def test_an_operator_nobody_knows_is_named_before_the_build(job: Job, op: str, plugins: str, remedy: str) -> None:
    model = onnx.load(job.model)
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node(op, ["before"], [model.graph.output[0].name], name="odd/node"))
    onnx.save(model, job.model)
    message = job.refused(f"gen_trt_engine.tensorrt.plugins={plugins}")
    assert f"odd/node ({op})" in message
    assert remedy in message
    assert "Building" not in job.said


def test_a_profile_the_model_cannot_take_is_refused_before_the_build(job: Job) -> None:
    model = onnx.load(job.model)
    model.graph.node[-1].output[0] = "before"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 2, 10], np.int64), "pairs"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 10], np.int64), "rows"))
    model.graph.node.append(helper.make_node("Reshape", ["before", "pairs"], ["paired"], name="pairs"))
    model.graph.node.append(helper.make_node("Reshape", ["paired", "rows"], ["output"], name="rows"))
    onnx.save(model, job.model)
    message = job.refused("gen_trt_engine.tensorrt.simplify=false", "gen_trt_engine.tensorrt.data_type=fp32")
    assert "cannot run at the min shapes" in message


def test_modelopt_is_asked_for_by_its_pip_line(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    message = job.refused(f"{CALIBRATION}.quantizer=modelopt")
    assert "pip install 'nvidia-modelopt[onnx]'" in message


def test_modelopt_quantizes_what_our_passes_leave_to_it(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake in place of Model Optimizer 0.47.0, called with the keywords the real one was seen to take."""
    asked: dict[str, Any] = {}

    def quantize_fake(onnx_path: str, **options: Any) -> None:
        asked.update(options)
        reader, batches = options["calibration_data_reader"], 0
        while (feeds := reader.get_next()) is not None:
            batches += 1
            assert feeds["input"].shape == (4, 3, 64, 64)
        asked["batches"] = batches
        model = onnx.load(onnx_path)
        out = dict.fromkeys(options["nodes_to_exclude"], "fp32")
        done = quantize(model, dict.fromkeys(quantizable_tensors(model), 0.05), layers=out)
        onnx.save(done.model, options["output_path"])
        print("noise on stdout")

    fakes = {name: ModuleType(name) for name in ("modelopt", "modelopt.onnx", "modelopt.onnx.quantization")}
    fakes["modelopt"].__version__ = "0.0 (fake)"  # type: ignore[attr-defined]
    fakes["modelopt.onnx.quantization"].quantize = quantize_fake  # type: ignore[attr-defined]
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    name = next(node.name for node in onnx.load(job.model).graph.node if node.op_type == "Conv")
    layer = f'gen_trt_engine.tensorrt.layers_precision=["{name}:fp16"]'
    manifest = job.build(f"{CALIBRATION}.quantizer=modelopt", layer)
    assert "noise" not in job.shell.out
    assert manifest["calibration"]["quantizer"] == "modelopt 0.0 (fake)"
    assert (asked["quantize_mode"], asked["calibration_method"]) == ("int8", "entropy")
    assert (asked["nodes_to_exclude"], asked["batches"]) == ([name], 2)
    assert asked["high_precision_dtype"] == "fp32"
    assert manifest["verified_precision"]["int8"] > 0


def test_int8_of_the_transformer_keeps_its_ap(shell: Shell, tmp_path: Path, scenes: tuple[Path, Path]) -> None:
    coco = scenes[0]
    source = {"json_file": str(coco / "annotations" / "test.json"), "image_dir": str(coco / "images" / "test")}
    calibration = {"cal_image_dir": [str(coco / "images" / "calibration")], "cal_batch_size": 4, "cal_batches": 4}
    spec = write_spec(
        tmp_path / "spec.yaml",
        {
            "results_dir": str(tmp_path / "results"),
            "dataset": {"test_data_sources": source, "batch_size": 8},
            "gen_trt_engine": {
                "onnx_file": str(MODELS / "rtdetr.onnx"),
                "trt_engine": str(tmp_path / "model.engine"),
                "tensorrt": {"max_batch_size": 8, "calibration": calibration},
            },
        },
    )
    measured = {}
    for precision in ("fp32", "int8", "fp8"):
        data_type = f"gen_trt_engine.tensorrt.data_type={precision}"
        assert shell("rtdetr", "gen_trt_engine", "-e", spec, data_type) == 0, shell.err
        model = f"evaluate.trt_engine={tmp_path}/model.engine.onnx"
        assert shell("rtdetr", "evaluate", "-e", spec, model, "--json") == 0, shell.err
        measured[precision] = json.loads(shell.out)["AP50"]
    assert measured["fp32"] > 0.9
    assert measured == pytest.approx(dict.fromkeys(measured, measured["fp32"]), abs=0.02)
