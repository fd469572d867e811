"""The established command-line flags, as data: of the protobuf networks, and of those that need no spec file.

Each flag sets one spec key, so a run is the same whether a value came from a flag or from the spec file. Flags that are
not given set nothing; defaults are those of the spec. Importing this module imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nvidia_tao_deploy.networks import NETWORKS

GEN, EVALUATE, INFERENCE = "gen_trt_engine", "evaluate", "inference"
ACTIONS = (GEN, EVALUATE, INFERENCE)

ALIASES = {"dssd": "ssd", "yolo_v4_tiny": "yolo_v4", "detectnet": "detectnet_v2"}
"""Commands that run another network's code."""

PROTO_NETWORKS = tuple(name for name, entry in NETWORKS.items() if entry.protobuf)
WITHOUT_SPEC = tuple(name for name, entry in NETWORKS.items() if entry.spec_optional)


@dataclass(frozen=True)
class Flag:
    """One flag of one action.

    Attributes:
        names: option strings, short one first.
        key: dotted spec key that it sets.
        type: of the value on the command line; ``bool`` is a flag without a value.
        help: one line, with the unit.
        networks: those that have it, None for all.
        choices: allowed values, None for any.
        factor: what a number is multiplied with to get the spec's unit (1024 for GiB to MiB).
    """

    names: tuple[str, ...]
    key: str
    type: type
    help: str
    networks: tuple[str, ...] | None = None
    choices: tuple[str, ...] | None = None
    factor: int = 1

    @property
    def dest(self) -> str:
        """The attribute that argparse stores the value under."""
        return self.names[-1].lstrip("-")


RUNNABLE = "the .engine, .plan or .onnx file"
EXPORT = "the export: its .zip, the unpacked folder, or the .onnx in it"
_TRT = "gen_trt_engine.tensorrt"
_CAL = f"{_TRT}.calibration"
_WITH_QAT_JSON = ("detectnet_v2", "faster_rcnn", "retinanet", "ssd", "unet", "yolo_v3", "yolo_v4")
_WITH_LABELS = _WITH_QAT_JSON
_NO_GEN_SPEC = ("efficientdet_tf1", "lprnet", "mask_rcnn", "multitask_classification")


def _but(*networks: str) -> tuple[str, ...]:
    return tuple(name for name in (*PROTO_NETWORKS, *WITHOUT_SPEC) if name not in networks)


_NOT_LPRNET = _but("lprnet")
_MULTITASK = ("multitask_classification",)
_WITH_TENSORFILE = _but("lprnet", "efficientdet_tf1")
_WITH_BATCH = _but("efficientdet_tf1", "mask_rcnn", "multitask_classification")
_WITH_THRESHOLD = ("custom_vision", "efficientdet_tf1", "mask_rcnn", "retinanet", "ssd", "yolo_v3", "yolo_v4")


def _flag(names: str, *rest: Any, **more: Any) -> Flag:
    """A `Flag`, its names in one text."""
    return Flag(tuple(names.split()), *rest, **more)


_GEN: tuple[Flag, ...] = (
    _flag("-m --model_path", "gen_trt_engine.onnx_file", str, "the .onnx model to build", PROTO_NETWORKS),
    _flag("-m --model_path", "gen_trt_engine.onnx_file", str, EXPORT, WITHOUT_SPEC),
    _flag("-k --key", "encryption_key", str, "key of an encrypted (.etlt) model", _but("custom_vision")),
    _flag("-cm --class_map", "gen_trt_engine.class_map", str, "JSON file of tasks and classes", _MULTITASK),
    _flag("--data_type", f"{_TRT}.data_type", str, "precision", _NOT_LPRNET, ("fp32", "fp16", "int8")),
    _flag("--data_type", f"{_TRT}.data_type", str, "precision", ("lprnet",), ("fp32", "fp16")),
    _flag("--cal_image_dir", f"{_CAL}.cal_image_dir", str, "folder of calibration images", _NOT_LPRNET),
    _flag("--cal_data_file", f"{_CAL}.cal_data_file", str, "tensorfile of calibration batches", _WITH_TENSORFILE),
    _flag("--cal_cache_file", f"{_CAL}.cal_cache_file", str, "TensorRT calibration cache", _NOT_LPRNET),
    _flag("--cal_json_file", f"{_CAL}.cal_json_file", str, "JSON of tensor scales of a QAT model", _WITH_QAT_JSON),
    _flag("--engine_file", "gen_trt_engine.trt_engine", str, "the engine file to write"),
    _flag("--max_batch_size", f"{_TRT}.max_batch_size", int, "largest batch of the profile"),
    _flag("--min_batch_size", f"{_TRT}.min_batch_size", int, "smallest batch of the profile"),
    _flag("--opt_batch_size", f"{_TRT}.opt_batch_size", int, "batch the engine is tuned for"),
    _flag("--batch_size", f"{_CAL}.cal_batch_size", int, "images per calibration batch", _NOT_LPRNET),
    _flag("--batches", f"{_CAL}.cal_batches", int, "number of calibration batches", _NOT_LPRNET),
    _flag("--max_workspace_size", f"{_TRT}.workspace_size", int, "builder workspace in GiB", factor=1024),
    _flag("-s --strict_type_constraints", f"{_TRT}.strict_types", bool, "keep the precision everywhere", _NOT_LPRNET),
    _flag("--force_ptq", f"{_CAL}.force_ptq", bool, "calibrate even if the model was trained with QAT", _WITH_QAT_JSON),
    _flag("-v --verbose", "gen_trt_engine.verbose", bool, "show everything the builder says"),
    _flag("-r --results_dir", "gen_trt_engine.results_dir", str, "folder of the results"),
)

