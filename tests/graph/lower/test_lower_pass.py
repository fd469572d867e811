"""The pass as a whole: what it keeps, refuses, infers, and that TensorRT-RTX can build what it emits."""

from __future__ import annotations

import numpy as np
import onnx
import plugin_graph
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvidia_tao_deploy.graph.lower import NAME_PREFIX, PLUGIN_OPS, lower_plugins

RECORDER = plugin_graph.recorder()
ONE_PER_OP = {
    case.op: case
    for make in RECORDER.FAMILIES.values()
    for case in reversed(make())
    if not case.name.endswith("_all_inputs")
}


def model_of(case, **options) -> onnx.ModelProto:
    return plugin_graph.plugin_model(case.op, case.attrs, case.inputs, case.outputs, case.constants, **options)


def inner_nodes(graph: onnx.GraphProto):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from inner_nodes(attribute.g)


def test_every_plugin_of_the_table_has_a_case() -> None:
    small = {"ModulatedDeformConv2d", "BatchTilePlugin_TRT", "LReLU_TRT", "InstanceNormalization_TRT"}
    # Compared in test_lower_small_plugins and, there being no public library, in tests/cv/sparse4d.
    assert set(ONE_PER_OP) == set(PLUGIN_OPS) - small - {"MSDA"}


@pytest.mark.parametrize("op", sorted(ONE_PER_OP))
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_the_result_is_valid_onnx_and_does_not_depend_on_the_opset_or_a_free_batch(op: str, opset: int) -> None:
    case = ONE_PER_OP[op]
    if op == "MultiscaleDeformableAttnPlugin_TRT" and opset < 16:
        assert "opset 16" in lower_plugins(model_of(case, opset=opset)).unsupported[0][2]
        return
    outputs = []
    for dynamic in (True, False):
        lowered = plugin_graph.lower_checked(model_of(case, opset=opset, dynamic=dynamic))
        inferred = onnx.shape_inference.infer_shapes(lowered, strict_mode=True)
        onnx.checker.check_model(inferred)
        assert all(node.name.startswith(NAME_PREFIX) for node in inner_nodes(lowered.graph))
        outputs.append(plugin_graph.run_onnx(lowered, case.inputs))
    for free, fixed in zip(*outputs, strict=True):
        np.testing.assert_allclose(free, fixed, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("op", sorted(ONE_PER_OP))
def test_tensorrt_rtx_builds_it_with_a_free_batch(op: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    case = ONE_PER_OP[op]
    lowered = plugin_graph.lower_checked(model_of(case))
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(lowered.SerializeToString()), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    batch = next(iter(case.inputs.values())).shape[0]
    for name, array in case.inputs.items():
        if name not in case.constants:
            free = array.shape[0] == batch
            profile.set_shape(name, *((n if free else array.shape[0], *array.shape[1:]) for n in (1, batch, 4)))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None


def test_no_node_needs_what_tensorrt_rtx_lacks() -> None:
    refused = {"NonMaxSuppression", "NonZero", "RoiAlign", "Unique", "Compress", *PLUGIN_OPS}
    for case in ONE_PER_OP.values():
        lowered = plugin_graph.lower_checked(model_of(case))
        used = {node.op_type for node in inner_nodes(lowered.graph)}
        assert not used & refused, case.op


def test_the_given_model_is_not_changed_and_kept_ops_stay() -> None:
    model = model_of(ONE_PER_OP["BatchedNMSDynamic_TRT"])
    before = model.SerializeToString()
    kept = lower_plugins(model, keep={"BatchedNMSDynamic_TRT"})
    assert [node.op_type for node in kept.model.graph.node] == ["BatchedNMSDynamic_TRT"]
    assert kept.lowered == []
    assert kept.unsupported == []
    assert lower_plugins(model).lowered == [("plugin", "BatchedNMSDynamic_TRT")]
    assert model.SerializeToString() == before


def test_a_missing_attribute_and_an_old_opset_are_reported_by_node() -> None:
    case = ONE_PER_OP["BatchedNMSDynamic_TRT"]
    model = model_of(case)
    attributes = [a for a in model.graph.node[0].attribute if a.name != "keepTopK"]
    del model.graph.node[0].attribute[:]
    model.graph.node[0].attribute.extend(attributes)
    result = lower_plugins(model)
    assert result.unsupported == [("plugin", "BatchedNMSDynamic_TRT", "its attribute 'keepTopK' is missing")]
    assert [node.op_type for node in result.model.graph.node] == ["BatchedNMSDynamic_TRT"]
    assert "opset 10" in lower_plugins(model_of(case, opset=10)).unsupported[0][2]


def test_a_chain_of_plugins_is_lowered_by_inferring_shapes_in_between() -> None:
    """As in Faster R-CNN: proposals feed crops, whose shape only the lowered proposal tells."""
    rng = np.random.default_rng(0)
    case = ONE_PER_OP["ProposalDynamic"]
    feature = rng.normal(size=(2, 3, 8, 10)).astype(np.float32)
    nodes = [
        helper.make_node("ProposalDynamic", ["scores", "deltas"], ["rois"], name="proposal", **case.attrs),
        helper.make_node("Relu", ["rois"], ["clean"], name="between"),
        helper.make_node(
            "CropAndResizeDynamic", ["feature", "clean"], ["crops"], name="crop", crop_height=7, crop_width=7
        ),
    ]
    inputs = {**case.inputs, "feature": feature}
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *array.shape[1:]])
            for name, array in inputs.items()
        ],
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    result = lower_plugins(model)
    assert result.lowered == [("proposal", "ProposalDynamic"), ("crop", "CropAndResizeDynamic")]
    (crops,) = plugin_graph.run_onnx(result.model, inputs)
    assert crops.shape == (2, case.attrs["post_nms_top_n"], 3, 7, 7)


