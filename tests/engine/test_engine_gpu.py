"""Real builds and runs on a GPU with TensorRT, compared with ONNX Runtime on the CPU.

    python -m pytest -m gpu tests/engine/test_engine_gpu.py

Needs numpy, onnx, onnxruntime, tensorrt and cuda-python; polygraphy for implicit calibration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engine_models as models
import numpy as np
import pytest
from onnx import TensorProto, helper

from nvidia_tao_deploy.engine.backend import choose_runtime
from nvidia_tao_deploy.engine.build import BuiltEngine, build
from nvidia_tao_deploy.engine.facts import read
from nvidia_tao_deploy.engine.manifest import Manifest, preflight
from nvidia_tao_deploy.engine.options import BuildOptions, ImplicitCalibration
from nvidia_tao_deploy.engine.profiles import propose
from nvidia_tao_deploy.errors import BuildError, ModelError, RuntimeUnavailableError
from nvidia_tao_deploy.files import write_bytes
from nvidia_tao_deploy.runtime import cuda

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda.gpu_available(), reason="needs a GPU"),
]
LIMIT = 240.0  # seconds; TensorRT 8.5 builds these in a few


def built_engine(path: Path, **options: Any) -> tuple[Path, BuiltEngine]:
    settings = {"runtime": "tensorrt", "timeout_s": LIMIT, **options}
    if "profiles" not in settings:
        settings["profiles"] = propose(read(path).inputs, 1, 2, 4)
    lines: list[str] = []
    built = build(path, BuildOptions(**settings), lines.append)
    print("\n".join(lines))
    engine = path.with_suffix(".engine")
    write_bytes(engine, built.plan)
    Manifest.describe(built, settings["profiles"], source_onnx=path, prepared_onnx=path).save(engine)
    return engine, built


def reference(path: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def run(engine: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    from nvidia_tao_deploy.runtime.tensorrt import TensorRTSession

    preflight(engine)
    with TensorRTSession(engine) as session:
        print(session.device, session.inputs, session.outputs, session.batch)
        return session.run(feeds)


def images(count: int = 3, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((count, 3, 32, 32)).astype(np.float32)


def relative_error(found: Any, expected: Any) -> float:
    return float(np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    ("precision", "limit"),
    # fp32 without TF32 differs by summation order; int8 by what lands on a rounding edge; fp16 has 11 bits.
    [("fp32", 1e-5), ("fp16", 5e-3), ("int8", 2e-2), ("int8 in fp32", 2e-2)],
)
def test_engine_matches_onnxruntime(tmp_path: Path, precision: str, limit: float) -> None:
    path = tmp_path / "m.onnx"
    {"fp32": models.conv_net, "fp16": models.half_net}.get(precision, models.quantized_net)(path)
    options = {"precision": precision.split()[0], "strict_types": precision != "int8"}
    engine, built = built_engine(path, **options)
    feeds = {"x": images()}
    error = relative_error(run(engine, feeds)["y"], reference(path, feeds)["y"])
    print(f"{precision}: relative error {error:.2e}, flags {built.flags}, {len(built.plan)} bytes")
    assert error < limit


def test_every_batch_of_the_profile_and_reuse(tmp_path: Path) -> None:
    from nvidia_tao_deploy.runtime.tensorrt import TensorRTSession

    path = models.conv_net(tmp_path / "m.onnx")
    engine, _ = built_engine(path)
    with TensorRTSession(engine) as session:
        assert (session.batch.minimum, session.batch.maximum) == (1, 4)
        kept = []
        for count in (4, 1, 3, 2, 4):
            feeds = {"x": images(count, seed=count)}
            kept.append((session.run(feeds)["y"], reference(path, feeds)["y"]))
        for found, expected in kept:  # arrays of earlier runs are untouched by later ones
            assert relative_error(found, expected) < 1e-5
        with pytest.raises(ModelError, match="axis 0 has size 5"):
            session.run({"x": images(5)})
        with pytest.raises(ModelError, match="float64"):
            session.run({"x": images(1).astype(np.float64)})
        with pytest.raises(ModelError, match="no array for input 'x'"):
            session.run({})
    session.close()


def test_fp32_island_stays_fp32_in_fp16(tmp_path: Path) -> None:
    """exp(12) is above float16's largest value: the island must not be computed in half precision."""
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "down", to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["h", "k"], ["m"], "mul"),
        helper.make_node("Cast", ["m"], ["f"], "up", to=TensorProto.FLOAT),
        helper.make_node("Exp", ["f"], ["e"], "exp"),
        helper.make_node("Log", ["e"], ["y"], "log"),
    ]
    weights = {"k": np.array(12, np.float16)}
    path = models.save(tmp_path / "m.onnx", nodes, [models.value("x", [1, 4])], [models.value("y", [1, 4])], weights)
    engine, built = built_engine(path, precision="fp16", profiles={})
    if not built.strongly_typed:
        assert {"FP16", "OBEY_PRECISION_CONSTRAINTS"} <= set(built.flags)
    found = run(engine, {"x": np.ones((1, 4), np.float32)})["y"]
    np.testing.assert_allclose(found, 12.0, rtol=1e-3)


