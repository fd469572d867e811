"""efficientdet, mask_rcnn and faster_rcnn from the command line, on replay models with plugin nodes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell, status, write_spec
from cv.kitti import kitti_replay as kitti
from cv.two_stage import two_stage_replay as replay
from PIL import Image
from pycocotools import mask as codes

from nvidia_tao_deploy.cv.mask_rcnn.writer import MaskWriter
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.predictions.drawing import PALETTE
from nvidia_tao_deploy.predictions.masks import RoiMaskDetections

COCO_NETWORKS = ("efficientdet_tf1", "efficientdet_tf2", "mask_rcnn")
ALL_IDS = [7 * n + 3 for n in range(len(replay.SIZES))]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/, instances.json, kitti/ and one model per network."""
    folder = tmp_path_factory.mktemp("two_stage")
    pictures, scenes = replay.pictures(), kitti.scenes("yolo")
    replay.write_coco(folder, pictures)
    kitti.write_data(folder / "kitti", scenes)
    onnx.save(replay.efficientdet(pictures), folder / "efficientdet_tf2.onnx")
    onnx.save(replay.efficientdet(pictures, batch=4), folder / "efficientdet_tf1.onnx")  # exported with a fixed batch
    onnx.save(replay.mask_rcnn(pictures), folder / "mask_rcnn.onnx")
    onnx.save(replay.faster_rcnn(scenes), folder / "faster_rcnn.onnx")
    (folder / "classes.txt").write_text("ant\nbee\ncow\n")
    return folder


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def spec(network: str, folder: Path, **sections: Any) -> dict[str, Any]:
    """A good YAML spec; ``sections`` are merged into it."""
    model = str(folder / f"{network}.onnx")
    json_file, images = str(folder / "instances.json"), str(folder / "images")
    tree: dict[str, Any] = {
        "results_dir": str(folder / "results"),
        "evaluate": {"trt_engine": model, "image_dir": images},
        "inference": {"trt_engine": model, "image_dir": images},
    }
    if network == "efficientdet_tf1":
        tree["dataset_config"] = {"validation_json_file": json_file}
    if network == "efficientdet_tf2":
        del tree["evaluate"]["image_dir"]
        tree["dataset"] = {"val_json_file": json_file, "val_dirs": [images]}
    if network == "mask_rcnn":
        tree["data_config"] = {"val_json_file": json_file, "num_classes": replay.CLASSES}
        tree["inference"]["class_map"] = str(folder / "classes.txt")
    if network == "faster_rcnn":
        images = str(folder / "kitti" / "images")
        tree["evaluate"] |= {"image_dir": images, "label_dir": str(folder / "kitti" / "labels")}
        tree["inference"]["image_dir"] = images
        tree["dataset_config"] = {"target_class_mapping": replay.MAPPING}
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section} if isinstance(section, dict) else section
    return tree


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def expected(
    network: str, folder: Path, image_ids: list[int] = ALL_IDS, ids: tuple[int, ...] = (1, 2, 3)
) -> dict[str, float]:
    """The COCO numbers of the contract, by pycocotools."""
    pictures, json_file = replay.pictures(), folder / "instances.json"
    if network != "mask_rcnn":
        outputs = replay.efficientdet_outputs(pictures)
        rows = [replay.plain_efficientdet(outputs, n, picture.size) for n, picture in enumerate(pictures)]
        found = [row for n, mine in enumerate(rows) for row in replay.coco_rows(mine, n, ids)]
        return replay.by_pycocotools(json_file, found, "bbox", image_ids)
    detections, logits = replay.mask_rcnn_outputs(pictures)
    boxes, masks = [], []
    for n, picture in enumerate(pictures):
        rows = replay.plain_mask_rcnn(detections[n], logits[n], picture.size)
        mine = replay.coco_rows([row[:3] for row in rows], n, ids)
        boxes += mine
        keys = ("image_id", "category_id", "score")
        masks += [
            {**{key: row[key] for key in keys}, "segmentation": replay.run_length(pixels)}
            for row, (*_, pixels) in zip(mine, rows, strict=True)
        ]
    numbers = replay.by_pycocotools(json_file, boxes, "bbox", image_ids)
    return {**numbers, **replay.by_pycocotools(json_file, masks, "segm", image_ids)}


def assert_numbers(found: dict[str, Any], wanted: dict[str, float], tolerance: float = 1e-6) -> None:
    assert list(found)[: len(wanted)] == list(wanted)
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, abs=tolerance)


