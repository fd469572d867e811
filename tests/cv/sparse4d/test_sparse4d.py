"""sparse4d end to end, its operator, images, frames, bad input, spec."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from actions.commands import Shell, status, write_spec
from cv.ocr.spec_trees import check_tree
from cv.sparse4d import frame_replay as replay
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from nvidia_tao_deploy.cv.sparse4d.spec import Inference, Model, Spec
from nvidia_tao_deploy.cv.sparse4d.tracking import Frame, Tracker, moved, objects, sigmoid
from nvidia_tao_deploy.data.frames import rigid
from nvidia_tao_deploy.errors import DataError, ModelError, SpecError
from nvidia_tao_deploy.graph.lower import lower_plugins
from nvidia_tao_deploy.spec.load import load_spec

SETTINGS = {"num_output": 30, "score_threshold": 0.15, "tracking_threshold": 0.3, "confidence_decay": 0.7,
            "max_time_interval": 2.0}  # fmt: skip
KEYS = ["frame_index", "scene", "timestamp", "temporal_reset", "boxes_3d", "scores_3d", "labels_3d", "cls_scores",
        "instance_ids"]  # fmt: skip


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    replay.write_model(tmp_path / "sparse4d.onnx", replay.tables())
    replay.write_frames(tmp_path)
    return tmp_path


def tree(folder: Path) -> dict[str, Any]:
    return {
        "results_dir": str(folder / "out"),
        "model": replay.MODEL,
        "gen_trt_engine": {"onnx_file": str(folder / "sparse4d.onnx"), "save_engine": str(folder / "s.engine")},
        "inference": {
            "trt_engine": str(folder / "sparse4d.onnx"),
            "manifest": str(folder / "manifest.json"),
            **SETTINGS,
        },
    }


def lines(folder: Path, name: str = "out") -> list[dict[str, Any]]:
    text = (folder / name / "trt_inference/predictions.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def check_lines(found: list[dict[str, Any]], expected: list[dict[str, Any]], atol: float = 2e-3) -> None:
    assert len(found) == len(expected)
    for line, wanted in zip(found, expected, strict=True):
        assert list(line) == KEYS
        for key in ("frame_index", "scene", "timestamp", "temporal_reset", "labels_3d", "instance_ids"):
            assert line[key] == wanted[key], (line["frame_index"], key)
        for key in ("boxes_3d", "scores_3d", "cls_scores"):
            np.testing.assert_allclose(line[key], wanted[key], rtol=1e-4, atol=atol, err_msg=key)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_stream_of_two_scenes(shell: Shell, data: Path, dynamic: bool) -> None:
    """Gaps, a scene that comes back, a time that stands still; seconds since 1970, poses far from the origin."""
    replay.write_model(data / "sparse4d.onnx", replay.tables(), dynamic=dynamic)
    assert shell("sparse4d", "inference", "-e", write_spec(data / "s.yaml", tree(data))) == 0, shell.err
    expected = replay.plain_stream(replay.tables(), SETTINGS)
    assert f"{len(expected)} frames, " in shell.out
    assert [line["temporal_reset"] for line in expected] == replay.RESETS
    check_lines(lines(data), expected)
    assert any(-1 in line["instance_ids"] for line in expected)
    assert set(expected[1]["instance_ids"]) & set(expected[2]["instance_ids"]) - {-1}  # tracks live on
    summary = json.loads((data / "out/trt_inference/summary.json").read_text())
    assert summary["frames"] == len(expected)
    assert summary["detections"] == sum(len(line["scores_3d"]) for line in expected)
    assert summary["temporal_resets"] == sum(replay.RESETS)
    assert summary["all_outputs_finite"] is True
    assert summary["engine_sha256"] == hashlib.sha256((data / "sparse4d.onnx").read_bytes()).hexdigest()
    assert summary["manifest_sha256"] == hashlib.sha256((data / "manifest.json").read_bytes()).hexdigest()


def test_the_time_that_a_model_takes_begins_with_its_scene(shell: Shell, data: Path) -> None:
    replay.write_model(data / "sparse4d.onnx", replay.tables(), timestamp=True)
    assert shell("sparse4d", "inference", "-e", write_spec(data / "s.yaml", tree(data))) == 0, shell.err
    check_lines(lines(data), replay.plain_stream(replay.tables(), SETTINGS, late=True))


def test_raw_outputs_and_what_stands_there_already(shell: Shell, data: Path) -> None:
    spec = write_spec(data / "s.yaml", tree(data))
    assert shell("sparse4d", "inference", "-e", spec, "inference.save_raw=true") == 0, shell.err
    folder = data / "out/trt_inference"
    names = sorted(path.name for path in (folder / "raw").iterdir())
    assert names == [f"{index:06d}.npz" for index in range(len(replay.STREAM))]
    with np.load(folder / "raw" / "000001.npz") as raw:
        assert len(raw.files) == 12
        np.testing.assert_array_equal(raw["quality2"][0], replay.tables()["quality"][1])
    assert "of an earlier run" in shell.refused(2, "sparse4d", "inference", "-e", spec)
    assert status(folder)[-1]["status"] == "FAILURE"
    assert shell("sparse4d", "inference", "-e", spec, "inference.overwrite=true") == 0, shell.err
    assert not list((folder / "raw").glob("*.npz"))


@pytest.mark.parametrize("precision", ["fp32", "FP16"])
def test_engine(shell: Shell, data: Path, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    replay.write_model(data / "sparse4d.onnx", replay.tables(), dynamic=True)
    spec = write_spec(data / "s.yaml", tree(data))
    assert shell("sparse4d", "gen_trt_engine", "-e", spec, f"gen_trt_engine.data_type={precision}") == 0, shell.err
    sidecar = json.loads((data / "s.engine.json").read_text())
    assert sidecar["version"] == 1
    assert sidecar["model_name"] == "sparse4d"
    assert sidecar["precision"] == precision.lower()
    assert sidecar["model"] == replay.MODEL
    assert sidecar["input_shapes"]["img"] == [1, 2, 3, 32, 48]
    assert sidecar["profiles"]["projection_mat"]["max"] == [1, 2, 4, 4]
    assert sidecar["engine_sha256"] == hashlib.sha256((data / "s.engine").read_bytes()).hexdigest()
    assert sidecar["onnx_sha256"] == hashlib.sha256((data / "sparse4d.onnx").read_bytes()).hexdigest()
    assert sidecar["spec"]["gen_trt_engine"]["tensorrt"]["workspace_size"] == 4096
    prepared = data / "s.engine.onnx"
    assert shell("sparse4d", "inference", "-e", spec, f"inference.trt_engine={prepared}") == 0, shell.err
    expected = replay.plain_stream(replay.tables(), SETTINGS)
    if precision == "fp32":
        check_lines(lines(data), expected)
    else:
        found = lines(data)
        assert [line["temporal_reset"] for line in found] == replay.RESETS
        np.testing.assert_allclose(found[0]["scores_3d"], expected[0]["scores_3d"], atol=5e-3)
    message = shell.refused(2, "sparse4d", "gen_trt_engine", "-e", spec)
    assert "s.engine is there already" in message
    assert shell("sparse4d", "gen_trt_engine", "-e", spec, "gen_trt_engine.overwrite=true") == 0, shell.err
    (data / "s.engine").write_bytes(b"another file")
    words = (f"inference.trt_engine={data / 's.engine'}", "inference.overwrite=true")
    message = shell.refused(1, "sparse4d", "inference", "-e", spec, *words)
    assert "not the one that its manifest describes" in message


def msda_model(arrays: dict[str, np.ndarray], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    given = ("features", "locations", "weights")
    graph = helper.make_graph(
        [helper.make_node("MSDA", list(arrays), ["out"], domain="nv")],
        "msda",
        [helper.make_tensor_value_info(name, kind, arrays[name].shape) for name in given],
        [helper.make_tensor_value_info("out", kind, None)],
        [numpy_helper.from_array(arrays[name], name) for name in arrays if name not in given],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nv", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run_msda(arrays: dict[str, np.ndarray], kind: int = TensorProto.FLOAT) -> np.ndarray:
    lowered = lower_plugins(msda_model(arrays, kind))
    assert lowered.unsupported == []
    session = onnxruntime.InferenceSession(lowered.model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {node.name: arrays[node.name] for node in session.get_inputs()})[0]


@pytest.mark.parametrize("batch", [1, 2])
def test_the_operator_equals_its_definition(batch: int) -> None:
    arrays = replay.msda_constants()
    for name in ("features", "locations", "weights"):
        arrays[name] = np.concatenate([arrays[name] * (k + 1) for k in range(batch)])
    arrays["locations"][:, :5, 0, 0, 0] = [0, 1, np.nan, np.inf, -np.inf]
    arrays["locations"][:, 5:8, 0, 1, 1] = [1e-7, 1 - 1e-6, 0.5]
    expected = replay.plain_msda(*(arrays[name] for name in ("features", "shapes", "starts", "locations", "weights")))
    np.testing.assert_allclose(run_msda(arrays), expected, atol=2e-5)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_the_operator_passes_the_conformance_gate(kind: Any) -> None:
    """Six cameras, four levels of 1 x 1, 13 points, all ones: 312, and nothing on or beyond the border."""
    nan, inf = np.nan, np.inf
    places = [(0.5, 0.5), (0, 0.5), (1, 0.5), (0.5, 0), (0.5, 1), (-0.1, 0.5), (1.1, 0.5), (0.5, -0.1), (0.5, 1.1),
              (nan, 0.5), (0.5, nan), (inf, 0.5), (0.5, inf), (-inf, 0.5), (0.5, -inf), (nan, nan)]  # fmt: skip
    locations = np.full((1, 900, 13, 6, 2), 0.5, kind)
    locations[0, :16] = np.array(places)[:, None, None]
    arrays = {
        "features": np.ones((1, 24, 256), kind),
        "shapes": np.ones((6, 4, 2), np.int32),
        "starts": np.arange(24, dtype=np.int32).reshape(6, 4),
        "locations": locations,
        "weights": np.ones((1, 900, 13, 6, 4, 8), kind),
    }
    found = run_msda(arrays, helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    assert found.dtype == kind
    expected = np.full((1, 900, 256), 312)
    expected[0, 1:16] = 0
    np.testing.assert_array_equal(found, expected)


def test_operators_that_cannot_be_written_say_why() -> None:
    arrays = replay.msda_constants()
    arrays["shapes"][1, 0] = [6, 4]
    assert "different sizes" in lower_plugins(msda_model(arrays)).unsupported[0][2]


def test_images_instead_of_tensors(shell: Shell, data: Path) -> None:
    """The same pictures prepared by training's rules, written down here once more, give the same lines."""
    rng = np.random.default_rng(3)
    frames = json.loads((data / "manifest.json").read_text())["frames"][:3]
    by_image = []
    for index, frame in enumerate(frames):
        arrays = replay.frame_arrays(index)
        projections = rng.normal(0, 1, (replay.C, 4, 4))
        entry = {"scene": frame["scene"], "timestamp": frame["timestamp"], "images": [],
                 "projections": projections.tolist(), "T_global": arrays["T_global"].tolist()}  # fmt: skip
        for camera, (wide, high) in enumerate([(100, 60), (64, 64)]):
            pixels = rng.integers(100 + 3 * index, 110 + 3 * index, (high, wide, 3), dtype=np.uint8)
            path = data / f"{index}_{camera}.png"
            Image.fromarray(pixels).save(path)
            entry["images"].append(path.name)
            s = max(32 / high, 48 / wide)
            size = int(wide * s), int(high * s)
            x, y = int(max(0, size[0] - 48) / 2), int((1 - 0.05) * size[1]) - 32
            resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
            if y < 0:  # the cut starts above the picture: black
                resized = np.concatenate([np.zeros((-y, size[0], 3), np.uint8), resized])
            cut = resized[max(y, 0) : max(y, 0) + 32, x : x + 48].astype(np.float32)
            bgr = (cut[..., ::-1] - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
            arrays["img"][0, camera] = bgr.transpose(2, 0, 1)
            matrix = np.array([[s, 0, -x, 0], [0, s, -y, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
            arrays["projection_mat"][0, camera] = matrix @ projections[camera]
        np.savez(data / frame["tensors"], **arrays)
        by_image.append(entry)
    from nvidia_tao_deploy.cv.sparse4d import NETWORK
    from nvidia_tao_deploy.network import Ports

    spec = write_spec(data / "s.yaml", {**tree(data), "dataset": {"bot_pct_lim": [0.0, 0.1]}})
    typed = load_spec(Spec, spec)
    shapes = {"img": (2, 3, 32, 48), "projection_mat": (2, 4, 4), "image_wh": (2, 2), "frame_pose": (4, 4),
              "frame_scene": (1,), "frame_time": (1,), "frame_elapsed": (1,)}  # fmt: skip
    made = []
    for number, entries in enumerate((frames, by_image)):
        (data / "manifest.json").write_text(json.dumps({"version": 1, "frames": entries}))
        filled = []
        for sample in (dataset := NETWORK.dataset(typed, "inference")):
            out = {
                name: np.zeros(shape, np.float64 if "frame" in name else np.float32) for name, shape in shapes.items()
            }
            NETWORK.transform(typed, Ports({}, {}))(sample, out)
            filled.append(out)
        assert len(filled) == len(dataset) == 3
        made.append(filled)
        assert shell("sparse4d", "inference", "-e", spec, f"results_dir={data / str(number)}") == 0, shell.err
    for tensors, images in zip(*made, strict=True):
        for name in shapes:
            np.testing.assert_allclose(images[name], tensors[name], atol=1e-5, err_msg=name)
    check_lines(lines(data, "1"), lines(data, "0"), atol=1e-5)


def test_equal_scores_keep_the_order_of_queries() -> None:
    rng = np.random.default_rng(0)
    table = replay.tables(1)
    logits = rng.integers(-3, 3, (1, replay.Q, replay.N)).astype(np.float32)
    outputs = {"classification2": logits, "quality2": np.zeros((1, replay.Q, 2), np.float32),
               "prediction6": table["anchor"]}  # fmt: skip
    found = objects(outputs, np.arange(replay.Q), Inference(num_output=25, score_threshold=0.3))
    best = logits[0].max(axis=1)
    expected = sorted(range(replay.Q), key=lambda k: (-best[k], k))[:25]
    assert found.ids.tolist() == [k for k in expected if sigmoid(best[k]) >= 0.3]
    assert found.class_ids.tolist() == [int(logits[0, k].argmax()) for k in found.ids]
    outputs["prediction6"] = np.full_like(table["anchor"], 200)
    with pytest.raises(ModelError, match="boxes that are not finite"):
        objects(outputs, np.arange(replay.Q), Inference(num_output=25))
    assert sigmoid(np.array([-200, 0, 200], np.float32)).tolist() == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize(("turn", "good"), [
    ([[0, -1, 0], [1, 0, 0], [0, 0, 1]], True), ([[0, 1, 0], [1, 0, 0], [0, 0, 1]], False),  # a mirror
    ([[1, 0.5, 0], [0, 1, 0], [0, 0, 1]], False), ([[2, 0, 0], [0, 0.5, 0], [0, 0, 1]], False),
])  # fmt: skip
def test_a_pose_is_a_rotation_and_a_shift(turn: object, good: bool) -> None:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, [1, 2, 3]
    with nullcontext() if good else pytest.raises(DataError, match="not a rotation and a shift"):
        rigid(pose, "here")
    pose[:3, :3], pose[3] = np.eye(3), [0, 0, 1, 1]
    with pytest.raises(DataError, match="not a rotation and a shift"):
        rigid(pose, "here")


def test_far_poses_do_not_shake_the_instances() -> None:
    """Inverses in float32 are off by centimetres where a map's origin is far away."""
    rng = np.random.default_rng(1)
    far = np.eye(4)
    far[:3, :3] = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
    far[:3, 3] = [4.0e5, 5.6e6, 120]
    anchors = rng.normal(0, 30, (50, 11)).astype(np.float32)
    anchors[:, 8:] = 0
    found = moved(anchors, Frame(0, 0.0, far), Frame(0, 0.5, far))
    np.testing.assert_allclose(found, anchors, atol=1e-4)
    anchors[:, 8] = 300
    moving = moved(anchors, Frame(0, 7.0, np.eye(4)), Frame(0, 7.1, np.eye(4)))
    np.testing.assert_allclose(moving[:, 0] - anchors[:, 0], 30, atol=1e-4)  # 300 metres per second


def test_ids_go_on_after_a_reset() -> None:
    model = Model(**replay.MODEL)
    tracker = Tracker(model, Inference(tracking_threshold=0, num_output=30))
    outputs = {"classification2": replay.tables(1)["cls"], "output_cached_anchor": replay.tables(1)["anchor"],
               "output_cached_feature": np.zeros((1, replay.Q, replay.E), np.float32)}  # fmt: skip
    for scene in range(2):
        assert tracker.start(Frame(scene, 0.0, np.eye(4))) is None
        assert tracker.finish(outputs).tolist() == list(range(scene * replay.Q, (scene + 1) * replay.Q))


@pytest.mark.parametrize(("threshold", "ids"), [(0.5, 0), (0.51, -1)])
@pytest.mark.parametrize(("seconds", "kept"), [(0.0, False), (0.25, True), (2.0, True), (2.25, False)])
def test_what_equals_a_limit_counts(threshold: float, ids: int, seconds: float, kept: bool) -> None:
    """Logits of 0 are confidences of one half."""
    tracker = Tracker(Model(**replay.MODEL), Inference(tracking_threshold=threshold, max_time_interval=2.0))
    outputs = {"classification2": np.zeros((1, replay.Q, replay.N), np.float32),
               "quality2": np.zeros((1, replay.Q, 2), np.float32), "prediction6": replay.tables(1)["anchor"],
               "output_cached_anchor": replay.tables(1)["anchor"],
               "output_cached_feature": np.zeros((1, replay.Q, replay.E), np.float32)}  # fmt: skip
    tracker.start(Frame(0, 1.0, np.eye(4)))
    assert tracker.finish(outputs)[0] == ids
    assert (tracker.start(Frame(0, 1.0 + seconds, np.eye(4))) is not None) == kept
    found = objects(outputs, np.arange(replay.Q), Inference(num_output=25, score_threshold=threshold))
    assert len(found.scores) == (25 if ids == 0 else 0)


def test_bad_frames_are_skipped_and_named(shell: Shell, data: Path) -> None:
    breaks = {
        1: {"img": np.full((1, 2, 3, 32, 48), np.nan, np.float32)},
        2: {"T_global": np.diag([2, 1, 1, 1]).astype(np.float32)},
        4: {"image_wh": np.tile(np.array([32, 48], np.float32), (1, 2, 1))},
        5: {"projection_mat": np.zeros((1, 2, 4, 4))},
        6: {"more": np.zeros(1, np.float32)},
    }
    for index, arrays in breaks.items():
        np.savez(data / "frames" / f"{index}.npz", **{**replay.frame_arrays(index), **arrays})
    (data / "frames" / "7.npz").write_bytes(b"PK\x03\x04broken")
    spec = write_spec(data / "s.yaml", tree(data))
    assert shell("sparse4d", "inference", "-e", spec) == 0, shell.err
    check_lines(lines(data), replay.plain_stream(replay.tables(), SETTINGS, skip=(*breaks, 7)))
    for reason in ("img holds values that are not finite", "T_global is not a rotation", "image_wh is not (48, 32)",
                   "projection_mat is float64", "the frame holds", "cannot read the frame"):  # fmt: skip
        assert reason in shell.out, reason
    message = shell.refused(1, "sparse4d", "inference", "-e", spec, "strict=true", f"results_dir={data / 'strict'}")
    assert "1.npz" in message
    assert not list((data / "strict/trt_inference").glob("*predictions*"))  # whole or not at all


@pytest.mark.parametrize(
    ("change", "meant"),
    [
        ({"version": 2}, "not a manifest of version 1"),
        ({"frames": []}, "not a manifest of version 1"),
        ({"frames": [{"scene": "", "timestamp": 0, "tensors": "frames/0.npz"}]}, "frame 0: 'scene'"),
        ({"frames": [{"scene": "a", "timestamp": "0", "tensors": "frames/0.npz"}]}, "frame 0: 'timestamp'"),
        ({"frames": [{"scene": "a", "timestamp": 0, "tensors": "frames/x.npz"}]}, "there is no file"),
        ({"frames": [{"scene": "a", "timestamp": 0}]}, "neither 'tensors' nor a list of 'images'"),
        ({"frames": [{"scene": "a", "timestamp": 0, "images": ["frames/0.npz"]}]}, "it names 1 images"),
        ({"frames": [{"scene": "a", "timestamp": 0, "images": ["frames/0.npz"] * 2}]}, "'projections' must hold"),
    ],
)
def test_a_wrong_manifest(shell: Shell, data: Path, change: dict[str, Any], meant: str) -> None:
    content = json.loads((data / "manifest.json").read_text())
    (data / "manifest.json").write_text(json.dumps({**content, **change}))
    message = shell.refused(1, "sparse4d", "inference", "-e", write_spec(data / "s.yaml", tree(data)))
    assert meant in message


def test_a_model_that_does_not_fit(shell: Shell, data: Path) -> None:
    content = tree(data)
    spec = write_spec(data / "s.yaml", content)
    message = shell.refused(1, "sparse4d", "inference", "-e", spec, "model.num_classes=7")
    assert "output classification1 float32 1x40x3 should be 1 x 40 x 7" in message
    message = shell.refused(1, "sparse4d", "gen_trt_engine", "-e", spec, "model.num_cameras=6")
    assert "input img" in message
    replay.write_model(data / "sparse4d.onnx", replay.tables(), msda=5)
    assert "5 MSDA nodes" in shell.refused(1, "sparse4d", "gen_trt_engine", "-e", spec)
    (data / "plugin.so").write_bytes(b"a library")
    words = (f"plugin.path={data / 'plugin.so'}", f"plugin.sha256={'0' * 64}")
    assert "not the library of plugin.sha256" in shell.refused(2, "sparse4d", "gen_trt_engine", "-e", spec, *words)
    table = replay.tables()
    table["quality"][2, 3, 1] = np.inf
    replay.write_model(data / "sparse4d.onnx", table)
    assert "output quality1" in shell.refused(1, "sparse4d", "inference", "-e", spec)


def test_spec(tmp_path: Path) -> None:
    for wrong, key in (
        ({"gen_trt_engine": {"save_engine": "a", "trt_engine": "b"}}, "save_engine"),
        ({"gen_trt_engine": {"data_type": "int8"}}, "data_type"),
        ({"gen_trt_engine": {"data_type": "fp16", "tensorrt": {"data_type": "fp32"}}}, "data_type"),
        ({"inference": {"gpu_ids": [0, 1]}}, "gpu_ids"),
        ({"inference": {"num_gpus": 2}}, "num_gpus"),
        ({"inference": {"score_threshold": 1.1}}, "score_threshold"),
        ({"inference": {"max_time_interval": 0}}, "max_time_interval"),
        ({"inference": {"num_output": 901}}, "num_output"),
        ({"model": {"anchor_dims": 10}}, "anchor_dims"),
        ({"runtime": {"ranks": 2}}, "ranks"),
    ):
        with pytest.raises(SpecError, match=key):
            load_spec(Spec, wrong)
    spec = load_spec(Spec, {"gen_trt_engine": {"trt_engine": "e", "data_type": "FP16", "workspace_size": 0.5}})
    assert spec.gen_trt_engine.trt_engine == "e"
    assert spec.gen_trt_engine.tensorrt.data_type == "fp16"
    assert spec.gen_trt_engine.tensorrt.workspace_size == 512
    values = {"data_type": "fp16", "anchor_dims": 11, "num_gpus": 1, "num_queries": 900}
    check_tree(Spec, "sparse4d", values, {"inference": "num_output", "model": "embed_dims"}, tmp_path)
