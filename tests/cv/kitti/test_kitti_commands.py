"""yolo_v3, yolo_v4, yolo_v4_tiny, ssd, dssd and retinanet from the command line, on replay models with plugin nodes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell, status, write_spec
from cv.kitti import kitti_replay as replay
from PIL import Image

NETWORKS = list(replay.FAMILIES)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Per family: a folder with images, labels and the models."""
    folders = {}
    for family in ("yolo", "ssd"):
        folder = folders[family] = tmp_path_factory.mktemp(family)
        all_scenes = replay.scenes(family)
        replay.write_data(folder, all_scenes)
        for network in (name for name, its in replay.FAMILIES.items() if its == family):
            onnx.save(replay.model(network, all_scenes), folder / f"{network}.onnx")
    return folders


@pytest.fixture
def data(prepared: dict[str, Path], tmp_path: Path) -> Any:
    """A private copy of a network's folder."""

    def make(network: str) -> Path:
        return Path(shutil.copytree(prepared[replay.FAMILIES[network]], tmp_path / network))

    return make


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def assert_numbers(found: dict[str, Any], wanted: dict[str, float]) -> None:
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, abs=1e-9)
    assert list(found)[: len(wanted)] == list(wanted)


@pytest.mark.parametrize("network", NETWORKS)
def test_evaluate_is_the_contracts_average_precision(shell: Shell, data: Any, network: str) -> None:
    folder = data(network)
    wanted = replay.expected(network, replay.scenes(replay.FAMILIES[network]))
    assert 0.2 < wanted["mAP"] < 0.9  # a number that mistakes can move
    path = write_spec(folder / "spec.yaml", replay.spec(network, folder))
    for batch in (1, 3):  # 3: a short last batch, and images with different numbers of detections in one batch
        assert shell(network, "evaluate", "-e", path, f"evaluate.batch_size={batch}") == 0, shell.err
        found = results(folder / "results" / "trt_evaluate")
        assert_numbers(found, wanted)
        assert found["images_evaluated"] == len(replay.SIZES)
    base = replay.BASE.get(network, network)
    records = status(folder / "results" / "trt_evaluate")
    assert records[0]["message"] == f"Starting {base} trt_evaluate."
    assert records[-1]["message"] == "Trt_evaluate finished successfully."
    assert any(record.get("kpi", {}).get("mAP") == pytest.approx(wanted["mAP"]) for record in records)
    assert "objects left out" in shell.out  # those without area
    assert "DontCare" in shell.out


@pytest.mark.parametrize("network", ["yolo_v4", "ssd", "retinanet"])
def test_settings_of_the_metric_count(shell: Shell, data: Any, network: str) -> None:
    folder = data(network)
    all_scenes = replay.scenes(replay.FAMILIES[network])
    settings = {"threshold": 0.35, "iou": 0.7, "mode": "INTEGRATE"}
    wanted = replay.expected(network, all_scenes, **settings)
    assert wanted["mAP"] != pytest.approx(replay.expected(network, all_scenes)["mAP"], abs=0.01)
    sections = {
        "eval_config": {"matching_iou_threshold": 0.7, "average_precision_mode": "integrate"},
        "nms_config": {"confidence_threshold": 0.35},
    }
    path = write_spec(folder / "spec.yaml", replay.spec(network, folder, **sections))
    assert shell(network, "evaluate", "-e", path) == 0, shell.err
    assert_numbers(results(folder / "results" / "trt_evaluate"), wanted)


@pytest.mark.parametrize("network", ["yolo_v3", "dssd"])
def test_a_text_spec_with_the_established_flags_gives_the_same(shell: Shell, data: Any, network: str) -> None:
    folder = data(network)
    wanted = replay.expected(network, replay.scenes(replay.FAMILIES[network]))
    text, out = replay.write_text_spec(folder / "spec.txt", None), folder / "out"
    flags = ["-e", text, "-m", folder / f"{network}.onnx", "-r", out, "-i", folder / "images"]
    assert shell(network, "evaluate", *flags, "-l", folder / "labels", "-b", 4) == 0, shell.err
    assert_numbers(results(out), wanted)
    # the folders of the spec instead of flags
    with_folders = replay.write_text_spec(folder / "spec2.txt", folder)
    assert shell(network, "evaluate", "-e", with_folders, "-m", folder / f"{network}.onnx", "-r", out) == 0, shell.err
    assert_numbers(results(out), wanted)


