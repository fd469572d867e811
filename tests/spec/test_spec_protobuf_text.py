"""Protobuf text specs: the same typed spec as YAML, and errors with line and column."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import text_format

from nvidia_tao_deploy.cv.detectnet_v2.spec import Spec
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.known import ProtoField, known_keys, networks, proto_tables
from nvidia_tao_deploy.spec.load import load_spec
from nvidia_tao_deploy.spec.protobuf_text import message_class, parse_text

TEXT = """
# classes in channel order
dataset_config {
  data_sources { image_directory_path: "/a" }
  data_sources: < image_directory_path: '/b' "/c"; source_weight: 0.1f >
  target_class_mapping { key: "Person" value: "person" }
  target_class_mapping { value: "person" key: "rider" }
  validation_data_source { tfrecords_path: "x" }
}
model_config { objective_set { bbox { scale: 35.0 offset: 0.5 } } num_layers: 18 arch: "resnet" }
cost_function_config {
  target_classes [{ name: "person" class_weight: 1.0 }, { name: "bag" }]
}
postprocessing_config {
  target_class_config {
    key: "person"
    value {
      clustering_config {
        coverage_threshold: 0.005
        clustering_algorithm: HYBRID
        dbscan_eps: 0.15
        nms_iou_threshold: 0.3
      }
    }
  }
}
evaluation_config {
  minimum_detection_ground_truth_overlap { key: "person" value: 0.6 }
  average_precision_mode: INTEGRATE
}
training_config { enable_qat: true batch_size_per_gpu: 0x10 }
"""

YAML = """
dataset_config:
  data_sources:
    - image_directory_path: /a
    - {image_directory_path: /b/c, source_weight: 0.1}
  target_class_mapping: {Person: person, rider: person}
  validation_data_source: {tfrecords_path: x}
model_config:
  objective_set: {bbox: {scale: 35, offset: 0.5}}
  num_layers: 18
  arch: resnet
cost_function_config:
  target_classes: [{name: person, class_weight: 1}, {name: bag}]
postprocessing_config:
  target_class_config:
    person:
      clustering_config: {coverage_threshold: 0.005, clustering_algorithm: hybrid, dbscan_eps: 0.15,
        nms_iou_threshold: 0.3}
evaluation_config:
  minimum_detection_ground_truth_overlap: {person: 0.6}
  average_precision_mode: 1
