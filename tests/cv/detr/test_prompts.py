"""Captions to text inputs: the contract's example cases, and Hugging Face's tokenizer and masks as references."""

from __future__ import annotations

import json
import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detr_replay import WORDS, vocabulary, write_vocabulary

from nvidia_tao_deploy.cv.grounding_dino.spec import Spec
from nvidia_tao_deploy.errors import DataError, ModelError, RuntimeUnavailableError, SpecError
from nvidia_tao_deploy.families.grounding import transform
from nvidia_tao_deploy.network import Ports
from nvidia_tao_deploy.predictions.detr import class_scores
from nvidia_tao_deploy.runtime.session import TensorInfo
from nvidia_tao_deploy.spec.load import load_spec
from nvidia_tao_deploy.transforms.prompt import TEXT_INPUTS, PromptEncoder
from nvidia_tao_deploy.transforms.tokenizer import load_tokenizer

IDS = vocabulary()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_vocabulary(tmp_path / "bert")


@pytest.fixture
def encoder(folder: Path) -> PromptEncoder:
    return PromptEncoder(load_tokenizer(str(folder)), 24)


def tokens(encoder: PromptEncoder, names: list[str]) -> list[list[str]]:
    """The word pieces of each class."""
    words = {i: word for word, i in IDS.items()}
    prompt = encoder.classes(names)
    return [[words[int(i)] for i in prompt.input_ids[a:b]] for a, b in prompt.spans]


def test_ids_masks_and_positions_of_a_caption(encoder: PromptEncoder) -> None:
    prompt = encoder.classes(["traffic light", "car"])
    words = ["[CLS]", "traffic", "light", ".", "car", ".", "[SEP]"]
    assert prompt.caption == "traffic light . car ."
    assert prompt.input_ids.tolist() == [IDS[w] for w in words] + [0] * 17
    assert prompt.attention_mask.tolist() == [True] * 7 + [False] * 17
    assert prompt.position_ids.tolist() == [0, 0, 1, 2, 0, 1, 0] + [0] * 17
    wanted = np.eye(24, dtype=bool)
    wanted[1:4, 1:4] = wanted[4:6, 4:6] = True
    np.testing.assert_array_equal(prompt.text_token_mask, wanted)
    assert not prompt.token_type_ids.any()


def test_names_keep_their_own_tokens(encoder: PromptEncoder) -> None:
    """The established search finds "ball" in "football", and the second "car" at the first."""
    assert tokens(encoder, ["football", "ball", "car", "car"]) == [["foot", "##ball"], ["ball"], ["car"], ["car"]]
    spans = encoder.classes(["football", "ball", "car", "car"]).spans
    assert spans.tolist() == [[1, 3], [4, 5], [6, 7], [8, 9]]


def test_blanks_and_case_do_not_count(encoder: PromptEncoder) -> None:
    assert encoder.classes([" Traffic LIGHT", "car "]).caption == "traffic light . car ."


def test_a_caption_over_the_limit_names_the_classes(encoder: PromptEncoder) -> None:
    full = encoder.classes(["car"] * 11)
    assert len(full.spans) == 11  # 2 * 11 + 2 tokens: exactly 24
    assert full.text_token_mask[21:, 21:].tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert full.position_ids[19:].tolist() == [0, 1, 0, 1, 0]
    with pytest.raises(SpecError, match=r"12 classes has 26 tokens, the model takes 24; past the end: zebra"):
        encoder.classes(["car"] * 11 + ["zebra"])
    with pytest.raises(SpecError, match="without a token: '  '"):
        encoder.classes(["car", "  "])
    with pytest.raises(DataError, match="27 tokens"):
        encoder.expression("the " * 25)
    with pytest.raises(DataError, match="no token"):
        encoder.expression(" ")