@pytest.mark.parametrize("network", COCO_NETWORKS)
def test_evaluate_is_pycocotools(shell: Shell, data: Path, network: str) -> None:
    wanted = expected(network, data)
    assert 0.1 < wanted["AP"] < 0.9
    assert len(wanted) == (24 if network == "mask_rcnn" else 12)
    if network == "mask_rcnn":
        assert 0.1 < wanted["mask_AP"] < 0.9
        assert wanted["mask_AP"] != pytest.approx(wanted["AP"], abs=0.01)
    path = write_spec(data / "spec.yaml", spec(network, data))
    for batch in (1, 4):  # 4: a short last batch
        assert shell(network, "evaluate", "-e", path, f"evaluate.batch_size={batch}") == 0, shell.err
        found = results(data / "results" / "trt_evaluate")
        assert_numbers(found, wanted)
        assert found["images_evaluated"] == len(ALL_IDS)
    records = status(data / "results" / "trt_evaluate")
    assert records[0]["message"] == f"Starting {network} trt_evaluate."
    assert any(record.get("kpi", {}).get("AP") == pytest.approx(wanted["AP"]) for record in records)


def test_evaluate_of_faster_rcnn_is_the_contracts_average_precision(shell: Shell, data: Path) -> None:
    scenes = kitti.scenes("yolo")
    path = write_spec(data / "spec.yaml", spec("faster_rcnn", data))
    settings: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        (
            {"threshold": 0.5, "iou": 0.7, "mode": "SAMPLE"},
            {"object_confidence_thres": 0.5, "gt_matching_iou_threshold": 0.7, "use_voc07_11point_metric": True},
        ),
    ]
    seen = set()
    for plain, config in settings:
        wanted = replay.expected_faster_rcnn(scenes, **plain)
        assert 0.2 < wanted["mAP"] < 0.9
        path = write_spec(data / "spec.yaml", spec("faster_rcnn", data, evaluation_config=config))
        for batch in (1, 3):
            assert shell("faster_rcnn", "evaluate", "-e", path, f"evaluate.batch_size={batch}") == 0, shell.err
            assert_numbers(results(data / "results" / "trt_evaluate"), wanted, 1e-9)
        seen.add(wanted["mAP"])
    assert len(seen) == 2


def test_one_threshold_has_no_means(shell: Shell, data: Path) -> None:
    assert shell("faster_rcnn", "evaluate", "-e", write_spec(data / "spec.yaml", spec("faster_rcnn", data))) == 0
    assert "mAP" in shell.out
    assert "Means over" not in shell.out


def test_a_range_of_thresholds_is_averaged(shell: Shell, data: Path) -> None:
    each = [replay.expected_faster_rcnn(kitti.scenes("yolo"), iou=iou) for iou in (0.5, 0.6, 0.7)]
    wanted = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
    settings = {"gt_matching_iou_threshold_range": {"start": 0.5, "end": 0.7, "step": 0.1}}
    path = write_spec(data / "spec.yaml", spec("faster_rcnn", data, evaluation_config=settings))
    assert shell("faster_rcnn", "evaluate", "-e", path) == 0, shell.err
    assert_numbers(results(data / "results" / "trt_evaluate"), wanted, 1e-9)
    assert "3 IoU thresholds" in shell.out


def write_text(path: Path, network: str, folder: Path) -> list[object]:
    """A protobuf-text spec, and the flags of evaluate that go with it."""
    flags = ["-e", path, "-m", folder / f"{network}.onnx", "-r", folder / "out", "-i", folder / "images"]
    lines = {
        "efficientdet_tf1": f'dataset_config {{ validation_json_file: "{folder / "instances.json"}" }}\n'
        "eval_config { eval_batch_size: 2 }",
        "mask_rcnn": f'data_config {{ val_json_file: "{folder / "instances.json"}" num_classes: 4 }}\n'
        "maskrcnn_config { mrcnn_resolution: 28 }",
        "faster_rcnn": "dataset_config {\n"
        + "\n".join(f'  target_class_mapping {{ key: "{k}" value: "{v}" }}' for k, v in replay.MAPPING.items())
        + "\n}\nevaluation_config { batch_size: 2 }",
    }
    path.write_text(lines[network] + "\n")
    if network == "faster_rcnn":
        flags[-1] = folder / "kitti" / "images"
        flags += ["-l", folder / "kitti" / "labels"]
    return flags


