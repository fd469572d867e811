"""Decoders of efficientdet, mask_rcnn and faster_rcnn equal the contract in plain Python; transforms and name lists."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cv.kitti import kitti_replay as kitti
from cv.two_stage import two_stage_replay as replay
from PIL import Image

from nvidia_tao_deploy.cv import efficientdet_tf2, faster_rcnn, mask_rcnn
from nvidia_tao_deploy.cv.efficientdet_tf2.label_map import BUILT_IN, read_label_map
from nvidia_tao_deploy.cv.faster_rcnn import decode_rois
from nvidia_tao_deploy.cv.mask_rcnn.decode import decode_masks
from nvidia_tao_deploy.cv.rtdetr import COCO_80_IDS
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import ModelError, SpecError, TaoDeployError
from nvidia_tao_deploy.families.efficientdet import decode_efficient_nms
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.predictions.masks import mask_corners, paste_roi_mask
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec
from nvidia_tao_deploy.transforms.transform import Geometry

F = np.float32
IMAGES = [(160, 80), (30, 200), (128, 64)]


def geometry(size: tuple[int, int]) -> Geometry:
    scale = 1 / max(size[0] / replay.NET[0], size[1] / replay.NET[1])
    return Geometry(size, replay.NET, (scale, scale))


def random_boxes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """y1, x1, y2, x2 in network pixels, some of them outside."""
    low = rng.uniform(-20, 100, (*shape, 2))
    return np.concatenate([low, low + rng.uniform(1, 80, (*shape, 2))], -1).astype(F)


@pytest.mark.parametrize(
    ("network", "section"), [("efficientdet_tf1", "eval_config"), ("efficientdet_tf2", "evaluate")]
)
def test_efficientdet_keeps_a_hundred_detections_unless_told(network: str, section: str) -> None:
    page = importlib.import_module(f"nvidia_tao_deploy.cv.{network}").NETWORK
    outputs = {
        "num_detections": np.array([[130]], np.int32),
        "detection_boxes": np.ones((1, 130, 4), F),
        "detection_scores": np.ones((1, 130), F),
        "detection_classes": np.zeros((1, 130), np.int32),
    }
    for settings, count in (({}, 100), ({section: {"max_detections_per_image": 120}}, 120)):
        for action in ("evaluate", "inference"):
            decode = page.decode(page.spec.model_validate(settings), None, action)
            assert len(decode(outputs, [geometry(IMAGES[0])])[0]) == count


@pytest.mark.parametrize("seed", range(8))
def test_efficientdet_equals_plain_python(seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch, used, keep = 3, int(rng.integers(1, 4)), 7
    outputs = {
        "num_detections": rng.integers(0, keep + 1, (batch, 1)).astype(np.int32),
        "detection_boxes": random_boxes(rng, batch, keep),
        "detection_scores": np.sort(rng.integers(0, 5, (batch, keep)) / F(4))[:, ::-1],
        "detection_classes": rng.integers(0, 90, (batch, keep)).astype(np.int32),
    }
    limit = int(rng.integers(1, 9))
    found = decode_efficient_nms(outputs, [geometry(size) for size in IMAGES[:used]], limit, clip=False)
    assert len(found) == used
    for n, detections in enumerate(found):
        rows = replay.plain_efficientdet(list(outputs.values()), n, IMAGES[n], limit)
        assert detections.class_ids.tolist() == [row[0] for row in rows]
        assert detections.scores.tolist() == [row[1] for row in rows]
        np.testing.assert_allclose(detections.boxes_xyxy, np.array([row[2] for row in rows]).reshape(-1, 4), atol=1e-9)


def test_efficientdet_clips_all_four_and_refuses_nonsense() -> None:
    outputs: dict[str, Any] = {
        "num_detections": np.array([[1]], np.int32),
        "detection_boxes": np.array([[[-5, -6, 900, 700], [np.nan] * 4]], F),
        "detection_scores": np.array([[0.5, np.nan]], F),
        "detection_classes": np.array([[0, -9]], np.int32),
    }
    (found,) = decode_efficient_nms(outputs, [geometry((160, 80))], 100, clip=True)  # the second row is padding
    assert found.boxes_xyxy.tolist() == [[0, 0, 160, 80]]
    outputs["num_detections"][:] = 2
    with pytest.raises(ModelError, match="not finite"):
        decode_efficient_nms(outputs, [geometry((160, 80))], 100, clip=True)
    outputs["num_detections"][:] = 3
    with pytest.raises(ModelError, match="2 rows"):
        decode_efficient_nms(outputs, [geometry((160, 80))], 100, clip=True)


@pytest.mark.parametrize("seed", range(6))
def test_mask_rcnn_equals_plain_python(seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch, used, keep, classes, side = 3, int(rng.integers(1, 4)), 5, 4, int(rng.integers(4, 9))
    rows = np.zeros((batch, keep, 6), F)
    rows[..., :4] = random_boxes(rng, batch, keep)
    rows[..., 4] = rng.choice([-1, 0, 1, 2, 3], (batch, keep), p=[0.2, 0.1, 0.3, 0.2, 0.2])
    rows[..., 5] = rng.integers(0, 5, (batch, keep)) / F(4)
    rows[0, 0] = [500, 500, 600, 600, 1, 0.9]  # far outside
    rows[1, :, 4] = -1  # nothing
    logits = rng.normal(0, 3, (batch, keep, classes, side, side)).astype(F)
    outputs = {"generate_detections": rows, "mask_fcn_logits/BiasAdd": logits}
    found = decode_masks(outputs, [geometry(size) for size in IMAGES[:used]])
    assert len(found) == used
    for n, detections in enumerate(found):
        wanted = replay.plain_mask_rcnn(rows[n], logits[n], IMAGES[n])
        assert detections.class_ids.tolist() == [row[0] for row in wanted]
        assert detections.scores.tolist() == [row[1] for row in wanted]
        for box, pasted, (_, _, wanted_box, pixels) in zip(
            detections.boxes_xyxy, detections.pasted(), wanted, strict=True
        ):
            assert box.tolist() == pytest.approx(wanted_box, abs=1e-9)
            canvas = np.zeros(pixels.shape, np.uint8)
            (left, top), (high, wide) = pasted.corner, pasted.part.shape
            canvas[top : top + high, left : left + wide] = pasted.part
            np.testing.assert_array_equal(canvas, pixels)


def test_mask_rcnn_refuses_what_does_not_fit() -> None:
    rows = np.array([[[1, 1, 9, 9, 4, 0.5]]], F)
    logits = np.zeros((1, 1, 4, 8, 8), F)
    outputs = {"generate_detections": rows, "mask_fcn_logits/BiasAdd": logits}
    with pytest.raises(ModelError, match="class 4"):
        decode_masks(outputs, [geometry((160, 80))])
    rows[0, 0, 4], logits[0, 0, 2, 3, 3] = 2, np.nan
    with pytest.raises(ModelError, match="not finite"):
        decode_masks(outputs, [geometry((160, 80))])
    with pytest.raises(ModelError, match=r"\(B, D, 6\)"):
        decode_masks({**outputs, "mask_fcn_logits/BiasAdd": logits[0]}, [geometry((160, 80))])


def test_corners_of_masks_are_cut_off_toward_zero() -> None:
    """S = 8: the box grows by 10 / 8."""
    assert mask_corners(np.array([[-1.0, 2.0, 15.0, 18.0]]), 8).tolist() == [[-3, 0, 17, 20]]
    assert mask_corners(np.array([[-0.5, 0.3, 1.5, 2.3]]), 8).tolist() == [[0, 0, 1, 2]]
    pasted = paste_roi_mask(np.ones((8, 8), F), mask_corners(np.array([[4.0, 4.0, 12.0, 12.0]]), 8)[0], (10, 10))
    assert pasted.corner == (3, 3)
    assert pasted.part.shape == (7, 7)
    assert pasted.part[2:, 2:].all()  # one half is reached within the border's cell


@pytest.mark.parametrize("seed", range(6))
def test_faster_rcnn_equals_plain_python(seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch, used, keep = 3, int(rng.integers(1, 4)), 6
    rows = np.zeros((batch, 1, keep, 7), F)
    rows[:, 0, :, 1] = rng.integers(0, 3, (batch, keep))
    rows[:, 0, :, 2] = rng.integers(0, 11, (batch, keep)) / F(10)
    rows[:, 0, :, 3:] = np.sort(rng.uniform(0, 1, (batch, keep, 2, 2)), axis=2).reshape(batch, keep, 4)
    counts = rng.integers(0, keep + 1, (batch, 1, 1, 1)).astype(np.int32)
    sizes = kitti.SIZES[:used]
    geometries = []
    for size in sizes:
        wide, high, left, top = kitti.letterbox(size)
        geometries.append(Geometry(size, kitti.NET, (wide / size[0], high / size[1]), (left, top)))
    for raw in (counts, counts.view(F)):
        found = decode_rois({"nms_out": rows, "nms_out_1": raw}, geometries, replay.NAMES, 0.3)
        assert len(found) == used
        for n, detections in enumerate(found):
            wanted = replay.plain_faster_rcnn([rows, counts], n, 0.3)
            assert detections.class_ids.tolist() == [row[0] for row in wanted]
            assert detections.scores.tolist() == [row[1] for row in wanted]
            clipped = np.clip(detections.boxes_xyxy, 0, sizes[n] * 2)
            boxes = [kitti.plain_source("yolo", sizes[n], row[2:]) for row in wanted]
            np.testing.assert_allclose(clipped, np.array(boxes).reshape(-1, 4), atol=1e-9)


def test_rois_end_one_pixel_short_of_the_canvas() -> None:
    """A roi of the whole canvas ends at its last pixel, not beyond it, as rescaling by W and H would have it."""
    rows = np.array([[[[0, 1, 0.9, 0, 0, 1, 1]]]], F)
    whole = Geometry(kitti.NET, kitti.NET, (1.0, 1.0))
    outputs = {"nms_out": rows, "nms_out_1": np.ones((1, 1, 1, 1), np.int32)}
    (found,) = decode_rois(outputs, [whole], replay.NAMES, 0.1)
    assert found.boxes_xyxy.tolist() == [[0, 0, kitti.NET[0] - 1, kitti.NET[1] - 1]]


# transforms -----------------------------------------------------------------------------------------------------------


def run_transform(network: Any, shape: tuple[int, ...], path: Path, tree: dict[str, Any] | None = None) -> np.ndarray:
    role = {"faster_rcnn": "input_image", "mask_rcnn": "Input"}.get(network.NETWORK.name, "input")
    ports = Ports({role: TensorInfo(role, (None, *shape), np.dtype(F))}, {})
    out = np.zeros(shape, F)
    network.NETWORK.transform(load_spec(network.NETWORK.spec, tree or {}), ports)(Sample("x", (path,)), {role: out})
    return out


def padded(pixels: np.ndarray) -> np.ndarray:
    """The contract's canvas: Pillow bilinear, top left, the rest (124, 116, 104)."""
    picture = Image.fromarray(pixels)
    scale = 1 / max(picture.width / replay.NET[0], picture.height / replay.NET[1])
    canvas = Image.new("RGB", replay.NET, (124, 116, 104))
    size = (round(picture.width * scale), round(picture.height * scale))
    canvas.paste(picture.resize(size, Image.Resampling.BILINEAR), (0, 0))
    return np.asarray(canvas, F)