@pytest.mark.parametrize("network", NETWORKS)
def test_inference_writes_source_pixels(shell: Shell, data: Any, network: str) -> None:
    folder = data(network)
    family, all_scenes = replay.FAMILIES[network], replay.scenes(replay.FAMILIES[network])
    text, out = replay.write_text_spec(folder / "spec.txt", folder), folder / "out"
    flags = ["-e", text, "-m", folder / f"{network}.onnx", "-r", out]
    assert shell(network, "inference", *flags, "-t", 0.5) == 0, shell.err
    outputs = replay.plugin_outputs(network, all_scenes)
    written = 0
    for image, scene in enumerate(all_scenes):
        lines = (out / "labels" / f"{image:03d}.txt").read_text().splitlines()
        rows = [row for row in replay.plain_rows(network, outputs, image, 0.01) if row[1] >= np.float32(0.5)]
        assert len(lines) == len(rows)
        for line, (class_id, score, *box) in zip(lines, rows, strict=True):
            name, *fields = line.split(" ")
            assert name == replay.CLASSES[int(class_id) - (family == "ssd")]
            assert fields[:3] == ["0.00", "0", "0.00"]
            assert fields[7:14] == ["0.00"] * 7
            assert [len(v.partition(".")[2]) for v in [*fields[3:7], fields[14]]] == [3] * 5
            wanted = [*replay.plain_source(family, scene.size, box), score]
            assert [float(v) for v in [*fields[3:7], fields[14]]] == pytest.approx(wanted, abs=6e-4)
        with Image.open(out / "images_annotated" / f"{image:03d}.png") as picture:
            assert picture.size == scene.size
            grey = replay.level(image)
            drawn = np.any(np.asarray(picture.convert("RGB")) != grey)
        assert drawn == bool(lines)
        written += len(lines)
    assert written > 5
    assert status(out)[0]["message"] == f"Starting {replay.BASE.get(network, network)} trt_inference."


def test_pictures_use_the_five_colours_by_class(shell: Shell, data: Any) -> None:
    folder = data("ssd")
    text, out = replay.write_text_spec(folder / "spec.txt", folder), folder / "out"
    assert shell("ssd", "inference", "-e", text, "-m", folder / "ssd.onnx", "-r", out) == 0, shell.err
    colors = {"bicycle": (255, 0, 0), "car": (0, 0, 255), "person": (255, 215, 0)}
    seen = set()
    for label in sorted((out / "labels").iterdir()):
        names = {line.split(" ")[0] for line in label.read_text().splitlines()}
        pixels = np.asarray(Image.open(out / "images_annotated" / f"{label.stem}.png").convert("RGB")).reshape(-1, 3)
        found = {tuple(map(int, color)) for color in np.unique(pixels, axis=0)}
        assert all(colors[name] not in found for name in set(colors) - names)
        seen |= {name for name in names if colors[name] in found}
    assert seen == set(colors)


