"""The JSON beside an engine: what it was built from, for what, and whether it fits this machine.

The engine file itself stays a plain plan; everything else is here, in ``<engine>.json``.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvidia_tao_deploy.engine.backend import INSTALL, TITLES, load, version_tuple
from nvidia_tao_deploy.engine.profiles import Profile
from nvidia_tao_deploy.errors import ModelError, ModelFileError, RuntimeUnavailableError
from nvidia_tao_deploy.files import file_sha256, write_json
from nvidia_tao_deploy.runtime import cuda
from nvidia_tao_deploy.runtime.open import is_engine
from nvidia_tao_deploy.runtime.session import TensorInfo

if TYPE_CHECKING:
    from nvidia_tao_deploy.engine.build import BuiltEngine

FORMAT = 1
_RTX_MAGIC = b"vtrt"


@dataclass(frozen=True)
class Manifest:
    """Everything known about one engine. Shapes hold null for dynamic axes; times are UTC in ISO 8601;
    compute capabilities are [major, minor]; sha256 in hex. ``command`` is the line that builds it again."""

    runtime: str
    runtime_version: str
    precision: str
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    profiles: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    targets: list[list[int]] = field(default_factory=list)
    gpu: str | None = None
    operating_system: str = ""
    driver: str | None = None
    engine_sha256: str = ""
    engine_bytes: int = 0
    source_onnx: str | None = None
    source_sha256: str | None = None
    prepared_onnx: str | None = None
    prepared_sha256: str | None = None
    calibration: dict[str, Any] | None = None
    transform: Any = None
    labels: list[str] | None = None
    classes: int | None = None
    spec: dict[str, Any] | None = None
    parity: dict[str, Any] | None = None
    layer_precisions: dict[str, int] | None = None
    verified_precision: dict[str, Any] | None = None
    build_options: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    build_seconds: float | None = None
    network: str | None = None
    command: str | None = None
    created: str = ""
    format: int = FORMAT

    def save(self, engine: Path) -> Path:
        """Write the manifest of ``engine``; the path written."""
        path = manifest_path(engine)
        write_json(path, asdict(self))
        return path

    @classmethod
    def beside(cls, model: Path) -> Manifest | None:
        """The manifest of an engine or of the prepared ONNX beside one; None where there is none.

        Raises:
            ModelError: it is not a manifest.
        """
        engine = model.with_suffix("") if model.suffix.lower() == ".onnx" else model
        known = manifest_path(engine).is_file() and is_engine(engine)
        return cls.load(engine) if known else None

    @classmethod
    def load(cls, engine: Path) -> Manifest:
        """The manifest of ``engine`` (or of the manifest file itself). Keys of later formats are ignored.

        Raises:
            ModelError: there is none, or it is not a manifest.
        """
        path = Path(engine) if str(engine).endswith(".json") else manifest_path(engine)
        try:
            values = json.loads(path.read_text())
        except FileNotFoundError:
            raise ModelError(f"{engine} has no manifest {path.name} beside it", remedy=_REBUILD) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ModelError(f"the manifest cannot be read: {error}", where=str(path), remedy=_REBUILD) from error
        known = {entry.name for entry in fields(cls)}
        if not isinstance(values, dict) or not {"runtime", "runtime_version", "precision"} <= values.keys():
            raise ModelError("this is not an engine's manifest", where=str(path), remedy=_REBUILD)
        return cls(**{name: value for name, value in values.items() if name in known})

    @classmethod
    def describe(
        cls,
        built: BuiltEngine,
        profiles: Mapping[str, Profile],
        *,
        source_onnx: Path | None = None,
        prepared_onnx: Path | None = None,
        **more: Any,
    ) -> Manifest:
        """The manifest of a build; ``more`` are further fields by name (calibration, transform, labels, spec ...)."""
        facts = built.facts
        return cls(
            runtime=built.runtime,
            runtime_version=built.version,
            precision=more.pop("precision", facts.precision),
            inputs=[_tensor(item) for item in facts.inputs],
            outputs=[_tensor(item) for item in facts.outputs],
            profiles={name: {key: list(value) for key, value in p._asdict().items()} for name, p in profiles.items()},
            counts={
                "quantize": facts.quantize_nodes,
                "dequantize": facts.dequantize_nodes,
                "quantized_layers": facts.quantized_layers,
                "weighted_layers": facts.weighted_layers,
            },
            targets=[list(target) for target in built.targets],
            gpu=built.gpu,
            operating_system=f"{platform.system()} {platform.machine()}",
            driver=cuda.driver_version(),
            engine_sha256=hashlib.sha256(built.plan).hexdigest(),
            engine_bytes=len(built.plan),
            source_onnx=str(source_onnx) if source_onnx else None,
            source_sha256=file_sha256(source_onnx) if source_onnx else None,
            prepared_onnx=prepared_onnx.name if prepared_onnx else None,
            prepared_sha256=file_sha256(prepared_onnx) if prepared_onnx else None,
            build_options={
                "strongly_typed": built.strongly_typed,
                "flags": list(built.flags),
                "hardware_compatibility": built.hardware_compatibility,
            },
            notes=[*built.notes, *built.warnings[:20]],
            layer_precisions=dict(built.layer_precisions) if built.layer_precisions else None,
            build_seconds=built.seconds,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **more,
        )


_REBUILD = "Build the engine again with gen_trt_engine."


def _tensor(info: TensorInfo) -> dict[str, Any]:
    return {"name": info.name, "shape": list(info.shape), "dtype": info.dtype.name}


def manifest_path(engine: Path) -> Path:
    """``model.engine`` -> ``model.engine.json``."""
    return Path(f"{engine}.json")


def prepared_onnx_path(engine: Path) -> Path:
    """``model.engine`` -> ``model.engine.onnx``: the graph the engine was built from, for ONNX Runtime.

    Not ``model.onnx``: the user's own file often has that name, and it must never be overwritten.
    """
    return Path(f"{engine}.onnx")


def engine_runtime(engine: Path) -> str:
    """Which library reads this engine: from its manifest, else from the first bytes of the plan.

    Raises:
        ModelError: there is no such file, it is empty, or it is an ONNX file.
    """
    if not engine.is_file():
        raise ModelFileError(f"there is no engine {engine}", remedy="Check the path, or build it with gen_trt_engine.")
    if engine.suffix.lower() == ".onnx":
        raise ModelError(f"{engine} is an ONNX file, not an engine", remedy="Run it with ONNX Runtime, or build it.")
    with engine.open("rb") as file:
        magic = file.read(4)
    if len(magic) < 4:
        raise ModelError(f"the engine {engine} is empty", remedy=_REBUILD)
    if manifest_path(engine).is_file():
        return Manifest.load(engine).runtime
    return "tensorrt_rtx" if magic == _RTX_MAGIC else "tensorrt"


def preflight(engine: Path, device: int = 0) -> None:
    """Check before loading that ``engine`` can run here; without a manifest only what the file itself shows.

    Raises:
        ModelError: the file is missing, empty, not an engine, or not the one its manifest describes.
        RuntimeUnavailableError: no GPU, another GPU, library, version or system. One message: everything that
            does not fit, the prepared ONNX that can be used instead, and the command that builds it for here.
    """
    runtime = engine_runtime(engine)
    manifest = Manifest.beside(engine)
    if manifest is not None and manifest.engine_bytes and engine.stat().st_size != manifest.engine_bytes:
        what = f"{engine} has {engine.stat().st_size} bytes, its manifest says {manifest.engine_bytes}"
        raise ModelError(what, remedy="It was truncated or replaced: copy both again, or build it again.")
    problems = _machine_problems(runtime, manifest, device)
    if not problems:
        return
    with engine.open("rb") as file:
        head = file.read(4)
    if head[1:] != b"trt":
        what = f"this is no TensorRT engine: it begins with {head!r}"
        raise ModelError(what, where=str(engine), remedy="Give an engine, or an ONNX file that is named *.onnx.")
    what = f"this is {_described(runtime, manifest)}, and it cannot run here: {'; '.join(problems)}"
    raise RuntimeUnavailableError(what, where=str(engine), remedy=_ways_out(engine, manifest))


def _described(runtime: str, manifest: Manifest | None) -> str:
    """E.g. "a TensorRT 8.5.3.1 engine of rtdetr in fp16 for compute capability 8.6"."""
    if manifest is None:
        return f"a {TITLES[runtime]} engine without a manifest"
    of = f" of {manifest.network}" if manifest.network else ""
    targets = ", ".join(f"{major}.{minor}" for major, minor in manifest.targets)
    built = f"a {TITLES[runtime]} {manifest.runtime_version} engine{of} in {manifest.precision}"
    return f"{built} for compute capability {targets}" if targets else built


def _machine_problems(runtime: str, manifest: Manifest | None, device: int) -> list[str]:
    here, title = f"{platform.system()} {platform.machine()}", TITLES[runtime]
    problems = []
    if manifest is not None and manifest.operating_system not in ("", here) and runtime == "tensorrt":
        problems.append(f"it was built on {manifest.operating_system}, this is {here}")
    if not cuda.gpu_available():
        return [*problems, "this machine has no NVIDIA GPU, or no driver for it"]
    name, capability = cuda.gpu_name(device), cuda.compute_capability(device)
    if name is None:
        return [*problems, f"this machine has no GPU {device}, it has {len(cuda.gpus())}"]
    installed = installed_version(runtime)
    if installed is None:
        problems.append(f"{title} is not installed ({INSTALL[runtime]})")
    elif manifest is not None and not _reads(version_tuple(installed), manifest):
        problems.append(f"{title} {installed} is installed, which does not read it")
    if manifest is not None and manifest.targets and capability is not None:
        ampere_plus = manifest.build_options.get("hardware_compatibility") == "ampere_plus" and capability >= (8, 0)
        if list(capability) not in manifest.targets and not ampere_plus:
            problems.append(f"GPU {device} ({name}) has compute capability {capability[0]}.{capability[1]}")
    return problems


def _reads(now: tuple[int, ...], manifest: Manifest) -> bool:
    """Whether that version of its library reads the engine."""
    built = version_tuple(manifest.runtime_version)
    portable = "VERSION_COMPATIBLE" in manifest.build_options.get("flags", [])
    # A version compatible plan loads on its own and the next major release, never on an older one.
    return built == now or (portable and built <= now and _generation(now) - _generation(built) in (0, 1))


def _generation(version: tuple[int, ...]) -> int:
    return {8: 0, 9: 1, 10: 1, 11: 2}.get(version[0], version[0] - 9)


def installed_version(runtime: str) -> str | None:
    """The version of the installed ``tensorrt`` or ``tensorrt_rtx``, None if it cannot be imported."""
    try:
        return load(runtime).version
    except RuntimeUnavailableError:
        return None


def _ways_out(engine: Path, manifest: Manifest | None) -> str:
    way = "Run it where it was built."
    if cuda.gpu_available():
        way = "Run it where it was built, or build it again here with gen_trt_engine."
        if manifest is not None:
            way = f"Build it for this machine: {manifest.command or 'gen_trt_engine with the spec it was built from'}"
    onnx = engine.parent / manifest.prepared_onnx if manifest and manifest.prepared_onnx else prepared_onnx_path(engine)
    return f"Use the same graph with ONNX Runtime: {onnx}.\n  {way}" if onnx.is_file() else way
