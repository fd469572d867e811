"""nvJPEG by ctypes: the JPEG engines that A100, H100, H200 and newer GPUs have beside their processors.

nvImageCodec uses the engines too, but decodes in streams of its own, whose kernels wait behind every kernel of a model
that is running: 64 images take 13 ms beside ResNet-50 in ONNX Runtime instead of 3. Called like this they take 3.5
(docs/benchmarks.md). Names and numbers are those of nvjpeg.h.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import RuntimeUnavailableError
from nvidia_tao_deploy.runtime import driver

_HARDWARE, _RGB_INTERLEAVED = 3, 5  # NVJPEG_BACKEND_HARDWARE, NVJPEG_OUTPUT_RGBI
_NO_PIPELINE = 1  # NVJPEG_FLAGS_HW_DECODE_NO_PIPELINE: work is enqueued on the caller's stream, not on others
_INTERPOLATED = 1 << 5  # NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION: of chroma, as libjpeg does
_IMAGE = np.dtype([("channel", "u8", 4), ("pitch", "u8", 4)])  # nvjpegImage_t
# Whole JPEG files: their bytes' address and number, pixels in a row, the device address their (H, W, 3) RGB bytes go to
FILES = np.dtype([("address", "u8"), ("length", "u8"), ("width", "u8"), ("target", "u8")])


class JpegEngines:
    """The engines of the GPU whose context is current; for one thread at a time.

    Attributes:
        stream: where decoding is enqueued, before everything else that waits for the GPU.

    Raises:
        RuntimeUnavailableError: nvJPEG is not installed, or the GPU has no such engines.
    """

    def __init__(self) -> None:
        self._library = _library()
        self._handle, self._state = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("nvjpegCreateEx", _HARDWARE, None, None, _NO_PIPELINE | _INTERPOLATED, ctypes.byref(self._handle))
        self._call("nvjpegJpegStateCreate", self._handle, ctypes.byref(self._state))
        self.stream = driver.Stream(first=True)
        self._prepared = 0  # files
        self._picky = False

    def decode(self, files: NDArray[np.void], /) -> NDArray[np.bool_]:
        """Enqueue the decoding of ``files`` (of :data:`FILES`); the pixels are there in :attr:`stream`'s order.

        Returns:
            Whether each is decoded; the engines take baseline files of the usual samplings only.
        """
        taken = np.array([self._supports(file) for file in files]) if self._picky else np.ones(len(files), np.bool_)
        if not taken.any() or self._enqueue(files[taken]):
            return taken
        if self._picky:  # one is broken, and nvJPEG does not say which
            return np.zeros(len(files), np.bool_)
        self._picky = True  # from now on the headers are read first, which takes as long as decoding
        return self.decode(files)

    def _enqueue(self, files: NDArray[np.void]) -> bool:
        """Decode ``files``; False where nvJPEG refuses."""
        images = np.zeros(len(files), _IMAGE)
        images["channel"][:, 0], images["pitch"][:, 0] = files["target"], 3 * files["width"]
        columns = [np.ascontiguousarray(files["address"]), np.ascontiguousarray(files["length"]), images]
        try:
            if self._prepared != len(files):
                form = len(files), 1, _RGB_INTERLEAVED
                self._call("nvjpegDecodeBatchedInitialize", self._handle, self._state, *form)
                self._prepared = len(files)
            arrays = [ctypes.c_void_p(column.ctypes.data) for column in columns]
            stream = ctypes.c_void_p(self.stream.handle)
            self._call("nvjpegDecodeBatched", self._handle, self._state, *arrays, stream)
        except RuntimeUnavailableError:
            self._prepared = 0
            return False
        return True

    def _supports(self, file: np.void) -> bool:
        header, refused = ctypes.c_void_p(), ctypes.c_int(1)
        self._call("nvjpegJpegStreamCreate", self._handle, ctypes.byref(header))
        try:
            where, length = ctypes.c_void_p(int(file["address"])), ctypes.c_size_t(int(file["length"]))
            self._call("nvjpegJpegStreamParse", self._handle, where, length, 0, 0, header)
            self._call("nvjpegDecodeBatchedSupported", self._handle, header, ctypes.byref(refused))
        except RuntimeUnavailableError:  # not a JPEG file that nvJPEG reads
            return False
        finally:
            self._library.nvjpegJpegStreamDestroy(header)
        return refused.value == 0

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise RuntimeUnavailableError(f"{name} failed with nvJPEG's status {code}")

    def close(self) -> None:
        """Free what nvJPEG holds; calling it twice is allowed."""
        if self._handle:
            self._library.nvjpegJpegStateDestroy(self._state)
            self._library.nvjpegDestroy(self._handle)
            self._handle = ctypes.c_void_p()
            self.stream.close()


def file_bytes(file: np.void) -> NDArray[np.uint8]:
    """The bytes of one of :data:`FILES`, where they are."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * int(file["length"])).from_address(int(file["address"])))


@lru_cache(maxsize=1)
def _library() -> Any:
    """libnvjpeg of the pip packages (nvidia-nvjpeg, nvidia-nvjpeg-cu12), or the system's."""
    packages = find_spec("nvidia")
    roots = list(packages.submodule_search_locations or []) if packages else []
    files = [str(file) for root in roots for file in sorted(Path(root).glob("*/lib/libnvjpeg.so.*"), reverse=True)]
    for name in (*files, "libnvjpeg.so.13", "libnvjpeg.so.12"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeUnavailableError(
        "nvJPEG is not installed", remedy="pip install nvidia-nvjpeg-cu12 (or nvidia-nvjpeg)."
    )
