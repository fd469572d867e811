"""``default_specs``, the JSON Schema and the example specs under ``specs/`` never drift apart."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from nvidia_tao_deploy.spec.default_specs import default_specs, json_schema
from nvidia_tao_deploy.spec.load import load_spec
from nvidia_tao_deploy.spec.read import read_file
from nvidia_tao_deploy.spec.shapes import fields_of, shape_of, typed_paths

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "specs").glob("*/*") if path.suffix in (".yaml", ".txt"))
NETWORKS = sorted({path.parent.name for path in FILES})


def model_of(network: str) -> Any:
    for family in ("cv", "multimodal"):
        try:
            return importlib.import_module(f"nvidia_tao_deploy.{family}.{network}").NETWORK.spec
        except ModuleNotFoundError:
            continue
    raise AssertionError(network)


def test_there_is_an_example_for_every_network_and_action():
    names = {f"{path.parent.name}/{path.stem}" for path in FILES}
    for network in ("rtdetr", "classification_pyt", "detectnet_v2"):
        assert {f"{network}/{action}" for action in ("gen_trt_engine", "evaluate", "inference")} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_examples_load_and_use_only_documented_keys(path):
    model = model_of(path.parent.name)
    assert load_spec(model, path).notes == []

    def check(tree: Any, section: Any, prefix: str) -> None:
        fields = fields_of(section)
        for key, value in tree.items():
            assert key in fields, f"{prefix}{key} is not a key that is read"
            kind, below = shape_of(fields[key])
            entries = {"block": [value], "list": value, "map": value.values() if kind == "map" else ()}.get(kind, ())
            for entry in entries:
                check(entry, below, f"{prefix}{key}.")

    check(read_file(path, model.network)[0], model, "")


@pytest.mark.parametrize("network", NETWORKS)
def test_default_specs_load_back_unchanged_and_describe_every_key(network, tmp_path):
    model = model_of(network)
    text = default_specs(model, network)
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    assert load_spec(model, path) == model()
    assert "onnx_file: ???" in text
    data = yaml.safe_load(text)
    for key, field in typed_paths(model):
        assert field.description, f"{key} has no description"
        if "[]" not in key and "{}" not in key:
            block = data
            for part in key.split("."):
                assert block is None or part in block, key
                block = block and block[part]
    lines = text.splitlines()
    for key, _ in typed_paths(model):
        name = key.rpartition(".")[2].rstrip("[]{}")
        at = [i for i, line in enumerate(lines) if line.lstrip("# ").startswith(f"{name}:")]
        assert at, key
        assert any(lines[i - 1].lstrip().startswith("#") for i in at), f"{key} has no comment above it"


@pytest.mark.parametrize("network", NETWORKS)
def test_json_schema_has_the_keys_of_the_file(network):
    model = model_of(network)
    schema = json_schema(model)
    assert set(schema["properties"]) == set(fields_of(model))
    assert schema["additionalProperties"] is False


def test_text_and_yaml_examples_of_detectnet_agree():
    folder, model = ROOT / "specs" / "detectnet_v2", model_of("detectnet_v2")
    evaluate, experiment = (load_spec(model, folder / name) for name in ("evaluate.yaml", "experiment.txt"))
    for part in ("cost_function_config", "postprocessing_config"):
        assert getattr(evaluate, part) == getattr(experiment, part)
    assert evaluate.dataset_config.target_class_mapping == experiment.dataset_config.target_class_mapping
    inference, inferencer = (load_spec(model, folder / name) for name in ("inference.yaml", "inferencer.txt"))
    for part in ("inferencer_config", "bbox_handler_config"):
        assert getattr(inference, part) == getattr(inferencer, part)