def test_integer_outputs_keep_the_models_type(tmp_path: Path) -> None:
    path = models.gemm_head(tmp_path / "m.onnx")
    engine, _ = built_engine(path)
    feeds = {"x": np.random.default_rng(3).standard_normal((2, 32)).astype(np.float32)}
    found, expected = run(engine, feeds), reference(path, feeds)
    np.testing.assert_allclose(found["values"], expected["values"], rtol=1e-4)
    np.testing.assert_array_equal(found["indices"], expected["indices"])
    assert found["indices"].dtype == np.int64


@pytest.mark.parametrize(
    ("batch", "built_for", "contexts"),
    [(2, 1, 2), ("N", 1, 1), ("N", 2, 2)],
    ids=["fixed shapes", "one profile", "two profiles"],
)
def test_two_runs_at_once(tmp_path: Path, batch: Any, built_for: int, contexts: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from nvidia_tao_deploy.runtime.tensorrt import TensorRTSession

    path = models.conv_net(tmp_path / "m.onnx", batch)
    engine, built = built_engine(path, contexts=built_for, **({"profiles": {}} if batch == 2 else {}))
    if choose_runtime("tensorrt").features.shared_profiles:
        contexts = 2
    given = [images(2, seed=seed) for seed in range(8)]
    expected = [reference(path, {"x": x})["y"] for x in given]
    for cuda_graph in (False, True):
        with TensorRTSession(engine, cuda_graph=cuda_graph, contexts=2) as session, ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda index: session.run({"x": given[index % 8]})["y"], range(400)))
            assert session.slots == contexts + 1
            assert bool(session.refused) == (contexts == 1)
        for index, y in enumerate(found):
            assert relative_error(y, expected[index % 8]) < 1e-5
    print(f"{built.seconds} s, {contexts} contexts")


def test_data_dependent_output(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["i"], "nonzero")]
    io = [models.value("x", ["N", 6])], [models.value("i", [2, "M"], TensorProto.INT64)]
    path = models.save(tmp_path / "m.onnx", nodes, *io, {})
    engine, _ = built_engine(path)
    from nvidia_tao_deploy.runtime.tensorrt import TensorRTSession

    with TensorRTSession(engine) as session:
        for array in (np.eye(4, 6), np.zeros((1, 6)), np.ones((4, 6))):
            feeds = {"x": array.astype(np.float32)}
            np.testing.assert_array_equal(session.run(feeds)["i"], reference(path, feeds)["i"])


def test_two_inputs_and_dynamic_height_and_width(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["a", "w1", "b1"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["b", "w1", "b1"], ["d"], "conv_b", pads=[1, 1, 1, 1]),
        helper.make_node("Sub", ["c", "d"], ["y"], "sub"),
    ]
    shape = ["N", 3, "H", "W"]
    weights = {name: array for name, array in models.conv_weights().items() if name.endswith("1")}
    io = [models.value("a", shape), models.value("b", shape)], [models.value("y", ["N", 16, "H", "W"])]
    path = models.save(tmp_path / "m.onnx", nodes, *io, weights)
    profiles = propose(read(path).inputs, 1, 1, 2, heights=(16, 32, 48), widths=(16, 32, 64))
    engine, _ = built_engine(path, profiles=profiles)
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal((2, 3, 48, 20)).astype(np.float32) for name in ("a", "b")}
    assert relative_error(run(engine, feeds)["y"], reference(path, feeds)["y"]) < 1e-5


