"""cast_float: the result is near the FP32 model, valid, and FP32 exactly where it must be."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from graph_models import Builder, decomposed_norm, detector, feeds, residual_cnn, transformer_block
from onnx import TensorProto, helper
from onnx.backend.test.case.node import collect_testcases

from nvidia_tao_deploy.errors import BuildError
from nvidia_tao_deploy.graph.ort import open_session
from nvidia_tao_deploy.graph.parity import compare
from nvidia_tao_deploy.graph.precision import cast_float
from nvidia_tao_deploy.graph.verify import count_precisions

MODELS = {"cnn": residual_cnn, "transformer": transformer_block, "norm": decomposed_norm, "detector": detector}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_fp16_is_near_fp32_and_valid(name, seed):
    model = MODELS[name](seed)
    before = model.SerializeToString()
    result = cast_float(model, "fp16")
    onnx.checker.check_model(result.model, full_check=True)
    assert model.SerializeToString() == before
    parity = compare(model, result.model, feeds(model))
    assert parity.worst_cosine > 0.99999
    assert parity.nan_count == 0
    assert count_precisions(result.model).keys() == {"fp16", "total"}


@pytest.mark.parametrize("name", MODELS)
def test_interface_stays_fp32(name):
    model = MODELS[name]()
    result = cast_float(model, "fp16").model
    for old, new in ((model.graph.input, result.graph.input), (model.graph.output, result.graph.output)):
        assert [(v.name, v.type.tensor_type.elem_type) for v in old] == [
            (v.name, v.type.tensor_type.elem_type) for v in new
        ]


def kept(model, **options):
    return dict(cast_float(model, "fp16", **options).kept)


def test_norms_and_softmax_are_islands_but_the_residual_stream_is_not():
    names = kept(transformer_block())
    assert {"ln1", "ln2", "ln3", "attention"} <= names.keys()
    assert not {"res1", "res2", "proj", "fc1", "gelu"} & names.keys()


def test_a_norm_written_by_hand_is_one_island():
    model = decomposed_norm()
    assert {"mean", "centred", "square", "variance", "shifted", "std", "normed"} <= kept(model).keys()
    # 300 squared passes 65504: only an island in FP32 gets through.
    big = [{"x": batch["x"] * 300} for batch in feeds(model)]
    assert compare(model, cast_float(model, "fp16").model, big).worst_cosine > 0.9999


def test_box_decode_and_selections_stay_fp32():
    names = kept(detector())
    assert {"topk", "boxes", "box_sig", "sampled"} <= names.keys()
    assert "c1" not in names


def test_values_beyond_fp16_keep_fp32():
    model = residual_cnn()
    assert "pool" in kept(model, ranges={"pool": (0.0, 70000.0)})
    assert "pool" not in kept(model, ranges={"pool": (0.0, 60000.0)})
    assert "pool" in kept(model, ranges={"pool": (-70000.0, 0.0)})
    assert "pool" in kept(model, ranges={"pool": (0.0, float("inf"))})


def test_constants_fp16_cannot_hold_keep_fp32():
    b = Builder()
    b.const("mask", np.full((1, 4), -1e9, dtype=np.float32))
    b.const("eps", np.float32(1e-12))
    b.conv(b.node("Div", [b.node("Add", ["x", "mask"], "masked"), b.node("Abs", ["eps"], "e")], "d"), "y", 1, 16)
    model = b.model({"x": ["b", 1, 4, 4]}, {"y": ["b", 16, 4, 4]})
    names = kept(model)
    assert "reaches 1e+09" in names["masked"]
    assert "too small" in names["e"]


def test_layers_by_name_and_glob():
    model = residual_cnn()
    wishes = {"block*": "fp32", "nothing*": "fp32", "block2": "fp16", "stem": "fp32"}
    result = cast_float(model, "fp16", layers=wishes)
    names = dict(result.kept)
    assert {"block1", "stem"} <= names.keys()
    assert "block2" not in names
    assert result.unmatched == ["nothing*"]
    lowered = cast_float(transformer_block(), "fp16", layers={"attention": "fp16"})
    assert "attention" not in dict(lowered.kept)


def test_an_exact_name_overrules_a_star_and_a_star_cannot_break_a_graph():
    names = dict(cast_float(residual_cnn(), "fp16", layers={"stem": "fp16", "*": "fp32"}).kept)
    assert "stem" not in names
    assert "block1" in names
    for build in MODELS.values():
        everything = cast_float(build(), "fp16", layers={"*": "fp16"}).model
        onnx.checker.check_model(everything, full_check=True)


def test_resize_reads_its_region_and_scales_in_fp32():
    b = Builder()
    b.const("roi", np.asarray([0, 0, 0.1, 0.1, 1, 1, 0.9, 0.9], dtype=np.float32))
    b.const("scales", np.asarray([1, 1, 1.7, 1.7], dtype=np.float32))
    x = b.conv("x", "c", 3, 16)
    x = b.node("Resize", [x, "roi", "scales"], "r", coordinate_transformation_mode="tf_crop_and_resize")
    b.conv(x, "y", 16, 16)
    result = cast_float(b.model({"x": ["b", 3, 8, 8]}, {"y": ["b", 16, None, None]}), "fp16")
    resize = next(node for node in result.model.graph.node if node.name == "r")
    assert resize.input[1:] == ["roi", "scales"]
    assert result.kept == []


def test_a_gate_in_front_of_a_norm_is_not_part_of_it():
    b = Builder()
    b.linear("x", "fc", 16, 16)
    b.linear("x", "gate", 16, 16)
    b.layer_norm(b.node("Mul", ["fc", b.node("Sigmoid", ["gate"], "s")], "gated"), "ln", 16)
    b.linear("ln", "y", 16, 16)
    assert kept(b.model({"x": ["b", 16]}, {"y": ["b", 16]})).keys() == {"ln"}


def test_casts_keep_the_type_they_name():
    b = Builder()
    b.conv("x", "c", 3, 16)
    b.node("Cast", [b.node("Shape", ["c"], "shape")], "sizes", to=TensorProto.FLOAT)
    b.node("Mul", ["c", b.node("ReduceMax", ["sizes"], "largest", keepdims=0)], "scaled")
    b.conv("scaled", "y", 16, 16)
    model = b.model({"x": ["b", 3, 8, 8]}, {"y": ["b", 16, 8, 8]})
    result = cast_float(model, "fp16", layers={"*": "fp16"}).model
    onnx.checker.check_model(result, full_check=True)
    shape = next(node for node in result.graph.node if node.op_type == "Shape")
    assert shape.input[0] == "c"  # no Cast just to look at a shape
    assert compare(model, result, feeds(model)).worst_cosine > 0.9999


def test_values_used_inside_subgraphs_keep_their_fp32_name():
    b = Builder()
    b.conv("x", "c", 3, 16)
    b.const("zero", np.float32(0))
    b.node("ReduceMax", ["x"], "peak", keepdims=0)
    b.node("Greater", ["peak", "zero"], "positive")
    out = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    then = helper.make_graph([helper.make_node("Relu", ["c"], ["r"])], "then", [], out)
    other = helper.make_graph([helper.make_node("Neg", ["c"], ["r"])], "else", [], out)
    b.node("If", ["positive"], "branch", then_branch=then, else_branch=other)
    b.conv("branch", "y", 16, 16)
    model = b.model({"x": ["b", 3, 8, 8]}, {"y": ["b", 16, 8, 8]})
    assert compare(model, cast_float(model, "fp16").model, feeds(model)).worst_cosine > 0.9999


def test_a_tensor_that_is_output_and_intermediate():
    b = Builder()
    b.conv(b.node("Relu", [b.conv("x", "c", 3, 16)], "features"), "y", 16, 16)
    model = b.model({"x": ["b", 3, 8, 8]}, {"features": ["b", 16, 8, 8], "y": ["b", 16, 8, 8]})
    result = cast_float(model, "fp16").model
    assert compare(model, result, feeds(model)).worst_cosine > 0.9999
    assert open_session(result).run(["features"], feeds(model, 1)[0])[0].dtype == np.float32


def test_weights_shrink_to_half():
    model = transformer_block(width=64)
    small = cast_float(model, "fp16").model
    assert small.ByteSize() < 0.6 * model.ByteSize()


def test_bf16_raises_the_opset_and_is_valid():
    result = cast_float(residual_cnn(), "bf16").model
    onnx.checker.check_model(result, full_check=True)
    assert result.opset_import[0].version == 22
    assert count_precisions(result) == {"bf16": 7, "total": 7}


def test_bf16_that_cannot_be_converted_is_an_error():
    b = Builder()
    b.conv("x", "y", 3, 16)
    model = b.model({"x": [1, 3, 8, 8]}, {"y": [1, 16, 8, 8]})
    model.graph.node.append(helper.make_node("EfficientNMS_TRT", ["y"], ["z"]))
    with pytest.raises(BuildError, match="opset 22"):
        cast_float(model, "bf16")


def test_plugin_nodes_stay_fp32():
    b = Builder()
    b.node("Relu", [b.conv("x", "c", 3, 16)], "r")
    b.nodes.append(helper.make_node("MyPlugin", ["r"], ["y"], name="plugin", domain="com.acme"))
    graph = helper.make_graph(
        b.nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, [1, 16, 8, 8])],
        b.weights,
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    result = cast_float(helper.make_model(graph, opset_imports=imports), "fp16")
    assert "plugin" in dict(result.kept)
    plugin = next(node for node in result.model.graph.node if node.name == "plugin")
    source = next(node for node in result.model.graph.node if plugin.input[0] in node.output)
    assert source.op_type == "Cast"
    assert source.attribute[0].i == TensorProto.FLOAT


def test_any_operator_of_the_standard_stays_valid():
    """Every 15th of ONNX's own operator tests, everything lowered that can be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [case for case in collect_testcases(None) if case.model is not None][::15]
    assert len(cases) > 50
    for case in cases:
        for number, node in enumerate(case.model.graph.node):
            node.name = node.name or f"node{number}"
        result = cast_float(case.model, "fp16", layers={"*": "fp16"}).model
        onnx.checker.check_model(result, full_check=True)
