"""KITTI label lines of detections."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nvidia_tao_deploy.files import write_text


def kitti_line(name: str, box_xyxy: Iterable[float], score: float) -> str:
    """One label line of 16 fields, without its end.

    Coordinates and score have 3 decimals; fields a 2-D detector does not know are zero. A name with blanks is
    written as it is.
    """
    x1, y1, x2, y2 = box_xyxy
    return f"{name} 0.00 0 0.00 {x1:.3f} {y1:.3f} {x2:.3f} {y2:.3f} 0.00 0.00 0.00 0.00 0.00 0.00 0.00 {score:.3f}"


def write_kitti_labels(path: Path, lines: Iterable[str]) -> None:
    """Write the lines of one image, each ended by a newline; no line leaves an empty file."""
    write_text(path, "".join(f"{line}\n" for line in lines))
