"""Plugins without recordings: against ONNX's own operators, by its reference implementation, and definitions."""

from __future__ import annotations

import numpy as np
import onnx
import plugin_graph
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from nvidia_tao_deploy.graph.lower import lower_plugins

RANDOM = np.random.default_rng(5)


def graph(
    op: str, inputs: dict[str, np.ndarray], constants: dict[str, np.ndarray], shape: list, **attrs
) -> onnx.ModelProto:
    """One node with a free batch; ``o`` is float."""
    names = [*inputs, *constants]
    free = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *a.shape[1:]]) for n, a in inputs.items()]
    made = helper.make_graph(
        [helper.make_node(op, names, ["o"], name="it", **attrs)],
        "g",
        free,
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def lowered(op: str, inputs, constants, shape, **attrs) -> np.ndarray:
    result = lower_plugins(graph(op, inputs, constants, shape, **attrs))
    assert not result.unsupported
    assert not any(node.op_type == op for node in result.model.graph.node)
    onnx.checker.check_model(result.model, full_check=True)
    return plugin_graph.run_onnx(result.model, inputs)[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("group", "parts", "stride", "padding", "dilation"),
    [(1, 1, (1, 1), (1, 1), (1, 1)), (2, 2, (2, 1), (0, 2), (1, 2)), (1, 4, (2, 2), (1, 1), (2, 1))],
)
def test_modulated_deformable_convolution_is_onnx_deform_conv(group, parts, stride, padding, dilation, bias) -> None:
    height, width, (kh, kw) = 7, 9, (3, 2)
    rows, columns = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip((height, width), (kh, kw), stride, padding, dilation, strict=True)
    )
    x, offset = normal(2, 8, height, width), normal(2, parts * 2 * kh * kw, rows, columns) * 3
    mask = RANDOM.random((2, parts * kh * kw, rows, columns), np.float32)
    constants = {"w": normal(6, 8 // group, kh, kw), "b": normal(6)}
    if not bias:
        del constants["b"]
    shape = ["N", 6, rows, columns]
    got = lowered(
        "ModulatedDeformConv2d", {"x": x, "offset": offset, "mask": mask}, constants, shape,
        group=group, deformable_group=parts, stride=stride, padding=padding, dilation=dilation,
    )  # fmt: skip
    wanted = helper.make_node(
        "DeformConv", ["x", "w", "offset", "b", "mask"], ["o"],
        group=group, offset_group=parts, strides=stride, pads=[*padding, *padding], dilations=dilation,
    )  # fmt: skip
    reference = graph("Identity", {"x": x, "offset": offset, "mask": mask}, {"b": normal(6) * 0, **constants}, shape)
    reference.graph.node[0].CopyFrom(wanted)
    (expected,) = ReferenceEvaluator(reference).run(None, {"x": x, "offset": offset, "mask": mask})
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_batch_tile_repeats_to_the_other_inputs_batch() -> None:
    anchors = normal(1, 2, 12)
    got = lowered("BatchTilePlugin_TRT", {"x": normal(3, 4)}, {"anchors": anchors}, ["N", 2, 12])
    np.testing.assert_array_equal(got, np.repeat(anchors, 3, 0))


def test_leaky_relu_and_instance_normalization() -> None:
    x = normal(2, 3, 4, 5)
    got = lowered("LReLU_TRT", {"x": x}, {}, ["N", 3, 4, 5], negSlope=0.2)
    np.testing.assert_allclose(got, np.where(x < 0, x * np.float32(0.2), x))
    scales, bias = [1.0, 2.0, 0.5], [0.0, -1.0, 3.0]
    wanted = (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 1e-3)
    wanted = wanted * np.reshape(scales, (3, 1, 1)) + np.reshape(bias, (3, 1, 1))
    attrs = {"epsilon": 1e-3, "scales": scales, "bias": bias}
    got = lowered("InstanceNormalization_TRT", {"x": x}, {}, ["N", 3, 4, 5], **attrs)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    got = lowered("InstanceNormalization_TRT", {"x": x}, {}, ["N", 3, 4, 5], **attrs, relu=1, alpha=0.0)
    np.testing.assert_allclose(got, np.maximum(wanted, 0), atol=1e-5)
