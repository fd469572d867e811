"""The TensorRT session against a fake engine (fakes_session) that runs in ONNX Runtime; the GPU test is
tests/engine/test_engine_gpu.py."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from fakes_session import FakeTensorRT, HostCuda
from onnx import TensorProto, helper, numpy_helper

from nvidia_tao_deploy.engine import backend as backends
from nvidia_tao_deploy.engine.manifest import Manifest
from nvidia_tao_deploy.errors import ModelError, RuntimeUnavailableError
from nvidia_tao_deploy.runtime import cuda
from nvidia_tao_deploy.runtime.session import BatchLimits, TensorInfo
from nvidia_tao_deploy.runtime.tensorrt import TensorRTSession, numpy_dtype

PROFILE = {"x": ((1, 6), (2, 6), (4, 6)), "ids": ((1, 2), (2, 2), (4, 2))}


def model(path: Path) -> Path:
    """x (N,6) float, ids (N,2) int64 -> y = 2x, kept = ids, rows (2,M) = NonZero(x)."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["y"]),
        helper.make_node("Identity", ["ids"], ["kept"]),
        helper.make_node("NonZero", ["x"], ["rows"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["N", 6]), value("ids", TensorProto.INT64, ["N", 2])],
        [
            value("y", TensorProto.FLOAT, ["N", 6]),
            value("kept", TensorProto.INT64, ["N", 2]),
            value("rows", TensorProto.INT64, [2, "M"]),
        ],
        [numpy_helper.from_array(np.array(2, np.float32), "two")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


class Rig(SimpleNamespace):
    """A fake machine with one engine on it."""

    engine: Path
    trt: FakeTensorRT
    cuda: HostCuda


@pytest.fixture(params=[False, True], ids=["int64 kept", "int64 narrowed"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    host = HostCuda()
    trt = FakeTensorRT(model(tmp_path / "m.onnx"), PROFILE, host, narrow=request.param)
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"plan")
    Manifest(
        runtime="tensorrt",
        runtime_version="8.5.3.1",
        precision="fp32",
        inputs=[{"name": "x", "dtype": "float32"}, {"name": "ids", "dtype": "int64"}],
        outputs=[{"name": "kept", "dtype": "int64"}, {"name": "rows", "dtype": "int64"}],
    ).save(engine)
    monkeypatch.setattr(cuda, "cudart", lambda: host)
    monkeypatch.setattr(cuda, "gpus", lambda: (cuda.Gpu(0, "Fake GPU", (9, 0), 1 << 30),))
    described = SimpleNamespace(module=trt, title="TensorRT 8.5.3.1", features=SimpleNamespace(plugins=True))
    monkeypatch.setattr(backends, "load", {"tensorrt": described}.__getitem__)
    return Rig(engine=engine, trt=trt, cuda=host, narrow=request.param)


def feeds(count: int) -> dict[str, Any]:
    rng = np.random.default_rng(count)
    x = rng.standard_normal((count, 6)).astype(np.float32)
    x[rng.random((count, 6)) < 0.5] = 0
    return {"x": x, "ids": rng.integers(0, 1000, (count, 2))}


def test_runs_every_batch_size_with_the_same_buffers(rig: Rig) -> None:
    with TensorRTSession(rig.engine) as session:
        session.run(feeds(4))
        allocations = rig.cuda.allocations
        results = []
        for count in (1, 4, 2, 3):
            given = feeds(count)
            results.append((given, session.run(given)))
        assert rig.cuda.allocations - allocations <= 1  # only NonZero's growing output may need more
        for given, found in results:  # later runs leave earlier results alone
            np.testing.assert_array_equal(found["y"], given["x"] * 2)
            np.testing.assert_array_equal(found["kept"], given["ids"])
            np.testing.assert_array_equal(found["rows"], np.nonzero(given["x"]))
            assert found["kept"].dtype == found["rows"].dtype == np.int64
            assert list(found) == ["y", "kept", "rows"]


def test_describes_itself(rig: Rig) -> None:
    with TensorRTSession(rig.engine) as session:
        assert session.inputs[0] == TensorInfo("x", (None, 6), np.dtype(np.float32))
        assert session.inputs[1].dtype == np.int64
        assert [info.name for info in session.outputs] == ["y", "kept", "rows"]
        assert session.outputs[2].shape == (2, None)
        assert session.batch == BatchLimits(1, 4)
        assert session.device == "TensorRT 8.5.3.1 on Fake GPU"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": np.zeros((5, 6), np.float32)}, "axis 0 has size 5, the engine takes 1 to 4"),
        ({"x": np.zeros((2, 7), np.float32)}, "axis 1 has size 7"),
        ({"x": np.zeros((0, 6), np.float32)}, "axis 0 has size 0"),
        ({"x": np.zeros((2, 6, 1), np.float32)}, "has 2 axes"),
        ({"x": np.zeros((2, 6), np.float64)}, "is float32, the array is float64"),
        ({"x": None}, "no array for input 'x'"),
        ({"z": np.zeros(1)}, "no input z"),
    ],
)
def test_wrong_feeds_are_named(rig: Rig, changed: dict[str, Any], message: str) -> None:
    with TensorRTSession(rig.engine) as session:
        given = {name: array for name, array in {**feeds(2), **changed}.items() if array is not None}
        with pytest.raises(ModelError, match=message):
            session.run(given)
        session.run(feeds(2))  # and the session still works


def test_integers_beyond_the_engines_type_are_refused(rig: Rig) -> None:
    with TensorRTSession(rig.engine) as session:
        given = {**feeds(1), "ids": np.array([[1, 1 << 40]])}
        if rig.narrow:
            with pytest.raises(ModelError, match="do not fit int32"):
                session.run(given)
        else:
            np.testing.assert_array_equal(session.run(given)["kept"], given["ids"])


