"""The faster image backends: reduced JPEG decoding keeps geometry and stays near, the GPU's is asked for properly."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from nvidia_tao_deploy.data import gpu_decode
from nvidia_tao_deploy.data.image import decode, decode_reduced
from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import RuntimeUnavailableError
from nvidia_tao_deploy.runtime import cuda
from nvidia_tao_deploy.transforms.image import ImageTransform


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    smooth = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (643, 481), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(smooth).save(tmp_path / "photo.jpg", quality=90)
    return tmp_path / "photo.jpg"


@pytest.mark.parametrize(
    ("least", "part"), [((643, 481), 1), ((322, 10), 1), ((321, 240), 2), ((160, 120), 4), ((1, 1), 8)]
)
def test_the_smallest_size_that_covers_the_input_is_decoded(photo: Path, least: tuple[int, int], part: int) -> None:
    pixels, size = decode_reduced(photo, "RGB", least)
    assert size == (643, 481)
    assert pixels.shape == (-(-481 // part), -(-643 // part), 3)


def test_other_files_and_other_backends_come_in_full(photo: Path, tmp_path: Path) -> None:
    Image.open(photo).save(tmp_path / "photo.png")
    assert decode_reduced(tmp_path / "photo.png", "RGB", (8, 8))[0].shape == (481, 643, 3)
    assert decode_reduced(photo, "RGB", (8, 8), "opencv")[0].shape == (481, 643, 3)
    np.testing.assert_array_equal(decode(photo, "RGB", "opencv_reduced"), decode(photo))


@pytest.mark.parametrize("resize", ["stretch", "stretch_bilinear", "letterbox", "longest_side"])
def test_geometry_is_the_files_own_and_grey_levels_are_near(photo: Path, resize: str) -> None:
    rows, geometries = [], []
    for backend in ("opencv", "opencv_reduced"):
        row = np.empty((3, 64, 64), np.float32)
        geometries.append(ImageTransform(resize=resize, backend=backend)(Sample(0, (photo,)), {"input": row}))
        rows.append(row)
    assert geometries[0] == geometries[1]
    difference = np.abs(rows[0] - rows[1])
    if resize.startswith("stretch"):
        assert 0 < difference.mean() < 3
    else:
        assert not difference.any()  # only the stretches decode at a reduced size


def test_nvimgcodec_says_what_is_missing(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", None)
    gpu_decode._decoder.cache_clear()
    with pytest.raises(RuntimeUnavailableError, match=r"nvimgcodec is not installed\n  pip install"):
        decode(photo, backend="nvimgcodec")


def test_nvimgcodec_decodes_whole_jpegs_and_leaves_the_rest_to_the_processor(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Decoder:
        """FAKE: marks what it decoded with one grey level."""

        def __init__(self, options: str) -> None:
            assert "fancy_upsampling=1" in options  # as libjpeg does

        def decode(self, files: list[bytes], params: SimpleNamespace, cuda_stream: int) -> list[SimpleNamespace]:
            assert cuda_stream == 0
            assert not params.apply_exif_orientation
            asked.append(len(files))
            return [SimpleNamespace(cpu=lambda: np.full((481, 643, 3), 7, np.uint8)) for _ in files]

    fake = ModuleType("nvidia.nvimgcodec")
    fake.__spec__ = ModuleSpec("nvidia.nvimgcodec", None)
    fake.Decoder, fake.DecodeParams, fake.ColorSpec = Decoder, SimpleNamespace, SimpleNamespace(SRGB=1)  # type: ignore
    fake.CodeStream = bytes  # type: ignore
    parent = sys.modules.get("nvidia") or ModuleType("nvidia")
    monkeypatch.setitem(sys.modules, "nvidia", parent)
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", fake)
    monkeypatch.setattr(parent, "nvimgcodec", fake, raising=False)
    gpu_decode._decoder.cache_clear()
    monkeypatch.setattr(cuda, "gpus", lambda: (cuda.Gpu(0, "Fake GPU", (9, 0), 1),))
    assert (decode(photo, backend="nvimgcodec") == 7).all()
    assert decode(photo, "L", backend="nvimgcodec").shape == (481, 643, 1)
    Image.open(photo).save(tmp_path / "photo.png")
    assert not (decode(tmp_path / "photo.png", backend="nvimgcodec") == 7).all()
    assert asked == [1, 1]
    gpu_decode._decoder.cache_clear()
