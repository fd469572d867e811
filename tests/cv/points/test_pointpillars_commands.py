"""pointpillars end to end on a replay model: numbers, label files, pictures, bad input, spec."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actions.commands import Shell, write_spec
from cv.ocr.spec_trees import check_tree
from cv.points import plain_3d as plain
from cv.points.cloud_replay import AREA, NAMES, label_lines, random_boxes, write_cloud, write_replay
from PIL import Image

from nvidia_tao_deploy.cv.pointpillars import point_format, transform, voxel_caps
from nvidia_tao_deploy.cv.pointpillars.spec import MASK, Spec
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.predictions.cloud_writer import BACKGROUND, FOUND, SIDE, TRUTH, birds_eye
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec

COUNT = 5


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


class Data:
    """Five clouds, two of which are .npy; the model finds the truth, moved a little, and more."""

    def __init__(self, root: Path, batch: int | str = "batch") -> None:
        self.root = root
        rng = np.random.default_rng(5)
        self.truth, self.frames = [], []
        for number in range(COUNT):
            boxes, classes = random_boxes(rng, number), rng.integers(0, 3, number)
            boxes[:, 0] += np.arange(number) * 4
            name = f"{number:06d}"
            write_cloud(root / "val" / "lidar" / f"{name}{'.npy' if number % 2 else '.bin'}", number + 1, rng)
            (root / "val" / "label").mkdir(exist_ok=True)
            (root / "val" / "label" / f"{name}.txt").write_text(label_lines(boxes, classes))
            found = np.concatenate([boxes + rng.normal(0, 0.08, boxes.shape), random_boxes(rng, 6)])
            labels = np.concatenate([classes, rng.integers(0, 3, 6)])
            self.truth.append((boxes, classes))
            self.frames.append(np.column_stack([found, labels, rng.uniform(0.05, 1, len(found))]).astype(np.float32))
        write_replay(root / "model.onnx", self.frames, batch=batch)

    def tree(self) -> dict[str, Any]:
        return {
            "results_dir": str(self.root / "out"),
            "dataset": {"class_names": NAMES, "data_path": str(self.root), "point_cloud_range": AREA,
                        "data_processor": [{"name": MASK, "remove_outside_boxes": True}]},
            "evaluate": {"trt_engine": str(self.root / "model.onnx"), "batch_size": 2},
            "inference": {"trt_engine": str(self.root / "model.onnx"), "batch_size": 2, "save_to_file": True},
        }  # fmt: skip

    def expected(self) -> list[list[tuple[float, ...]]]:
        return [plain.decode(rows, 0.1, 0.01, 4096, 500) for rows in self.frames]

    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "out/trt_evaluate/results.json").read_text())
        return found


@pytest.mark.parametrize("batch", ["batch", 1, 2])
def test_evaluate(shell: Shell, tmp_path: Path, batch: int | str) -> None:
    data = Data(tmp_path, batch)
    spec = write_spec(tmp_path / "s.yaml", data.tree())
    assert shell("pointpillars", "evaluate", "-e", spec, "evaluate.save_to_file=true") == 0, shell.err
    frames = [
        (
            list(zip(boxes.tolist(), classes.tolist(), strict=True)),
            [(list(row[:7]), int(row[7]), row[8]) for row in found],
        )
        for (boxes, classes), found in zip(data.truth, data.expected(), strict=True)
    ]
    found = data.results()
    for kind, overlap in (("bev", plain.bev), ("3d", plain.space)):
        expected = [plain.average_precision(frames, i, overlap) for i in range(3)]
        assert [found[f"{kind} AP {name}"] for name in NAMES] == pytest.approx(expected, abs=1e-6)
        assert found[f"{kind} mAP"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert 0 < found["3d mAP"] < 100
    assert found["images_evaluated"] == COUNT
    assert f"{COUNT} clouds evaluated, " in shell.out
    assert " clouds/s on " in shell.out
    assert found["unit"] == "clouds"
    assert found["detections_per_cloud"] == np.mean([len(rows) for rows in data.expected()])
    assert f"bev  mAP: {found['bev mAP']:.4f}" in shell.out
    assert "Car AP@0.50, 0.50:" in shell.out
    assert len(list((tmp_path / "out/trt_evaluate/detected_labels").iterdir())) == COUNT


def test_inference(shell: Shell, tmp_path: Path) -> None:
    """A label line per box under the full name of the cloud; pictures; neither needs labels."""
    data = Data(tmp_path)
    (tmp_path / "val/label/000003.txt").unlink()
    spec = write_spec(tmp_path / "s.yaml", data.tree())
    assert shell("pointpillars", "inference", "-e", spec) == 0, shell.err
    folder = tmp_path / "out/trt_inference"
    for number, rows in enumerate(data.expected()):
        lines = (folder / f"detected_labels/{number:06d}.txt").read_text().splitlines()
        assert lines == [
            f"{NAMES[int(label)]} -1 -1 0.0000 0.0000 0.0000 0.0000 0.0000 "
            + " ".join(f"{value:.4f}" for value in (dz, dy, dx, x, y, z, yaw, score))
            for x, y, z, dx, dy, dz, yaw, label, score in rows
        ]
        picture = np.asarray(Image.open(folder / f"detected_boxes/{number:06d}.png"))
        assert picture.shape == (SIDE, SIDE, 3)
        assert (picture == FOUND).all(2).any()
        assert (picture == TRUTH).all(2).any() == (number not in (0, 3))
    best = max((rows[0][8], number) for number, rows in enumerate(data.expected()) if rows)  # is drawn still
    for least, drawn in ((best[0], True), (np.nextafter(best[0], 9), False)):
        words = ("-e", spec, f"inference.viz_conf_thresh={float(least)!r}", f"results_dir={tmp_path / 'best'}")
        assert shell("pointpillars", "inference", *words) == 0, shell.err
        picture = np.asarray(Image.open(tmp_path / f"best/trt_inference/detected_boxes/{best[1]:06d}.png"))
        assert (picture == FOUND).all(2).any() == drawn
    assert shell("pointpillars", "inference", "-e", spec, "inference.save_to_file=false",
                 f"results_dir={tmp_path / 'plain'}") == 0, shell.err  # fmt: skip
    assert [path.name for path in (tmp_path / "plain/trt_inference").iterdir() if path.is_dir()] == ["detected_labels"]


def test_limits_of_suppression_and_pictures_are_the_specs(shell: Shell, tmp_path: Path) -> None:
    """Before suppression the best rows take part, after it the best boxes are kept."""
    data = Data(tmp_path)
    spec = write_spec(tmp_path / "s.yaml", data.tree())
    key = "model.post_processing.nms_config.nms_p"
    counts = {}
    for name, more in (("all", []), ("before", [f"{key}re_max_size=2"]), ("after", [f"{key}ost_max_size=1"])):
        words = ("-e", spec, *more, f"results_dir={tmp_path / name}", "inference.save_to_file=false")
        assert shell("pointpillars", "inference", *words) == 0, shell.err
        files = sorted((tmp_path / name / "trt_inference/detected_labels").iterdir())
        counts[name] = [len(path.read_text().splitlines()) for path in files]
    assert counts["after"] == [min(count, 1) for count in counts["all"]]
    assert max(counts["before"]) <= 2 < max(counts["all"])


def test_picture() -> None:
    """x to the right, y up, the square around the range; the line to the front tells heading."""
    area = [0, -10, -3, 20, 10, 1]
    box = np.array([[5.0, 4, 0, 6, 2, 2, 0]])
    picture = np.asarray(birds_eye(np.array([[15, -5, 0, 0], [np.nan, 0, 0, 0]], np.float32), box[:0], box, area))

    def at(x: float, y: float) -> tuple[int, ...]:
        return tuple(picture[round((10 - y) / 20 * (SIDE - 1)), round(x / 20 * (SIDE - 1))].tolist())

    assert at(8, 4) == at(2, 4) == at(5, 5) == at(5, 3) == FOUND
    assert at(6.5, 4) == FOUND  # heads along x
    assert at(3.5, 4) == BACKGROUND
    assert at(15, -5) != BACKGROUND
    # the farthest that the area holds, the nearest, and one that is nowhere
    ends = np.array([[20, 10, 0, 0], [20, -10, 0, 0], [0, 0, 0, 0], [9, 0, np.nan, 0], [-9, 5, 0, 0]], np.float32)
    picture = np.asarray(birds_eye(ends, box[:0], box[:0], area))
    assert at(20, 10) == at(20, -10) == (253, 231, 37) != at(0, 0)  # where viridis ends
    assert at(9, 0) == BACKGROUND
    assert (picture[round((10 - 5) / 20 * (SIDE - 1)), :20] == BACKGROUND).all()  # what lies outside is not moved in
    assert (picture != BACKGROUND).any(2).mean() < 0.02


def test_bad_clouds(shell: Shell, tmp_path: Path) -> None:
    """NaN points, no points, too many points, a cut file: handled and named, or an error with strict."""
    data = Data(tmp_path)
    lidar = tmp_path / "val/lidar"
    rng = np.random.default_rng(0)
    points = write_cloud(lidar / "000000.bin", 1, rng, 200)  # the model takes 64
    points[5:9, 1] = np.nan
    points.tofile(lidar / "000000.bin")
    (lidar / "000002.bin").write_bytes(b"")
    (lidar / "000004.bin").write_bytes(bytes(66))
    spec = write_spec(tmp_path / "s.yaml", data.tree())
    assert shell("pointpillars", "inference", "-e", spec, "inference.save_to_file=true") == 0, shell.err
    picture = np.asarray(Image.open(tmp_path / "out/trt_inference/detected_boxes/000002.png"))
    assert {tuple(color) for color in np.unique(picture.reshape(-1, 3), axis=0)} <= {BACKGROUND, TRUTH, FOUND}
    assert shell("pointpillars", "evaluate", "-e", spec) == 0, shell.err
    assert "4 points of 1 cloud left out: they are NaN or infinite" in shell.out
    assert "132 points of 1 cloud left out: the model's input is full" in shell.out
    assert "1 cloud holds no point at all" in shell.out
    assert "000004.bin: cannot read the point cloud: buffer size" in shell.out  # no whole number of floats
    found = data.results()
    assert (found["images_evaluated"], found["images_skipped"]) == (4, 1)
    assert found["unit"] == "clouds"
    assert found["detections_per_cloud"] == sum(len(data.expected()[i]) for i in (0, 1, 3)) / 4
    assert "strict" not in shell.refused(1, "pointpillars", "evaluate", "-e", spec, "strict=true")
    message = shell.refused(1, "pointpillars", "evaluate", "-e", spec, "dataset.class_names=[Car,Pedestrian]")
    assert "class 2" in message
    (tmp_path / "val/label/000001.txt").unlink()
    assert shell("pointpillars", "evaluate", "-e", spec) == 0, shell.err
    assert "1 cloud skipped, it has no label file" in shell.out
    assert data.results()["images_evaluated"] == 3
    message = shell.refused(1, "pointpillars", "evaluate", "-e", spec, "dataset.data_split={test: train}")
    assert "no point cloud" in message


def test_a_wrong_number_of_features_is_told(shell: Shell, tmp_path: Path) -> None:
    """Clouds of 4 features read with 5: the one in five that divides would be measured, wrongly."""
    data = Data(tmp_path)
    for path in (tmp_path / "val/lidar").glob("*.npy"):
        np.load(path).tofile(path.with_suffix(".bin"))
        path.unlink()
    first, *others = sorted((tmp_path / "val/lidar").glob("*.bin"))
    first.write_bytes(first.read_bytes()[: 5 * 16])
    for path in others:
        path.write_bytes(path.read_bytes()[: 4 * 16])
    spec = write_spec(tmp_path / "s.yaml", data.tree())
    features = "dataset.data_augmentor.aug_config_list=[{num_point_features: 5}]"
    for action in ("evaluate", "inference"):
        message = shell.refused(1, "pointpillars", action, "-e", spec, features)
        assert "4 of 5 clouds are no list of points of 5 features: 000001.bin" in message
        assert "num_point_features" in message
    first.write_bytes(first.read_bytes()[:70])  # one is cut
    assert shell("pointpillars", "evaluate", "-e", spec) == 0, shell.err
    assert data.results()["images_skipped"] == 1


def test_voxel_caps_are_kept_to(shell: Shell, tmp_path: Path) -> None:
    data = Data(tmp_path)
    rng = np.random.default_rng(0)
    write_cloud(tmp_path / "val/lidar/000000.bin", 1, rng, 3).repeat(20, axis=0).tofile(
        tmp_path / "val/lidar/000000.bin"
    )
    tree = data.tree()
    caps = {"name": "transform_points_to_voxels", "voxel_size": [0.5, 0.5, 4], "max_points_per_voxel": 4}
    tree["dataset"]["data_processor"].append({**caps, "max_number_of_voxels": {"test": 2}})
    spec = write_spec(tmp_path / "s.yaml", tree)
    assert shell("pointpillars", "inference", "-e", spec) == 0, shell.err
    left_out = 60 - 8 + 4 * 38  # two voxels of four points here; two of one point in each of the other clouds
    assert f"{left_out} points of 5 clouds left out: their voxels are full" in shell.out
    tree["dataset"]["data_processor"][-1] = caps
    message = shell.refused(2, "pointpillars", "inference", "-e", write_spec(tmp_path / "s.yaml", tree))
    assert "max_number_of_voxels" in message


@pytest.mark.parametrize("precision", ["FP32", "fp16"])
def test_engine(shell: Shell, tmp_path: Path, precision: str) -> None:
    """With the established keys of the build section; int8 is refused."""
    pytest.importorskip("tensorrt_rtx")
    data = Data(tmp_path)
    build = {"onnx_file": str(tmp_path / "model.onnx"), "save_engine": str(tmp_path / "new/built.engine")}
    tree = {**data.tree(), "gen_trt_engine": {**build, "data_type": precision, "workspace_size": 256}}
    spec = write_spec(tmp_path / "s.yaml", tree)
    assert shell("pointpillars", "gen_trt_engine", "-e", spec) == 0, shell.err
    manifest = json.loads((tmp_path / "new/built.engine.json").read_text())
    assert manifest["precision"] == precision.lower()
    assert manifest["labels"] == NAMES
    prepared = tmp_path / "new/built.engine.onnx"
    assert shell("pointpillars", "evaluate", "-e", spec, f"evaluate.trt_engine={prepared}") == 0, shell.err
    assert data.results()["images_evaluated"] == COUNT
    assert "fp32" in shell.refused(2, "pointpillars", "gen_trt_engine", "-e", spec, "gen_trt_engine.data_type=int8")


@pytest.mark.parametrize(("shape", "fits"), [((None, 90, 4), True), ((None, 90, 5), False), ((None, None, 4), False)])
def test_points_of_another_form_are_refused(shape: tuple[int | None, ...], fits: bool) -> None:
    inputs = {"points": TensorInfo("points", shape, np.dtype(np.float32)),
              "num_points": TensorInfo("num_points", (None,), np.dtype(np.int32))}  # fmt: skip
    with nullcontext() if fits else pytest.raises(ModelError, match="a fixed number of points with 4 features"):
        transform(load_spec(Spec, {}), Ports(inputs, {}))


@pytest.mark.parametrize("masked", [True, False])
def test_the_range_counts_where_the_spec_masks_points(masked: bool, tmp_path: Path) -> None:
    """Bounds included; z is the model's business."""
    steps = [*([{"name": MASK}] if masked else []), {"name": "shuffle_points"}]
    spec = load_spec(Spec, {"dataset": {"data_processor": steps, "point_cloud_range": [0, -2, -1, 4, 2, 1]}})
    inputs = {"points": TensorInfo("points", (None, 9, 4), np.dtype(np.float32)),
              "num_points": TensorInfo("num_points", (None,), np.dtype(np.int32))}  # fmt: skip
    points = np.array([[0, -2, 0, 1], [4, 2, 9, 2], [4.1, 0, 0, 3], [1, -2.1, 0, 4]], np.float32)
    points.tofile(tmp_path / "a.bin")
    out = {"points": np.ones((9, 4), np.float32), "num_points": np.zeros((), np.int32)}
    transform(spec, Ports(inputs, {}))(Sample("a", (tmp_path / "a.bin",)), out)
    kept = 2 if masked else 4
    assert out["num_points"] == kept
    np.testing.assert_array_equal(out["points"], np.concatenate([points[:kept], np.zeros((9 - kept, 4))]))


