"""JPEG decoding on the GPU by nvImageCodec (``pip install nvidia-nvimgcodec-cu12[all]``), a batch at a time.

nvJPEG's inverse transform differs from libjpeg-turbo's by a few grey levels, so metrics may change in the last digits
(docs/pipeline.md has the figures).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import RuntimeUnavailableError

_one_at_a_time = threading.Lock()


def decode_rgb(files: Sequence[bytes]) -> list[NDArray[np.uint8] | None]:
    """(H, W, 3) RGB of each file on the host, orientation not applied; None for what the GPU cannot decode.

    Raises:
        RuntimeUnavailableError: the package or a GPU is missing.
    """
    images = decode_on_device(encoded(files))
    return [None if image is None else np.asarray(image.cpu(), np.uint8) for image in images]


def encoded(files: Sequence[Any]) -> list[Any]:
    """The files' bytes (bytes or uint8 arrays), their headers read: what :func:`decode_on_device` takes.

    Raises:
        RuntimeUnavailableError: the package or a GPU is missing.
    """
    source = _decoder()[2]
    return [source(file) for file in files]


def decode_on_device(sources: Sequence[Any], stream: int = 0, images: Sequence[Any] = ()) -> list[Any]:
    """Pixels as of :func:`decode_rgb`, left on the device in ``stream``'s order.

    Objects with ``__cuda_array_interface__``; None for what the GPU cannot decode.

    Args:
        sources: of :func:`encoded`.
        stream: a CUDA stream's handle; the same one for ``images`` at every call.
        images: what an earlier call gave and nobody needs any more: their memory is used again. Freeing it instead
            would wait for everything that runs on the GPU.

    Raises:
        RuntimeUnavailableError: the package or a GPU is missing.
    """
    decoder, parameters, _ = _decoder()
    again = {"images": list(images[: len(sources)])} if len(images) >= len(sources) else {}
    with _one_at_a_time:
        return list(decoder.decode(list(sources), params=parameters, cuda_stream=stream, **again))


@lru_cache(maxsize=1)
def _decoder() -> tuple[Any, Any, Any]:
    try:
        from nvidia import nvimgcodec
    except ImportError as error:
        raise RuntimeUnavailableError(
            "the image backend nvimgcodec is not installed",
            where="runtime.image_backend",
            remedy="pip install nvidia-nvimgcodec-cu12[all] (and a GPU to run it), or use image_backend: opencv.",
        ) from error
    from nvidia_tao_deploy.runtime.cuda import gpu_available

    if not gpu_available():
        raise RuntimeUnavailableError(
            "the image backend nvimgcodec needs a GPU, and there is none",
            where="runtime.image_backend",
            remedy="Use image_backend: opencv.",
        )
    parameters = nvimgcodec.DecodeParams(apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB)
    # libjpeg interpolates chroma, so nvJPEG has to as well
    return nvimgcodec.Decoder(options=":fancy_upsampling=1"), parameters, nvimgcodec.CodeStream
