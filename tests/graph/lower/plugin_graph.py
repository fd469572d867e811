"""Graphs holding one plugin node, and the recorder's cases."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from nvidia_tao_deploy.graph.lower import PLUGIN_OPS, lower_plugins

ROOT = Path(__file__).resolve().parents[3]


def recorder() -> ModuleType:
    """scripts/record_plugins.py as a module."""
    name = "record_plugins"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / "record_plugins.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def plugin_model(
    op: str,
    attrs: dict,
    inputs: dict[str, np.ndarray],
    outputs: list[str],
    constants: tuple[str, ...] = (),
    opset: int = 17,
    dynamic: bool = True,
) -> onnx.ModelProto:
    """A graph of one plugin node; ``dynamic`` frees the batch of every input whose batch is the first input's."""
    batch = next(iter(inputs.values())).shape[0]
    graph_inputs, initializers = [], []
    for name, array in inputs.items():
        if name in constants:
            initializers.append(numpy_helper.from_array(array, name))
            continue
        free = dynamic and array.shape[0] == batch
        shape = ["batch" if free else array.shape[0], *array.shape[1:]]
        graph_inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
    kinds = PLUGIN_OPS[op].outputs
    graph = helper.make_graph(
        [helper.make_node(op, list(inputs), outputs, name="plugin", **attrs)],
        "g",
        graph_inputs,
        [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(outputs, kinds, strict=True)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def lower_checked(model: onnx.ModelProto) -> onnx.ModelProto:
    result = lower_plugins(model)
    assert result.unsupported == []
    assert len(result.lowered) == 1
    return result.model


def run_onnx(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})
