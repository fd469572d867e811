"""DINO: two-stage query detector; (B, NQ, C) logits and (B, NQ, 4) boxes from normalized images."""

from __future__ import annotations

from typing import Any

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.dino.spec import Spec
from nvidia_tao_deploy.data.coco import CocoDetection
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.families import coco_detection as family
from nvidia_tao_deploy.predictions.detection_writer import DetectionWriter


def metric(spec: Spec, data: Dataset) -> family.MatchedCocoMetric:
    """Channels are category ids, or ranks of the ascending ids where training made the labels contiguous."""
    assert isinstance(data, CocoDetection)
    return family.metric(spec, data, list(data.categories) if spec.dataset.contiguous_labels else None)


def writer(spec: Spec, *place: Any) -> DetectionWriter:
    """Line i of the classmap names channel i + 1; channel i where labels are contiguous."""
    return family.classmap_writer(spec, *place, first=0 if spec.dataset.contiguous_labels else 1)


NETWORK = family.detr_network(spec=Spec, writer=writer, metric=metric)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
