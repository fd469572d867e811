"""Files of pose inference: pictures with cuboids, and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.image import decode_upright
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.files import plain, write_text
from nvidia_tao_deploy.predictions.cuboids import EDGES, Cuboids, Floats, project
from nvidia_tao_deploy.predictions.detection_writer import save_picture
from nvidia_tao_deploy.predictions.output_paths import OutputPaths

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
AXES = {5: RED, 3: GREEN, 2: BLUE}  # the point that lies along x, y, z from point 1
FAR = 1 << 20  # pixels; OpenCV's coordinates are 32-bit


class CuboidWriter:
    """Writes ``<name>``, a picture, and ``<stem>.json`` for each sample, below ``out_dir`` in the dataset's folders.

    Args:
        pictures: whether to write pictures.
        labels: whether to write JSON.
        opengl: poses and points in the JSON are in the OpenGL camera frame instead of OpenCV's.
        axis_size: length of the drawn axes, in the unit of locations.
    """

    def __init__(
        self, out_dir: Path, root: Path | None, *, pictures: bool, labels: bool, opengl: bool, axis_size: float
    ) -> None:
        self._folder, self._paths = Path(out_dir), OutputPaths(root)
        self._pictures, self._labels, self._opengl, self._axis_size = pictures, labels, opengl, axis_size

    def write(self, sample: Sample, prediction: Cuboids) -> None:
        """Write this sample's files."""
        if self._labels:
            entries = {"image_name": sample.path.name, "objects": objects(prediction, opengl=self._opengl)}
            text = json.dumps(plain(entries), indent=4, sort_keys=True)
            write_text(self._folder / self._paths(sample.path, ".json"), f"{text}\n")
        if self._pictures:
            from PIL import Image

            picture = draw_cuboids(decode_upright(sample.path), prediction, self._axis_size)
            save_picture(Image.fromarray(picture), self._folder / self._paths(sample.path, ""))

    def close(self) -> list[Path]:
        """The folder written to."""
        return [self._folder]


def objects(prediction: Cuboids, *, opengl: bool) -> list[dict[str, object]]:
    """One entry per object."""
    points = prediction.points(opengl=opengl)
    columns = {
        "location": points[:, 0],
        "quaternion_xyzw": prediction.quaternions(opengl=opengl),
        "projected_keypoints_2d": prediction.projected(),
        "keypoints_3d": points,
        "relative_scale": prediction.sizes,
        "keypoints_2d": prediction.keypoints,
    }
    return [
        {"id": f"object_{k}", **{key: column[k] for key, column in columns.items()}} for k in range(len(prediction))
    ]


def draw_cuboids(pixels: NDArray[Any], found: Cuboids, axis_size: float) -> NDArray[Any]:
    """The image (H, W, 3) with each object's edges, numbered points, axes from its centre, and size at its box."""
    import cv2

    picture = np.ascontiguousarray(pixels)
    corners = np.nan_to_num(found.boxes_xyxy[:, :2])
    for flat, points, size, corner in zip(found.projected(), found.points(), found.sizes, corners, strict=True):
        _tag(picture, "/".join(f"{side:.3f}" for side in size), corner)
        spots = _whole(flat)
        for first, second in EDGES + 1:
            cv2.line(picture, spots[first], spots[second], RED, 2)
        centre = points[0]
        for point, color in AXES.items():
            side = points[point] - points[1]
            tip = centre + axis_size * side / (np.linalg.norm(side) or 1)
            if centre[2] > 0 and tip[2] > 0:
                ends = _whole(project(np.stack([centre, tip]), found.camera))
                cv2.line(picture, ends[0], ends[1], color, 5)
        for number, spot in enumerate(spots):
            cv2.putText(picture, str(number), spot, cv2.FONT_HERSHEY_SIMPLEX, 1, GREEN, 2)
    return picture


def _whole(flat: Floats) -> list[tuple[int, int]]:
    x, y = np.rint(np.clip(np.nan_to_num(flat), -FAR, FAR)).astype(int).T.tolist()
    return list(zip(x, y, strict=True))


def _tag(picture: NDArray[Any], text: str, corner: Floats) -> None:
    """White text on black that ends at the top left corner of a box, moved into the picture."""
    import cv2

    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    left = int(np.clip(corner[0], 0, max(picture.shape[1] - width, 0)))
    bottom = int(np.clip(corner[1], height + base, picture.shape[0] - 1))
    cv2.rectangle(picture, (left, bottom - height - base), (left + width, bottom), BLACK, cv2.FILLED)
    cv2.putText(picture, text, (left, bottom - base // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.5, WHITE, 1)