def test_spec(tmp_path: Path) -> None:
    for dataset, key in (
        ({"point_cloud_range": [0, 0, 0, 1, 1]}, "point_cloud_range"),
        ({"point_cloud_range": [0, 0, 0, 1, -1, 1]}, "point_cloud_range is empty"),
        ({"point_feature_encoding": {"used_feature_list": ["x", "y", "z", "ring"]}}, "ring"),
        ({"point_feature_encoding": {"used_feature_list": ["y", "x", "z"]}}, "start with x, y, z"),
    ):
        with pytest.raises(SpecError, match=key):
            load_spec(Spec, {"dataset": dataset})
    spec = load_spec(Spec, {})
    assert voxel_caps(spec).voxels == 10000  # type: ignore[union-attr]
    encoding = {
        "src_feature_list": ["x", "y", "z", "ring", "intensity"],
        "used_feature_list": ["x", "y", "z", "intensity"],
    }
    spec = load_spec(Spec, {"dataset": {"point_feature_encoding": encoding}})
    assert (point_format(spec).features, point_format(spec).columns) == (5, (0, 1, 2, 4))
    augmentor = {"aug_config_list": [{"name": "gt_sampling", "num_point_features": 6}]}
    spec = load_spec(Spec, {"dataset": {"point_feature_encoding": encoding, "data_augmentor": augmentor}})
    assert point_format(spec).features == 6
    augmentor["aug_config_list"].append({"name": "world_flip", "num_point_features": 9})  # the first one counts
    spec = load_spec(Spec, {"dataset": {"point_feature_encoding": encoding, "data_augmentor": augmentor}})
    assert point_format(spec).features == 6
    for value in ("six", None):
        wrong = load_spec(Spec, {"dataset": {"data_augmentor": {"aug_config_list": [{"num_point_features": value}]}}})
        with pytest.raises(SpecError, match=f"num_point_features is {value!r}"):
            point_format(wrong)
    for sides in ([0.0, 1, 1], [1.0], 3):
        caps = {"voxel_size": sides, "max_points_per_voxel": 2, "max_number_of_voxels": {"test": 2}}
        processor = [{"name": "transform_points_to_voxels", **caps}]
        with pytest.raises(SpecError, match="needs voxel_size"):
            voxel_caps(load_spec(Spec, {"dataset": {"data_processor": processor}}))
    augmentor["aug_config_list"][0]["num_point_features"] = 4
    with pytest.raises(SpecError, match="num_point_features is 4"):
        point_format(load_spec(Spec, {"dataset": {"point_feature_encoding": encoding, "data_augmentor": augmentor}}))
    values = {
        "data_type": "fp16", "point_cloud_range": AREA, "data_split": {"test": "val"},
        "data_processor": [{"name": "a"}],
        "aug_config_list": [{"name": "a"}], "info_path": {"test": ["a"]}, "layers_precision": ["*:fp32"],
        "point_feature_encoding": {"used_feature_list": ["x", "y", "z"]},
    }  # fmt: skip
    check_tree(Spec, "pointpillars", values, {"dataset": "class_names", "inference": "viz_conf_thresh"}, tmp_path)
