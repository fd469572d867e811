"""What gen_trt_engine prepares for TensorRT 8.5 (a fake of its surface), on the sample transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from fakes_tensorrt import surface
from onnx import helper
from repository import MODELS

from nvidia_tao_deploy.actions.gen_trt_engine import _build_options, _parity, _verified
from nvidia_tao_deploy.actions.prepare import Prepared, prepare
from nvidia_tao_deploy.actions.shapes import choose_profiles
from nvidia_tao_deploy.cv.rtdetr import NETWORK
from nvidia_tao_deploy.engine.backend import Backend, describe
from nvidia_tao_deploy.engine.build import BuiltEngine
from nvidia_tao_deploy.engine.facts import read
from nvidia_tao_deploy.engine.operators import TENSORRT_8_5, known_operators
from nvidia_tao_deploy.engine.options import plan_build
from nvidia_tao_deploy.errors import BuildError
from nvidia_tao_deploy.graph.decompose import SUFFIX
from nvidia_tao_deploy.graph.inspect import unsupported_nodes
from nvidia_tao_deploy.graph.load import load_model
from nvidia_tao_deploy.graph.parity import compare
from nvidia_tao_deploy.graph.tensors import attribute, opset
from nvidia_tao_deploy.runtime import cuda
from nvidia_tao_deploy.spec.load import load_spec

OLD = describe("tensorrt", surface("8.5.3.1"))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "gpus", tuple)


def spec_of(precision: str, images: Path | None, model: Path = MODELS / "rtdetr.onnx", **more: Any) -> Any:
    calibration = {"cal_image_dir": [str(images)] if images else [], "cal_batch_size": 2, "cal_batches": 2}
    tensorrt = {"data_type": precision, "max_batch_size": 2, "calibration": calibration, **more}
    section = {"onnx_file": str(model), "trt_engine": "x.engine", "tensorrt": tensorrt}
    return load_spec(NETWORK.spec, {"gen_trt_engine": section}, ())


def prepared_for(backend: Backend, spec: Any, tmp_path: Path) -> tuple[Prepared, Any]:
    """The prepared graph, and the plan of its build."""
    prepared = prepare(NETWORK, spec, backend)
    path = tmp_path / "prepared.onnx"
    onnx.save(prepared.model, path)
    profiles = choose_profiles(NETWORK, spec, prepared)
    options = _build_options(spec, prepared, profiles, weak=backend.features.typing == "weak")
    return prepared, plan_build(path, read(path), options, backend)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_graph_is_one_that_8_5_reads(tmp_path: Path, scenes: tuple[Path, Path], precision: str) -> None:
    images = scenes[0] / "images" / "calibration"
    prepared, plan = prepared_for(OLD, spec_of(precision, images), tmp_path)
    assert unsupported_nodes(prepared.model, TENSORRT_8_5) == []
    assert opset(prepared.model) <= 17
    assert any("5 norms (LayerNormalization) written out in fp32" in note for note in prepared.notes)
    convolutions = [node for node in prepared.model.graph.node if node.op_type == "Conv"]
    assert all(attribute(node, "kernel_shape") for node in convolutions)
    assert prepared.images is not None
    parity = compare(prepared.source, prepared.model, prepared.images.batches())
    assert parity.nan_count == 0
    norms = {node.name for node in prepared.model.graph.node if f"/{SUFFIX}/" in node.name}
    pinned = {name for name, kept in plan.pinned_nodes.items() if kept == "fp32"}
    if precision != "fp32":  # FP16 kernels are allowed for the rest, so the norms must be held
        assert norms <= pinned
        assert "OBEY_PRECISION_CONSTRAINTS" in plan.set_flags
    else:
        assert parity.max_abs < 1e-3


def test_a_newer_release_keeps_the_operator(tmp_path: Path) -> None:
    for release in ("8.6.1", "10.0.1"):
        backend = describe("tensorrt", surface(release))
        prepared, _ = prepared_for(backend, spec_of("fp32", None), tmp_path)
        assert "LayerNormalization" in {node.op_type for node in prepared.model.graph.node}


def test_a_newer_opset_is_brought_down(tmp_path: Path) -> None:
    """8.5 would read an opset 18 ReduceMean and not see its axes."""
    model = load_model(MODELS / "rtdetr_conv.onnx")
    newer = tmp_path / "newer.onnx"
    onnx.save(onnx.version_converter.convert_version(model, 19), newer)
    prepared, _ = prepared_for(OLD, spec_of("fp32", None, newer), tmp_path)
    assert opset(prepared.model) == 17
    assert any("converted from opset 19 to 17" in note for note in prepared.notes)


@pytest.mark.parametrize(
    ("version", "op", "known"),
    [
        ("8.5.3.1", "EfficientNMS_TRT", True),  # what the fake's registry holds
        ("11.2.1", "EfficientNMS_TRT", True),
        ("11.2.1", "NMSDynamic_TRT", False),
        ("8.5.3.1", "GroupNormalization", False),
        ("8.6.1", "LayerNormalization", True),
        ("10.0.1", "Bernoulli", False),
        ("10.0.1", "Conv", True),
    ],
)
def test_operators_and_plugins_by_release(version: str, op: str, known: bool) -> None:
    assert (op in known_operators(describe("tensorrt", surface(version)), 17)) == known


def odd_model(path: Path, op: str, domain: str = "") -> Path:
    model = onnx.load(MODELS / "rtdetr_conv.onnx")
    output = model.graph.output[0].name
    for node in model.graph.node:
        for position, name in enumerate(node.output):
            if name == output:
                node.output[position] = "before"
    model.graph.node.append(helper.make_node(op, ["before"], [output], name="odd", domain=domain))
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    onnx.save(model, path)
    return path


def test_a_plugin_that_11_dropped_is_named_when_it_is_to_be_kept(tmp_path: Path) -> None:
    model = odd_model(tmp_path / "m.onnx", "NMSDynamic_TRT")
    spec = spec_of("fp32", None, model, plugins="keep", simplify=False)
    with pytest.raises(BuildError, match=r"odd \(NMSDynamic_TRT\)") as raised:
        prepare(NETWORK, spec, describe("tensorrt", surface("11.2.1")))
    assert "plugins to auto or lower" in str(raised.value)
    known = odd_model(tmp_path / "n.onnx", "EfficientNMS_TRT")
    prepare(NETWORK, spec_of("fp32", None, known, plugins="keep", simplify=False), OLD)


def test_a_plugin_of_the_users_own_is_left_to_tensorrt(tmp_path: Path) -> None:
    model = odd_model(tmp_path / "m.onnx", "Own", domain="nv")
    prepared = prepare(NETWORK, spec_of("fp32", None, model, simplify=False), OLD)
    assert any("nv::Own" in note for note in prepared.notes)
    with pytest.raises(BuildError, match="LD_PRELOAD"):
        prepare(NETWORK, spec_of("fp32", None, odd_model(tmp_path / "n.onnx", "Own"), simplify=False), OLD)


def test_calibration_images_are_no_hindrance_where_onnxruntime_lacks_the_plugin(tmp_path: Path, scenes: Any) -> None:
    images = scenes[0] / "images" / "calibration"
    model = odd_model(tmp_path / "m.onnx", "Own", domain="nv")
    for precision, more in (
        ("fp16", {}),
        ("int8", {"calibration": {"mode": "implicit", "cal_image_dir": [str(images)]}}),
    ):
        spec = spec_of(precision, images, model, simplify=False, **more)
        prepared = prepare(NETWORK, spec, OLD)
        assert _parity(spec, prepared) is None
        assert any("without calibration images" in note and "nv::Own" in note for note in prepared.notes) == (not more)
    with pytest.raises(BuildError, match=r"does not know nv::Own\n.*cal_cache_file.*implicit"):
        prepare(NETWORK, spec_of("int8", images, model, simplify=False), OLD)


def test_a_plugin_without_a_lowering_is_refused_with_its_remedy(tmp_path: Path) -> None:
    spec = spec_of("fp32", None, odd_model(tmp_path / "m.onnx", "DetectionLayer_TRT"), simplify=False)
    rtx = describe("tensorrt_rtx", surface("1.7.1"))
    with pytest.raises(BuildError, match=r"odd \(DetectionLayer_TRT\)\n.*runtime=tensorrt"):
        prepare(NETWORK, spec, rtx)
    spec = spec_of("fp32", None, odd_model(tmp_path / "n.onnx", "LReLU_TRT"), simplify=False)
    with pytest.raises(BuildError, match=r"odd \(LReLU_TRT\): its attribute 'negSlope' is missing\n  Export") as raised:
        prepare(NETWORK, spec, rtx)
    assert "auto or lower" not in str(raised.value)  # that is what was tried


def engine_info(layers: dict[str, int] | None, opaque: int = 0) -> BuiltEngine:
    facts: Any = None
    return BuiltEngine(
        b"", facts, "tensorrt", "8.5.3.1", ((9, 0),), "H200", 1.0, False, (), None, (), (), layers, opaque
    )


def test_what_the_engine_holds_is_told_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    found = _verified("int8", engine_info({"int8": 83, "fp16": 37}), {"total": 1}, implicit=False, where=Path("m.onnx"))
    assert found == {"source": "engine", "int8": 83, "fp16": 37, "total": 120, "compiled_layers": 0}
    said = capsys.readouterr()
    assert "In the engine: int8: 83 of 120 convolutions and matmuls, fp16: 37" in said.out + said.err
    unread = _verified("int8", engine_info(None), {"int8": 3, "total": 4}, implicit=False, where=Path("m.onnx"))
    assert unread == {"source": "prepared graph", "int8": 3, "total": 4}


def test_an_engine_without_what_was_asked_for_fails() -> None:
    with pytest.raises(BuildError, match="fp16 was asked for, and the engine holds fp32: 12 of 12"):
        _verified("fp16", engine_info({"fp32": 12}), {"fp16": 12}, implicit=False, where=Path("m.onnx"))
    # Compiled layers hide theirs, so nothing can be said against the engine.
    _verified("fp16", engine_info({"fp32": 1}, opaque=2), {"fp16": 12}, implicit=False, where=Path("m.onnx"))
