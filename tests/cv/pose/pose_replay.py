"""A replay model of centerpose, scenes whose poses are known, and an independent implementation of its contract."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from cv.ocr.ocr_replay import level, write_replay
from onnx import helper, numpy_helper
from PIL import Image
from scipy.spatial.transform import Rotation

MEAN, STD = np.array([0.40789654, 0.44719302, 0.47026115]), np.array([0.28863828, 0.27408164, 0.27809835])
SIZES = [(640, 480), (480, 640), (300, 300), (1000, 250), (640, 480)]
CANDIDATES = 20
NET, GRID = 512, 128
SIGNS = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
PITCH, GROUND = Rotation.from_euler("x", 0.4), 0.9  # the camera looks down; the ground is so far below it
FLIP = np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]])


def camera(size: tuple[int, int]) -> np.ndarray:
    return np.array([[1.1 * max(size), 0, size[0] / 2 + 3], [0, 1.2 * max(size), size[1] / 2 - 5], [0, 0, 1]])


def scene_objects(number: int) -> list[dict[str, Any]]:
    """Size, rotation (matrix) and location of the objects of an image, in OpenCV's frame; they stand on the ground."""
    rng = np.random.default_rng(number)
    found = []
    for k in range(number % 3 if number < 4 else 2):  # none, one or two
        size = rng.uniform(0.15, 0.3, 3)
        upright = Rotation.from_euler("y", rng.uniform(-0.5, 0.5)) * Rotation.from_euler("x", math.pi)
        place = [(k - 0.4) * 0.5 * SIZES[number][0] / max(SIZES[number]), GROUND - size[1] / 2, 1.8 + 0.3 * k]
        found.append({"size": size, "rotation": (PITCH * upright).as_matrix(), "location": PITCH.apply(place)})
    return found


def vertices(item: dict[str, Any]) -> np.ndarray:
    half = np.array(SIGNS) * item["size"] / 2
    return np.array([item["rotation"] @ vertex + item["location"] for vertex in half])


