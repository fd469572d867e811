"""clip through the command line: towers in one file or two, retrieval both ways, classes by texts, embeddings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from actions.commands import Shell, status, write_spec
from PIL import Image
from replay_towers import STEP, WORDS, write_model, write_sidecars
from repository import MODELS
from sklearn.metrics import average_precision_score, roc_auc_score

from nvidia_tao_deploy.data.sample import Sample
from nvidia_tao_deploy.metrics.cross_retrieval import class_auc
from nvidia_tao_deploy.multimodal.clip import transform
from nvidia_tao_deploy.multimodal.clip.scores import ImageTextMetric
from nvidia_tao_deploy.multimodal.clip.spec import Spec
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.predictions.embeddings import Embeddings, EmbeddingWriter
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.runtime.towers import tower_files
from nvidia_tao_deploy.transforms.towers import TowerTransform

COUNT = 7


@pytest.fixture
def shell(capsys):
    return Shell(capsys)


@pytest.fixture(scope="module")
def table():
    """Rows near one-hot of unlike lengths, so that what is not normalized ranks wrongly."""
    rng = np.random.default_rng(3)
    return (np.eye(10, 12) + 0.2 * rng.random((10, 12))) * rng.uniform(0.5, 4, (10, 1))


def picture(path: Path, k: int, size: tuple[int, int] = (20, 14)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (k * STEP,) * 3).save(path)


@pytest.fixture
def pairs(tmp_path):
    folder = tmp_path / "pairs"
    for k in range(COUNT):
        picture(folder / f"p{k}.png", k)
        (folder / f"p{k}.txt").write_text(f"{WORDS[k]} is here\n")
    return folder


@pytest.fixture
def spec(tmp_path, pairs, table):
    """Spec with a combined model; 7 pairs in batches of 4."""
    model = write_model(tmp_path / "export" / "replay.onnx", table)
    write_sidecars(tmp_path / "export")
    (tmp_path / "words.txt").write_text("three\n\n  one  \n")
    return {
        "results_dir": str(tmp_path / "out"),
        "dataset": {"val": {"datasets": [{"image_dir": str(pairs)}]}},
        "gen_trt_engine": {"onnx_file": str(model), "trt_engine": str(tmp_path / "built" / "replay.engine")},
        "evaluate": {"trt_engine": str(model), "batch_size": 4},
        "inference": {
            "trt_engine": str(model),
            "batch_size": 4,
            "datasets": [{"image_dir": str(pairs)}],
            "text_file": str(tmp_path / "words.txt"),
        },
    }


def results(spec) -> dict:
    return json.loads((Path(spec["results_dir"]) / "trt_evaluate" / "results.json").read_text())


def read(path: Path, names: str) -> tuple[np.ndarray, list[str], dict]:
    with h5py.File(path) as file:
        return file["embeddings"][()], [name.decode() for name in file[names][()]], dict(file.attrs)


def test_pairs_find_each_other_both_ways(tmp_path, shell, spec):
    file = write_spec(tmp_path / "s.yaml", spec)
    assert shell("clip", "evaluate", "-e", file) == 0, shell.err
    found = results(spec)
    # The last, short batch of 3 adds no pairs of its own.
    assert (found["num_images"], found["num_texts"], found["images_evaluated"]) == (7, 7, 7)
    for direction in ("i2t", "t2i"):
        assert [found[f"{direction}_{key}"] for key in ("mAP", "R@1", "R@5", "R@10", "MedR", "MeanR", "AUC")] == [1] * 7
    assert list(found)[2] == "i2t_mAP"
    kpi = next(row["kpi"] for row in status(tmp_path / "out" / "trt_evaluate") if "kpi" in row)
    assert kpi["t2i_R@1"] == 1
    assert "text to image" in shell.out


def test_texts_without_a_known_word_are_counted_and_named(tmp_path, shell, spec, pairs):
    """To the model they are all alike."""
    (pairs / "p5.txt").write_text("\u6f22\u5b57")
    file = write_spec(tmp_path / "s.yaml", spec)
    assert shell("clip", "evaluate", "-e", file) == 0, shell.err
    told = "1 text holds no word that the tokenizer knows: \u6f22\u5b57"
    assert f"note: {told}" in shell.out
    assert results(spec)["data_notes"] == [told]
    (tmp_path / "words.txt").write_text("three\nzebras quux\n")
    assert shell("clip", "inference", "-e", file) == 0, shell.err
    assert "1 text holds no word that the tokenizer knows: zebras quux" in shell.out


def test_a_wrong_caption_costs_what_it_costs(tmp_path, shell, spec, pairs):
    """Captions of 0 and 1 exchanged, the one of 2 repeats that of 3: the numbers are scikit-learn's."""
    for k, word in ((0, "one"), (1, "zero"), (2, "three")):
        (pairs / f"p{k}.txt").write_text(word)
    assert shell("clip", "evaluate", "-e", write_spec(tmp_path / "s.yaml", spec)) == 0, shell.err
    found = results(spec)
    assert shell("clip", "inference", "-e", tmp_path / "s.yaml") == 0, shell.err
    images = read(tmp_path / "out" / "trt_inference" / "image_embeddings.h5", "image_paths")[0]
    rows = images[[1, 0, 3, 3, 4, 5, 6]]  # the text tower gives the same directions
    similar = np.round(rows @ images.T, 6)
    truth = np.eye(7, dtype=int)
    assert found["t2i_AUC"] == pytest.approx(
        np.mean([roc_auc_score(t, s) for t, s in zip(truth, similar, strict=True)])
    )
    best = [average_precision_score(t, s) for t, s in zip(truth, similar, strict=True)]
    assert found["t2i_mAP"] == pytest.approx(np.mean(best))
    assert found["t2i_R@1"] == pytest.approx(4 / 7)
    # Images 2 and 3 have the same text: for image 2 it is far off, for image 3 the lower index comes first.
    assert found["i2t_AUC"] == pytest.approx(
        np.mean([roc_auc_score(t, s) for t, s in zip(truth, similar.T, strict=True)])
    )
    assert found["i2t_R@1"] == pytest.approx(3 / 7)


