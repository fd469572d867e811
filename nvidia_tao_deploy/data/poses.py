"""Images with the pose of the objects in them: a JSON file beside each image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.folder import relative_id
from nvidia_tao_deploy.data.image import list_images
from nvidia_tao_deploy.data.sample import Listed, Sample
from nvidia_tao_deploy.data.text import counted, some
from nvidia_tao_deploy.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PoseTruth:
    """The objects of one image; points are the centre, then the 8 vertices.

    Attributes:
        size: (width, height) of the image, pixels.
        projection: (4, 4) OpenGL projection of the camera.
        plane: (2, 3) a point of the ground and its normal; None: not needed.
        projected: (N, 9, 2) source pixels.
        points: (N, 9, 3) in the OpenGL camera frame.
        sizes: (N, 3).
        visibility: (N,) in 0..1.
    """

    size: tuple[int, int]
    projection: Floats
    plane: Floats | None
    projected: Floats
    points: Floats
    sizes: Floats
    visibility: Floats


class PoseFolder(Listed):
    """The images below a folder that have a ``<stem>.json`` beside them; the others are counted in ``issues``.

    ``meta`` holds the image's ``size`` and ``camera``, (3, 3) intrinsics.

    Args:
        root: the folder.
        planes: whether the ground plane is needed.

    Raises:
        DataError: no image, no annotation, or one that is malformed (file and key are named).
    """

    def __init__(self, root: Path | str, *, planes: bool = True) -> None:
        paths = list_images(root)
        super().__init__((), Path(root).absolute())
        bare = {path for path in paths if not path.with_suffix(".json").is_file()}
        without = [relative_id(path, self.root) for path in paths if path in bare]
        if len(bare) == len(paths):
            raise DataError("no image has a .json file beside it", where=str(root))
        told = f"{counted(len(without), 'images without a .json file are left out')}: {some(without)}"
        self.issues = [told] if without else []
        self._samples = [self._read(path, planes) for path in paths if path not in bare]

    def _read(self, image: Path, planes: bool) -> Sample:
        path = image.with_suffix(".json")
        try:
            tree = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read the annotation: {error}", where=str(path)) from error
        camera = _entry(tree, "camera_data", path)
        objects = _entry(tree, "objects", path)
        if not isinstance(objects, list):
            raise DataError("'objects' is not a list", where=str(path))
        size = int(_numbers(camera, "width", (), path)), int(_numbers(camera, "height", (), path))
        intrinsics = _entry(camera, "intrinsics", path)
        fx, fy, cx, cy = (float(_numbers(intrinsics, key, (), path)) for key in ("fx", "fy", "cx", "cy"))

        def column(key: str, shape: tuple[int, ...]) -> Floats:
            return np.array([_numbers(item, key, shape, path) for item in objects]).reshape(-1, *shape)

        sizes = column("scale", (3,))
        sides = {f"scale of object {number}": side for number, side in enumerate(sizes.min(axis=1).tolist())}
        for key, value in {"width": size[0], "height": size[1], "fx": fx, "fy": fy, **sides}.items():
            if not value > 0:
                raise DataError(f"'{key}' must be positive, not {value}", where=str(path))
        plane = None
        if planes:
            ground = _entry(tree, "AR_data", path)
            plane = np.stack([_numbers(ground, key, (3,), path) for key in ("plane_center", "plane_normal")])
            if not plane[0] @ plane[1]:
                raise DataError("the ground of 'AR_data' has no normal, or goes through the camera", where=str(path))
        truth = PoseTruth(
            size,
            _numbers(camera, "camera_projection_matrix", (4, 4), path),
            plane,
            column("projected_cuboid", (9, 2)),
            column("keypoints_3d", (9, 3)),
            sizes,
            column("visibility", ()),
        )
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        return Sample(relative_id(image, self.root), (image,), truth, {"size": size, "camera": matrix})


def _entry(tree: Any, key: str, path: Path) -> Any:
    if not isinstance(tree, Mapping) or key not in tree:
        raise DataError(f"the annotation has no '{key}'", where=str(path))
    return tree[key]


def _numbers(tree: Any, key: str, shape: tuple[int, ...], path: Path) -> Floats:
    try:
        found = np.array(_entry(tree, key, path), dtype=np.float64)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if found.shape != shape or not np.isfinite(found).all():
        wanted = " x ".join(map(str, shape)) or "one"
        raise DataError(f"'{key}' must hold {wanted} finite number{'s' if shape else ''}", where=str(path))
    return found
