"""What detectnet_v2's page makes of its spec: labels, the metric's settings, colours and thresholds of files."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nvidia_tao_deploy.cv.detectnet_v2 import bind, dataset, decode, metric, writer
from nvidia_tao_deploy.cv.detectnet_v2.spec import Spec
from nvidia_tao_deploy.data.kitti import KittiTarget
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.families.kitti_detection import PlacedDetections
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.transform import Geometry

GEOMETRY = Geometry((200, 100), (320, 160), (1.6, 1.6))


def spec(**sections: Any) -> Spec:
    return Spec.model_validate(
        {"cost_function_config": {"target_classes": [{"name": "Car"}, {"name": "bus"}]}, **sections}
    )


def detections(*rows: tuple[float, ...]) -> PlacedDetections:
    """Rows of class id, score, x1, y1, x2, y2."""
    table = np.array(rows, float)
    return PlacedDetections(table[:, 2:], table[:, 1], table[:, 0].astype(np.int64), geometry=GEOMETRY)


def test_labels_are_rounded_to_whole_pixels_and_named_in_any_case(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (200, 100)).save(tmp_path / "images" / "a.png")
    tail = "0 0 0 0 0 0 0"
    (tmp_path / "labels" / "a.txt").write_text(f"CAR 0 0 0 10.5 11.5 40.4 300.6 {tail}\nvan 0 1 0 1 2 3 4 {tail}\n")
    where = {"image_dir": str(tmp_path / "images"), "label_dir": str(tmp_path / "labels")}
    mapping = {"target_class_mapping": {"car": "cAR", "van": "bus"}}
    target = dataset(spec(evaluate=where, dataset_config=mapping), "evaluate")[0].target
    assert target.boxes_xyxy.tolist() == [[10, 12, 40, 301], [1, 2, 3, 4]]  # half to even, not clipped
    assert target.class_ids.tolist() == [1, 2]
    assert target.difficult.tolist() == [False, True]


@pytest.mark.parametrize(
    ("settings", "ap"),
    [
        # one of two cars is found, by an IoU of 0.6: precision 1 up to recall 0.5
        ({}, 6 / 11),
        ({"average_precision_mode": "INTEGRATE"}, 0.5),
        ({"minimum_detection_ground_truth_overlap": {"car": 0.7}}, 0.0),
        ({"minimum_detection_ground_truth_overlap": {"bus": 0.7}}, 6 / 11),
        ({"evaluation_box_config": {"car": {"minimum_height": 20}}}, 1.0),  # the other one is too small to count
        ({"evaluation_box_config": {"car": {"maximum_width": 40}}}, 0.0),  # the found one is too wide to count
    ],
)
def test_the_metric_goes_by_evaluation_config(settings: dict[str, Any], ap: float) -> None:
    measured = metric(spec(evaluation_config=settings), None)
    truth = np.array([[10, 10, 60, 60], [100, 10, 120, 20]], float)
    target = KittiTarget(truth, np.array([1, 1]), np.zeros(2, bool))
    measured.update(Sample("a", (), target), detections((1, 0.9, 10, 10, 40, 60)))
    assert measured.compute()["AP_Car"] == pytest.approx(ap)


def test_colors_and_thresholds_of_files_go_by_class(tmp_path: Path) -> None:
    blue = {"bbox_color": {"B": 255}, "clustering_config": {"dbscan_confidence_threshold": 0.8}}
    handlers = {"classwise_bbox_handler_config": {"bus": blue, "default": {"clustering_config": {}}}}
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    made = writer(spec(bbox_handler_config=handlers), tmp_path / "out", dataset_of(tmp_path), None)
    found = detections((1, 0.1, 10, 20, 90, 90), (2, 0.8, 110, 20, 190, 90), (2, 0.79, 0, 0, 5, 5))
    made.write(Sample("a", (tmp_path / "a.png",)), found)
    lines = (tmp_path / "out" / "labels" / "a.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["Car", "bus"]
    pixels = np.asarray(Image.open(tmp_path / "out" / "images_annotated" / "a.png"))
    assert pixels[90, 50].tolist() == [0, 255, 0]  # no colour is given: green, which was black
    assert pixels[90, 150].tolist() == [0, 0, 255]


def dataset_of(folder: Path) -> Any:
    return dataset(spec(inference={"image_dir": str(folder)}), "inference")


@pytest.mark.parametrize("channels", [11, 12, 13])
def test_boxes_have_four_channels_per_class_whatever_the_order(channels: int) -> None:
    image = TensorInfo("input_1", (None, 3, 176, 320), np.dtype(np.float32))
    coverage, boxes = (
        TensorInfo(name, (None, n, 11, 20), np.dtype(np.float32)) for name, n in (("a", 3), ("b", channels))
    )
    for outputs in ((coverage, boxes), (boxes, coverage)):
        with nullcontext() if channels == 12 else pytest.raises(ModelError, match="four channels per class"):
            assert bind([image], outputs).outputs == {"output_cov": coverage, "output_bbox": boxes}


@pytest.mark.parametrize("action", ["evaluate", "inference"])
@pytest.mark.parametrize("table", ["postprocessing_config", "bbox_handler_config", "both"])
def test_each_action_has_its_own_clustering_and_the_other_stands_in(action: str, table: str) -> None:
    """Boxes are 70 pixels high; channels are in the order of the action's own list of classes."""

    def least(height: int) -> dict[str, Any]:
        return {"clustering_config": {"clustering_algorithm": "NMS", "coverage_threshold": 0.1,
                                      "minimum_bounding_box_height": height}}  # fmt: skip

    tables = {
        "postprocessing_config": {"target_class_config": {"Car": least(60), "bus": least(80)}},
        "bbox_handler_config": {"classwise_bbox_handler_config": {"Car": least(80), "bus": least(60)}},
    }
    own = "postprocessing_config" if action == "evaluate" else "bbox_handler_config"
    tables = tables if table == "both" else {table: tables[table]}
    ports = Ports({}, {"output_cov": TensorInfo("c", (None, 2, 11, 20), np.dtype(np.float32))})
    inferencer = {"target_classes": ["bus", "Car"]}
    run = decode(spec(**tables, inferencer_config=inferencer), ports, action)
    outputs = {"output_cov": np.ones((1, 2, 11, 20), np.float32), "output_bbox": np.ones((1, 8, 11, 20), np.float32)}
    (found,) = run(outputs, [Geometry((320, 176), (320, 176), (1.0, 1.0))])
    name = {"postprocessing_config": "Car", "bbox_handler_config": "bus"}[own if table == "both" else table]
    order = ["Car", "bus"] if action == "evaluate" else ["bus", "Car"]
    assert set(found.class_ids.tolist()) == {1 + order.index(name)}