training_config: {enable_qat: true, batch_size_per_gpu: 16}
"""


@pytest.fixture
def spec_file(tmp_path):
    def write(text: str, name: str = "spec.txt"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_text_and_yaml_give_the_same_spec(spec_file):
    text, from_yaml = load_spec(Spec, spec_file(TEXT)), load_spec(Spec, spec_file(YAML, "spec.yaml"))
    assert text == from_yaml
    assert text.get("model_config.num_layers") == from_yaml.get("model_config.num_layers") == 18
    clustering = text.postprocessing_config.target_class_config["person"].clustering_config
    assert clustering.dbscan_eps == struct.unpack("f", struct.pack("f", 0.15))[0] != 0.15
    assert (clustering.clustering_algorithm, text.evaluation_config.average_precision_mode) == ("HYBRID", "INTEGRATE")
    assert text.training_config.batch_size_per_gpu == 16


def test_each_form_is_recognised_whatever_the_name(spec_file):
    expected = load_spec(Spec, spec_file(TEXT))
    for name, content in (("a.cfg", TEXT), ("b", YAML), ("c.txt", YAML), ("d.yaml", TEXT), ("e.prototxt", TEXT)):
        assert load_spec(Spec, spec_file(content, name)) == expected
    flat = "results_dir: /r\nevaluate:\n  batch_size: 2\n"
    assert load_spec(Spec, spec_file(flat)).evaluate.batch_size == 2


def test_both_root_messages_are_accepted_for_any_action(spec_file):
    inference = (
        'inferencer_config { target_classes: "a" target_classes: "b" batch_size: 4 }\n'
        'bbox_handler_config { classwise_bbox_handler_config { key: "a" value { bbox_color { R: 0 G: 255 } } } }\n'
    )
    spec = load_spec(Spec, spec_file(inference))
    assert spec.inferencer_config.target_classes == ["a", "b"]
    handler = spec.bbox_handler_config.classwise_bbox_handler_config["a"]
    assert (handler.bbox_color.R, handler.bbox_color.G, handler.bbox_color.B) == (0, 255, 0)
    assert load_spec(Spec, spec_file(TEXT + inference)).inferencer_config.batch_size == 4


def test_presence_and_zero():
    data, _ = parse_text(
        "bbox_handler_config { classwise_bbox_handler_config { key: 'a' value { bbox_color {} } } }\n"
        "training_config { batch_size_per_gpu: 0 }",
        "detectnet_v2",
        "f",
    )
    assert data["bbox_handler_config"]["classwise_bbox_handler_config"]["a"] == {"bbox_color": {}}
    assert data["training_config"] == {"batch_size_per_gpu": 0}
    spec = load_spec(Spec, {"model_config": {"objective_set": {"bbox": {"scale": 0, "offset": 0}}}})
    assert (spec.model.objective_set.bbox.scale, spec.model.objective_set.bbox.offset) == (35.0, 0.5)


def test_repeated_occurrences_merge_and_the_last_scalar_wins():
    data, _ = parse_text(
        "training_config { num_epochs: 1 } training_config { num_epochs: 2 batch_size_per_gpu: 3 }\n"
        "dataset_config { validation_fold: 1 validation_data_source { tfrecords_path: 'x' } }\n"
        "dataset_config { target_class_mapping { key: 'a' value: 'b' } target_class_mapping { key: 'a' value: 'c' } }",
        "detectnet_v2",
        "f",
    )
    assert data["training_config"] == {"num_epochs": 2, "batch_size_per_gpu": 3}
    assert data["dataset_config"] == {
        "validation_data_source": {"tfrecords_path": "x"},
        "target_class_mapping": {"a": "c"},
    }


@pytest.mark.parametrize(
    ("text", "place", "what", "remedy"),
    [
        ("random_seed: 42\ndataset_confg {\n}\n", "2:1", "unknown field 'dataset_confg'", "dataset_config"),
        ("training_config {\n  num_epoch: 3\n}\n", "2:3", "in TrainingConfig", "num_epochs"),
        ("training_config {\n  num_epochs: 3.5\n}\n", "2:15", "malformed", "line"),
        ("training_config {\n  num_epochs: ten\n}\n", "2:15", "malformed", "line"),
        ("training_config {\n  num_epochs: 3\n", "2:15", "malformed", "line"),
        ("training_config { regularizer { type: L3 } }\n", "1:39", "malformed", "line"),
        ("dataset_config { image_extension: jpg }\n", "1:35", "malformed", "line"),
        ("training_config { enable_qat: yes }\n", "1:31", "malformed", "line"),
        ("evaluation_config { validation_period_during_training: -1 }\n", "1:56", "malformed", "line"),
        ("dbscan_eps: 3\nrandom_seed {\n", "1:1", "unknown field", "ClusteringConfig"),
    ],
)
def test_errors_name_line_and_column(spec_file, text, place, what, remedy):
    path = spec_file(text)
    with pytest.raises(SpecError, match=what) as caught:
        load_spec(Spec, path)
    assert caught.value.where == f"{path}:{place}"
    assert remedy in caught.value.remedy


def test_values_out_of_range_name_the_line_of_the_text(spec_file):
    wrong = TEXT.replace("dbscan_eps: 0.15", "dbscan_eps: 1.5").replace('"bag" }', '"bag" # {\n}')
    path = spec_file(wrong)
    line = wrong[: wrong.index("dbscan_eps")].count("\n") + 1
    with pytest.raises(SpecError, match="dbscan_eps") as caught:
        load_spec(Spec, path)
    assert caught.value.where.startswith(f"{path}:{line}: postprocessing_config.target_class_config.person.")
    spec = load_spec(Spec, spec_file(TEXT))
    for key, needle in (
        ("cost_function_config.target_classes[1].name", '"bag"'),
        ("dataset_config.data_sources[1].image_directory_path", "'/b'"),
        ("evaluation_config.average_precision_mode", "average_precision_mode"),
        ("evaluation_config.minimum_detection_ground_truth_overlap.person", "value: 0.6"),
    ):
        number = int(spec.where(key).removeprefix(str(path)).split(":")[1])
        assert needle in TEXT.splitlines()[number - 1], key


def test_a_file_that_is_neither(spec_file):
    with pytest.raises(SpecError):
        load_spec(Spec, spec_file("what is this\nfile { about\n"))


def random_value(item: ProtoField, network: str, rng: random.Random) -> Any:
    tables = proto_tables(network)
    if item.type in tables.messages:
        return random_message(item.type, network, rng)
    if item.type in tables.enums:
        return rng.choice(list(tables.enums[item.type]))
    if item.type in ("float", "double"):
        return rng.choice([0.0, 0.1, -1.5e-8, 3e10])
    if item.type == "bool":
        return rng.random() < 0.5
    if item.type == "string":
        return rng.choice(["", "a b", "quote\"'\n", "äöü", "# no comment {"])
    return rng.choice([0, 1, 2**31 - 1])


def random_message(name: str, network: str, rng: random.Random) -> dict[str, Any]:
    value, taken = {}, set()
    for item in proto_tables(network).messages[name].values():
        if rng.random() < 0.4 or item.oneof in taken:
            continue
        taken.add(item.oneof or "-")
        if item.map_key:
            value[item.name] = {
                (key if item.map_key == "string" else number): random_value(item, network, rng)
                for number, key in enumerate(["a", "b c", 'd"'])
            }
        elif item.repeated:
            value[item.name] = [random_value(item, network, rng) for _ in range(rng.randint(1, 3))]
        else:
            value[item.name] = random_value(item, network, rng)
    return value


def fill(message: Any, value: dict[str, Any]) -> None:
    """Set fields through protobuf's own Python interface."""
    for name, item in value.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        target = getattr(message, name)
        if isinstance(item, dict) and field.message_type.GetOptions().map_entry:
            for key, entry in item.items():
                if isinstance(entry, dict):
                    fill(target[key], entry)
                    target[key].SetInParent()
                else:
                    target[key] = entry
        elif isinstance(item, dict):
            target.SetInParent()
            fill(target, item)
        elif isinstance(item, list):
            for entry in item:
                if isinstance(entry, dict):
                    fill(target.add(), entry)
                else:
                    enum = field.enum_type
                    target.append(enum.values_by_name[entry].number if enum else entry)
        else:
            setattr(message, name, field.enum_type.values_by_name[item].number if field.enum_type else item)