def test_ranks_against_a_plain_implementation():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(2, 23, 6)).astype(np.float32)
    texts[5] = texts[9]
    metric = ImageTextMetric(())
    for i in range(23):
        metric.update(Sample(i, (Path("x"),), meta={"text": "t"}), Embeddings(images[i], texts[i]))
    found = metric.compute()
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, texts)]
    for direction, (queries, gallery) in {"i2t": unit, "t2i": unit[::-1]}.items():
        ranks = []
        for i in range(23):
            order = np.argsort(-np.round(queries[i] @ gallery.T, 6), kind="stable")
            ranks.append(list(order).index(i) + 1)
        ranks = np.array(ranks)
        assert found[f"{direction}_mAP"] == pytest.approx((1 / ranks).mean())
        assert found[f"{direction}_MedR"] == np.median(ranks)
        assert found[f"{direction}_MeanR"] == pytest.approx(ranks.mean())
        assert [found[f"{direction}_R@{k}"] for k in (1, 5, 10)] == pytest.approx(
            [(ranks <= k).mean() for k in (1, 5, 10)]
        )


def test_embeddings_are_written_row_by_row(tmp_path, shell, spec, pairs, table):
    """One unreadable image leaves the others at their own rows; .gif files and sub-folders count."""
    (pairs / "p2.png").write_bytes(b"broken")
    picture(pairs / "more" / "a.gif", 9)
    assert shell("clip", "inference", "-e", write_spec(tmp_path / "s.yaml", spec)) == 0, shell.err
    folder = tmp_path / "out" / "trt_inference"
    rows, paths, attributes = read(folder / "image_embeddings.h5", "image_paths")
    order = [9, 0, 1, 3, 4, 5, 6]
    assert [Path(path).name for path in paths] == ["a.gif", *(f"p{k}.png" for k in order[1:])]
    np.testing.assert_allclose(rows, (table / np.linalg.norm(table, axis=1, keepdims=True))[order], atol=1e-6)
    assert (attributes["num_images"], attributes["embedding_dim"], attributes["embedding_type"]) == (7, 12, "image")
    rows, texts, attributes = read(folder / "text_embeddings.h5", "texts")
    assert texts == ["three", "one"]
    np.testing.assert_allclose(rows, (table / np.linalg.norm(table, axis=1, keepdims=True))[[3, 1]], atol=1e-6)
    assert (attributes["num_texts"], attributes["embedding_type"]) == (2, "text")
    assert "skipped" in shell.out
    assert "p2.png" in shell.out
    lines = (folder / "text_to_image.csv").read_text().splitlines()
    assert lines[0] == "query,rank,match,cosine"
    assert lines[1] == f"three,1,{pairs / 'p3.png'},1.0000"
    assert f"{pairs / 'p1.png'},1,one,1.0000" in (folder / "image_to_text.csv").read_text()


