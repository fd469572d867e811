"""EfficientDet of the TensorFlow 1 trainer: COCO data, protobuf specs, NHWC images."""

from __future__ import annotations

from nvidia_tao_deploy.actions.verbs import verbs
from nvidia_tao_deploy.cv.efficientdet_tf1.spec import Spec
from nvidia_tao_deploy.families.efficientdet import MAX_DETECTIONS, efficientdet
from nvidia_tao_deploy.families.images import batch_size_or

NETWORK = efficientdet(
    Spec,
    annotations=("dataset_config.validation_json_file", "evaluate.image_dir", "eval_config.eval_samples"),
    detections=lambda spec: spec.eval_config.max_detections_per_image or MAX_DETECTIONS,
    names="class_map",
    threshold="threshold",
    num_classes="dataset_config.num_classes",
    clip=True,
    batch_size=batch_size_or("eval_config.eval_batch_size"),
)
gen_trt_engine, evaluate, inference = verbs(NETWORK)