def test_timing_cache_is_written_and_read(tmp_path: Path) -> None:
    if not choose_runtime("tensorrt").features.timing_cache:
        pytest.skip("no timing cache")
    cache = tmp_path / "sub" / "timing.cache"
    path = models.conv_net(tmp_path / "m.onnx")
    _, first = built_engine(path, timing_cache=cache)
    size = cache.stat().st_size
    assert size > 0
    _, second = built_engine(path, timing_cache=cache)
    print(f"build {first.seconds} s, with the cache {second.seconds} s")
    assert second.seconds <= first.seconds + 1
    cache.write_bytes(b"not a cache")
    _, third = built_engine(path, timing_cache=cache)
    assert any("timing cache" in line for line in third.warnings)
    assert cache.stat().st_size >= size


def test_implicit_calibration(tmp_path: Path) -> None:
    pytest.importorskip("polygraphy")
    if not choose_runtime("tensorrt").features.implicit_calibration:
        pytest.skip("no implicit calibration")
    path = models.conv_net(tmp_path / "m.onnx")
    cache = tmp_path / "cal.cache"
    batches = [{"x": images(2, seed=seed)} for seed in range(8)]
    calibration = ImplicitCalibration(lambda: iter(batches), cache)
    engine, _ = built_engine(path, precision="int8", implicit=calibration, strict_types=True)
    feeds = {"x": images(3, seed=100)}
    error = relative_error(run(engine, feeds)["y"], reference(path, feeds)["y"])
    text = cache.read_text()
    print(text.splitlines()[:3], f"relative error {error:.2e}")
    assert "EntropyCalibration2" in text.splitlines()[0]
    assert "x: " in text
    assert error < 0.1
    # The cache alone is enough from now on.
    again, _ = built_engine(path, precision="int8", implicit=ImplicitCalibration(None, cache), strict_types=True)
    assert relative_error(run(again, feeds)["y"], reference(path, feeds)["y"]) < 0.1


def test_calibration_batch_of_the_wrong_size_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("polygraphy")
    if not choose_runtime("tensorrt").features.implicit_calibration:
        pytest.skip("no implicit calibration")
    path = models.conv_net(tmp_path / "m.onnx")
    calibration = ImplicitCalibration(lambda: iter([{"x": images(3)}]))
    with pytest.raises(BuildError, match="opt shape"):
        built_engine(path, precision="int8", implicit=calibration)


def test_parser_errors_are_named(tmp_path: Path) -> None:
    io = [models.value("m", [1, 3, 3])], [models.value("d", [1])]
    path = models.one_node(tmp_path / "det.onnx", "Det", *io)
    with pytest.raises(BuildError, match="Det") as caught:
        built_engine(path, profiles={})
    print(caught.value)


def test_damaged_and_foreign_engines(tmp_path: Path) -> None:
    from nvidia_tao_deploy.runtime.tensorrt import TensorRTSession

    engine, built = built_engine(models.conv_net(tmp_path / "m.onnx"))
    broken = tmp_path / "broken.engine"
    broken.write_bytes(built.plan[: len(built.plan) // 2])
    with pytest.raises(ModelError, match="cannot load this engine") as caught:
        TensorRTSession(broken)
    print(caught.value)
    (tmp_path / "rtx.engine").write_bytes(b"vtrt" + bytes(64))
    with pytest.raises(RuntimeUnavailableError, match="TensorRT-RTX"):
        preflight(tmp_path / "rtx.engine")
    preflight(engine)


def test_throughput_is_reported(tmp_path: Path) -> None:
    """Not a benchmark: shows that a session's run is not dominated by its own bookkeeping."""
    import time

    from nvidia_tao_deploy.runtime.tensorrt import TensorRTSession

    engine, _ = built_engine(models.half_net(tmp_path / "m.onnx"), precision="fp16")
    feeds = {"x": images(4)}
    with TensorRTSession(engine) as session:
        session.run(feeds)
        started = time.perf_counter()
        for _ in range(200):
            session.run(feeds)
        each = (time.perf_counter() - started) / 200
    print(f"one run of 4 images: {each * 1e6:.0f} us")
    assert each < 0.005
