"""The sample networks: which trainer makes each, which command serves it, and by which metric it is judged.

Read by ``samples.train`` and ``scripts/verify_gpu.py``. A sample network has its model in ``models/<name>.onnx``, its
data in a writer of ``samples.data``, and specs/<command>/*.yaml that name both.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SampleNetwork:
    """A row of the table.

    Args:
        metric: the key of results.json that says whether the network works.
        command: the command that serves it; "": its own name.
        trainer: the module of ``samples.trainers``; "": its own name.
        overrides: ``key=value`` words beside specs/<command>/<action>.yaml, for every action.
        tensorrt8: why TensorRT 8.5.3.1 is not asked to build it; "": it is.
        precisions: those the network has.
        whole: the metric of a perfect model.
        lowered: its plugins can be written in standard operators for TensorRT 8 too, which is built as well.
    """

    metric: str
    command: str = ""
    trainer: str = ""
    overrides: tuple[str, ...] = ()
    tensorrt8: str = ""
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
    whole: float = 1.0
    lowered: bool = False


SAMPLE_NETWORKS: dict[str, SampleNetwork] = {
    "classification_pyt": SampleNetwork("top_k_accuracy"),
    "clip": SampleNetwork("t2i_mAP"),
    "deformable_detr": SampleNetwork("AP50", lowered=True),
    "depth_net": SampleNetwork("d1", precisions=("fp32", "fp16")),
    "detectnet_v2": SampleNetwork("mAP"),
    # One training for the three networks that end in a suppression plugin.
    "efficientdet_tf2": SampleNetwork("AP50", trainer="nms_detectors", lowered=True),
    "faster_rcnn": SampleNetwork("mAP"),
    "lprnet": SampleNetwork("Accuracy", precisions=("fp32", "fp16")),
    "ocdnet": SampleNetwork("F-measure"),
    "ocrnet": SampleNetwork("Accuracy"),
    # The same training, read by its attention decoder.
    "ocrnet_attn": SampleNetwork("Accuracy", command="ocrnet", trainer="ocrnet", overrides=("model.prediction=Attn",)),
    "mask_rcnn": SampleNetwork("mask_AP50"),
    "ml_recog": SampleNetwork("top_1_accuracy"),
    "multitask_classification": SampleNetwork("digit"),
    "optical_inspection": SampleNetwork("total_accuracy", whole=100),
    "pointpillars": SampleNetwork("bev mAP", precisions=("fp32", "fp16"), whole=100),
    "rtdetr": SampleNetwork("AP50"),
    # The same training stopped before the attention, for TensorRT versions that cannot build the transformer.
    "rtdetr_conv": SampleNetwork("AP50", command="rtdetr", trainer="rtdetr"),
    "segformer": SampleNetwork("Mean IOU", trainer="segmentation"),
    "ssd": SampleNetwork("mAP", trainer="nms_detectors"),
    "unet": SampleNetwork("Mean IOU", trainer="segmentation"),
    "visual_changenet": SampleNetwork("mf1"),
    "yolo_v4": SampleNetwork("mAP", trainer="nms_detectors"),
}