def rounded(value: Any, item: ProtoField | None, network: str, message: str) -> Any:
    """The value with its float32 fields rounded, following the tables."""
    tables = proto_tables(network)
    if isinstance(value, dict) and item is not None and item.map_key:
        plain = ProtoField(item.name, item.number, item.type)
        return {key: rounded(entry, plain, network, message) for key, entry in value.items()}
    if isinstance(value, dict):
        owner = item.type if item else message
        return {key: rounded(entry, tables.messages[owner][key], network, owner) for key, entry in value.items()}
    if isinstance(value, list):
        return [rounded(entry, item, network, message) for entry in value]
    return struct.unpack("f", struct.pack("f", value))[0] if item.type == "float" else value


@pytest.mark.parametrize("network", [name for name in networks() if proto_tables(name)])
def test_random_messages_survive_text_format(network):
    rng = random.Random(network)
    for root in proto_tables(network).roots:
        for _ in range(6):
            value = random_message(root, network, rng)
            message = message_class(network, root)()
            fill(message, value)
            text = text_format.MessageToString(message, as_one_line=rng.random() < 0.3, as_utf8=rng.random() < 0.5)
            data, lines = parse_text(text, network, "f")
            assert data == rounded(value, None, network, root)
            assert set(data) <= set(lines)
            assert set(known_keys(network).children) >= set(data)


def test_networks_with_the_same_message_names_live_side_by_side():
    names = [name for name in networks() if proto_tables(name)]
    classes = [message_class(name, "Experiment") for name in names]
    assert len({id(item.DESCRIPTOR) for item in classes}) == len(names)


def test_yaml_of_a_text_spec_loads_back(spec_file):
    spec = load_spec(Spec, spec_file(TEXT))
    again = load_spec(Spec, yaml.safe_load(spec.to_yaml()))
    assert again == spec
    assert again.get("model_config.num_layers") == 18


def test_a_network_of_yaml_specs_says_so(tmp_path: Path) -> None:
    from nvidia_tao_deploy.cv.rtdetr.spec import Spec as RtdetrSpec

    path = tmp_path / "experiment.txt"
    path.write_text(TEXT)
    with pytest.raises(SpecError, match=r"experiment\.txt: rtdetr takes YAML specs, and this is none"):
        load_spec(RtdetrSpec, path)
