"""Image files to pixels, and folders to lists of image files."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

ColorMode = Literal["RGB", "L", "Y", "I"]
Backend = Literal["opencv", "opencv_reduced", "pillow", "nvimgcodec"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
# Pillow's own bound for one quarter gigabyte of RGB; past it Pillow warns, past twice it refuses.
MAX_PIXELS = 89_478_485

_END_OF_JPEG = b"\xff\xd9"
_END_OF_PNG = b"IEND\xaeB`\x82"
# Some writers pad or append a few bytes after the end marker; further away it may belong to a thumbnail.
_TAIL_BYTES = 64
_OPENCV_MODES = {"JPEG": {"RGB", "L"}, "PNG": {"RGB", "RGBA", "L", "LA", "P", "1", "I;16"}}
_ORIENTATION = 0x0112  # of EXIF
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error)


def decode(
    path: Path | str, mode: ColorMode = "RGB", backend: Backend = "opencv", max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8] | NDArray[np.int32]:
    """Decode one image file.

    EXIF orientation is not applied, as in the networks' contracts. Alpha is dropped, palettes are expanded,
    CMYK is converted, and 16-bit samples keep their high byte, so both backends give the same pixels. OpenCV
    decodes only whole JPEG and PNG files of the usual kinds and leaves everything else to Pillow. Differences
    between the backends: none for PNG; for JPEG none as long as both bundle libjpeg-turbo (which the wheels
    do), at most 2 grey levels with another libjpeg.

    Args:
        path: the file.
        mode: "RGB"; "L" (ITU-R 601 luma, rounded, computed from RGB); "Y" (grey as OpenCV reads it: a JPEG's luma as
            stored; where OpenCV does not decode, as "L"); "I" for 16-bit grey.
        backend: "opencv" (faster), "pillow", or "nvimgcodec" (whole JPEG files on the GPU, the rest as "opencv");
            "opencv_reduced" is "opencv" here, see :func:`decode_reduced`.
        max_pixels: refuse larger images before any pixel is decoded.

    Returns:
        (H, W, 3) uint8 for RGB, (H, W, 1) uint8 for L and Y, (H, W, 1) int32 for I.

    Raises:
        DataError: the file is missing, empty, not an image, truncated, corrupt, or over ``max_pixels``.
    """
    return decode_reduced(path, mode, None, backend, max_pixels)[0]


def decode_reduced(
    path: Path | str,
    mode: ColorMode = "RGB",
    least: tuple[int, int] | None = None,
    backend: Backend = "opencv_reduced",
    max_pixels: int = MAX_PIXELS,
) -> tuple[NDArray[np.uint8] | NDArray[np.int32], tuple[int, int]]:
    """As :func:`decode`; "opencv_reduced" lets libjpeg give whole JPEG files at 1/2, 1/4 or 1/8 of their size.

    The smallest that still covers ``least`` is taken (each pixel is then the mean of the pixels it stands for, as far
    as the format's 8x8 blocks know them); None: the full size.

    Args:
        path: the file.
        mode: see :func:`decode`.
        least: (width, height) that the pixels must at least have, e.g. the network's input.
        backend: see :func:`decode`.
        max_pixels: bounds the file's own size.

    Returns:
        The pixels, and the file's own (width, height).

    Raises:
        DataError: see :func:`decode`.
    """
    from PIL import Image

    path = Path(path)
    data = _read(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_size(path, image, max_pixels)
            size = (image.width, image.height)
            if backend != "pillow" and mode != "I" and _is_plain(image, data):
                jpeg = image.format == "JPEG"
                part = _reduction(size, least) if least and jpeg and backend == "opencv_reduced" else 1
                pixels = _decode_nvimgcodec(data, mode) if jpeg and backend == "nvimgcodec" else None
                if pixels is None:
                    pixels = _decode_opencv(data, mode, part)
                if pixels is not None and pixels.shape[:2] == (-(-size[1] // part), -(-size[0] // part)):
                    return pixels, size
            return _pixels(image, mode), size
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"image is too large to decode: {error}", where=str(path), remedy="Resize it or remove it from the set."
        ) from error
    except _UNREADABLE as error:
        raise DataError(
            f"cannot decode image: {_reason(error, path)}",
            where=str(path),
            remedy="The file is corrupt, truncated or not an image; replace it or remove it from the set.",
        ) from error


def decode_upright(path: Path, mode: ColorMode = "RGB", backend: Backend = "opencv") -> NDArray[Any]:
    """Pixels (H, W, C) as OpenCV's imread gives them: turned as the EXIF orientation of a JPEG file says, its grey."""
    pixels = decode(path, "Y" if mode == "L" else mode, backend)
    orientation = _orientation(path)
    if orientation in (5, 6, 7, 8):  # rows and columns swapped
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def plain_jpeg(path: Path | str, max_pixels: int = MAX_PIXELS) -> tuple[bytes, tuple[int, int]] | None:
    """The bytes and (width, height) of a whole RGB or grey baseline JPEG file; None for every other kind.

    Raises:
        DataError: the file cannot be read, is empty, not an image, or over ``max_pixels``.
    """
    from PIL import Image

    path = Path(path)
    data = _read(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_size(path, image, max_pixels)
            baseline = image.format == "JPEG" and "progressive" not in image.info
            return (data, image.size) if baseline and _is_plain(image, data) else None
    except Image.DecompressionBombError:
        return None
    except _UNREADABLE as error:
        raise DataError(f"cannot decode image: {_reason(error, path)}", where=str(path)) from error


def decode_bytes(data: bytes) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of a JPEG or PNG file's bytes; DataError where they cannot be decoded."""
    pixels = _decode_opencv(data, "RGB")
    if pixels is None:
        raise DataError("an image cannot be decoded", remedy="It is corrupt; runtime.image_backend=opencv names it.")
    return pixels


def image_size(path: Path | str) -> tuple[int, int]:
    """(width, height) by the file's header; DataError where the file is missing or not an image."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.width, image.height
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read image: {_reason(error, Path(path))}", where=str(path)) from error


def list_images(folder: Path | str, recursive: bool = True, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """Image files of a folder, sorted by path; one image file stands for itself.

    Suffixes are matched without regard to case. Linked files keep the link's name; linked folders are followed
    once. Hidden files are skipped (macOS leaves ``._x.jpg`` files that are no images).

    Args:
        folder: a folder, or one image file.
        recursive: whether to descend into sub-folders.
        suffixes: of image files, in lower case.

    Returns:
        Absolute paths.

    Raises:
        DataError: the folder does not exist, or holds no image.
    """
    root = Path(os.path.abspath(folder))
    if root.is_file() and root.suffix.lower() in suffixes:
        return [root]
    if not root.is_dir():
        what = "is not an image file" if root.exists() else "no such image folder"
        raise DataError(what, where=str(folder), remedy="Check the path.")
    files = sorted(_image_files(root, recursive, suffixes), key=str)
    if not files:
        below = " or below it" if recursive else ""
        raise DataError(
            f"no image in this folder{below}",
            where=str(folder),
            remedy=f"Files with one of these suffixes are read: {' '.join(sorted(suffixes))}.",
        )
    return files


def to_luma(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """ITU-R 601 luma of (H, W, 3) RGB as (H, W, 1), with Pillow's 16-bit fixed-point weights; exact for grey."""
    weighted = rgb[..., 0] * np.uint32(19595) + rgb[..., 1] * np.uint32(38470) + rgb[..., 2] * np.uint32(7471)
    return np.asarray((weighted + np.uint32(0x8000)) >> np.uint32(16), dtype=np.uint8)[..., None]


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read image: {error.strerror or error}", where=str(path)) from error
    if not data:
        raise DataError(
            "image file is empty (0 bytes)", where=str(path), remedy="Replace it or remove it from the set."
        )
    return data


def _check_size(path: Path, image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise DataError(
            f"image has {image.width} x {image.height} pixels, more than the {max_pixels} allowed",
            where=str(path),
            remedy="Resize it or remove it from the set.",
        )


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """Whether OpenCV gives Pillow's pixels: the usual kinds, and whole (OpenCV fills truncated files in silence)."""
    end = _END_OF_JPEG if image.format == "JPEG" else _END_OF_PNG
    return image.mode in _OPENCV_MODES.get(image.format or "", ()) and end in data[-_TAIL_BYTES:]


def _reduction(size: tuple[int, int], least: tuple[int, int]) -> int:
    """The largest of 8, 4, 2, 1 that leaves at least ``least``."""
    return next(
        part for part in (8, 4, 2, 1) if part == 1 or all(s >= part * n for s, n in zip(size, least, strict=True))
    )


def _decode_nvimgcodec(data: bytes, mode: ColorMode) -> NDArray[np.uint8] | None:
    from nvidia_tao_deploy.data.gpu_decode import decode_rgb

    rgb = decode_rgb(data)
    return rgb if rgb is None or mode == "RGB" else to_luma(rgb)


def _decode_opencv(data: bytes, mode: ColorMode, part: int = 1) -> NDArray[np.uint8] | None:
    import cv2

    # IMREAD_REDUCED_COLOR_2 and so on are 16 + 1, 32 + 1, 64 + 1; OpenCV gives RGB itself from 4.11 on
    straight = part == 1 and hasattr(cv2, "IMREAD_COLOR_RGB")
    kind = cv2.IMREAD_COLOR_RGB if straight else {1: 1, 2: 17, 4: 33, 8: 65}[part]
    kind = cv2.IMREAD_GRAYSCALE if mode == "Y" else kind
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), kind | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if pixels is None or pixels.dtype != np.uint8:
        return None
    if mode == "Y":
        return np.asarray(pixels[..., None], dtype=np.uint8)
    rgb = np.asarray(pixels if straight else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    return to_luma(rgb) if mode == "L" else rgb


def _pixels(image: Image.Image, mode: ColorMode) -> NDArray[np.uint8] | NDArray[np.int32]:
    if mode == "I":
        wide = image if image.mode.startswith("I") else image.convert("L")
        return np.asarray(wide).astype(np.int32)[..., None]
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255 when it converts; the high byte is what every 8-bit reader shows.
        grey = (np.clip(np.asarray(image).astype(np.int64), 0, 0xFFFF) >> 8).astype(np.uint8)[..., None]
        return np.repeat(grey, 3, axis=2) if mode == "RGB" else grey
    if image.mode == "F":
        raise ValueError("floating-point images have no defined grey range")
    rgb = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    return rgb if mode == "RGB" else to_luma(rgb)


def _reason(error: BaseException, path: Path) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"not an image, whatever its suffix {path.suffix} says"
    return str(error) or type(error).__name__


def _image_files(root: Path, recursive: bool, suffixes: Collection[str]) -> Iterator[Path]:
    if not recursive:
        yield from _images_among(root, (entry.name for entry in os.scandir(root) if entry.is_file()), suffixes)
        return
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up the tree
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from _images_among(Path(folder), names, suffixes)


def _images_among(folder: Path, names: Iterable[str], suffixes: Collection[str]) -> Iterator[Path]:
    for name in names:
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
            yield folder / name


def _orientation(path: Path) -> int:
    from PIL import Image

    with Image.open(path) as image:  # reads the header only
        return int(image.getexif().get(_ORIENTATION, 1)) if image.format == "JPEG" else 1
