"""mae and nvdinov2: engines only, any number of outputs of any rank."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell, write_spec
from onnx import TensorProto, helper, numpy_helper
from replay_classifier import write_images

from nvidia_tao_deploy.runtime import cuda
from nvidia_tao_deploy.runtime.open import open_session


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def write_backbone(path: Path, size: tuple[Any, Any] = (28, 28)) -> Path:
    """Three outputs as the exporter names them: tokens, class token, patch tokens."""
    random = np.random.default_rng(0)
    weights = {"kernel": random.normal(size=(8, 3, 14, 14)), "mixer": random.normal(size=(8, 8, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["embedded"], name="embed", strides=[14, 14]),
        helper.make_node("Conv", ["embedded", "mixer"], ["patches"], name="mix"),
        helper.make_node("Flatten", ["patches"], ["flat"]) if size[0] == 28 else None,
        helper.make_node("ReduceMean", ["patches"], ["99"], axes=[2, 3], keepdims=0),
        helper.make_node("Relu", ["patches"], ["output"]),
    ]
    outputs = [
        helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 8, None, None]),
        helper.make_tensor_value_info("99", TensorProto.FLOAT, ["n", 8]),
    ]
    if nodes[2] is not None:
        outputs.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n", 32]))
    graph = helper.make_graph(
        [node for node in nodes if node],
        "backbone",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, *size])],
        outputs,
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def write_vit(path: Path, *, size: int = 56, patch: int = 14, width: int = 64, heads: int = 4, blocks: int = 2) -> Path:
    """A small vision transformer: a class token in front of patch tokens, pre-norm blocks, both kinds as outputs."""
    random = np.random.default_rng(0)
    tokens, nodes, weights = (size // patch) ** 2 + 1, list[Any](), list[Any]()

    def constant(value: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value), f"w{len(weights)}"))
        return str(weights[-1].name)

    def drawn(*shape: int, scale: float = 1.0) -> str:
        return constant(random.normal(0, scale, shape).astype(np.float32))

    def node(kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output or f"t{len(nodes)}"], name=f"n{len(nodes)}", **attributes))
        return str(nodes[-1].output[0])

    def linear(x: str, into: int, out: int) -> str:
        return node("Add", node("MatMul", x, drawn(into, out, scale=into**-0.5)), drawn(out, scale=0.1))

    def norm(x: str, output: str = "") -> str:
        return node("LayerNormalization", x, drawn(width), drawn(width, scale=0.1), axis=-1, output=output)

    def split(x: str) -> str:
        shaped = node("Reshape", x, constant(np.array([0, tokens, heads, width // heads])))
        return node("Transpose", shaped, perm=[0, 2, 1, 3])

    def attention(x: str) -> str:
        q, k, v = (split(linear(x, width, width)) for _ in range(3))
        scores = node("MatMul", q, node("Transpose", k, perm=[0, 1, 3, 2]))
        shares = node("Softmax", node("Mul", scores, constant(np.float32((width // heads) ** -0.5))), axis=-1)
        joined = node("Transpose", node("MatMul", shares, v), perm=[0, 2, 1, 3])
        return linear(node("Reshape", joined, constant(np.array([0, tokens, width]))), width, width)

    def gelu(x: str) -> str:
        erf = node("Erf", node("Div", x, constant(np.float32(2**0.5))))
        return node("Mul", node("Mul", x, node("Add", erf, constant(np.float32(1)))), constant(np.float32(0.5)))

    patches = node("Conv", "input", drawn(width, 3, patch, patch, scale=0.05), drawn(width), strides=[patch] * 2)
    patches = node("Transpose", node("Reshape", patches, constant(np.array([0, width, tokens - 1]))), perm=[0, 2, 1])
    batch = node("Gather", node("Shape", "input"), constant(np.array([0])))
    one = node("Expand", drawn(1, 1, width), node("Concat", batch, constant(np.array([1, width])), axis=0))
    x = node("Add", node("Concat", one, patches, axis=1), drawn(1, tokens, width))
    for _ in range(blocks):
        x = node("Add", x, attention(norm(x)))
        x = node("Add", x, linear(gelu(linear(norm(x), width, 4 * width)), 4 * width, width))
    x = norm(x, "x_norm")
    node("Gather", x, constant(np.array(0)), axis=1, output="x_norm_clstoken")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "vit",
        [value("input", TensorProto.FLOAT, ["n", 3, size, size])],
        [
            value("x_norm", TensorProto.FLOAT, ["n", tokens, width]),
            value("x_norm_clstoken", TensorProto.FLOAT, ["n", width]),
        ],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.mark.gpu
@pytest.mark.skipif(not cuda.gpu_available(), reason="needs a GPU")
@pytest.mark.parametrize("network", ["mae", "nvdinov2"])
@pytest.mark.parametrize(
    ("write", "precision", "limit"),
    [
        (write_backbone, "fp32", 1e-4),
        (write_backbone, "fp16", 1e-2),
        (write_backbone, "int8", None),  # about 7 bits of every rounded tensor: held to the direction of the outputs
        (write_vit, "fp32", 1e-4),
        (write_vit, "fp16", 1e-2),  # TensorRT 8.5.3.1 cannot build it in int8 (filterQDQFormats)
    ],
)
def test_the_engine_computes_what_the_model_does(
    shell: Shell, tmp_path: Path, network: str, write: Callable[[Path], Path], precision: str, limit: float | None
) -> None:
    write_images(tmp_path / "images", [f"{i}.png" for i in range(8)])
    calibration = {"cal_image_dir": str(tmp_path / "images"), "cal_batch_size": 4, "cal_batches": 2}
    content = tree(tmp_path, data_type=precision, runtime="tensorrt", calibration=calibration)
    model = write(Path(content["gen_trt_engine"]["onnx_file"]))
    assert shell(network, "gen_trt_engine", "-e", write_spec(tmp_path / "s.yaml", content)) == 0, shell.out + shell.err
    compared = [open_session(path) for path in (tmp_path / "engines" / "model.engine", model)]
    info = compared[0].inputs[0]
    images = np.random.default_rng(1).normal(size=(3, 3, *(info.shape[2:]))).astype(np.float32)
    got, want = (session.run({info.name: images}) for session in compared)
    for session in compared:
        session.close()
    assert set(got) == set(want)
    for name, value in want.items():
        assert got[name].shape == value.shape
        if limit is None:
            assert np.corrcoef(got[name].ravel(), value.ravel())[0, 1] > 0.98, name
        else:
            np.testing.assert_allclose(got[name], value, atol=limit * np.abs(value).max(), err_msg=name)


def tree(tmp_path: Path, **options: Any) -> dict[str, Any]:
    return {
        "results_dir": str(tmp_path / "out"),
        "gen_trt_engine": {
            "onnx_file": str(write_backbone(tmp_path / "model.onnx")),
            "trt_engine": str(tmp_path / "engines" / "model.engine"),
            "tensorrt": {"max_batch_size": 4, **options},
        },
    }


@pytest.mark.parametrize(
    ("network", "precision"),
    [("mae", "FP32"), ("mae", "bf16"), ("mae", "int8"), ("nvdinov2", "fp16"), ("nvdinov2", "int8")],
)
def test_every_precision_is_built(shell: Shell, tmp_path: Path, network: str, precision: str) -> None:
    write_images(tmp_path / "images", [f"{i}.png" for i in range(6)])
    calibration = {"cal_image_dir": str(tmp_path / "images"), "cal_batch_size": 2, "cal_batches": 3}
    options = {"data_type": precision, **({"calibration": calibration} if precision == "int8" else {})}
    spec = write_spec(tmp_path / "s.yaml", tree(tmp_path, **options))
    assert shell(network, "gen_trt_engine", "-e", spec) == 0, shell.out + shell.err
    folder = tmp_path / "engines"
    assert (folder / "model.engine").stat().st_size > 0
    manifest = json.loads(next(folder.glob("*.json")).read_text())
    described = json.dumps(manifest)
    assert all(name in described for name in ('"output"', '"99"', '"flat"', "0.485"))
    assert manifest["network"] == network
    prepared = onnx.load(next(folder.glob("*.onnx")))
    assert any(node.op_type == "QuantizeLinear" for node in prepared.graph.node) == (precision == "int8")


@pytest.mark.parametrize("network", ["mae", "nvdinov2"])
def test_int8_without_images_says_what_is_missing(shell: Shell, tmp_path: Path, network: str) -> None:
    spec = write_spec(tmp_path / "s.yaml", tree(tmp_path, data_type="int8"))
    assert "cal_image_dir" in shell.refused(2, network, "gen_trt_engine", "-e", spec)


def test_a_mean_of_the_spec_reaches_the_calibration(shell: Shell, tmp_path: Path) -> None:
    content = tree(tmp_path) | {"dataset": {"augmentation": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}}}
    assert shell("mae", "gen_trt_engine", "-e", write_spec(tmp_path / "s.yaml", content)) == 0, shell.err
    assert "0.3" in next((tmp_path / "engines").glob("*.json")).read_text()


@pytest.mark.parametrize("network", ["mae", "nvdinov2"])
@pytest.mark.parametrize("action", ["evaluate", "inference"])
def test_there_is_no_other_action(shell: Shell, tmp_path: Path, network: str, action: str) -> None:
    spec = write_spec(tmp_path / "s.yaml", tree(tmp_path) | {"model_name": network})
    message = shell.refused(2, network, action, "-e", spec)
    assert action in message
    assert "gen_trt_engine" in message
    message = shell.refused(2, "model_agnostic", action, "-e", spec)
    assert f"{network} has no action {action}" in message


@pytest.mark.parametrize("network", ["mae", "nvdinov2"])
def test_default_specs(shell: Shell, tmp_path: Path, network: str) -> None:
    assert shell(network, "default_specs", f"results_dir={tmp_path}") == 0
    assert "onnx_file: ???" in (tmp_path / "experiment.yaml").read_text()


def test_older_samples_load_with_notes(shell: Shell, tmp_path: Path) -> None:
    """Blocks given twice, a key of another network, an engine below a results folder that is not set."""
    model = write_backbone(tmp_path / "model.onnx")
    spec = tmp_path / "s.yaml"
    spec.write_text(
        f"results_dir: {tmp_path}/out\ntrain:\n  stage: finetune\ndataset:\n  batch_size: 2\n"
        f"gen_trt_engine:\n  onnx_file: {model}\n  trt_engine: ${{gen_trt_engine.results_dir}}/model.engine\n"
        "train:\n  pretrained_model_path: x\ndataset:\n  segment:\n    num_classes: 3\n"
    )
    assert shell("mae", "gen_trt_engine", "-e", spec) == 0, shell.err
    assert "train is given twice" in shell.out
    assert (tmp_path / "out" / "gen_trt_engine" / "model.engine").is_file()
    content = tree(tmp_path) | {"model": {"backbone": {"type": "vit_l"}}}
    assert shell("nvdinov2", "gen_trt_engine", "-e", write_spec(spec, content)) == 0, shell.err
    assert "model.backbone.type" in shell.out
    content["model"]["backbone"] = {"patchsize": 14}
    assert "patch_size" in shell.refused(2, "nvdinov2", "gen_trt_engine", "-e", write_spec(spec, content))


def test_a_model_without_an_image_input(shell: Shell, tmp_path: Path) -> None:
    content = tree(tmp_path)
    graph = helper.make_graph(
        [helper.make_node("Relu", ["tokens"], ["output"])],
        "text",
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["n", 77])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 77])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, content["gen_trt_engine"]["onnx_file"])
    message = shell.refused(1, "mae", "gen_trt_engine", "-e", write_spec(tmp_path / "s.yaml", content))
    assert "'input' of rank 4" in message


def test_mae_refuses_a_dynamic_image_size(shell: Shell, tmp_path: Path) -> None:
    content = tree(tmp_path)
    write_backbone(Path(content["gen_trt_engine"]["onnx_file"]), size=("h", "w"))
    message = shell.refused(1, "mae", "gen_trt_engine", "-e", write_spec(tmp_path / "s.yaml", content))
    assert "dynamic height or width" in message
