"""The flags of the protobuf networks set the same keys as their specs."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from nvidia_tao_deploy.cv.detectnet_v2.spec import Spec
from nvidia_tao_deploy.spec.flags import ACTIONS, PROTO_NETWORKS, flag_values, flags_for, spec_is_optional
from nvidia_tao_deploy.spec.load import load_spec


def names(network: str, action: str) -> set[str]:
    return {name for flag in flags_for(network, action) for name in flag.names if name.startswith("--")}


def test_the_table_has_every_network_and_its_differences():
    assert len(PROTO_NETWORKS) == 14
    everywhere = {"--model_path", "--results_dir"}
    for network in PROTO_NETWORKS:
        for action in ACTIONS:
            assert names(network, action) >= everywhere
            parser = argparse.ArgumentParser(add_help=False)
            for flag in flags_for(network, action):
                parser.add_argument(*flag.names)
    assert names("lprnet", "gen_trt_engine") == everywhere | {
        "--key", "--data_type", "--engine_file", "--max_batch_size", "--min_batch_size", "--opt_batch_size",
        "--max_workspace_size", "--verbose",
    }  # fmt: skip
    json = {network for network in PROTO_NETWORKS if "--cal_json_file" in names(network, "gen_trt_engine")}
    assert json == {
        "detectnet_v2",
        "dssd",
        "faster_rcnn",
        "retinanet",
        "ssd",
        "unet",
        "yolo_v3",
        "yolo_v4",
        "yolo_v4_tiny",
    }
    assert json == {network for network in PROTO_NETWORKS if "--force_ptq" in names(network, "gen_trt_engine")}
    assert json == {network for network in PROTO_NETWORKS if "--label_dir" in names(network, "evaluate")}
    no_data_file = {network for network in PROTO_NETWORKS if "--cal_data_file" not in names(network, "gen_trt_engine")}
    assert no_data_file == {"lprnet", "efficientdet_tf1"}
    assert [flag.choices for flag in flags_for("lprnet", "gen_trt_engine") if flag.choices] == [("fp32", "fp16")]
    assert "--image_dir" not in names("lprnet", "evaluate")
    assert "--threshold" not in names("detectnet_v2", "inference")
    assert names("mask_rcnn", "inference") >= {"--class_map", "--threshold", "--include_mask"}
    assert "--batch_size" not in names("mask_rcnn", "inference") | names("efficientdet_tf1", "evaluate")
    assert "--classmap" in names("classification_tf1", "evaluate") & names("classification_tf1", "inference")
    assert "--class_map" in names("multitask_classification", "gen_trt_engine")
    assert flags_for("dssd", "evaluate") == flags_for("ssd", "evaluate")
    assert flags_for("rtdetr", "evaluate") == ()
    assert [network for network in PROTO_NETWORKS if spec_is_optional(network, "gen_trt_engine")] == [
        "efficientdet_tf1", "lprnet", "mask_rcnn", "multitask_classification",
    ]  # fmt: skip


def test_flags_and_keys_give_the_same_spec():
    given = {
        "model_path": "m.onnx", "engine_file": "e.engine", "data_type": "int8", "max_workspace_size": 3,
        "batch_size": 4, "batches": 5, "max_batch_size": 8, "cal_image_dir": "/c", "strict_type_constraints": True,
        "verbose": False, "key": "k", "results_dir": "/r", "cal_json_file": None,
    }  # fmt: skip
    by_flags = load_spec(Spec, {}, flags=flag_values("detectnet_v2", "gen_trt_engine", given))
    by_file = load_spec(Spec, {
        "encryption_key": "k",
        "gen_trt_engine": {
            "onnx_file": "m.onnx", "trt_engine": "e.engine", "results_dir": "/r",
            "tensorrt": {"data_type": "int8", "workspace_size": 3072, "max_batch_size": 8, "strict_types": True,
                         "calibration": {"cal_image_dir": ["/c"], "cal_batch_size": 4, "cal_batches": 5}},
        },
    })  # fmt: skip
    assert by_flags == by_file


@pytest.mark.parametrize("action", ACTIONS)
def test_every_flag_of_detectnet_sets_a_typed_key(action):
    samples = {str: "fp16", int: 2, bool: True, float: 0.5}
    given = {flag.dest: samples[flag.type] for flag in flags_for("detectnet_v2", action)}
    values = flag_values("detectnet_v2", action, given)
    assert len(values) == len(given)
    spec = load_spec(Spec, {}, flags=values)
    for key, value in values.items():
        assert spec.get(key) in (value, [value])


def test_flags_left_out_keep_the_established_defaults():
    spec = load_spec(Spec, {}, flags=flag_values("detectnet_v2", "gen_trt_engine", {"force_ptq": False}))
    built = spec.gen_trt_engine.tensorrt
    assert (built.workspace_size, built.calibration.cal_batches, built.calibration.cal_batch_size) == (2048, 10, 1)


def test_the_table_needs_no_pydantic():
    code = "import sys, nvidia_tao_deploy.spec.flags; print('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
