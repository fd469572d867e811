"""Activation ranges from data, streamed: memory does not grow with the number of images.

Bound: the model, the activations of at most SLICE samples (a model with a dynamic batch is run SLICE samples at a
time however large the batches are, one with a fixed batch a batch at a time), plus per tensor a histogram of 2048
int64 counts (16 KiB) and three numbers. 5,000 images need what 50 need.

What is kept does not depend on the order of the batches, so several processes may each look at some of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from nvidia_tao_deploy.arrays import Array, Ints
from nvidia_tao_deploy.calibration.histogram import entropy_amax, mse_amax, percentile_amax
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.graph.load import model_inputs
from nvidia_tao_deploy.graph.ort import open_session, run
from nvidia_tao_deploy.graph.tensors import GraphIndex, copy_model

METHODS = ("minmax", "entropy", "percentile", "mse")
BINS = 2048  # a power of two
DEFAULT_PERCENTILE = 99.99
# Values binned at a time: small enough that the temporaries stay in the processor's cache.
CHUNK = 1 << 16
SMALLEST_EXPONENT = -100
# Samples run at once. Two keep ONNX Runtime as busy as eight do, in a quarter of the memory.
SLICE = 2

Batches = Iterable[Mapping[str, Array]]


def collect(
    model: ModelProto, batches: Batches, tensors: Sequence[str], method: str = "entropy", **options: Any
) -> dict[str, float]:
    """The clipping magnitude amax of each tensor: :func:`observe` (with its ``options``), then :func:`amaxes`."""
    return amaxes([observe(model, batches, tensors, method, **options)], method)


def observe(
    model: ModelProto,
    batches: Batches,
    tensors: Sequence[str],
    method: str,
    *,
    threads: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Histogram]:
    """What :func:`amaxes` needs of these batches, in one pass; for "minmax" the counts stay zero.

    Args:
        model: the FP32 model; it is run with ONNX Runtime on the CPU.
        batches: feeds, input name -> array, already transformed as for evaluation. There may be none, and they may
            differ in size.
        tensors: activations to calibrate, usually ``graph.quantize.quantizable_tensors(model)``.
        threads: ONNX Runtime threads, 0 for one per core.
        progress: called after every run of the model with the number of samples in it.

    Raises:
        ModelError: a tensor is not in the model, or NaN/inf.
    """
    names = _known(model, tensors)
    observed = {name: Histogram() for name in names}
    if method == "minmax":
        for name, (low, high) in collect_minmax(model, batches, names, threads=threads, progress=progress).items():
            if low <= high:
                _add(observed[name].cover, name, low, high)
        return observed
    fed = {value.name for value in model.graph.input}
    fetched = [name for name in names if name not in fed]
    session = open_session(_with_outputs(model, fetched), threads=threads)
    for feeds in _slices(model, batches, progress):
        arrays = run(session, fetched, feeds, "the model") if fetched else []
        values = dict(zip(fetched, arrays, strict=True))
        del arrays
        for name in names:
            _add(observed[name].add, name, values.pop(name) if name in values else feeds[name])
    return observed


def amaxes(
    observed: Sequence[Mapping[str, Histogram]], method: str, percentile: float = DEFAULT_PERCENTILE
) -> dict[str, float]:
    """The clipping magnitudes from all that was observed, the same to the last bit however it was divided.

    Returns:
        tensor -> amax >= 0; 0.0 for a tensor that was zero throughout.

    Raises:
        DataError: no batches.
    """
    merged = {name: Histogram() for name in observed[0]}
    for part in observed:
        for name, histogram in part.items():
            merged[name].merge(histogram)
    if merged and all(histogram.largest < 0 for histogram in merged.values()):
        raise DataError("no calibration images", remedy="Set calibration.cal_image_dir to a folder with images.")
    return {name: histogram.amax(method, percentile) for name, histogram in merged.items()}


def collect_minmax(
    model: ModelProto,
    batches: Batches,
    tensors: Sequence[str],
    *,
    threads: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each tensor; also what ``cast_float(ranges=...)`` wants.

    Infinities are reported as they are (attention masks hold them); a tensor with NaN gets (-inf, inf), and one that
    no batch was run for (inf, -inf).

    Raises:
        ModelError: a tensor is not in the model.
    """
    names = _known(model, tensors)
    session = open_session(_with_reductions(model, names), threads=threads)
    outputs = [f"{name}::{kind}" for name in names for kind in ("min", "max")]
    low = np.full(len(names), np.inf)
    high = np.full(len(names), -np.inf)
    for feeds in _slices(model, batches, progress):
        values = np.asarray([np.asarray(v).item() for v in run(session, outputs, feeds, "the model")]).reshape(-1, 2)
        nan = np.isnan(values).any(axis=1)
        low = np.where(nan, -np.inf, np.minimum(low, values[:, 0]))
        high = np.where(nan, np.inf, np.maximum(high, values[:, 1]))
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