@pytest.mark.parametrize("network", ["efficientdet_tf1", "mask_rcnn", "faster_rcnn"])
def test_a_text_spec_with_the_established_flags_gives_the_same(shell: Shell, data: Path, network: str) -> None:
    flags = write_text(data / "spec.txt", network, data)
    assert shell(network, "evaluate", *flags) == 0, shell.err
    scenes = kitti.scenes("yolo")
    wanted = replay.expected_faster_rcnn(scenes) if network == "faster_rcnn" else expected(network, data)
    assert_numbers(results(data / "out"), wanted)
    if network == "mask_rcnn":
        assert "mrcnn_resolution says 28, the model 8" in shell.out


@pytest.mark.parametrize("network", COCO_NETWORKS)
def test_the_first_images_only(shell: Shell, data: Path, network: str) -> None:
    first = [image["id"] for image in json.loads((data / "instances.json").read_text())["images"]][:4]
    key = {
        "efficientdet_tf1": "eval_config.eval_samples",
        "efficientdet_tf2": "evaluate.num_samples",
        "mask_rcnn": "data_config.eval_samples",
    }[network]
    path = write_spec(data / "spec.yaml", spec(network, data))
    assert shell(network, "evaluate", "-e", path, f"{key}=4") == 0, shell.err
    found = results(data / "results" / "trt_evaluate")
    assert found["images_evaluated"] == 4
    assert_numbers(found, expected(network, data, first))
    assert shell(network, "evaluate", "-e", path, f"{key}=1000") == 0, shell.err  # more than there are
    assert results(data / "results" / "trt_evaluate")["images_evaluated"] == 6


def test_the_limit_of_detections_counts(shell: Shell, data: Path) -> None:
    path = write_spec(data / "spec.yaml", spec("efficientdet_tf1", data))
    whole = expected("efficientdet_tf1", data)["ARmax100"]
    assert shell("efficientdet_tf1", "evaluate", "-e", path, "eval_config.max_detections_per_image=2") == 0, shell.err
    assert results(data / "results" / "trt_evaluate")["ARmax100"] < whole - 0.05


def kitti_rows(path: Path) -> list[tuple[str, float, list[float]]]:
    rows = []
    for line in path.read_text().splitlines():
        fields = line.split(" ")
        assert len(fields) == 16
        assert fields[1:4] == ["0.00", "0", "0.00"]
        assert fields[8:15] == ["0.00"] * 7
        rows.append((fields[0], float(fields[15]), [float(v) for v in fields[4:8]]))
    return rows


@pytest.mark.parametrize("network", ["efficientdet_tf1", "efficientdet_tf2"])
@pytest.mark.parametrize("named", [True, False])
def test_efficientdet_writes_labels_and_pictures(shell: Shell, data: Path, network: str, named: bool) -> None:
    first = network == "efficientdet_tf1"
    map_key, least_key = ("class_map", "threshold") if first else ("label_map", "min_score_thresh")
    (data / "classes.txt").write_text("ant\n\ncow\n")  # nothing names class 2
    section = {least_key: 0.6, **({map_key: str(data / "classes.txt")} if named else {})}
    path = write_spec(data / "spec.yaml", spec(network, data, inference=section))
    assert shell(network, "inference", "-e", path) == 0, shell.err
    out, written = data / "results" / "trt_inference", 0
    outputs = replay.efficientdet_outputs(replay.pictures())
    for n, picture in enumerate(replay.pictures()):
        rows = replay.plain_efficientdet(outputs, n, picture.size)
        rows = [row for row in rows if row[1] >= 0.6 and (not named or row[0] != 2)]
        found = kitti_rows(out / "labels" / f"{n:03d}.txt")
        names = {1: "ant", 3: "cow"} if named else {1: "1", 2: "2", 3: "3"}
        assert [name for name, *_ in found] == [names[c] for c, *_ in rows]
        for (_, score, box), (_, wanted_score, wanted) in zip(found, rows, strict=True):
            assert score == pytest.approx(wanted_score, abs=6e-4)
            if first:  # clipped, all four
                wanted = np.clip(wanted, 0, picture.size * 2).tolist()
            assert box == pytest.approx(wanted, abs=6e-4)
        with Image.open(out / "images_annotated" / f"{n:03d}.png") as drawn:
            assert drawn.size == picture.size
            assert bool(np.any(np.asarray(drawn.convert("RGB")) != kitti.level(n))) == bool(rows)
        written += len(rows)
    assert written > 4
    assert ("does not name their classes: 2 (" in shell.out) == named


