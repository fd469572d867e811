"""centerpose end to end: numbers, files, engines, mended defects, bad input, spec."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from actions.commands import Shell, write_spec
from cv.ocr.spec_trees import check_tree
from cv.pose import pose_replay as replay
from PIL import Image
from scipy.spatial.transform import Rotation

from nvidia_tao_deploy.cv.centerpose import decode
from nvidia_tao_deploy.cv.centerpose.spec import Spec
from nvidia_tao_deploy.cv.centerpose.transform import CameraGeometry
from nvidia_tao_deploy.metrics.poses import ERRORS, MEANS
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec

COUNT = len(replay.SIZES)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return replay.write_model(tmp_path_factory.mktemp("pose") / "centerpose.onnx")


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    shutil.copy(made, tmp_path)
    replay.write_images(tmp_path / "images")
    return tmp_path


def tree(folder: Path, number: int = 4) -> dict[str, Any]:
    matrix = replay.camera(replay.SIZES[number])
    camera = {"focal_length_x": matrix[0, 0], "focal_length_y": matrix[1, 1],
              "principle_point_x": matrix[0, 2], "principle_point_y": matrix[1, 2]}  # fmt: skip
    return {
        "results_dir": str(folder / "out"),
        "dataset": {"test_data": str(folder / "images"), "inference_data": str(folder / "images"), "batch_size": 2},
        "evaluate": {"trt_engine": str(folder / "centerpose.onnx")},
        "inference": {"trt_engine": str(folder / "centerpose.onnx"), **{k: float(v) for k, v in camera.items()}},
    }


def results(folder: Path) -> Any:
    return json.loads((folder / "out/trt_evaluate/results.json").read_text())


@pytest.mark.parametrize("batch", ["N", 2])
def test_a_perfect_model(shell: Shell, data: Path, batch: int | str) -> None:
    """Images of four sizes in batches of two, each with its own camera; relative sizes brought onto the ground."""
    if batch == 2:
        replay.write_model(data / "centerpose.onnx", 2)
    (data / "images" / "alone.png").write_bytes((data / "images" / "0.png").read_bytes())
    assert shell("centerpose", "evaluate", "-e", write_spec(data / "s.yaml", tree(data))) == 0, shell.err
    found = results(data)
    assert list(found)[:2] == ["test_3DIoU", "test_2DMPE"]
    assert found["test_3DIoU"] == 1
    assert found["Mean 3D IoU"] == pytest.approx(1, abs=1e-3)
    assert found["Mean Azimuth Error"] == pytest.approx(0, abs=0.01)
    assert found["test_2DMPE"] == pytest.approx(0, abs=1e-5)
    assert found["images_evaluated"] == COUNT
    assert "1 image without a .json file is left out: alone.png" in shell.out
    assert "5 objects, 5 predictions, 5 with an object" in shell.out
    assert "2 images show no object" in shell.out


@pytest.mark.parametrize(("symmetry", "absolute"), [(1, False), (4, False), (2, True)])
def test_errors_and_report_equal_the_contract(shell: Shell, data: Path, symmetry: int, absolute: bool) -> None:
    """Truths that are shifted, turned and stretched; an object of image 4 can hardly be seen."""
    replay.write_images(data / "images", moved=True)
    if absolute:
        replay.write_model(data / "centerpose.onnx", absolute=True)
    content = tree(data)
    content["dataset"]["use_absolute_scale"] = absolute
    content["evaluate"]["eval_num_symmetry"] = symmetry
    assert shell("centerpose", "evaluate", "-e", write_spec(data / "s.yaml", content)) == 0, shell.err
    rows, confidences, total = [], [], 0
    for image in (2, 4, 1):  # in the order of their paths
        truth = replay.annotation(image, moved=True)
        total += len(truth["objects"])
        for k, item in enumerate(replay.scene_objects(image)):
            ratio = 1 if absolute else item["size"][1]  # sizes relative to y give a larger scene
            item = {**item, "size": item["size"] / ratio, "location": item["location"] / ratio}
            seen = truth["objects"][k]["visibility"] > 0.1
            errors = replay.plain_errors(item, truth["objects"][k], truth, symmetry, absolute)
            rows.append(errors if seen else {name: worst for name, (_, worst) in ERRORS.items()})
            confidences.append(0.9 - 0.1 * k if seen else 0.0)
    lines = list(csv.reader((data / "out/trt_evaluate/report.csv").open()))
    matched = [row for row, confidence in zip(rows, confidences, strict=True) if confidence]
    for line, (name, key) in zip(lines[:5], MEANS.items(), strict=True):
        assert line[0] == f"{key}:"
        expected = np.mean([row[name] for row in matched])
        assert float(line[1]) == pytest.approx(expected, abs=2e-3), key
        assert results(data)[key] == pytest.approx(expected, rel=2e-3, abs=1e-4)
    heads = ["Scale Thresh:", "IoU Thresholds:", "2D Thresholds:", "Azimuth Thresh:", "Polar Thresh:", "ADD Thresh:",
             "ADDS Thresh:"]  # fmt: skip
    assert len(lines) == 5 + 3 * len(heads)
    assert all(re.fullmatch(r"\d+\.\d{4}", cell) for line in lines for cell in line[1:])
    for number, (name, (last, _)) in enumerate(ERRORS.items()):
        blank, thresholds, precisions = lines[5 + 3 * number : 8 + 3 * number]
        assert blank == []
        assert thresholds[0] == heads[number]
        assert precisions[0] == f"AP @{name}:"
        limits = np.linspace(0, last, 21)
        np.testing.assert_allclose(np.array(thresholds[1:], float), limits, atol=6e-5)  # degrees, not tenths of them
        for limit, precision in zip(limits, precisions[1:], strict=True):
            if any(0 < abs(row[name] - limit) < 1e-3 * last for row in rows):
                continue  # too near to a threshold to tell apart
            hits = [row[name] >= limit if name == "3D IoU" else row[name] <= limit for row in rows]
            assert float(precision) == pytest.approx(replay.plain_precision(confidences, hits, total), abs=6e-5), (
                name,
                limit,
                [row[name] for row in rows],
                precisions,
            )
    assert 0.1 < results(data)["Mean 3D IoU"] < 0.9


def test_a_grid_that_the_spec_states_wins_over_a_quarter_of_the_input() -> None:
    inputs = {"input": TensorInfo("input", (None, 3, 512, 512), np.dtype(np.float32))}
    outputs = {
        "scores": np.ones((1, 1, 1), np.float32),
        "bboxes": np.array([[[8, 16, 24, 32]]], np.float32),
        "obj_scale": np.ones((1, 1, 3), np.float32),
        "kps_heatmap_mean": np.full((1, 1, 16), -10000, np.float32),
    }
    flat = replay.on_image(replay.vertices(replay.scene_objects(1)[0]), replay.camera((512, 512)))
    placed = CameraGeometry((512, 512), (512, 512), (1, 1), camera=replay.camera((512, 512)))
    for dataset, cell in (({}, 4), ({"output_res": 64}, 8)):
        run = decode(load_spec(Spec, {"dataset": dataset}), Ports(inputs, {}), "evaluate")
        points = (flat / cell).reshape(1, 1, 16).astype(np.float32)
        (found,) = run({**outputs, "kps_displacement_mean": points}, [placed])
        np.testing.assert_allclose(found.boxes_xyxy, np.array([[8, 16, 24, 32]]) * cell)
        np.testing.assert_allclose(found.keypoints[0], flat, atol=1e-3)


@pytest.mark.parametrize("opencv", [True, False])
def test_inference_files(shell: Shell, data: Path, opencv: bool) -> None:
    spec = write_spec(data / "s.yaml", tree(data))
    assert shell("centerpose", "inference", "-e", spec, f"inference.opencv={opencv}") == 0, shell.err
    folder = data / "out/trt_inference"
    made = {str(path.relative_to(folder)) for path in folder.rglob("*.*") if path.is_file()}
    stems = ["0", "1", "2", "inner.jpg/0", "inner.jpg/1"]  # folders keep their names, equal names do not meet
    assert made - {"experiment.yaml", "status.json"} == {f"{stem}{end}" for stem in stems for end in (".png", ".json")}
    text = (folder / "2.json").read_text()
    entry = json.loads(text)
    assert text == json.dumps(entry, indent=4, sort_keys=True) + "\n"
    assert entry["image_name"] == "2.png"
    assert [item["id"] for item in entry["objects"]] == ["object_0", "object_1"]
    to_frame = np.eye(3) if opencv else replay.FLIP
    for item, truth in zip(entry["objects"], replay.scene_objects(4), strict=True):
        points, ratio = replay.vertices(truth), truth["size"][1]
        flat = replay.on_image(points, replay.camera(replay.SIZES[4]))
        np.testing.assert_allclose(item["relative_scale"], truth["size"] / ratio, rtol=1e-5)
        np.testing.assert_allclose(item["location"], to_frame @ truth["location"] / ratio, atol=1e-2)
        np.testing.assert_allclose(item["keypoints_3d"][1:], points @ to_frame.T / ratio, atol=1e-2)
        np.testing.assert_allclose(item["keypoints_3d"][0], item["location"], atol=1e-9)
        turned = Rotation.from_quat(item["quaternion_xyzw"]).as_matrix()
        np.testing.assert_allclose(turned, to_frame @ truth["rotation"], atol=2e-3)
        np.testing.assert_allclose(item["projected_keypoints_2d"][1:], flat, atol=0.05)
        np.testing.assert_allclose(item["projected_keypoints_2d"][0], flat.mean(axis=0), atol=0.05)
        np.testing.assert_allclose(item["keypoints_2d"], flat, atol=1e-3)
    assert json.loads((folder / "0.json").read_text())["objects"] == []
    picture = np.asarray(Image.open(folder / "2.png")).astype(int)
    assert picture.shape == (480, 640, 3)
    truth = replay.scene_objects(4)[0]
    flat = replay.on_image(replay.vertices(truth), replay.camera(replay.SIZES[4]))
    for first, second in ((2, 4), (2, 6), (5, 7), (1, 3)):  # edges are red half-way
        x, y = np.rint((flat[first - 1] + flat[second - 1]) / 2).astype(int)
        assert picture[y, x].tolist() == [255, 0, 0], (first, second)


def test_what_is_not_asked_for_is_not_written(shell: Shell, data: Path) -> None:
    spec = write_spec(data / "s.yaml", tree(data))
    words = ("inference.save_json=false", "inference.save_visualization=false")
    assert shell("centerpose", "inference", "-e", spec, *words) == 0, shell.err
    assert not [*(data / "out/trt_inference").rglob("*.png"), *(data / "out/trt_inference").glob("[0-9].json")]


@pytest.mark.parametrize("precision", ["FP32", "fp16", "int8"])
def test_engines(shell: Shell, data: Path, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    content = tree(data)
    content["gen_trt_engine"] = {
        "onnx_file": str(data / "centerpose.onnx"),
        "trt_engine": str(data / "built.engine"),
        "tensorrt": {
            "data_type": precision,
            "calibration": {"cal_image_dir": str(data / "images"), "cal_batch_size": 2, "cal_batches": 2},
        },
    }
    spec = write_spec(data / "s.yaml", content)
    assert shell("centerpose", "gen_trt_engine", "-e", spec) == 0, shell.err
    manifest = json.loads((data / "built.engine.json").read_text())
    assert manifest["profiles"]["input"]["max"] == [8, 3, 512, 512]
    assert manifest["transform"]["resize"] == "warp_letterbox"
    assert shell("centerpose", "evaluate", "-e", spec, f"evaluate.trt_engine={data / 'built.engine.onnx'}") == 0
    assert results(data)["test_3DIoU"] > 0.9, shell.out


def test_compare_takes_the_network(shell: Shell, data: Path) -> None:
    content = tree(data)
    content["compare"] = {"precisions": ["fp32"], "repeats": 1, "timing_seconds": 0.01}
    build = {"onnx_file": str(data / "centerpose.onnx"), "trt_engine": str(data / "built.engine")}
    content["gen_trt_engine"] = build
    assert shell("centerpose", "compare", "-e", write_spec(data / "s.yaml", content)) == 0, shell.err
    assert "test_3DIoU" in (data / "out/compare/compare.json").read_text()


@pytest.mark.parametrize("name", ["a.png", "turned.jpg"])
def test_transform_is_opencvs_warp(tmp_path: Path, name: str) -> None:
    """OpenCV turns a JPEG file upright; so are its pixels that keypoints and camera are of."""
    from nvidia_tao_deploy.cv.centerpose import transform
    from nvidia_tao_deploy.data.sample import Sample
    from nvidia_tao_deploy.network import Ports
    from nvidia_tao_deploy.runtime.session import TensorInfo

    turned = name == "turned.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (640, 301, 3) if turned else (301, 640, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / name, **({"exif": exif} if turned else {}))
    ports = Ports({"input": TensorInfo("x", (None, 3, 512, 512), np.dtype(np.float32))}, {})
    out = {"x": np.zeros((3, 512, 512), np.float32)}
    geometry = transform(Spec(), ports)(Sample("a", (tmp_path / name,)), out)
    source = np.array([[320, 150.5], [320, 150.5 - 320], [0, 150.5 - 320]], np.float32)  # centre, up, up and left
    target = np.array([[256, 256], [256, 0], [0, 0]], np.float32)
    warped = cv2.warpAffine(cv2.imread(str(tmp_path / name)), cv2.getAffineTransform(source, target), (512, 512))
    np.testing.assert_allclose(out["x"], ((warped / 255 - replay.MEAN) / replay.STD).transpose(2, 0, 1), atol=1e-5)
    np.testing.assert_allclose(source * geometry.scale + geometry.offset, target, atol=1e-9)
    assert out["x"][0, 0, 0] == pytest.approx(-replay.MEAN[0] / replay.STD[0])


def change(path: Path, **camera: Any) -> None:
    content = json.loads(path.read_text())
    content["camera_data"].update(camera)
    path.write_text(json.dumps(content))


def test_bad_input(shell: Shell, data: Path) -> None:
    spec = write_spec(data / "s.yaml", tree(data))
    message = shell.refused(2, "centerpose", "inference", "-e", spec, "inference.focal_length_y=0")
    assert "inference.focal_length_y is 0" in message
    message = shell.refused(2, "centerpose", "evaluate", "-e", spec, "dataset.input_res=256")
    assert "dataset.input_res" in message
    assert "test_data" in shell.refused(2, "centerpose", "evaluate", "-e", spec, "dataset.test_data=")
    (data / "images" / "1.png").write_bytes(b"broken")
    change(data / "images" / "2.json", width=320)
    assert shell("centerpose", "evaluate", "-e", spec) == 0, shell.err
    assert results(data)["images_skipped"] == 2
    assert "the image is 640 x 480, its annotation says 320 x 480" in shell.out
    change(data / "images" / "2.json", width=640, intrinsics={"fx": 0, "fy": 1, "cx": 0, "cy": 0})
    assert "'fx' must be positive" in shell.refused(1, "centerpose", "evaluate", "-e", spec)
    change(data / "images" / "2.json", intrinsics={"fx": 1, "cx": 0, "cy": 0})
    assert "2.json: the annotation has no 'fy'" in shell.refused(1, "centerpose", "evaluate", "-e", spec)
    change(data / "images" / "2.json", intrinsics={"fx": 1, "fy": 1, "cx": 0, "cy": 0}, camera_projection_matrix=[[1]])
    message = shell.refused(1, "centerpose", "evaluate", "-e", spec)
    assert "'camera_projection_matrix' must hold 4 x 4 finite numbers" in message
    flat = replay.annotation(4)
    flat["objects"][1]["scale"] = [1, 0, 1]
    (data / "images" / "2.json").write_text(json.dumps(flat))
    message = shell.refused(1, "centerpose", "evaluate", "-e", spec)  # its relative error would be infinite
    assert "2.json: 'scale of object 1' must be positive, not 0.0" in message
    (data / "images" / "2.json").write_text("{")
    assert "2.json: cannot read the annotation" in shell.refused(1, "centerpose", "evaluate", "-e", spec)
    for path in (data / "images").rglob("*.json"):
        path.unlink()
    assert "no image has a .json file" in shell.refused(1, "centerpose", "evaluate", "-e", spec)


def test_the_ground_is_needed_for_relative_sizes_only(shell: Shell, data: Path) -> None:
    spec = write_spec(data / "s.yaml", tree(data))
    for ground, message in (
        ({"plane_center": [1, 2, 3], "plane_normal": [0, 0, 0]}, "no normal"),
        (None, "no 'AR_data'"),
    ):
        for path in (data / "images").rglob("*.json"):
            content = {**json.loads(path.read_text()), "AR_data": ground}
            path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        assert message in shell.refused(1, "centerpose", "evaluate", "-e", spec)
    assert shell("centerpose", "evaluate", "-e", spec, "dataset.use_absolute_scale=true") == 0, shell.err


def test_a_model_that_lacks_an_output(shell: Shell, data: Path) -> None:
    import onnx

    model = onnx.load(str(data / "centerpose.onnx"))
    model.graph.output.remove(next(value for value in model.graph.output if value.name == "obj_scale"))
    onnx.save(model, str(data / "centerpose.onnx"))
    message = shell.refused(1, "centerpose", "evaluate", "-e", write_spec(data / "s.yaml", tree(data)))
    assert "'obj_scale' of rank 3" in message


def test_spec(tmp_path: Path) -> None:
    values = {"data_type": "INT8", "layers_precision": ["*:fp32"], "mean": [0.5] * 3, "std": [0.5] * 3}
    check_tree(Spec, "centerpose", values, {"dataset": "use_absolute_scale", "inference": "axis_size"}, tmp_path)
