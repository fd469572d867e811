"""PFM files: float32 maps, bottom row first on disk."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.files import write_bytes

_HEADER = re.compile(rb"(P[Ff])\s+(\d+)\s+(\d+)\s+([-+.\deE]+)[ \t\r]*\n")


def read_pfm(path: Path | str) -> NDArray[np.float32]:
    """The map, top row first; the scale's sign tells the byte order, its size is ignored.

    Returns:
        (H, W) float32 for "Pf", (H, W, 3) for "PF".

    Raises:
        DataError: the file is missing, no PFM file, or shorter than its header says.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the map: {error.strerror or error}", where=str(path)) from error
    header = _HEADER.match(data)
    try:
        scale = float(header[4]) if header else 0.0
    except ValueError:
        scale = 0.0
    if not header or not scale:
        raise DataError("not a PFM file", where=str(path), remedy="It starts with Pf or PF, width, height and scale.")
    width, height, channels = int(header[2]), int(header[3]), 3 if header[1] == b"PF" else 1
    body, wanted = data[header.end() :], width * height * channels
    if len(body) < 4 * wanted or not wanted:
        raise DataError(
            f"the PFM file is cut off: its header promises {width} x {height} x {channels} floats, "
            f"{len(body)} bytes follow",
            where=str(path),
        )
    values = np.frombuffer(body, "<f4" if scale < 0 else ">f4", wanted)
    shape = (height, width) if channels == 1 else (height, width, 3)
    return np.ascontiguousarray(values.reshape(shape)[::-1], np.float32)


def write_pfm(path: Path, values: NDArray[np.floating]) -> None:
    """Write a map (H, W) as little-endian "Pf" with scale -1, as a whole."""
    height, width = values.shape
    body = np.ascontiguousarray(values[::-1], "<f4").tobytes()
    write_bytes(path, f"Pf\n{width} {height}\n-1.0\n".encode() + body)
