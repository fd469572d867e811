"""Figures of label maps against scikit-learn, panoptic quality against its definition, and the speed of counting."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as reference

from nvidia_tao_deploy.data.masks import IGNORE, ListedImages, MaskCodes, MaskFile, paired
from nvidia_tao_deploy.data.panoptic import Segments
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.metrics.panoptic import PanopticMetric
from nvidia_tao_deploy.metrics.segmentation import IouMetric, SemSegMetric, confusion_matrix, segmentation_figures
from nvidia_tao_deploy.predictions.segmentation import to_canvas, to_source
from nvidia_tao_deploy.predictions.types import LabelMap, PanopticMap
from nvidia_tao_deploy.transforms.transform import Geometry


@pytest.mark.parametrize("classes", [1, 2, 19, 133, 255, 300])
@pytest.mark.parametrize("seed", range(3))
def test_counts_are_scikit_learns(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes + 3, (37, 53)).astype(np.uint16)
    labels[rng.random(labels.shape) < 0.1] = IGNORE
    predicted = rng.integers(0, classes, labels.shape).astype(np.uint8 if classes < 256 else np.uint16)
    kept = labels < classes
    wanted = reference.confusion_matrix(labels[kept], predicted[kept], labels=range(classes))
    np.testing.assert_array_equal(confusion_matrix(labels, predicted, classes), wanted)


def test_figures_are_scikit_learns_and_undefined_is_nan() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.choice([0, 1, 3, 4], 500), rng.choice([0, 1, 2, 3], 500)
    figures = segmentation_figures(confusion_matrix(labels.astype(np.uint8), predicted.astype(np.uint8), 6))
    some = {"labels": range(5), "average": None, "zero_division": np.nan}
    np.testing.assert_allclose(
        figures.iou[:5], reference.jaccard_score(labels, predicted, **some | {"zero_division": 0})
    )
    np.testing.assert_allclose(figures.f1[:5], reference.f1_score(labels, predicted, **some))
    np.testing.assert_allclose(figures.precision[:5], reference.precision_score(labels, predicted, **some))
    np.testing.assert_allclose(figures.recall[:5], reference.recall_score(labels, predicted, **some))
    assert figures.f1[4] == 0  # occurs, never predicted: the established metric drops it from the mean
    assert np.isnan([figures.iou[5], figures.f1[5], figures.precision[5], figures.recall[5]]).all()


def test_more_pixels_than_float32_can_count() -> None:
    metric = SemSegMetric(["a"])
    metric.matrix[0, 0], metric._images = 2**24, 1
    metric.matrix += confusion_matrix(np.zeros(1, np.uint8), np.zeros(1, np.uint8), 1)
    assert metric.matrix[0, 0] == 2**24 + 1


def test_a_large_image_counts_in_thirty_milliseconds() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 19, (1024, 256)).astype(np.uint16), 8, axis=1)
    predicted = labels.astype(np.uint8)
    times = []
    for _ in range(7):
        start = time.process_time()
        confusion_matrix(labels, predicted, 19)
        times.append(time.process_time() - start)
    assert min(times) < 0.030, times


def test_wrong_shapes_and_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        confusion_matrix(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)
    with pytest.raises(ValueError, match="prediction 2"):
        confusion_matrix(np.zeros(3, np.uint8), np.full(3, 2, np.uint8), 2)


def stretched(source: tuple[int, int], net: tuple[int, int]) -> Geometry:
    return Geometry(source, net, (net[0] / source[0], net[1] / source[1]))


@pytest.mark.parametrize("source", [(7, 5), (97, 61), (640, 480), (3, 200), (64, 64)])
def test_canvas_and_source_meet_by_pillows_nearest(source: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    net = (64, 48)
    labels, canvas = rng.integers(0, 9, source[::-1], np.uint8), rng.integers(0, 9, net[::-1], np.uint8)
    geometry = stretched(source, net)
    nearest = Image.Resampling.NEAREST
    np.testing.assert_array_equal(
        to_canvas(labels, geometry, 255), np.asarray(Image.fromarray(labels).resize(net, nearest))
    )
    np.testing.assert_array_equal(
        to_source(canvas, geometry), np.asarray(Image.fromarray(canvas).resize(source, nearest))
    )


def test_padding_is_no_part_of_the_image() -> None:
    labels = np.full((10, 20), 3, np.uint16)
    geometry = Geometry((20, 10), (40, 40), (2.0, 2.0), (0.0, 10.0))
    canvas = to_canvas(labels, geometry, IGNORE)
    assert (canvas[10:30] == 3).all()
    assert (canvas[:10] == IGNORE).all()
    assert (canvas[30:] == IGNORE).all()
    assert to_source(canvas, geometry).shape == (10, 20)
    assert (to_source(canvas, geometry) == 3).all()


def sample(tmp_path: Path, mask: np.ndarray, codes: MaskCodes) -> Sample:
    path = tmp_path / "mask.png"
    Image.fromarray(mask).save(path)
    return Sample("mask", (path,), MaskFile(path, codes))


def test_values_without_a_class_are_counted_and_named(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 7], [7, 255, 1]], np.uint8)
    found = LabelMap(np.array([[0, 0, 0], [1, 1, 1]], np.uint8), stretched((3, 2), (3, 2)))
    ignoring, counting = SemSegMetric(["a", "b"]), SemSegMetric(["a", "b"], "they count as class 0")
    ignoring.update(sample(tmp_path, mask, MaskCodes({0: 0, 1: 1})), found)
    counting.update(sample(tmp_path, mask, MaskCodes({0: 0, 1: 1}, unmapped=0)), found)
    assert ignoring.matrix.tolist() == [[1, 0], [1, 1]]
    assert counting.matrix.tolist() == [[2, 2], [1, 1]]
    for metric in (ignoring, counting):
        assert metric.compute()["unmapped_pixels"] == 3
        assert "3 pixels of 1 mask are of no class" in metric.report()
        assert "7 (2 pixels), 255 (1 pixels)" in metric.report()
    assert "count as class 0" in counting.report()


def test_a_colour_file_of_grey_pixels_is_read_by_its_levels_where_no_class_has_a_colour(tmp_path: Path) -> None:
    grey = np.array([[0, 7, 9]], np.uint8)
    Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(tmp_path / "a.png")
    for colors in ({}, {(7, 7, 7): 1}):
        truth = MaskCodes({0: 0, 7: 1}, colors).read(tmp_path / "a.png", (3, 1))
        assert truth.labels.tolist() == [[0, 1, IGNORE]]
        assert truth.unmapped == {"9": 1}
    Image.fromarray(np.array([[[0, 0, 0], [7, 7, 8], [9, 9, 9]]], np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="a colour picture, and classes are told by grey values"):
        MaskCodes({0: 0}).read(tmp_path / "a.png", (3, 1))


def test_colours_are_divided_like_grey_values(tmp_path: Path) -> None:
    pixels = np.array([[[255, 0, 0], [254, 0, 9], [0, 255, 255]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    truth = MaskCodes({}, {(0, 0, 0): 0, (1, 0, 0): 1}, divisor=255).read(tmp_path / "a.png", (3, 1))
    assert truth.labels.tolist() == [[1, 0, IGNORE]]


def test_values_beyond_16_bits_have_no_class(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, -1, 70000]], np.int32)).save(tmp_path / "a.tif")
    truth = MaskCodes({0: 0, 1: 1}).read(tmp_path / "a.tif", (4, 1))
    assert truth.labels.tolist() == [[0, 1, IGNORE, IGNORE]]
    assert truth.unmapped == {"-1": 1, "70000": 1}


def test_bad_masks_and_predictions_are_errors(tmp_path: Path) -> None:
    codes, found = MaskCodes({0: 0}), LabelMap(np.zeros((2, 3), np.uint8), stretched((3, 2), (3, 2)))
    with pytest.raises(DataError, match="4 x 2 pixels, its image 3 x 2"):
        SemSegMetric(["a"]).update(sample(tmp_path, np.zeros((2, 4), np.uint8), codes), found)
    strange = LabelMap(np.full((2, 3), 4, np.uint8), found.geometry)
    with pytest.raises(ModelError, match="predicts class 4"):
        SemSegMetric(["a"]).update(sample(tmp_path, np.zeros((2, 3), np.uint8), codes), strange)
    with pytest.raises(DataError, match="no image"):
        IouMetric(["a"]).compute()


def test_means_leave_out_classes_that_do_not_occur(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 1, 2]], np.uint8)
    found = LabelMap(np.array([[0, 1, 0, 0]], np.uint8), stretched((4, 1), (4, 1)))
    metric = IouMetric(["a", "b", "c", "never"])
    metric.update(sample(tmp_path, mask, MaskCodes({i: i for i in range(4)})), found)
    numbers = metric.compute()
    assert numbers["mIoU"] == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert numbers["ACC_all"] == 0.5
    assert np.isnan(numbers["IoU"]["never"])
    assert "mIOU: 0.28" in metric.report()
    assert "never" not in metric.report()


def plain_quality(
    truths: list[tuple[np.ndarray, list[int], list[bool]]], founds: list[tuple[np.ndarray, list[int]]], classes: int
) -> list[float]:
    """PQ per class, pixel sets against pixel sets."""
    iou, tp, fp, fn = [0.0] * classes, [0] * classes, [0] * classes, [0] * classes
    for (truth, categories, crowds), (found, predicted) in zip(truths, founds, strict=True):
        void = {(y, x) for y, x in np.ndindex(truth.shape) if truth[y, x] == 0 or categories[truth[y, x] - 1] < 0}
        wanted = {k: set(map(tuple, np.argwhere(truth == k + 1).tolist())) for k in range(len(categories))}
        given = {k: set(map(tuple, np.argwhere(found == k + 1).tolist())) for k in range(len(predicted))}
        matched_truth, matched_found = set(), set()
        for k, pixels in wanted.items():
            for m, mine in given.items():
                if crowds[k] or categories[k] < 0 or categories[k] != predicted[m]:
                    continue
                union = len(pixels | (mine - void))
                if union and len(pixels & mine) / union > 0.5:
                    iou[categories[k]] += len(pixels & mine) / union
                    tp[categories[k]] += 1
                    matched_truth.add(k)
                    matched_found.add(m)
        for k, pixels in wanted.items():
            if pixels and k not in matched_truth and not crowds[k] and categories[k] >= 0:
                fn[categories[k]] += 1
        for m, mine in given.items():
            if not mine or m in matched_found:
                continue
            excused = mine & void
            for k, pixels in wanted.items():
                if crowds[k] and categories[k] == predicted[m]:
                    excused |= mine & pixels
            fp[predicted[m]] += len(excused) <= 0.5 * len(mine)
    sizes = [t + 0.5 * (p + n) for t, p, n in zip(tp, fp, fn, strict=True)]
    return [i / s if s else float("nan") for i, s in zip(iou, sizes, strict=True)]


@pytest.mark.parametrize(("void", "quality"), [(2, 2 / 3), (3, 1.0)])
def test_a_found_segment_counts_as_wrong_unless_over_half_of_it_is_void(void: int, quality: float) -> None:
    """One segment is found as it is; another of 4 pixels lies on void, the rest of it on a crowd of another class."""
    truth = np.array([[1, 1, 1, 1, *[0] * void, *[2] * (4 - void)]], np.int32)
    found = PanopticMap(
        np.array([[1, 1, 1, 1, 2, 2, 2, 2]], np.int32), np.zeros(2, np.int64), stretched((8, 1), (8, 1))
    )
    segments = Segments(truth, np.array([0, 1]), np.array([False, True]), {})
    metric = PanopticMetric(["a", "b"], [True, True])
    metric.update(Sample("a", (Path("a"),), SimpleNamespace(load_segments=lambda _size: segments)), found)
    assert metric.by_class()["PQ"][0] == pytest.approx(quality)  # 1 / (1 + 1/2), or 1


@pytest.mark.parametrize("seed", range(6))
def test_panoptic_quality_is_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truths, founds = [], []
    metric = PanopticMetric([str(k) for k in range(5)], [True, False, True, False, True])
    for image in range(6):
        shape = (16, 20)
        truth = np.kron(rng.integers(0, 7, (4, 5)), np.ones((4, 4))).astype(np.int32)
        categories, crowds = rng.integers(-1, 4, 6).tolist(), (rng.random(6) < 0.25).tolist()
        found = np.where(rng.random(shape) < 0.15, rng.integers(0, 7, shape), truth).astype(np.int32)
        predicted = [c if c >= 0 and rng.random() < 0.7 else int(rng.integers(0, 4)) for c in categories]
        if image == 5:
            found[:], predicted = 0, []
        truths.append((truth, categories, crowds))
        founds.append((found, predicted))
        segments = Segments(truth, np.array(categories, np.int64), np.array(crowds, bool), {})
        target = SimpleNamespace(load_segments=lambda _size, segments=segments: segments)
        geometry = stretched((20, 16), (20, 16))
        metric.update(Sample("a", (Path("a"),), target), PanopticMap(found, np.array(predicted, np.int64), geometry))
    wanted = plain_quality(truths, founds, 5)
    np.testing.assert_allclose(metric.by_class()["PQ"], wanted, atol=1e-12)
    numbers = metric.compute()
    assert numbers["PQ"] == pytest.approx(np.nanmean(wanted))
    assert numbers["PQ_th"] == pytest.approx(np.nanmean([wanted[k] for k in (0, 2)]))
    assert numbers["PQ_st"] == pytest.approx(np.nanmean([wanted[k] for k in (1, 3)]))
    assert 0.05 < numbers["PQ"] < 0.95
    values = metric.by_class()
    np.testing.assert_allclose(values["PQ"][:4], (values["SQ"] * values["RQ"])[:4], atol=1e-12)


def test_folders_are_not_searched_further_down(tmp_path: Path) -> None:
    for name in ("images/a.png", "images/below/b.png", "masks/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    assert [sample.id for sample in ListedImages([tmp_path / "images"])] == ["a.png"]
    pairs, issues = paired([(tmp_path / "images", tmp_path / "masks")])
    assert (pairs, issues) == ([(tmp_path / "images/a.png", tmp_path / "masks/a.png")], [])