def test_mask_rcnn_writes_masks_of_the_source_image(shell: Shell, data: Path) -> None:
    """The established files hold network pixels, corners for sizes, and masks of logits."""
    path = write_spec(data / "spec.yaml", spec("mask_rcnn", data))
    (data / "classes.txt").write_text("ant\nbee\n")
    assert shell("mask_rcnn", "inference", "-e", path, "inference.threshold=0.8") == 0, shell.err
    detections, logits = replay.mask_rcnn_outputs(replay.pictures())
    out, written = data / "results" / "trt_inference", 0
    for n, picture in enumerate(replay.pictures()):
        rows = replay.plain_mask_rcnn(detections[n], logits[n], picture.size)
        wanted = [(i, row) for i, row in enumerate(rows) if row[1] >= 0.8 and row[0] != 3]
        text = (out / "labels" / f"{n:03d}.json").read_text()
        found = json.loads(text)
        assert text.rstrip("\n") == json.dumps(found, indent=4, sort_keys=True)
        assert len(found) == len(wanted)
        for entry, (number, (class_id, score, box, pixels)) in zip(found, wanted, strict=True):
            keys = ["area", "bbox", "category_id", "id", "image_id", "is_crowd", "score", "segmentation"]
            assert list(entry) == keys
            assert (entry["category_id"], entry["id"], entry["is_crowd"]) == (class_id, number, 0)
            assert entry["image_id"] == str(data / "images" / f"{n:03d}.png")
            sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            assert entry["bbox"] == pytest.approx(sides, abs=1e-3)
            assert entry["score"] == pytest.approx(score, abs=1e-5)
            np.testing.assert_array_equal(codes.decode(entry["segmentation"]), pixels)
            assert entry["area"] == pixels.sum()
        with Image.open(out / "images_annotated" / f"{n:03d}.png") as drawn:
            assert drawn.size == picture.size
            changed = np.any(np.asarray(drawn.convert("RGB")) != kitti.level(n), axis=2)
        assert all(changed[pixels > 0].all() for _, (*_, pixels) in wanted)
        written += len(wanted)
    assert written > 4
    assert "does not name their classes: 3 (" in shell.out


def test_masks_lie_over_the_picture_with_four_tenths_of_the_class_colour(tmp_path: Path) -> None:
    """A score that equals the threshold is written, the next smaller one is not."""
    Image.new("RGB", (100, 80), (200, 100, 50)).save(tmp_path / "a.png")
    boxes, scores = np.array([[10.0, 20, 90, 60]] * 2), np.array([0.25, np.nextafter(np.float32(0.25), 0)])
    found = RoiMaskDetections(
        boxes, scores, np.array([1, 2]), roi_masks=np.ones((2, 28, 28), np.float32), size=(100, 80)
    )
    writer = MaskWriter(tmp_path, {1: "ant", 2: "bee"}, 0.25, PALETTE, tmp_path)
    writer.write(Sample("a", (tmp_path / "a.png",)), found)
    assert [row["category_id"] for row in json.loads((tmp_path / "labels" / "a.json").read_text())] == [1]
    with Image.open(tmp_path / "images_annotated" / "a.png") as drawn:
        pixels = np.asarray(drawn.convert("RGB"), int)
    red = [round(0.6 * level + 0.4 * own) for level, own in zip((200, 100, 50), (255, 0, 0), strict=True)]
    np.testing.assert_allclose(pixels[50, 50], red, atol=1)
    assert pixels[70, 50].tolist() == [200, 100, 50]


def test_faster_rcnn_writes_source_pixels_where_the_spec_says(shell: Shell, data: Path) -> None:
    folders = {"detection_image_output_dir": str(data / "drawn"), "labels_dump_dir": str(data / "written")}
    sections = {**folders, "bbox_visualize_threshold": 0.5, "images_dir": str(data / "kitti" / "images")}
    tree = spec("faster_rcnn", data, inference_config=sections, inference={"image_dir": []})
    assert shell("faster_rcnn", "inference", "-e", write_spec(data / "spec.yaml", tree)) == 0, shell.err
    scenes = kitti.scenes("yolo")
    outputs, written = replay.faster_rcnn_outputs(scenes), 0
    for n, scene in enumerate(scenes):
        rows = [row for row in replay.plain_faster_rcnn(outputs, n, 0) if row[1] >= 0.5]
        found = kitti_rows(data / "written" / f"{n:03d}.txt")
        assert [name for name, *_ in found] == [replay.NAMES[int(row[0])] for row in rows]
        for (_, score, box), row in zip(found, rows, strict=True):
            assert [*box, score] == pytest.approx([*kitti.plain_source("yolo", scene.size, row[2:]), row[1]], abs=7e-4)
        with Image.open(data / "drawn" / f"{n:03d}.png") as drawn:
            assert drawn.size == scene.size
        written += len(rows)
    assert written > 4


