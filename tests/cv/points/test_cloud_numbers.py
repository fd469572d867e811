"""Rotated overlap, decode, 3D average precision, voxel caps and files of point clouds against plain references."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cv.points import plain_3d as plain
from cv.points.cloud_replay import NAMES, label_lines, random_boxes, write_cloud

from nvidia_tao_deploy.data.point_cloud import CloudTarget, PointClouds, PointFormat
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.metrics.kitti_3d import Kitti3dMetric, cuboid_overlaps
from nvidia_tao_deploy.predictions.cloud_boxes import BIRDS_EYE, decode_cloud_boxes
from nvidia_tao_deploy.predictions.rotated import rotated_intersection, rotated_iou, rotated_nms
from nvidia_tao_deploy.predictions.types import CloudBoxes
from nvidia_tao_deploy.transforms.points import PointTransform, VoxelCaps
from nvidia_tao_deploy.transforms.transform import Geometry

NOWHERE = Geometry((0, 0), (0, 0), (1.0, 1.0))


def test_intersections_equal_shapely() -> None:
    """Random pairs, and the cases where sides coincide, nearly coincide, touch, or boxes hold each other."""
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 120), random_boxes(rng, 110)
    a[:, :2] *= 0.6
    b[:, :2] *= 0.6
    b[:50] = a[:50]
    b[10:20, 6] += np.pi / 2
    b[20:25, :2] += 1e-9
    b[25:30, 6] += 1e-12
    b[30:35, 3:5] *= 0.5
    a[35:40, 6] = b[35:40, 6] = 0
    b[35:40, 0] += (a[35:40, 3] + b[35:40, 3]) / 2  # touches
    b[40:45, 0] += 1e4
    expected = np.array([[plain.polygon(p).intersection(plain.polygon(q)).area for q in b] for p in a])
    np.testing.assert_allclose(rotated_intersection(a[:, BIRDS_EYE], b[:, BIRDS_EYE]), expected, atol=1e-9)
    overlaps = cuboid_overlaps(a, b)
    for p, q in zip(*rng.integers(0, 110, (2, 300)), strict=True):
        assert overlaps[0, p, q] == pytest.approx(plain.bev(a[p], b[q]), abs=1e-9)
        assert overlaps[1, p, q] == pytest.approx(plain.space(a[p], b[q]), abs=1e-9)
        assert overlaps[2, p, q] == pytest.approx(plain.space(a[p], b[q], z_is_top=True), abs=1e-9)
    assert rotated_iou(a[:0, BIRDS_EYE], b[:, BIRDS_EYE]).shape == (0, 110)


def seconds(work: Callable[[], object], rounds: int = 1) -> float:
    """The best of some rounds."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def test_overlap_and_suppression_are_20_times_a_plain_loop() -> None:
    """The loop has its polygons from a C library, which makes it the faster one of its kind."""
    boxes = random_boxes(np.random.default_rng(0), 300)
    flat, listed = boxes[:, BIRDS_EYE], boxes.tolist()

    def suppressed() -> None:
        kept: list[list[float]] = []
        for box in listed:
            if all(plain.bev(other, box) < 0.01 for other in kept):
                kept.append(box)

    loop = seconds(lambda: [plain.bev(a, b) for a in listed[:60] for b in listed[:60]])
    assert loop > 20 * seconds(lambda: rotated_iou(flat[:60], flat[:60]), 5)
    assert seconds(suppressed) > 20 * seconds(lambda: rotated_nms(flat, 0.01, 300), 5)


def test_z_is_the_centre_of_a_box() -> None:
    """From 0 to 2 and from 1 to 5 metres: 1 of 5 is shared. With z as the top it would be 2 of 4."""
    low, high = np.array([[0, 0, 1.0, 4, 2, 2, 0]]), np.array([[0, 0, 3.0, 4, 2, 4, 0]])
    np.testing.assert_allclose(cuboid_overlaps(low, high).ravel(), [1, 0.2, 0.5])


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 300])
@pytest.mark.parametrize("threshold", [0.01, 0.3])
def test_suppression(count: int, threshold: float) -> None:
    boxes = random_boxes(np.random.default_rng(count), count)
    rows = np.column_stack([boxes, np.zeros(count), -np.arange(count)])
    expected = [int(-row[8]) for row in plain.decode(rows, -1e9, threshold, 1000, 40)]
    assert rotated_nms(boxes[:, BIRDS_EYE], threshold, 40).tolist() == expected


def decoded(rows: np.ndarray, counts: list[int], **more: float) -> list[CloudBoxes]:
    settings = {"score_threshold": 0.1, "iou_threshold": 0.01, "before_nms": 50, "after_nms": 12, **more}
    return decode_cloud_boxes(rows, np.array(counts), [NOWHERE] * len(rows), classes=3, **settings)  # type: ignore[arg-type]


