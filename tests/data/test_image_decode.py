"""Decoding image files: the same pixels from both backends, and a clear error for everything else."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image

from nvidia_tao_deploy.data.image import decode, decode_reduced, list_images
from nvidia_tao_deploy.errors import DataError

RNG = np.random.default_rng(0)
SMOOTH = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (6, 8, 3), np.uint8)).resize((67, 45), Image.Resampling.BICUBIC)
)
BACKENDS = ("opencv", "pillow")


def save(path, image, **options):
    image.save(path, **options)
    return path


def variants(tmp_path):
    rgb = Image.fromarray(SMOOTH)
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.fromarray(SMOOTH[..., 0]))
    palette = rgb.quantize(17)
    yield save(tmp_path / "rgb.png", rgb)
    yield save(tmp_path / "rgba.png", alpha)
    yield save(tmp_path / "grey.png", rgb.convert("L"))
    yield save(tmp_path / "grey_alpha.png", rgb.convert("LA"))
    yield save(tmp_path / "bits.png", rgb.convert("1"))
    yield save(tmp_path / "palette.png", palette)
    yield save(tmp_path / "palette_transparent.png", palette, transparency=3)
    yield save(tmp_path / "photo.jpg", rgb, quality=90)
    yield save(tmp_path / "photo420.jpg", rgb, quality=70, subsampling=2)
    yield save(tmp_path / "grey.jpg", rgb.convert("L"))
    yield save(tmp_path / "progressive.jpg", rgb, progressive=True)
    yield save(tmp_path / "photo.bmp", rgb)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_are_pillows_rgb(tmp_path, backend):
    for path in variants(tmp_path):
        wanted = np.asarray(Image.open(path).convert("RGB")).astype(int)
        found = decode(path, backend=backend)
        assert found.dtype == np.uint8
        # PNG and BMP exactly; JPEG up to the rounding of another libjpeg
        assert np.abs(found - wanted).max() <= (2 if path.suffix == ".jpg" else 0), path.name


@pytest.mark.parametrize("backend", BACKENDS)
def test_grey_is_pillows_luma(tmp_path, backend):
    for path in variants(tmp_path):
        wanted = np.asarray(Image.open(path).convert("RGB").convert("L")).astype(int)
        found = decode(path, "L", backend)
        assert found.shape == (45, 67, 1)
        assert np.abs(found[..., 0] - wanted).max() <= (2 if path.suffix == ".jpg" else 0), path.name


@pytest.mark.parametrize("backend", BACKENDS)
def test_sixteen_bits_keep_the_high_byte(tmp_path, backend):
    wide = RNG.integers(0, 1 << 16, (9, 7), dtype=np.uint16)
    path = save(tmp_path / "wide.png", Image.fromarray(wide))
    np.testing.assert_array_equal(decode(path, "L", backend)[..., 0], wide >> 8)
    np.testing.assert_array_equal(decode(path, "RGB", backend), np.repeat((wide >> 8)[..., None], 3, 2))
    full = decode(path, "I", backend)
    assert full.dtype == np.int32
    np.testing.assert_array_equal(full[..., 0], wide)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cmyk_is_converted(tmp_path, backend):
    path = save(tmp_path / "print.jpg", Image.fromarray(SMOOTH).convert("CMYK"), quality=95)
    assert np.abs(decode(path, backend=backend).astype(int) - np.asarray(Image.open(path).convert("RGB"))).max() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_exif_orientation_is_ignored(tmp_path, backend):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.jpg", Image.fromarray(SMOOTH), exif=exif)
    assert decode(path, backend=backend).shape == (45, 67, 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_broken_files_are_named(tmp_path, backend, suffix):
    buffer = io.BytesIO()
    Image.fromarray(SMOOTH).save(buffer, format={".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP"}[suffix])
    whole = buffer.getvalue()
    middle = len(whole) // 2
    broken = {
        "empty": b"",
        "truncated": whole[:middle],
        "header_only": whole[:20],
        "text": b"this is no image",
        "no_end": whole[: {".jpg": -3, ".png": -40, ".bmp": -200}[suffix]],
    }
    for name, data in broken.items():
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(data)
        with pytest.raises(DataError) as caught:
            decode(path, backend=backend)
        assert str(path) in str(caught.value), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_png_data_is_an_error(tmp_path, backend):
    path = save(tmp_path / "a.png", Image.fromarray(SMOOTH))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png"):
        decode(path, backend=backend)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        decode(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="cannot read image"):
        decode(tmp_path)


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    path = save(tmp_path / "large.png", Image.new("1", (20_000, 10_000)))
    with pytest.raises(DataError, match=r"20000 x 10000|too large"):
        decode(path)
    with pytest.raises(DataError, match="more than the 100 allowed"):
        decode(save(tmp_path / "b.png", Image.fromarray(SMOOTH)), max_pixels=100)


def test_list_images_sorts_follows_links_and_keeps_their_names(tmp_path):
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    for name in ("z.JPG", "b/a.png", "a.bmp", "c.Jpeg", "notes.txt", "._a.jpg", "d.webp"):
        (root / name).write_bytes(b"x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "target.png").write_bytes(b"x")
    os.symlink(tmp_path / "outside" / "target.png", root / "link.png")
    os.symlink(tmp_path / "outside", root / "linked")
    os.symlink(root, root / "b" / "loop")
    names = [path.relative_to(root).as_posix() for path in list_images(root)]
    assert names == ["a.bmp", "b/a.png", "c.Jpeg", "link.png", "linked/target.png", "z.JPG"]
    assert [p.name for p in list_images(root, recursive=False)] == ["a.bmp", "c.Jpeg", "link.png", "z.JPG"]
    assert list_images(root / "z.JPG") == [root / "z.JPG"]


def test_list_images_names_missing_and_empty_folders(tmp_path):
    with pytest.raises(DataError, match="no such image folder"):
        list_images(tmp_path / "none")
    with pytest.raises(DataError, match="no image in this folder"):
        list_images(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match="is not an image file"):
        list_images(tmp_path / "a.txt")


@pytest.mark.parametrize("part", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_reduced_jpeg_holds_the_means_of_its_parts(tmp_path, part, mode):
    """Red grows to the right, blue downwards: channels and axes keep their places."""
    y, x = np.mgrid[:128, :192]
    pixels = np.stack([x, np.full_like(x, 40), y], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    for least in ((192 // part, 128 // part), (192 // part - 11, 128 // part)):
        found, size = decode_reduced(tmp_path / "a.jpg", mode, least)
        assert size == (192, 128)
        wanted = pixels.reshape(128 // part, part, 192 // part, part, 3).mean(axis=(1, 3))
        wanted = wanted if mode == "RGB" else wanted @ [[0.299], [0.587], [0.114]]
        np.testing.assert_allclose(found, wanted, atol=4)
