"""JPEG decoding on the GPU by nvImageCodec (``pip install nvidia-nvimgcodec-cu12``), several files at a time.

Written against the documented Python API (https://docs.nvidia.com/cuda/nvimagecodec); NOT VERIFIED on a GPU yet.
nvJPEG's inverse transform and chroma upsampling differ from libjpeg-turbo's by a few grey levels, so metrics may change
in the last digits. Pixels come back to the host, where the network's own transform takes them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import RuntimeUnavailableError

_local = threading.local()


def decode_rgb(files: Sequence[bytes]) -> list[NDArray[np.uint8] | None]:
    """(H, W, 3) RGB of each file, orientation not applied; None for what the GPU cannot decode.

    Raises:
        RuntimeUnavailableError: the package or a GPU is missing.
    """
    decoder, parameters = _decoder()
    images = decoder.decode(list(files), params=parameters)
    return [None if image is None else np.asarray(image.cpu(), dtype=np.uint8) for image in images]


def _decoder() -> tuple[Any, Any]:
    """One decoder per thread: decoders keep their own streams and scratch memory."""
    if not hasattr(_local, "decoder"):
        try:
            from nvidia import nvimgcodec
        except ImportError as error:
            raise RuntimeUnavailableError(
                "the image backend nvimgcodec is not installed",
                where="runtime.image_backend",
                remedy="pip install nvidia-nvimgcodec-cu12 (and a GPU to run it), or use image_backend: opencv.",
            ) from error
        from nvidia_tao_deploy.runtime.cuda import gpu_available

        if not gpu_available():
            raise RuntimeUnavailableError(
                "the image backend nvimgcodec needs a GPU, and there is none",
                where="runtime.image_backend",
                remedy="Use image_backend: opencv.",
            )
        parameters = nvimgcodec.DecodeParams(apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.RGB)
        _local.decoder = nvimgcodec.Decoder(), parameters
    found: tuple[Any, Any] = _local.decoder
    return found
