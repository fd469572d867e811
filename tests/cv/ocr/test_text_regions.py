"""Regions from maps, their scores and their F-measure equal the contract written plainly; label files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyclipper
import pytest
import shapely
from PIL import Image
from shapely.geometry import Polygon

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.data.text_regions import TextRegionLabels, TextTruth, icdar_line, read_truth, uber_line
from nvidia_tao_deploy.errors import DataError, RuntimeUnavailableError
from nvidia_tao_deploy.metrics.text_regions import RegionMetric, match_regions
from nvidia_tao_deploy.predictions.polygon_writer import PolygonWriter
from nvidia_tao_deploy.predictions.polygons import TextRegions, find_regions, score_inside, unclip
from nvidia_tao_deploy.transforms.transform import Geometry


def random_map(seed: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(rng.normal(size=size), (0, 0), 5)
    blobs = np.clip(blobs / blobs.std() * 0.35, 0, 1)
    for _ in range(4):
        corner = (float(rng.uniform(15, 100)), float(rng.uniform(15, 80)))
        box = cv2.boxPoints(
            (corner, (float(rng.uniform(8, 40)), float(rng.uniform(3, 15))), float(rng.uniform(0, 180)))
        )
        cv2.fillPoly(blobs, [box.astype(np.int32)], float(rng.uniform(0.4, 1)))
    return blobs.astype(np.float32)


def plain_box(points: Any) -> tuple[list[list[float]], float]:
    rect = cv2.minAreaRect(points)
    a, b, c, d = sorted(cv2.boxPoints(rect).tolist(), key=lambda p: p[0])
    left = (a, b) if b[1] > a[1] else (b, a)
    right = (c, d) if d[1] > c[1] else (d, c)
    return [left[0], right[0], right[1], left[1]], min(rect[1])


def plain_score(values: np.ndarray, quad: Any) -> float:
    h, w = values.shape
    xs, ys = [p[0] for p in quad], [p[1] for p in quad]
    x0, x1 = (min(max(f, 0), w - 1) for f in (math.floor(min(xs)), math.ceil(max(xs))))
    y0, y1 = (min(max(f, 0), h - 1) for f in (math.floor(min(ys)), math.ceil(max(ys))))
    mask = np.zeros((h, w), np.uint8)[y0 : y1 + 1, x0 : x1 + 1].copy()
    cv2.fillPoly(mask, [np.array([[int(x - x0), int(y - y0)] for x, y in quad], np.int32)], 1)
    inside = [float(values[y0 + j, x0 + i]) for j, i in zip(*np.nonzero(mask), strict=True)]
    return sum(inside) / len(inside)


def plain_grow(quad: Any, ratio: float) -> list[Any]:
    shape = Polygon(quad)
    offset = pyclipper.PyclipperOffset(2.0, 0.25)
    offset.AddPath([(int(x), int(y)) for x, y in quad], pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    paths: list[Any] = offset.Execute(shape.area * ratio / shape.length)
    return paths


def plain_regions(values: np.ndarray, polygons: bool, least: float, limit: int) -> list[tuple[Any, float]]:
    contours = cv2.findContours((values > 0.3).astype(np.uint8) * 255, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)[0]
    found = []
    for contour in contours[:limit]:
        if polygons:
            outline = cv2.approxPolyDP(contour, 0.0001 * cv2.arcLength(contour, True), True)[:, 0].tolist()
            if len(outline) < 4:
                continue
            score = plain_score(values, contour[:, 0].tolist())
        else:
            outline, side = plain_box(contour)
            if side < 3:
                continue
            score = plain_score(values, outline)
        if least > score:
            continue
        paths = plain_grow(outline, 1.5)
        if not paths or (polygons and len(paths) > 1):
            continue
        box, side = plain_box(np.array([p for path in paths for p in path], np.float32))
        if side >= 5:
            found.append((paths[0] if polygons else box, score))
    return found


@pytest.mark.parametrize("polygons", [False, True])
@pytest.mark.parametrize(("least", "limit"), [(0.5, 1000), (0.0, 5)])
def test_regions_equal_the_contract(polygons: bool, least: float, limit: int) -> None:
    total = 0
    for seed in range(20):
        values = random_map(seed)
        found, scores = find_regions(values, box_threshold=least, max_candidates=limit, polygons=polygons)
        expected = plain_regions(values, polygons, least, limit)
        assert len(found) == len(scores) == len(expected)
        for points, score, (plain, plain_value) in zip(found, scores, expected, strict=True):
            np.testing.assert_allclose(points, plain, atol=1e-6)
            assert score == pytest.approx(plain_value, abs=1e-6)
        total += len(found)
    assert total > 20
    flat = np.zeros((40, 60), np.float32)
    flat[10:30, 10:50] = 0.75
    kept = [len(find_regions(flat, box_threshold=at, polygons=polygons)[0]) for at in (0.75, np.nextafter(0.75, 1))]
    assert kept == [1, 0]
    nothing, none = find_regions(np.zeros((8, 9)), polygons=polygons)
    assert nothing == []
    assert none.shape == (0,)


def test_growing_is_a_buffer() -> None:
    """Against shapely's own offset: the area agrees to 2 %."""
    rectangle = np.array([[10, 10], [110, 10], [110, 40], [10, 40]], np.float64)
    (path,) = unclip(rectangle, 1.5)
    shape = Polygon(rectangle)
    assert Polygon(path).area == pytest.approx(shape.buffer(shape.area * 1.5 / shape.length).area, rel=0.02)
    assert unclip(np.zeros((4, 2)), 1.5) == []


