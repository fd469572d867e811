"""unet from the command line, on replay models of the contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from actions.commands import Shell, status, write_spec
from cv.segmentation import seg_replay as replay
from PIL import Image

from nvidia_tao_deploy.cv.unet import bind, decode, decode_maps, transform
from nvidia_tao_deploy.cv.unet.spec import Spec
from nvidia_tao_deploy.cv.unet.transform import UnetTransform, placed
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.known import proto_tables
from nvidia_tao_deploy.spec.load import load_spec
from nvidia_tao_deploy.transforms.transform import Geometry

# label ids 10, 0, 20, 30; bag is background, face is person: train ids 0 background/bag, 1 person/face, 2 car
TARGETS = [
    {"name": "person", "label_id": 10, "mapping_class": "person"},
    {"name": "background", "label_id": 0, "mapping_class": "background"},
    {"name": "bag", "label_id": 20, "mapping_class": "background"},
    {"name": "face", "label_id": 30, "mapping_class": "person"},
    {"name": "car", "label_id": 40},
]
NAMES = ["background/bag", "person/face", "car"]
TRAIN_ID = {10: 1, 0: 0, 20: 0, 30: 1, 40: 2}


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


class Scene:
    """Images, masks of label ids, and what the model says."""

    def __init__(
        self, folder: Path, sizes: list[tuple[int, int]] = replay.SIZES, ids: Any = (0, 10, 20, 30, 40)
    ) -> None:
        rng = np.random.default_rng(5)
        self.folder = folder
        self.images = replay.write_images(folder / "images", sizes)
        (folder / "masks").mkdir()
        self.masks = [np.array(ids, np.uint8)[replay.blobs(rng, size, len(ids))] for size in sizes]
        for path, mask in zip(self.images, self.masks, strict=True):
            Image.fromarray(mask).save(folder / "masks" / path.name)
        lookup = np.vectorize(lambda v: TRAIN_ID.get(v, 0))
        self.truth = [lookup(mask) for mask in self.masks]
        self.found = np.stack([replay.spoiled(rng, replay.on_net(t.astype(np.uint8)), 3) for t in self.truth])

    def save(self, outputs: np.ndarray | None = None, **options: Any) -> Path:
        table = self.found[..., None].astype(np.int64) if outputs is None else outputs
        constants = {"image": "input_1", "scale": 1 / 127.5, "mean": 1.0, **options}
        onnx.save(replay.replay({"argmax_1": table}, **constants), self.folder / "unet.onnx")
        return self.folder / "unet.onnx"

    def spec(self, **dataset: Any) -> dict[str, Any]:
        sources = {
            "data_source": [{"image_path": str(self.folder / "images"), "masks_path": str(self.folder / "masks")}]
        }
        return {
            "results_dir": str(self.folder / "results"),
            "dataset_config": {
                "val_data_sources": sources,
                "train_data_sources": sources,
                "data_class_config": {"target_classes": TARGETS},
                **dataset,
            },
            "evaluate": {"trt_engine": str(self.folder / "unet.onnx")},
            "inference": {"trt_engine": str(self.folder / "unet.onnx")},
        }


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def assert_figures(
    found: dict[str, Any], truth: list[np.ndarray], predicted: list[np.ndarray], names: list[str]
) -> None:
    wanted = replay.sklearn_figures(truth, predicted, len(names))
    for i, name in enumerate(names):
        row = [found[name][key] for key in ("iou", "precision", "Recall", "F1 Score")]
        assert row == pytest.approx([wanted[key][i] for key in ("iou", "precision", "recall", "f1")], abs=1e-12)
    for key, column in (("Mean IOU", "iou"), ("Precision", "precision"), ("Recall", "recall"), ("F1 score", "f1")):
        assert found[key] == pytest.approx(np.nanmean(wanted[column]), abs=1e-12)
    assert 0.3 < found["Mean IOU"] < 0.95  # a number that mistakes can move


@pytest.mark.parametrize("batch", [1, 3])
def test_evaluate_is_scikit_learns(shell: Shell, tmp_path: Path, batch: int) -> None:
    scene = Scene(tmp_path)
    scene.save()
    path = write_spec(tmp_path / "spec.yaml", scene.spec())
    assert shell("unet", "evaluate", "-e", path, f"evaluate.batch_size={batch}") == 0, shell.err
    out = tmp_path / "results" / "trt_evaluate"
    truth = [replay.on_net(t.astype(np.uint8)).astype(int) for t in scene.truth]
    assert_figures(results(out), truth, list(scene.found), NAMES)
    assert results(out)["images_evaluated"] == len(replay.SIZES)
    kpi = status(out)[-1]["kpi"]  # numbers only: the classes' blocks are in results.json
    assert kpi == {key: results(out)[key] for key in ("Recall", "Precision", "F1 score", "Mean IOU", "unmapped_pixels")}
    assert "Mean IOU: 0." in shell.out


def text_spec(scene: Scene, lists: bool = False) -> Path:
    lines = ['model_config { arch: "resnet" num_layers: 18 model_input_width: 96 model_input_height: 64 }']
    lines += ["training_config { batch_size: 2", "  visualizer { enabled: true wandb_config { project: 'p' } } }"]
    lines += ['dataset_config { dataset: "custom" input_image_type: "color"']
    if lists:
        for kind in ("images", "masks"):
            # masks of other names: line by line
            names = []
            for number, path in enumerate(scene.images):
                target = scene.folder / kind / path.name
                if kind == "masks":
                    target = target.rename(target.with_name(f"m{99 - number}.png"))
                names.append(str(target))
            (scene.folder / f"{kind}.txt").write_text("\n".join(names) + "\n")
        lines.append(f'  val_images_path: "{scene.folder}/images.txt"\n  val_masks_path: "{scene.folder}/masks.txt"')
    lines.append("  data_class_config {")
    for entry in TARGETS:
        fields = " ".join(
            f'{key}: "{value}"' if key != "label_id" else f"{key}: {value}" for key, value in entry.items()
        )
        lines.append(f"    target_classes {{ {fields} }}")
    path = scene.folder / "spec.txt"
    path.write_text("\n".join([*lines, "  }", "}"]) + "\n")
    return path


@pytest.mark.parametrize("lists", [False, True])
def test_a_text_spec_with_the_established_flags_gives_the_same(shell: Shell, tmp_path: Path, lists: bool) -> None:
    scene = Scene(tmp_path)
    flags = ["-e", text_spec(scene, lists), "-m", scene.save(), "-r", tmp_path / "out"]
    if not lists:
        flags += ["-i", tmp_path / "images", "-l", tmp_path / "masks", "-b", 4]
    assert shell("unet", "evaluate", *flags) == 0, shell.err
    truth = [replay.on_net(t.astype(np.uint8)).astype(int) for t in scene.truth]
    assert_figures(results(tmp_path / "out"), truth, list(scene.found), NAMES)


def test_inference_writes_label_maps_and_overlays(shell: Shell, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.save()
    path = write_spec(tmp_path / "spec.yaml", scene.spec())
    assert shell("unet", "inference", "-e", path) == 0, shell.err
    out = tmp_path / "results" / "trt_inference"
    colors = np.array([(117, 47, 172), (140, 235, 37), (237, 15, 168)])  # as R, G, B
    for number, (source, size) in enumerate(zip(scene.images, replay.SIZES, strict=True)):
        with Image.open(out / "mask_labels" / f"{source.stem}.png") as picture:
            assert picture.mode == "L"
            np.testing.assert_array_equal(np.asarray(picture), scene.found[number])
        overlay = np.asarray(Image.open(out / "vis_overlay" / source.name))
        labels = replay.on_net(scene.found[number].astype(np.uint8), size)
        np.testing.assert_array_equal(overlay, (replay.level(number) + colors[labels]) // 2)


def test_sigmoid_is_two_classes(shell: Shell, tmp_path: Path) -> None:
    """The established evaluate always fails here, and its overlay paints class 0 alone."""
    scene = Scene(tmp_path, ids=(0, 255))
    truth = [(mask > 0).astype(np.uint8) for mask in scene.masks]
    rng = np.random.default_rng(0)
    found = np.stack([replay.spoiled(rng, replay.on_net(t), 2) for t in truth])
    probability = np.where(found > 0, 0.51, 0.5).astype(np.float32)[..., None]
    targets = [{"name": "ground", "label_id": 0}, {"name": "thing", "label_id": 1}]
    spec = scene.spec(input_image_type="grayscale", data_class_config={"target_classes": targets})
    spec["model_config"] = {"activation": "sigmoid"}
    scene.save(probability, channels=1)
    path = write_spec(tmp_path / "spec.yaml", spec)
    assert shell("unet", "evaluate", "-e", path) == 0, shell.err
    on_net = [replay.on_net(t).astype(int) for t in truth]
    assert_figures(results(tmp_path / "results" / "trt_evaluate"), on_net, list(found), ["ground", "thing"])
    assert shell("unet", "inference", "-e", path) == 0, shell.err
    out = tmp_path / "results" / "trt_inference"
    np.testing.assert_array_equal(np.asarray(Image.open(out / "mask_labels" / "000.png")), found[0] * 255)
    overlay = np.asarray(Image.open(out / "vis_overlay" / "000.png"))
    assert len(np.unique(overlay.reshape(-1, 3), axis=0)) == 2


@pytest.mark.parametrize("method", ["softmax", "sigmoid"])
def test_softmax_where_sigmoid_has_more_classes(shell: Shell, tmp_path: Path, method: str) -> None:
    scene = Scene(tmp_path)
    scene.save()
    spec = scene.spec()
    spec["model_config"] = {"activation": method}
    assert shell("unet", "evaluate", "-e", write_spec(tmp_path / "spec.yaml", spec)) == 0, shell.err
    assert ("sigmoid needs two classes" in shell.out) == (method == "sigmoid")


def test_padding_is_centred_and_does_not_count(shell: Shell, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    canvas_truth, found = [], []
    rng = np.random.default_rng(1)
    for (width, height), truth in zip(replay.SIZES, scene.truth, strict=True):
        scale = 1 / max(width / replay.NET[0], height / replay.NET[1])
        wide, high = round(width * scale), round(height * scale)
        left, top = (replay.NET[0] - wide) // 2, (replay.NET[1] - high) // 2
        canvas = np.full(replay.NET[::-1], -1)
        canvas[top : top + high, left : left + wide] = replay.on_net(truth.astype(np.uint8), (wide, high))
        canvas_truth.append(canvas)
        found.append(replay.spoiled(rng, np.maximum(canvas, 0), 3))
    scene.save(np.stack(found)[..., None].astype(np.int64))
    path = write_spec(tmp_path / "spec.yaml", scene.spec(resize_padding=True))
    assert shell("unet", "evaluate", "-e", path) == 0, shell.err
    assert_figures(results(tmp_path / "results" / "trt_evaluate"), canvas_truth, found, NAMES)
    assert shell("unet", "inference", "-e", path) == 0, shell.err
    overlay = np.asarray(Image.open(tmp_path / "results" / "trt_inference" / "vis_overlay" / "003.png"))
    assert overlay.shape == (40, 200, 3)


def test_vanilla_unet_judges_the_centre(shell: Shell, tmp_path: Path) -> None:
    sizes = [(121, 80), (80, 121)]
    scene = Scene(tmp_path, sizes)
    truth = [replay.on_net(t.astype(np.uint8), (16, 16)) for t in scene.truth]
    rng = np.random.default_rng(1)
    found = [replay.spoiled(rng, t, 3) for t in truth]
    scene.save(np.stack(found)[..., None].astype(np.int64), net=(200, 200))
    spec = scene.spec(resize_padding=True)
    spec["model_config"] = {"arch": "vanilla_unet"}
    path = write_spec(tmp_path / "spec.yaml", spec)
    assert shell("unet", "evaluate", "-e", path) == 0, shell.err
    assert_figures(results(tmp_path / "results" / "trt_evaluate"), [t.astype(int) for t in truth], found, NAMES)


@pytest.mark.parametrize("size", [(None, None), (388, None), (380, 372), (None, 372)])
def test_vanilla_unet_sees_its_output_or_184_pixels_less(size: tuple[int | None, int | None], tmp_path: Path) -> None:
    Image.fromarray(np.full((388, 388, 3), 255, np.uint8)).save(tmp_path / "a.png")
    spec = load_spec(Spec, {"model_config": {"arch": "vanilla_unet"}})
    ports = bind(
        [TensorInfo("input_1", (None, 3, 572, 572), np.dtype(np.float32))],
        [TensorInfo("argmax_1", (None, *size, 1), np.dtype(np.int64))],
    )
    out = np.zeros((3, 572, 572), np.float32)
    transform(spec, ports)(Sample("a", (tmp_path / "a.png",)), {"input_1": out})
    white = np.zeros((572, 572), bool)
    rows, columns = ((572 - (side or 388)) // 2 for side in size)
    white[rows : 572 - rows, columns : 572 - columns] = True
    np.testing.assert_array_equal(out[0] == out.max(), white)


def test_the_transform_is_the_contracts(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (33, 57, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    stretch = {"inner": None, "keep_aspect": False, "fill": 0.0, "input_name": "x"}
    for method, name in (("BILINEAR", "BILINEAR"), ("BICUBIC", "BICUBIC"), ("NEAREST_NEIGHBOR", "NEAREST")):
        out = np.empty((3, 24, 40), np.float32)
        placing = UnetTransform(method=method, color="BGR", scale=1 / 127.5, mean=(1.0,), **stretch)
        placing(Sample("a", (tmp_path / "a.png",)), {"x": out})
        wanted = np.asarray(Image.fromarray(pixels).resize((40, 24), Image.Resampling[name])).astype(np.float32)
        np.testing.assert_allclose(out, wanted[..., ::-1].transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)
    out = np.empty((1, 16, 28), np.float32)
    even = pixels[:32, :56]
    Image.fromarray(even).save(tmp_path / "even.png")
    placing = UnetTransform(method="AREA", color="RGB", **stretch)
    placing(Sample("a", (tmp_path / "even.png",)), {"x": out})
    grey = np.asarray(Image.fromarray(even).convert("L"), float).reshape(16, 2, 28, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(out[0], grey, atol=0.51)  # the mean of 4 pixels, in whole levels
    grey = np.full((10, 40, 1), 200, np.uint8)
    canvas = placed(grey, (40, 20), (40, 20), method="BICUBIC", keep_aspect=True, fill=127.5)
    assert canvas.offset == (0.0, 5.0)
    assert (canvas.pixels[:5] == 127.5).all()
    assert (canvas.pixels[5:15] == 200).all()


@pytest.mark.parametrize(
    ("config", "channels", "low", "high", "padding"),
    [
        ({}, 3, -1.0, 1.0, -1.0),  # zeros before normalizing
        ({"preprocess": "div_by_255"}, 3, 0.0, 1.0, 0.0),
        ({"preprocess": "min_max_0_1"}, 3, 0.0, 1.0, 0.0),
        ({"input_image_type": "grayscale", "preprocess": "div_by_255"}, 1, -1.0, 1.0, 0.0),  # zeros after it
        ({"input_image_type": "grayscale"}, 3, -1.0, 1.0, 0.0),
    ],
)
def test_ranges_and_padding_are_trainings(
    tmp_path: Path, config: dict[str, Any], channels: int, low: float, high: float, padding: float
) -> None:
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, 20:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    spec = load_spec(Spec, {"dataset_config": {"resize_padding": True, **config}})
    tensors = [TensorInfo("x", (None, channels, 20, 40), np.dtype(np.float32))]
    ports = bind(tensors, [TensorInfo("y", (None, 20, 40, 1), np.dtype(np.int64))])
    out = np.empty((channels, 20, 40), np.float32)
    transform(spec, ports)(Sample("a", (tmp_path / "a.png",)), {"x": out})
    assert (out[:, 5:15, :20] == low).all()
    assert (out[:, 5:15, 20:] == high).all()
    assert (out[:, :5] == padding).all()
    assert (out[:, 15:] == padding).all()


@pytest.mark.parametrize("kind", [np.int64, np.float32])
def test_whole_numbers_of_a_sigmoid_model_are_classes(kind: type[np.generic]) -> None:
    """An export with integers has taken the decision already; 0.5 is not over one half."""
    classes = [{"name": name, "label_id": i} for i, name in enumerate("ab")]
    tree = {
        "model_config": {"activation": "sigmoid"},
        "dataset_config": {"data_class_config": {"target_classes": classes}},
    }
    output = TensorInfo("argmax_1", (None, 1, 3, 1), np.dtype(kind))
    ports = Ports({}, {"argmax_1": output})
    values = np.array([0, 1, 1] if kind is np.int64 else [0.5, 0.51, 1], kind).reshape(1, 1, 3, 1)
    (found,) = decode(load_spec(Spec, tree), ports, "evaluate")(
        {"argmax_1": values}, [Geometry((3, 1), (3, 1), (1, 1))]
    )
    assert found.class_ids.tolist() == [[0, 1, 1]]


def test_values_that_are_no_classes_are_errors() -> None:
    geometry = [Geometry((2, 2), (2, 2), (1.0, 1.0))]
    with pytest.raises(ModelError, match="fractions"):
        decode_maps(np.full((1, 2, 2), 0.3), geometry, 3, sigmoid=False)
    with pytest.raises(ModelError, match="class 3"):
        decode_maps(np.full((1, 2, 2), 3), geometry, 3, sigmoid=False)
    with pytest.raises(ModelError, match="NaN"):
        decode_maps(np.full((1, 2, 2), np.nan), geometry, 3, sigmoid=True)
    assert decode_maps(np.full((1, 2, 2), 299), geometry, 300, sigmoid=False)[0].class_ids.dtype == np.uint16


def test_every_precision_builds_and_keeps_the_number(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    scene = Scene(tmp_path)
    model = scene.save()
    spec_file = text_spec(scene)
    for precision in ("fp32", "fp16", "int8"):
        engine = tmp_path / f"{precision}.engine"
        flags = ["-m", model, "-e", spec_file, "-r", tmp_path / "built", "--engine_file", engine, "--json"]
        flags += ["--data_type", precision, "--max_batch_size", 4]
        flags += ["--cal_image_dir", tmp_path / "images", "--batch_size", 2, "--batches", 3]
        extra = ["gen_trt_engine.tensorrt.compute_capabilities=8.6", "gen_trt_engine.tensorrt.runtime=tensorrt_rtx"]
        assert shell("unet", "gen_trt_engine", *flags, *extra) == 0, shell.err
        built = json.loads(shell.out)
        evaluate = ["-m", built["prepared_onnx"], "-r", tmp_path / "out"]
        evaluate += ["-i", tmp_path / "images", "-l", tmp_path / "masks"]
        assert shell("unet", "evaluate", "-e", spec_file, *evaluate) == 0, shell.err
        truth = [replay.on_net(t.astype(np.uint8)).astype(int) for t in scene.truth]
        assert_figures(results(tmp_path / "out"), truth, list(scene.found), NAMES)
    manifest = json.loads(Path(built["manifest"]).read_text())
    assert manifest["labels"] == NAMES
    assert manifest["transform"]["color"] == "BGR"


def test_bad_data_is_refused(shell: Shell, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.save()
    path = write_spec(tmp_path / "spec.yaml", scene.spec())
    masks = tmp_path / "masks"
    good = (masks / "003.png").read_bytes()
    (masks / "003.png").unlink()
    assert "1 of 7 images have no mask" in shell.refused(1, "unet", "evaluate", "-e", path)
    Image.new("L", (10, 10)).save(masks / "003.png")
    message = shell.refused(1, "unet", "evaluate", "-e", path, "strict=true")
    assert "10 x 10 pixels, its image 200 x 40" in message
    assert "003.png" in message
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (40, 200, 3), dtype=np.uint8)).save(masks / "003.png")
    assert "grey values" in shell.refused(1, "unet", "evaluate", "-e", path, "strict=true")
    (masks / "003.png").write_bytes(good[:50])
    assert "cannot decode mask" in shell.refused(1, "unet", "evaluate", "-e", path, "strict=true")
    assert shell("unet", "evaluate", "-e", path) == 0, shell.err
    assert f"skipped: {tmp_path}/images/003.png: {masks}/003.png: cannot decode mask" in shell.out
    assert "6 images evaluated, 1 skipped" in shell.out
    others = [i for i in range(7) if i != 3]
    truth = [replay.on_net(scene.truth[i].astype(np.uint8)).astype(int) for i in others]
    found = results(tmp_path / "results" / "trt_evaluate")
    wanted = replay.sklearn_figures(truth, [scene.found[i] for i in others], len(NAMES))
    assert found["Mean IOU"] == pytest.approx(np.nanmean(wanted["iou"]), abs=1e-12)
    for mask in (whole := {path: path.read_bytes() for path in masks.glob("*.png")}):
        mask.write_bytes(good[:50])
    assert "none of the images could be read; the first:" in shell.refused(1, "unet", "evaluate", "-e", path)
    for mask, content in whole.items():
        mask.write_bytes(content)
    for wide in ("I;16", "P"):
        picture = (
            Image.fromarray(scene.masks[3].astype(np.uint16)) if wide == "I;16" else Image.fromarray(scene.masks[3])
        )
        if wide == "P":
            picture.putpalette(list(range(255, -1, -1)) * 3)
        picture.save(masks / "003.png")
        assert shell("unet", "evaluate", "-e", path) == 0, shell.err
        truth = [replay.on_net(t.astype(np.uint8)).astype(int) for t in scene.truth]
        assert_figures(results(tmp_path / "results" / "trt_evaluate"), truth, list(scene.found), NAMES)
    (masks / "spare.png").write_bytes(good)
    (tmp_path / "images" / "004.png").write_bytes(b"no image")
    assert shell("unet", "evaluate", "-e", path) == 0, shell.err
    assert "1 mask has no image" in shell.out
    assert results(tmp_path / "results" / "trt_evaluate")["images_skipped"] == 1
    images, listing = tmp_path / "images", tmp_path / "images.txt"
    listing.write_text(f"{images / '000.png'}\n{images / '001.gif'}\n")
    assert f"{listing}:2" in shell.refused(1, "unet", "evaluate", "-e", path, f"evaluate.image_dir=[{listing}]")
    listing.write_text(f"{images / '000.png'}\n")
    other = tmp_path / "masks.txt"
    other.write_text(f"{masks / '000.png'}\n{masks / '001.png'}\n")
    lists = (f"evaluate.image_dir=[{listing}]", f"evaluate.label_dir=[{other}]")
    assert "1 image is listed, and 2 masks" in shell.refused(1, "unet", "evaluate", "-e", path, *lists)


def test_unknown_values_count_as_class_0_unless_told(shell: Shell, tmp_path: Path) -> None:
    scene = Scene(tmp_path, ids=(0, 10, 40, 77))
    scene.save()
    path = write_spec(tmp_path / "spec.yaml", scene.spec())
    for policy in ("first_class", "ignore"):
        assert shell("unet", "evaluate", "-e", path, f"evaluate.unmapped_labels={policy}") == 0, shell.err
        unknown = {77: 0 if policy == "first_class" else -1}
        truth = [np.vectorize(lambda v, u=unknown: {**TRAIN_ID, **u}[v])(replay.on_net(m)) for m in scene.masks]
        found = results(tmp_path / "results" / "trt_evaluate")
        assert_figures(found, truth, list(scene.found), NAMES)
        assert found["unmapped_pixels"] == sum(int((m == 77).sum()) for m in scene.masks)
        assert "77 (" in shell.out


def lines_of(message: str, indent: str = "") -> list[str]:
    """Every field of a message once, as protobuf text."""
    tables = proto_tables("unet")
    assert tables is not None
    lines: list[str] = []
    special = {
        "preprocess": "'div_by_255'",
        "resize_method": "'area'",
        "activation": "'sigmoid'",
        "input_image_type": "'color'",
    }
    for item in tables.messages[message].values():
        if item.map_key:
            lines.append(f"{indent}{item.name} {{ key: 'k' value: {'0.5' if item.type == 'float' else '{}'} }}")
        elif item.type in tables.messages:
            lines += [f"{indent}{item.name} {{", *lines_of(item.type, f"{indent}  "), f"{indent}}}"]
        else:
            enum = list(tables.enums.get(item.type, {}))
            scalars = {"bool": "true", "string": "'a'", "float": "0.5"}
            value = special.get(item.name) or (enum[-1] if enum else scalars.get(item.type, "8"))
            lines.append(f"{indent}{item.name}: {value}")
    return lines


def test_the_complete_tree_is_accepted_and_a_typo_refused(tmp_path: Path) -> None:
    lines = [line.replace("value: {}", "value { minimum_height: 1 }") for line in lines_of("Experiment")]
    seen: list[str] = []
    path = tmp_path / "spec.txt"
    path.write_text("\n".join(lines))
    spec = load_spec(Spec, path)
    assert spec.dataset_config.resize_method == "AREA"
    assert seen == []
    number = next(n for n, line in enumerate(lines) if line.strip().startswith("resize_padding"))
    lines[number] = lines[number].replace("resize_padding", "resize_paddin")
    path.write_text("\n".join(lines))
    with pytest.raises(SpecError) as caught:
        load_spec(Spec, path)
    assert f"{path}:{number + 1}" in str(caught.value)
    assert "resize_padding" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"mapping_class": "persn"}, "Did you mean 'person'"),
        ({"label_id": 20}, "stands for two classes"),
        ({"name": "person"}, "has the label ids"),
    ],
)
def test_contradicting_classes_are_refused(shell: Shell, tmp_path: Path, change: dict[str, Any], text: str) -> None:
    scene = Scene(tmp_path)
    scene.save()
    targets = [*TARGETS[:4], {**TARGETS[4], **change}]
    path = write_spec(tmp_path / "spec.yaml", scene.spec(data_class_config={"target_classes": targets}))
    assert text in shell.refused(2, "unet", "evaluate", "-e", path)
