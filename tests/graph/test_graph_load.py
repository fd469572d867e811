"""load_model says what a file is when it is not a readable ONNX model."""

from __future__ import annotations

import struct

import numpy as np
import onnx
import pytest
from graph_models import Builder, residual_cnn

from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.graph.load import load_model, model_inputs, model_outputs


def test_names_shapes_and_types_of_a_good_model(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(residual_cnn(), path)
    model = load_model(path)
    (x,), (y,) = model_inputs(model), model_outputs(model)
    assert (x.name, x.shape, x.dtype) == ("x", (None, 3, 16, 16), np.float32)
    assert (y.name, y.shape) == ("y", (None, 10))


def test_external_weights_are_found_beside_the_file(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(residual_cnn(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in load_model(path).graph.initializer}
    expected = {t.name: onnx.numpy_helper.to_array(t) for t in residual_cnn().graph.initializer}
    assert all(np.array_equal(weights[name], value) for name, value in expected.items())
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match="external weight file"):
        load_model(path)


def test_weights_listed_as_inputs_are_not_inputs(tmp_path):
    model = residual_cnn()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(model, tmp_path / "m.onnx")
    assert [i.name for i in load_model(tmp_path / "m.onnx").graph.input] == ["x"]


GOOD = residual_cnn().SerializeToString()
CASES = {
    "empty.onnx": (b"", "empty"),
    "half.onnx": (GOOD[: len(GOOD) // 2], "truncated|not a readable"),
    "text.onnx": (b"hello, this is not a model\n" * 20, "not a readable|no ONNX graph"),
    "zeros.onnx": (bytes(64), "not a readable|no ONNX graph"),
    "torch.onnx": (b"PK\x03\x04" + bytes(60), "zip archive"),
    "plan.onnx": (b"ptrt" + bytes(60), "TensorRT engine"),
    "newer.onnx": (b"ftrt" + bytes(60), "TensorRT engine"),
    "rtx.trt.fp16": (b"vtrt" + bytes(60), "TensorRT engine"),
    "m.engine": (bytes(64), "TensorRT engine"),
    "m.uff": (bytes(64), "UFF"),
    "onnx.etlt": (struct.pack("<i", 0) + bytes(60), "ONNX payload"),
    "uff.etlt": (struct.pack("<i", 7) + b"input_1" + bytes(60), "UFF payload with input 'input_1'"),
    "bad.etlt": (struct.pack("<i", -5) + bytes(60), "damaged header"),
    "tiny.etlt": (b"\0", "truncated"),
}


@pytest.mark.parametrize("name", CASES)
def test_other_files_are_named_for_what_they_are(tmp_path, name):
    content, message = CASES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(tmp_path / name)
    assert name in str(caught.value)
    assert caught.value.remedy


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ModelError, match="no such"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="folder"):
        load_model(tmp_path)


def test_a_graph_the_checker_refuses(tmp_path):
    model = residual_cnn()
    del model.graph.node[3]  # its consumers now read a tensor nobody writes
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="checker refuses"):
        load_model(tmp_path / "m.onnx")


def test_plugin_nodes_in_the_default_domain_load(tmp_path):
    b = Builder()
    b.conv("x", "y", 3, 4)
    model = b.model({"x": [1, 3, 8, 8]}, {"y": [1, 4, 8, 8]})
    model.graph.node.append(onnx.helper.make_node("EfficientNMS_TRT", ["y"], ["z"]))
    onnx.save(model, tmp_path / "m.onnx")
    assert len(load_model(tmp_path / "m.onnx").graph.node) == 2
