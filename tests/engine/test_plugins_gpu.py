"""Legacy plugins on a real TensorRT: the engine with the plugin kept, and the engine with it lowered.

python -m pytest -m gpu tests/engine/test_plugins_gpu.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from repository import ROOT
from test_engine_gpu import LIMIT, run

from nvidia_tao_deploy.engine.backend import choose_runtime
from nvidia_tao_deploy.engine.build import build
from nvidia_tao_deploy.engine.options import BuildOptions
from nvidia_tao_deploy.engine.profiles import propose
from nvidia_tao_deploy.files import write_bytes
from nvidia_tao_deploy.graph.load import model_inputs
from nvidia_tao_deploy.runtime import cuda

sys.path.insert(0, str(ROOT / "tests" / "graph" / "lower"))
import plugin_graph
from test_lower_against_plugins import NOT_REPRODUCED, USABLE, comparable

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.gpu_available(), reason="needs a GPU")]

OPS = (
    "BatchedNMSDynamic_TRT",
    "NMSDynamic_TRT",
    "EfficientNMS_TRT",
    "ProposalDynamic",
    "CropAndResizeDynamic",
    "MultiscaleDeformableAttnPlugin_TRT",
    "PillarScatterPlugin",
)
CASES = [next(c for c in USABLE if c.op == op and (op, c.name) not in NOT_REPRODUCED) for op in OPS]


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "lowered"])
@pytest.mark.parametrize("case", CASES, ids=[f"{c.op}-{c.name}" for c in CASES])
def test_the_engine_gives_what_the_plugin_gave(case: Any, kept: bool, tmp_path: Path) -> None:
    if kept and not choose_runtime("tensorrt").features.plugins:
        pytest.skip("no plugins here")
    model = plugin_graph.plugin_model(
        case.op, case.attrs, case.inputs, list(case.outputs), case.constants, dynamic=False
    )
    if not kept and case.op.startswith(("BatchedNMS", "NMS")) and choose_runtime("tensorrt").features.typing == "weak":
        pytest.skip("TensorRT 8 computes this lowered form wrongly, so gen_trt_engine refuses it")
    if not kept:
        model = plugin_graph.lower_checked(model)
    elif case.op == "NMSDynamic_TRT":  # exporters declare its count float; the bytes are int32
        model.graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    path = tmp_path / "plugin.onnx"
    onnx.save(model, str(path))
    options = BuildOptions(runtime="tensorrt", profiles=propose(model_inputs(model)), timeout_s=LIMIT)
    built = build(path, options, print)
    engine = path.with_suffix(".engine")
    write_bytes(engine, built.plan)
    outputs = run(engine, {name: case.inputs[name] for name in (info.name for info in model_inputs(model))})
    got = comparable(case.op, [outputs[name] for name in case.outputs])
    expected = comparable(case.op, list(case.outputs.values()))
    for name, mine, theirs in zip(case.outputs, got, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4, err_msg=name)
