"""The trained yolo_v4, ssd and efficientdet_tf2 from the command line, with the specs that users copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell
from PIL import Image
from repository import MODELS, ROOT

from samples.render import CLASSES

METRICS = {"yolo_v4": "mAP", "ssd": "mAP", "efficientdet_tf2": "AP50"}
SAME_MODEL = {
    "yolo_v3": "yolo_v4",
    "yolo_v4_tiny": "yolo_v4",
    "dssd": "ssd",
    "retinanet": "ssd",
    "efficientdet_tf1": "efficientdet_tf2",
}
PLUGINS = {
    "yolo_v4": ("BatchedNMSDynamic_TRT", ("batch", 3, 128, 160), {"numClasses": 10, "keepTopK": 50, "topK": 100}),
    "ssd": ("NMSDynamic_TRT", ("batch", 3, 128, 160), {"numClasses": 11, "keepTopK": 50, "topK": 100}),
    "efficientdet_tf2": ("EfficientNMS_TRT", ("batch", 128, 160, 3), {"max_output_boxes": 100, "box_coding": 1}),
}


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def spec(scenes: tuple[Path, Path], tmp_path: Path) -> Any:
    """A network's example spec of an action, with this test's folders: the words of a command."""
    coco, kitti = scenes
    folders = {
        "demo/data/scenes_coco": coco,
        "demo/data/scenes_kitti": kitti,
        "demo/": tmp_path,
        "samples/models": MODELS,
    }

    def words(network: str, action: str, *overrides: str, model: Path | None = None) -> list[object]:
        text = (ROOT / "specs" / network / f"{action}.yaml").read_text()
        for written, here in folders.items():
            text = text.replace(written, f"{here}/" if written.endswith("/") else str(here))
        path = tmp_path / f"{network}_{action}.yaml"
        path.write_text(text)
        named = [] if action == "gen_trt_engine" else [f"{action}.trt_engine={model or MODELS / f'{network}.onnx'}"]
        return [network, action, "-e", path, *named, *overrides]

    return words


def measured(shell: Shell, words: list[object]) -> float:
    assert shell(*words, "--json") == 0, shell.err
    return float(json.loads(shell.out)[METRICS[SAME_MODEL.get(str(words[0]), str(words[0]))]])


@pytest.mark.parametrize("network", METRICS)
def test_every_precision_finds_the_digits(shell: Shell, spec: Any, network: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    right = measured(shell, spec(network, "evaluate"))
    assert right > 0.97
    for precision in ("fp32", "fp16", "int8"):
        kind = f"gen_trt_engine.tensorrt.data_type={precision}"
        batches = "gen_trt_engine.tensorrt.calibration.cal_batches=2"
        assert shell(*spec(network, "gen_trt_engine", kind, batches), "--json") == 0, shell.err
        built = json.loads(shell.out)
        found = measured(shell, spec(network, "evaluate", model=built["prepared_onnx"]))
        assert found == pytest.approx(right, abs={"fp32": 1e-6, "fp16": 0.005, "int8": 0.01}[precision])
        assert json.loads(Path(built["manifest"]).read_text())["classes"] == 10


@pytest.mark.parametrize("network", SAME_MODEL)
def test_networks_of_the_same_contract_read_it_alike(shell: Shell, spec: Any, network: str) -> None:
    base = SAME_MODEL[network]
    assert f"samples/models/{base}.onnx" in (ROOT / "specs" / network / "gen_trt_engine.yaml").read_text()
    model = MODELS / f"{base}.onnx"
    assert measured(shell, spec(network, "evaluate", model=model)) == measured(shell, spec(base, "evaluate"))


@pytest.mark.parametrize("network", METRICS)
def test_wrong_constants_break_it(shell: Shell, spec: Any, network: str, tmp_path: Path) -> None:
    model = onnx.load(MODELS / f"{network}.onnx")
    stem = next(tensor for tensor in model.graph.initializer if tuple(tensor.dims)[1:] == (3, 3, 3))
    weights = onnx.numpy_helper.to_array(stem)
    broken = tmp_path / "broken.onnx"
    for wrong in (weights[:, ::-1], weights / 255):  # channels swapped; levels taken for fractions
        stem.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(wrong), stem.name))
        onnx.save(model, broken)
        assert measured(shell, spec(network, "evaluate", model=broken)) < 0.5
    if network != "efficientdet_tf2":  # whose mean is in the graph
        no_mean = "augmentation_config.image_mean={b: 0.0, g: 0.0, r: 0.0}"
        assert measured(shell, spec(network, "evaluate", no_mean)) < 0.97


@pytest.mark.parametrize("network", METRICS)
def test_inference_writes_what_lies_there(
    shell: Shell, spec: Any, network: str, scenes: tuple[Path, Path], tmp_path: Path
) -> None:
    assert shell(*spec(network, "inference")) == 0, shell.err
    out = tmp_path / "results" / network / "trt_inference"
    hits = objects = 0
    for truth in sorted((scenes[1] / "test" / "labels").glob("*.txt")):
        found = [line.split(" ") for line in (out / "labels" / truth.name).read_text().splitlines()]
        assert all(row[0] in CLASSES and len(row) in (15, 16) for row in found)
        for row in map(str.split, truth.read_text().splitlines()):
            near = [np.abs(np.float64(f[4:8]) - np.float64(row[4:8])).max() < 8 for f in found if f[0] == row[0]]
            hits, objects = hits + any(near), objects + 1
        with Image.open(next((out / "images_annotated").glob(f"{truth.stem}.*"))) as picture:
            source = Image.open(scenes[1] / "test" / "images" / f"{truth.stem}.jpg")
            assert picture.size == source.size
    assert hits / objects > 0.85


@pytest.mark.parametrize("network", METRICS)
def test_the_graph_is_what_the_exporter_writes(network: str) -> None:
    op_type, shape, numbers = PLUGINS[network]
    graph = onnx.load(MODELS / f"{network}.onnx").graph
    dims = graph.input[0].type.tensor_type.shape.dim
    assert tuple(dim.dim_param or dim.dim_value for dim in dims) == shape
    plugin = graph.node[-1]
    assert plugin.op_type == op_type
    assert list(plugin.output) == [value.name for value in graph.output]
    held = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in plugin.attribute}
    assert {key: held[key] for key in numbers} == numbers


@pytest.mark.parametrize("network", METRICS)
def test_another_number_of_classes_is_refused(shell: Shell, spec: Any, network: str, tmp_path: Path) -> None:
    """At build, from the model's plugin, and at evaluate, from the manifest, where the graph no longer says it."""
    pytest.importorskip("tensorrt_rtx")
    assert shell(*spec(network, "gen_trt_engine"), "--json") == 0, shell.err
    ready = json.loads(shell.out)["prepared_onnx"]
    if network == "efficientdet_tf2":
        wrong, key = ["dataset.num_classes=91"], "num_classes"
    else:
        wrong, key = ["dataset_config.target_class_mapping.ten=ten"], "target_class_mapping"
    for words in (
        spec(network, "gen_trt_engine", *wrong),
        spec(network, "evaluate", *wrong),
        spec(network, "evaluate", *wrong, model=ready),
    ):
        message = shell.refused(1, *words)
        assert key in message
        assert "the model has 10 classes, the spec " in message
