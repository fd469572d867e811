"""Norms written out in elementary operators compute what ONNX Runtime computes for the one operator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_models import Builder, residual_cnn, transformer_block
from repository import MODELS

from nvidia_tao_deploy.engine.operators import TENSORRT_8_5
from nvidia_tao_deploy.graph.decompose import SUFFIX, decompose_norms, set_kernel_shapes
from nvidia_tao_deploy.graph.inspect import unsupported_nodes
from nvidia_tao_deploy.graph.load import load_model
from nvidia_tao_deploy.graph.ort import open_session
from nvidia_tao_deploy.graph.parity import compare
from nvidia_tao_deploy.graph.precision import cast_float
from nvidia_tao_deploy.graph.quantize import quantizable_tensors, quantize
from nvidia_tao_deploy.graph.simplify import simplify
from nvidia_tao_deploy.graph.tensors import attribute
from nvidia_tao_deploy.graph.verify import count_precisions


def layer_norm(axis: int, *, opset: int = 17, bias: bool = True, all_outputs: bool = False) -> onnx.ModelProto:
    b = Builder(3, opset=opset)
    width = [4, 5, 6][axis:] if axis < 0 else [3, 4, 5, 6][axis:]
    shape = [3, 4, 5, 6][axis:] if axis > 0 else width
    b.const("g", b.rng.uniform(0.5, 1.5, shape).astype(np.float32))
    b.const("be", b.rng.uniform(-1, 1, shape).astype(np.float32))
    b.node("LayerNormalization", ["x", "g", "be"] if bias else ["x", "g"], "y", axis=axis, epsilon=1e-3)
    outputs: dict[str, list[object]] = {"y": [3, 4, 5, 6]}
    if all_outputs:
        b.nodes[-1].output.extend(["mean", "inverse"])
        reduced: list[object] = [3, 4, 5, 6]
        reduced[axis:] = [1] * len(shape)
        outputs |= {"mean": reduced, "inverse": reduced}
    return b.model({"x": [3, 4, 5, 6]}, outputs)


def channel_norm(op: str, rank: int, opset: int, size: int = 8, **attributes: object) -> onnx.ModelProto:
    b = Builder(4, opset=opset)
    b.const("g", b.rng.uniform(0.5, 1.5, size).astype(np.float32))
    b.const("be", b.rng.uniform(-1, 1, size).astype(np.float32))
    b.node(op, ["x", "g", "be"], "y", **attributes)
    shape = [2, 8, 5, 3, 4, 2][:rank]
    return b.model({"x": shape}, {"y": shape})


def batch(model: onnx.ModelProto, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    dims = [d.dim_value or 2 for d in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": (scale * rng.standard_normal(dims) + 3).astype(np.float32)}


CASES = {
    "last axis": layer_norm(-1),
    "three axes": layer_norm(1),
    "without bias": layer_norm(2, bias=False),
    "with mean and deviation": layer_norm(-1, all_outputs=True),
    "axes as an input": layer_norm(-1, opset=18),
    "instance, rank 3": channel_norm("InstanceNormalization", 3, 17, epsilon=1e-2),
    "instance, rank 6": channel_norm("InstanceNormalization", 6, 17),
    "group, scaled by channel": channel_norm("GroupNormalization", 4, 21, num_groups=4),
    "transformer": transformer_block(),
}


@pytest.mark.parametrize("model", CASES.values(), ids=CASES)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_a_norm_written_out_computes_the_same(model: onnx.ModelProto, scale: float) -> None:
    before = model.SerializeToString()
    found = decompose_norms(model, ())
    assert model.SerializeToString() == before
    assert found.norms
    assert not found.left
    onnx.checker.check_model(found.model, full_check=True)
    assert not any("Normalization" in node.op_type for node in found.model.graph.node)
    feeds = batch(model, scale)
    for expected, got in zip(
        open_session(model).run(None, feeds), open_session(found.model).run(None, feeds), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)


def test_two_norms_of_one_name_are_told_apart() -> None:
    model = transformer_block()
    for node in model.graph.node:
        node.name = "same"
    onnx.checker.check_model(decompose_norms(model, ()).model, full_check=True)


def test_group_norm_of_opset_18_is_scaled_by_group() -> None:
    model = channel_norm("GroupNormalization", 4, 21, size=4, num_groups=4)  # the checker refuses the old form
    model.opset_import[0].version = 18
    found = decompose_norms(model, ())
    x = batch(model)["x"].astype(np.float64)
    rows = x.reshape(2, 4, -1)
    normal = (rows - rows.mean(2, keepdims=True)) / np.sqrt(rows.var(2, keepdims=True) + 1e-5)
    g, be = (onnx.numpy_helper.to_array(t) for t in model.graph.initializer)
    expected = (normal * g[:, None] + be[:, None]).reshape(x.shape)
    got = open_session(found.model).run(None, batch(model))[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_what_the_target_knows_stays() -> None:
    instance = channel_norm("InstanceNormalization", 4, 17)
    assert decompose_norms(instance, TENSORRT_8_5).model is instance
    deep = channel_norm("InstanceNormalization", 6, 17)
    assert decompose_norms(deep, TENSORRT_8_5).norms == [("y", "InstanceNormalization")]
    layer = layer_norm(-1)
    assert decompose_norms(layer, {"LayerNormalization"}).model is layer


def test_a_norm_written_out_stays_in_fp32_when_the_rest_is_cast() -> None:
    model = transformer_block()
    found = decompose_norms(model, TENSORRT_8_5)
    cast = cast_float(found.model, "fp16", layers={f"*/{SUFFIX}/*": "fp32"})
    kept = {name for name, _ in cast.kept}
    written = {n.name for n in found.model.graph.node if f"/{SUFFIX}/" in n.name and n.op_type != "Shape"}
    assert written
    assert written <= kept
    assert count_precisions(cast.model)["fp16"] >= 8
    # Squares of 300 * 300 pass 65504: a norm in FP16 would give infinities here.
    parity = compare(model, cast.model, [batch(model, 300.0)])
    assert parity.nan_count == 0
    assert parity.worst_cosine > 0.999


def test_a_norm_in_half_precision_is_computed_in_fp32() -> None:
    half = cast_float(transformer_block(), "fp16", layers={"ln*": "fp16"}).model
    found = decompose_norms(half, TENSORRT_8_5)
    assert found.norms
    assert compare(transformer_block(), found.model, [batch(transformer_block())]).worst_cosine > 0.999


def test_the_sample_transformer_holds_only_operators_of_tensorrt_8_5() -> None:
    model = simplify(load_model(MODELS / "rtdetr.onnx"))[0]
    assert {node.op_type for node in unsupported_nodes(model, TENSORRT_8_5)} == {"LayerNormalization"}
    found = decompose_norms(model, TENSORRT_8_5)
    assert unsupported_nodes(found.model, TENSORRT_8_5) == []
    assert len(found.norms) == 5
    feeds = {"inputs": np.random.default_rng(0).random((2, 3, 128, 160), dtype=np.float32)}
    assert compare(model, found.model, [feeds]).max_abs < 1e-3


def test_convolutions_get_their_kernel_shape() -> None:
    model = residual_cnn()
    for node in model.graph.node:
        kept = [a for a in node.attribute if node.op_type != "Conv" or a.name != "kernel_shape"]
        del node.attribute[:]
        node.attribute.extend(kept)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    set_kernel_shapes(model)
    set_kernel_shapes(model)  # what has one is left alone
    assert [attribute(node, "kernel_shape") for node in convolutions[:2]] == [[3, 3], [3, 3]]
    assert all([a.name for a in node.attribute].count("kernel_shape") == 1 for node in convolutions)
    bare = residual_cnn()
    for node in bare.graph.node:
        if node.op_type == "Conv":
            kept = [a for a in node.attribute if a.name != "kernel_shape"]
            del node.attribute[:]
            node.attribute.extend(kept)
    quantized = quantize(bare, dict.fromkeys(quantizable_tensors(bare), 0.1)).model
    assert all(attribute(node, "kernel_shape") for node in quantized.graph.node if node.op_type == "Conv")
