"""The TensorRT session against a fake engine (fakes_session) that runs in ONNX Runtime; the GPU test is
tests/engine/test_engine_gpu.py."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
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


def machine(monkeypatch: pytest.MonkeyPatch, model: Path, profile: dict[str, Any], **options: Any) -> Rig:
    """A fake machine with the engine of ``model``; ``options``: see Manifest, and ``narrow`` of FakeTensorRT."""
    host = HostCuda()
    narrow = options.pop("narrow", False)
    trt = FakeTensorRT(model, profile, host, narrow=narrow)
    engine = model.with_suffix(".engine")
    engine.write_bytes(b"plan")
    about = {"runtime": "tensorrt", "runtime_version": "8.5.3.1", "precision": "fp32", "inputs": [], "outputs": []}
    Manifest(**{**about, **options}).save(engine)
    monkeypatch.setattr(cuda, "cudart", lambda: host)
    monkeypatch.setattr(cuda, "gpus", lambda: (cuda.Gpu(0, "Fake GPU", (9, 0), 1 << 30),))
    features = SimpleNamespace(plugins=True, shared_profiles=False)
    described = SimpleNamespace(module=trt, title="TensorRT 8.5.3.1", features=features)
    monkeypatch.setattr(backends, "load", {"tensorrt": described}.__getitem__)
    return Rig(engine=engine, trt=trt, cuda=host, narrow=narrow, features=features)


@pytest.fixture(params=[False, True], ids=["int64 kept", "int64 narrowed"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return machine(
        monkeypatch,
        model(tmp_path / "m.onnx"),
        PROFILE,
        narrow=request.param,
        inputs=[{"name": "x", "dtype": "float32"}, {"name": "ids", "dtype": "int64"}],
        outputs=[{"name": "kept", "dtype": "int64"}, {"name": "rows", "dtype": "int64"}],
    )


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


def doubling(path: Path, batch: str | int) -> Path:
    """x (batch,6) float -> y = 2x."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [batch, 6])],
        [value("y", TensorProto.FLOAT, [batch, 6])],
        [numpy_helper.from_array(np.array(2, np.float32), "two")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.fixture
def fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A rig whose engine has no output that depends on data."""
    return machine(monkeypatch, doubling(tmp_path / "m.onnx", "N"), {"x": PROFILE["x"]})


class Ones:
    """An input filled on the GPU, once the other thread's is about to be filled as well: both runs have a slot then."""

    def __init__(self, count: int, met: threading.Barrier) -> None:
        self.shape, self.dtype = (count, 6), np.dtype(np.float32)
        self._met = met

    def write(self, pointer: int, stream: int) -> None:
        del stream
        self._met.wait(10)
        ones = np.ones(self.shape, self.dtype)
        ctypes.memmove(pointer, ones.ctypes.data, ones.nbytes)


def run_two(session: TensorRTSession, counts: tuple[int, int]) -> list[Any]:
    """The outputs y of two runs that are under way at once."""
    met = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        return [found["y"] for found in pool.map(lambda count: session.run({"x": Ones(count, met)}), counts)]


def of_fixed_shape(rig: Rig) -> None:
    doubling(rig.engine.with_suffix(".onnx"), 2)


def with_a_second_profile(rig: Rig) -> None:
    rig.trt.profiles *= 2


def of_tensorrt_10(rig: Rig) -> None:
    rig.trt.shared = rig.features.shared_profiles = True


@pytest.mark.parametrize("change", [of_fixed_shape, with_a_second_profile, of_tensorrt_10])
def test_contexts_execute_at_once_where_tensorrt_lets_them(fixed: Rig, change: Callable[[Rig], None]) -> None:
    change(fixed)
    with TensorRTSession(fixed.engine, contexts=2) as session:
        assert session.slots == 3  # a batch is copied while two execute
        assert session.refused == {}
        fixed.trt.together = threading.Barrier(2, timeout=10)  # both contexts are being enqueued to at once
        for found in run_two(session, (2, 2)):
            np.testing.assert_array_equal(found, np.full((2, 6), 2))
    assert fixed.trt.contexts == 2
    assert fixed.cuda.live == {}
    gc.collect()
    assert fixed.trt.order == ["context", "context", "engine", "runtime"]


def test_one_context_serves_two_runs_unless_more_are_asked_for(fixed: Rig) -> None:
    of_tensorrt_10(fixed)
    with TensorRTSession(fixed.engine) as session:
        for found, count in zip(run_two(session, (2, 3)), (2, 3), strict=True):
            np.testing.assert_array_equal(found, np.full((count, 6), 2))
        assert session.slots == 2
    assert fixed.trt.contexts == 1
    assert fixed.cuda.live == {}


def with_an_unlike_profile(rig: Rig) -> None:
    rig.trt.profiles.append({"x": ((1, 6), (1, 6), (1, 6))})


def without_memory_for_a_context(rig: Rig) -> None:
    of_tensorrt_10(rig)
    rig.trt.most_contexts = 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _: None, "TensorRT 8.5.3.1 wants a profile for each, and this engine has 1"),
        (with_an_unlike_profile, "this engine has 1: build it again with runtime.contexts=2"),
        (without_memory_for_a_context, "no memory"),
    ],
)
def test_contexts_that_cannot_be_had_are_named(fixed: Rig, change: Callable[[Rig], None], reason: str) -> None:
    change(fixed)
    with TensorRTSession(fixed.engine, contexts=2) as session:
        assert reason in session.refused["contexts"]
        assert session.slots == 2
        for found, count in zip(run_two(session, (2, 3)), (2, 3), strict=True):
            np.testing.assert_array_equal(found, np.full((count, 6), 2))
    assert fixed.trt.contexts == 1
    assert fixed.cuda.live == {}


def test_without_memory_for_a_second_slot_the_first_has_to_do(fixed: Rig) -> None:
    with TensorRTSession(fixed.engine) as session:
        fixed.cuda.most_allocations = fixed.cuda.allocations + 1
        given = [np.full((1 + i % 4, 6), i, np.float32) for i in range(8)]
        fixed.trt.together = threading.Barrier(1, action=lambda: time.sleep(0.02))
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda x: session.run({"x": x})["y"], given))
        for x, y in zip(given, found, strict=True):
            np.testing.assert_array_equal(y, x * 2)
        assert session.slots == 1
    assert fixed.cuda.live == {}


def test_two_contexts_have_allocators_of_their_own(rig: Rig) -> None:
    of_tensorrt_10(rig)
    with TensorRTSession(rig.engine, contexts=2) as session:
        given = [feeds(1 + i % 4) for i in range(40)]
        rig.trt.together = threading.Barrier(2, timeout=10)
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(session.run, given))
        for asked, got in zip(given, found, strict=True):
            np.testing.assert_array_equal(got["rows"], np.nonzero(asked["x"]))
    assert rig.trt.contexts == 2
    assert rig.cuda.live == {}


def test_graphs_are_recorded_per_context(fixed: Rig) -> None:
    of_fixed_shape(fixed)
    with TensorRTSession(fixed.engine, cuda_graph=True, contexts=2) as session:
        for value in range(12):
            x = np.full((2, 6), value, np.float32)
            np.testing.assert_array_equal(session.run({"x": x})["y"], x * 2)
    assert fixed.cuda.captured == 2  # one slot, two contexts
    assert fixed.cuda.replayed == 10
    assert fixed.cuda.live == {}
