"""TensorRT-RTX 1.7 builds what the passes write, without a GPU."""

from __future__ import annotations

import pytest
from graph_models import detector, feeds, residual_cnn, transformer_block

from nvidia_tao_deploy.calibration.ranges import collect
from nvidia_tao_deploy.graph.precision import cast_float
from nvidia_tao_deploy.graph.quantize import quantizable_tensors, quantize
from nvidia_tao_deploy.graph.simplify import simplify

trt = pytest.importorskip("tensorrt_rtx")


def build(model, capability):
    """The plan's size; raises AssertionError with the parser's words."""
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model.SerializeToString()), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shape = [dim if dim > 0 else 2 for dim in tensor.shape]
        profile.set_shape(tensor.name, shape, shape, shape)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    return plan.nbytes


@pytest.mark.parametrize("make", [residual_cnn, transformer_block, detector])
def test_all_precisions_build(make):
    model = simplify(make())[0]
    tensors = quantizable_tensors(model)
    int8 = quantize(model, collect(model, feeds(model, 1), tensors, "minmax")).model
    for candidate in (
        cast_float(model, "fp16").model,
        cast_float(model, "bf16").model,
        int8,
        cast_float(int8, "fp16").model,
    ):
        assert build(candidate, "SM86") > 0


def test_fp8_builds_for_ada():
    model = simplify(transformer_block())[0]
    tensors = quantizable_tensors(model, precision="fp8")
    scales = collect(model, feeds(model, 1), tensors, "minmax")
    assert build(quantize(model, scales, precision="fp8").model, "SM89") > 0
