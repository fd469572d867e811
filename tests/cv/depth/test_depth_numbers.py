"""Depth figures against plain formulas, alignment, PFM and PNG maps, annotation files, pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nvidia_tao_deploy.data.depth import AnnotationFile, DepthList, DepthTruth, read_map
from nvidia_tao_deploy.data.pfm import read_pfm, write_pfm
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.metrics import depth
from nvidia_tao_deploy.predictions.depth import DepthMap, colorize
from nvidia_tao_deploy.predictions.depth_writer import DepthWriter
from nvidia_tao_deploy.transforms.transform import Geometry


def test_figures_equal_plain_loops() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 500):
        g = rng.uniform(0.5, 80, count).astype(np.float32)
        p = (g * rng.uniform(0.4, 1.8, count)).astype(np.float32)
        pairs = [(float(a), float(b)) for a, b in zip(p, g, strict=True)]
        mean_g = sum(b for _, b in pairs) / count
        ratios = [max(np.float32(a) / np.float32(b), np.float32(b) / np.float32(a)) for a, b in pairs]
        expected = {
            "abs_rel": sum(abs(a - b) / b for a, b in pairs) / count,
            "sq_rel": sum((a - b) ** 2 / b for a, b in pairs) / count,
            "rmse": math.sqrt(sum((a - b) ** 2 for a, b in pairs) / count),
            "rmse_log": math.sqrt(sum((math.log(a) - math.log(b)) ** 2 for a, b in pairs) / count),
            "end_point_error": sum(abs(a - b) for a, b in pairs) / (count + 1e-8),
            "squared_error_by_spread": sum((a - b) ** 2 for a, b in pairs)
            / (sum(abs(b - mean_g) for _, b in pairs) + 1e-8),
        }
        for name, value in expected.items():
            # a single pixel has no spread: its figure is an error over 1e-8
            assert getattr(depth, name)(p, g) == pytest.approx(value, rel=1e-4), name
        for power in (1, 2, 3):
            assert depth.delta(p, g, power) == sum(r < 1.25**power for r in ratios) / count
        stereo = depth.stereo_errors(p, g)
        assert list(stereo) == ["d1", "bp1", "bp2", "bp3", "epe", "abs_rel", "sq_rel", "rmse", "rmse_log"]
        errors = np.abs(p - g)
        for limit in (1, 2, 3):
            assert stereo[f"bp{limit}"] == sum(bool(e > limit) for e in errors) / count
        wrong = sum(bool(e > 3) and bool(e / b > 0.05) for e, b in zip(errors, g, strict=True))
        assert stereo["d1"] == wrong / count


def sample_of(truth: np.ndarray, folder: Path, name: str = "g.pfm", **more: object) -> Sample:
    write_pfm(folder / name, truth)
    return Sample(name, (folder / "scene" / "i.png",), DepthTruth(folder / name, **more))  # type: ignore[arg-type]


def geometry(size: tuple[int, int], net: tuple[int, int]) -> Geometry:
    return Geometry(size, net, (net[0] / size[0], net[1] / size[1]))


def test_stereo_figures_are_per_image_at_the_sources_size(tmp_path: Path) -> None:
    """Disparities grow with the width; invalid truth is not blended into its neighbours; images without are counted."""
    metric = depth.StereoMetric(100)
    flat = np.full((30, 80), 20.0, np.float32)
    holes = flat.copy()
    holes[::2] = 0
    holes[1::2, ::3] = np.inf
    holes[1, 1] = np.nan
    holes[3, 1] = 150  # beyond the limit
    values = np.full((20, 40), 11.0, np.float32)  # at half the width: 22 at the source
    for name, truth in (("a.pfm", flat), ("b.pfm", holes), ("c.pfm", flat * 0)):
        metric.update(sample_of(truth, tmp_path, name), DepthMap(values, geometry((80, 30), (40, 20)), True))
    found = metric.compute()
    assert found["epe"] == pytest.approx(2, abs=1e-5)
    assert found["abs_rel"] == pytest.approx(0.1, abs=1e-6)  # a mean, not a sum over pixels
    assert (found["bp1"], found["bp3"], found["d1"]) == (1, 0, 0)
    assert "1 image has no valid ground truth" in metric.report()
    assert [row["orig_hw"] for row in metric.per_sample] == [[30, 80]] * 3
    assert math.isnan(metric.per_sample[2]["epe"])
    assert all(math.isnan(value) for value in depth.StereoMetric(10).compute().values())


def test_rmse_of_a_set_is_not_of_a_batch(tmp_path: Path) -> None:
    metric = depth.StereoMetric(100)
    for number, error in enumerate((1.0, 3.0)):
        truth = np.full((4, 4), 10, np.float32)
        sample = sample_of(truth, tmp_path, f"{number}.pfm")
        metric.update(sample, DepthMap(truth + np.float32(error), geometry((4, 4), (4, 4)), True))
    assert metric.compute()["rmse"] == pytest.approx(2)  # established with batch 2: sqrt(5) / 2


def test_mono_figures(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    metric = depth.MonoMetric(relative=False, min_depth=0.5, max_depth=9)
    pairs = []
    for number, size in enumerate([(30, 20), (17, 23)]):
        truth = rng.uniform(0, 10, size[::-1]).astype(np.float32)
        truth[0] = [0, np.inf, np.nan][number]
        p = (truth * rng.uniform(0.7, 1.4, truth.shape)).astype(np.float32)
        p[0] = 1
        metric.update(sample_of(truth, tmp_path, f"{number}.pfm"), DepthMap(p, geometry(size, size)))
        valid = (truth > 0.5) & (truth < 9) & np.isfinite(truth)
        pairs.append((np.clip(p[valid], 0.5, 9), truth[valid]))
    p, g = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    found = metric.compute()
    assert list(found)[:2] == ["d1", "abs_rel"]
    assert found["abs_rel"] == pytest.approx(np.mean(np.abs(p - g) / g), rel=1e-6)
    assert found["d1"] == pytest.approx(np.mean(np.maximum(p / g, g / p) < 1.25), rel=1e-12)
    assert found["rmse"] == pytest.approx(depth.rmse(p, g), rel=1e-9)
    broken = DepthMap(np.full((4, 4), np.nan, np.float32), geometry((4, 4), (4, 4)))
    with pytest.raises(ModelError, match="NaN"):
        metric.update(sample_of(np.ones((4, 4), np.float32), tmp_path), broken)
    with pytest.raises(DataError, match="the map is 5 x 4, its image 4 x 4"):
        metric.update(sample_of(np.ones((4, 5), np.float32), tmp_path), broken)


@pytest.mark.parametrize("kind", ["depth", "disparity"])
def test_relative_predictions_are_aligned(kind: str, tmp_path: Path) -> None:
    """Any scale and shift of the truth's inverse (of the truth itself, where it holds disparities) is perfect."""
    rng = np.random.default_rng(3)
    truth = rng.uniform(1, 9 if kind == "depth" else 900, (20, 20)).astype(np.float32)
    inverse = 1 / truth if kind == "depth" else truth
    found = []
    for p in (inverse * 7 - 2, truth * 2 + 1 if kind == "depth" else 1 / truth):
        metric = depth.MonoMetric(relative=True)
        metric.update(
            sample_of(truth, tmp_path, kind=kind), DepthMap(p.astype(np.float32), geometry((20, 20), (20, 20)))
        )
        found.append(metric.compute())
    assert found[0]["abs_rel"] == pytest.approx(0, abs=1e-4)
    assert found[0]["d1"] == 1
    assert found[1]["abs_rel"] > 0.1
    other = (truth * 2 + 1 if kind == "depth" else 1 / truth).ravel().astype(np.float64)
    aligned = np.maximum(np.polyval(np.polyfit(other, inverse.ravel().astype(np.float64), 1), other), 1e-8)
    assert found[1]["rmse"] == pytest.approx(np.sqrt(np.mean((aligned - inverse.ravel()) ** 2)), rel=1e-4)
    a, b = np.polyfit(inverse.ravel() * 3 + 1, inverse.ravel(), 1)
    np.testing.assert_allclose(depth.align(inverse.ravel() * 3 + 1, inverse.ravel()), (inverse.ravel() * 3 + 1) * a + b)


