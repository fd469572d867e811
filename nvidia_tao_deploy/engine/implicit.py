"""TensorRT's own int8 calibrators (TensorRT <= 10), through Polygraphy's Calibrator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.engine.options import BuildPlan

BatchSource = Callable[[], "Mapping[str, NDArray[Any]] | None"]


def make_calibrator(trt: Any, plan: BuildPlan, batches: BatchSource | None) -> Any:
    """The calibrator of the plan. An existing cache is used instead of batches; a new one is written.

    ``batches`` returns the next batch (input name -> array of the opt shape) or None at the end.
    """
    from polygraphy.backend.trt import Calibrator

    loader = _device_batches(batches) if batches is not None else ()
    calibrator = Calibrator(
        data_loader=loader,
        cache=plan.calibration_cache,
        BaseClass=getattr(trt, plan.calibrator or ""),
    )
    # What Polygraphy's builder does before a build: it checks the batches against these.
    metadata = _input_metadata(plan)
    if metadata is not None:
        calibrator.set_input_metadata(metadata)
    return calibrator


def _input_metadata(plan: BuildPlan) -> Any:
    from polygraphy.common import TensorMetadata

    if not plan.calibration_inputs:
        return None
    metadata = TensorMetadata()
    for name, (shape, dtype) in plan.calibration_inputs.items():
        metadata.add(name, np.dtype(dtype), tuple(shape))
    return metadata


def _device_batches(source: BatchSource) -> Iterator[dict[str, Any]]:
    """Batches in device memory, one at a time: Polygraphy's own copy needs a libcudart that need not exist."""
    from polygraphy.cuda import DeviceView

    from nvidia_tao_deploy.runtime import cuda

    buffers: dict[str, cuda.DeviceMemory] = {}
    stream = cuda.Stream()
    try:
        while (batch := source()) is not None:
            views = {}
            for name, array in batch.items():
                array = np.ascontiguousarray(array)
                if name not in buffers or buffers[name].nbytes < array.nbytes:
                    buffers[name] = cuda.DeviceMemory(array.nbytes)
                cuda.copy_to_device(buffers[name].pointer, array.ctypes.data, array.nbytes, stream)
                stream.synchronize()
                views[name] = DeviceView(buffers[name].pointer, array.shape, array.dtype)
            yield views
    finally:
        for buffer in buffers.values():
            buffer.close()
        stream.close()