class Histogram:
    """Counts of |x| in equal bins over [0, limit); the limit doubles when larger values arrive, merging bins in pairs.

    Limits and bin widths are powers of two, so scaling to bins is exact and doubling moves no value to a wrong bin:
    the counts are those of one histogram over all values, in whatever order and parts they come. The limit is more
    than the largest magnitude seen and at most twice it.

    Attributes:
        counts: (BINS,) int64.
        limit: upper end of the last bin; 0.0 while only zeros were seen.
        largest: magnitude seen; -1.0 before any value.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, dtype=np.int64)
        self.limit = 0.0
        self.largest = -1.0

    def add(self, values: Array) -> None:
        """Count the magnitudes of a float array of any shape.

        Raises:
            ValueError: NaN or infinity among the values.
        """
        flat = np.ascontiguousarray(values, dtype=np.float32).ravel()
        if flat.size == 0:
            return
        low, high = float(flat.min()), float(flat.max())
        self.cover(low, high)
        if self.limit == 0.0:
            self.counts[0] += flat.size
            return
        factor = np.float32(BINS / self.limit)
        scratch = np.empty(min(CHUNK, flat.size), dtype=np.float32)
        places = np.empty(scratch.size, dtype=np.int32)
        for start in range(0, flat.size, CHUNK):
            chunk = flat[start : start + CHUNK]
            scaled, place = scratch[: chunk.size], places[: chunk.size]
            np.multiply(chunk, factor, out=scaled)
            if low < 0:
                np.abs(scaled, out=scaled)
            np.copyto(place, scaled, casting="unsafe")
            self.counts += np.bincount(place, minlength=BINS)

    def cover(self, low: float, high: float) -> None:
        """Make room for values from ``low`` to ``high``.

        Raises:
            ValueError: NaN or infinity.
        """
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("NaN or infinity")
        self.largest = max(self.largest, abs(low), abs(high))
        if self.largest > 0:
            # frexp: 2^(e-1) <= largest < 2^e. The floor keeps bins / limit within float32.
            self._widen(2.0 ** max(math.frexp(self.largest)[1], SMALLEST_EXPONENT))

    def merge(self, other: Histogram) -> None:
        """Be the histogram of the values of both."""
        self.largest = max(self.largest, other.largest)
        self._widen(other.limit)
        self.counts += _halved(other.counts, other.limit, self.limit)

    def _widen(self, limit: float) -> None:
        if limit > self.limit:
            self.counts = _halved(self.counts, self.limit, limit)
            self.limit = limit

    def amax(self, method: str, percentile: float = DEFAULT_PERCENTILE) -> float:
        """Clipping magnitude by "minmax", "entropy", "percentile" or "mse"; never above the largest value seen."""
        if self.largest <= 0.0 or method == "minmax":
            return max(self.largest, 0.0)
        if method == "percentile":
            return min(percentile_amax(self.counts, self.limit, percentile), self.largest)
        search = entropy_amax if method == "entropy" else mse_amax
        return min(search(self.counts, self.limit), self.largest)


def _halved(counts: Ints, limit: float, wanted: float) -> Ints:
    """Counts over [0, limit) as counts over [0, wanted), a power of two times ``limit``."""
    while 0 < limit < wanted:
        counts = np.concatenate([counts.reshape(-1, 2).sum(axis=1), np.zeros(len(counts) // 2, dtype=np.int64)])
        limit *= 2.0
    return counts


def _add(method: Callable[..., None], name: str, *values: Any) -> None:
    try:
        method(*values)
    except ValueError as error:
        raise ModelError(
            f"tensor {name!r} is NaN or infinite on a calibration image",
            remedy="Check the model and the preprocessing constants of the spec; such a range cannot be calibrated.",
        ) from error


def _slices(
    model: ModelProto, batches: Batches, progress: Callable[[int], None] | None
) -> Iterator[Mapping[str, Array]]:
    dynamic = all(info.shape and info.shape[0] is None for info in model_inputs(model))
    for feeds in batches:
        sizes = {len(array) if np.ndim(array) else 1 for array in feeds.values()}
        size = max(sizes, default=1)
        step = SLICE if dynamic and len(sizes) == 1 else size
        for start in range(0, size, step):
            yield feeds if step == size else {name: array[start : start + step] for name, array in feeds.items()}
            if progress is not None:
                progress(min(step, size - start))


def _known(model: ModelProto, tensors: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(tensors))
    present = {value.name for value in model.graph.input}.union(*(node.output for node in model.graph.node))
    unknown = [name for name in names if name not in present]
    if unknown:
        raise ModelError(f"{len(unknown)} tensors to calibrate are not in the model, e.g. {unknown[0]!r}")
    return names


def _with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    result = copy_model(model)
    already = {value.name for value in result.graph.output}
    for name in names:
        if name not in already:
            result.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return result


def _with_reductions(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """The model whose only outputs are the minimum and maximum of each tensor."""
    result = copy_model(model)
    del result.graph.output[:]
    for name in names:
        for kind, op in (("min", "ReduceMin"), ("max", "ReduceMax")):
            output = f"{name}::{kind}"
            result.graph.node.append(helper.make_node(op, [name], [output], name=output, keepdims=0))
            result.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    return result


def float_activations(model: ModelProto) -> list[str]:
    """Every computed or fed FP32 tensor of the top graph: for range checks and complete calibration caches."""
    index = GraphIndex(model)
    names = [*index.inputs, *(name for node in model.graph.node for name in node.output if name)]
    return [name for name in names if index.is_float(name)]