@pytest.mark.parametrize(
    ("relative", "kind", "last"), [(True, "disparity", 1000), (True, "depth", 10), (False, "depth", 10)]
)
def test_truth_up_to_the_greatest_counts(relative: bool, kind: str, last: float, tmp_path: Path) -> None:
    """Four of five pixels are right, and one that counts up to the limit is not."""
    for far, counts in ((0.99 * last, True), (last, False)):
        truth = np.array([[1, 2, 3, 4, far]], np.float32)
        p = np.array([[1, 2, 3, 4, 1.0]], np.float32)
        p = 1 / p if relative and kind == "depth" else p
        metric = depth.MonoMetric(relative=relative)
        metric.update(sample_of(truth, tmp_path, kind=kind), DepthMap(p, geometry((5, 1), (5, 1))))
        assert (metric.compute()["rmse"] > 0.01) == counts


def test_pfm_files(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    path = tmp_path / "a.pfm"
    write_pfm(path, values)
    assert np.array_equal(read_pfm(path), values)
    path.write_bytes(b"Pf\n5 3\n2.5\n" + values[::-1].astype(">f4").tobytes())  # big-endian, size of scale ignored
    assert np.array_equal(read_pfm(path), values)
    path.write_bytes(b"PF\n1 1\n-1\n" + np.array([1, 2, 3], "<f4").tobytes())
    assert read_pfm(path).tolist() == [[[1, 2, 3]]]
    with pytest.raises(DataError, match="three channels"):
        read_map(path)
    for content, message in (
        (b"Pf\n5 3\n-1.0\n1234", "cut off"),
        (b"P5\n1 1\n255\n0", "not a PFM"),
        (b"", "not a PFM"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_pfm(path)
    with pytest.raises(DataError, match="cannot read"):
        read_pfm(tmp_path / "gone.pfm")


def test_png_maps(tmp_path: Path) -> None:
    path = tmp_path / "folder.pfm" / "a.png"  # the suffix decides, not what the path holds
    path.parent.mkdir()
    Image.fromarray(np.array([[0, 1500], [65535, 256]], np.uint16)).save(path)
    np.testing.assert_allclose(read_map(path), [[0, 1.5], [65.535, 0.256]], rtol=1e-6)
    np.testing.assert_allclose(read_map(path, 256), [[0, 1500 / 256], [65535 / 256, 1]], rtol=1e-6)
    Image.fromarray(np.array([[[0, 0, 0], [1, 2, 3]]], np.uint8)).save(path)
    np.testing.assert_allclose(read_map(path), [[np.inf, (65025 + 510 + 3) / 1000]], rtol=1e-6)
    Image.fromarray(np.array([[7]], np.uint8)).save(path)
    with pytest.raises(DataError, match="gt_scale"):
        DepthTruth(path).read()
    assert read_map(path, 2).tolist() == [[3.5]]
    mask = tmp_path / "mask.png"
    Image.fromarray(np.array([[254]], np.uint8)).save(mask)
    assert np.isinf(DepthTruth(path, scale=2, mask=mask).read()).all()
    for kind in ("L", "1", "P", "LA", "RGBA"):  # whatever a tool has made of black and white
        Image.fromarray(np.array([[255]], np.uint8)).convert(kind).save(mask)
        assert np.isfinite(DepthTruth(path, scale=2, mask=mask).read()).all(), kind
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(mask)
    with pytest.raises(DataError, match="the mask is 2 x 2"):
        DepthTruth(path, scale=2, mask=mask).read()
    for name in ("a.npy", "b.txt"):
        with pytest.raises(DataError, match=r"\.pfm or \.png"):
            read_map(tmp_path / name)


def test_annotation_files(tmp_path: Path) -> None:
    for name in ("l.png", "r.png", "g.png", "m.png"):
        (tmp_path / name).write_bytes(b"x")
    path = tmp_path / "list.txt"
    path.write_text("# comment\n\nl.png g.png\n  l.png\tr.png g.png m.png\n")
    mono = DepthList([AnnotationFile(path)], stereo=False, with_truth=True)
    assert [[p.name for p in mono[i].paths] for i in range(2)] == [["l.png"]] * 2  # also a PNG map on a line of two
    assert [mono[i].target.path.name for i in range(2)] == ["g.png"] * 2
    assert mono[1].target.mask.name == "m.png"
    assert mono[0].id != mono[1].id
    with pytest.raises(DataError, match=r"2 left images and 1 ground-truth maps: none at .*list\.txt:3"):
        DepthList([AnnotationFile(path)], stereo=True, with_truth=True)
    path.write_text("l.png g.png\n")  # a mono list: the default of dataset_name is StereoDataset
    with pytest.raises(DataError) as refused:
        DepthList([AnnotationFile(path)], stereo=True, with_truth=True)
    assert refused.value.remedy.endswith(" (single images: dataset.dataset_name=MonoDataset).")
    path.write_text("l.png r.png g.png\nl.png\n")
    with pytest.raises(DataError, match=r"2 left images and 1 right images: none at .*list\.txt:2"):
        DepthList([AnnotationFile(path)], stereo=True, with_truth=False)
    path.write_text("l.png r.png gone.pfm\n")
    with pytest.raises(DataError, match=r"ground-truth files are missing: .*gone\.pfm"):
        DepthList([AnnotationFile(path)], stereo=True, with_truth=True)
    path.write_text("# nothing\n")
    with pytest.raises(DataError, match="name no image"):
        DepthList([AnnotationFile(path)], stereo=False, with_truth=False)


def test_nyu_crop(tmp_path: Path) -> None:
    large, small = np.ones((480, 640), np.float32), np.ones((470, 640), np.float32)
    cropped = sample_of(large, tmp_path, crop=(45, 471, 41, 601)).target.read()
    assert cropped.sum() == (471 - 45) * (601 - 41)
    assert cropped[45, 41] == 1
    assert cropped[44, 41] == cropped[471, 600] == 0
    assert sample_of(small, tmp_path, crop=(45, 471, 41, 601)).target.read().sum() == small.size


def test_colours() -> None:
    values = np.array([[1.0, 2.0, 3.0], [np.nan, np.inf, 3.0]])
    picture = colorize(values)
    assert picture.shape == (2, 3, 3)
    assert picture[1, 0].tolist() == picture[1, 1].tolist() == [0, 0, 0]
    assert picture[0, 2, 0] > 100 > picture[0, 2, 2]  # the greatest value is red
    assert picture[0, 0, 2] > picture[0, 0, 0]  # the least is blue
    assert np.array_equal(picture[0, 2], picture[1, 2])
    assert len(np.unique(colorize(np.full((3, 3), 5.0)).reshape(-1, 3), axis=0)) == 1
    assert not colorize(np.full((2, 2), np.nan)).any()


def test_maps_of_one_name_do_not_overwrite_each_other_and_what_is_clipped_is_told(tmp_path: Path, capsys: Any) -> None:
    writer = DepthWriter(tmp_path, png16_scale=100)
    for folder in ("a/left", "b/left", "c/left"):
        values = np.array([[1.0, 655.36, -1.0]], np.float32)
        writer.write(Sample(0, (Path(folder) / "0.png",)), DepthMap(values, geometry((3, 1), (3, 1))))
    (written,) = writer.close()
    stems = ["left_0", "left_0_2", "left_0_3"]
    names = sorted(name for stem in stems for name in (f"{stem}.png", f"{stem}_16bit.png"))
    assert sorted(path.name for path in written.iterdir()) == names
    assert np.asarray(Image.open(written / "left_0_2_16bit.png")).tolist() == [[100, 65535, 0]]
    assert "6 pixels do not fit into 16 bits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scale", "kind"), [("-1.0", "<f4"), ("-0.25", "<f4"), ("0.25", ">f4"), ("1", ">f4"), ("9.5", ">f4")]
)
def test_the_sign_of_a_pfm_scale_is_the_byte_order(scale: str, kind: str, tmp_path: Path) -> None:
    rows = np.array([[1, 2, 3], [4, 5, 6]], kind)  # the lower row comes first
    (tmp_path / "a.pfm").write_bytes(f"Pf\n3 2\n{scale}\n".encode() + rows.tobytes())
    assert read_pfm(tmp_path / "a.pfm").tolist() == [[4, 5, 6], [1, 2, 3]]