def test_two_folders_do_not_overwrite_each_other(tmp_path, shell, spec):
    picture(tmp_path / "others" / "q8.png", 8)
    spec["inference"]["datasets"].append({"image_dir": str(tmp_path / "others")})
    assert shell("clip", "inference", "-e", write_spec(tmp_path / "s.yaml", spec)) == 0, shell.err
    paths = read(tmp_path / "out" / "trt_inference" / "image_embeddings.h5", "image_paths")[1]
    assert len(paths) == 8
    assert paths[-1].endswith("q8.png")


@pytest.fixture
def towers(tmp_path, table):
    """replay_vision.onnx and replay_text.onnx; the text tower has a fixed batch of 4."""
    folder = tmp_path / "two"
    write_model(folder / "replay_vision.onnx", table, towers=("vision",))
    write_model(folder / "replay_text.onnx", table, towers=("text",), batch=4)
    write_sidecars(folder)
    return folder


@pytest.mark.parametrize("given", ["", "replay.onnx", "replay_text.onnx", "replay_vision.onnx"])
def test_separate_towers_give_what_one_model_gives(tmp_path, shell, spec, towers, given):
    spec["evaluate"]["trt_engine"] = spec["inference"]["trt_engine"] = str(towers / given)
    file = write_spec(tmp_path / "s.yaml", spec)
    assert shell("clip", "evaluate", "-e", file, "runtime.contexts=2") == 0, shell.err
    assert "note: runtime.contexts=2 is not possible here: towers run a batch at a time" in shell.out
    assert results(spec)["i2t_mAP"] == results(spec)["t2i_R@1"] == 1
    assert results(spec)["num_images"] == 7
    if not given:
        assert shell("clip", "inference", "-e", file) == 0, shell.err
        assert len(read(tmp_path / "out" / "trt_inference" / "text_embeddings.h5", "texts")[1]) == 2


def test_pictures_alone_need_no_text_engine_and_no_tokenizer(tmp_path, shell, spec, towers):
    (towers / "replay_text.onnx").unlink()
    shutil.rmtree(towers / "replay_tokenizer")
    spec["inference"] |= {"trt_engine": str(towers), "text_file": None}
    file = write_spec(tmp_path / "s.yaml", spec)
    assert shell("clip", "inference", "-e", file) == 0, shell.err
    assert sorted(path.name for path in (tmp_path / "out" / "trt_inference").glob("*.h5")) == ["image_embeddings.h5"]
    error = shell.refused(1, "clip", "evaluate", "-e", file, f"evaluate.trt_engine={towers}")
    assert "needs a text engine" in error
    error = shell.refused(1, "clip", "evaluate", "-e", file, f"evaluate.trt_engine={towers / 'nothing.onnx'}")
    assert "no such model file" in error


def test_files_of_the_towers(tmp_path):
    for name in ("b.engine", "a_text.engine", "a_vision.engine", "c_vision.engine.onnx"):
        (tmp_path / name).touch()
    assert {tower: path.name for tower, path in tower_files(tmp_path).items()} == {
        "vision": "a_vision.engine",
        "text": "a_text.engine",
    }
    (tmp_path / "a_text.engine").unlink()
    assert {tower: path.name for tower, path in tower_files(tmp_path).items()} == {"combined": "b.engine"}
    assert list(tower_files(tmp_path / "c.engine.onnx")) == ["vision"]


