"""3D IoU, viewpoint, suppression, decode and pose against plain implementations."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from cv.pose import pose_replay as replay
from scipy.spatial.transform import Rotation

from nvidia_tao_deploy.cv.centerpose.decode import candidates, decode
from nvidia_tao_deploy.cv.centerpose.transform import CameraGeometry
from nvidia_tao_deploy.data.poses import PoseTruth
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.metrics import cuboids
from nvidia_tao_deploy.metrics.poses import PoseMetric, average_precision
from nvidia_tao_deploy.predictions.cuboid_writer import draw_cuboids
from nvidia_tao_deploy.predictions.cuboids import Cuboids
from nvidia_tao_deploy.predictions.nms import soft_nms


def box(size: object, turn: object, place: object) -> np.ndarray:
    half = np.array(replay.SIGNS) * np.array(size) / 2
    points = Rotation.from_rotvec(np.array(turn, float)).apply(half) + np.array(place)
    return np.concatenate([points.mean(axis=0)[None], points])


def test_iou_of_known_boxes() -> None:
    cube = box([1, 1, 1], [0, 0, 0], [0, 0, -3])
    others = {
        1: cube,
        1 / 3: box([1, 1, 1], [0, 0, 0], [0.5, 0, -3]),
        1 / 27: box([1 / 3] * 3, [0.3, 0.2, 0.1], [0, 0, -3]),  # inside
        0: box([1, 1, 1], [0, 0, 0], [1, 0, -3]),  # face to face
        2 * (math.sqrt(2) - 1) / (2 - 2 * (math.sqrt(2) - 1)): box([1, 1, 1], [0, math.pi / 4, 0], [0, 0, -3]),
        1e-300: box([1, 1, 1], [0, 0, 0], [5, 5, 5]),
    }
    np.testing.assert_allclose(cuboids.iou_3d(np.stack(list(others.values())), cube), list(others), atol=1e-9)
    flat = box([1, 0, 1], [0, 0, 0], [0, 0, -3])
    assert cuboids.iou_3d(flat[None], cube) == 0
    assert cuboids.iou_3d(cube[None], flat) == 0
    assert cuboids.iou_3d(np.full((1, 9, 3), np.nan), cube) == 0


def test_iou_of_random_boxes_equals_the_half_spaces() -> None:
    rng = np.random.default_rng(0)
    target = box([1, 0.7, 1.4], [0.1, 0.4, -0.3], [0.2, 0, -4])
    others = [box(rng.uniform(0.3, 2, 3), rng.normal(0, 1, 3), target[0] + rng.normal(0, 0.5, 3)) for _ in range(60)]
    expected = [replay.plain_iou(other, target) for other in others]
    assert sum(value > 0 for value in expected) > 40
    np.testing.assert_allclose(cuboids.iou_3d(np.stack(others), target), expected, atol=1e-5)


def test_turns_viewpoint_and_distances() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        one, other = (box(rng.uniform(0.3, 2, 3), rng.normal(0, 1, 3), rng.normal([0, 0, -4], 0.5)) for _ in range(2))
        assert cuboids.viewpoint(one) == pytest.approx(replay.plain_viewpoint(one), abs=1e-6)
        for k, turned in enumerate(cuboids.turned(one, 3)):
            np.testing.assert_allclose(turned, replay.plain_turn(one, 2 * math.pi * k / 3), atol=1e-9)
        assert cuboids.average_distance(one, other) == pytest.approx(
            sum(math.dist(a, b) for a, b in zip(one, other, strict=True)) / 9
        )
        nearest = sum(min(math.dist(a, b) for a in one) for b in other) / 9
        assert cuboids.average_nearest_distance(one, other) == pytest.approx(nearest)


@pytest.mark.parametrize(
    ("a", "b", "symmetry", "error"),
    [(170, -170, 1, 20), (10, 350, 1, 20), (0, 180, 1, 180), (0, 179, 2, 1), (0, 89, 4, 1), (-5, 40, 4, 45)],
)
def test_azimuth_folds(a: float, b: float, symmetry: int, error: float) -> None:
    """89 of 90 degrees is 1 degree."""
    assert cuboids.azimuth_error(a, b, symmetry) == pytest.approx(error)


@pytest.mark.parametrize("symmetry", [2, 3, 12])
def test_every_symmetric_turn_is_tried(symmetry: int) -> None:
    """With both ends of a circle among N angles, 2 turns would be none."""
    one = box([1, 0.7, 1.4], [0.1, 0.4, -0.3], [0.2, 0, -4])
    turned = cuboids.turned(one, symmetry)[1]
    assert cuboids.iou_3d(cuboids.turned(turned, symmetry), one).max() == pytest.approx(1)


def test_precision_equals_voc_with_ties_and_repeated_hits() -> None:
    rng = np.random.default_rng(2)
    for count, total in ((0, 3), (1, 1), (40, 11), (30, 60)):
        confidences = np.sort(rng.integers(0, 5, count) / 4)[::-1]
        hits = rng.random((count, 21)) < np.linspace(0, 1, 21)
        expected = [replay.plain_precision(confidences.tolist(), column.tolist(), total) for column in hits.T]
        np.testing.assert_allclose(average_precision(hits, total), expected, atol=1e-12)
    assert np.isnan(average_precision(np.zeros((0, 21), bool), 0)).all()


@pytest.mark.parametrize("count", [0, 1, 2, 60])
def test_soft_nms_equals_plain_loops(count: int) -> None:
    rng = np.random.default_rng(count)
    corners = rng.integers(0, 60, (count, 2)).astype(float)
    boxes = np.concatenate([corners, corners + rng.integers(0, 60, (count, 2))], axis=1)
    scores = rng.integers(4, 11, count) / 10  # many ties
    expected = replay.plain_soft_nms(boxes.tolist(), scores.tolist())
    kept, decayed = soft_nms(boxes, scores, 0.5, 0.3, offset=1)
    assert kept.tolist() == [index for index, _ in expected]
    np.testing.assert_allclose(decayed, [score for _, score in expected])


def geometry(size: tuple[int, int]) -> CameraGeometry:
    scale = 512 / max(size)
    offset = 256 - scale * size[0] / 2, 256 - scale * size[1] / 2
    return CameraGeometry(size, (512, 512), (scale, scale), offset, camera=replay.camera(size))


def test_candidates_equal_plain_loops() -> None:
    rng = np.random.default_rng(3)
    sizes = [(640, 480), (33, 500), (512, 512), (100, 100)]
    scores = rng.uniform(0, 1, (4, 100, 1)).astype(np.float32)
    scores[3] = 0.3  # not over the threshold
    outputs = {
        "scores": scores,
        "bboxes": rng.uniform(-20, 150, (4, 100, 4)).astype(np.float32),
        "obj_scale": rng.uniform(0.1, 2, (4, 100, 3)).astype(np.float32),
        "kps_displacement_mean": rng.uniform(-20, 150, (4, 100, 16)).astype(np.float32),
        "kps_heatmap_mean": np.where(rng.random((4, 100, 16)) < 0.4, -10000, 50).astype(np.float32),
    }
    found = candidates(outputs, [geometry(size) for size in sizes], (128, 128))
    assert len(found[3].scores) == 0
    for image, size in enumerate(sizes):
        back = lambda x, axis: (float(x) - 64) * max(size) / 128 + size[axis] / 2  # noqa: B023, E731
        rows = [k for k in range(100) if scores[image, k, 0] > np.float32(0.3)]
        boxes = [[back(v, axis % 2) for axis, v in enumerate(outputs["bboxes"][image, k])] for k in rows]
        expected = replay.plain_soft_nms(boxes, [float(scores[image, k, 0]) for k in rows])
        np.testing.assert_allclose(found[image].scores, [score for _, score in expected])
        for row, (index, _) in enumerate(expected):
            np.testing.assert_allclose(found[image].boxes_xyxy[row], boxes[index])
            for vertex in range(8):
                for kind, role in enumerate(("kps_displacement_mean", "kps_heatmap_mean")):
                    x, y = outputs[role][image, rows[index], 2 * vertex : 2 * vertex + 2]
                    point = (x, y) if x == y == -10000 else (back(x, 0), back(y, 1))
                    np.testing.assert_allclose(found[image].keypoints[row, 2 * vertex + kind], point)


def outputs_of(item: dict, size: tuple[int, int], flat: np.ndarray | None = None) -> dict[str, np.ndarray]:
    flat = replay.on_image(replay.vertices(item), replay.camera(size)) if flat is None else flat
    cells = replay.to_grid(flat, size)
    return {
        "scores": np.full((1, 1, 1), 0.9, np.float32),
        "bboxes": np.array([[[*cells.min(axis=0), *cells.max(axis=0)]]]),
        "obj_scale": np.array([[item["size"]]]),
        "kps_displacement_mean": cells.reshape(1, 1, 16),
        "kps_heatmap_mean": np.full((1, 1, 16), -10000.0),
    }


def test_pose_from_few_points_and_none() -> None:
    item, size = replay.scene_objects(1)[0], (640, 480)
    flat = replay.on_image(replay.vertices(item), replay.camera(size))
    for shown in (8, 5, 4, 3):
        outputs = outputs_of(item, size)
        outputs["kps_displacement_mean"].reshape(8, 2)[shown:] = -10000
        found = decode(outputs, [geometry(size)], (128, 128))[0]
        assert len(found) == (shown >= 4)
        if shown >= 5:
            np.testing.assert_allclose(found.locations[0], item["location"], atol=0.05)
            np.testing.assert_allclose(found.projected()[0, 1 : shown + 1], flat[:shown], atol=0.5)
    outputs = outputs_of(item, size)
    outputs["kps_displacement_mean"][:] = 64.0  # all vertices at one place
    for one in decode(outputs, [geometry(size)], (128, 128)):
        assert np.isfinite(one.points()).all()
    outputs["bboxes"][0, 0, 0] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        decode(outputs, [geometry(size)], (128, 128))


def test_skew_of_the_camera_counts() -> None:
    """OpenCV's solver knows no skew."""
    item, size = replay.scene_objects(1)[0], (640, 480)
    camera = replay.camera(size)
    camera[0, 1] = 40
    flat = replay.on_image(replay.vertices(item), camera)
    placed = CameraGeometry(**{**vars(geometry(size)), "camera": camera})
    found = decode(outputs_of(item, size, flat), [placed], (128, 128))[0]
    np.testing.assert_allclose(found.locations[0], item["location"], atol=1e-3)
    np.testing.assert_allclose(found.projected()[0, 1:], flat, atol=0.05)


