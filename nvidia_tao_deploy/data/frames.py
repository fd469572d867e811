"""Sequences of multi-camera frames: a manifest, and per frame an NPZ of prepared tensors or the cameras' images."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.numpy_file import read_npz
from nvidia_tao_deploy.data.sample import Listed, Sample
from nvidia_tao_deploy.errors import DataError

FIELDS = {"img", "projection_mat", "image_wh"}
POSE = "T_global"
RIGID = 1e-4
LAST_ROW = 1e-5


class FrameList(Listed):
    """The frames of a manifest, in its order.

    ``{version: 1, frames: [{scene, timestamp (s), tensors: NPZ}]}``; instead of ``tensors`` a frame may name
    ``images``, one per camera, with ``projections``, their (4, 4) matrices from space to image pixels, and the pose
    ``T_global``.
    Paths are relative to the manifest. ``meta`` holds ``index``, ``scene``, ``scene_number``, ``timestamp``,
    ``elapsed`` (seconds since the scene's first frame) and, with images, ``projections`` and ``pose``.

    Args:
        manifest: the JSON file.
        cameras: images that a frame must name.

    Raises:
        DataError: the manifest is missing or malformed, or a file that it names is missing; the frame is named.
    """

    called = "frames"

    def __init__(self, manifest: Path | str, cameras: int) -> None:
        self.path = Path(manifest)
        super().__init__((), self.path.absolute().parent)
        try:
            tree = json.loads(self.path.read_bytes())
        except OSError as error:
            what, remedy = f"cannot read the manifest: {error.strerror}", "Check inference.manifest."
            raise DataError(what, where=str(manifest), remedy=remedy) from error
        except ValueError as error:
            raise DataError(f"malformed JSON: {error}", where=str(manifest), remedy="Is the file complete?") from error
        frames = tree.get("frames") if isinstance(tree, Mapping) and tree.get("version") == 1 else None
        if not isinstance(frames, list) or not frames:
            raise DataError("not a manifest of version 1 with a list of frames", where=str(manifest))
        self._first: dict[str, tuple[int, float]] = {}  # scene -> its number, its first timestamp
        self._samples = [self._frame(index, entry, cameras) for index, entry in enumerate(frames)]

    def _frame(self, index: int, entry: Any, cameras: int) -> Sample:
        where = f"{self.path}: frame {index}"
        if not isinstance(entry, Mapping):
            raise DataError("not a block of keys", where=where)
        scene, time = entry.get("scene"), entry.get("timestamp")
        if not isinstance(scene, str) or not scene:
            raise DataError("'scene' must be a name", where=where)
        if isinstance(time, bool) or not isinstance(time, (int, float)) or not math.isfinite(time):
            raise DataError("'timestamp' must be a finite number of seconds", where=where)
        names = [entry["tensors"]] if "tensors" in entry else entry.get("images")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError("it names neither 'tensors' nor a list of 'images'", where=where)
        assert self.root is not None
        paths = tuple(self.root / name for name in names)
        for path in paths:
            if not path.is_file():
                raise DataError(f"there is no file {path}", where=where)
        number, first = self._first.setdefault(scene, (len(self._first), float(time)))
        meta = {"index": index, "scene": scene, "scene_number": number, "timestamp": float(time)}
        meta["elapsed"] = float(time) - first
        if "tensors" not in entry:
            if len(paths) != cameras:
                raise DataError(f"it names {len(paths)} images, the model has {cameras} cameras", where=where)
            meta["projections"] = _matrix(entry.get("projections"), (cameras, 4, 4), "projections", where)
            pose = _matrix(entry.get(POSE, np.eye(4)), (4, 4), POSE, where)
            meta["pose"] = rigid(pose, where)
        return Sample(index, paths, meta=meta)


def read_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    """A frame's NPZ: ``img``, ``projection_mat``, ``image_wh`` and ``T_global``, the identity if it is not there.

    Args:
        path: the file.
        shapes: of the first three.

    Raises:
        DataError: not an NPZ, missing or further arrays, wrong types or shapes, values that are not finite.
    """
    try:
        found = read_npz(path)
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read the frame: {error}", where=str(path)) from error
    if not set(found) >= FIELDS or set(found) - FIELDS - {POSE}:
        raise DataError(
            f"the frame holds {', '.join(sorted(found)) or 'nothing'}", where=str(path),
            remedy=f"It must hold {', '.join(sorted(FIELDS))} and may hold {POSE}.",
        )  # fmt: skip
    found.setdefault(POSE, np.eye(4, dtype=np.float32))
    for name, array in found.items():
        shape = shapes.get(name, (4, 4))
        if array.dtype != np.float32 or array.shape != shape:
            wanted = " x ".join(map(str, shape))
            raise DataError(f"{name} is {array.dtype} {array.shape}, not float32 {wanted}", where=str(path))
        if not np.isfinite(array).all():
            raise DataError(f"{name} holds values that are not finite", where=str(path))
    rigid(found[POSE], str(path))
    return found


def rigid(pose: NDArray[Any], where: str) -> NDArray[Any]:
    """``pose`` (4, 4), refused unless it is a rotation and a shift: DataError."""
    turn = pose[:3, :3].astype(np.float64)
    proper = np.allclose(turn.T @ turn, np.eye(3), rtol=0, atol=RIGID) and abs(np.linalg.det(turn) - 1) <= RIGID
    if not (proper and np.allclose(pose[3], [0, 0, 0, 1], rtol=0, atol=LAST_ROW)):
        raise DataError(f"{POSE} is not a rotation and a shift", where=where)
    return pose


def _matrix(value: Any, shape: tuple[int, ...], key: str, where: str) -> NDArray[np.float64]:
    try:
        found = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if found.shape != shape or not np.isfinite(found).all():
        raise DataError(f"'{key}' must hold {' x '.join(map(str, shape))} finite numbers", where=where)
    return found
