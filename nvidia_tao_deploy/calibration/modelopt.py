"""NVIDIA's Model Optimizer as the second quantizer: it chooses the nodes, calibrates and inserts the Q/DQ pairs."""

from __future__ import annotations

import contextlib
import importlib
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.calibration.ranges import Batches
from nvidia_tao_deploy.errors import BuildError, RuntimeUnavailableError, SpecError

INSTALL = "pip install 'nvidia-modelopt[onnx]'"
# Our methods in its words; the others it does not have.
METHODS = {"entropy": "entropy", "minmax": "max"}


def quantize_with_modelopt(
    model: ModelProto,
    batches: Callable[[], Batches],
    *,
    precision: str = "int8",
    method: str = "entropy",
    exclude: Sequence[str] = (),
) -> tuple[ModelProto, str]:
    """A Q/DQ graph of ``model``, and the version of Model Optimizer that made it.

    Args:
        model: a simplified FP32 model; it is calibrated with ONNX Runtime on the CPU.
        batches: gives the feeds (input name -> array) anew at every call.
        exclude: names of nodes that stay float.

    Raises:
        RuntimeUnavailableError: nvidia-modelopt is not installed, or cannot be imported.
        SpecError: a method it does not have. BuildError: it failed.
    """
    if method not in METHODS:
        raise SpecError(
            f"Model Optimizer has no calibration method {method!r}",
            where="gen_trt_engine.tensorrt.calibration.method",
            remedy=f"Use {' or '.join(METHODS)}, or quantizer: builtin.",
        )
    package, quantization = _import()
    with tempfile.TemporaryDirectory(prefix="tao_deploy_") as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "quantized.onnx"
        onnx.save(model, str(source))
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # ONNX Runtime's calibrator prints; --json owns stdout
                quantization.quantize(
                    str(source),
                    quantize_mode=precision,
                    calibration_method=METHODS[method],
                    calibration_data_reader=_Reader(batches),
                    calibration_eps=["cpu"],
                    nodes_to_exclude=list(exclude),
                    high_precision_dtype="fp32",  # the rest is cast by our own pass
                    output_path=str(target),
                    log_level="WARNING",
                )
            quantized = onnx.load(str(target))
        except Exception as error:  # a third-party pass over any model: whatever it raises
            text = " ".join(str(error).split())[:300] or type(error).__name__
            problem = f"Model Optimizer could not quantize the model: {text}"
            raise BuildError(problem, remedy="Use calibration.quantizer: builtin.") from error
    return quantized, str(getattr(package, "__version__", "?"))


class _Reader:
    """ONNX Runtime's CalibrationDataReader by its methods."""

    def __init__(self, batches: Callable[[], Batches]) -> None:
        self._batches = batches
        self._left: Iterator[Mapping[str, Array]] = iter(batches())

    def get_next(self) -> dict[str, Array] | None:
        feeds = next(self._left, None)
        return None if feeds is None else dict(feeds)

    def get_first(self) -> dict[str, Array] | None:
        self.rewind()
        feeds = self.get_next()
        self.rewind()
        return feeds

    def rewind(self) -> None:
        self._left = iter(self._batches())


def _import() -> tuple[Any, Any]:
    try:
        return importlib.import_module("modelopt"), importlib.import_module("modelopt.onnx.quantization")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("modelopt")
        raise RuntimeUnavailableError(
            "calibration.quantizer is modelopt, and Model Optimizer "
            + ("is not installed" if missing else f"cannot be imported: {error}"),
            remedy=f"{INSTALL}, or use quantizer: builtin.",
        ) from error
