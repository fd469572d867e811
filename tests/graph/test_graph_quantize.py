"""quantize: placement rules, weight scales, and what TensorRT demands of every pair."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_models import Builder, detector, feeds, residual_cnn, transformer_block
from onnx import TensorProto, helper, numpy_helper

from nvidia_tao_deploy.calibration.ranges import collect
from nvidia_tao_deploy.errors import BuildError, ModelError
from nvidia_tao_deploy.graph.parity import compare
from nvidia_tao_deploy.graph.precision import cast_float
from nvidia_tao_deploy.graph.quantize import QUANTIZED_MAX, quantizable_tensors, quantize, weight_scales
from nvidia_tao_deploy.graph.verify import count_precisions, describe_precision, is_quantized, verify_precision


def quantized(model, precision="int8", **options):
    tensors = quantizable_tensors(model, precision=precision, **options)
    largest = collect(model, feeds(model), tensors, "minmax")
    scales = {name: amax / QUANTIZED_MAX[precision] for name, amax in largest.items()}
    return quantize(model, scales, precision=precision, **options)


def pairs(model):
    return {node.input[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}


def readers(model, tensor):
    """(node name, input position) of everything that reads the dequantized form of a tensor."""
    producers = {name: node for node in model.graph.node for name in node.output}
    found = set()
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            source = producers.get(name)
            if source is not None and source.op_type == "DequantizeLinear":
                quantizer = producers[source.input[0]]
                if quantizer.input[0] == tensor:
                    found.add((node.name, i))
    return found


@pytest.mark.parametrize("precision", ["int8", "fp8"])
@pytest.mark.parametrize("build", [residual_cnn, transformer_block, detector])
def test_every_pair_is_what_tensorrt_accepts(build, precision):
    model = build()
    before = model.SerializeToString()
    result = quantized(model, precision).model
    assert model.SerializeToString() == before
    onnx.checker.check_model(result, full_check=True)
    weights = {tensor.name: tensor for tensor in result.graph.initializer}
    zero_type = TensorProto.INT8 if precision == "int8" else TensorProto.FLOAT8E4M3FN
    for node in result.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        assert len(node.input) == 3
        scale = numpy_helper.to_array(weights[node.input[1]])
        zero = weights[node.input[2]]
        assert scale.dtype == np.float32
        assert (scale > 0).all()
        assert np.isfinite(scale).all()
        assert zero.data_type == zero_type
        assert not any(zero.raw_data)
        assert tuple(zero.dims) == scale.shape
        per_axis = node.op_type == "QuantizeLinear" and node.input[0] in weights and precision == "int8"
        if node.op_type == "QuantizeLinear":
            assert scale.ndim == (1 if per_axis else 0)
    by_name = {node.name: node for node in result.graph.node}
    for name in ("c1", "stem"):
        if name in by_name:  # FP bias, never an INT32 one
            assert weights[by_name[name].input[2]].data_type == TensorProto.FLOAT


def test_residual_add_quantizes_the_skip_branch_only():
    result = quantized(residual_cnn()).model
    add = next(node for node in result.graph.node if node.name == "residual")
    assert add.input[0] == "block2"
    assert ("residual", 1) in readers(result, "stem_relu")


def test_a_skip_that_was_enlarged_stays_float():
    """TensorRT takes a Q behind a Resize to before it, and 8.5 has no Resize in int8: unet was not built."""
    b = Builder()
    coarse = b.node("Relu", [b.conv(b.conv("x", "stem", 16, 16), "coarse", 16, 16, stride=2)], "act")
    sizes = [b.const("scales", np.array([1, 1, 2, 2], np.float32))]
    up = b.node("Resize", [coarse, "", *sizes], "up", mode="nearest")
    y = b.node("Add", [b.conv("stem", "lateral", 16, 16, 1), up], "merge")
    b.conv(b.conv(y, "smooth", 16, 16), "head", 16, 16)
    result = quantized(b.model({"x": [1, 16, 16, 16]}, {"head": [1, 16, 16, 16]}))
    assert {"lateral", "smooth"} <= set(result.quantized_nodes)
    add = next(node for node in result.model.graph.node if node.name == "merge")
    assert list(add.input) == ["lateral", "up"]


def test_one_pair_serves_all_consumers():
    result = quantized(residual_cnn()).model
    names = [node.input[0] for node in result.graph.node if node.op_type == "QuantizeLinear"]
    assert len(names) == len(set(names))
    assert readers(result, "stem_relu") == {("block1", 0), ("residual", 1)}


def test_no_pair_between_a_convolution_and_its_activation_or_on_the_head():
    result = quantized(residual_cnn())
    assert not {"stem", "block1", "block2", "left", "right", "merge", "flat", "gap"} & pairs(result.model).keys()
    assert dict(result.skipped)["y"] == "last layer before the outputs"
    assert len(result.quantized_nodes) == 6


def test_concat_and_pooled_tensors_share_the_largest_scale():
    model = residual_cnn()
    tensors = quantizable_tensors(model)
    assert "concat" in tensors
    scales = {name: 0.01 * (i + 1) for i, name in enumerate(tensors)}
    result = quantize(model, scales).model
    value = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    found = pairs(result)
    used = {name: float(value[found[name].input[1]]) for name in tensors}
    # left_relu is consumed by a convolution and is part of the concatenation
    assert used["left_relu"] == used["concat"] == pytest.approx(max(scales["left_relu"], scales["concat"]))
    assert used["x"] == pytest.approx(scales["x"])


def test_attention_products_heads_and_delicate_layers_stay_float():
    reasons = dict(quantized(transformer_block()).skipped)
    assert reasons["qk"] == reasons["av"] == "attention or other product of two activations"
    reasons = dict(quantized(detector()).skipped)
    assert reasons["offset"] == "feeds a sampling grid"
    assert {"score", "box", "mask"} <= reasons.keys()


def test_weight_scales_follow_the_formula_per_output_channel():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 5, 3, 3)).astype(np.float32)
    weight[2] = 0
    expected = np.array([np.abs(weight[i]).max() / 127 for i in range(6)])
    expected[2] = 1
    np.testing.assert_allclose(weight_scales(weight, 0), expected, rtol=1e-6)
    assert weight_scales(weight, None, "fp8") == pytest.approx(np.abs(weight).max() / 448)


@pytest.mark.parametrize(("op", "transposed", "axis"), [("Gemm", 1, 0), ("Gemm", 0, 1), ("MatMul", None, 1)])
def test_output_channel_axis_of_products(op, transposed, axis):
    b = Builder()
    shape = (24, 32) if transposed else (32, 24)
    weight = (b.rng.standard_normal(shape) * np.arange(1, 25).reshape((-1, 1) if transposed else (1, -1))).astype("f4")
    b.const("w", weight)
    attributes = {} if transposed is None else {"transB": transposed}
    b.linear(b.node(op, ["x", "w"], "p", **attributes), "y", 24, 8)
    model = b.model({"x": ["b", 32]}, {"y": ["b", 8]})
    result = quantized(model).model
    quantizer = pairs(result)["w"]
    assert quantizer.attribute[0].i == axis
    scale = next(numpy_helper.to_array(t) for t in result.graph.initializer if t.name == quantizer.input[1])
    np.testing.assert_allclose(scale, np.abs(weight).max(axis=1 - axis) / 127, rtol=1e-6)


def test_weights_come_back_within_half_a_step():
    model = residual_cnn()
    result = quantized(model).model
    source = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    value = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    quantizer = pairs(result)["block1.w"]
    scale = value[quantizer.input[1]].reshape(-1, 1, 1, 1)
    rounded = np.clip(np.rint(source["block1.w"] / scale), -128, 127)
    assert np.abs(rounded).max() == 127
    assert (np.abs(rounded * scale - source["block1.w"]) <= scale / 2 + 1e-7).all()


@pytest.mark.parametrize("build", [residual_cnn, transformer_block, detector])
def test_int8_is_near_fp32_also_with_an_fp16_rest(build):
    model = build()
    result = quantized(model).model
    assert compare(model, result, feeds(model)).worst_cosine > 0.999
    mixed = cast_float(result, "fp16").model
    onnx.checker.check_model(mixed, full_check=True)
    counts = count_precisions(mixed)
    assert counts["int8"] == count_precisions(result)["int8"]
    assert "fp32" not in counts
    assert compare(result, mixed, feeds(model)).worst_cosine > 0.9999


def test_fp8_is_near_fp32():
    model = transformer_block()
    result = quantized(model, "fp8")
    assert compare(model, result.model, feeds(model)).worst_cosine > 0.99  # 3 bits of mantissa: 3 % per value
    assert count_precisions(result.model)["fp8"] == len(result.quantized_nodes) > 0


def test_users_choice_overrules():
    model = residual_cnn()
    result = quantized(model, layers={"block*": "fp32", "y": "int8", "block2": "int8", "typo": "fp16"})
    assert "y" in result.quantized_nodes
    assert "block2" in result.quantized_nodes
    assert "block1" not in result.quantized_nodes
    assert result.unmatched == ["typo"]


def test_missing_or_useless_scales_leave_the_node_float():
    model = residual_cnn()
    scales = dict.fromkeys(quantizable_tensors(model), 0.02)
    scales["pool"] = 0.0
    del scales["x"]
    scales["concat"] = float("nan")
    result = quantize(model, scales)
    reasons = dict(result.skipped)
    assert {"stem", "left", "merge"} <= reasons.keys()
    assert "no scale" in reasons["stem"]


def test_small_layers_are_skipped_by_threshold():
    b = Builder()
    x = b.node("Relu", [b.conv("x", "first", 3, 8)], "r1")
    x = b.node("Relu", [b.conv(x, "middle", 8, 8)], "r2")
    x = b.node("Relu", [b.conv(x, "depthwise", 8, 8, group=8)], "r3")
    x = b.node("Relu", [b.conv(x, "odd", 8, 12, 1)], "r4")
    b.conv(x, "y", 12, 4)
    model = b.model({"x": ["b", 3, 8, 8]}, {"y": ["b", 4, 8, 8]})
    assert quantized(model).quantized_nodes == ["first", "depthwise"]


def test_distribution_boxes_are_decode_not_a_layer():
    b = Builder()
    x = b.node("Relu", [b.conv("x", "c1", 3, 32)], "r1")
    x = b.conv(x, "box", 32, 16)
    b.const("bins", np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1))
    b.node("Conv", [b.node("Softmax", [x], "p", axis=1), "bins"], "y")
    model = b.model({"x": ["b", 3, 8, 8]}, {"y": ["b", 1, 8, 8]})
    reasons = dict(quantized(model).skipped)
    assert reasons["box"] == "last layer before the outputs"
    assert "coordinate arithmetic" in reasons["y"]


def test_already_quantized_models_are_refused_and_recognised():
    model = quantized(residual_cnn()).model
    assert is_quantized(model)
    assert not is_quantized(residual_cnn())
    with pytest.raises(ModelError, match="already"):
        quantize(model, {})
    hidden = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["a", "b"], ["q"], domain="com.microsoft")], "g", [], []
    )
    outer = residual_cnn()
    outer.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=hidden, else_branch=hidden))
    assert is_quantized(outer)


def test_weights_alone_do_not_make_an_int8_operator():
    model = quantized(residual_cnn()).model
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.input[0] = node.input[0].removesuffix("::dequantized")
    assert count_precisions(model) == {"fp32": 7, "total": 7}


def test_verified_precision():
    model = residual_cnn()
    result = quantized(model).model
    assert count_precisions(model) == {"fp32": 7, "total": 7}
    assert describe_precision(verify_precision(result, "int8")) == "int8: 6 of 7 convolutions and matmuls, fp32: 1"
    assert verify_precision(cast_float(model, "fp16").model, "fp16") == {"fp16": 7, "total": 7}
    for asked, wrong in (("int8", model), ("fp16", model), ("fp8", result), ("fp32", cast_float(model, "fp16").model)):
        with pytest.raises(BuildError, match=f"{asked} was asked for"):
            verify_precision(wrong, asked)