def test_quaternions() -> None:
    rotations = np.concatenate([np.zeros((1, 3)), np.random.default_rng(4).normal(0, 1.2, (9, 3))])
    blank = np.zeros((10, 3))
    found = Cuboids(np.zeros(10), np.zeros((10, 4)), np.zeros((10, 8, 2)), blank, rotations, blank, np.eye(3))
    np.testing.assert_array_equal(found.quaternions()[0], [0, 0, 0, 1])  # no division by a zero angle
    for opengl, frame in ((False, np.eye(3)), (True, replay.FLIP)):
        matrices = Rotation.from_quat(found.quaternions(opengl=opengl)).as_matrix()
        np.testing.assert_allclose(matrices, frame @ Rotation.from_rotvec(rotations).as_matrix(), atol=1e-9)


def test_objects_behind_and_around_the_camera_can_be_drawn() -> None:
    blank = np.zeros((64, 80, 3), np.uint8)
    camera = replay.camera((80, 64))
    for place in ([0, 0, 0.1], [0, 0, 0], [50, 0, 1e-9], [0, 0, 3]):
        found = Cuboids(np.ones(1), np.array([[-1e9, np.inf, 3, 4]]), np.zeros((1, 8, 2)), np.ones((1, 3)),
                        np.zeros((1, 3)), np.array([place], float), camera)  # fmt: skip
        draw_cuboids(blank.copy(), found, 0.5)
    none = Cuboids(*(np.zeros((0, *shape)) for shape in ((), (4,), (8, 2), (3,), (3,), (3,))), camera)
    np.testing.assert_array_equal(draw_cuboids(blank, none, 0.5), blank)