_EVALUATE: tuple[Flag, ...] = (
    _flag("-m --model_path", "evaluate.trt_engine", str, RUNNABLE, PROTO_NETWORKS),
    _flag("-m --model_path", "evaluate.trt_engine", str, f"{EXPORT}, or an .engine", WITHOUT_SPEC),
    _flag("-i --image_dir", "evaluate.image_dir", str, "folder of images", _NOT_LPRNET),
    _flag("-l --label_dir", "evaluate.label_dir", str, "folder of labels", _WITH_LABELS),
    _flag("-l --label_file", "evaluate.label_file", str, "COCO annotation file of a detector", WITHOUT_SPEC),
    _flag("-b --batch_size", "evaluate.batch_size", int, "images per batch", _but("efficientdet_tf1")),
    _flag("-c --classmap", "evaluate.class_map", str, "JSON file of class names", ("classification_tf1",)),
    _flag("-r --results_dir", "evaluate.results_dir", str, "folder of the results"),
)

_INFERENCE: tuple[Flag, ...] = (
    _flag("-m --model_path", "inference.trt_engine", str, RUNNABLE, PROTO_NETWORKS),
    _flag("-m --model_path", "inference.trt_engine", str, f"{EXPORT}, or an .engine", WITHOUT_SPEC),
    _flag("-i --image_dir", "inference.image_dir", str, "folder of images"),
    _flag("-b --batch_size", "inference.batch_size", int, "images per batch", _WITH_BATCH),
    _flag("-c --classmap", "inference.class_map", str, "JSON file of class names", ("classification_tf1",)),
    _flag("-c --class_map", "inference.class_map", str, "file of class names", ("efficientdet_tf1", "mask_rcnn")),
    _flag("-t --threshold", "inference.threshold", float, "least score of a detection", _WITH_THRESHOLD),
    _flag("--include_mask", "inference.include_mask", bool, "draw masks", ("mask_rcnn",)),
    _flag("-r --results_dir", "inference.results_dir", str, "folder of the results"),
)

_TABLES = {GEN: _GEN, EVALUATE: _EVALUATE, INFERENCE: _INFERENCE}

THRESHOLDS = {"efficientdet_tf1": 0.5, "mask_rcnn": 0.6, "retinanet": 0.3, "ssd": 0.3, "yolo_v3": 0.3, "yolo_v4": 0.3}
"""Established default of ``--threshold``; the networks' ``inference.threshold`` fields take it from here."""


def flags_for(network: str, action: str) -> tuple[Flag, ...]:
    """The flags of one action; empty for networks that are driven by YAML and overrides alone."""
    base = ALIASES.get(network, network)
    if base not in (*PROTO_NETWORKS, *WITHOUT_SPEC):
        return ()
    return tuple(flag for flag in _TABLES.get(action, ()) if flag.networks is None or base in flag.networks)


def flag_of(network: str, key: str) -> str | None:
    """The option that sets a spec key, e.g. ``-i/--image_dir``; None if there is none."""
    flags = (flag for action in ACTIONS for flag in flags_for(network, action))
    return next(("/".join(flag.names) for flag in flags if flag.key == key), None)


def spec_is_optional(network: str, action: str) -> bool:
    """Whether the action can do without ``-e``."""
    return network in WITHOUT_SPEC or (action == GEN and ALIASES.get(network, network) in _NO_GEN_SPEC)


def flag_values(network: str, action: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Spec keys and values of ``{flag.dest: value}`` as argparse has them; None and an unset ``bool``: not given."""
    return {
        flag.key: given[flag.dest] * flag.factor if flag.factor != 1 else given[flag.dest]
        for flag in flags_for(network, action)
        if given.get(flag.dest) is not None and not (flag.type is bool and not given[flag.dest])
    }
