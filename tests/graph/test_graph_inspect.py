"""The nodes a target does not know, and the numeric comparison of two models."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_models import Builder, feeds, residual_cnn
from onnx import helper

from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.graph.inspect import shown, standard_ops, unsupported_nodes
from nvidia_tao_deploy.graph.parity import compare


def test_unsupported_nodes_are_named():
    model = residual_cnn()
    model.graph.node.append(helper.make_node("NMSDynamic_TRT", ["y"], ["z"], name="nms"))
    model.graph.node.append(helper.make_node("Gelu", ["y"], ["w"], domain="com.microsoft"))
    found = unsupported_nodes(model, standard_ops(17))
    assert [shown(node) for node in found] == ["nms (NMSDynamic_TRT)", "Gelu -> w (com.microsoft::Gelu)"]


def linear(weight, name="y"):
    b = Builder()
    b.const("w", np.asarray(weight, dtype=np.float32))
    b.node("MatMul", ["x", "w"], name)
    return b.model({"x": ["b", 2]}, {name: ["b", 2]})


def test_parity_numbers_worked_by_hand():
    batches = [{"x": np.array([[1, 0]], dtype=np.float32)}, {"x": np.array([[0, 2]], dtype=np.float32)}]
    parity = compare(linear([[1, 0], [0, 1]]), linear([[1, 1], [0, 1]]), batches)
    # reference (1,0),(0,2); candidate (1,1),(0,2): dot 5, norms 5 and 6
    assert parity.outputs["y"].max_abs == 1
    assert parity.outputs["y"].mean_abs == 0.25
    assert parity.outputs["y"].cosine == pytest.approx(5 / np.sqrt(30))
    assert parity.outputs["y"].agreement == 1  # (1,1) still ranks the first class first
    assert parity.outputs["y"].agreement_of == "arg-max"
    assert parity.outputs["y"].count == 4


def test_agreement_is_what_the_output_is_read_for():
    batches = [{"x": np.array([[1, 0], [0, 2], [3, 1], [0, 1]], dtype=np.float32)}]
    turned = compare(linear([[1, 0], [0, 1]]), linear([[1, 0], [2, 1]]), batches).outputs["y"]
    assert (turned.agreement, turned.agreement_of) == (0.5, "arg-max")
    single = compare(linear([[1], [1]]), linear([[1], [-1]]), batches).outputs["y"]
    assert (single.agreement, single.agreement_of) == (single.cosine, "cosine")
    b = Builder()
    b.const("k", np.array([1], dtype=np.int64))
    b.node("TopK", ["x", "k"], "values", axis=1)
    b.nodes[-1].output.append("y")
    integers = b.model({"x": ["b", 2]}, {"y": ["b", 1]})
    integers.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    same = compare(integers, integers, batches).outputs["y"]
    assert (same.agreement, same.agreement_of) == (1.0, "values")


def test_parity_counts_new_nans_and_needs_the_same_outputs():
    batch = [{"x": np.ones((1, 2), dtype=np.float32)}]
    broken = compare(linear([[1, 0], [0, 1]]), linear([[np.nan, 0], [0, 1]]), batch)
    assert broken.nan_count == 1
    assert broken.max_abs == 0
    with pytest.raises(ModelError, match="lacks the output y"):
        compare(linear([[1, 0], [0, 1]]), linear([[1, 0], [0, 1]], "other"), batch)
    with pytest.raises(DataError, match="no batches"):
        compare(linear([[1, 0], [0, 1]]), linear([[1, 0], [0, 1]]), [])


def test_a_model_onnx_runtime_cannot_run_says_so():
    model = residual_cnn()
    model.graph.node.append(helper.make_node("NMSDynamic_TRT", ["y"], ["z"], name="nms"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, None))
    with pytest.raises(ModelError, match="ONNX Runtime cannot load"):
        compare(model, model, feeds(model, 1))
