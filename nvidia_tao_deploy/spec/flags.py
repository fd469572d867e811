"""The established command-line flags, as data: of the protobuf networks, and of those that need no spec file.

Each flag sets one spec key, so a run is the same whether a value came from a flag or from the spec file. Flags that are
not given set nothing; defaults are those of the spec. Importing this module imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GEN, EVALUATE, INFERENCE = "gen_trt_engine", "evaluate", "inference"
ACTIONS = (GEN, EVALUATE, INFERENCE)

ALIASES = {"dssd": "ssd", "yolo_v4_tiny": "yolo_v4", "detectnet": "detectnet_v2"}
"""Commands that run another network's code."""

PROTO_NETWORKS = (
    "classification_tf1",
    "detectnet_v2",
    "dssd",
    "efficientdet_tf1",
    "faster_rcnn",
    "lprnet",
    "mask_rcnn",
    "multitask_classification",
    "retinanet",
    "ssd",
    "unet",
    "yolo_v3",
    "yolo_v4",
    "yolo_v4_tiny",
)

WITHOUT_SPEC = ("custom_vision",)
"""YAML networks whose model file says what a spec would: their actions can be driven by flags alone."""


@dataclass(frozen=True)
class Flag:
    """One flag of one action.

    Attributes:
        names: option strings, short one first.
        key: dotted spec key that it sets.
        type: of the value on the command line; ``bool`` is a flag without a value.
        help: one line, with the unit.
        choices: allowed values, None for any.
        factor: what a number is multiplied with to get the spec's unit (1024 for GiB to MiB).
    """

    names: tuple[str, ...]
    key: str
    type: type
    help: str
    choices: tuple[str, ...] | None = None
    factor: int = 1

    @property
    def dest(self) -> str:
        """The attribute that argparse stores the value under."""
        return self.names[-1].lstrip("-")

    def value(self, given: Any) -> Any:
        """The spec's value for a value of the command line."""
        return given * self.factor if self.factor != 1 else given


_TENSORRT = "gen_trt_engine.tensorrt"
_CALIBRATION = f"{_TENSORRT}.calibration"
_WITH_QAT_JSON = ("detectnet_v2", "faster_rcnn", "retinanet", "ssd", "unet", "yolo_v3", "yolo_v4")
_WITH_LABELS = _WITH_QAT_JSON
_NO_GEN_SPEC = ("efficientdet_tf1", "lprnet", "mask_rcnn", "multitask_classification")

# Each row: the flag, and the networks that have it (None: all).
_Row = tuple[Flag, tuple[str, ...] | None]


def _but(*networks: str) -> tuple[str, ...]:
    return tuple(name for name in (*PROTO_NETWORKS, *WITHOUT_SPEC) if name not in networks)


_GEN: tuple[_Row, ...] = (
    (Flag(("-m", "--model_path"), "gen_trt_engine.onnx_file", str, "the .onnx model to build"), None),
    (Flag(("-k", "--key"), "encryption_key", str, "key of an encrypted (.etlt) model"), _but("custom_vision")),
    (
        Flag(("-cm", "--class_map"), "gen_trt_engine.class_map", str, "JSON file of tasks and classes"),
        ("multitask_classification",),
    ),
    (Flag(("--data_type",), f"{_TENSORRT}.data_type", str, "precision", ("fp32", "fp16", "int8")), _but("lprnet")),
    (Flag(("--data_type",), f"{_TENSORRT}.data_type", str, "precision", ("fp32", "fp16")), ("lprnet",)),
    (Flag(("--cal_image_dir",), f"{_CALIBRATION}.cal_image_dir", str, "folder of calibration images"), _but("lprnet")),
    (
        Flag(("--cal_data_file",), f"{_CALIBRATION}.cal_data_file", str, "tensorfile of calibration batches"),
        _but("lprnet", "efficientdet_tf1"),
    ),
    (Flag(("--cal_cache_file",), f"{_CALIBRATION}.cal_cache_file", str, "TensorRT calibration cache"), _but("lprnet")),
    (
        Flag(("--cal_json_file",), f"{_CALIBRATION}.cal_json_file", str, "JSON of tensor scales of a QAT model"),
        _WITH_QAT_JSON,
    ),
    (Flag(("--engine_file",), "gen_trt_engine.trt_engine", str, "the engine file to write"), None),
    (Flag(("--max_batch_size",), f"{_TENSORRT}.max_batch_size", int, "largest batch of the profile"), None),
    (Flag(("--min_batch_size",), f"{_TENSORRT}.min_batch_size", int, "smallest batch of the profile"), None),
    (Flag(("--opt_batch_size",), f"{_TENSORRT}.opt_batch_size", int, "batch the engine is tuned for"), None),
    (Flag(("--batch_size",), f"{_CALIBRATION}.cal_batch_size", int, "images per calibration batch"), _but("lprnet")),
    (Flag(("--batches",), f"{_CALIBRATION}.cal_batches", int, "number of calibration batches"), _but("lprnet")),
    (
        Flag(("--max_workspace_size",), f"{_TENSORRT}.workspace_size", int, "builder workspace in GiB", factor=1024),
        None,
    ),
    (
        Flag(("-s", "--strict_type_constraints"), f"{_TENSORRT}.strict_types", bool, "keep the precision everywhere"),
        _but("lprnet"),
    ),
    (
        Flag(("--force_ptq",), f"{_CALIBRATION}.force_ptq", bool, "calibrate even if the model was trained with QAT"),
        _WITH_QAT_JSON,
    ),
    (Flag(("-v", "--verbose"), "gen_trt_engine.verbose", bool, "show everything the builder says"), None),
    (Flag(("-r", "--results_dir"), "gen_trt_engine.results_dir", str, "folder of the results"), None),
)

