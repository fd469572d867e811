"""The manifest beside an engine, and what preflight says before loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import engine_models as models
import pytest

from nvidia_tao_deploy.engine import manifest as manifests
from nvidia_tao_deploy.engine.build import BuiltEngine
from nvidia_tao_deploy.engine.facts import read
from nvidia_tao_deploy.engine.manifest import (
    Manifest,
    engine_runtime,
    file_sha256,
    manifest_path,
    preflight,
    prepared_onnx_path,
)
from nvidia_tao_deploy.engine.profiles import propose
from nvidia_tao_deploy.errors import DataError, ModelError, RuntimeUnavailableError
from nvidia_tao_deploy.files import write_bytes
from nvidia_tao_deploy.runtime import cuda
from nvidia_tao_deploy.runtime.open import open_session

H200 = cuda.Gpu(0, "NVIDIA H200", (9, 0), 140 << 30)


def saved(tmp_path: Path, *, with_onnx: bool = True, **changed: Any) -> Path:
    """An engine with its manifest, as TensorRT 8.5.3.1 on an H200 would leave it."""
    source = models.quantized_net(tmp_path / "source.onnx")
    engine = tmp_path / "model.engine"
    prepared = prepared_onnx_path(engine)
    prepared.write_bytes(source.read_bytes())
    build = {
        "runtime": "tensorrt",
        "version": "8.5.3.1",
        "targets": ((9, 0),),
        "gpu": "NVIDIA H200",
        "seconds": 1.5,
        "strongly_typed": False,
        "flags": ("INT8", "FP16"),
        "hardware_compatibility": None,
        "notes": ("a note",),
        "warnings": (),
        "layer_precisions": {"int8": 2},
        **changed,
    }
    facts = read(source)
    built = BuiltEngine(b"ptrt" + bytes(100), facts, **build)
    write_bytes(engine, built.plan)
    Manifest.describe(
        built,
        propose(facts.inputs, 1, 2, 4),
        source_onnx=source,
        prepared_onnx=prepared,
        network="rtdetr",
        labels=["a", "b"],
        command="rtdetr gen_trt_engine -e spec.yaml",
    ).save(engine)
    if not with_onnx:
        prepared.unlink()
    return engine


def machine(monkeypatch: pytest.MonkeyPatch, gpus: tuple[cuda.Gpu, ...] = (H200,), **installed: str) -> None:
    monkeypatch.setattr(cuda, "gpus", lambda: gpus)
    monkeypatch.setattr(manifests, "installed_version", installed.get)


def test_round_trip_holds_what_was_built(tmp_path: Path) -> None:
    engine = saved(tmp_path)
    manifest = Manifest.load(engine)
    assert manifest == Manifest.load(Path(f"{engine}.json"))
    assert manifest.precision == "int8"
    assert manifest.counts == {"quantize": 4, "dequantize": 4, "quantized_layers": 2, "weighted_layers": 2}
    assert manifest.inputs == [{"name": "x", "shape": [None, 3, 32, 32], "dtype": "float32"}]
    assert manifest.profiles["x"]["max"] == [4, 3, 32, 32]
    assert manifest.source_sha256 == file_sha256(tmp_path / "source.onnx")
    assert manifest.prepared_onnx == "model.engine.onnx"
    assert manifest.engine_sha256 == file_sha256(engine)
    assert manifest.layer_precisions == {"int8": 2}
    assert manifest.created.endswith("+00:00")


def test_keys_of_later_formats_are_ignored(tmp_path: Path) -> None:
    engine = saved(tmp_path)
    path = Path(f"{engine}.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 9, "novelty": 1}))
    assert Manifest.load(engine).format == 9


@pytest.mark.parametrize("text", ["{", "[]", '{"runtime": "tensorrt"}'])
def test_what_is_no_manifest_is_said(tmp_path: Path, text: str) -> None:
    engine = saved(tmp_path)
    Path(f"{engine}.json").write_text(text)
    with pytest.raises(ModelError, match="manifest"):
        Manifest.load(engine)


def test_prepared_onnx_never_is_the_users_model(tmp_path: Path) -> None:
    assert prepared_onnx_path(tmp_path / "m.engine") == tmp_path / "m.engine.onnx"


def test_preflight_passes_where_it_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, tensorrt="8.5.3.1")
    preflight(saved(tmp_path))


def test_no_gpu_names_the_onnx_and_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=())
    with pytest.raises(RuntimeUnavailableError) as caught:
        preflight(saved(tmp_path))
    text = str(caught.value)
    assert "a TensorRT 8.5.3.1 engine of rtdetr in" in text
    assert "this machine has no NVIDIA GPU" in text
    assert str(tmp_path / "model.engine.onnx") in text
    assert "gen_trt_engine" not in text  # what is built here could not run here either
    with pytest.raises(RuntimeUnavailableError) as caught:
        preflight(saved(tmp_path, with_onnx=False))
    assert "ONNX Runtime" not in str(caught.value)


@pytest.mark.parametrize(
    ("built", "installed", "message"),
    [
        (
            {},
            {"tensorrt": "10.16.1"},
            r"a TensorRT 8.5.3.1 engine .*TensorRT 10.16.1 is installed.*\n.*\n.*rtdetr gen_trt_engine -e spec.yaml",
        ),
        ({}, {}, "TensorRT is not installed"),
        ({"runtime": "tensorrt_rtx", "version": "1.7.1.116"}, {"tensorrt": "8.5.3.1"}, "TensorRT-RTX is not installed"),
        (
            {"targets": ((8, 6), (8, 9))},
            {"tensorrt": "8.5.3.1"},
            r"capability 8.6, 8.9, .* GPU 0 .NVIDIA H200. has .*9.0",
        ),
        ({"version": "8.6.1", "flags": ("VERSION_COMPATIBLE",)}, {"tensorrt": "11.2.1"}, "11.2.1 is installed"),
        ({"version": "10.3.0", "flags": ("VERSION_COMPATIBLE",)}, {"tensorrt": "10.0.1"}, "10.0.1 is installed"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: dict[str, Any], installed: dict[str, str], message: str
) -> None:
    machine(monkeypatch, **installed)
    with pytest.raises(RuntimeUnavailableError, match=message):
        preflight(saved(tmp_path, **built))


@pytest.mark.parametrize(
    ("built", "installed"),
    [
        ({"version": "8.6.1", "flags": ("VERSION_COMPATIBLE",)}, "10.16.1"),
        ({"version": "10.3.0", "flags": ("VERSION_COMPATIBLE",)}, "11.2.1"),
        ({"targets": ((8, 0),), "hardware_compatibility": "ampere_plus"}, "8.5.3.1"),
    ],
)
def test_portable_plans_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: dict[str, Any], installed: str
) -> None:
    machine(monkeypatch, tensorrt=installed)
    preflight(saved(tmp_path, **built))


def test_missing_gpu_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, tensorrt="8.5.3.1")
    with pytest.raises(RuntimeUnavailableError, match="no GPU 3"):
        preflight(saved(tmp_path), 3)


def test_files_that_are_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, tensorrt="8.5.3.1")
    engine = saved(tmp_path)
    engine.write_bytes(engine.read_bytes()[:50])
    with pytest.raises(ModelError, match="has 50 bytes, its manifest says 104"):
        preflight(engine)
    with pytest.raises(ModelError, match="no engine"):
        preflight(tmp_path / "none.engine")
    with pytest.raises(ModelError, match="ONNX file"):
        preflight(tmp_path / "source.onnx")
    (tmp_path / "empty.engine").touch()
    with pytest.raises(ModelError, match="empty"):
        preflight(tmp_path / "empty.engine")


def test_an_onnx_file_named_engine_is_no_matter_of_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=())
    (tmp_path / "model.engine").write_bytes(b"\x08\x08\x12\x07pytorch")
    with pytest.raises(ModelError, match="no TensorRT engine"):
        preflight(tmp_path / "model.engine")
    (tmp_path / "model.engine").write_bytes(b"ptrt" + bytes(60))
    with pytest.raises(RuntimeUnavailableError, match=r"a TensorRT engine without a manifest.*no NVIDIA GPU"):
        preflight(tmp_path / "model.engine")


def test_a_bare_plan_is_told_apart_by_its_first_bytes(tmp_path: Path) -> None:
    for magic, runtime in ((b"vtrt", "tensorrt_rtx"), (b"ptrt", "tensorrt")):
        plan = tmp_path / f"{runtime}.plan"
        plan.write_bytes(magic + bytes(60))
        assert engine_runtime(plan) == runtime


@pytest.mark.parametrize("name", ["model.trt.int8", "model.INT8.engine", "engine", "model.bin"])
def test_engines_of_any_name_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The established notebooks name them model.trt.int8."""
    machine(monkeypatch, gpus=())
    engine = saved(tmp_path).rename(tmp_path / name)
    engine.write_bytes(b"ptrt" + engine.read_bytes()[4:])
    assert Manifest.beside(engine) is None
    manifest_path(tmp_path / "model.engine").rename(manifest_path(engine))
    found = Manifest.beside(engine)
    assert found is not None
    assert found.network == "rtdetr"
    with pytest.raises(RuntimeUnavailableError, match=r"a TensorRT 8.5.3.1 engine of rtdetr"):
        open_session(engine)


def test_disk_full_leaves_no_engine(tmp_path: Path) -> None:
    """A file size limit stands for a full disk: the write fails in the middle and nothing remains."""
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(DataError, match="cannot write"):
            write_bytes(tmp_path / "model.engine", bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
