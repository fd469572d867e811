"""depth_net end to end, mono and stereo; files and pictures; dynamic sizes; bad input."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from actions.commands import Shell, write_spec
from cv.depth import depth_replay as replay
from cv.ocr.ocr_replay import write_replay
from cv.ocr.spec_trees import check_tree
from PIL import Image

from nvidia_tao_deploy.cv.depth_net import bind, dataset, metric, stride, transform
from nvidia_tao_deploy.cv.depth_net.spec import Spec
from nvidia_tao_deploy.data.depth import read_map
from nvidia_tao_deploy.data.pfm import read_pfm, write_pfm
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.predictions.depth import DepthMap
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec
from nvidia_tao_deploy.transforms.transform import Geometry

COUNT = len(replay.SIZES)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def up(values: np.ndarray, size: tuple[int, int], stereo: bool = False) -> np.ndarray:
    resized = cv2.resize(values, size, interpolation=cv2.INTER_CUBIC)
    return resized * np.float32(size[0] / replay.NET[0]) if stereo else resized


class Data:
    """Images, the model's maps, and a truth that is off by known factors and has holes."""

    def __init__(self, root: Path, *, stereo: bool) -> None:
        self.root, self.stereo = root, stereo
        self.maps = replay.smooth_maps(COUNT, 3, 40) if stereo else replay.smooth_maps(COUNT, 1, 8)
        left = replay.write_images(root / "left")
        right = replay.write_images(root / "right") if stereo else []
        rng = np.random.default_rng(1)
        self.truths = []
        lines = []
        (root / "gt").mkdir()
        for number, size in enumerate(replay.SIZES):
            truth = up(self.maps[number], size, stereo) * rng.uniform(0.75, 1.3, size[::-1]).astype(np.float32)
            truth[rng.random(truth.shape) < 0.3] = 0
            if number == 2:
                truth[:] = 0  # no truth at all
            self.truths.append(truth.astype(np.float32))
            path = root / "gt" / f"{number}.pfm"
            write_pfm(path, truth)
            lines.append(" ".join(map(str, [left[number], *right[number : number + 1], path])))
        (root / "list.txt").write_text("# left [right] map\n" + "\n".join(lines) + "\n")
        self.write_model()

    def write_model(self, **more: Any) -> None:
        (replay.write_stereo if self.stereo else replay.write_mono)(self.root / "depth.onnx", self.maps, **more)

    def tree(self, **dataset: Any) -> dict[str, Any]:
        name = "StereoDataset" if self.stereo else "MonoDataset"
        sources = {"data_sources": [{"dataset_name": name, "data_file": str(self.root / "list.txt")}]}
        return {
            "results_dir": str(self.root / "out"),
            "dataset": {
                "dataset_name": name,
                "test_dataset": {**sources, "batch_size": 2},
                "infer_dataset": sources,
                **dataset,
            },
            "evaluate": {"trt_engine": str(self.root / "depth.onnx")},
            "inference": {"trt_engine": str(self.root / "depth.onnx")},
        }

    def results(self, name: str = "results") -> Any:
        return json.loads((self.root / f"out/trt_evaluate/{name}.json").read_text())

    def expected(self) -> dict[str, float]:
        per_image = []
        pooled: list[tuple[np.ndarray, np.ndarray]] = []
        for number, size in enumerate(replay.SIZES):
            g = self.truths[number]
            valid = (g > 0) & (g < 416) if self.stereo else (g > 1e-3) & (g < 10)
            if not valid.any():
                continue
            p, g = up(self.maps[number], size, self.stereo)[valid], g[valid]
            e = np.abs(p - g)
            pooled.append((np.clip(p, 1e-3, 10), g))
            per_image.append({"epe": e.mean(), "bp1": (e > 1).mean(), "abs_rel": (e / g).mean(),
                              "d1": ((e > 3) & (e / g > 0.05)).mean(), "rmse": np.sqrt((e**2).mean())})  # fmt: skip
        if self.stereo:
            return {key: float(np.mean([row[key] for row in per_image])) for key in per_image[0]}
        p, g = (np.concatenate(parts) for parts in zip(*pooled, strict=True))
        return {
            "abs_rel": float((np.abs(p - g) / g).mean()),
            "d1": float((np.maximum(p / g, g / p) < 1.25).mean()),
            "rmse": float(np.sqrt(((p - g) ** 2).mean())),
        }


