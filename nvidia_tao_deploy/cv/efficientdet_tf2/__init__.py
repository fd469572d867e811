"""EfficientDet of the TensorFlow 2 trainer: COCO data, YAML specs, NHWC images."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.efficientdet_tf2.label_map import read_label_map
from nvidia_tao_deploy.cv.efficientdet_tf2.spec import Spec
from nvidia_tao_deploy.families.efficientdet import efficientdet

NETWORK = efficientdet(
    Spec,
    annotations=("dataset.val_json_file", "dataset.val_dirs", "evaluate.num_samples"),
    detections=lambda spec: spec.evaluate.max_detections_per_image,
    names="label_map",
    read=read_label_map,
    threshold="min_score_thresh",
    num_classes="dataset.num_classes",
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