def test_scores_at_the_border_stay_inside() -> None:
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    assert score_inside(values, np.array([[-5.0, -5], [9, -5], [9, 9], [-5, 9]])) == pytest.approx(values.mean())


def test_corners_are_rounded_once() -> None:
    """Established: rounded on the canvas, stored in 16 bits, cut to whole pixels after scaling."""
    geometry = Geometry((80_000, 100), (100, 100), (100 / 80_000, 1.0))
    regions = TextRegions([np.array([[50.4, -2], [100.0, 10.5], [99.9996, 111]])], np.ones(1), geometry)
    assert regions.on_network()[0].tolist() == [[50, 0], [100, 10], [100, 100]]
    assert regions.on_source()[0].tolist() == [[40320, 0], [80000, 10], [80000, 100]]


def plain_match(truths: list[Any], ignored: list[bool], detections: list[Any]) -> tuple[int, int, int]:
    gts = [
        (Polygon(t), i) for t, i in zip(truths, ignored, strict=True) if Polygon(t).is_valid and Polygon(t).is_simple
    ]
    dets = [Polygon(d) for d in detections if Polygon(d).is_valid and Polygon(d).is_simple]
    neutral = [any(i and d.intersection(g).area / d.area > 0.5 for g, i in gts) for d in dets]
    used = [False] * len(dets)
    matched = 0
    for g, i in gts:
        for n, d in enumerate(dets):
            if not i and not used[n] and not neutral[n]:
                both = g.intersection(d).area
                if both / (g.area + d.area - both) > 0.5:
                    used[n] = True
                    matched += 1
                    break
    return sum(not i for _, i in gts), neutral.count(False), matched


def random_quads(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    centres = rng.integers(0, 60, (count, 1, 2)) + np.array([[-10, -6], [10, -6], [10, 6], [-10, 6]])
    return list((centres + rng.integers(-3, 4, (count, 4, 2))).astype(np.float64))


def test_matching_equals_plain_loops() -> None:
    rng = np.random.default_rng(4)
    totals = np.zeros(3, int)
    for _ in range(60):
        truths = random_quads(rng, rng.integers(0, 12))
        ignored = rng.random(len(truths)) < 0.2
        detections = random_quads(rng, rng.integers(0, 12)) + [t + rng.integers(-2, 3, 2) for t in truths[::2]]
        if len(truths) > 1:
            truths[1] = truths[1][[0, 2, 1, 3]]  # a bow tie
        found = match_regions(truths, ignored, detections)
        assert tuple(found) == plain_match(truths, ignored.tolist(), detections)
        totals += found
    assert totals[2] > 50


def test_f_measure() -> None:
    """Two of three found by four, one of which lies in an ignored region; half an overlap is no match."""
    geometry = Geometry((200, 100), (100, 100), (0.5, 1.0))

    def box(x: float, y: float, w: float = 20, h: float = 10) -> np.ndarray:
        return np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float64)

    source = [box(0, 0, 40), box(0, 20, 40), box(0, 40, 40), box(0, 60, 40)]  # twice as wide as on the canvas
    truth = TextTruth(source, ["a", "b", "c", "###"], np.array([False, False, False, True]))
    polygons = [box(0, 0), box(0, 21), box(0, 40, h=5), box(0, 60)]
    metric = RegionMetric(0.5)
    scores = np.array([1, 0.5, 1, 1, np.nextafter(0.5, 0)])  # what equals the threshold counts, the fifth does not
    metric.update(Sample(1, (Path("x"),), truth), TextRegions([*polygons, box(50, 80)], scores, geometry))
    found = metric.compute()
    assert list(found) == ["Precision", "Recall", "F-measure"]
    assert found["Precision"] == pytest.approx(2 / 3)
    assert found["Recall"] == pytest.approx(2 / 3)
    assert found["F-measure"] == pytest.approx(2 / 3, abs=1e-7)
    empty = RegionMetric(0.5)
    nothing = TextTruth([], [], np.zeros(0, bool))
    empty.update(Sample(1, (Path("x"),), nothing), TextRegions([], np.zeros(0), geometry))
    assert empty.compute() == {"Precision": 0.0, "Recall": 0.0, "F-measure": 0.0}
    assert shapely.__version__


