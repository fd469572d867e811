"""TensorRT's own int8 calibrators (TensorRT <= 10), through Polygraphy's Calibrator."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.engine.backend import version_tuple
from nvidia_tao_deploy.engine.options import BuildPlan
from nvidia_tao_deploy.errors import BuildError
from nvidia_tao_deploy.files import write_bytes
from nvidia_tao_deploy.runtime import cuda

BatchSource = Callable[[], "Mapping[str, NDArray[Any]] | None"]


def make_calibrator(trt: Any, plan: BuildPlan, batches: BatchSource | None) -> tuple[Any, str | None]:
    """The calibrator of the plan and what there is to say about its cache.

    ``batches`` returns the next batch (input name -> array of the opt shape) or None at the end; it is not asked
    when the cache serves.

    Raises:
        BuildError: the cache is of another algorithm and there are no batches.
    """
    from polygraphy.backend.trt import Calibrator

    calibrator_class = plan.calibrator or ""
    # In a cache IInt8EntropyCalibrator2 is called EntropyCalibration2.
    algorithm = calibrator_class.removeprefix("IInt8").replace("Calibrator", "Calibration")
    contents, note = None, None
    if plan.calibration_cache and (path := Path(plan.calibration_cache)).is_file():
        version, found = str(trt.__version__), path.read_bytes()
        contents, note = usable_cache(found, version, algorithm, can_calibrate=batches is not None)
    loader = _device_batches(batches) if batches is not None else ()
    calibrator = Calibrator(data_loader=loader, BaseClass=getattr(trt, calibrator_class))
    # Kept in memory rather than given as a path: Polygraphy would write the file in place.
    calibrator.cache_contents = contents
    return calibrator, note


def save_cache(calibrator: Any, plan: BuildPlan) -> None:
    """Write the cache the calibrator has now to the path of the plan."""
    if plan.calibration_cache and calibrator.cache_contents:
        path = Path(plan.calibration_cache)
        if not path.is_file() or path.read_bytes() != calibrator.cache_contents:
            write_bytes(path, calibrator.cache_contents)


def cache_header(version: str, algorithm: str) -> str:
    """The first line of a cache: ``TRT-8503-EntropyCalibration2`` for 8.5.3, ``TRT-101303-...`` for 10.13.3."""
    from nvidia_tao_deploy.calibration.cache import encode_version

    major, minor, patch = (*version_tuple(version), 0, 0)[:3]
    return f"TRT-{encode_version((major, minor, patch))}-{algorithm}"


def usable_cache(
    contents: bytes, version: str, algorithm: str, *, can_calibrate: bool
) -> tuple[bytes | None, str | None]:
    """What to hand TensorRT for an existing cache, and what to say about it.

    A cache of another TensorRT version is calibrated again when there are images, else its header is rewritten.

    Raises:
        BuildError: it is no cache, or of another algorithm, and there are no images to calibrate with.
    """
    header, _, body = contents.partition(b"\n")
    wanted = cache_header(version, algorithm)
    found = header.decode(errors="replace").strip()
    if found == wanted:
        return contents, None
    if can_calibrate:
        return None, f"the calibration cache is {found[:60]!r}, this is {wanted}: calibrating again"
    if not re.fullmatch(rf"TRT-\d+-{algorithm}", found):
        what = f"the calibration cache starts with {found[:60]!r}, {wanted} is needed"
        raise BuildError(what, remedy="Give calibration images (cal_image_dir), or a cache of the same algorithm.")
    return wanted.encode() + b"\n" + body, f"the calibration cache is of {found}: used as {wanted}"


def _device_batches(source: BatchSource) -> Iterator[dict[str, int]]:
    """Batches as device pointers, one at a time: Polygraphy's own copy needs a libcudart that need not exist."""
    buffers: dict[str, cuda.DeviceMemory] = {}
    stream = cuda.Stream()
    try:
        while (batch := source()) is not None:
            for name, array in batch.items():
                if name not in buffers:
                    buffers[name] = cuda.DeviceMemory(array.nbytes)
                array = np.ascontiguousarray(array)
                cuda.copy_to_device(buffers[name].pointer, array.ctypes.data, array.nbytes, stream)
                stream.synchronize()
            yield {name: buffer.pointer for name, buffer in buffers.items()}
    finally:
        for buffer in buffers.values():
            buffer.close()
        stream.close()
