"""The trained pointpillars from the command line, with the specs that users copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell
from onnx import helper
from repository import MODELS, ROOT

MODEL = MODELS / "pointpillars.onnx"


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from samples.pointcloud_data import write_clouds

    return write_clouds(tmp_path_factory.mktemp("data"), count=30)


@pytest.fixture
def run(shell: Shell, clouds: Path, tmp_path: Path) -> Any:
    """Runs an action with its example spec and this test's folders; what it prints as JSON."""

    def run(action: str, *overrides: str, model: Path = MODEL) -> dict[str, Any]:
        text = (ROOT / "specs/pointpillars" / f"{action}.yaml").read_text().replace("demo/data/clouds", str(clouds))
        path = tmp_path / f"{action}.yaml"
        path.write_text(text.replace("demo/", f"{tmp_path}/").replace("samples/models", str(MODELS)))
        named = [] if action == "gen_trt_engine" else [f"{action}.trt_engine={model}"]
        assert shell("pointpillars", action, "-e", path, *named, *overrides, "--json") == 0, shell.err
        found: dict[str, Any] = json.loads(shell.out)
        return found

    return run


def test_the_model_is_the_exporters() -> None:
    model = onnx.load(MODEL)
    nodes = {node.op_type: node for node in model.graph.node}
    assert [entry.version for entry in model.opset_import] == [11]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == [
        "points", "num_points", "output_boxes", "num_boxes",
    ]  # fmt: skip
    attributes = {
        name: {entry.name: helper.get_attribute_value(entry) for entry in nodes[name].attribute}
        for name in ("VoxelGeneratorPlugin", "PillarScatterPlugin", "DecodeBbox3DPlugin")
    }
    assert set(attributes["VoxelGeneratorPlugin"]) == {
        "max_num_points_per_voxel", "max_voxels", "point_cloud_range", "voxel_feature_num", "voxel_size",
    }  # fmt: skip
    assert attributes["PillarScatterPlugin"] == {"dense_shape": [64, 64]}
    assert set(attributes["DecodeBbox3DPlugin"]) == {
        "point_cloud_range", "anchors", "anchor_bottom_height", "dir_offset", "dir_limit_offset", "num_dir_bins",
        "score_thresh",
    }  # fmt: skip
    assert MODEL.stat().st_size < 500_000


def test_every_precision_finds_the_boxes(run: Any) -> None:
    pytest.importorskip("tensorrt_rtx")
    right = run("evaluate")
    assert right["bev mAP"] > 90
    assert right["3d mAP"] > 85
    for precision in ("fp32", "fp16", "bf16"):
        built = run("gen_trt_engine", f"gen_trt_engine.tensorrt.data_type={precision}")
        found = run("evaluate", "evaluate.batch_size=4", model=Path(built["prepared_onnx"]))
        for key in ("bev mAP", "3d mAP"):
            assert found[key] == pytest.approx(right[key], abs={"fp32": 1e-6, "fp16": 0.5, "bf16": 2}[precision])


def test_what_is_wrong_breaks_it(run: Any, clouds: Path, tmp_path: Path) -> None:
    """Half of the range is half of the truth; wrong features are nothing that was learnt."""
    right = run("evaluate")["bev mAP"]
    assert run("evaluate", "dataset.point_cloud_range=[0,-12.8,-3,12.8,12.8,1]")["bev mAP"] < right - 25
    for number, wrong in enumerate(
        (
            lambda p: p * np.float32([1, 1, 1, 0]),
            lambda p: p * np.float32([1, 1, 1, 255]),
            lambda p: p[:, [1, 0, 2, 3]],
            lambda p: p + np.float32([0, 0, 1.73, 0]),  # heights above the ground
        )
    ):
        broken = tmp_path / str(number)
        (broken / "val/lidar").mkdir(parents=True)
        (broken / "val/label").symlink_to(clouds / "val/label")
        for path in (clouds / "val/lidar").iterdir():
            wrong(np.fromfile(path, np.float32).reshape(-1, 4)).tofile(broken / "val/lidar" / path.name)
        assert run("evaluate", f"dataset.data_path={broken}")["bev mAP"] < right - 25


def test_full_voxels_give_the_same_result_every_time(run: Any, clouds: Path, tmp_path: Path) -> None:
    """Any order of the points that are kept makes the same boxes: no cap is left to the order of arrival."""
    from nvidia_tao_deploy.transforms.points import VoxelCaps
    from samples.pointcloud_data import AREA

    caps = VoxelCaps(AREA, (0.4, 0.4, 4.0), 32, 640)
    (tmp_path / "val/lidar").mkdir(parents=True)
    (tmp_path / "val/label").symlink_to(clouds / "val/label")
    dropped = 0
    for path in (clouds / "val/lidar").iterdir():
        points = np.fromfile(path, np.float32).reshape(-1, 4)
        kept = caps.kept(points)
        dropped += len(points) - len(kept)
        np.random.default_rng(0).permutation(points[kept]).tofile(tmp_path / "val/lidar" / path.name)
    assert dropped
    one, other = run("evaluate"), run("evaluate", f"dataset.data_path={tmp_path}")
    for key in ("bev mAP", "3d mAP", "detections_per_cloud"):
        assert one[key] == pytest.approx(other[key], abs=1e-9)


def test_inference(run: Any, clouds: Path, tmp_path: Path) -> None:
    """Labels as they are read as ground truth: what was found is a perfect truth for itself."""
    found = run("inference", "model.post_processing.score_thresh=0.5")
    labels, pictures = map(Path, found["outputs"])
    assert len(list(pictures.glob("*.png"))) == len(list(labels.iterdir())) == found["images"] == 30
    (tmp_path / "val").mkdir()
    (tmp_path / "val/lidar").symlink_to(clouds / "val/lidar")
    (tmp_path / "val/label").symlink_to(labels)
    again = run("evaluate", "model.post_processing.score_thresh=0.5", f"dataset.data_path={tmp_path}")
    assert again["3d mAP"] == pytest.approx(100)