def test_tokenizer_files_and_what_to_do_without(tmp_path: Path, folder: Path, monkeypatch: Any) -> None:
    from tokenizers import Tokenizer

    plain = load_tokenizer(str(folder))
    other = tmp_path / "json"
    other.mkdir()
    plain.enable_truncation(3)
    plain.enable_padding(length=9)
    plain.save(str(other / "tokenizer.json"))
    saved = Tokenizer.from_file(str(other / "tokenizer.json"))
    assert saved.truncation is not None
    plain.no_truncation()
    plain.no_padding()
    for source in (other, other / "tokenizer.json", folder / "vocab.txt"):
        assert load_tokenizer(str(source)).encode("Traffic football?").ids == plain.encode("Traffic football?").ids
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert load_tokenizer(str(folder)).encode("Car").tokens == ["[CLS]", "[UNK]", "[SEP]"]

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(SpecError, match="no tokenizer 'bert-base-uncased'") as caught:
        load_tokenizer("bert-base-uncased", "spec.yaml:3: model.text_encoder_type")
    assert "vocab.txt" in str(caught.value)
    assert "spec.yaml:3" in str(caught.value)
    cached = tmp_path / "hub" / "models--google-bert--bert-base-uncased" / "snapshots" / "abc"
    write_vocabulary(cached)
    assert load_tokenizer("bert-base-uncased").encode("car").tokens == ["[CLS]", "car", "[SEP]"]

    (other / "tokenizer.json").write_text("{")
    with pytest.raises(SpecError, match="not a readable tokenizer"):
        load_tokenizer(str(other))
    (folder / "vocab.txt").write_text("a\nb\n[UNK]\n")
    with pytest.raises(SpecError, match=r"lacks \[CLS\]"):
        load_tokenizer(str(folder))
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(RuntimeUnavailableError, match="'tokenizers' package"):
        load_tokenizer(str(folder))


def random_names(rng: random.Random) -> list[str]:
    pool = [word.removeprefix("##") for word in WORDS] + ["Unknown", "football", "e.g. car", "what?", "ça", "car,red"]
    return [" ".join(rng.choice(pool) for _ in range(rng.randint(1, 3))) for _ in range(rng.randint(1, 6))]


@pytest.mark.parametrize("seed", range(5))
def test_equals_hugging_face(seed: int, folder: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers import BertTokenizerFast
    from transformers.models.grounding_dino import modeling_grounding_dino as reference

    rng = random.Random(seed)
    length = 96
    hugging = BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True)
    encoder = PromptEncoder(load_tokenizer(str(folder)), length)
    special = torch.tensor([IDS[word] for word in ("[CLS]", "[SEP]", ".", "?")])
    for _ in range(20):
        names = random_names(rng)
        prompt = encoder.classes(names)
        batch = hugging([prompt.caption], padding="max_length", max_length=length)
        assert prompt.input_ids.tolist() == batch["input_ids"][0]
        assert prompt.attention_mask.tolist() == [bool(v) for v in batch["attention_mask"][0]]
        masks, positions = reference.generate_masks_with_special_tokens_and_transfer_map(
            torch.tensor(batch["input_ids"]), special
        )
        np.testing.assert_array_equal(prompt.text_token_mask, masks[0].bool().numpy())
        np.testing.assert_array_equal(prompt.position_ids, positions[0].numpy())
        start = 0
        for name, (first, end) in zip((n.strip().lower() for n in names), prompt.spans.tolist(), strict=True):
            inside = [batch.char_to_token(0, c) for c in range(start, start + len(name))]
            inside = [t for t in inside if t is not None]
            assert (first, end) == (min(inside), max(inside) + 1)
            start += len(name) + 3
        active = np.array([rng.random() < 0.5 for _ in range(length)]) & prompt.attention_mask
        ids = prompt.input_ids[active].tolist()
        wanted = hugging.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
        assert prompt.phrase(active) == wanted


@pytest.mark.parametrize("seed", range(4))
def test_class_scores_equal_the_normalized_map(seed: int, encoder: PromptEncoder) -> None:
    rng = np.random.default_rng(seed)
    prompt = encoder.classes(["football", "ball", "traffic light left", "car"][: seed + 1])
    probabilities = rng.random((50, 24)).astype(np.float32)
    classes = np.zeros((len(prompt.spans), 24))
    for row, (first, end) in zip(classes, prompt.spans, strict=True):
        row[first:end] = 1 / (end - first)
    np.testing.assert_allclose(class_scores(probabilities, prompt.spans), probabilities @ classes.T, rtol=1e-12)
    assert class_scores(probabilities[:0], prompt.spans).shape == (0, len(prompt.spans))
    same = class_scores(np.repeat(probabilities[:1], 50, axis=0), prompt.spans)
    assert (same == same[0]).all()


@pytest.mark.parametrize(("ids", "mask", "fits"), [(9, (9, 9), True), (None, (9, 9), False), (9, (9, 8), False),
                                                   (9, (None, 9), False)])  # fmt: skip
def test_a_text_length_that_is_not_one_is_refused(ids: int | None, mask: tuple[int | None, int], fits: bool) -> None:
    shapes = dict.fromkeys(TEXT_INPUTS, (None, ids)) | {"inputs": (None, 3, 8, 8), "text_token_mask": (None, *mask)}
    ports = Ports({name: TensorInfo(name, shape, np.dtype(np.float32)) for name, shape in shapes.items()}, {})
    with nullcontext() if fits else pytest.raises(ModelError, match="no one fixed length"):
        transform(load_spec(Spec, {}), ports)
