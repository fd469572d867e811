"""The GPU's half of an image transform gives what the CPU's gives: on a simulated device, on a real one by hand."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.runtime import cuda
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms import on_gpu
from nvidia_tao_deploy.transforms.image import ImageTransform

SIZES = [(97, 61), (40, 130), (64, 48), (300, 20), (7, 9)]
IMAGENET = {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CASES: list[dict[str, Any]] = [
    {"resize": "stretch", **IMAGENET},
    {"resize": "longest_side", "scale": 1 / 255},
    {"resize": "stretch_bilinear", **IMAGENET},
    {"resize": "stretch_lanczos", "color": "BGR", "mean": (103.939, 116.779, 123.68)},
    {"resize": "stretch_bicubic", "scale": 0.3, "layout": "NHWC"},
    {"resize": "center_crop_bilinear", **IMAGENET},
    {"resize": "center_crop_bicubic", "scale": 2 / 255, "mean": (1.0,)},
    {"resize": "enlarge_crop", **IMAGENET},
    {"resize": "resize_pad", "color": "BGR", **IMAGENET, "layout": "NHWC"},
]


class Files(list):  # type: ignore[type-arg]
    """A list of samples as a dataset."""

    root = None


@pytest.fixture
def pictures(tmp_path: Path) -> Files:
    rng = np.random.default_rng(5)
    samples = Files()
    for number, (width, height) in enumerate(SIZES):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(number, (path,)))
    return samples


class Memory:
    """SIMULATED device memory: host memory at a host address."""

    def __init__(self, nbytes: int) -> None:
        self._block = ctypes.create_string_buffer(max(nbytes, 1))
        self.pointer, self.nbytes = ctypes.addressof(self._block), nbytes

    def close(self) -> None:
        self.pointer = 0


class Kernel:
    """finish.cu's arithmetic in numpy, one pixel's table entries at a time."""

    def __init__(self, ptx: bytes, name: str) -> None:
        assert f".entry {name}".encode() in ptx
        self.fixed = name == "finish_fixed"

    def launch(self, grid: Any, block: Any, _stream: int, arguments: Any) -> None:
        rows, to, out = arguments[0].value, arguments[1], arguments[2].value
        assert grid[0] * block[0] >= to.width
        assert grid[1] * block[1] >= to.height
        for number in range(grid[2]):
            row = at(rows, np.uint8, grid[2] * on_gpu._ROW.itemsize).view(on_gpu._ROW).view(np.recarray)[number]
            if row.pixels:
                self.image(row, to, out, number)

    def image(self, row: Any, to: Any, out: int, number: int) -> None:
        across, down = entries(row.across, to.width), entries(row.down, to.height)
        high = max((start + count for start, count, _ in down), default=0)
        source = at(row.pixels, np.uint8, high * row.width * to.channels).reshape(high, row.width, to.channels)
        half, kind = bool(to.half), np.float16 if to.half else np.float32
        values = at(out + number * to.row_stride * (2 if half else 4), kind, to.row_stride)
        for y, (top, rows_, weights_y) in enumerate(down):
            for x, (left, columns, weights_x) in enumerate(across):
                levels = np.array(to.fill[: to.channels], np.float32)
                if rows_ and columns:
                    window = source[top : top + rows_, left : left + columns]
                    if row.down_first:
                        levels = self.pixel(window.transpose(1, 0, 2), weights_x, weights_y)
                    else:
                        levels = self.pixel(window, weights_y, weights_x)
                for c in range(to.channels):
                    channel = to.channels - 1 - c if to.flipped else c
                    value = np.float32(levels[c])
                    if to.scaling:
                        value = value / np.float32(to.factor) if to.scaling == 1 else value * np.float32(to.factor)
                    value = (value - np.float32(to.mean[channel])) / np.float32(to.deviation[channel])
                    values[channel * to.channel_stride + y * to.y_stride + x * to.x_stride] = value

    def pixel(self, window: Any, down: Any, across: Any) -> Any:
        if not self.fixed:
            inner = (window.astype(np.float32) * across.view(np.float32)[None, :, None]).sum(axis=1)
            return (inner * down.view(np.float32)[:, None]).sum(axis=0)
        inner = ((window.astype(np.int64) * across[None, :, None]).sum(axis=1) + (1 << 21)) >> 22
        return (((inner.clip(0, 255) * down[:, None]).sum(axis=0) + (1 << 21)) >> 22).clip(0, 255)


def at(pointer: int, dtype: Any, count: int) -> Any:
    size = count * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(int(pointer)), dtype)


def entries(pointer: int, count: int) -> list[tuple[int, int, Any]]:
    wide = int(at(pointer, np.int32, 1)[0])
    table = at(pointer, np.int32, 1 + count * (2 + wide))[1:].reshape(count, 2 + wide)
    return [(int(row[0]), int(row[1]), row[2 : 2 + int(row[1])].copy()) for row in table]


SIMULATED = SimpleNamespace(
    Stream=lambda: SimpleNamespace(handle=7, close=lambda: None),
    follow=lambda _stream, _leader: None,
    make_current=lambda *_: None,
    Memory=Memory,
    Kernel=Kernel,
    call=lambda *_: None,
    upload_rows=lambda pointer, host, pitch, used, rows, _: [
        ctypes.memmove(pointer + row * pitch, host + row * pitch, used) for row in range(rows)
    ],
    upload=lambda pointer, host, nbytes, *_: ctypes.memmove(pointer, host, nbytes),
    download=lambda host, pointer, nbytes: ctypes.memmove(host, pointer, nbytes),
)


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "simulated":
        monkeypatch.setattr(on_gpu, "driver", SIMULATED)
    elif not cuda.gpu_available():
        pytest.skip("no GPU")
    return on_gpu.driver


def finished(device: Any, transform: ImageTransform, samples: Files, info: TensorInfo, **more: Any) -> Any:
    """What workers and device make of the samples: (inputs, geometries)."""
    rows = on_gpu.pixel_rows(transform, {"input": info}, samples)
    assert rows is not None
    count = len(samples)
    buffers = {i.name: np.zeros((count, *(d or 1 for d in i.shape[1:])), i.dtype) for i in rows.inputs}
    geometries = [rows(s, {name: array[i] for name, array in buffers.items()}) for i, s in enumerate(samples)]
    finisher = on_gpu.Finisher(rows, 0, count, 1)
    with finisher.feeds(buffers, count) as feeds:
        result = np.zeros(feeds["input"].shape, feeds["input"].dtype)
        memory = device.Memory(result.nbytes)
        feeds["input"].write(memory.pointer, 0)
        device.download(result.ctypes.data, memory.pointer, result.nbytes)
    finisher.close()
    return result, geometries


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["resize"])
def test_the_device_finishes_what_the_cpu_would(device: Any, pictures: Files, case: dict[str, Any], dtype: str) -> None:
    shape = (20, 26, 3) if case.get("layout") == "NHWC" else (3, 20, 26)
    transform = ImageTransform(**case)
    got, geometries = finished(device, transform, pictures, TensorInfo("input", (None, *shape), np.dtype(dtype)))
    for number, sample in enumerate(pictures):
        wanted = np.empty(shape, dtype)
        assert transform(sample, {"input": wanted}) == geometries[number]
        if transform.resize in ("stretch", "longest_side"):
            np.testing.assert_allclose(got[number], wanted, atol=2e-3 if dtype == "float16" else 2e-5)
        else:
            np.testing.assert_array_equal(got[number], wanted)


def test_grey_inputs(device: Any, pictures: Files) -> None:
    transform = ImageTransform(resize="stretch_bilinear", scale=1 / 255)
    got, _ = finished(device, transform, pictures, TensorInfo("input", (None, 1, 16, 12), np.dtype(np.float32)))
    wanted = np.empty((1, 16, 12), np.float32)
    transform(pictures[1], {"input": wanted})
    np.testing.assert_array_equal(got[1], wanted)


def test_an_image_larger_than_a_row_is_finished_by_the_worker(
    device: Any, pictures: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = on_gpu.pixel_rows
    monkeypatch.setattr(on_gpu, "pixel_rows", lambda *given: whole(*given, 0))  # rows hold the network's input, no more
    transform = ImageTransform(resize="stretch_bilinear", **IMAGENET)
    got, _ = finished(device, transform, pictures, TensorInfo("input", (None, 3, 16, 12), np.dtype(np.float32)))
    for number, sample in enumerate(pictures):  # the smallest fits, the others do not
        wanted = np.empty((3, 16, 12), np.float32)
        transform(sample, {"input": wanted})
        np.testing.assert_array_equal(got[number], wanted)


def test_what_the_gpu_cannot_do_stays_on_the_cpu(pictures: Files) -> None:
    plain = TensorInfo("input", (None, 3, 48, 64), np.dtype(np.float32))

    def half(info: TensorInfo = plain, inputs: dict[str, TensorInfo] | None = None, **settings: Any) -> Any:
        return on_gpu.pixel_rows(ImageTransform(**settings), inputs or {"input": info}, pictures)

    assert half() is not None
    assert half(resize="letterbox") is None
    assert half(arithmetic="float64") is None
    assert half(TensorInfo("input", (None, 3, 48, 64), np.dtype(np.uint8))) is None
    assert half(TensorInfo("input", (None, 3, None, None), np.dtype(np.float32))) is None
    assert half(inputs={"input": plain, "mask": plain}) is None
    assert half(TensorInfo("input", (None, 1, 48, 64), np.dtype(np.float32)), color="I") is None


def test_a_broken_file_is_named(pictures: Files) -> None:
    rows = on_gpu.pixel_rows(
        ImageTransform(), {"input": TensorInfo("input", (None, 3, 8, 8), np.dtype("f4"))}, pictures
    )
    assert rows is not None
    pictures[0].path.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"0\.png"):
        rows(pictures[0], {i.name: np.zeros([d or 1 for d in i.shape[1:]], i.dtype) for i in rows.inputs})


def test_files_for_nvimgcodec_go_as_they_are(pictures: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's decoder is SIMULATED: it decodes with Pillow."""
    import io

    asked = []

    def decode(files: Any) -> Any:
        asked.append(len(files))
        first = ctypes.string_at(int(files["address"][0]), int(files["length"][0]))
        pixels = np.ascontiguousarray(Image.open(io.BytesIO(first)).convert("RGB"))
        assert files["width"][0] == pixels.shape[1]
        ctypes.memmove(int(files["target"][0]), pixels.ctypes.data, pixels.nbytes)
        return np.array([True, False])  # the second is decoded on the host

    decoder = SimpleNamespace(decode=decode, stream=SimpleNamespace(handle=7), close=lambda: None)
    monkeypatch.setattr(on_gpu, "driver", SIMULATED)
    monkeypatch.setattr(on_gpu, "batch_decoder", lambda: decoder)
    for number in (0, 2):
        jpeg = pictures[number].path.with_suffix(".jpg")
        Image.open(pictures[number].path).save(jpeg, quality=95)
        pictures[number] = Sample(number, (jpeg,))
    transform = ImageTransform(resize="stretch_bilinear", **IMAGENET, backend="nvimgcodec")
    info = TensorInfo("input", (None, 3, 16, 12), np.dtype(np.float32))
    got, _ = finished(SIMULATED, transform, pictures, info)
    assert asked == [2]
    on_host = ImageTransform(resize="stretch_bilinear", **IMAGENET)
    for number, sample in enumerate(pictures):
        wanted = np.empty((3, 16, 12), np.float32)
        on_host(sample, {"input": wanted})
        np.testing.assert_array_equal(got[number], wanted)