def test_no_prediction_is_no_perfect_mean() -> None:
    """Means over nothing are undefined, not 0; the objects count as missed."""
    tree = replay.annotation(1)
    item = {
        key: np.array([tree["objects"][0][key]]) for key in ("projected_cuboid", "keypoints_3d", "scale", "visibility")
    }
    truth = PoseTruth(replay.SIZES[1], np.array(tree["camera_data"]["camera_projection_matrix"]), None, *item.values())
    metric = PoseMetric(absolute=True)
    nothing = Cuboids(*(np.zeros((0, *shape)) for shape in ((), (4,), (8, 2), (3,), (3,), (3,))), np.eye(3))
    metric.update(Sample(0, (Path("a.png"),), truth), nothing)
    numbers = metric.compute()
    assert numbers["test_3DIoU"] == 0
    assert all(np.isnan(value) for key, value in numbers.items() if key != "test_3DIoU")
    assert "1 object, 0 predictions" in metric.report()


def test_predictions_of_hidden_objects_are_hits_at_the_last_threshold() -> None:
    """Kept as established: confidence 0, and the greatest error that still counts."""
    tree = replay.annotation(4, moved=True)  # the second object cannot be seen
    columns = ("projected_cuboid", "keypoints_3d", "scale", "visibility")
    fields = (np.array([one[key] for one in tree["objects"]]) for key in columns)
    truth = PoseTruth(replay.SIZES[4], np.array(tree["camera_data"]["camera_projection_matrix"]), None, *fields)
    item = replay.scene_objects(4)[1]
    flat = replay.on_image(replay.vertices(item), replay.camera(replay.SIZES[4]))
    found = decode(outputs_of(item, replay.SIZES[4], flat), [geometry(replay.SIZES[4])], (128, 128))[0]
    metric = PoseMetric(absolute=True)
    metric.update(Sample(0, (Path("a.png"),), truth), found)
    curves = {name: precisions for name, (_, precisions) in metric.curves().items()}
    for name, last in {"2D Pixel": -1, "Azimuth": -1, "Polar": -1, "ADD": -1, "ADDS": -1, "3D IoU": 0}.items():
        assert np.flatnonzero(curves[name]).tolist() == [range(21)[last]], name
    assert not curves["Scale"].any()


