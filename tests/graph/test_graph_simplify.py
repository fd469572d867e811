"""simplify keeps the function; the batch of a model can be fixed and freed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_models import Builder, detector, feeds, residual_cnn, transformer_block
from onnx import helper

from nvidia_tao_deploy.graph import simplify as room
from nvidia_tao_deploy.graph.load import model_inputs, model_outputs
from nvidia_tao_deploy.graph.ort import open_session
from nvidia_tao_deploy.graph.parity import compare
from nvidia_tao_deploy.graph.simplify import fold_batch_norm, set_batch, simplify


@pytest.mark.parametrize(
    "model", [residual_cnn(batch_norm=True), transformer_block(), detector()], ids=["cnn", "transformer", "detector"]
)
def test_outputs_do_not_change_and_the_input_model_is_not_touched(model):
    before = model.SerializeToString()
    simple = simplify(model)[0]
    assert model.SerializeToString() == before
    assert compare(model, simple, feeds(model)).max_abs < 1e-5
    assert [i.name for i in simple.graph.input] == [i.name for i in model.graph.input]
    onnx.checker.check_model(simple, full_check=True)


def test_batch_norm_is_folded_and_the_convolution_keeps_its_name():
    simple = simplify(residual_cnn(batch_norm=True))[0]
    types = [node.op_type for node in simple.graph.node]
    assert "BatchNormalization" not in types
    assert "stem" in {node.name for node in simple.graph.node}


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_folding_matches_running_the_norm(op, group):
    b = Builder()
    b.const("w", b.rng.standard_normal((8, 8 // group, 3, 3)).astype(np.float32))
    b.node(op, ["x", "w"], "c", group=group)
    b.norm("c", "y", 8)
    model = b.model({"x": ["b", 8, 9, 9]}, {"y": ["b", 8, None, None]})
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    assert fold_batch_norm(folded) == 1
    batch = feeds(model, 1)[0]
    expected = open_session(model).run(None, batch)[0]
    np.testing.assert_allclose(open_session(folded).run(None, batch)[0], expected, rtol=1e-4, atol=1e-5)


def test_constant_chains_fold_away():
    b = Builder()
    b.const("a", np.arange(4, dtype=np.float32))
    b.node("Mul", [b.node("Add", ["a", "a"], "twice"), "a"], "offset")
    b.node("Add", ["x", "offset"], "y")
    assert len(simplify(b.model({"x": [2, 4]}, {"y": [2, 4]}))[0].graph.node) == 1


def test_local_functions_are_inlined():
    body = [helper.make_node("Mul", ["a", "a"], ["b"])]
    square = helper.make_function("local", "Square", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    graph = helper.make_graph(
        [helper.make_node("Square", ["x"], ["y"], domain="local")],
        "g",
        [helper.make_tensor_value_info("x", 1, [2])],
        [helper.make_tensor_value_info("y", 1, [2])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=[square], ir_version=9)
    assert [node.op_type for node in simplify(model)[0].graph.node] == ["Mul"]


def test_plugins_survive():
    b = Builder()
    b.conv("x", "y", 3, 4)
    model = b.model({"x": [1, 3, 8, 8]}, {"y": [1, 4, 8, 8]})
    model.graph.node.append(onnx.helper.make_node("EfficientNMS_TRT", ["y"], ["z"], name="nms"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, None))
    assert "EfficientNMS_TRT" in [node.op_type for node in simplify(model)[0].graph.node]


def test_what_follows_a_plugin_is_not_annotated_without_a_type():
    """ONNX Runtime refuses such annotations once the plugin is lowered."""
    from repository import MODELS

    for name in ("deformable_detr", "faster_rcnn"):
        simplified = simplify(onnx.load(MODELS / f"{name}.onnx"))[0]
        assert all(value.type.tensor_type.elem_type for value in simplified.graph.value_info)


def test_a_failing_simplifier_leaves_the_model_and_a_note(monkeypatch):
    def fail(model):
        raise RuntimeError("boom")

    monkeypatch.setattr(room, "_slim", fail)
    model = transformer_block()
    simplified, note = simplify(model)
    assert "boom" in (note or "")
    assert len(simplified.graph.node) == len(model.graph.node)


def test_batch_is_fixed_and_freed():
    model = residual_cnn()
    fixed = set_batch(model, 2)
    assert (model_inputs(fixed)[0].shape[0], model_outputs(fixed)[0].shape[0]) == (2, 2)
    assert model_inputs(model)[0].shape[0] is None
    free = set_batch(fixed, None)
    assert model_inputs(free)[0].shape[0] is None
    assert compare(model, free, feeds(model, batch=3)).max_abs == 0