def test_faster_rcnn_without_a_threshold_writes_no_padding(shell: Shell, data: Path) -> None:
    tree = spec("faster_rcnn", data)
    model = replay.faster_rcnn(kitti.scenes("yolo"))
    plugin = next(node for node in model.graph.node if node.name == "NMS")
    next(a for a in plugin.attribute if a.name == "confidenceThreshold").f = 0.8
    onnx.save(model, data / "faster_rcnn.onnx")
    assert shell("faster_rcnn", "inference", "-e", write_spec(data / "spec.yaml", tree)) == 0, shell.err
    labels = list((data / "results" / "trt_inference" / "labels").iterdir())
    rows = [row for path in labels for row in kitti_rows(path)]
    assert 0 < len(rows) < len(labels) * replay.ROIS
    assert {name for name, *_ in rows} <= set(replay.NAMES)


def test_faster_rcnn_writes_every_row_that_reaches_the_writers_threshold(shell: Shell, data: Path) -> None:
    """``object_confidence_thres`` is evaluate's."""
    least = {"inference_config": {"bbox_visualize_threshold": 0.05},
             "evaluation_config": {"object_confidence_thres": 0.9}}  # fmt: skip
    path = write_spec(data / "spec.yaml", spec("faster_rcnn", data, **least))
    assert shell("faster_rcnn", "inference", "-e", path) == 0, shell.err
    scenes = kitti.scenes("yolo")
    outputs, low = replay.faster_rcnn_outputs(scenes), 0
    for n in range(len(scenes)):
        rows = [row for row in replay.plain_faster_rcnn(outputs, n, 0) if row[1] >= 0.05]
        found = kitti_rows(data / "results" / "trt_inference" / "labels" / f"{n:03d}.txt")
        assert [score for _, score, _ in found] == pytest.approx([row[1] for row in rows], abs=6e-4)
        low += sum(row[1] < 0.3 for row in rows)
    assert low


def test_other_category_ids(shell: Shell, data: Path) -> None:
    """mask_rcnn ranks them; efficientdet's classes are category ids, and a run in which none is known is refused."""
    ids = (7, 21, 90)
    replay.write_coco(data, replay.pictures(), ids)
    path = write_spec(data / "spec.yaml", spec("mask_rcnn", data))
    assert shell("mask_rcnn", "evaluate", "-e", path) == 0, shell.err
    wanted = expected("mask_rcnn", data, ids=ids)
    assert wanted["AP"] > 0.1
    assert_numbers(results(data / "results" / "trt_evaluate"), wanted)
    assert "i-th of the category ids 7, 21, 90" in shell.out
    path = write_spec(data / "spec.yaml", spec("efficientdet_tf2", data))
    assert "category" in shell.refused(1, "efficientdet_tf2", "evaluate", "-e", path)


def test_images_in_several_folders(shell: Shell, data: Path) -> None:
    wanted = expected("efficientdet_tf2", data)
    (data / "more").mkdir()
    for n in (1, 2):
        shutil.move(data / "images" / f"{n:03d}.png", data / "more")
    folders = {"val_dirs": [str(data / "images"), str(data / "more")]}
    path = write_spec(data / "spec.yaml", spec("efficientdet_tf2", data, dataset=folders))
    assert shell("efficientdet_tf2", "evaluate", "-e", path) == 0, shell.err
    assert_numbers(results(data / "results" / "trt_evaluate"), wanted)


