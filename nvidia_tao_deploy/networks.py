"""The one list of networks: command name -> where its ``NETWORK`` lives. Importing this imports no network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """What the command line must know of a network before anything heavy is imported.

    Attributes:
        module: the module that holds ``NETWORK``.
        title: one line for ``--help``.
        protobuf: the network also takes protobuf-text specs and the established flags.
        spec_optional: its model file says what a spec would; it takes the established flags too.
        actions: the verbs its contract gives it; what can be evaluated can also be compared and diagnosed.
    """

    module: str
    title: str
    protobuf: bool = False
    spec_optional: bool = False
    actions: tuple[str, ...] = ("gen_trt_engine", "evaluate", "inference", "compare", "diagnose")

    @property
    def flags(self) -> bool:
        """Whether the network takes the established flags."""
        return self.protobuf or self.spec_optional


NETWORKS: dict[str, Entry] = {
    "centerpose": Entry("nvidia_tao_deploy.cv.centerpose", "6-DoF object pose from one image"),
    "classification_pyt": Entry("nvidia_tao_deploy.cv.classification_pyt", "Image classification (PyTorch trainer)"),
    "classification_tf1": Entry(
        "nvidia_tao_deploy.cv.classification_tf1", "Image classification (TensorFlow 1 trainer)", protobuf=True
    ),
    "classification_tf2": Entry(
        "nvidia_tao_deploy.cv.classification_tf2", "Image classification (TensorFlow 2 trainer)"
    ),
    "clip": Entry("nvidia_tao_deploy.multimodal.clip", "CLIP: images and texts in one space"),
    "custom_vision": Entry(
        "nvidia_tao_deploy.cv.custom_vision", "Azure Custom Vision exports (ONNX), without a spec", spec_optional=True
    ),
    "deformable_detr": Entry("nvidia_tao_deploy.cv.deformable_detr", "Deformable DETR detection transformer"),
    "depth_net": Entry("nvidia_tao_deploy.cv.depth_net", "Depth from one image, disparity from two"),
    "detectnet_v2": Entry("nvidia_tao_deploy.cv.detectnet_v2", "DetectNet_v2 grid-box detector", protobuf=True),
    "dino": Entry("nvidia_tao_deploy.cv.dino", "DINO detection transformer"),
    "dssd": Entry("nvidia_tao_deploy.cv.dssd", "DSSD detector", protobuf=True),
    "efficientdet_tf1": Entry(
        "nvidia_tao_deploy.cv.efficientdet_tf1", "EfficientDet detector (TensorFlow 1 trainer)", protobuf=True
    ),
    "efficientdet_tf2": Entry("nvidia_tao_deploy.cv.efficientdet_tf2", "EfficientDet detector (TensorFlow 2 trainer)"),
    "faster_rcnn": Entry("nvidia_tao_deploy.cv.faster_rcnn", "Faster R-CNN detector", protobuf=True),
    "grounding_dino": Entry("nvidia_tao_deploy.cv.grounding_dino", "Grounding DINO: finds what captions name"),
    "lprnet": Entry("nvidia_tao_deploy.cv.lprnet", "License-plate recognition", protobuf=True),
    "mae": Entry("nvidia_tao_deploy.cv.mae", "Masked auto-encoder (engines only)", actions=("gen_trt_engine",)),
    "mask2former": Entry("nvidia_tao_deploy.cv.mask2former", "Mask2Former: semantic, instance, panoptic segmentation"),
    "mask_grounding_dino": Entry("nvidia_tao_deploy.cv.mask_grounding_dino", "Grounding DINO with masks"),
    "mask_rcnn": Entry("nvidia_tao_deploy.cv.mask_rcnn", "Mask R-CNN: boxes and masks", protobuf=True),
    "ml_recog": Entry("nvidia_tao_deploy.cv.ml_recog", "Recognition against a gallery by embeddings"),
    "multitask_classification": Entry(
        "nvidia_tao_deploy.cv.multitask_classification", "Several classifications of one image", protobuf=True
    ),
    "nvdinov2": Entry(
        "nvidia_tao_deploy.cv.nvdinov2", "Self-supervised ViT backbone (engines only)", actions=("gen_trt_engine",)
    ),
    "ocdnet": Entry("nvidia_tao_deploy.cv.ocdnet", "Text detection"),
    "ocrnet": Entry("nvidia_tao_deploy.cv.ocrnet", "Text recognition (CTC or attention)"),
    "oneformer": Entry("nvidia_tao_deploy.cv.oneformer", "OneFormer: semantic, instance, panoptic segmentation"),
    "optical_inspection": Entry("nvidia_tao_deploy.cv.optical_inspection", "Optical inspection against golden images"),
    "pointpillars": Entry("nvidia_tao_deploy.cv.pointpillars", "PointPillars: cuboids in LiDAR point clouds"),
    "retinanet": Entry("nvidia_tao_deploy.cv.retinanet", "RetinaNet detector", protobuf=True),
    "rtdetr": Entry("nvidia_tao_deploy.cv.rtdetr", "RT-DETR real-time detection transformer"),
    "segformer": Entry("nvidia_tao_deploy.cv.segformer", "SegFormer semantic segmentation"),
    "sparse4d": Entry(
        "nvidia_tao_deploy.cv.sparse4d",
        "Multi-camera 3D detection and tracking",
        actions=("gen_trt_engine", "inference"),
    ),
    "ssd": Entry("nvidia_tao_deploy.cv.ssd", "SSD detector", protobuf=True),
    "unet": Entry("nvidia_tao_deploy.cv.unet", "U-Net semantic segmentation", protobuf=True),
    "video_clip": Entry("nvidia_tao_deploy.multimodal.video_clip", "Video CLIP: texts find clips"),
    "visual_changenet": Entry("nvidia_tao_deploy.cv.visual_changenet", "Change between two images"),
    "yolo_v3": Entry("nvidia_tao_deploy.cv.yolo_v3", "YOLOv3 detector", protobuf=True),
    "yolo_v4": Entry("nvidia_tao_deploy.cv.yolo_v4", "YOLOv4 detector", protobuf=True),
    "yolo_v4_tiny": Entry("nvidia_tao_deploy.cv.yolo_v4_tiny", "YOLOv4-tiny detector", protobuf=True),
}

# Other names under which a network's command is known.
ALIASES: dict[str, str] = {"detectnet": "detectnet_v2"}

COMMANDS: tuple[str, ...] = (*NETWORKS, *ALIASES)


def canonical(name: str) -> str | None:
    """The network's own name for a command name or alias; None if there is no such network."""
    name = ALIASES.get(name, name)
    return name if name in NETWORKS else None