@pytest.mark.parametrize("size", [(70, 50), (200, 31), (128, 64)])
def test_efficientdet_and_mask_rcnn_inputs(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    canvas = padded(pixels)
    rows, columns = replay.NET[1], replay.NET[0]
    path = tmp_path / "x.png"
    np.testing.assert_array_equal(run_transform(efficientdet_tf2, (rows, columns, 3), path), canvas)
    planes = run_transform(efficientdet_tf2, (3, rows, columns), path)
    np.testing.assert_array_equal(planes, canvas.transpose(2, 0, 1))
    wanted = (canvas / F(255) - np.array([0.485, 0.456, 0.406], F)) / F(0.224)
    np.testing.assert_array_equal(run_transform(mask_rcnn, (3, rows, columns), path), wanted.transpose(2, 0, 1))


def test_faster_rcnn_input_honours_order_factor_and_mean(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (kitti.NET[1], kitti.NET[0], 3), np.uint8)
    path = tmp_path / "x.png"
    Image.fromarray(pixels).save(path)
    shape = (3, kitti.NET[1], kitti.NET[0])

    def wanted(levels: np.ndarray, mean: tuple[float, ...], factor: float) -> np.ndarray:
        return ((levels.astype(np.float64) - mean) / factor).astype(F).transpose(2, 0, 1)

    np.testing.assert_array_equal(run_transform(faster_rcnn, shape, path), wanted(pixels[..., ::-1], kitti.MEAN, 1))
    config: dict[str, Any] = {"image_scaling_factor": 58.5, "image_channel_order": "rgb"}
    tree = {"model_config": {"input_image_config": config}}
    found = run_transform(faster_rcnn, shape, path, tree)
    np.testing.assert_allclose(found, wanted(pixels, kitti.MEAN[::-1], 58.5), atol=1e-6)
    config["image_channel_mean"] = {"b": 1.0, "g": 2.0, "r": 3.0}
    found = run_transform(faster_rcnn, shape, path, tree)
    np.testing.assert_allclose(found, wanted(pixels, (3, 2, 1), 58.5), atol=1e-6)
    with pytest.raises(SpecError, match="grey"):
        run_transform(faster_rcnn, (1, *shape[1:]), path, tree)


def test_faster_rcnn_stretches_on_request(tmp_path: Path) -> None:
    Image.new("RGB", (20, 200), (50, 50, 50)).save(tmp_path / "x.png")
    ports = Ports({"input_image": TensorInfo("input_image", (1, 3, 64, 96), np.dtype(F))}, {})
    out = {"input_image": np.zeros((3, 64, 96), F)}
    for tree, offset in (({}, 45.0), ({"resize": "stretch"}, 0.0)):
        transform = faster_rcnn.NETWORK.transform(load_spec(faster_rcnn.NETWORK.spec, tree), ports)
        assert transform(Sample("x", (tmp_path / "x.png",)), out).offset[0] == offset


# names ----------------------------------------------------------------------------------------------------------------


def test_label_maps(tmp_path: Path) -> None:
    assert list(BUILT_IN["coco"]) == COCO_80_IDS
    some = {2: "bicycle", 3: "car", 10: "traffic light", 13: "stop sign", 44: "bottle", 70: "toilet", 90: "toothbrush"}
    assert {number: BUILT_IN["coco"][number] for number in some} == some
    assert list(read_label_map("voc").values()) == sorted(BUILT_IN["voc"].values())
    assert len(BUILT_IN["voc"]) == 20
    assert len(read_label_map("waymo")) == 3
    (tmp_path / "a.yaml").write_text("1: cat\n5: dog\n")
    (tmp_path / "a.txt").write_text("cat\n\ndog\n")
    assert read_label_map(str(tmp_path / "a.yaml")) == {1: "cat", 5: "dog"}
    assert read_label_map(str(tmp_path / "a.txt")) == {1: "cat", 3: "dog"}
    for text in ("- cat\n", "cat: 1\n", "", "{"):
        (tmp_path / "b.yaml").write_text(text)
        with pytest.raises(SpecError):
            read_label_map(str(tmp_path / "b.yaml"))
    with pytest.raises(TaoDeployError, match="nowhere"):
        read_label_map("/nowhere.txt")


@pytest.mark.parametrize("network", ["efficientdet_tf1", "efficientdet_tf2"])
def test_efficientdet_outputs_are_bound_by_name_then_by_position(network: str) -> None:
    bind = importlib.import_module(f"nvidia_tao_deploy.cv.{network}").NETWORK.bind

    def infos(**shapes: tuple[int | None, ...]) -> list[TensorInfo]:
        return [TensorInfo(name, shape, np.dtype(F)) for name, shape in shapes.items()]

    image = [TensorInfo("image_arrays:0", (1, 64, 128, 3), np.dtype(F))]
    named = infos(detection_classes=(1, 9), detection_scores=(1, 9), detection_boxes=(1, 9, 4), num_detections=(1, 1))
    assert bind(image, named).outputs["num_detections"].shape == (1, 1)
    assert bind(image, infos(a=(1, 1), b=(1, 9, 4), c=(1, 9), d=(1, 9))).outputs["detection_boxes"].name == "b"
    with pytest.raises(ModelError, match="detection_boxes"):
        bind(image, infos(a=(1, 1), b=(1, 9), c=(1, 9), d=(1, 9)))
    with pytest.raises(ModelError, match="no image"):
        bind([TensorInfo("input", (1, 64, 128, 5), np.dtype(F))], named)
    with pytest.raises(ModelError, match="dynamic"):
        bind([TensorInfo("input", (1, None, 128, 3), np.dtype(F))], named)
