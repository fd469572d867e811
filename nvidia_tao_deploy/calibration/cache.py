"""TensorRT calibration caches (text): reading, writing, and turning one into Q/DQ scales.

Format: first line ``TRT-<version>-<algorithm>``, then ``<tensor>: <hex>`` per tensor, hex being the eight digits of
the IEEE-754 float32 scale, most significant byte first. Dynamic range = +-127 * scale. Weights are not in a cache.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto

from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.files import write_text
from nvidia_tao_deploy.graph.tensors import COMMUTING_OPS

ENTROPY = "EntropyCalibration2"
ALGORITHMS = (ENTROPY, "MinMaxCalibration", "EntropyCalibration", "LegacyCalibration")
# These two calibrate after layer fusion, so tensors inside fused layers are missing from their caches.
AFTER_FUSION = frozenset({"EntropyCalibration", "LegacyCalibration"})
HEADER = re.compile(r"^TRT-(\d+)-(\w+)$")
INVENTED_NAMES = ("(Unnamed Layer*", "ONNXTRT_")  # layers of TensorRT's own parser: no ONNX tensor has these names
SUSPICIOUS_SCALE = 1e4
_REMEDY = "Delete it to calibrate again, or give a cache that TensorRT wrote."


@dataclass(frozen=True)
class CalibrationCache:
    """A parsed cache.

    Attributes:
        version: TensorRT (major, minor, patch), None when the number in the header is ambiguous.
        algorithm: e.g. "EntropyCalibration2".
        scales: tensor name -> scale > 0 (amax / 127).
        warnings: lines dropped or doubted, as sentences.
    """

    version: tuple[int, int, int] | None
    algorithm: str
    scales: dict[str, float]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ScaleMatch:
    """Which activations of a graph a table of scales serves.

    Attributes:
        scales: tensor of the graph -> scale.
        matched: tensors found under their own name.
        fused: (tensor, tensor whose scale it takes), reached through data movement, pooling or ReLU.
        unmatched: tensors without a scale; what they feed stays float.
        unused: names of the table that no tensor of the graph uses (TensorRT's invented names left out).
    """

    scales: dict[str, float]
    matched: list[str]
    fused: list[tuple[str, str]]
    unmatched: list[str]
    unused: list[str]

    def report(self) -> str:
        """One line for the log."""
        return (
            f"{len(self.matched)} tensors matched, {len(self.fused)} fused with an earlier one, "
            f"{len(self.unmatched)} without a scale, {len(self.unused)} entries unused"
        )


def read_cache(path: Path) -> CalibrationCache:
    """Read a calibration cache file.

    Raises:
        DataError: missing, unreadable, empty, or without a TensorRT header.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        what = f"cannot read the calibration cache: {error.strerror}"
        raise DataError(what, where=str(path), remedy="Check calibration.cal_cache_file.") from error
    return parse_cache(text, where=str(path))


def parse_cache(text: str, *, where: str | None = None) -> CalibrationCache:
    """Parse the text of a cache. Lines without a usable scale are dropped and named in ``warnings``.

    Raises:
        DataError: no header, or not a single line of the format.
    """
    lines = text.splitlines()
    header = HEADER.match(lines[0].strip()) if lines else None
    if header is None:
        problem = "not a TensorRT calibration cache: its first line is not TRT-<version>-<algorithm>"
        raise DataError(problem, where=where, remedy=_REMEDY)
    warnings: list[str] = []
    version = decode_version(int(header.group(1)))
    if version is None:
        warnings.append(f"the header {lines[0].strip()} names no TensorRT version of a known form")
    algorithm = header.group(2)
    if algorithm not in ALGORITHMS:
        warnings.append(f"unknown calibration algorithm {algorithm}")
    elif algorithm in AFTER_FUSION:
        warnings.append(f"{algorithm} calibrates after fusion: tensors inside fused layers are missing")
    scales: dict[str, float] = {}
    malformed = False
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        name, separator, digits = line.rpartition(": ")
        digits = digits.strip()
        if not separator or not re.fullmatch(r"[0-9a-fA-F]{1,8}", digits):
            warnings.append(f"line {number} is not '<tensor>: <8 hex digits>' and was dropped")
            malformed = True
            continue
        scale, warning = _usable_scale(digits)
        if warning:
            warnings.append(f"{name}: {warning}")
        if scale is not None:
            scales[name] = scale
    if malformed and not scales:
        raise DataError("not a TensorRT calibration cache: no line has its format", where=where, remedy=_REMEDY)
    return CalibrationCache(version, algorithm, scales, warnings)


def format_cache(scales: Mapping[str, float], *, version: tuple[int, int, int], algorithm: str = ENTROPY) -> str:
    """The text of a cache that TensorRT ``version`` accepts; scale = amax / 127, rounded to float32.

    Raises:
        DataError: a scale that is not positive and finite in float32, or a name with a line break.
    """
    lines = [f"TRT-{encode_version(version)}-{algorithm}"]
    for name, scale in scales.items():
        rounded = np.float32(scale)
        if not np.isfinite(rounded) or rounded <= 0:
            raise DataError(f"the scale {scale} of tensor {name!r} is not a positive number")
        if "\n" in name or "\r" in name:
            raise DataError(f"tensor name {name!r} holds a line break")
        lines.append(f"{name}: {struct.pack('>f', rounded).hex()}")
    return "\n".join(lines) + "\n"


def write_cache(
    path: Path, scales: Mapping[str, float], *, version: tuple[int, int, int], algorithm: str = ENTROPY
) -> None:
    """Write a cache file as a whole; see ``format_cache``."""
    write_text(path, format_cache(scales, version=version, algorithm=algorithm))


def encode_version(version: tuple[int, int, int]) -> int:
    """8.6.1 -> 8601 (up to 9.x: major * 1000), 10.13.3 -> 101303 (from 10.0: major * 10000)."""
    major, minor, patch = version
    return major * (10000 if major >= 10 else 1000) + minor * 100 + patch


def decode_version(number: int) -> tuple[int, int, int] | None:
    """The inverse of ``encode_version``; None for 10000 ... 99999, which mixes the two forms (11303 for 10.13.3)."""
    if number < 1000 or 10000 <= number < 100000:
        return None
    unit = 1000 if number < 10000 else 10000
    return number // unit, number % unit // 100, number % 100


def _usable_scale(digits: str) -> tuple[float | None, str | None]:
    value = float(struct.unpack(">f", bytes.fromhex(digits.zfill(8)))[0])
    if not np.isfinite(value):
        return None, f"scale {digits} is not finite and was dropped"
    if value == 0:
        return None, "scale 0: the tensor was constantly zero during calibration and stays float"
    magnitude = abs(value)
    if magnitude < np.finfo(np.float32).tiny:
        return None, f"scale {digits} is denormal and was dropped"
    if value < 0:
        return magnitude, "negative scale, its sign was ignored"
    if magnitude > SUSPICIOUS_SCALE:
        return magnitude, f"scale {magnitude:.4g} is suspiciously large (a masked tensor?)"
    return magnitude, None


def match_scales(model: ModelProto, table: Mapping[str, float], tensors: Sequence[str]) -> ScaleMatch:
    """Scales for ``tensors``, the activations that ``quantize`` will ask for, from those of the same network.

    Each is looked up by name; else the way goes back through operators that do not change the range.

    Those are pooling by maximum and data movement (the values are the same ones), Concat when every part has a
    scale (the largest serves all), and ReLU, whose input range covers its output.
    """
    producers = {name: node for node in model.graph.node for name in node.output if name}
    match = ScaleMatch({}, [], [], [], [])
    known = producers.keys() | {value.name for value in model.graph.input}
    for name in tensors:
        origins = _origins(name, table, producers)
        if not origins:
            match.unmatched.append(name)
            continue
        known.update(origins)
        match.scales[name] = max(table[origin] for origin in origins)
        if origins == [name]:
            match.matched.append(name)
        else:
            match.fused.append((name, ", ".join(origins)))
    match.unused.extend(name for name in table if name not in known and not name.startswith(INVENTED_NAMES))
    return match


def _origins(name: str, table: Mapping[str, float], producers: Mapping[str, NodeProto]) -> list[str]:
    if name in table:
        return [name]
    node = producers.get(name)
    if node is None:
        return []
    if node.op_type in COMMUTING_OPS | {"Relu"}:
        return _origins(node.input[0], table, producers)
    if node.op_type == "Concat":
        parts = [_origins(part, table, producers) for part in node.input]
        return list(dict.fromkeys(origin for part in parts for origin in part)) if all(parts) else []
    return []


def read_qat_scales(path: Path) -> dict[str, float]:
    """Scales (amax / 127) of a quantization-aware training export, ``{"tensor_scales": {"<tensor>": <amax>}}``.

    Raises:
        DataError: missing, not JSON, without "tensor_scales", or with a value that is not a positive number.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = f"cannot read the QAT scales: {getattr(error, 'strerror', None) or error}"
        raise DataError(what, where=str(path), remedy="Check cal_json_file, or calibrate (force_ptq).") from error
    table = content.get("tensor_scales") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not table:
        raise DataError('the file has no "tensor_scales" table', where=str(path), remedy="Export the QAT model again.")
    scales = {}
    for name, amax in table.items():
        if isinstance(amax, bool) or not isinstance(amax, (int, float)) or not np.isfinite(amax) or amax <= 0:
            raise DataError(f"tensor_scales[{name!r}] is {amax!r}, not a positive number", where=str(path))
        scales[str(name)] = float(amax) / 127.0
    return scales


def scales_from_qat(model: ModelProto, scales: Mapping[str, float], tensors: Sequence[str]) -> ScaleMatch:
    """Match QAT scales: by exact name, then by an only key that starts with the tensor's name up to its first "/"."""
    table = dict(scales)
    spare = [key for key in scales if key not in tensors]
    for name in tensors:
        stem = name.split("/", 1)[0]
        candidates = [key for key in spare if stem and key.startswith(stem)]
        if name not in table and len(candidates) == 1:
            table[name] = table.pop(candidates[0])
            spare.remove(candidates[0])
    return match_scales(model, table, tensors)
