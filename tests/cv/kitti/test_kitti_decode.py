"""Outputs of the NMS plugins to detections, and images to inputs, against the contract in plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cv.kitti import kitti_replay as replay
from PIL import Image

from nvidia_tao_deploy.cv import ssd, yolo_v4
from nvidia_tao_deploy.data.kitti import KittiTarget
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.families import kitti_detection as family
from nvidia_tao_deploy.families.ssd import decode_detection_output
from nvidia_tao_deploy.families.yolo import boxes_on_canvas, decode_batched_nms, truth_on_canvas
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec
from nvidia_tao_deploy.transforms.transform import Geometry

NET, CLASSES = replay.NET, replay.CLASSES


def geometry(kind: str, size: tuple[int, int]) -> Geometry:
    if kind == "ssd":
        return Geometry(size, NET, (NET[0] / size[0], NET[1] / size[1]))
    wide, high, left, top = replay.letterbox(size)
    return Geometry(size, NET, (wide / size[0], high / size[1]), (float(left), float(top)))


def random_outputs(kind: str, rng: np.random.Generator, batch: int, rows: int) -> dict[str, np.ndarray]:
    """Plugin outputs with stale values in the rows past the count, ties, and boxes beyond the canvas."""
    counts = rng.integers(0, rows + 1, (batch, 1)).astype(np.int32)
    counts[rng.integers(0, batch)] = 0
    corners = rng.uniform(0, 1, (batch, rows, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(2), corners.max(2)], axis=2)
    boxes[:, ::3] = np.rint(boxes[:, ::3] * 64) / 64 + np.float32(0.5 / 64)  # halves of pixels: ties when rounding
    scores = np.sort(rng.integers(0, 11, (batch, rows)) / np.float32(10), axis=1)[:, ::-1].astype(np.float32)
    if kind == "yolo":
        labels = rng.integers(0, 3, (batch, rows)).astype(np.float32)
        labels[np.arange(rows) >= counts] = 77
        values = [counts, boxes, scores, labels]
        return dict(zip(["BatchedNMS", "BatchedNMS_1", "BatchedNMS_2", "BatchedNMS_3"], values, strict=True))
    labels = rng.integers(1, 4, (batch, rows, 1)).astype(np.float32)
    image = np.broadcast_to(np.arange(batch, dtype=np.float32)[:, None, None], labels.shape)
    table = np.concatenate([image, labels, scores[..., None], boxes], axis=2)[:, None]
    return {"NMS": table, "NMS_1": counts[..., None, None]}


@pytest.mark.parametrize("kind", ["yolo", "ssd"])
@pytest.mark.parametrize("seed", range(6))
def test_decode_equals_the_contract_in_plain_python(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch, used = int(rng.integers(1, 5)), 0
    used = int(rng.integers(1, batch + 1))  # a short last batch
    outputs = random_outputs(kind, rng, batch, int(rng.integers(1, 40)))
    sizes = [tuple(map(int, rng.integers(20, 400, 2))) for _ in range(used)]
    geometries = [geometry(kind, size) for size in sizes]
    threshold = 0.3
    if kind == "yolo":
        found = decode_batched_nms(outputs, geometries, CLASSES, threshold, clip=True)
    else:
        found = decode_detection_output(outputs, geometries, CLASSES, threshold)
    assert len(found) == used
    network = "yolo_v3" if kind == "yolo" else "ssd"
    for image, detections in enumerate(found):
        rows = replay.plain_rows(network, outputs, image, threshold)
        assert detections.class_ids.tolist() == [row[0] for row in rows]
        assert detections.scores.tolist() == [row[1] for row in rows]
        wanted = [replay.plain_source(kind, sizes[image], row[2:]) for row in rows]
        np.testing.assert_allclose(detections.boxes_xyxy, np.array(wanted).reshape(-1, 4), atol=1e-9)
        assert detections.boxes_xyxy.dtype == detections.scores.dtype == np.float64


def test_letterbox_geometry_of_the_contracts_example() -> None:
    """Contract yolo_v4, section 6: 1280 x 720 on 960 x 544."""
    placed = Geometry((1280, 720), (960, 544), (0.75, 0.75), (0.0, 2.0))
    box = np.array([[100.0, 200.0, 300.0, 400.0]])
    np.testing.assert_allclose(truth_on_canvas(box, placed), [[0.078125, 0.279412, 0.234375, 0.555147]], atol=1e-6)
    outputs = {
        "BatchedNMS": np.array([[1]], np.int32),
        "BatchedNMS_1": boxes_on_canvas(box, placed).astype(np.float32)[None],
        "BatchedNMS_2": np.array([[0.9]], np.float32),
        "BatchedNMS_3": np.array([[2.0]], np.float32),
    }
    (detections,) = decode_batched_nms(outputs, [placed], CLASSES, 0.01, clip=False)
    np.testing.assert_allclose(detections.boxes_xyxy, box, atol=1e-3)


def test_evaluate_keeps_what_reaches_into_the_borders_and_inference_clips_it() -> None:
    placed = geometry("yolo", (300, 40))  # 96 x 13 in the middle of 96 x 64
    outputs = random_outputs("yolo", np.random.default_rng(0), 1, 1)
    outputs["BatchedNMS"][:], outputs["BatchedNMS_3"][:] = 1, 1
    outputs["BatchedNMS_1"][:], outputs["BatchedNMS_2"][:] = [0, 0, 1, 1], 0.9
    (free,) = decode_batched_nms(outputs, [placed], CLASSES, 0.1, clip=False)
    (clipped,) = decode_batched_nms(outputs, [placed], CLASSES, 0.1, clip=True)
    assert free.boxes_xyxy[0, 1] < -70
    assert clipped.boxes_xyxy.tolist() == [[0, 0, 300, 40]]


def test_ssd_compares_whole_pixels_and_cuts_truth_one_pixel_short_of_the_canvas() -> None:
    """Both sides of the contract: truth ends at W - 1, a detection at W."""
    tree = {"dataset_config": {"target_class_mapping": {"car": "car"}}, "eval_config": {"matching_iou_threshold": 0.99}}
    placed = geometry("ssd", NET)
    for right, below, wanted in ((95.0, 20, 1.0), (96.0, 20, 0.0), (95.0, 90, 1.0)):
        metric = ssd.NETWORK.metric(load_spec(ssd.NETWORK.spec, tree), None)  # type: ignore[arg-type]
        target = KittiTarget(np.array([[86.6, 9.5, 100.0, below + 0.5]]), np.array([1]), np.array([False]))
        box = np.array([[87.0, 10.0, right, min(below, NET[1] - 1)]])
        found = family.PlacedDetections(box, np.array([0.9]), np.array([1]), geometry=placed)
        metric.update(Sample("x", (Path("x.png"),), target), found)
        assert metric.compute()["AP_car"] == pytest.approx(wanted)


def test_counts_are_read_as_bits_as_floats_and_as_integers() -> None:
    """NMSDynamic_TRT declares its count float32 and stores int32 bits there."""
    counts = np.array([3, 0, 20], np.int32).reshape(3, 1, 1, 1)
    for raw in (counts, counts.view(np.float32), counts.astype(np.float32), counts.astype(np.int64)):
        assert family.valid_counts(raw, 3, 20).tolist() == [3, 0, 20]
        assert family.valid_counts(raw, 2, 20).tolist() == [3, 0]
    for wrong in (counts + 1, -1 - counts, np.array([1.5, 2, 3], np.float32), np.full(3, np.nan, np.float32)):
        with pytest.raises(ModelError, match="20 rows"):
            family.valid_counts(wrong, 3, 20)


@pytest.mark.parametrize("kind", ["yolo", "ssd"])
def test_outputs_that_the_contract_rules_out(kind: str) -> None:
    def run(outputs: dict[str, np.ndarray], names: list[str] = CLASSES) -> Any:
        if kind == "yolo":
            return decode_batched_nms(outputs, [geometry(kind, (50, 40))], names, 0.0, clip=False)
        return decode_detection_output(outputs, [geometry(kind, (50, 40))], names, 0.0)

    outputs = random_outputs(kind, np.random.default_rng(2), 1, 9)
    outputs["BatchedNMS" if kind == "yolo" else "NMS_1"][:] = 9
    scores = outputs["BatchedNMS_2"] if kind == "yolo" else outputs["NMS"][..., 2]
    boxes = outputs["BatchedNMS_1"] if kind == "yolo" else outputs["NMS"][..., 3:]
    scores[:] = 0.5
    if kind == "yolo":
        outputs["BatchedNMS_3"][:] = np.arange(9) % 3
    run(outputs)
    with pytest.raises(ModelError, match="target_class_mapping"):
        run(outputs, CLASSES[:1])
    for values in (boxes[..., 4, 2], scores[..., 4]):
        kept = values.copy()
        values[...] = np.nan
        with pytest.raises(ModelError, match="not finite"):
            run(outputs)
        values[...] = kept


def test_a_score_of_the_threshold_is_not_over_it() -> None:
    outputs = random_outputs("yolo", np.random.default_rng(5), 1, 3)
    outputs["BatchedNMS"][:], outputs["BatchedNMS_3"][:] = 3, 1
    outputs["BatchedNMS_2"][:] = np.array([0.7, np.nextafter(np.float32(0.7), np.float32(1)), 0.1], np.float32)
    (found,) = decode_batched_nms(outputs, [geometry("yolo", (50, 40))], CLASSES, 0.7, clip=False)
    assert len(found) == 1


def spec_of(network: Any, **augmentation: Any) -> Any:
    tree = {"dataset_config": {"target_class_mapping": replay.MAPPING}, "augmentation_config": augmentation}
    return load_spec(network.NETWORK.spec, tree)


def ports(channels: int) -> Ports:
    return Ports({"Input": TensorInfo("Input", (None, channels, NET[1], NET[0]), np.dtype(np.float32))}, {})


def run_transform(network: Any, spec: Any, channels: int, path: Path) -> np.ndarray:
    out = np.zeros((channels, NET[1], NET[0]), np.float32)
    network.NETWORK.transform(spec, ports(channels))(Sample("x", (path,)), {"Input": out})
    return out


def test_ssd_input_is_pillows_stretch_in_bgr_minus_the_mean(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    resized = np.asarray(Image.fromarray(pixels).resize(NET, Image.Resampling.BILINEAR))
    for mean in (replay.MEAN, (10.5, 20.0, 30.25)):
        augmentation = {} if mean == replay.MEAN else {"image_mean": dict(zip("bgr", mean, strict=True))}
        wanted = (resized[..., ::-1].astype(np.float64) - mean).astype(np.float32).transpose(2, 0, 1)
        found = run_transform(ssd, spec_of(ssd, **augmentation), 3, tmp_path / "x.png")
        np.testing.assert_array_equal(found, wanted)


def test_yolo_input_is_the_letterbox_filled_with_the_sources_mean(tmp_path: Path) -> None:
    import cv2

    pixels = np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    wide, high, left, top = replay.letterbox((60, 90))
    canvas = np.tile(pixels.reshape(-1, 3).mean(axis=0), (NET[1], NET[0], 1))
    canvas[top : top + high, left : left + wide] = cv2.resize(pixels.astype(np.float32), (wide, high))
    wanted = (canvas[..., ::-1] - replay.MEAN).astype(np.float32).transpose(2, 0, 1)
    np.testing.assert_allclose(run_transform(yolo_v4, spec_of(yolo_v4), 3, tmp_path / "x.png"), wanted, atol=1e-4)


def test_grey_networks_of_8_and_16_bits(tmp_path: Path) -> None:
    """With 16 bits the mean of the trainer's export is used; the established scripts subtract 117.3786."""
    levels = np.full((64, 96), 40000, np.uint16)
    Image.fromarray(levels).save(tmp_path / "x.png")
    deep = run_transform(yolo_v4, spec_of(yolo_v4, output_depth=16), 1, tmp_path / "x.png")
    np.testing.assert_allclose(deep, 40000 - 117.3786 * 256, atol=1e-2)
    own = spec_of(yolo_v4, output_depth=16, image_mean={"l": 30000.0})
    np.testing.assert_allclose(run_transform(yolo_v4, own, 1, tmp_path / "x.png"), 10000, atol=1e-2)
    flat = run_transform(yolo_v4, spec_of(yolo_v4, output_depth=0), 1, tmp_path / "x.png")
    np.testing.assert_allclose(flat, (40000 >> 8) - 117.3786, atol=1e-4)
    for channels, augmentation in ((3, {"output_depth": 16}), (1, {"image_mean": {"b": 1, "g": 1, "r": 1}})):
        with pytest.raises(SpecError):
            yolo_v4.NETWORK.transform(spec_of(yolo_v4, **augmentation), ports(channels))


def test_outputs_are_bound_by_name_then_by_position_and_without_shapes() -> None:
    def infos(names: list[str], shapes: list[tuple[int | None, ...]]) -> list[TensorInfo]:
        return [TensorInfo(name, shape, np.dtype(np.float32)) for name, shape in zip(names, shapes, strict=True)]

    image = infos(["Input"], [(None, 3, 64, 96)])
    bind = ssd.NETWORK.bind
    shuffled = bind(image, infos(["NMS_1", "NMS"], [(None, 1, 1, 1), (None, 1, 12, 7)]))
    assert shuffled.outputs["NMS"].shape[2] == 12
    assert bind(image, infos(["a", "b"], [(None, 1, 12, 7), (None, 1, 1, 1)])).outputs["NMS_1"].name == "b"
    assert bind(image, infos(["NMS", "NMS_1"], [(), ()])).outputs["NMS"].name == "NMS"
    with pytest.raises(ModelError, match="BatchedNMS"):
        yolo_v4.NETWORK.bind(image, infos(["NMS", "NMS_1"], [(), ()]))
