"""Shape profiles as the contract's section 2 has them."""

from __future__ import annotations

from pathlib import Path

import engine_models as models
import numpy as np
import onnx
import pytest
from onnx import helper

from nvidia_tao_deploy.actions.shapes import try_shapes
from nvidia_tao_deploy.engine.profiles import Profile, propose, static_batch
from nvidia_tao_deploy.errors import BuildError
from nvidia_tao_deploy.runtime.session import TensorInfo

F = np.dtype(np.float32)


def info(*shape: int | None, name: str = "x") -> TensorInfo:
    return TensorInfo(name, shape, F)


def test_dynamic_batch() -> None:
    found = propose([info(None, 3, 8, 8), info(None, name="scale")], 1, 2, 4)
    assert found == {
        "x": Profile((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)),
        "scale": Profile((1,), (2,), (4,)),
    }


def test_static_batch_ignores_the_batch_sizes() -> None:
    assert propose([info(2, 3)], 1, 4, 8)["x"] == Profile((2, 3), (2, 3), (2, 3))
    assert static_batch([info(), info(2, 3)]) == 2
    assert static_batch([info(None, 3)]) is None


def test_scalar_input_has_an_empty_shape() -> None:
    assert propose([info(None, 3), info(name="threshold")], 1, 1, 1)["threshold"] == Profile((), (), ())


def test_dynamic_height_and_width() -> None:
    found = propose([info(1, 3, None, None)], heights=(32, 64, 96), widths=(40, 80, 120))
    assert found["x"] == Profile((1, 3, 32, 40), (1, 3, 64, 80), (1, 3, 96, 120))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 3, None, 8), "axis 2.*\n.*min_height"), ((1, 3, 8, None), "axis 3.*\n.*min_width"), ((1, None), "axis 1")],
)
def test_open_axis_names_input_and_axis(shape: tuple[int | None, ...], message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        propose([info(*shape)])
    assert "'x'" in str(caught.value)


@pytest.mark.parametrize("sizes", [(2, 1, 4), (1, 8, 4), (0, 1, 1)])
def test_order_is_checked(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(BuildError, match="min <= opt <= max"):
        propose([info(None, 3)], *sizes)
    with pytest.raises(BuildError, match="height profile"):
        propose([info(1, 3, None, 8)], heights=sizes)


def test_inputs_must_share_the_batch_axis() -> None:
    with pytest.raises(BuildError, match="x: dynamic, y: 1"):
        propose([info(None, 3), info(1, 3, name="y")])


def test_shapes_are_tried_with_onnxruntime(tmp_path: Path) -> None:
    """Six values per row after a reshape: only even numbers of rows of three fit."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], "reshape")]
    io = [models.value("x", ["N", 3])], [models.value("y", ["M", 6])]
    path = models.save(tmp_path / "m.onnx", nodes, *io, {"shape": np.array([-1, 6], np.int64)})
    model = onnx.load(path)
    try_shapes(model, {"x": Profile((2, 3), (2, 3), (4, 3))}, path)
    with pytest.raises(BuildError, match="cannot run at the max shapes"):
        try_shapes(model, {"x": Profile((2, 3), (2, 3), (5, 3))}, path)