@pytest.mark.parametrize(("network", "precisions"), [("yolo_v4_tiny", ("fp32", "fp16", "int8")), ("ssd", ("int8",))])
def test_every_precision_builds_and_keeps_the_number(
    shell: Shell, data: Any, network: str, precisions: tuple[str, ...]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    folder = data(network)
    wanted = replay.expected(network, replay.scenes(replay.FAMILIES[network]))["mAP"]
    calibration = {"cal_batch_size": 2, "cal_batches": 3}
    build = {
        "onnx_file": str(folder / f"{network}.onnx"),
        "trt_engine": str(folder / "built_${gen_trt_engine.tensorrt.data_type}.engine"),
        "tensorrt": {"max_batch_size": 4, "compute_capabilities": ["8.6"], "runtime": "tensorrt_rtx"},
    }
    build["tensorrt"]["calibration"] = calibration
    spec = replay.spec(network, folder, gen_trt_engine=build)
    spec["dataset_config"]["data_sources"] = [{"image_directory_path": str(folder / "images")}]
    path = write_spec(folder / "spec.yaml", spec)
    for precision in precisions:
        kind = f"gen_trt_engine.tensorrt.data_type={precision}"
        assert shell(network, "gen_trt_engine", "-e", path, kind, "--json") == 0, shell.err
        built = json.loads(shell.out)
        ready = built["prepared_onnx"]
        assert "plugin" not in {node.name for node in onnx.load(ready).graph.node}
        assert shell(network, "evaluate", "-e", path, f"evaluate.trt_engine={ready}") == 0, shell.err
        found = results(folder / "results" / "trt_evaluate")["mAP"]
        assert found == pytest.approx(wanted, abs=1e-9 if precision == "fp32" else 0.03)
    manifest = json.loads(Path(built["manifest"]).read_text())
    assert manifest["labels"] == replay.CLASSES
    # as many classes in another order: detections would silently be of the wrong ones
    assert "built for the classes" not in shell.out
    moved = {name: "ape" if target == "person" else target for name, target in replay.MAPPING.items()}
    spec["dataset_config"]["target_class_mapping"] = moved
    assert shell(network, "evaluate", "-e", write_spec(path, spec), f"evaluate.trt_engine={ready}") == 0, shell.err
    assert "bicycle, car, person; the spec names ape, bicycle, car" in shell.out
    assert manifest["transform"]["mean"] == list(replay.MEAN)
    assert manifest["transform"]["resize"] == ("letterbox" if network == "yolo_v4_tiny" else "stretch_bilinear")


def test_a_fixed_batch_model_serves_any_number_of_images(shell: Shell, data: Any) -> None:
    folder = data("yolo_v3")
    all_scenes = replay.scenes("yolo")
    onnx.save(replay.model("yolo_v3", all_scenes, batch=4), folder / "yolo_v3.onnx")
    path = write_spec(folder / "spec.yaml", replay.spec("yolo_v3", folder))
    assert shell("yolo_v3", "evaluate", "-e", path, "evaluate.batch_size=1") == 0, shell.err
    assert_numbers(results(folder / "results" / "trt_evaluate"), replay.expected("yolo_v3", all_scenes))


def test_difficult_objects_are_neutral(shell: Shell, data: Any) -> None:
    """The established yolo commands drop them and count what is found there as wrong."""
    all_scenes = replay.scenes("yolo")
    dropped = [
        replay.Scene(scene.size, [row for row in scene.truth if not row[1]], scene.boxes, scene.scores)
        for scene in all_scenes
    ]
    wrong, right = replay.expected("yolo_v4", dropped), replay.expected("yolo_v4", all_scenes)
    assert right["mAP"] > wrong["mAP"] + 0.01
    folder = data("yolo_v4")
    path = write_spec(folder / "spec.yaml", replay.spec("yolo_v4", folder))
    assert shell("yolo_v4", "evaluate", "-e", path) == 0, shell.err
    assert results(folder / "results" / "trt_evaluate")["mAP"] == pytest.approx(right["mAP"])


@pytest.mark.parametrize("network", ["yolo_v3", "ssd"])
def test_a_spec_with_other_classes_than_the_model_is_refused(shell: Shell, data: Any, network: str) -> None:
    folder = data(network)
    spec = replay.spec(network, folder)
    spec["dataset_config"]["target_class_mapping"] = {"bike": "bicycle", "car": "car"}
    for action in ("evaluate", "inference"):
        message = shell.refused(1, network, action, "-e", write_spec(folder / "spec.yaml", spec))
        assert "target_class_mapping" in message
        assert "bicycle, car" in message
    assert not (folder / "results" / "trt_evaluate" / "results.json").exists()


@pytest.mark.onnx_file
def test_what_a_user_gets_wrong(shell: Shell, data: Any) -> None:
    folder = data("yolo_v4")
    path = folder / "spec.yaml"
    good = replay.spec("yolo_v4", folder)

    def refused(code: int, action: str, *overrides: str, **sections: Any) -> str:
        return shell.refused(code, "yolo_v4", action, "-e", write_spec(path, {**good, **sections}), *overrides)

    def dataset(**changes: Any) -> dict[str, Any]:
        return {**good["dataset_config"], **changes}

    records = [{"image_directory_path": "a", "tfrecords_path": "b"}]
    message = refused(2, "evaluate", dataset_config=dataset(validation_data_sources=records))
    assert "tfrecords" in message
    assert "label_directory_path" in message
    message = refused(2, "inference", dataset_config={"target_class_mapping": replay.MAPPING})
    assert "inference.image_dir" in message
    assert "target_class_mapping" in refused(2, "evaluate", dataset_config=dataset(target_class_mapping={}))
    assert "'r'" in refused(2, "evaluate", augmentation_config={"image_mean": {"b": 1.0, "g": 2.0}})
    message = refused(2, "evaluate", augmentation_config={"image_mean": {"l": 117.0}})
    assert "colour" in message
    assert "output_depth" in refused(2, "evaluate", augmentation_config={"output_depth": 12})
    assert "output_depth" in refused(2, "evaluate", augmentation_config={"output_depth": 16})
    assert "pairs" in refused(1, "evaluate", f"evaluate.image_dir=[{folder / 'images'},{folder / 'images'}]")
    assert "no such image folder" in refused(1, "evaluate", "evaluate.image_dir=/nowhere")
    other = {"cat": "cat", "dog": "dog", "cow": "cow"}
    message = refused(1, "evaluate", dataset_config=dataset(target_class_mapping=other))
    assert "no label names a class" in message
    # a model of another network of the family
    shutil.copy(folder / "yolo_v4.onnx", folder / "other.onnx")
    spec = write_spec(path, replay.spec("ssd", folder, evaluate={"trt_engine": str(folder / "other.onnx")}))
    assert "NMS_1" in shell.refused(1, "ssd", "evaluate", "-e", spec)
    # a plugin whose attributes have no meaning
    odd = folder / "odd.onnx"
    onnx.save(replay.model("ssd", replay.scenes("ssd"), codeType=9), odd)
    message = shell.refused(1, "ssd", "evaluate", "-e", spec, f"evaluate.trt_engine={odd}")
    assert "NMSDynamic_TRT, and node 'plugin'" in message
    assert "codeType 9" in message
