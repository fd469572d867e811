"""The GPU's JPEG engines: what is asked of nvJPEG on a FAKE of it, pixels against Pillow's on a real one by hand."""

from __future__ import annotations

import ctypes
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nvidia_tao_deploy.data import gpu_decode, nvjpeg
from nvidia_tao_deploy.errors import RuntimeUnavailableError
from nvidia_tao_deploy.runtime import cuda, driver


def picture(seed: int, size: tuple[int, int], **options: Any) -> Any:
    """A smooth picture as a file's bytes."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    coarse.convert(options.pop("mode", "RGB")).save(file, options.pop("kind", "JPEG"), **options)
    return np.frombuffer(file.getvalue(), np.uint8)


def pixels_of(file: Any) -> Any:
    return np.asarray(Image.open(io.BytesIO(file.tobytes())).convert("RGB"))


class Library:
    """FAKE libnvjpeg: Pillow decodes, device addresses are the host's."""

    def __init__(self, engines: bool = True) -> None:
        self.engines = engines
        self.batches: list[int] = []
        self.headers: dict[int, Any] = {}

    def nvjpegCreateEx(self, backend: int, _device: Any, _pinned: Any, flags: int, handle: Any) -> int:
        assert (backend, flags) == (3, 0b100001)
        handle._obj.value = 1
        return 0 if self.engines else 4

    def nvjpegJpegStateCreate(self, _handle: Any, state: Any) -> int:
        state._obj.value = 2
        return 0

    def nvjpegJpegStreamCreate(self, _handle: Any, header: Any) -> int:
        header._obj.value = 100 + len(self.headers)
        return 0

    def nvjpegJpegStreamParse(self, _handle: Any, data: Any, length: Any, _meta: int, _whole: int, header: Any) -> int:
        image = Image.open(io.BytesIO(ctypes.string_at(data.value, length.value)))
        self.headers[header.value] = image
        return 0 if image.format == "JPEG" else 3

    def nvjpegDecodeBatchedSupported(self, _handle: Any, header: Any, refused: Any) -> int:
        refused._obj.value = int("progressive" in self.headers[header.value].info)
        return 0

    def nvjpegJpegStreamDestroy(self, header: Any) -> int:
        self.headers.setdefault(header.value, None)
        return 0

    def nvjpegDecodeBatchedInitialize(self, _handle: Any, _state: Any, count: int, _threads: int, form: int) -> int:
        assert form == 5
        self.batches.append(count)
        return 0

    def nvjpegDecodeBatched(self, _handle: Any, _state: Any, data: Any, lengths: Any, images: Any, stream: Any) -> int:
        assert stream.value == 7
        count = self.batches[-1]
        data, lengths = (
            np.ctypeslib.as_array((ctypes.c_uint64 * count).from_address(a.value)) for a in (data, lengths)
        )
        targets = np.ctypeslib.as_array((ctypes.c_uint64 * (8 * count)).from_address(images.value)).reshape(count, 8)
        for address, length, target in zip(data.tolist(), lengths.tolist(), targets.tolist(), strict=True):
            file = ctypes.string_at(address, length)
            image = Image.open(io.BytesIO(file))
            if b"BROKEN" in file or image.format != "JPEG" or "progressive" in image.info:
                return 3
            rgb = pixels_of(np.frombuffer(file, np.uint8))
            assert target[4] == 3 * rgb.shape[1]
            ctypes.memmove(target[0], rgb.ctypes.data, rgb.nbytes)
        return 0


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(nvjpeg, "_library", lambda: library)
    monkeypatch.setattr(driver, "Stream", lambda **_: SimpleNamespace(handle=7, close=lambda: None))
    return library


def table(files: list[Any], targets: list[int]) -> Any:
    rows = [(f.ctypes.data, f.size, pixels_of(f).shape[1], to) for f, to in zip(files, targets, strict=True)]
    return np.array(rows, nvjpeg.FILES)


def decoded(engines: Any, files: list[Any]) -> tuple[list[bool], list[Any]]:
    rows = [np.zeros(pixels_of(file).shape, np.uint8) for file in files]
    return engines.decode(table(files, [row.ctypes.data for row in rows])).tolist(), rows


def test_engines_take_baseline_files_and_leave_the_rest(library: Library) -> None:
    files = [
        picture(1, (40, 30)),
        picture(2, (33, 17), progressive=True),
        picture(3, (20, 10), kind="PNG"),
        picture(4, (31, 50), subsampling=0),
    ]
    found, rows = decoded(nvjpeg.JpegEngines(), files)
    assert found == [True, False, False, True]
    for file, done, row in zip(files, found, rows, strict=True):
        np.testing.assert_array_equal(row, pixels_of(file) if done else 0)


def test_a_broken_file_leaves_its_batch_to_the_processor_and_no_more(library: Library) -> None:
    engines = nvjpeg.JpegEngines()
    whole = [picture(seed, (24, 16)) for seed in range(3)]
    assert decoded(engines, whole[:2])[0] == [True, True]
    broken = picture(9, (24, 16), comment=b"BROKEN")
    assert decoded(engines, [whole[0], broken])[0] == [False, False]
    assert decoded(engines, whole)[0] == [True, True, True]
    assert decoded(engines, whole)[0] == [True, True, True]
    assert library.batches == [2, 2, 3]  # prepared for each size, and again after a failure
    assert decoded(engines, [picture(2, (8, 8), progressive=True)])[0] == [False]


def test_a_gpu_without_engines_uses_nvimagecodec(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_decode, "_refuse_missing", lambda: None)
    monkeypatch.setattr(gpu_decode, "_decoder", lambda: (None, None, None))
    assert isinstance(gpu_decode.batch_decoder(), nvjpeg.JpegEngines)
    library.engines = False
    assert isinstance(gpu_decode.batch_decoder(), gpu_decode.ImageCodec)
    with pytest.raises(RuntimeUnavailableError, match="nvjpegCreateEx failed with nvJPEG's status 4"):
        nvjpeg.JpegEngines()


@pytest.mark.gpu
@pytest.mark.parametrize("maker", [nvjpeg.JpegEngines, gpu_decode.ImageCodec])
def test_pixels_are_within_four_grey_levels_of_pillows(maker: Any) -> None:
    if not cuda.gpu_available():
        pytest.skip("no GPU")
    driver.make_current(0)
    decoder = maker()
    files = [picture(n, (64 + 3 * n, 48 + n), subsampling=n % 3, quality=90) for n in range(9)]
    files += [picture(20, (640, 480)), picture(21, (50, 40), mode="L"), picture(22, (90, 70), progressive=True)]
    for batch in (files, files[:3], files[::-1]):
        shapes = [pixels_of(file).shape for file in batch]
        memories = [driver.Memory(int(np.prod(shape))) for shape in shapes]
        found = decoder.decode(table(batch, [memory.pointer for memory in memories]))
        decoder.stream.synchronize()
        assert sum(found) >= len(batch) - 2
        for file, shape, memory, done in zip(batch, shapes, memories, found, strict=True):
            if done:
                got = np.empty(shape, np.uint8)
                driver.download(got.ctypes.data, memory.pointer, got.nbytes)
                difference = np.abs(got.astype(int) - pixels_of(file))
                assert difference.max() <= 4
                assert difference.mean() < 1
    decoder.close()
