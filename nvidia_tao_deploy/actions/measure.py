"""What reports go by: the number that decides and its change, figures by class, a part of a dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any, get_args

import numpy as np

from nvidia_tao_deploy.data.sample import Dataset, Sample, called
from nvidia_tao_deploy.errors import DataError, SpecError
from nvidia_tao_deploy.metrics.metric import Metric
from nvidia_tao_deploy.network import Network
from nvidia_tao_deploy.pipeline.tally import Tally

# Keys of metrics that sum a task up, in order of preference; a metric with none of them has its first number first.
MAIN = ("mAP", "mIoU", "Mean IOU", "miou", "PQ", "F-measure", "t2i_mAP", "zero_shot_top_1", "top_1_accuracy",
        "mean of tasks", "abs_rel", "epe")  # fmt: skip
ERRORS = re.compile(r"epe|(abs|sq)_rel|rmse.*|bp\d|test_f[pn]r|false_.*|.*MPE|Mean .*Error.*|..._(Med|Mean)R")
AP_OF_CLASS = re.compile(r"(?:bev |3d )?AP[_ ](.+)|(?:iou_)(\d+)")


@dataclass(frozen=True)
class Headline:
    """The number that decides: its key among a metric's, and whether more of it is better."""

    key: str
    higher_is_better: bool

    def loss(self, reference: float, value: float) -> float:
        """How much of ``reference`` is lost at ``value``, in percent of it: negative for a gain, NaN if undefined.

        Metrics are positive; COCO writes -1 where there is no truth to measure against.
        """
        if not (isfinite(reference) and isfinite(value)) or reference <= 0:
            return nan
        change = reference - value if self.higher_is_better else value - reference
        return 100.0 * change / abs(reference)

    def change(self, loss: float) -> str:
        """How the number itself changes at such a loss, e.g. "mAP -0.40 %", "abs_rel +2.00 %"."""
        percent = -loss if self.higher_is_better else loss
        return f"{self.key} {round(percent, 2) + 0.0:+.2f} %" if isfinite(loss) else f"{self.key} undefined"


def taken(metric: Metric, sample: Sample, prediction: Any, tally: Tally, *, strict: bool) -> bool:
    """Update ``metric``; False where the sample's label cannot be used, which skips it as a corrupt image is skipped.

    Raises:
        DataError: the same, and ``strict``.
    """
    try:
        metric.update(sample, prediction)
    except DataError as error:
        if strict:
            raise
        tally.images -= 1
        tally.skipped.append((str(sample.path), f"{error.where}: {error.what}" if error.where else error.what))
        return False
    return True


def headline(numbers: Mapping[str, Any], section: Any, where: str) -> Headline:
    """The number that ``section.metric`` names, else the metric's main one; ``where``: of that key.

    Raises:
        SpecError: the metric has no such number.
    """
    scalars = scalars_of(numbers)
    if section.metric is not None and section.metric not in scalars:
        raise SpecError(
            f"this network's metric has no number '{section.metric}'",
            where=where,
            remedy=f"It has {', '.join(scalars)}.",
        )
    if not scalars:
        raise SpecError("this network's metric gives no number to compare", where=where)
    key = section.metric or next((name for name in MAIN if name in scalars), next(iter(scalars)))
    higher = section.higher_is_better
    return Headline(key, not ERRORS.fullmatch(key) if higher is None else higher)


def numbers_of(metric: Any) -> Mapping[str, Any]:
    """What ``metric.compute()`` gives, and the mean over the tasks of a network that has several."""
    numbers = metric.compute()
    return {"mean of tasks": metric.mean_of_tasks(), **numbers} if hasattr(metric, "mean_of_tasks") else numbers


def precisions_of(spec: Any) -> tuple[str, ...]:
    """The precisions that this network's ``tensorrt.data_type`` takes."""
    return get_args(type(spec.gen_trt_engine.tensorrt).model_fields["data_type"].annotation)


def lacks(network: Network, spec: Any, names: Sequence[str], key: str) -> SpecError:
    """The refusal of precisions that the network has not, asked for by a key of the spec."""
    what = f"{network.name} has no {' or '.join(names)}"
    return SpecError(what, where=spec.where(key), remedy=f"It has {', '.join(precisions_of(spec))}.")


def scalars_of(numbers: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers among a metric's results, NaN for undefined ones."""
    return {
        str(key): nan if value is None else float(value)
        for key, value in numbers.items()
        if value is None or (isinstance(value, (int, float, np.number)) and not isinstance(value, bool))
    }


def per_class(metric: Any, numbers: Mapping[str, Any], dataset: Dataset) -> tuple[str, dict[str, float]]:
    """(what is measured, its value by class name): AP, IoU, PQ or recall, what the metric has by class; or nothing."""
    if hasattr(metric, "per_class"):  # by category id, (AP, AP50)
        names = getattr(dataset, "categories", {})
        table = {str(names.get(key, key)): float(values[0]) for key, values in metric.per_class().items()}
        return "AP", {name: value for name, value in table.items() if value >= 0}  # -1: there is none of the class
    if hasattr(metric, "recall_per_class"):
        return "recall", metric.recall_per_class()
    for key, value in numbers.items():
        if key in ("IoU", "PQ_by_class"):
            return key.removesuffix("_by_class"), dict(value)
    blocks = {
        key: float(value["iou"]) for key, value in numbers.items() if isinstance(value, Mapping) and "iou" in value
    }
    if blocks:
        return "IoU", blocks
    found = {key: match for key in numbers if (match := AP_OF_CLASS.fullmatch(key))}
    kind = "IoU" if any(match[2] for match in found.values()) else "AP"
    return kind, {match[1] or match[2]: float(numbers[key]) for key, match in reversed(found.items())}


class Subset:
    """At most ``count`` samples of a dataset, evenly spread over it, those with files of ``without`` left out.

    With ``references``, what others are compared with (``meta["reference"]``) is all there besides.

    Attributes:
        held_out: whether ``without`` could be kept to; it is not where nothing else is there.
    """

    def __init__(
        self, dataset: Dataset, count: int, without: Set[Path] = frozenset(), *, references: bool = False
    ) -> None:
        self._dataset = dataset
        self.root: Path | None = dataset.root
        self.called = called(dataset)
        whole = range(len(dataset))
        compared = {i for i in whole if dataset[i].meta.get("reference")} if references else set[int]()
        images = [i for i in whole if i not in compared]
        kept = [i for i in images if without.isdisjoint(dataset[i].paths)] if without else images
        self.held_out = bool(kept)
        kept = kept or images
        chosen = np.unique(np.linspace(0, len(kept) - 1, min(count, len(kept))).round().astype(int))
        self._indices = sorted({kept[i] for i in chosen} | compared)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self._dataset[self._indices[index]]