def test_half_precision_inputs_are_suppressed_in_single_precision_and_returned_as_half() -> None:
    case = ONE_PER_OP["EfficientNMS_TRT"]
    inputs = {name: array.astype(np.float16) for name, array in case.inputs.items()}
    model = plugin_graph.plugin_model(case.op, case.attrs, inputs, case.outputs)
    for value in model.graph.output[1:3]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    got = plugin_graph.run_onnx(plugin_graph.lower_checked(model), inputs)
    same = plugin_graph.run_onnx(
        plugin_graph.lower_checked(model_of(case)), {n: a.astype(np.float32) for n, a in inputs.items()}
    )
    assert [array.dtype for array in got] == [np.int32, np.float16, np.float16, np.int32]
    for half, single in zip(got, same, strict=True):
        np.testing.assert_allclose(half, single.astype(half.dtype))


def test_large_unused_constants_of_a_plugin_are_dropped() -> None:
    case = ONE_PER_OP["MultiscaleDeformableAttnPlugin_TRT"]
    model = model_of(case)
    lowered = plugin_graph.lower_checked(model)
    assert not {"spatial_shapes", "level_start_index"} & {tensor.name for tensor in lowered.graph.initializer}


def test_spatial_shapes_computed_at_run_time_are_refused_with_the_reason() -> None:
    case = ONE_PER_OP["MultiscaleDeformableAttnPlugin_TRT"]
    model = plugin_graph.plugin_model(case.op, case.attrs, case.inputs, case.outputs)
    assert "must be a constant" in lower_plugins(model).unsupported[0][2]
    cast = model_of(case)
    shapes = numpy_helper.from_array(case.inputs["spatial_shapes"].astype(np.int64), "shapes64")
    kept = [tensor for tensor in cast.graph.initializer if tensor.name != "spatial_shapes"]
    del cast.graph.initializer[:]
    cast.graph.initializer.extend([*kept, shapes])
    cast.graph.node.insert(0, helper.make_node("Cast", ["shapes64"], ["spatial_shapes"], to=TensorProto.INT32))
    assert plugin_graph.lower_checked(cast)
