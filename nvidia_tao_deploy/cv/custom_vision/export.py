"""What a Custom Vision export says of itself: class names, channel order and value range.

An export is a zip archive or a folder with model.onnx and labels.txt. An engine built from one says the same in its
manifest, and so does the prepared ONNX beside that engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.data.folder import class_lines, read_classes
from nvidia_tao_deploy.engine.manifest import Manifest
from nvidia_tao_deploy.errors import DataError, ModelError

LABELS = "labels.txt"
# Values of the ONNX metadata (onnx/docs/MetadataProps.md), in lower case.
FORMATS = {"bgr8": "bgr", "rgb8": "rgb", "gray8": "bgr"}
RANGES = {
    "nominalrange_0_255": "byte",
    "normalized_0_1": "unit",
    "normalized_1_1": "signed",
    "nominalrange_16_235": "video",
}
# By range of the input, from grey levels: x * scale - mean.
CONSTANTS: dict[str, dict[str, Any]] = {
    "byte": {"scale": 1.0, "mean": (0.0,)},
    "unit": {"scale": 1 / 255, "mean": (0.0,)},
    "signed": {"scale": 1 / 127.5, "mean": (1.0,)},
    "video": {"scale": 219 / 255, "mean": (-16.0,)},
}


def labels_of(path: Path) -> tuple[Sequence[str], str]:
    """Class names beside the model, and the file that holds them; () where there is none.

    Raises:
        DataError: labels.txt is empty or not UTF-8.
        ModelError: the archive is broken or unsafe.
    """
    manifest = Manifest.beside(path)
    if manifest is not None:
        return tuple(manifest.labels or ()), f"the manifest of {path}"
    if path.suffix.lower() != ".zip" or not path.is_file():
        beside = path.with_name(LABELS)
        return (tuple(read_classes(beside)) if beside.is_file() else ()), str(beside)
    from nvidia_tao_deploy.graph.archive import read_beside_model

    content, source = read_beside_model(path, LABELS), f"{path}/{LABELS}"
    if content is None:
        return (), source
    try:
        return class_lines(content.decode("utf-8-sig"), source), source
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text (byte {error.start})", where=source) from error


def pixels_of(path: Path) -> dict[str, Any]:
    """Keywords of ImageTransform that the model file declares: of color, scale and mean.

    Raises:
        ModelError: the file cannot be read, or declares a format that no image transform gives.
    """
    manifest = Manifest.beside(path)
    if manifest is not None and isinstance(manifest.transform, dict):
        return {key: manifest.transform[key] for key in ("color", "scale", "mean") if key in manifest.transform}
    if path.suffix.lower() not in (".onnx", ".zip"):
        return {}
    from nvidia_tao_deploy.graph.load import load_model

    declared = {entry.key.lower(): entry.value.lower() for entry in load_model(path).metadata_props}
    found: dict[str, Any] = {}
    for key, known in (("image.bitmappixelformat", FORMATS), ("image.nominalpixelrange", RANGES)):
        if key in declared and declared[key] not in known:
            raise ModelError(f"the model declares {key} {declared[key]}", where=str(path), remedy=f"Known: {[*known]}.")
    if "image.bitmappixelformat" in declared:
        found["color"] = FORMATS[declared["image.bitmappixelformat"]].upper()
    if "image.nominalpixelrange" in declared:
        found |= CONSTANTS[RANGES[declared["image.nominalpixelrange"]]]
    return found
