"""Average precision over a range of IoU thresholds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.metrics.kitti import KittiMetric
from nvidia_tao_deploy.predictions.types import Detections


class MeanOfThresholds:
    """The mean of metrics that differ in their IoU threshold only; of one, that one."""

    def __init__(self, metrics: Sequence[KittiMetric]) -> None:
        self._metrics = list(metrics)

    def update(self, sample: Sample, prediction: Detections) -> None:
        """Match one image at every threshold."""
        for metric in self._metrics:
            metric.update(sample, prediction)

    def compute(self) -> dict[str, float]:
        """``AP_<class>`` in id order, then ``mAP``."""
        results = [metric.compute() for metric in self._metrics]
        return {key: float(np.mean([result[key] for result in results])) for key in results[0]}

    def report(self) -> str:
        """The table of the first threshold and, of several, the means."""
        table = self._metrics[0].report()
        if len(self._metrics) == 1:
            return table
        means = [f"{key.removeprefix('AP_'):<14}{value:.5f}" for key, value in self.compute().items()]
        return "\n".join(
            [table, f"Means over {len(self._metrics)} IoU thresholds, the table above is of the first:", *means]
        )
