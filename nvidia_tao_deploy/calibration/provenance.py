"""What a calibration was made from, kept beside its cache, so that a cache is only reused where it fits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.files import file_sha256, write_json


@dataclass(frozen=True)
class CacheKey:
    """What ranges depend on.

    Attributes:
        model: sha256 of the ONNX file.
        transform: description of the transform that fed the images.
        images: ``hash_images`` of the calibration images.
        method: calibrator and its settings, e.g. "entropy", "percentile 99.99".
        tensors: ``hash_names`` of the tensors that were calibrated. Another set alone is no mismatch: a cache with more
            tensors than needed fits.
    """

    model: str
    transform: str
    images: str
    method: str
    tensors: str = ""


def hash_names(names: Iterable[str]) -> str:
    """sha256 of a set of tensor names."""
    return hashlib.sha256("\n".join(sorted(set(names))).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """sha256 of a file, as hex.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"cannot read the file: {error.strerror}", where=str(path)) from error


def hash_images(paths: Iterable[Path]) -> str:
    """sha256 over the contents of the images in their order; names and folders do not count."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(hash_file(path)))
    return digest.hexdigest()


def key_path(cache: Path) -> Path:
    """Where the key of a cache is kept: ``<cache>.json``."""
    return Path(cache).with_name(Path(cache).name + ".json")


def write_key(cache: Path, key: CacheKey) -> None:
    """Store ``key`` beside ``cache``."""
    write_json(key_path(cache), asdict(key))


def read_key(cache: Path) -> CacheKey | None:
    """The key beside ``cache``; None when there is none, as with caches that came with a pretrained model.

    Raises:
        DataError: the file is there but is not a key.
    """
    path = key_path(cache)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return CacheKey(**{entry.name: str(content[entry.name]) for entry in fields(CacheKey)})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read what the calibration cache was made from: {error}",
            where=str(path),
            remedy="Delete it together with the cache to calibrate again.",
        ) from error


def explain_mismatch(old: CacheKey, new: CacheKey) -> str:
    """What changed between two keys, as one phrase; empty when the cache fits."""
    names = {"model": "the ONNX model", "transform": "the transform", "images": "the images", "method": "the method"}
    pairs = [(name, getattr(old, field), getattr(new, field)) for field, name in names.items()]
    return "; ".join(f"{name} changed ({_short(a)} -> {_short(b)})" for name, a, b in pairs if a != b)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:12]}..."