def test_decode() -> None:
    """Equals the plain form; neither the order of the rows nor what stands behind the count matters."""
    rng = np.random.default_rng(1)
    rows = np.full((4, 90, 9), np.nan, np.float32)
    counts = [80, 0, 1, 60]
    for table, count in zip(rows, counts, strict=True):
        scores = rng.choice([0.05, 0.1, 0.3, 0.5, 0.8, 0.9], count)  # many are equal
        table[:count] = np.column_stack([random_boxes(rng, count), rng.integers(0, 3, count), scores])
    found = decoded(rows, counts)
    assert [len(item) for item in found][1] == 0
    for table, count, item in zip(rows, counts, found, strict=True):
        expected = plain.decode(table[:count], 0.1, 0.01, 50, 12)
        assert len(expected) == len(item)
        np.testing.assert_array_equal(item.boxes, np.array([row[:7] for row in expected]).reshape(-1, 7))
        assert item.class_ids.tolist() == [row[7] for row in expected]
        assert item.scores.tolist() == [row[8] for row in expected]
        table[:count] = rng.permutation(table[:count])
    for one, other in zip(found, decoded(rows, counts), strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
    assert len(decoded(rows, counts, before_nms=3)[0]) <= 3
    rows[0, 5, 3] = np.inf
    with pytest.raises(ModelError, match="NaN or infinite"):
        decoded(rows, counts)
    rows[0, 5, 3:] = [1, 1, 1, 0, 3, 0.9]
    for wrong in (3, -1):
        rows[0, 5, 7] = wrong
        with pytest.raises(ModelError, match=rf"class {wrong}, dataset\.class_names are 3"):
            decoded(rows, counts)


HALF = np.array([[0, 0, 0, 2, 1, 1, 0], [0.5, 0, 0, 1, 1, 1, 0]], float)  # the second is half of the first


def test_what_equals_a_threshold() -> None:
    """A score counts, an overlap suppresses, and does not match."""
    np.testing.assert_array_equal(cuboid_overlaps(HALF[:1], HALF[1:])[:2].ravel(), [0.5, 0.5])
    rows = np.column_stack([HALF, [0, 0], [0.75, 0.5]])[None].astype(np.float32)
    assert [len(decoded(rows, [2], score_threshold=0.5, iou_threshold=iou)[0]) for iou in (0.5, 0.51)] == [1, 2]
    assert len(decoded(rows, [2], score_threshold=0.51, iou_threshold=0.51)[0]) == 1
    for shrunk, wanted in ((0, 0), (0.01, 100)):
        metric = Kitti3dMetric(["Car"])
        truth = HALF[:1] + np.array([shrunk / 2, 0, 0, -shrunk, 0, 0, 0])  # from the left
        target = CloudTarget(truth, np.zeros(1, np.int64))
        found = CloudBoxes(HALF[1:], np.array([0.9]), np.zeros(1, np.int64), NOWHERE)
        metric.update(Sample("a", (Path("a.bin"),), target), found)
        # one right score is one threshold of 41, of which every 4th counts
        assert metric.compute()["bev mAP"] == pytest.approx(wanted / 11)


@pytest.mark.parametrize("seed", range(2))
def test_average_precision(seed: int) -> None:
    """Equals the plain form with shapely, all three kinds, with frames that miss truth, detections or both."""
    rng = np.random.default_rng(seed)
    metric = Kitti3dMetric(NAMES)
    frames: list[plain.Frame] = []
    for number in range(25):
        truth = random_boxes(rng, int(rng.integers(0, 6)) if number else 0)
        classes = rng.integers(0, 2, len(truth))  # no cyclist anywhere
        found = np.concatenate([truth + rng.normal(0, 0.12, truth.shape), truth, random_boxes(rng, 3)])
        found[: len(truth), 5] *= rng.uniform(0.6, 1.6, len(truth))
        labels = np.concatenate([classes, rng.integers(0, 3, len(truth)), rng.integers(0, 3, 3)])
        scores = rng.choice(np.linspace(0.1, 1, 12), len(found))
        target = CloudTarget(truth, classes)
        metric.update(Sample("a", (Path("a.bin"),), target), CloudBoxes(found, scores, labels, NOWHERE))
        frames.append(
            (
                list(zip(truth.tolist(), classes.tolist(), strict=True)),
                list(zip(found.tolist(), labels.tolist(), scores.tolist(), strict=True)),
            )
        )
    results = metric.compute()
    by_kind = {"bev": plain.bev, "3d": plain.space, "3d z_top": lambda a, b: plain.space(a, b, z_is_top=True)}
    for kind, overlap in by_kind.items():
        expected = [plain.average_precision(frames, i, overlap) for i in range(2)] + [0.0]
        assert results[f"{kind} mAP"] == pytest.approx(np.mean(expected), abs=1e-9)
        if kind != "3d z_top":
            assert [results[f"{kind} AP {name}"] for name in NAMES] == pytest.approx(expected, abs=1e-9)
    assert list(results)[:2] == ["bev mAP", "3d mAP"]
    assert "no object of these classes in the data, they count as AP 0: Cyclist" in metric.report()


def test_a_perfect_detector() -> None:
    rng = np.random.default_rng(0)
    metric = Kitti3dMetric(["Car"])
    for _ in range(30):
        boxes = random_boxes(rng, 3) + np.arange(3)[:, None] * [30, 0, 0, 0, 0, 0, 0]
        zeros = np.zeros(3, np.int64)
        turned = boxes + np.array([0, 0, 0, 0, 0, 0, 2 * math.pi])
        found = CloudBoxes(turned, rng.random(3), zeros, NOWHERE)
        metric.update(Sample("a", (Path("a.bin"),), CloudTarget(boxes, zeros)), found)
    assert metric.compute()["3d mAP"] == pytest.approx(100)
    with pytest.raises(DataError, match="no point cloud"):
        Kitti3dMetric(["Car"]).compute()


def test_a_point_that_rounding_puts_beside_the_grid_is_in_no_voxel() -> None:
    """1.5999999 / 0.16 is 10 in float32, and there are the columns and rows 0 to 9."""
    caps = VoxelCaps([0, 0, -3, 1.6, 1.6, 1], [0.16, 0.16, 4], 1, 9)
    near = np.nextafter(np.float32(1.6), np.float32(0))
    points = np.array([[near, 0.01, 0], [0.01, 0.17, 0], [0.01, near, 0], [0.17, 0.01, 0]], np.float32)
    assert caps.inside(points).all()
    bounds = np.array([[0, 0, -3], [0, 0, 1], [1.6, 0, 0], [0, 1.6, 0]], np.float32)
    assert caps.inside(bounds).tolist() == [True, False, False, False]  # least is inside, greatest is not
    assert caps.kept(points).tolist() == [1, 3]


CAPS = VoxelCaps([0, -2, -3, 4, 2, 1], [0.5, 0.5, 4], 5, 20)


def test_voxel_caps_keep_what_comes_first() -> None:
    """Against a plain loop; what is kept hits no cap, so that the order of arrival in the engine does not matter."""
    rng = np.random.default_rng(0)
    for count in (0, 1, 60, 1500):
        points = rng.uniform([-1, -3, -4, 0], [5, 3, 2, 1], (count, 4)).astype(np.float32)
        points[: count // 20] = np.float32([4, 2, 1, 0.5])  # on the far bounds: outside
        points[count // 20 : count // 10, :3] = [0, -2, -3]  # on the near bounds: inside
        held: dict[tuple[int, int], int] = {}
        expected = []
        for number, point in enumerate(points.tolist()):
            if all(low <= value < high for low, value, high in zip(CAPS.area[:3], point, CAPS.area[3:], strict=False)):
                cell = (math.floor(point[0] / 0.5), math.floor((point[1] + 2) / 0.5))
                if cell not in held and len(held) == CAPS.voxels:
                    continue
                held[cell] = held.get(cell, 0) + 1
                if held[cell] <= CAPS.per_voxel:
                    expected.append(number)
        kept = CAPS.kept(points)
        assert kept.tolist() == expected
        assert len(CAPS.kept(points[kept])) == len(kept)


def filled(path: Path, rows: int = 8, **more: object) -> tuple[np.ndarray, int, object]:
    form = PointFormat(4, (0, 1, 2, 3))
    make = {"area": [0, -2, -3, 4, 2, 1], "caps": None, **more}
    transform = PointTransform(form, points="points", num_points="num_points", **make)  # type: ignore[arg-type]
    out = {"points": np.full((2, rows, 4), 7, np.float32), "num_points": np.full(2, 9, np.int32)}
    geometry = transform(Sample("a", (path,)), {name: array[1, ...] for name, array in out.items()})
    assert (out["points"][0] == 7).all()
    return out["points"][1], int(out["num_points"][1]), geometry


def test_transform(tmp_path: Path) -> None:
    """Range bounds count in x and y, z is the model's business; NaN, zero points, too many points."""
    points = np.array(
        [[0, -2, 0, 1], [4, 2, 99, 2], [4.01, 0, 0, 3], [1, -2.01, 0, 4], [1, np.nan, 0, 5], [1, 1, 0, np.inf],
         [2, 0, 0, 6]],
        np.float32,
    )  # fmt: skip
    path = tmp_path / "a.bin"
    points.tofile(path)
    rows, count, geometry = filled(path)
    assert count == 3
    assert rows[:3, 3].tolist() == [1, 2, 6]
    assert not rows[3:].any()
    assert (geometry.not_finite, geometry.over_caps, geometry.over_input) == (2, 0, 0)  # type: ignore[attr-defined]
    assert filled(path, area=None)[1] == 5
    assert filled(path, rows=2)[0][:, 3].tolist() == [1, 2]
    assert filled(path, rows=2)[2].over_input == 1  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="3 points, the model takes 2"):
        filled(path, rows=2, strict=True)
    np.repeat(points[:1], 9, axis=0).tofile(path)
    rows, count, geometry = filled(path, caps=CAPS)
    assert (count, geometry.over_caps) == (5, 4)  # type: ignore[attr-defined]
    path.write_bytes(b"")
    rows, count, _ = filled(path, caps=CAPS)
    assert count == 0
    assert not rows.any()


def test_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    form = PointFormat(4, (0, 1, 2, 3))
    points = write_cloud(tmp_path / "a.bin", 1, rng)
    np.testing.assert_array_equal(form.read(tmp_path / "a.bin"), points)
    np.save(tmp_path / "b.npy", points.astype(np.float64))
    np.testing.assert_array_equal(form.read(tmp_path / "b.npy"), points)
    np.testing.assert_array_equal(PointFormat(4, (0, 1, 2)).read(tmp_path / "b.npy"), points[:, :3])
    assert PointFormat(5, (0, 1, 2, 4)).read(tmp_path / "a.bin").shape == (32, 4)  # 160 numbers: nobody can tell
    with pytest.raises(DataError, match="160 numbers: not a list of points of 7 features"):
        PointFormat(7, (0, 1, 2)).read(tmp_path / "a.bin")
    np.save(tmp_path / "c.npy", np.array([{"a": 1}]), allow_pickle=True)
    for name in ("c.npy", "gone.npy", "gone.bin"):
        with pytest.raises(DataError, match="cannot read the point cloud"):
            form.read(tmp_path / name)
    np.save(tmp_path / "c.npy", points[:, :3])
    with pytest.raises(DataError, match=r"\(40, 3\): not a list of points of 4 features"):
        form.read(tmp_path / "c.npy")


def test_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 3)
    for stem in "abcd":
        write_cloud(tmp_path / "lidar" / f"{stem}.bin", 1, rng)
    label = tmp_path / "label"
    with pytest.raises(DataError, match="none of the 4 clouds has a label file"):
        PointClouds(tmp_path, NAMES, 4, labelled=True)
    assert [item.target for item in PointClouds(tmp_path, NAMES, 4, labelled=False)] == [None] * 4  # type: ignore[attr-defined]
    label.mkdir()
    (label / "a.txt").write_text(label_lines(boxes, np.array([0, 2, 1])))
    (label / "b.txt").write_text("")
    (label / "c.txt").write_text(
        "DontCare -1 -1 -10 0 0 0 0 -1 -1 -1 -1000 -1000 -1000 -10\n"
        "Car 0 0 0 0 0 0 0 1 nan 1 1 1 1 0\nCar 0 0 0 0 0 0 0 1 -2 1 1 1 1 0\nCar 1 2 3\n\n"
        + label_lines(boxes[:1], np.array([0])).rstrip()
        + " 0.9\n"
    )
    data = PointClouds(tmp_path, NAMES, 4, labelled=True)
    assert [item.id for item in data] == ["a.bin", "b.bin", "c.bin"]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(data[0].target.boxes, boxes)
    assert data[0].target.class_ids.tolist() == [0, 2, 1]
    assert [len(data[i].target.boxes) for i in range(3)] == [3, 0, 1]
    assert data.issues[0].startswith("1 cloud skipped, it has no label file")
    assert data.issues[1].startswith("3 label lines skipped, not 15 or 16 fields with a finite box")
    assert f": {label / 'c.txt'}:2" in data.issues[1]
    assert data.issues[2] == "1 label left out, it is of other classes: DontCare (1)"
    with pytest.raises(DataError, match="no label file"):
        PointClouds(tmp_path, NAMES, 4, labelled=True, strict=True)
    with pytest.raises(DataError, match=r"labels name .*Car .*; wanted Truck"):
        PointClouds(tmp_path, ["Truck"], 4, labelled=True)
    np.save(tmp_path / "lidar" / "a.npy", np.zeros((1, 4)))
    with pytest.raises(DataError, match="clouds of the same name: a"):
        PointClouds(tmp_path, NAMES, 4, labelled=False)
    with pytest.raises(DataError, match="no point cloud"):
        PointClouds(tmp_path / "nowhere", NAMES, 4, labelled=False)