def test_classes_by_texts(tmp_path, shell, spec):
    """Two templates a class; the folder "big_two" says "two" by class_names; one image of "three" lies in "one"."""
    root = tmp_path / "classes"
    for folder, ks in (("one", (1, 1, 3)), ("three", (3,)), ("big_two", (2, 2)), ("four", ())):
        (root / folder).mkdir(parents=True)
        for number, k in enumerate(ks):
            picture(root / folder / f"{number}.png", k)
    spec["evaluate"]["zero_shot"] = {
        "images_dir": str(root),
        "class_names": {"big_two": "two"},
        "templates": ["{}", "{} of them"],
    }
    assert shell("clip", "evaluate", "-e", write_spec(tmp_path / "s.yaml", spec)) == 0, shell.err
    found = results(spec)
    assert found["zero_shot_top_1"] == pytest.approx(5 / 6)
    assert found["zero_shot_mean_class"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert found["zero_shot_images"] == 6
    assert found["i2t_mAP"] == 1  # the pairs of dataset.val are measured too
    assert "1 class has no image: four" in shell.out
    del spec["dataset"]
    assert shell("clip", "evaluate", "-e", write_spec(tmp_path / "s.yaml", spec)) == 0, shell.err
    assert "i2t_mAP" not in results(spec)


def test_class_areas_are_scikit_learns():
    rng = np.random.default_rng(2)
    scores, labels = np.round(rng.random((40, 4)), 1), rng.integers(0, 3, 40)  # ties, and a class without images
    wanted = np.mean([roc_auc_score(labels == c, scores[:, c]) for c in range(3)])
    assert class_auc(scores, labels) == pytest.approx(wanted)


def test_the_configuration_decides_over_preprocessing_and_case(tmp_path, shell, spec, table, pairs):
    """CLIP's constants and crop for every type but siglip; canonical texts in evaluate and in inference."""
    export = tmp_path / "clip"
    model = write_model(export / "replay.onnx", table, mean=0.4496, std=0.2688, shape=(3, 16, 16))
    write_sidecars(export, "ViT-L-14", canonicalize=True)
    for k in range(COUNT):  # the borders are bright; the middle square is what counts
        image = Image.new("RGB", (40, 16), "white")
        image.paste((k * STEP,) * 3, (12, 0, 28, 16))
        image.save(pairs / f"p{k}.png")
        (pairs / f"p{k}.txt").write_text(f"  {WORDS[k].upper()}_, is!\n")
    (tmp_path / "words.txt").write_text("THREE!\n")
    for action in ("evaluate", "inference"):
        spec[action]["trt_engine"] = str(model)
        assert shell("clip", action, "-e", write_spec(tmp_path / "s.yaml", spec)) == 0, shell.err
    assert results(spec)["i2t_mAP"] == 1
    rows, texts, _ = read(tmp_path / "out" / "trt_inference" / "text_embeddings.h5", "texts")
    assert texts == ["THREE!"]
    assert rows[0].argmax() == 3
    (export / "replay_config.yaml").write_text("model: {type: siglip2-so400m, canonicalize_text: true}")
    assert shell("clip", "evaluate", "-e", tmp_path / "s.yaml") == 0, shell.err
    assert results(spec)["i2t_R@1"] < 0.5


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engine_takes_its_sidecars_along(tmp_path, shell, spec, pairs, precision):
    calibration = {"cal_image_dir": [str(pairs)], "cal_batch_size": 2, "cal_batches": 2}
    spec["gen_trt_engine"]["tensorrt"] = {"data_type": precision, "calibration": calibration}
    file = write_spec(tmp_path / "s.yaml", spec)
    built = tmp_path / "built"
    (built / "replay_tokenizer").mkdir(parents=True)
    (built / "replay_tokenizer" / "tokenizer.json").write_text("of another model")
    assert shell("clip", "gen_trt_engine", "-e", file) == 0, shell.err
    assert {"replay.engine", "replay_config.yaml", "replay_tokenizer"} <= {path.name for path in built.iterdir()}
    shutil.rmtree(tmp_path / "export")
    assert shell("clip", "evaluate", "-e", file, f"evaluate.trt_engine={built / 'replay.engine.onnx'}") == 0, shell.err
    assert results(spec)["t2i_mAP"] == 1


def test_one_tower_is_built_alone(tmp_path, shell, spec, towers, pairs):
    """Checked on the calibration pairs; a text tower without captions is refused, a vision tower needs no tokenizer."""
    spec["gen_trt_engine"]["tensorrt"] = {"calibration": {"cal_image_dir": [str(pairs)], "cal_batch_size": 4}}
    spec["gen_trt_engine"]["onnx_file"] = str(towers / "replay_text.onnx")
    file = write_spec(tmp_path / "s.yaml", spec)
    assert shell("clip", "gen_trt_engine", "-e", file) == 0, shell.err
    assert "parity of 'text_embedding'" in shell.out
    shutil.rmtree(towers / "replay_tokenizer")
    vision = f"gen_trt_engine.onnx_file={towers / 'replay_vision.onnx'}"
    assert shell("clip", "gen_trt_engine", "-e", file, vision) == 0, shell.err
    for path in pairs.glob("*.txt"):
        path.unlink()
    assert "has no caption" in shell.refused(2, "clip", "gen_trt_engine", "-e", file)


# -- bad input


def test_pairs_without_image_or_caption_are_counted(tmp_path, shell, spec, pairs):
    (pairs / "p0.txt").unlink()
    (pairs / "p1.txt").write_text("  \n")
    (tmp_path / "list.txt").write_text("".join(f"p{k}.png\n" for k in range(3)) + "gone.png\n")
    spec["dataset"]["val"]["datasets"].append({"image_dir": str(pairs), "image_list_file": str(tmp_path / "list.txt")})
    file = write_spec(tmp_path / "s.yaml", spec)
    assert shell("clip", "evaluate", "-e", file) == 0, shell.err
    assert results(spec)["num_images"] == 6
    assert "1 image left out, it has no image file: gone.png" in shell.out
    assert "it has no caption file: p0.png" in shell.out
    assert "it has no text in its caption file: p1.png" in shell.out
    for path in pairs.glob("*.txt"):
        path.unlink()
    assert "not one image has a caption" in shell.refused(1, "clip", "evaluate", "-e", file)


def refusal(shell, tmp_path, spec, action, *, code=2):
    return shell.refused(code, "clip", action, "-e", write_spec(tmp_path / "s.yaml", spec))


def test_what_is_missing_is_named(tmp_path, shell, spec):
    spec["inference"] |= {"datasets": [], "text_file": None}
    assert "nothing to embed" in refusal(shell, tmp_path, spec, "inference")
    (tmp_path / "words.txt").write_text("\n \n")
    spec["inference"] |= {"text_file": str(tmp_path / "words.txt")}
    assert "holds no text" in refusal(shell, tmp_path, spec, "inference", code=1)
    assert not list((tmp_path / "out" / "trt_inference").glob("*.h5"))
    spec["dataset"]["val"]["datasets"] = []
    assert "dataset.val.datasets" in refusal(shell, tmp_path, spec, "evaluate")
    spec["dataset"]["val"]["datasets"] = [{"caption_dir": "x"}]
    assert "no image_dir" in refusal(shell, tmp_path, spec, "evaluate")


def test_a_model_without_sidecars_is_refused(tmp_path, shell, spec):
    config = tmp_path / "export" / "replay_config.yaml"
    for text, message in (
        ("model: [1", "ParserError while parsing a flow sequence in"),
        ("model: {}", "KeyError 'type'"),
    ):
        config.write_text(text)
        told = refusal(shell, tmp_path, spec, "evaluate", code=1)
        assert f"no configuration with model.type: {message}" in told
    config.unlink()
    assert "preprocessing is not known" in refusal(shell, tmp_path, spec, "evaluate")
    spec["model"] = {"type": "siglip-replay"}
    shutil.rmtree(tmp_path / "export" / "replay_tokenizer")
    assert "model.tokenizer" in refusal(shell, tmp_path, spec, "evaluate")
    (tmp_path / "export" / "replay_tokenizer").mkdir()
    assert "tokenizer.json" in refusal(shell, tmp_path, spec, "evaluate")
    write_sidecars(tmp_path / "elsewhere")
    spec["model"]["tokenizer"] = str(tmp_path / "elsewhere" / "replay_tokenizer")
    assert shell("clip", "evaluate", "-e", write_spec(tmp_path / "s.yaml", spec)) == 0, shell.err


def test_class_names_of_no_folder_are_refused(tmp_path, shell, spec):
    picture(tmp_path / "classes" / "one" / "a.png", 1)
    spec["evaluate"]["zero_shot"] = {"images_dir": str(tmp_path / "classes"), "class_names": {"two": "pair"}}
    assert "no class folder two" in refusal(shell, tmp_path, spec, "evaluate")
    spec["evaluate"]["zero_shot"]["templates"] = ["a photo"]
    assert "must hold {}" in refusal(shell, tmp_path, spec, "evaluate")


def test_a_classifier_is_no_clip_model(tmp_path, shell, spec):
    spec["evaluate"]["trt_engine"] = str(MODELS / "classification_pyt.onnx")
    assert "'image_embedding'" in refusal(shell, tmp_path, spec, "evaluate", code=1)


def test_a_typo_is_refused_with_its_key(tmp_path, shell, spec):
    spec["dataset"]["val"]["datasets"][0]["captions_dir"] = "x"
    assert "captions_dir" in refusal(shell, tmp_path, spec, "evaluate")


def test_answers_say_whether_the_nearest_text_is_right():
    """Both kinds of question, each with the cosine of the nearest text."""
    metric = ImageTextMetric(("ant", "bee"))
    unit = np.eye(4, dtype=np.float32)
    for index in range(2):
        metric.update(Sample("t", (Path("x"),), meta={"class": index}), Embeddings(None, unit[index]))
    for label, row in ((0, unit[0]), (1, unit[1]), (0, unit[1]), (1, 3 * unit[1] + 4 * unit[2])):
        metric.update(Sample("i", (Path("x"),), label), Embeddings(np.float32(row), None))
    for image, text in ((unit[0], unit[0]), (unit[2], unit[3]), (unit[3], unit[2])):
        metric.update(Sample("p", (Path("x"),), meta={"text": "t"}), Embeddings(image, text))
    scores, right = zip(*metric.answers(), strict=True)
    assert right == (True, False, False, True, True, False, True)
    assert scores == pytest.approx((1, 1, 1, 1, 1, 1, 0.6))


def test_the_attention_mask_is_ones_for_a_text_and_zeros_without_one():
    """As in training, where padding is attended to."""
    tower = TowerTransform(None, "", ("ids", "mask"), lambda: lambda text: np.array([len(text), 7, 0]), {})
    for meta, ids, mask in (({"text": "four"}, [4, 7, 0], 1), ({}, [0, 0, 0], 0)):
        out = {name: np.full(3, 9) for name in ("ids", "mask")}
        tower(Sample("a", (Path("a"),), meta=meta), out)
        assert (out["ids"].tolist(), out["mask"].tolist()) == (ids, [mask] * 3)


def test_texts_of_an_unknown_model_stay_as_they_are():
    inputs = {"input_ids": TensorInfo("input_ids", (None, 5), np.dtype(np.int64))}
    assert transform(Spec(), Ports(inputs, {})).describe()["text"]["canonical"] is False


def test_matches_are_listed_with_their_cosine(tmp_path):
    writer = EmbeddingWriter(tmp_path, "image", "image_paths", 2)
    rows = {"a": (1, 0), "b": (-0.6, 0.8)}
    for name, row in rows.items():
        both = Embeddings(np.float32(row), np.float32(row[::-1]))
        writer.write(Sample(name, (Path(name),), meta={"text": f"text {name}"}), both)
    writer.close()
    lines = (tmp_path / "image_to_text.csv").read_text().splitlines()
    assert lines == ["query,rank,match,cosine", "a,1,text b,0.8000", "a,2,text a,0.0000",
                     "b,1,text a,0.8000", "b,2,text b,-0.9600"]  # fmt: skip
    lines = (tmp_path / "text_to_image.csv").read_text().splitlines()
    assert lines[3:] == ["text b,1,a,0.8000", "text b,2,b,-0.9600"]
