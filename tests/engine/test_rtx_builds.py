"""Real builds with TensorRT-RTX on a machine without a GPU: every precision, and what goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import engine_models as models
import numpy as np
import pytest
from onnx import TensorProto, helper

from nvidia_tao_deploy.engine.backend import choose_runtime, version_tuple
from nvidia_tao_deploy.engine.build import BuiltEngine, build
from nvidia_tao_deploy.engine.facts import read
from nvidia_tao_deploy.engine.options import BuildOptions
from nvidia_tao_deploy.engine.profiles import propose
from nvidia_tao_deploy.errors import BuildError, ModelError

pytest.importorskip("tensorrt_rtx")


def build_for(path: Path, targets: tuple[tuple[int, int], ...] = ((8, 6),), **options: object) -> BuiltEngine:
    settings = {"runtime": "tensorrt_rtx", "compute_capabilities": targets, "timeout_s": 120, **options}
    settings.setdefault("profiles", propose(read(path).inputs, 1, 2, 4))
    return build(path, BuildOptions(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("precision", "targets"),
    [
        ("fp32", ()),
        ("fp16", ((7, 5), (8, 6), (12, 0))),
        ("bf16", ((8, 0), (8, 9))),
        ("int8", ()),
        ("fp8", ((8, 9), (12, 0))),
    ],
)
def test_each_precision_builds(tmp_path: Path, precision: str, targets: tuple[tuple[int, int], ...]) -> None:
    path = tmp_path / "m.onnx"
    make = {
        "fp32": lambda: models.conv_net(path),
        "fp16": lambda: models.half_net(path),
        "bf16": lambda: models.half_net(path, TensorProto.BFLOAT16),
        "int8": lambda: models.quantized_net(path),
        "fp8": lambda: models.quantized_net(path, kind=TensorProto.FLOAT8E4M3FN),
    }
    make[precision]()

    built = build_for(path, targets, precision=precision)

    assert built.plan[:4] == b"vtrt"
    assert built.facts.precision == precision
    assert built.strongly_typed
    assert built.targets == (targets or ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1)))
    # The plan carries the library version that built it.
    major, minor = version_tuple(built.version)[:2]
    assert bytes([major, minor]) in built.plan[:64]


def test_int8_weights_are_stored_in_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    big = rng.standard_normal((256, 256, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "conv")]
    io = [models.value("x", [1, 256, 16, 16])], [models.value("y", [1, 256, 14, 14])]
    plain = models.save(tmp_path / "fp32.onnx", nodes, *io, {"w": big})
    scales = np.abs(big).max(axis=(1, 2, 3)) / np.float32(127)
    weights = {"w": big, "s": np.float32(0.1), "z": np.int8(0), "ws": scales, "wz": np.zeros(256, np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "qx"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "dx"),
        helper.make_node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], "qw", axis=0),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], "dw", axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["y"], "conv"),
    ]
    quantized = models.save(tmp_path / "int8.onnx", nodes, *io, weights)

    sizes = [len(build_for(path, profiles={}, precision=p).plan) for path, p in ((plain, "fp32"), (quantized, "int8"))]

    assert sizes[0] > big.nbytes
    assert sizes[1] < sizes[0] - big.nbytes / 2


def test_progress_lines_name_runtime_targets_and_result(tmp_path: Path) -> None:
    lines: list[str] = []
    path = models.conv_net(tmp_path / "m.onnx")
    options = BuildOptions(profiles=propose(read(path).inputs), compute_capabilities=((8, 6),), runtime="tensorrt_rtx")
    build(path, options, lines.append)
    assert lines[0].startswith("Building fp32 engine with TensorRT-RTX")
    assert "8.6" in lines[0]
    assert any(" of " in line for line in lines[1:-1])  # the progress monitor reported
    assert lines[-1].startswith("Built ")


@pytest.mark.parametrize("target", [(9, 0), (10, 0)])
def test_data_center_targets_are_refused_with_advice(tmp_path: Path, target: tuple[int, int]) -> None:
    with pytest.raises(BuildError, match=r"TensorRT-RTX target.*runtime=tensorrt"):
        build_for(models.conv_net(tmp_path / "m.onnx"), (target,))


@pytest.mark.parametrize(
    ("precision", "target"), [("bf16", (7, 5)), ("fp8", (8, 6)), ("fp32", (7, 5)), ("fp16", (6, 1))]
)
def test_targets_below_the_precision_are_refused(tmp_path: Path, precision: str, target: tuple[int, int]) -> None:
    path = tmp_path / "m.onnx"
    if precision == "fp8":
        models.quantized_net(path, kind=TensorProto.FLOAT8E4M3FN)
    elif precision == "fp32":
        models.conv_net(path)
    else:
        models.half_net(path, TensorProto.BFLOAT16 if precision == "bf16" else TensorProto.FLOAT16)
    with pytest.raises(BuildError, match=f"{target[0]}.{target[1]}"):
        build_for(path, (target,), precision=precision)


def test_dynamic_input_without_profile(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="missing dimensions in profile"):
        build_for(models.conv_net(tmp_path / "m.onnx"), profiles={})


def test_unsupported_operator_is_named(tmp_path: Path) -> None:
    io = [models.value("m", [1, 3, 3])], [models.value("d", [1])]
    path = models.one_node(tmp_path / "det.onnx", "Det", *io)
    with pytest.raises(BuildError, match=r"Det 'odd': this operator") as caught:
        build_for(path, profiles={})
    assert "false" not in caught.value.what


def test_plugin_operator_is_refused_before_the_build(tmp_path: Path) -> None:
    io = [models.value("b", [1, 10, 4])], [models.value("d", [1, 10])]
    path = models.one_node(tmp_path / "p.onnx", "EfficientNMS_TRT", *io, background_class=-1)
    with pytest.raises(BuildError, match=r"EfficientNMS_TRT 'odd'.*plugins: lower"):
        build_for(path, profiles={})


def test_nms_is_refused_before_the_build(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonMaxSuppression", ["b", "s", "k"], ["i"], "nms")]
    inputs = [models.value("b", [1, 10, 4]), models.value("s", [1, 2, 10])]
    outputs = [models.value("i", ["M", 3], TensorProto.INT64)]
    path = models.save(tmp_path / "n.onnx", nodes, inputs, outputs, {"k": np.array(5, np.int64)})
    with pytest.raises(BuildError, match="NonMaxSuppression 'nms'"):
        build_for(path, profiles={})


def test_mixed_types_are_explained(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "cast", to=TensorProto.FLOAT16),
        helper.make_node("Add", ["x", "h"], ["y"], "sum"),
    ]
    path = models.save(tmp_path / "a.onnx", nodes, [models.value("x", [1, 4])], [models.value("y", [1, 4])], {})
    with pytest.raises(BuildError, match=r"same input types") as caught:
        build_for(path, profiles={})
    assert "missing Cast" in str(caught.value)


def test_missing_truncated_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no ONNX file"):
        build_for(tmp_path / "none.onnx", profiles={})
    path = models.conv_net(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ModelError, match="not a readable ONNX"):
        build_for(path, profiles={})
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="no nodes"):
        build_for(path, profiles={})


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        ({"kind": TensorProto.UINT8}, "is uint8"),
        ({"zero": 3}, "zero point other than 0"),
        ({"scale": 0.0}, "scale that is not above 0"),
        ({"bias_int32": True}, "int32"),
    ],
)
def test_quantization_no_tensorrt_takes_is_refused(tmp_path: Path, faulty: dict[str, object], message: str) -> None:
    path = models.quantized_net(tmp_path / "q.onnx", **faulty)  # type: ignore[arg-type]
    with pytest.raises(BuildError, match=message):
        build_for(path, precision="int8")


def test_precision_must_be_in_the_graph(tmp_path: Path) -> None:
    path = models.conv_net(tmp_path / "m.onnx")
    for precision in ("fp16", "bf16", "int8", "fp8"):
        with pytest.raises(BuildError, match=f"{precision} was asked for"):
            build_for(path, precision=precision)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"version_compatible": True}, "version compatible"),
        ({"hardware_compatibility": "ampere_plus"}, "hardware compatibility"),
        ({"dla_core": 0, "precision": "fp32"}, "no DLA"),
        ({"refit": True}, "need a GPU"),
        ({"layer_precisions": {"conv1": "fp16"}}, "stand in the graph"),
    ],
)
def test_options_rtx_lacks_are_refused(tmp_path: Path, option: dict[str, object], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        build_for(models.conv_net(tmp_path / "m.onnx", batch=1), **{"profiles": {}, **option})


@pytest.mark.parametrize(
    "option",
    [
        {"weight_streaming": True},
        {"sparse_weights": True},
        {"tf32": True},
        {"optimization_level": 2},
        {"max_aux_streams": 0},
        {"workspace_bytes": 64 << 20},
        {"strict_types": True},
    ],
)
def test_options_rtx_has_are_built(tmp_path: Path, option: dict[str, object]) -> None:
    assert build_for(models.conv_net(tmp_path / "m.onnx"), **option).plan


def test_time_limit_ends_the_build(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="ended after its limit"):
        build_for(models.conv_net(tmp_path / "m.onnx"), timeout_s=0.01)


def test_interrupt_ends_the_builder_process_at_once(tmp_path: Path) -> None:
    path = models.conv_net(tmp_path / "m.onnx")
    options = BuildOptions(profiles=propose(read(path).inputs), compute_capabilities=((8, 6),), runtime="tensorrt_rtx")
    interrupted: list[float] = []

    def interrupt(line: str) -> None:
        if " of " in line and not interrupted:  # the builder reports its progress: it is at work
            interrupted.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(path, options, interrupt)
    assert time.monotonic() - interrupted[0] < 1.5
    assert not children()


def test_a_builder_process_that_an_interrupt_orphans_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C inside Popen, when the process is there and nobody has it yet: it ends as its input does."""
    started: list[int] = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def _execute_child(self, *words: object) -> None:
            super()._execute_child(*words)  # type: ignore[misc]
            started.append(self.pid)
            raise KeyboardInterrupt

    path = models.conv_net(tmp_path / "m.onnx")
    with monkeypatch.context() as patch:
        patch.setattr("nvidia_tao_deploy.engine.build.subprocess.Popen", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_for(path)
    assert started
    deadline = time.monotonic() + 20  # it may still be starting its interpreter
    while children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not children()


def children() -> set[int]:
    """Processes of this one that are alive."""
    listing = subprocess.run(["ps", "-o", "pid=,stat=,comm=", "--ppid", str(os.getpid())], capture_output=True)
    rows = [line.split() for line in listing.stdout.decode().splitlines()]
    return {int(row[0]) for row in rows if row[2] != "ps" and not row[1].startswith("Z")}


def test_builder_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    path = models.conv_net(tmp_path / "m.onnx")
    code = (
        "import sys, time; from pathlib import Path; from nvidia_tao_deploy.engine import build, options, profiles\n"
        "import nvidia_tao_deploy.engine.build as b\n"
        "b._START = 'import sys; sys.path[:] = sys.argv[2:]; import threading, time, os;'"
        "'from nvidia_tao_deploy.engine.worker import _die_with_parent as d;'"
        "'threading.Thread(target=d, daemon=True).start(); print(os.getpid(), flush=True); time.sleep(60)'\n"
        "real = b.subprocess.Popen\n"
        "b.subprocess.Popen = lambda *a, **k: real(*a, **{**k, 'stdout': sys.stdout.fileno()})\n"
        f"b.build(Path({str(path)!r}), options.BuildOptions(runtime='tensorrt_rtx', profiles="
        "{'x': profiles.Profile(*[(1, 3, 32, 32)] * 3)}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 5
        while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{worker}").exists()


def test_a_crash_of_the_library_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = "import os, sys; print('the last words', file=sys.stderr, flush=True); os.kill(os.getpid(), 11)"
    monkeypatch.setattr("nvidia_tao_deploy.engine.build._START", crash)
    with pytest.raises(BuildError, match=r"signal 11\n  the last words"):
        build_for(models.conv_net(tmp_path / "m.onnx"))


def test_auto_chooses_rtx_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvidia_tao_deploy.runtime.cuda.gpus", tuple)
    assert choose_runtime("auto").name == "tensorrt_rtx"