_EVALUATE: tuple[_Row, ...] = (
    (Flag(("-m", "--model_path"), "evaluate.trt_engine", str, "the .engine, .plan or .onnx file to evaluate"), None),
    (Flag(("-i", "--image_dir"), "evaluate.image_dir", str, "folder of images"), _but("lprnet")),
    (Flag(("-l", "--label_dir"), "evaluate.label_dir", str, "folder of labels"), _WITH_LABELS),
    (Flag(("-l", "--label_file"), "evaluate.label_file", str, "COCO annotation file of a detector"), WITHOUT_SPEC),
    (Flag(("-b", "--batch_size"), "evaluate.batch_size", int, "images per batch"), _but("efficientdet_tf1")),
    (Flag(("-c", "--classmap"), "evaluate.class_map", str, "JSON file of class names"), ("classification_tf1",)),
    (Flag(("-r", "--results_dir"), "evaluate.results_dir", str, "folder of the results"), None),
)

_INFERENCE: tuple[_Row, ...] = (
    (Flag(("-m", "--model_path"), "inference.trt_engine", str, "the .engine, .plan or .onnx file to run"), None),
    (Flag(("-i", "--image_dir"), "inference.image_dir", str, "folder of images"), None),
    (
        Flag(("-b", "--batch_size"), "inference.batch_size", int, "images per batch"),
        _but("efficientdet_tf1", "mask_rcnn", "multitask_classification"),
    ),
    (Flag(("-c", "--classmap"), "inference.class_map", str, "JSON file of class names"), ("classification_tf1",)),
    (Flag(("-c", "--class_map"), "inference.class_map", str, "file of class names"), ("efficientdet_tf1", "mask_rcnn")),
    (
        Flag(("-t", "--threshold"), "inference.threshold", float, "least score of a detection"),
        ("custom_vision", "efficientdet_tf1", "mask_rcnn", "retinanet", "ssd", "yolo_v3", "yolo_v4"),
    ),
    (Flag(("--include_mask",), "inference.include_mask", bool, "draw masks"), ("mask_rcnn",)),
    (Flag(("-r", "--results_dir"), "inference.results_dir", str, "folder of the results"), None),
)

_TABLES = {GEN: _GEN, EVALUATE: _EVALUATE, INFERENCE: _INFERENCE}

THRESHOLDS = {"efficientdet_tf1": 0.5, "mask_rcnn": 0.6, "retinanet": 0.3, "ssd": 0.3, "yolo_v3": 0.3, "yolo_v4": 0.3}
"""Established default of ``--threshold``; the networks' ``inference.threshold`` fields take it from here."""


def flags_for(network: str, action: str) -> tuple[Flag, ...]:
    """The flags of one action; empty for networks that are driven by YAML and overrides alone."""
    base = ALIASES.get(network, network)
    if base not in (*PROTO_NETWORKS, *WITHOUT_SPEC):
        return ()
    return tuple(flag for flag, networks in _TABLES.get(action, ()) if networks is None or base in networks)


def spec_is_optional(network: str, action: str) -> bool:
    """Whether the action can do without ``-e``."""
    return network in WITHOUT_SPEC or (action == GEN and ALIASES.get(network, network) in _NO_GEN_SPEC)


def flag_values(network: str, action: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Spec keys and values of parsed flags, ready for ``load_spec(..., flags=...)``.

    Args:
        network: network or command name.
        action: ``gen_trt_engine``, ``evaluate`` or ``inference``.
        given: ``{flag.dest: value}`` as argparse has them; None and an unset ``bool`` flag mean not given.
    """
    return {
        flag.key: flag.value(given[flag.dest])
        for flag in flags_for(network, action)
        if given.get(flag.dest) is not None and not (flag.type is bool and not given[flag.dest])
    }
