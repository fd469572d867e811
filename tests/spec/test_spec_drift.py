"""Older key names: the value moves or is dropped, with one note; files written here, in the style of older releases."""

from __future__ import annotations

from importlib import import_module
from typing import ClassVar

import pytest

from nvidia_tao_deploy.cv.classification_pyt.spec import Spec as ClassificationSpec
from nvidia_tao_deploy.cv.rtdetr.spec import Spec as RtdetrSpec
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.drift import NETWORKS, Drift, rules_for
from nvidia_tao_deploy.spec.known import networks
from nvidia_tao_deploy.spec.load import load_spec
from nvidia_tao_deploy.spec.sections import NetworkSpec


def other(name: str) -> type[NetworkSpec]:
    """A network that has only the shared sections yet."""

    class Spec(NetworkSpec):
        network: ClassVar[str] = name

    return Spec


OLD = [
    (RtdetrSpec, "gen_trt_engine: {input_channel: 3, input_width: 640, input_height: 640}", {}, 3),
    (RtdetrSpec, "evaluate: {gpu_id: 1}", {"evaluate.gpu_ids": [1]}, 1),
    (RtdetrSpec, "inference: {gpu_id: 2}\nevaluate: {gpu_id: 1}",
     {"inference.gpu_ids": [2], "evaluate.gpu_ids": [1]}, 2),
    (RtdetrSpec, "gen_trt_engine: {tensorrt: {calibration: {cal_num_batches: 7}}}",
     {"gen_trt_engine.tensorrt.calibration.cal_batches": 7}, 1),
    (RtdetrSpec, "output_dir: /o", {"results_dir": "/o"}, 1),
    (RtdetrSpec, "gen_trt_engine: {tensorrt: {max_workspace_size: 2}}",
     {"gen_trt_engine.tensorrt.workspace_size": 2048}, 1),
    (ClassificationSpec, "dataset: {data: {test: {data_prefix: /d, classes: /c.txt}, samples_per_gpu: 4}}",
     {"dataset.test_dataset.images_dir": "/d", "dataset.classes_file": "/c.txt", "dataset.batch_size": 4}, 3),
    (ClassificationSpec, "evaluate: {topk: 5}", {"model.head.topk": [5]}, 1),
    (ClassificationSpec, "dataset: {img_norm_cfg: {mean: [127.5, 127.5, 127.5], std: [51, 51, 51], to_rgb: true}}",
     {"dataset.augmentation.mean": [0.5, 0.5, 0.5], "dataset.augmentation.std": [0.2, 0.2, 0.2]}, 3),
    (other("classification_tf2"),
     "gen_trt_engine: {cal_image_dir: [/a], cal_cache_file: c, cal_data_file: d, batch_size: 16, batches: 9,"
     " max_batch_size: 64}\nverbose: true\ninference: {model_path: m}",
     {"gen_trt_engine.tensorrt.calibration.cal_batches": 9, "gen_trt_engine.tensorrt.max_batch_size": 64,
      "gen_trt_engine.tensorrt.calibration.cal_data_file": "d", "inference.checkpoint": "m",
      "gen_trt_engine.verbose": True}, 7),
    (other("ocrnet"),
     "model: /m.etlt\nsave_engine_path: /e\nworkspace_size: 2\nmin_batch_size: 1\nopt_batch_size: 2\nmax_batch_size: 4",
     {"gen_trt_engine.onnx_file": "/m.etlt", "gen_trt_engine.trt_engine": "/e",
      "gen_trt_engine.tensorrt.workspace_size": 2048, "gen_trt_engine.tensorrt.max_batch_size": 4}, 6),
    (other("ocrnet"), "engine: /e\nbatch_size: 3\ninference_images_dir: /i\ncharacter_list_file: /c",
     {"inference.trt_engine": "/e", "evaluate.batch_size": 3, "inference.inference_dataset_dir": "/i",
      "dataset.character_list_file": "/c"}, 4),
    (other("ocrnet"), "dataset: {input_width: 100, input_height: 32, input_channel: 1}\nmodel: {prediction: CTC}",
     {"evaluate.input_width": 100, "inference.input_height": 32, "model.input_channel": 1}, 3),
    (other("segformer"),
     "model: {input_height: 512, input_width: 512}\ndataset: {img_norm_cfg: {mean: [127.5, 127.5, 127.5]},"
     " data_root: /r, test_dataset: {img_dir: /i, ann_dir: /a}, input_type: rgb, batch_size: 2, workers_per_gpu: 1,"
     " palette: [{seg_class: a, rgb: [0, 0, 0], label_id: 0, mapping_class: a}]}",
     {"dataset.segment.root_dir": "/r", "dataset.segment.augmentation.mean": [0.5, 0.5, 0.5],
      "dataset.segment.batch_size": 2}, 10),
    (other("visual_changenet"),
     "model: {classify: {diff_module: euclidean}}\ndataset: {classify: {output_shape: [1, 2]}}",
     {"model.classify.difference_module": "euclidean"}, 2),
    (other("nvdinov2"), "model: {backbone: {type: vit_l}}", {}, 1),
    (other("mask2former"), "dataset: {type: coco}", {"dataset.val.type": "coco", "dataset.test.type": "coco"}, 1),
    (other("mask_grounding_dino"), "evaluate: {test_threshold: 0.4}", {"evaluate.text_threshold": 0.4}, 1),
    (other("mae"), "dataset: {segment: {num_classes: 3}}", {}, 1),
    (other("efficientdet_tf2"), "inference: {output_dir: /o}", {"inference.results_dir": "/o"}, 1),
    (other("ocdnet"), "evaluate: {gpu_id: 0}", {"evaluate.gpu_ids": [0]}, 1),
    (other("optical_inspection"), "dataset: {output_shape: [1, 2]}\ninference: {gpu_id: 1}",
     {"inference.gpu_ids": [1]}, 2),
    (other("depth_net"), "model: {stereo_back_bone: {}}", {}, 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "text", "now", "notes"), OLD, ids=[f"{row[0].network}{i}" for i, row in enumerate(OLD)]
)
def test_older_keys_load_with_one_note_each(model, text, now, notes, tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(text)
    spec = load_spec(model, path)
    for key, value in now.items():
        assert spec.get(key) == value, key
        assert str(path) in spec.where(key)
    assert len(spec.notes) == notes, spec.notes
    for note in spec.notes:
        assert "is now called" in note or note.startswith("no longer used: ")


def test_an_older_key_as_override_wins_over_the_file():
    source = {"gen_trt_engine": {"tensorrt": {"calibration": {"cal_batches": 2}}}}
    spec = load_spec(RtdetrSpec, source, ["gen_trt_engine.tensorrt.calibration.cal_num_batches=5"])
    assert spec.gen_trt_engine.tensorrt.calibration.cal_batches == 5
    assert len(spec.notes) == 1


def test_what_only_the_established_launcher_read():
    model = import_module("nvidia_tao_deploy.cv.classification_tf2").NETWORK.spec
    assert load_spec(model, {"gpu_ids": [0, 1, 2]}).evaluate.gpu_ids == [0]
    spec = load_spec(model, {"gpu_ids": [0, 1, 2]}, ["gpu_ids=[1]", "hydra.run.dir=/tmp"])
    assert (spec.evaluate.gpu_ids, spec.inference.gpu_ids) == ([1], [1])
    assert [note for note in spec.notes if "no longer used: hydra" in note]


def test_the_new_key_counts_when_a_file_has_both():
    source = {"gen_trt_engine": {"tensorrt": {"calibration": {"cal_batches": 2, "cal_num_batches": 3}}}}
    spec = load_spec(RtdetrSpec, source)
    assert spec.gen_trt_engine.tensorrt.calibration.cal_batches == 2
    assert "counts" in spec.notes[0]


def test_interpolations_may_point_at_an_older_key(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(
        "output_dir: /o\nevaluate: {results_dir: '${output_dir}/e'}\ninference: {results_dir: '${results_dir}/i'}\n"
    )
    spec = load_spec(RtdetrSpec, path)
    assert (spec.evaluate.results_dir, spec.inference.results_dir) == ("/o/e", "/o/i")


def test_mistakes_in_the_value_of_an_older_key_name_its_line(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text("evaluate:\n  gpu_id: -1\n")
    with pytest.raises(SpecError) as caught:
        load_spec(RtdetrSpec, path)
    assert caught.value.where == f"{path}:2: evaluate.gpu_id"


def test_a_typo_of_an_older_key_is_still_refused():
    with pytest.raises(SpecError, match="unknown key"):
        load_spec(RtdetrSpec, {"gen_trt_engine": {"input_widht": 3}})


def test_networks_may_bring_rules_of_their_own():
    class Spec(NetworkSpec):
        network: ClassVar[str] = "tiny"
        drift: ClassVar[tuple[Drift, ...]] = (Drift("engine", "evaluate.trt_engine"),)

    assert load_spec(Spec, {"engine": "x"}).evaluate.trt_engine == "x"


def test_tables_name_known_networks_and_existing_new_keys():
    assert set(NETWORKS) <= set(networks())
    for network in NETWORKS:
        from nvidia_tao_deploy.spec.load import _Reading

        reading = _Reading(other(network))
        for rule in NETWORKS[network]:
            targets = (rule.new,) if isinstance(rule.new, str) else rule.new or ()
            own = [target for target in targets if not reading.is_key(target)]
            assert not own, (network, rule.old, own)
        assert rules_for(network)
