"""ocdnet end to end on maps that are known: numbers, files, pictures; mended defects; bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from actions.commands import Shell, write_spec
from cv.ocr import ocr_replay as replay
from cv.ocr.spec_trees import check_tree
from cv.ocr.test_text_regions import plain_match, plain_regions, random_map
from PIL import Image

from nvidia_tao_deploy.cv.ocdnet import bind, dataset, decode, transform
from nvidia_tao_deploy.cv.ocdnet.spec import Spec
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.families.images import OpenInputs
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.predictions.polygons import TextRegions
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec
from nvidia_tao_deploy.transforms.transform import Geometry

NET = (128, 96)
MEAN = np.array([122.67891434, 116.66876762, 104.00698793])
NAMES = ["img10.png", "img2.png", "img1.jpg", "b.png", "a.bmp"]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


class Data:
    """Images, what the model finds in them, and labels around most of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        replay.write_images(root / "img", NAMES)
        (root / "gt").mkdir()
        self.maps = np.stack([random_map(seed) for seed in range(5)])[:, None]
        self.maps[3] = 0  # nothing is found here
        self.truths: list[list[tuple[np.ndarray, str]]] = []
        rng = np.random.default_rng(0)
        for number, name in enumerate(NAMES):
            size = np.array(Image.open(root / "img" / name).size)
            found = plain_regions(self.maps[number, 0], False, 0.55, 1000)
            rows = []
            for box, _ in found:
                moved = (np.array(box) + (30 if number == 0 else rng.uniform(-1, 1, 2))) * size / NET
                rows.append((moved, "###" if number == 1 else "word"))
            rows.append((np.array([[1, 1], [9, 1], [9, 5], [1, 5]]) * size / NET, "missed"))
            self.truths.append(rows)
            lines = [",".join([*(f"{v:.3f}" for v in box.ravel()), text]) for box, text in rows]
            (root / "gt" / f"gt_{Path(name).stem}.txt").write_text("\n".join(lines) + "\n")
        self.write_model()

    def write_model(self, batch: int | str = "N") -> None:
        shape = [batch, 3, NET[1], NET[0]]
        tables = {"pred": self.maps.astype(np.float32)}
        extra = {"other": np.zeros((5, 2), np.float32)}
        replay.write_replay(
            self.root / "ocd.onnx", shape, tables, input_name="input", to_level=(255, float(MEAN.mean())), extra=extra
        )

    def tree(self, **args: Any) -> dict[str, Any]:
        return {
            "results_dir": str(self.root / "out"),
            "dataset": {"validate_dataset": {"data_path": [str(self.root)], "args": args}},
            "evaluate": {"trt_engine": str(self.root / "ocd.onnx")},
            "inference": {
                "trt_engine": str(self.root / "ocd.onnx"),
                "input_folder": str(self.root / "img"),
                "img_mode": "BGR",
            },
        }

    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "out/trt_evaluate/results.json").read_text())
        return found

    def expected(self, polygons: bool) -> dict[str, float]:
        totals = np.zeros(3)
        for number, name in enumerate(NAMES):
            size = np.array(Image.open(self.root / "img" / name).size)
            found = plain_regions(self.maps[number, 0], polygons, 0.55, 1000)
            boxes = [np.clip(np.round(np.array(box)), 0, NET) for box, _ in found]
            truths = [np.trunc(np.round(box, 3) * NET / size) for box, _ in self.truths[number]]
            totals += plain_match(truths, [text == "###" for _, text in self.truths[number]], boxes)
        recall, precision = totals[2] / totals[0], totals[2] / totals[1]
        return {
            "Precision": precision,
            "Recall": recall,
            "F-measure": 2 * precision * recall / (precision + recall + 1e-8),
        }


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


@pytest.mark.parametrize(("polygons", "batch", "size"), [(False, "N", 1), (True, 1, 1), (False, 2, 2)])
def test_evaluate(shell: Shell, data: Data, polygons: bool, batch: int | str, size: int) -> None:
    data.write_model(batch)
    steps = [{"type": "Resize2D", "args": {"short_size": list(NET), "resize_text_polys": True}}]
    spec = write_spec(data.root / "s.yaml", data.tree(pre_processes=steps))
    output = f"evaluate.metric.args.is_output_polygon={str(polygons).lower()}"
    assert shell("ocdnet", "evaluate", "-e", spec, output, f"evaluate.batch_size={size}") == 0, shell.err
    found = data.results()
    expected = data.expected(polygons)
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert list(found)[:3] == list(expected)
    assert 0 < expected["Precision"] < 1
    assert found["images_evaluated"] == 5


