"""JPEG decoding on the GPU by nvImageCodec (``pip install nvidia-nvimgcodec-cu12[all]``), a batch at a time.

Where the GPU has engines for it (:mod:`nvidia_tao_deploy.data.nvjpeg`), batches that stay on the device go to them.
docs/pipeline.md has the differences from libjpeg-turbo's pixels.
"""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.data.nvjpeg import JpegEngines, file_bytes
from nvidia_tao_deploy.errors import RuntimeUnavailableError
from nvidia_tao_deploy.runtime import driver

_one_at_a_time = threading.Lock()


class BatchDecoder(Protocol):
    """Decodes whole JPEG files to device memory; for one thread at a time."""

    stream: driver.Stream

    def decode(self, files: NDArray[np.void], /) -> NDArray[np.bool_]:
        """See :meth:`~nvidia_tao_deploy.data.nvjpeg.JpegEngines.decode`."""
        ...

    def close(self) -> None:
        """Free what is held on the device."""
        ...


def batch_decoder() -> BatchDecoder:
    """The fastest one for the GPU whose context is current.

    Raises:
        RuntimeUnavailableError: the package or a GPU is missing.
    """
    _refuse_missing()  # the engines serve the backend that was asked for; loading it would only take time
    try:
        return JpegEngines()
    except RuntimeUnavailableError:
        return ImageCodec()


class ImageCodec:
    """nvImageCodec: what it decodes on the GPU is copied to where it is wanted."""

    def __init__(self) -> None:
        self._decoder, self._parameters, self._source = _decoder()
        self.stream = driver.Stream()
        self._images: list[Any] = []  # their memory is used again: freeing it would wait for all that the GPU does

    def decode(self, files: NDArray[np.void], /) -> NDArray[np.bool_]:
        """See :class:`BatchDecoder`."""
        again = {"images": self._images[: len(files)]} if len(self._images) >= len(files) else {}
        sources = [self._source(file_bytes(file)) for file in files]
        images = list(self._decoder.decode(sources, params=self._parameters, cuda_stream=self.stream.handle, **again))
        found = [image is not None and tuple(image.shape)[2] == 3 for image in images]
        for image, file, good in zip(images, files, found, strict=True):
            if good:
                pixels, nbytes = image.__cuda_array_interface__["data"][0], math.prod(image.shape)
                driver.copy(int(file["target"]), pixels, nbytes, self.stream.handle)
        self._images = [] if None in images else images
        return np.array(found, np.bool_)

    def close(self) -> None:
        """See :class:`BatchDecoder`."""
        self._images = []
        self.stream.close()


def decode_rgb(file: bytes) -> NDArray[np.uint8] | None:
    """(H, W, 3) RGB of a JPEG file on the host, orientation not applied; None for what the GPU cannot decode.

    Raises:
        RuntimeUnavailableError: the package or a GPU is missing.
    """
    decoder, parameters, source = _decoder()
    with _one_at_a_time:
        (image,) = decoder.decode([source(file)], params=parameters, cuda_stream=0)
    return None if image is None else np.asarray(image.cpu(), np.uint8)


def _refuse_missing() -> None:
    found = None
    with suppress(ModuleNotFoundError):  # the namespace itself
        found = find_spec("nvidia.nvimgcodec")
    if found is None:
        raise RuntimeUnavailableError(
            "the image backend nvimgcodec is not installed",
            where="runtime.image_backend",
            remedy="pip install nvidia-nvimgcodec-cu12[all] (and a GPU to run it), or use image_backend: opencv.",
        )
    from nvidia_tao_deploy.runtime.cuda import gpu_available

    if not gpu_available():
        raise RuntimeUnavailableError(
            "the image backend nvimgcodec needs a GPU, and there is none",
            where="runtime.image_backend",
            remedy="Use image_backend: opencv.",
        )


@lru_cache(maxsize=1)
def _decoder() -> tuple[Any, Any, Any]:
    _refuse_missing()
    from nvidia import nvimgcodec

    parameters = nvimgcodec.DecodeParams(apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB)
    # libjpeg interpolates chroma, so nvJPEG has to as well
    return nvimgcodec.Decoder(options=":fancy_upsampling=1"), parameters, nvimgcodec.CodeStream
