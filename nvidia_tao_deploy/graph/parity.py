"""Numeric comparison of two graphs on the same batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.errors import DataError, ModelError
from nvidia_tao_deploy.graph.ort import open_session, run


@dataclass(frozen=True)
class OutputParity:
    """How far one output of the candidate is from the reference.

    Attributes:
        max_abs: largest |candidate - reference| over finite pairs.
        mean_abs: mean of the same.
        cosine: cosine similarity of the two outputs, all batches laid end to end; 1.0 when both are zero.
        agreement: whether a task comes to the same answer. For scores (N, C): share of rows with the same arg-max;
            for integers: share of equal values; for anything else the cosine. ``agreement_of`` says which.
        agreement_of: "arg-max", "values" or "cosine".
        nan_count: values that are NaN or infinite in the candidate but not in the reference.
        count: values compared.
    """

    max_abs: float
    mean_abs: float
    cosine: float
    agreement: float
    agreement_of: str
    nan_count: int
    count: int


@dataclass(frozen=True)
class Parity:
    """The comparison of every output."""

    outputs: dict[str, OutputParity]

    @property
    def worst_cosine(self) -> float:
        return min(output.cosine for output in self.outputs.values())

    @property
    def max_abs(self) -> float:
        return max(output.max_abs for output in self.outputs.values())

    @property
    def nan_count(self) -> int:
        return sum(output.nan_count for output in self.outputs.values())


def compare(reference: ModelProto, candidate: ModelProto, batches: Iterable[Mapping[str, Array]]) -> Parity:
    """Run both models with ONNX Runtime on the CPU and compare every output of the reference, by name.

    Raises:
        ModelError: the candidate lacks an output or gives another shape, or a model cannot run on the CPU.
        DataError: no batches.
    """
    sessions = [open_session(reference), open_session(candidate)]
    names = [output.name for output in reference.graph.output]
    missing = set(names) - {output.name for output in candidate.graph.output}
    if missing:
        raise ModelError(f"the prepared model lacks the output {', '.join(sorted(missing))}")
    sums = {name: _Sums() for name in names}
    empty = True
    for feeds in batches:
        empty = False
        expected = run(sessions[0], names, feeds, "the model")
        actual = run(sessions[1], names, feeds, "the prepared graph")
        for name, *pair in zip(names, expected, actual, strict=True):
            sums[name].add(name, *map(np.asarray, pair))
    if empty:
        raise DataError("no batches to compare the models on", remedy="Give calibration images.")
    return Parity({name: total.result() for name, total in sums.items()})


class _Sums:
    """Running sums of one output; float64, so long runs do not drift."""

    def __init__(self) -> None:
        self.max_abs = self.sum_abs = self.dot = self.norm_a = self.norm_b = 0.0
        self.finite = self.equal = self.rows = self.nan = self.count = 0
        self.kind = "cosine"

    def add(self, name: str, expected: Array, actual: Array) -> None:
        if expected.shape != actual.shape:
            raise ModelError(f"output {name}: shape {actual.shape} instead of {expected.shape}")
        self._compare_answers(expected, actual)
        a, b = expected.astype(np.float64).ravel(), actual.astype(np.float64).ravel()
        good_a = np.isfinite(a)
        both = good_a & np.isfinite(b)
        self.nan += int(np.count_nonzero(good_a & ~both))
        self.count += a.size
        a, b = a[both], b[both]
        if a.size == 0:
            return
        difference = np.abs(a - b)
        self.max_abs = max(self.max_abs, float(difference.max()))
        self.sum_abs += float(difference.sum())
        self.finite += a.size
        self.dot += float(a @ b)
        self.norm_a += float(a @ a)
        self.norm_b += float(b @ b)

    def _compare_answers(self, expected: Array, actual: Array) -> None:
        if expected.dtype.kind in "biu":
            self.kind = "values"
            same = expected == actual
        elif expected.ndim == 2 and expected.shape[1] > 1:
            self.kind = "arg-max"
            same = expected.argmax(axis=1) == actual.argmax(axis=1)
        else:
            return
        self.equal += int(np.count_nonzero(same))
        self.rows += same.size

    def result(self) -> OutputParity:
        norm = np.sqrt(self.norm_a * self.norm_b)
        zero = self.norm_a == 0 and self.norm_b == 0
        cosine = 1.0 if zero else float(np.clip(self.dot / norm, -1.0, 1.0)) if norm > 0 else 0.0
        mean = self.sum_abs / self.finite if self.finite else 0.0
        agreement = cosine if self.kind == "cosine" else self.equal / self.rows if self.rows else 1.0
        return OutputParity(self.max_abs, mean, cosine, agreement, self.kind, self.nan, self.count)