def test_inference_files_and_pictures(shell: Shell, data: Data) -> None:
    spec = write_spec(data.root / "s.yaml", data.tree())
    for polygons in (False, True):
        assert shell("ocdnet", "inference", "-e", spec, f"inference.polygon={str(polygons).lower()}") == 0, shell.err
        folder = data.root / "out/trt_inference"
        for number, name in enumerate(NAMES):
            stem, size = Path(name).stem, np.array(Image.open(data.root / "img" / name).size)
            lines = (folder / f"{stem}.txt").read_text().splitlines()
            found = plain_regions(data.maps[number, 0], polygons, 0.55, 1000)
            assert len(lines) == len(found)
            for line, (box, score) in zip(lines, found, strict=True):
                *corners, text = line.split(",")
                expected = np.clip(np.round(np.array(box, np.float64) * size / NET), 0, size)
                np.testing.assert_allclose(np.array(corners, int).reshape(-1, 2), expected, atol=0)
                assert float(text) == pytest.approx(score, abs=1e-6)
            picture = np.asarray(Image.open(folder / f"{stem}_result.jpg")).astype(int)
            assert picture.shape == (size[1], size[0], 3)
            assert ((picture[..., 0] - picture[..., 1] > 60).any()) == bool(found)  # red outlines
            shown = cv2.imread(str(folder / f"{stem}_pred.jpg"), cv2.IMREAD_GRAYSCALE)
            assert np.abs(shown.astype(float) - data.maps[number, 0] * 255).mean() < 4
    assert (data.root / "out/trt_inference/b.txt").read_text() == ""


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engine(shell: Shell, data: Data, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    content = data.tree()
    content["gen_trt_engine"] = {
        "onnx_file": str(data.root / "ocd.onnx"),
        "trt_engine": str(data.root / "built.engine"),
        "width": NET[0],
        "height": NET[1],
        "tensorrt": {
            "data_type": precision,
            "calibration": {"cal_image_dir": str(data.root / "img"), "cal_batches": 5, "method": "minmax"},
        },
    }
    spec = write_spec(data.root / "s.yaml", content)
    assert shell("ocdnet", "gen_trt_engine", "-e", spec) == 0, shell.err
    prepared = next(data.root.glob("built*.onnx"))
    assert shell("ocdnet", "evaluate", "-e", spec, f"evaluate.trt_engine={prepared}") == 0, shell.err
    assert data.results()["F-measure"] == pytest.approx(data.expected(False)["F-measure"], abs=0.02)
    words = ("ocdnet", "gen_trt_engine", "-e", spec, "gen_trt_engine.width=640")
    assert "gen_trt_engine.width" in shell.refused(2, *words)
    assert shell("ocdnet", "evaluate", *words[2:]) == 0, shell.err  # a complete spec has the build's default size


def test_a_dynamic_size_is_the_specs(shell: Shell, data: Data) -> None:
    import onnx

    path = data.root / "ocd.onnx"
    model = onnx.load(str(path))
    for axis, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(model, str(path))
    spec = write_spec(data.root / "s.yaml", data.tree())
    words = ("ocdnet", "inference", "-e", spec, f"inference.width={NET[0]}", f"inference.height={NET[1]}")
    assert shell(*words) == 0, shell.err
    assert "is not of the input's size" in shell.refused(1, "ocdnet", "inference", "-e", spec)  # 1280 x 736
    section = load_spec(Spec, {"gen_trt_engine": {"width": 320}}).gen_trt_engine
    assert [getattr(section, f"{w}_{s}") for s in ("width", "height") for w in ("min", "opt", "max")] == [320] * 3 + [
        736
    ] * 3


@pytest.mark.parametrize("mode", ["BGR", "RGB"])
def test_transform(mode: str, tmp_path: Path) -> None:
    """OpenCV pixels, float, bilinear; the mean is not turned with the channels. Evaluate and inference may differ."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    (tmp_path / "img").mkdir()
    Image.fromarray(pixels).save(tmp_path / "img" / "a.png")
    ports = bind(
        [TensorInfo("input", (None, 3, 96, 128), np.dtype(np.float32))],
        [TensorInfo("pred", (None, 1, 96, 128), np.dtype(np.float32))],
    )
    spec = load_spec(Spec, {"inference": {"img_mode": mode, "input_folder": str(tmp_path / "img")}})
    out = {"input": np.zeros((3, 96, 128), np.float32)}
    geometry = transform(spec, ports)(dataset(spec, "inference")[0], out)
    image = cv2.imread(str(tmp_path / "img" / "a.png")).astype(np.float32)
    image = image if mode == "BGR" else image[..., ::-1]
    expected = (cv2.resize(np.ascontiguousarray(image), (128, 96)) - MEAN) / 255
    np.testing.assert_allclose(out["input"], expected.transpose(2, 0, 1), atol=1e-6)
    assert geometry.source_size == (50, 30)
    calibration = {"input": np.zeros((3, 96, 128), np.float32)}
    transform(spec, ports)(Sample("a", (tmp_path / "img" / "a.png",)), calibration)
    assert np.array_equal(calibration["input"], out["input"]) == (mode == "BGR")  # calibrates as evaluate reads


def test_bad_input(shell: Shell, data: Data) -> None:
    steps = [{"type": "Resize2D", "args": {"short_size": [1280, 736]}}]
    spec = write_spec(data.root / "s.yaml", data.tree(pre_processes=steps))
    assert "short_size [1280, 736]" in shell.refused(2, "ocdnet", "evaluate", "-e", spec)
    spec = write_spec(data.root / "s.yaml", data.tree())
    assert "inference.width" in shell.refused(2, "ocdnet", "inference", "-e", spec, "inference.width=640")
    assert "img_mode" in shell.refused(2, "ocdnet", "inference", "-e", spec, "inference.img_mode=GRAY")
    assert "img_mode" in shell.refused(2, "ocdnet", "inference", "-e", spec, "inference.img_mode=null")
    for key in ("post_processing.type=Other", "metric.type=Other"):
        assert key.split("=")[0] in shell.refused(2, "ocdnet", "evaluate", "-e", spec, f"evaluate.{key}")
    (data.root / "img" / "b.png").write_bytes(b"broken")
    assert shell("ocdnet", "evaluate", "-e", spec) == 0, shell.err
    assert data.results()["images_skipped"] == 1  # named, not replaced by another image
    (data.root / "gt" / "gt_a.txt").unlink()
    assert "gt_a.txt" in shell.refused(1, "ocdnet", "evaluate", "-e", spec)


def test_natural_order(data: Data) -> None:
    spec = load_spec(Spec, data.tree())
    found = dataset(spec, "inference")
    assert [found[i].path.name for i in range(5)] == ["a.bmp", "b.png", "img1.jpg", "img2.png", "img10.png"]


def test_the_complete_tree_and_no_typo(tmp_path: Path) -> None:
    values = {
        "data_type": "INT8", "layers_precision": ["*:fp32"], "img_mode": "RGB", "data_name": "UberDataset",
        "pre_processes": [{"type": "Resize2D", "args": {"short_size": [640, 640], "resize_text_polys": True}}],
    }  # fmt: skip
    from nvidia_tao_deploy.spec.known import known_keys

    assert "post_processing" in known_keys("ocdnet").children["evaluate"].children
    values["post_processing"] = {"type": "SegDetectorRepresenter", "args": {"thresh": 0.3, "box_thresh": 0.5}}
    values["metric"] = {"type": "QuadMetric", "args": {"is_output_polygon": True}}
    check_tree(Spec, "ocdnet", values, {"inference": "input_folder", "gen_trt_engine": "img_mode"}, tmp_path)


def test_settings_of_each_action_count() -> None:
    """A bar of 60 x 20 at 0.4 and a dot of 12 x 12 at 0.9, on a map of 160 x 96."""
    values = np.zeros((1, 1, 96, 160), np.float32)
    values[0, 0, 38:58, 50:110], values[0, 0, 5:17, 5:17] = 0.4, 0.9
    ports = Ports(OpenInputs({"input": TensorInfo("input", (None, 3, 96, 160), np.dtype(np.float32))}), {})
    placed = Geometry((160, 96), (160, 96), (1.0, 1.0))

    def found(action: str, **args: float) -> TextRegions:
        settings = {"thresh": 0.3, "box_thresh": 0.3, "unclip_ratio": 1.5, "max_candidates": 9, **args}
        section = {
            "post_processing": {"args": settings},
            **({"width": 160, "height": 96} if action == "inference" else {}),
        }
        steps = [{"type": "Resize2D", "args": {"short_size": [160, 96]}}]
        tree = {action: section, "dataset": {"validate_dataset": {"args": {"pre_processes": steps}}}}
        return decode(load_spec(Spec, tree), ports, action)({"pred": values}, [placed])[0]

    for action in ("evaluate", "inference"):
        assert sorted(found(action).scores) == pytest.approx([0.4, 0.9])
        assert found(action, thresh=0.41).scores == pytest.approx([0.9])
        assert found(action, box_thresh=0.41).scores == pytest.approx([0.9])
        assert len(found(action, max_candidates=1)) == 1
        for ratio in (1.0, 2.0):
            (bar,) = (p for p, s in zip(found(action, unclip_ratio=ratio).polygons,
                                        found(action, unclip_ratio=ratio).scores, strict=True) if s < 0.5)  # fmt: skip
            grown = 59 * 19 * ratio / (2 * (59 + 19))  # between the outer pixels' centres: area * ratio / perimeter
            assert np.ptp(bar, axis=0) == pytest.approx([59 + 2 * grown, 19 + 2 * grown], abs=1.5)
    assert found("evaluate").probability is None
    picture = found("inference").probability
    assert picture is not None
    assert sorted(set(picture.ravel().tolist())) == [0, 102, 229]  # 255 * 0.4 and 0.9, cut off


@pytest.mark.parametrize(
    ("build", "data", "blue_first"),
    [("RGB", "BGR", False), ("BGR", "RGB", True), ("", "RGB", False), ("", "BGR", True)],
)
def test_calibration_reads_in_the_mode_of_the_build_else_of_the_data(build: str, data: str, blue_first: bool) -> None:
    tree = {
        "gen_trt_engine": {"img_mode": build} if build else {},
        "dataset": {"validate_dataset": {"args": {"img_mode": data}}},
    }
    ports = Ports(OpenInputs({"input": TensorInfo("input", (None, 3, 96, 160), np.dtype(np.float32))}), {})
    assert transform(load_spec(Spec, tree), ports).describe()["color"] == ("BGR" if blue_first else "RGB")