@pytest.mark.parametrize(
    ("network", "precisions"),
    [
        ("efficientdet_tf2", ("fp32", "fp16", "int8")),
        ("efficientdet_tf1", ("int8",)),
        ("mask_rcnn", ("int8",)),
        ("faster_rcnn", ("fp16", "int8")),
    ],
)
def test_every_precision_builds_and_keeps_the_number(
    shell: Shell, data: Path, network: str, precisions: tuple[str, ...]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    images = data / ("kitti/images" if network == "faster_rcnn" else "images")
    build = {
        "onnx_file": str(data / f"{network}.onnx"),
        "trt_engine": str(data / "built_${gen_trt_engine.tensorrt.data_type}.engine"),
        "tensorrt": {
            "max_batch_size": 4,
            "compute_capabilities": ["8.6"],
            "runtime": "tensorrt_rtx",
            "calibration": {
                "cal_image_dir": str(images),
                "cal_batch_size": 2,
                "cal_batches": 3,
            },
        },
    }
    if network == "efficientdet_tf2":
        build["tensorrt"]["max_workspace_size"] = 1  # GiB, the trainer's key
    path = write_spec(data / "spec.yaml", spec(network, data, gen_trt_engine=build))
    main = "mAP" if network == "faster_rcnn" else "AP"
    wanted = replay.expected_faster_rcnn(kitti.scenes("yolo")) if network == "faster_rcnn" else expected(network, data)
    for precision in precisions:
        kind = f"gen_trt_engine.tensorrt.data_type={precision}"
        assert shell(network, "gen_trt_engine", "-e", path, kind, "--json") == 0, shell.err
        built = json.loads(shell.out)
        ready = built["prepared_onnx"]
        operators = {node.op_type for node in onnx.load(ready).graph.node}
        assert not {op for op in operators if op.endswith(("_TRT", "Dynamic"))}
        assert shell(network, "evaluate", "-e", path, f"evaluate.trt_engine={ready}") == 0, shell.err
        found = results(data / "results" / "trt_evaluate")[main]
        assert found == pytest.approx(wanted[main], abs=1e-6 if precision == "fp32" else 0.03)
    manifest = json.loads(Path(built["manifest"]).read_text())
    assert manifest["transform"]["layout"] == ("NHWC" if network.startswith("efficientdet") else "NCHW")
    assert manifest["transform"]["resize"] == ("letterbox" if network == "faster_rcnn" else "resize_pad")


def test_what_a_user_gets_wrong(shell: Shell, data: Path) -> None:
    path = data / "spec.yaml"

    def refused(code: int, network: str, action: str, *overrides: str, **sections: Any) -> str:
        tree = write_spec(path, spec(network, data, **sections))
        return shell.refused(code, network, action, "-e", tree, *overrides)

    assert "val_json_file" in refused(2, "efficientdet_tf2", "evaluate", dataset={"val_json_file": ""})
    assert "validation_json_file" in refused(
        2, "efficientdet_tf1", "evaluate", dataset_config={"validation_json_file": ""}
    )
    assert "label_dir" in refused(2, "faster_rcnn", "evaluate", evaluate={"label_dir": []})
    assert "images_dir" in refused(2, "faster_rcnn", "inference", inference={"image_dir": []})
    mapping = {"target_class_mapping": {"a": "Car", "b": "car", "c": "person"}}
    assert "case" in refused(2, "faster_rcnn", "evaluate", dataset_config=mapping)
    mapping = {"target_class_mapping": {"car": "Vehicle"}}
    assert "target_class_mapping" in refused(1, "faster_rcnn", "evaluate", dataset_config=mapping)
    assert "class_map" in refused(2, "mask_rcnn", "inference", inference={"class_map": None})
    (data / "empty.txt").write_text("\n\n")
    (data / "beyond.txt").write_text("\n\n\nzebra\n")
    for name in ("empty", "beyond"):
        message = refused(2, "mask_rcnn", "inference", inference={"class_map": str(data / f"{name}.txt")})
        assert "names" in message
    assert "cannot read" in refused(1, "efficientdet_tf1", "inference", inference={"class_map": "/nowhere.txt"})
    assert "num_classes" in refused(1, "mask_rcnn", "evaluate", data_config={"num_classes": 9})
    replay.write_coco(data, replay.pictures(), annotations=[{"image_id": 3, "category_id": 1, "bbox": [1, 1, 5, 5]}])
    assert "segmentation" in refused(1, "mask_rcnn", "evaluate")
    replay.write_coco(data, replay.pictures())
    # the model of another network
    other = {"trt_engine": str(data / "efficientdet_tf2.onnx")}
    assert "'Input'" in refused(1, "mask_rcnn", "evaluate", evaluate=other)
    other = {"trt_engine": str(data / "faster_rcnn.onnx")}
    assert "generate_detections" in refused(1, "mask_rcnn", "evaluate", evaluate=other)
    assert "num_detections" in refused(
        1, "efficientdet_tf2", "evaluate", evaluate={"trt_engine": str(data / "mask_rcnn.onnx")}
    )