def test_objects_behind_the_camera_are_dropped() -> None:
    item, size = replay.scene_objects(1)[0], (640, 480)
    behind = {**item, "location": -np.array(item["location"])}
    flat = replay.on_image(replay.vertices(behind), replay.camera(size))  # their rays pass through the image, too
    assert len(decode(outputs_of(behind, size, flat), [geometry(size)], (128, 128))[0]) == 0


def test_six_points_are_enough_for_the_iterative_solver() -> None:
    """With noise the solvers differ; which one ran shows."""
    item, size = replay.scene_objects(1)[0], (640, 480)
    rng = np.random.default_rng(0)
    for shown, method in ((6, cv2.SOLVEPNP_ITERATIVE), (5, cv2.SOLVEPNP_EPNP)):
        outputs = outputs_of(item, size)
        outputs["kps_displacement_mean"] += rng.normal(0, 0.5, (1, 1, 16))
        seen = np.float64(outputs["kps_displacement_mean"].reshape(8, 2)[:shown] - 64) * 5 + (320, 240)
        outputs["kps_displacement_mean"].reshape(8, 2)[shown:] = -10000
        found = decode(outputs, [geometry(size)], (128, 128))[0]
        vertices = np.array(replay.SIGNS)[:shown] * item["size"] / 2
        _, _, location = cv2.solvePnP(vertices, seen, replay.camera(size), None, flags=method)
        np.testing.assert_allclose(found.locations[0], location[:, 0], atol=1e-6)


@pytest.mark.parametrize("visible", [0.11, 1.0])
@pytest.mark.parametrize(("centre", "counts"), [((0.5, 0.5), 1), ((-0.1, 0.5), 0), ((0.5, 1.1), 0), ((0, 0.5), 0)])
def test_an_image_whose_only_object_has_its_centre_outside_counts_nowhere(
    centre: tuple[float, float], counts: int, visible: float
) -> None:
    tree = replay.annotation(1)
    item = {
        key: np.array([tree["objects"][0][key]]) for key in ("projected_cuboid", "keypoints_3d", "scale", "visibility")
    }
    item["projected_cuboid"][0, 0] = np.array(centre) * replay.SIZES[1]
    item["visibility"][0] = visible
    truth = PoseTruth(replay.SIZES[1], np.array(tree["camera_data"]["camera_projection_matrix"]), None, *item.values())
    metric = PoseMetric(absolute=True)
    nothing = Cuboids(*(np.zeros((0, *shape)) for shape in ((), (4,), (8, 2), (3,), (3,), (3,))), np.eye(3))
    metric.update(Sample(0, (Path("a.png"),), truth), nothing)
    assert metric.report().splitlines()[-1 if counts else -2].startswith(f"{counts} object")
