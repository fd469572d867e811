"""The metric of mask2former: what the model gives decides which one it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.errors import DataError
from nvidia_tao_deploy.families.universal_segmentation import InstanceMasks
from nvidia_tao_deploy.metrics.coco_masks import CocoMaskMetric
from nvidia_tao_deploy.metrics.metric import Metric
from nvidia_tao_deploy.metrics.panoptic import PanopticMetric
from nvidia_tao_deploy.metrics.segmentation import IouMetric
from nvidia_tao_deploy.predictions.types import Detections, LabelMap, PanopticMap


class ByPrediction:
    """mIoU of label maps, PQ of segments, mask AP of instances.

    Args:
        names: class names by index.
        isthing: by class index, for segments.
        instances: the annotations, for instances.
    """

    def __init__(self, names: Sequence[str], isthing: Sequence[bool], instances: InstanceMasks | None = None) -> None:
        self._names, self._isthing, self._instances = names, isthing, instances
        self._metric: Metric | None = None

    def update(self, sample: Sample, prediction: LabelMap | PanopticMap | Detections) -> None:
        """Take one image."""
        if self._metric is None:
            self._metric = self._made_for(prediction)
        self._metric.update(sample, prediction)

    def compute(self) -> dict[str, Any]:
        """The numbers of the metric."""
        return self._chosen().compute()

    def report(self) -> str:
        """The table of the metric."""
        return self._chosen().report()

    def _chosen(self) -> Metric:
        if self._metric is None:
            raise DataError("no image was evaluated")
        return self._metric

    def _made_for(self, prediction: LabelMap | PanopticMap | Detections) -> Metric:
        if isinstance(prediction, LabelMap):
            return IouMetric(self._names)
        if isinstance(prediction, PanopticMap):
            return PanopticMetric(self._names, self._isthing)
        assert self._instances is not None
        category_of = {index: category for category, index in self._instances.class_of.items()}
        return CocoMaskMetric(self._instances.coco, [category_of.get(k, -1) for k in range(len(self._names))])