def test_close_frees_everything_in_order(rig: Rig) -> None:
    session = TensorRTSession(rig.engine)
    session.run(feeds(3))
    session.close()
    gc.collect()
    assert rig.trt.order == ["context", "engine", "runtime"]
    assert rig.cuda.live == {}
    session.close()
    with pytest.raises(ModelError, match="closed"):
        session.run(feeds(1))


def test_a_damaged_plan_is_refused_and_nothing_stays_allocated(rig: Rig) -> None:
    rig.engine.write_bytes(b"pl")
    with pytest.raises(ModelError, match="empty"):
        TensorRTSession(rig.engine)
    rig.engine.write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"cannot load this engine: .*Magic tag"):
        TensorRTSession(rig.engine)
    assert rig.cuda.live == {}


def test_the_device_is_selected_in_every_thread(rig: Rig) -> None:
    with TensorRTSession(rig.engine, device=0) as session:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(session.run(feeds(2))))
        thread.start()
        thread.join()
        assert found
        assert rig.cuda.devices == [0, 0]


def test_types_numpy_lacks() -> None:
    assert numpy_dtype("BF16", "t").itemsize == 2
    assert numpy_dtype("FP8", "t").itemsize == 1
    with pytest.raises(ModelError, match="'t' has type FP4"):
        numpy_dtype("FP4", "t")


def test_cuda_questions_work_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "driver_library", lambda: None)
    cuda.gpus.cache_clear()
    try:
        assert cuda.gpus() == ()
        assert not cuda.gpu_available()
        assert cuda.gpu_name() is None
        assert cuda.compute_capability() is None
        assert cuda.driver_version() is None
    finally:
        cuda.gpus.cache_clear()


def test_cuda_errors_carry_their_name() -> None:
    failed = type("Failed", (), {"name": "cudaErrorMemoryAllocation", "__int__": lambda self: 2})()  # noqa: ARG005
    with pytest.raises(RuntimeUnavailableError, match=r"cudaErrorMemoryAllocation\n  The GPU's memory is full"):
        cuda.check((failed,))
    assert cuda.check((0,)) is None
    assert cuda.check((0, 7)) == 7
    assert cuda.check((0, 7, 8)) == (7, 8)


def test_importing_the_session_imports_no_runtime() -> None:
    code = (
        "import sys; import nvidia_tao_deploy.runtime.tensorrt, nvidia_tao_deploy.runtime.cuda;"
        "print([m for m in ('tensorrt', 'tensorrt_rtx', 'cuda', 'onnx', 'polygraphy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_two_threads_run_in_two_slots_and_get_their_own_results(rig: Rig) -> None:
    with TensorRTSession(rig.engine) as session:
        given = [feeds(1 + i % 4) for i in range(40)]
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(session.run, given))
        for asked, got in zip(given, found, strict=True):
            np.testing.assert_array_equal(got["y"], asked["x"] * 2)
            np.testing.assert_array_equal(got["rows"], np.nonzero(asked["x"]))
    assert rig.cuda.live == {}


def test_page_locked_inputs_are_copied_from_where_they_are(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with TensorRTSession(rig.engine) as session:
        given = feeds(3)
        sources: list[int] = []
        monkeypatch.setattr("nvidia_tao_deploy.runtime.tensorrt.is_pinned", lambda array: array is given["x"])
        copy = cuda.copy_to_device
        monkeypatch.setattr(cuda, "copy_to_device", lambda *a: (sources.append(a[1]), copy(*a)))
        np.testing.assert_array_equal(session.run(given)["y"], given["x"] * 2)
        assert given["x"].ctypes.data in sources
        assert given["ids"].ctypes.data not in sources


def test_recorded_graphs_are_replayed_per_slot_and_shape(fixed: Rig) -> None:
    with TensorRTSession(fixed.engine, cuda_graph=True) as session:
        for count in (2, 2, 2, 4, 2, 4, 4, 2):
            x = np.random.default_rng(count).random((count, 6), np.float32)
            np.testing.assert_array_equal(session.run({"x": x})["y"], x * 2)
    assert fixed.cuda.captured == 2
    assert fixed.cuda.replayed == 6
    assert fixed.cuda.live == {}


def test_an_engine_that_cannot_be_recorded_runs_without_graphs(fixed: Rig) -> None:
    fixed.cuda.refuses_capture = True
    with TensorRTSession(fixed.engine, cuda_graph=True) as session:
        for _ in range(4):
            x = np.ones((2, 6), np.float32)
            np.testing.assert_array_equal(session.run({"x": x})["y"], x * 2)
    assert fixed.cuda.replayed == 0


@pytest.fixture
def fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A rig whose engine has no output that depends on data."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["N", 6])],
        [value("y", TensorProto.FLOAT, ["N", 6])],
        [numpy_helper.from_array(np.array(2, np.float32), "two")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    host = HostCuda()
    trt = FakeTensorRT(path, {"x": PROFILE["x"]}, host)
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"plan")
    Manifest(runtime="tensorrt", runtime_version="8.5.3.1", precision="fp32", inputs=[], outputs=[]).save(engine)
    monkeypatch.setattr(cuda, "cudart", lambda: host)
    monkeypatch.setattr(cuda, "gpus", lambda: (cuda.Gpu(0, "Fake GPU", (9, 0), 1 << 30),))
    described = SimpleNamespace(module=trt, title="TensorRT 8.5.3.1", features=SimpleNamespace(plugins=True))
    monkeypatch.setattr(backends, "load", {"tensorrt": described}.__getitem__)
    return Rig(engine=engine, trt=trt, cuda=host, narrow=False)
