"""The second half of an image transform on the GPU: workers only decode, a kernel resizes, normalizes and stores.

Values equal :class:`~nvidia_tao_deploy.transforms.image.ImageTransform`'s: bit for bit where the contract resizes by
Pillow (the kernel computes Pillow's fixed-point sums), within 1e-4 grey levels where OpenCV resizes float32. An image
larger than a row of the ring, or of more than 8 bits, is finished by the worker on the CPU.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from importlib.metadata import version
from math import ceil, prod
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.gpu_decode import batch_decoder
from nvidia_tao_deploy.data.image import decode_bytes, image_size, plain_jpeg
from nvidia_tao_deploy.data.nvjpeg import FILES, file_bytes
from nvidia_tao_deploy.data.sample import Dataset, Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.runtime import driver
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.transforms.image import ImageTransform
from nvidia_tao_deploy.transforms.resize import PLACEMENTS, Method, Placement, Size
from nvidia_tao_deploy.transforms.transform import Geometry

PIXELS, SIZES = "pixels", "sizes"
_PRECISION = 22  # bits after the point of Pillow's weights
_SAMPLED = 32  # images whose headers say how large a row must be
_MOST_TABLES = 4096
_BLOCK = (32, 8, 1)


class PixelRows:
    """A transform that stops after decoding: pixels as they are go into a row of bytes.

    Args:
        whole: the network's transform.
        target: the network's input.
        capacity: bytes of a row.
    """

    def __init__(self, whole: ImageTransform, target: TensorInfo, capacity: int) -> None:
        self.whole, self.target = whole, target
        self._shape = tuple(int(size or 1) for size in target.shape[1:])
        self.inputs = (
            TensorInfo(PIXELS, (None, max(capacity, prod(self._shape) * target.dtype.itemsize)), np.dtype(np.uint8)),
            # width, height, bytes of a file still to be decoded; width 0: the row is the network's input already
            TensorInfo(SIZES, (None, 3), np.dtype(np.int32)),
        )
        self._channels = self._shape[0 if whole.layout == "NCHW" else 2]
        self._on_device = whole.backend == "nvimgcodec"
        if self._on_device:  # what the GPU does not decode is decoded in a process that must not touch it
            self._host = copy(whole)
            self._host.backend = "opencv"
        else:
            self._host = whole

    def __call__(self, sample: Sample, out: Mapping[str, NDArray[Any]]) -> Geometry:
        """Fill a row of both :attr:`inputs`.

        Raises:
            DataError: the file is missing or cannot be decoded.
        """
        row = out[PIXELS]
        if self._on_device and (geometry := self._encoded(sample, out)) is not None:
            return geometry
        decoded = self._host.decode(sample, self._shape)
        pixels = decoded[0]
        if pixels.dtype == np.uint8 and pixels.nbytes <= row.nbytes:
            row[: pixels.nbytes] = pixels.reshape(-1)
            out[SIZES][:] = pixels.shape[1], pixels.shape[0], 0
            return self.whole.geometry(decoded, self._shape)
        out[SIZES][:] = 0
        finished = row[: prod(self._shape) * self.target.dtype.itemsize].view(self.target.dtype)
        return self.whole.finish(decoded, finished.reshape(self._shape))

    def _encoded(self, sample: Sample, out: Mapping[str, NDArray[Any]]) -> Geometry | None:
        """The file as it is, where the GPU can decode it and its pixels would fit."""
        whole, row = self.whole, out[PIXELS]
        found = plain_jpeg(sample.paths[whole.path_index], whole.max_pixels)
        if self._channels != 3 or found is None or prod(found[1]) * 3 > row.nbytes or len(found[0]) > row.nbytes:
            return None
        row[: len(found[0])] = np.frombuffer(found[0], np.uint8)
        out[SIZES][:] = *found[1], len(found[0])
        return whole.geometry_of(found[1], found[1], self._shape)

    def describe(self) -> dict[str, Any]:
        """What the whole transform says: the numbers are the same."""
        return self.whole.describe()


def pixel_rows(
    transform: Any, inputs: Mapping[str, TensorInfo], dataset: Dataset, most: int = 1 << 30
) -> PixelRows | None:
    """The transform's first half, where a GPU kernel can do the second; None where it cannot.

    Rows hold the largest of some images of the data set, but no more than ``most`` bytes (or the network's input).
    """
    if type(transform) is not ImageTransform or len(inputs) != 1:
        return None
    (target,) = inputs.values()
    placements = PLACEMENTS[transform.resize]((64, 64), (32, 32))
    if (
        not isinstance(placements.fill, tuple)
        or transform.arithmetic != "float32"
        or target.dtype.name not in ("float32", "float16")
    ):
        return None
    if target.name != transform.input_name or len(target.shape) != 4 or None in target.shape[1:]:
        return None
    channels = target.shape[1 if transform.layout == "NCHW" else 3]
    if channels not in (1, 3) or (transform.color == "I" and channels == 1):
        return None
    return PixelRows(transform, target, min(_largest(dataset, transform.path_index) * channels, most))


def _largest(dataset: Dataset, path_index: int) -> int:
    """Pixels of the largest of some images spread over the data set."""
    step = max(1, len(dataset) // _SAMPLED)
    areas = [0]
    for index in range(0, len(dataset), step):
        try:
            areas.append(prod(image_size(dataset[index].paths[path_index])))
        except DataError:  # the loop will count and name it
            continue
    return max(areas)


# Of finish.cu
_ROW = np.dtype([("pixels", "u8"), ("across", "u8"), ("down", "u8"), ("width", "i4"), ("down_first", "i4")])


class _Store(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_int) for name in ("channels", "height", "width", "flipped")],
        *[(name, ctypes.c_longlong) for name in ("row_stride", "channel_stride", "y_stride", "x_stride")],
        *[(name, ctypes.c_int) for name in ("half", "scaling")],
        ("factor", ctypes.c_float),
        *[(name, ctypes.c_float * 3) for name in ("mean", "deviation", "fill")],
    ]


@dataclass
class _Staging:
    """What one batch under way needs on the device."""

    pixels: driver.Memory
    rows: driver.Memory


class Finisher:
    """The GPU's side: takes filled rows to the network's input.

    Args:
        rows: what the workers did.
        gpu: device index.
        batch_size: rows of a batch at most.
        lanes: batches under way at once.

    Raises:
        RuntimeUnavailableError: the driver refuses; the transform then belongs on the CPU.
    """

    def __init__(self, rows: PixelRows, gpu: int, batch_size: int, lanes: int) -> None:
        driver.make_current(gpu)
        self.rows = rows
        self._gpu, self._target, transform = gpu, rows.target, rows.whole
        shape = tuple(int(size or 1) for size in rows.target.shape[1:])
        channels, height, width = shape if transform.layout == "NCHW" else (shape[2], shape[0], shape[1])
        self._place, self._canvas = PLACEMENTS[transform.resize], (width, height)
        placement = self._place((64, 64), self._canvas)
        name = b"finish_linear" if placement.method == "linear" else b"finish_fixed"
        self._kernel = driver.Kernel(Path(__file__).with_name("finish.ptx").read_bytes(), name.decode())
        self._row_bytes = int(rows.inputs[0].shape[1] or 0)
        self._finished_bytes = prod(shape) * rows.target.dtype.itemsize
        self._store = _store(
            transform, (channels, height, width), rows.target.dtype, cast("tuple[int, ...]", placement.fill)
        )
        self._channels = channels
        self._rows_may_be_first = int(version("pillow").split(".")[0]) >= 13
        # Of the decoder, and of the tables from looking one up to the launch that reads it. While one batch's files are
        # in the decoder no other thread should enqueue: the driver would make it wait with the GIL in its hands.
        self._lock = threading.Lock()
        self._tables: dict[Size, tuple[driver.Memory, int]] = {}
        self._decoder = batch_decoder() if transform.backend == "nvimgcodec" else None
        self._free: SimpleQueue[_Staging] = SimpleQueue()
        self._staging = [
            _Staging(driver.Memory(batch_size * self._row_bytes), driver.Memory(batch_size * _ROW.itemsize))
            for _ in range(lanes)
        ]
        for staging in self._staging:
            self._free.put(staging)

    @contextmanager
    def feeds(self, buffers: Mapping[str, NDArray[Any]], count: int) -> Iterator[dict[str, Any]]:
        """The session's feeds for the first ``count`` rows; they are valid while the block runs."""
        staging = self._free.get()
        try:
            yield {self._target.name: _Finished(self, staging, buffers, count)}
        finally:
            self._free.put(staging)

    def enqueue(
        self, pointer: int, stream: int, staging: _Staging, buffers: Mapping[str, NDArray[Any]], count: int
    ) -> None:
        """Copy the rows' bytes over and fill the network's input at device address ``pointer``."""
        driver.make_current(self._gpu)
        host, sizes = buffers[PIXELS].ctypes.data, buffers[SIZES][:count]
        width, height, in_file = sizes.T
        raw = np.where(in_file == 0, width.astype(np.int64) * height * self._channels, 0)
        at = np.arange(count, dtype=np.uint64) * np.uint64(self._row_bytes)
        rows = np.zeros(count, _ROW)
        rows["pixels"], rows["width"] = np.where(width == 0, 0, staging.pixels.pointer + at), width
        is_file = in_file != 0
        files = np.zeros(np.count_nonzero(is_file), FILES)
        files["address"], files["target"] = (host + at)[is_file], rows["pixels"][is_file]
        files["length"], files["width"] = in_file[is_file], width[is_file]
        distinct = np.unique(sizes[width != 0, :2], axis=0).tolist()
        same_size = [(tuple(size), (sizes[:, :2] == size).all(axis=1)) for size in distinct]
        with self._lock:
            if raw.any():
                driver.upload_rows(staging.pixels.pointer, host, self._row_bytes, int(raw.max()), count, stream)
            if len(files):
                self._decode(files, stream)
            for index in np.flatnonzero(width == 0).tolist():  # finished by the worker
                to, source = pointer + index * self._finished_bytes, host + index * self._row_bytes
                driver.upload(to, source, self._finished_bytes, stream)
            for size, same in same_size:
                rows["across"][same], rows["down"][same] = self._tables_of(size)
                rows["down_first"][same] = self._down_first(size)
            driver.upload(staging.rows.pointer, rows.ctypes.data, rows.nbytes, stream)
            grid = (ceil(self._canvas[0] / _BLOCK[0]), ceil(self._canvas[1] / _BLOCK[1]), count)
            arguments = (ctypes.c_uint64(staging.rows.pointer), self._store, ctypes.c_uint64(pointer))
            self._kernel.launch(grid, _BLOCK, stream, arguments)

    def _decode(self, files: NDArray[np.void], stream: int) -> None:
        """Decode ``files`` (of :data:`FILES`); the CPU decodes what the GPU cannot."""
        assert self._decoder is not None
        decoded = self._decoder.decode(files)
        driver.follow(stream, self._decoder.stream.handle)
        for file in files[~decoded]:
            pixels = decode_bytes(file_bytes(file).tobytes())
            driver.upload(int(file["target"]), pixels.ctypes.data, pixels.nbytes, stream)

    def _down_first(self, source: Size) -> bool:
        """Pillow 13 and later resize rows first where the height shrinks by much more than the width."""
        wide, high = self._place(source, self._canvas).resized
        shrinks = source[1] - high
        return self._rows_may_be_first and shrinks > 0 and shrinks > 2 * (source[0] - wide)

    def _tables_of(self, source: Size) -> tuple[int, int]:
        """Device addresses of the tables of columns and rows for sources of this size."""
        if source not in self._tables:
            if len(self._tables) >= _MOST_TABLES:
                driver.call("cuCtxSynchronize")  # a kernel may be reading them
                for memory, _ in self._tables.values():
                    memory.close()
                self._tables.clear()
            tables = placement_tables(self._place(source, self._canvas), source, self._canvas)
            joined = np.concatenate(tables)
            memory = driver.Memory(joined.nbytes)
            driver.upload(memory.pointer, joined.ctypes.data, joined.nbytes)
            driver.call("cuStreamSynchronize", None)  # it may be under way still, and two streams will read it
            self._tables[source] = memory, memory.pointer + tables[0].nbytes
        memory, down = self._tables[source]
        return memory.pointer, down

    def close(self) -> None:
        """Free the device memory."""
        driver.make_current(self._gpu)
        for memory, _ in self._tables.values():
            memory.close()
        for staging in self._staging:
            staging.pixels.close()
            staging.rows.close()
        if self._decoder is not None:
            self._decoder.close()


class _Finished:
    """A network input that is computed on the device (a :class:`~nvidia_tao_deploy.runtime.session.DeviceInput`)."""

    def __init__(self, finisher: Finisher, staging: Any, buffers: Mapping[str, NDArray[Any]], count: int) -> None:
        self._arguments = (staging, buffers, count)
        self._finisher = finisher
        self.shape: tuple[int, ...] = (count, *(int(size or 1) for size in finisher._target.shape[1:]))
        self.dtype = finisher._target.dtype

    def write(self, pointer: int, stream: int) -> None:
        self._finisher.enqueue(pointer, stream, *self._arguments)


def _store(
    transform: ImageTransform, shape: tuple[int, int, int], dtype: np.dtype[Any], fill: tuple[int, ...]
) -> _Store:
    channels, height, width = shape
    planar = transform.layout == "NCHW"
    constants = transform.normalization.for_channels(channels)
    scaling, factor = constants.scaling
    store = _Store(
        channels, height, width, int(transform.color == "BGR" and channels == 3),
        prod(shape), height * width if planar else 1, width if planar else width * channels, 1 if planar else channels,
        int(dtype == np.float16), scaling, factor,
    )  # fmt: skip
    for values, given in ((store.mean, constants.mean), (store.deviation, constants.std), (store.fill, fill)):
        values[: len(given)] = given
    return store


def placement_tables(placement: Placement, source: Size, canvas: Size) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The tables of columns and of rows that carry ``placement`` out (see finish.cu)."""
    window = placement.window(canvas)
    return tuple(  # type: ignore[return-value]
        _table(
            source[axis], placement.resized[axis], placement.method, window[axis], window[axis + 2],
            placement.corner[axis], canvas[axis],
        )
        for axis in (0, 1)
    )  # fmt: skip


def _table(size: int, resized: int, method: Method, first: int, last: int, corner: int, canvas: int) -> NDArray[Any]:
    """One axis: ``first`` to ``last`` of the ``resized`` positions lie on the canvas, from ``corner`` on."""
    starts, counts, weights = _linear_weights(size, resized) if method == "linear" else _weights(size, resized, method)
    table = np.zeros((canvas, 2 + weights.shape[1]), np.int32)
    rows = slice(corner + first, corner + last)
    table[rows, 0], table[rows, 1], table[rows, 2:] = starts[first:last], counts[first:last], weights[first:last]
    return np.concatenate([np.array([weights.shape[1]], np.int32), table.reshape(-1)])


def _linear_weights(size: int, resized: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """OpenCV's INTER_LINEAR: weights in float32, clamped at the borders. Weights are float32 bits."""
    scale = 1.0 / (resized / size)
    centre = (np.arange(resized) + 0.5) * scale - 0.5
    start = np.floor(centre).astype(np.int32)
    part = (centre - start).astype(np.float32)
    outside = (start < 0) | (start >= size - 1)
    part[outside] = 0
    start = start.clip(0, size - 1)
    weights = np.stack([np.float32(1) - part, part], axis=1).astype(np.float32)
    return start, np.where(outside, 1, 2), np.ascontiguousarray(weights).view(np.int32)


def _weights(size: int, resized: int, method: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Pillow's antialiased filters: double weights, normalized, then rounded to 22 bits after the point."""
    function, support = _FILTERS[method]
    scale = size / resized
    stretch = max(scale, 1.0)
    reach = support * stretch
    centre = (np.arange(resized) + 0.5) * scale
    start = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    stop = np.minimum((centre + reach + 0.5).astype(np.int64), size)
    offsets = np.arange(int((stop - start).max()))
    inside = offsets < (stop - start)[:, None]
    raw = np.where(inside, function((offsets + start[:, None] - centre[:, None] + 0.5) / stretch), 0.0)
    # Pillow sums one weight after the other
    total = np.cumsum(raw, axis=1)[:, -1:]
    fixed = raw / np.where(total == 0, 1, total) * (1 << _PRECISION)
    whole = np.trunc(fixed + np.where(fixed < 0, -0.5, 0.5)).astype(np.int32)
    return start.astype(np.int32), (stop - start).astype(np.int32), whole


def _triangle(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.maximum(1.0 - np.abs(x), 0.0))


def _cubic(x: NDArray[Any], a: float = -0.5) -> NDArray[Any]:
    x = np.abs(x)
    near, far = ((a + 2.0) * x - (a + 3.0)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.asarray(np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0)))


def _lanczos(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.where((x >= -3.0) & (x < 3.0), np.sinc(x) * np.sinc(x / 3), 0.0))


_FILTERS: dict[str, tuple[Any, float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