@pytest.mark.parametrize("degrees", range(0, 180, 15))
def test_corners_keep_the_outline(degrees: int) -> None:
    """Under 45 degrees two corners are equally far to the top left: none may be taken twice."""
    turn = np.radians(degrees)
    u, v = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    outline = np.rint([100 + 40 * a * u + 10 * b * v for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    points, _ = icdar_line(",".join([*map(str, outline.ravel()), "text"]))
    assert sorted(map(tuple, points)) == sorted(map(tuple, outline))
    assert shapely.Polygon(points).area == pytest.approx(shapely.Polygon(outline).area)


def test_label_lines(tmp_path: Path) -> None:
    points, text = icdar_line("30,12,10,10,10,20,30,22,Main,St")
    assert text == "Main"
    assert points.tolist() == [[10, 10], [30, 12], [30, 22], [10, 20]]  # from the top left clockwise
    points, text = uber_line("1 2 3 4 5 6 7 8 9 9\tone two\trest")
    assert points.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert text == "###"
    label = tmp_path / "gt_a.txt"
    label.write_text(
        "\ufeff0,0,9,0,9,9,0,9,a\n0,0,9,0,9,9,0,9\n\n1,1,1,1,1,1,1,1,dot\n0,0,x,0,9,9,0,9,b\n0,0,9,0,9,9,0,9,*\n"
    )
    truth, wrong = read_truth(label, "ICDAR2015Dataset", ["*", "###"])
    assert truth.texts == ["a", "*"]
    assert truth.ignored.tolist() == [False, True]  # flags stay with their outlines
    assert [entry.split()[0] for entry in wrong] == ["gt_a.txt:2", "gt_a.txt:4", "gt_a.txt:5"]


def test_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    for folder in ("img", "gt"):
        (tmp_path / folder).mkdir()
    for name in ("b.x.png", "a.jpg", "c.png"):
        Image.new("RGB", (20, 20)).save(tmp_path / "img" / name)
        text = "" if name == "c.png" else "0,0,9,0,9,9,0,9,t\n"
        (tmp_path / "gt" / f"gt_{name.split('.')[0]}.txt").write_text(text)
    data = TextRegionLabels([str(tmp_path)])
    assert [data[i].path.name for i in range(len(data))] == ["a.jpg", "b.x.png"]
    assert any("1 image without any text region is left out: c.png" in issue for issue in data.issues)
    assert len(TextRegionLabels([str(tmp_path)], keep_empty=True)) == 3
    with pytest.raises(DataError, match=r"c\.png"):
        TextRegionLabels([str(tmp_path)], strict=True)
    with pytest.raises(DataError, match="3 of 3 images have no label file"):
        TextRegionLabels([str(tmp_path)], "UberDataset")
    listed = tmp_path / "list.txt"
    listed.write_text("img/a.jpg gt/gt_a.txt\nimg/b.x.png\tgt/gt_b.txt\tmore\nimg/c.png\tgt/gt_c.txt\ngone.jpg\tx\n")
    data = TextRegionLabels([str(listed)])
    assert len(data) == 2
    assert "2 lines" in data.issues[0]
    assert "line 3, line 4" in data.issues[0]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyclipper", None)
    with pytest.raises(RuntimeUnavailableError, match="pyclipper"):
        find_regions(np.zeros((4, 4)))


def test_scores_are_written_as_float32(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    corners = np.array([[1, 2], [20.4, 2], [20.6, 9], [1, 9]])
    found = TextRegions([corners], np.array([1 / 3]), Geometry((40, 30), (40, 30), (1.0, 1.0)))
    PolygonWriter(tmp_path, tmp_path).write(Sample("a", (tmp_path / "a.png",)), found)
    assert (tmp_path / "a.txt").read_text() == "1,2,20,2,21,9,1,9,0.33333334\n"