@pytest.fixture(params=["mono", "stereo"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Data:
    return Data(tmp_path, stereo=request.param == "stereo")


@pytest.mark.parametrize("batch", ["N", 2])
def test_evaluate(shell: Shell, data: Data, batch: int | str) -> None:
    """Images of five sizes in batches of two; one has no truth and counts nowhere."""
    data.write_model(batch=batch)
    assert shell("depth_net", "evaluate", "-e", write_spec(data.root / "s.yaml", data.tree())) == 0, shell.err
    found, expected = data.results(), data.expected()
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-4)
    assert found["images_evaluated"] == COUNT
    assert f"{COUNT} {'pairs' if data.stereo else 'images'} evaluated, " in shell.out
    assert "1 image has no valid ground truth and counts nowhere" in shell.out
    assert f"abs_rel: {found['abs_rel']:.9f}" in shell.out
    if data.stereo:
        assert list(found)[:9] == ["d1", "bp1", "bp2", "bp3", "epe", "abs_rel", "sq_rel", "rmse", "rmse_log"]
        rows = data.results("per_sample_results")
        assert [row["orig_hw"] for row in rows] == [list(size[::-1]) for size in replay.SIZES]
        assert rows[0]["engine_hw"] == [42, 56]
        assert rows[0]["scene"] == "left"
        assert rows[2]["epe"] is None
    else:
        assert list(found)[:2] == ["d1", "abs_rel"]


def test_inference_files_and_pictures(shell: Shell, data: Data) -> None:
    spec = write_spec(data.root / "s.yaml", data.tree())
    scale = 100 if data.stereo else 1000
    extra = ["save_raw_npy=true", "save_raw_pfm=true", "save_png16=true", f"png16_scale={scale}"]
    assert shell("depth_net", "inference", "-e", spec, *(f"inference.{key}" for key in extra)) == 0, shell.err
    folder = data.root / "out/trt_inference/predicted_depth"
    assert len(list(folder.iterdir())) == 4 * COUNT
    for number, size in enumerate(replay.SIZES):
        stem = f"left_{number}"
        expected = up(data.maps[number], size, data.stereo)
        picture = np.asarray(Image.open(folder / f"{stem}.png"))
        assert picture.shape == (*size[::-1], 3)
        raw = np.load(folder / f"{stem}.npy")
        assert raw.dtype == np.float32
        np.testing.assert_array_equal(raw, data.maps[number])  # on the network's grid
        np.testing.assert_allclose(read_pfm(folder / f"{stem}.pfm"), expected, rtol=1e-5)
        np.testing.assert_allclose(read_map(folder / f"{stem}_16bit.png", scale), expected, atol=0.51 / scale)
        far, near = (np.unravel_index(f(expected), expected.shape) for f in (np.argmax, np.argmin))
        assert picture[far][0] > picture[far][2]
        assert picture[near][2] > picture[near][0]
    # What was written is a perfect truth.
    lines = (data.root / "list.txt").read_text().splitlines()[1:]
    lines = [" ".join([*line.split()[:-1], str(folder / f"left_{n}.pfm")]) for n, line in enumerate(lines)]
    (data.root / "list.txt").write_text("\n".join(lines))
    assert shell("depth_net", "evaluate", "-e", spec) == 0, shell.err
    assert data.results()["abs_rel"] == pytest.approx(0, abs=1e-6)


def test_sizes_that_the_model_leaves_open(shell: Shell, data: Data) -> None:
    """crop_size counts for open sides only: with a dynamic batch alone the model's own size does."""
    sizes = {"augmentation": {"crop_size": [replay.NET[1], replay.NET[0]]}}
    content = data.tree()
    spec = write_spec(data.root / "s.yaml", content)
    data.write_model(dynamic=True)
    content["dataset"]["test_dataset"].update(sizes)
    spec = write_spec(data.root / "s.yaml", content)
    assert shell("depth_net", "evaluate", "-e", spec) == 0, shell.err
    assert data.results()["abs_rel"] == pytest.approx(data.expected()["abs_rel"], rel=1e-4)
    if data.stereo:
        assert data.results("per_sample_results")[0]["engine_hw"] == [42, 56]
    else:
        size = "dataset.test_dataset.augmentation.crop_size=[42,60]"
        message = shell.refused(2, "depth_net", "evaluate", "-e", spec, size)
        assert "width 60 is no multiple of 14" in message
        assert "Set 56 or 70" in message


@pytest.mark.parametrize("dynamic", [False, True])
def test_engine(shell: Shell, data: Data, dynamic: bool) -> None:
    pytest.importorskip("tensorrt_rtx")
    data.write_model(dynamic=dynamic)
    content = data.tree()
    build = {"onnx_file": str(data.root / "depth.onnx"), "trt_engine": str(data.root / "built.engine")}
    content["gen_trt_engine"] = {**build, "tensorrt": {"data_type": "FP16", "max_batch_size": 2}}
    if dynamic:
        sizes = {
            "min_height": 28,
            "opt_height": 42,
            "max_height": 56,
            "min_width": 28,
            "opt_width": 56,
            "max_width": 84,
        }
        content["gen_trt_engine"].update(sizes)
        content["dataset"]["test_dataset"]["augmentation"] = {"crop_size": [42, 56]}
    spec = write_spec(data.root / "s.yaml", content)
    assert shell("depth_net", "gen_trt_engine", "-e", spec) == 0, shell.err
    if dynamic:
        manifest = json.dumps(json.loads(next(data.root.glob("built*.json")).read_text())["profiles"])
        assert "[1, 3, 28, 28]" in manifest
        assert "[2, 3, 56, 84]" in manifest
        message = shell.refused(2, "depth_net", "gen_trt_engine", "-e", spec, "gen_trt_engine.opt_width=null")
        assert "opt_width" in message
        if not data.stereo:
            message = shell.refused(2, "depth_net", "gen_trt_engine", "-e", spec, "gen_trt_engine.max_height=64")
            assert "gen_trt_engine.max_height" in message
            assert "height 64 is no multiple of 14" in message
    prepared = next(data.root.glob("built*.onnx"))
    assert shell("depth_net", "evaluate", "-e", spec, f"evaluate.trt_engine={prepared}") == 0, shell.err
    assert data.results()["abs_rel"] == pytest.approx(data.expected()["abs_rel"], rel=0.02)


def test_relative_models(shell: Shell, tmp_path: Path) -> None:
    """Inverse depth up to scale and shift; truth of RelativeMono sets is disparity already, raw in its PNG."""
    data = Data(tmp_path, stereo=False)
    content = data.tree()
    content["model"] = {"model_type": "RelativeDepthAnything"}
    lines = []
    for number, size in enumerate(replay.SIZES):
        disparity = np.clip(up(data.maps[number], size) * 60 + 40, 1, 999).astype(np.uint16)
        Image.fromarray(disparity).save(tmp_path / "gt" / f"{number}.png")
        lines.append(f"left/{number}.png gt/{number}.png")
    (tmp_path / "list.txt").write_text("\n".join(lines))
    content["dataset"]["test_dataset"]["data_sources"][0]["dataset_name"] = "RelativeMono"
    spec = write_spec(tmp_path / "s.yaml", content)
    assert shell("depth_net", "evaluate", "-e", spec) == 0, shell.err
    assert data.results()["abs_rel"] < 0.01
    assert data.results()["d1"] == 1
    content["dataset"]["test_dataset"]["data_sources"][0]["gt_type"] = "depth"
    assert shell("depth_net", "evaluate", "-e", write_spec(tmp_path / "s.yaml", content)) == 0, shell.err
    assert data.results()["abs_rel"] > 0.1


@pytest.mark.parametrize("stereo", [False, True])
def test_transform(stereo: bool, tmp_path: Path) -> None:
    names = ["left_image", "right_image"] if stereo else ["images"]
    shape = (None, 3, 42, 56)
    inputs = [TensorInfo(name, shape, np.dtype(np.float32)) for name in names]
    output = TensorInfo("disparity", (None, 1, 42, 56), np.dtype(np.float32))
    ports = bind(inputs, [output if stereo else TensorInfo("outputs", (None, 42, 56), np.dtype(np.float32))])
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.png" for name in names]
    pixels = [rng.integers(0, 256, (50, 70, 3), dtype=np.uint8) for _ in names]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    out = {name: np.zeros(shape[1:], np.float32) for name in names}  # type: ignore[arg-type]
    transform(Spec(), ports)(Sample("a", tuple(paths)), out)
    for name, image in zip(names, pixels, strict=True):
        resized = cv2.resize(image.astype(np.float32), (56, 42))
        expected = ((resized / 255 - replay.MEAN) / replay.STD).transpose(2, 0, 1)
        np.testing.assert_allclose(out[name], expected, atol=1e-5)  # per channel in every row


def test_bad_input(shell: Shell, data: Data) -> None:
    spec = write_spec(data.root / "s.yaml", data.tree())
    other = "dataset.dataset_name=" + ("MonoDataset" if data.stereo else "StereoDataset")
    message = shell.refused(1, "depth_net", "evaluate", "-e", spec, other)
    assert ("dataset_name" if data.stereo else "ground-truth maps: none at") in message
    if not data.stereo:
        message = shell.refused(1, "depth_net", "evaluate", "-e", spec, "model.model_type=FoundationStereo")
        assert "the model takes single images, model.model_type is FoundationStereo" in message
    (data.root / "left" / "1.png").write_bytes(b"broken")
    assert shell("depth_net", "evaluate", "-e", spec) == 0, shell.err
    assert data.results()["images_skipped"] == 1
    if data.stereo:
        Image.new("RGB", (10, 10)).save(data.root / "right" / "0.png")
        assert shell("depth_net", "evaluate", "-e", spec) == 0, shell.err
        assert data.results()["images_skipped"] == 2
        assert "left and right image differ in size" in shell.out
        listing = (data.root / "list.txt").read_text().splitlines()
        (data.root / "list.txt").write_text("\n".join([*listing, str(data.root / "left" / "0.png")]))
        message = shell.refused(1, "depth_net", "inference", "-e", spec)
        assert f"{COUNT + 1} left images and {COUNT} right images" in message
    (data.root / "list.txt").unlink()
    assert "list.txt" in shell.refused(1, "depth_net", "evaluate", "-e", spec)
    limits = ("dataset.min_depth=9", "dataset.max_depth=2")
    assert "max_depth 2 is below min_depth 9" in shell.refused(2, "depth_net", "evaluate", "-e", spec, *limits)
    key = "dataset.test_dataset.data_sources=null"
    assert "data_sources" in shell.refused(2, "depth_net", "evaluate", "-e", spec, key)


def test_another_networks_model_is_refused(shell: Shell, tmp_path: Path) -> None:
    """Boxes of a detector, and a map of another size or of several channels, are no depth."""
    spec = write_spec(tmp_path / "s.yaml", Data(tmp_path, stereo=False).tree())
    settings = {"input_name": "images", "to_level": replay.to_level()}
    for shape in ((7, 5), (1, *replay.NET[::-1]), (4, *replay.NET[::-1]), (replay.NET[1] // 2, replay.NET[0])):
        tables = {"pred": np.ones((COUNT, *shape), np.float32)}
        model = write_replay(tmp_path / "other.onnx", ["N", 3, *replay.NET[::-1]], tables, **settings)
        message = shell.refused(1, "depth_net", "evaluate", "-e", spec, f"evaluate.trt_engine={model}")
        assert "does not fit this network" in message
        assert "pred float32" in message


def test_spec(tmp_path: Path) -> None:
    for wrong, key in (
        ({"min_height": 28, "opt_height": 14, "max_height": 56}, "opt_height"),
        ({"min_width": 7}, "min_width"),
        ({"tensorrt": {"data_type": "int8"}}, "data_type"),
    ):
        with pytest.raises(SpecError, match=key):
            load_spec(Spec, {"gen_trt_engine": wrong})
    values = {
        "data_type": "BF16", "layers_precision": ["*:fp32"], "crop_size": [14, 14],
        "data_sources": [{"dataset_name": "NYUDV2", "data_file": "a.txt"}],
        **{f"{which}_{side}": 28 for which in ("min", "opt", "max") for side in ("height", "width")},
    }  # fmt: skip
    check_tree(Spec, "depth_net", values, {"dataset": "max_disparity", "gen_trt_engine": "opt_width"}, tmp_path)


@pytest.mark.parametrize(
    ("name", "model_type", "more", "kind", "scale", "crop"),
    [
        ("NYUDV2", "MetricDepthAnything", {}, "depth", None, (45, 471, 41, 601)),
        ("MonoDataset", "MetricDepthAnything", {}, "depth", None, None),
        ("MonoDataset", "MetricDepthAnything", {"gt_scale": 256}, "depth", 256, None),
        ("RelativeMonoDataset", "RelativeDepthAnything", {}, "disparity", 1, None),  # raw values in its PNG
        ("RelativeMonoDataset", "RelativeDepthAnything", {"gt_scale": 256}, "disparity", 256, None),
        ("NYUDV2", "RelativeDepthAnything", {}, "depth", None, (45, 471, 41, 601)),
    ],
)
def test_what_maps_of_a_set_mean(
    name: str, model_type: str, more: dict[str, Any], kind: str, scale: float | None, crop: object, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("a.png a_map.png\n")
    (tmp_path / "a_map.png").touch()
    source = {"dataset_name": name, "data_file": str(tmp_path / "list.txt"), **more}
    data = {"dataset_name": "MonoDataset", "test_dataset": {"data_sources": [source]}}
    truth = dataset(load_spec(Spec, {"dataset": data, "model": {"model_type": model_type}}), "evaluate")[0].target
    assert (truth.kind, truth.scale, truth.crop) == (kind, scale, crop)


@pytest.mark.parametrize(
    ("model", "data", "limit"),
    [
        ({}, {}, 416),
        ({}, {"max_disparity": 9}, 416),
        ({"max_disparity": 0}, {"max_disparity": 100}, 100),
        ({"max_disparity": 192}, {}, 192),
    ],
)
def test_truth_from_the_greatest_disparity_on_does_not_count(
    model: dict[str, float], data: dict[str, float], limit: float
) -> None:
    spec = load_spec(Spec, {"dataset": {"dataset_name": "StereoDataset", **data}, "model": model})
    truth = np.array([[limit - 1, limit, limit + 1, 0]], np.float32)
    found = metric(spec, None)  # type: ignore[arg-type]
    target = SimpleNamespace(path=Path("t"), read=lambda: truth)
    geometry = Geometry((4, 1), (4, 1), (1.0, 1.0))
    found.update(Sample("a", (Path("a.png"),), target), DepthMap(np.zeros((1, 4), np.float32), geometry, True))
    assert found.compute()["epe"] == pytest.approx(limit - 1)


def test_sizes_of_a_profile_are_whole_patches_or_whole_halvings() -> None:
    for names, shape, size in ((["images"], (None, 42, 56), 14), (["left", "right"], (None, 1, 42, 56), 32)):
        inputs = [TensorInfo(name, (None, 3, 42, 56), np.dtype(np.float32)) for name in names]
        assert stride(bind(inputs, [TensorInfo("disparity", shape, np.dtype(np.float32))])) == size