def on_image(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return np.array([(matrix @ point)[:2] / point[2] for point in points])


def to_grid(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return (points - np.array(size) / 2) * GRID / max(size) + GRID / 2


def model_tables(absolute: bool) -> dict[str, np.ndarray]:
    """Outputs per image: the objects, a duplicate of each that soft-NMS decays, and candidates below the threshold."""
    count = len(SIZES)
    tables = {
        "bboxes": np.zeros((count, CANDIDATES, 4), np.float32),
        "scores": np.zeros((count, CANDIDATES, 1), np.float32),
        "kps": np.zeros((count, CANDIDATES, 16), np.float32),
        "clses": np.zeros((count, CANDIDATES, 1), np.float32),
        "obj_scale": np.ones((count, CANDIDATES, 3), np.float32),
        "kps_displacement_mean": np.zeros((count, CANDIDATES, 16), np.float32),
        "kps_heatmap_mean": np.full((count, CANDIDATES, 16), -10000, np.float32),
    }
    for image, size in enumerate(SIZES):
        items = scene_objects(image)
        for row, item in enumerate([*items, *items]):
            flat = to_grid(on_image(vertices(item), camera(size)), size)
            again = row >= len(items)
            tables["bboxes"][image, row] = [*flat.min(axis=0), *(flat.max(axis=0) + 2 * again)]
            tables["scores"][image, row] = 0.5 if again else 0.9 - 0.1 * row
            tables["obj_scale"][image, row] = item["size"] / (1 if absolute else item["size"][1])
            tables["kps_displacement_mean"][image, row] = flat.reshape(-1)
            tables["kps_heatmap_mean"][image, row, : 2 * row + 6] = flat.reshape(-1)[: 2 * row + 6]
        tables["scores"][image, 2 * len(items) :] = 0.3
    return tables


def write_model(path: Path, batch: int | str = "N", *, absolute: bool = False) -> Path:
    """The image is known by its grey level, read at the centre: borders are black."""
    factor = 255 / (1 / STD).mean()
    to_level = float(factor), float((MEAN / STD).mean() * factor)
    write_replay(path, [batch, 3, NET, NET], model_tables(absolute), input_name="input", to_level=to_level)
    model = onnx.load(str(path))
    for name, value in {"from": [250, 250], "to": [262, 262], "axes": [2, 3]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    first = next(node for node in model.graph.node if node.input[0] == "input")
    first.input[0] = "centre"
    model.graph.node.insert(0, helper.make_node("Slice", ["input", "from", "to", "axes"], ["centre"], name="centre"))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def projection(size: tuple[int, int], matrix: np.ndarray) -> np.ndarray:
    """OpenGL's projection for the annotations' camera frame, whose x is the image's y."""
    fx, fy, cx, cy = matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]
    return np.array([[2 * fy / size[1], 0, 1 - 2 * cy / size[1], 0], [0, 2 * fx / size[0], 1 - 2 * cx / size[0], 0],
                     [0, 0, -1, -0.1], [0, 0, -1, 0]])  # fmt: skip


def annotation(image: int, moved: bool = False) -> dict[str, Any]:
    """The true poses of an image; ``moved``: shifted, turned and stretched by known amounts."""
    size, matrix, entries = SIZES[image], camera(SIZES[image]), []
    up = FLIP @ PITCH.apply([0, -1, 0])
    for k, item in enumerate(scene_objects(image)):
        if moved:
            turn = Rotation.from_rotvec([0.05, 0.3 * (k + 1), -0.02]).as_matrix()
            stretch = np.array([1.1, 0.95, 1.0])
            item = {
                "size": item["size"] * stretch,
                "rotation": item["rotation"] @ turn,
                "location": item["location"] + [0.03, 0.01, 0.02 * k],
            }
        points = vertices(item)
        points = np.concatenate([points.mean(axis=0)[None], points])
        flat = on_image(points, matrix)
        seen = points @ FLIP.T
        entries.append(
            {
                "projected_cuboid": flat.tolist(),
                "keypoints_3d": seen.tolist(),
                "scale": item["size"].tolist(),
                "visibility": 1.0 - 0.95 * (moved and image == 4 and k == 1),
                "quaternion_xyzw": Rotation.from_matrix(FLIP @ item["rotation"]).as_quat().tolist(),
                "location": (FLIP @ item["location"]).tolist(),
            }
        )
    return {
        "camera_data": {
            "width": size[0],
            "height": size[1],
            "intrinsics": {"fx": matrix[0, 0], "fy": matrix[1, 1], "cx": matrix[0, 2], "cy": matrix[1, 2]},
            "camera_projection_matrix": projection(size, matrix).tolist(),
            "camera_view_matrix": np.eye(4).tolist(),
        },
        "AR_data": {"plane_center": (-up * GROUND).tolist(), "plane_normal": up.tolist()},
        "objects": entries,
    }


def write_images(folder: Path, *, moved: bool = False, truth: bool = True) -> list[Path]:
    """Images in two folders, one inside the other, with equal names in both."""
    paths = []
    for image, size in enumerate(SIZES):
        path = folder / ("inner.jpg" if image % 2 else "") / f"{image // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (level(image),) * 3).save(path)
        if truth:
            path.with_suffix(".json").write_text(json.dumps(annotation(image, moved)))
        paths.append(path)
    return paths


# The contract once more, one number at a time.


def plain_soft_nms(boxes: list[list[float]], scores: list[float]) -> list[tuple[int, float]]:
    left = dict(enumerate(scores))
    found = []
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        score = left.pop(best)
        found.append((best, score))
        a = boxes[best]
        for other in list(left):
            b = boxes[other]
            wide, high = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
            if wide > 0 and high > 0:
                union = sum((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)) - wide * high
                left[other] *= math.exp(-((wide * high / union) ** 2) / 0.5)
                if left[other] < 0.3:
                    del left[other]
    return found


def plain_iou(a: np.ndarray, b: np.ndarray) -> float:
    """By half-spaces: the deepest common point by linear programming, then SciPy's intersection of half-spaces."""
    from scipy.optimize import linprog
    from scipy.spatial import ConvexHull, HalfspaceIntersection

    planes = []
    for box in (a, b):
        for low, high in ((1, 5), (1, 3), (1, 2)):
            axis = box[high] - box[low]
            axis = axis / np.linalg.norm(axis)
            for sign in (-1, 1):
                planes.append([*(sign * axis), -max(sign * axis @ vertex for vertex in box[1:])])
    planes = np.array(planes)
    norms = np.linalg.norm(planes[:, :3], axis=1)
    deepest = linprog([0, 0, 0, -1], A_ub=np.column_stack([planes[:, :3], norms]), b_ub=-planes[:, 3],
                      bounds=[(None, None)] * 3 + [(None, None)])  # fmt: skip
    if deepest.x[3] <= 1e-9:
        return 0.0
    shared = ConvexHull(HalfspaceIntersection(planes, deepest.x[:3]).intersections).volume
    volumes = ConvexHull(a[1:]).volume + ConvexHull(b[1:]).volume
    return float(shared / (volumes - shared))


def plain_viewpoint(box: np.ndarray) -> tuple[float, float]:
    sides = [np.linalg.norm(box[k] - box[1]) for k in (5, 3, 2)]
    own = np.array([[0, 0, 0], *[[s * side / 2 for s, side in zip(signs, sides, strict=True)] for signs in SIGNS]])
    h_own, h_cam = np.column_stack([own, np.ones(9)]).T, np.column_stack([box, np.ones(9)]).T
    x, y, z = (h_own @ h_cam.T @ np.linalg.inv(h_cam @ h_cam.T))[:3, 3]
    return math.degrees(math.atan2(z, x)), math.degrees(math.atan2(y, math.hypot(x, z)))


def plain_turn(box: np.ndarray, angle: float) -> np.ndarray:
    axis = (box[3] - box[1]) / np.linalg.norm(box[3] - box[1])
    return Rotation.from_rotvec(axis * angle).apply(box - box[0]) + box[0]


def plain_errors(
    item: dict[str, Any], truth: dict[str, Any], tree: dict[str, Any], symmetry: int, absolute: bool
) -> Any:
    """The seven errors of one prediction (size, rotation, location in OpenCV's frame) against one object."""
    size, matrix = (tree["camera_data"][k] for k in ("width", "height")), tree["camera_data"]["intrinsics"]
    width, height = size
    points = vertices(item)
    flat = np.array(
        [[matrix["fx"] * p[0] / p[2] + matrix["cx"], matrix["fy"] * p[1] / p[2] + matrix["cy"]] for p in points]
    )
    flat = flat / [width, height]
    box = np.concatenate([points.mean(axis=0)[None], points]) @ FLIP.T
    if not absolute:
        centre, normal = (np.array(tree["AR_data"][k]) for k in ("plane_center", "plane_normal"))
        dots = sorted(float(vertex @ normal) for vertex in box[1:])
        box = box * sum(centre @ normal / dot for dot in dots[:4]) / 4
    target = np.array(truth["keypoints_3d"])
    s, g = np.array(item["size"]), np.array(truth["scale"])
    scale = sum(abs(s[k] / s[1] - g[k] / g[1]) / (g[k] / g[1]) for k in range(3))
    camera_from_object = np.eye(4)
    camera_from_object[:3, :3] = Rotation.from_quat(truth["quaternion_xyzw"]).as_matrix()
    camera_from_object[:3, 3] = truth["location"]
    project = np.array(tree["camera_data"]["camera_projection_matrix"])
    pixel, best = math.inf, (0.0, box)
    for k in range(symmetry):
        angle = 2 * math.pi * k / symmetry
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_rotvec([0, angle, 0]).as_matrix()
        whole = project @ camera_from_object @ turn @ np.linalg.inv(camera_from_object)
        distances = []
        for vertex, seen in zip(target[1:], flat, strict=True):
            x, y, _, w = whole @ [*vertex, 1]
            distances.append(math.dist(seen, [(y / w + 1) / 2, (x / w + 1) / 2]))
        pixel = min(pixel, sum(distances) / 8)
        turned = plain_turn(box, angle)
        overlap = plain_iou(turned, target)
        nearer = np.linalg.norm(turned - target, axis=1).sum() < np.linalg.norm(best[1] - target, axis=1).sum()
        if overlap > best[0] + 1e-5 or (overlap > 0 and abs(overlap - best[0]) < 1e-5 and nearer):
            best = overlap, turned
    overlap, turned = best
    (azimuth, polar), (azimuth_g, polar_g) = plain_viewpoint(turned), plain_viewpoint(target)
    azimuth_error = min(abs(azimuth - azimuth_g + 360 / symmetry * k) for k in range(-2 * symmetry, 2 * symmetry + 1))
    pairs = list(zip(turned, target, strict=True))
    return {
        "Scale": scale,
        "3D IoU": overlap,
        "2D Pixel": pixel,
        "Azimuth": azimuth_error,
        "Polar": abs(polar - polar_g),
        "ADD": sum(math.dist(p, q) for p, q in pairs) / 9 if overlap else 1.0,
        "ADDS": sum(min(math.dist(p, q) for p in turned) for q in target) / 9 if overlap else 1.0,
    }


def plain_precision(confidences: list[float], hits: list[bool], total: int) -> float:
    """VOC 2012: sentinels, monotonic precision, sum over changes of recall."""
    order = sorted(range(len(hits)), key=lambda i: (-confidences[i], i))
    recall, precision, found = [0.0], [0.0], 0
    for rank, index in enumerate(order, 1):
        found += hits[index]
        recall.append(found / total)
        precision.append(found / rank)
    recall.append(1.0)
    precision.append(0.0)
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)) if recall[i] != recall[i - 1])
