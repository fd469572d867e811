"""Older key names: what a key of an earlier release is called now, or that it is no longer used.

A rule counts only where its old key is not a key of the network today, so the
common rules need no exceptions. Networks may add rules of their own (``NetworkSpec.drift``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nvidia_tao_deploy.spec.trees import at

_ABSENT = object()


@dataclass(frozen=True)
class Drift:
    """One older key.

    Attributes:
        old: dotted key of the older release.
        new: dotted key (or keys, all set) that it is called now; None when nothing uses it any more.
        why: half a sentence for the note of a dropped key, e.g. where the value comes from now.
        convert: how the value changes on the way.
        only_if: the rule counts only for values of these types (a key may have become a block since).
    """

    old: str
    new: str | tuple[str, ...] | None = None
    why: str = ""
    convert: Callable[[Any], Any] | None = None
    only_if: tuple[type, ...] | None = None


def as_list(value: Any) -> Any:
    """A lone value as a list of one."""
    return value if isinstance(value, list) else [value]


def gib_to_mib(value: Any) -> Any:
    """GiB as whole MiB."""
    return int(float(value) * 1024) if isinstance(value, (int, float, str)) and value != "???" else value


def from_255(value: Any) -> Any:
    """Channel values on the scale 0..255 as values on the scale 0..1."""
    if isinstance(value, list) and any(isinstance(item, (int, float)) and item > 1 for item in value):
        return [item / 255 if isinstance(item, (int, float)) else item for item in value]
    return value


SHAPE = "the input shape comes from the ONNX model"
MODEL_GROUPS = "the ONNX model holds the network"
_BATCHES = ("min_batch_size", "opt_batch_size", "max_batch_size")
_TENSORRT_KEYS = ("data_type", "workspace_size", *_BATCHES, "layers_precision")

COMMON: tuple[Drift, ...] = (
    *(Drift(f"gen_trt_engine.input_{axis}", why=SHAPE) for axis in ("channel", "width", "height")),
    *(Drift(f"{part}.gpu_id", f"{part}.gpu_ids", convert=as_list) for part in ("evaluate", "inference", "train")),
    Drift("gen_trt_engine.tensorrt.calibration.cal_num_batches", "gen_trt_engine.tensorrt.calibration.cal_batches"),
    Drift("gen_trt_engine.tensorrt.max_workspace_size", "gen_trt_engine.tensorrt.workspace_size", convert=gib_to_mib),
    Drift("gen_trt_engine.max_workspace_size", "gen_trt_engine.tensorrt.workspace_size", convert=gib_to_mib),
    Drift("gen_trt_engine.engine_file", "gen_trt_engine.trt_engine"),
    Drift("gen_trt_engine.save_engine", "gen_trt_engine.trt_engine"),
    *(Drift(f"gen_trt_engine.{key}", f"gen_trt_engine.tensorrt.{key}") for key in _TENSORRT_KEYS),
    *(
        Drift(f"gen_trt_engine{place}.cal_{key}", f"gen_trt_engine.tensorrt.calibration.cal_{key}")
        for place in ("", ".tensorrt", ".calibration")
        for key in ("image_dir", "cache_file", "data_file", "json_file", "batch_size", "batches")
    ),
    Drift("gen_trt_engine.batches", "gen_trt_engine.tensorrt.calibration.cal_batches"),
    Drift("output_dir", "results_dir"),
    Drift("evaluate.output_dir", "evaluate.results_dir"),
    Drift("inference.output_dir", "inference.results_dir"),
    Drift("key", "encryption_key"),
    Drift("enc_key", "encryption_key"),
    Drift("gpu_ids", why="each action has its own gpu_ids"),
    Drift("num_gpus", why="each action has its own gpu_ids"),
    Drift("num_nodes", why="the GPUs of one machine are used"),
    Drift("hydra", why="folders and logs are those of results_dir and --log_file"),
    *(Drift(f"model.input_{axis}", why=SHAPE) for axis in ("width", "height", "channel")),
)
"""Rules for every network, wherever the old key is unknown today."""

_SEGFORMER_MOVED = {
    "dataset.img_norm_cfg.mean": ("dataset.segment.augmentation.mean", from_255),
    "dataset.img_norm_cfg.std": ("dataset.segment.augmentation.std", from_255),
    "dataset.palette": ("dataset.segment.palette", None),
    "dataset.data_root": ("dataset.segment.root_dir", None),
    "dataset.batch_size": ("dataset.segment.batch_size", None),
    "dataset.workers_per_gpu": ("dataset.segment.workers", None),
}

_CLASSIFICATION_DROPPED = (
    *(f"dataset.data.{key}" for key in ("samples_per_gpu", "workers_per_gpu", "train", "val", "test")),
    *(f"dataset.{key}" for key in ("img_norm_cfg.to_rgb", "sampler", "pipeline")),
    *(f"model.{key}" for key in ("init_cfg", "neck", "type", "pretrained", "train_cfg", "test_cfg")),
    *(f"model.backbone.{key}" for key in ("freeze", "custom_args", "pretrained", "out_indices")),
    *(f"model.head.{key}" for key in ("num_classes", "cal_acc", "lr_head", "classes", "loss.loss_weight")),
    *(f"train.{key}" for key in ("exp_config", "train_config")),
    *(f"{action}.{key}" for action in ("evaluate", "inference", "export") for key in ("exp_config", "threshold")),
)

NETWORKS: Mapping[str, tuple[Drift, ...]] = {
    "classification_pyt": (
        Drift("evaluate.topk", "model.head.topk", convert=as_list),
        Drift("dataset.data.test.data_prefix", "dataset.test_dataset.images_dir"),
        Drift("dataset.data.val.data_prefix", "dataset.val_dataset.images_dir"),
        Drift("dataset.data.train.data_prefix", "dataset.train_dataset.images_dir"),
        Drift("dataset.data.test.classes", "dataset.classes_file"),
        Drift("dataset.data.samples_per_gpu", "dataset.batch_size"),
        Drift("dataset.data.workers_per_gpu", "dataset.workers"),
        Drift("dataset.img_norm_cfg.mean", "dataset.augmentation.mean", convert=from_255),
        Drift("dataset.img_norm_cfg.std", "dataset.augmentation.std", convert=from_255),
        Drift("model.head.loss.label_smooth", "model.head.loss.label_smooth_val"),
        *(Drift(key, why=MODEL_GROUPS if key.startswith("model.") else "") for key in _CLASSIFICATION_DROPPED),
    ),
    "classification_tf2": (
        Drift("gen_trt_engine.batch_size", "gen_trt_engine.tensorrt.calibration.cal_batch_size"),
        Drift("inference.model_path", "inference.checkpoint"),
        Drift("verbose", "gen_trt_engine.verbose"),
    ),
    "efficientdet_tf2": (Drift("verbose", "gen_trt_engine.verbose"),),
    "ocrnet": (
        *(
            Drift(f"dataset.input_{axis}", (f"evaluate.input_{axis}", f"inference.input_{axis}"))
            for axis in ("width", "height")
        ),
        Drift("dataset.input_channel", "model.input_channel"),
        Drift("model", "gen_trt_engine.onnx_file", only_if=(str,)),
        Drift("save_engine_path", "gen_trt_engine.trt_engine"),
        Drift("workspace_size", "gen_trt_engine.tensorrt.workspace_size", convert=gib_to_mib),
        *(Drift(key, f"gen_trt_engine.tensorrt.{key}") for key in _BATCHES),
        Drift("data_type", "gen_trt_engine.tensorrt.data_type"),
        Drift("engine", ("evaluate.trt_engine", "inference.trt_engine")),
        Drift("batch_size", ("evaluate.batch_size", "inference.batch_size")),
        Drift("inference_images_dir", "inference.inference_dataset_dir"),
        Drift("character_list_file", "dataset.character_list_file"),
    ),
    "optical_inspection": (Drift("dataset.output_shape", why="image_width and image_height hold the size"),),
    "segformer": (
        *(Drift(old, new, convert=convert) for old, (new, convert) in _SEGFORMER_MOVED.items()),
        Drift("dataset.img_norm_cfg", why="dataset.segment.augmentation holds mean and std"),
        Drift("dataset.test_dataset.img_dir", why="dataset.segment.root_dir holds the images"),
        Drift("dataset.test_dataset.ann_dir", why="dataset.segment.root_dir holds the masks"),
        Drift("dataset.test_dataset.pipeline", why="images are stretched to the input size"),
        *(Drift(f"dataset.{part}_dataset") for part in ("train", "val", "test")),
        Drift("dataset.input_type", why="the input channels come from the ONNX model"),
    ),
    "visual_changenet": (
        Drift("model.classify.diff_module", "model.classify.difference_module"),
        Drift("dataset.classify.output_shape", why="image_width and image_height hold the size"),
    ),
    "nvdinov2": (Drift("model.backbone.type", why="model.backbone.teacher_type and student_type took its place"),),
    "mask2former": (
        Drift("dataset.type", tuple(f"dataset.{part}.type" for part in ("train", "val", "test"))),
        Drift("dataset.workers", why="each data set has its own num_workers"),
    ),
    "mae": (Drift("dataset.segment.num_classes", why="model.num_classes is meant"), Drift("dataset.segment")),
    "mask_grounding_dino": (
        Drift("evaluate.test_threshold", "evaluate.text_threshold"),
        Drift("inference.test_threshold", "inference.text_threshold"),
    ),
    "depth_net": (Drift("model.stereo_back_bone", "model.stereo_backbone"), Drift("model.load_checkpoint_strict")),
    "pointpillars": (Drift("encryption_key", "key"),),
}
"""Rules of single networks; they come before the common ones."""


def rules_for(network: str) -> tuple[Drift, ...]:
    """All rules of one network, its own first."""
    return NETWORKS.get(network, ()) + COMMON


def apply_drift(
    tree: dict[str, Any], rules: Iterable[Drift], is_key: Callable[[str], bool]
) -> tuple[list[str], dict[str, str]]:
    """Move the values of older keys inside ``tree``, in place.

    Args:
        tree: one layer of a spec (the file, or one override), nested and without dotted keys.
        rules: the older keys, first match wins.

    Returns:
        One note per older key that was there, and ``{new key: old key}`` for those that moved.
    """
    notes: list[str] = []
    moved: dict[str, str] = {}
    for rule in rules:
        value = at(tree, rule.old, _ABSENT)
        if value is _ABSENT or (rule.only_if and not isinstance(value, rule.only_if)):
            continue
        if is_key(rule.old) and not rule.only_if:
            continue
        targets = (rule.new,) if isinstance(rule.new, str) else rule.new or ()
        targets = tuple(target for target in targets if is_key(target))
        if rule.new and not targets:
            continue
        _remove(tree, rule.old)
        if not targets:
            notes.append(f"no longer used: {rule.old}" + (f" ({rule.why})" if rule.why else ""))
            continue
        converted = rule.convert(value) if rule.convert and value is not None else value
        kept = [target for target in targets if at(tree, target, _ABSENT) is not _ABSENT]
        for target in targets:
            if target not in kept:
                _put(tree, target, converted)
                moved[target] = rule.old
        said = f"{rule.old} is now called {' and '.join(targets)}"
        notes.append(said + (f"; the value of {' and '.join(kept)} counts" if kept else ""))
    return notes, moved


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for part in parents:
        child = tree.get(part)
        if not isinstance(child, dict):
            child = tree[part] = {}
        tree = child
    tree[last] = value


def _remove(tree: dict[str, Any], key: str) -> None:
    """Delete the key and the blocks that it leaves empty."""
    parent, _, last = key.rpartition(".")
    block = at(tree, parent) if parent else tree
    del block[last]
    if parent and not block:
        _remove(tree, parent)
