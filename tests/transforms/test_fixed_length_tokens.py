"""Tokenizers that come as SentencePiece alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.transforms.tokenizer import FixedLength

TEXTS = (
    "the cat's of  THE\t12345 cats", "caf\u00e9 Cafe\u0301 \u0130!!", "", "a-b_c...'RE don't", "\u732b \u00bd 3rd",
)  # fmt: skip
SENTENCES = ("a photo of a cat", "a photo of a dog", "the dog and the cat in a photo", "hello world of cats")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers.SiglipTokenizer.save_pretrained leaves: spiece.model and tokenizer_config.json."""
    folder = tmp_path_factory.mktemp("siglip_tokenizer")
    options = {"vocab_size": 24, "bos_id": -1, "eos_id": 1, "unk_id": 0, "minloglevel": 2}
    prefix = str(folder / "spiece")
    SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES * 20), model_prefix=prefix, **options)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>"}')
    return folder


def test_siglip_drops_case_and_punctuation_and_fills_with_the_end(siglip: Path) -> None:
    pieces = SentencePieceProcessor(model_file=str(siglip / "spiece.model"))
    words = pieces.encode("a photo of a cat")
    tokens = FixedLength(siglip, 20)
    assert tokens("A  Photo, of a (CAT)!").tolist() == [*words, *[1] * (20 - len(words))]
    assert tokens("a_photo").tolist()[:-1] == [*pieces.encode("aphoto"), *[1] * 19][:19]
    assert tokens("").tolist() == [1] * 20
    short = FixedLength(siglip, 3)
    assert short("a photo of a cat").tolist() == [*words[:2], 1]
    assert tokens("a photo").dtype == "int64"


def test_texts_of_which_nothing_is_known(siglip: Path, tmp_path: Path) -> None:
    texts = ("a photo", "\u6f22\u5b57", "\u6f22 cat", "?!", "")
    assert FixedLength(siglip, 9).knows(texts) == [True, False, True, False, False]
    words = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "cat", "?"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "[PAD]"}')
    assert FixedLength(tmp_path, 9).knows(("a cat", "two dogs", "?", "")) == [True, False, True, False]


def test_case_stays_where_the_tokenizer_keeps_it(siglip: Path, tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes((siglip / "spiece.model").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert FixedLength(tmp_path, 9)("Cat").tolist() != FixedLength(siglip, 9)("Cat").tolist()
    assert FixedLength(tmp_path, 9)("cat").tolist() == FixedLength(siglip, 9)("cat").tolist()


def test_other_sentence_pieces_are_refused_with_the_way_out(siglip: Path, tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes((siglip / "spiece.model").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    with pytest.raises(SpecError, match="T5Tokenizer, of which tokenizer") as refused:
        FixedLength(tmp_path, 9)
    assert "save_pretrained" in str(refused.value)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "spiece.model").write_bytes(b"broken")
    with pytest.raises(SpecError, match="not a readable tokenizer"):
        FixedLength(tmp_path, 9)


def test_clips_byte_pairs_are_those_of_hugging_face(tmp_path: Path) -> None:
    """vocab.json and merges.txt, as older exports have them."""
    transformers = pytest.importorskip("transformers")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["t h", "th e</w>", "c a", "ca t</w>", "' s</w>", "o f</w>", "1 2", "\u00c3 \u00a9</w>", "! !</w>"]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(pair.replace(" ", "") for pair in merges)]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    other = transformers.CLIPTokenizer(vocab=vocabulary, merges=[tuple(pair.split()) for pair in merges])
    for length in (24, 7):
        own = FixedLength(tmp_path, length)
        for text in (
            "the cat's of  THE\t12345 cats",
            "caf\u00e9 Cafe\u0301 \u0130!!",
            "",
            "a-b_c...'RE don't",
            "\u732b \u00bd 3rd",
        ):
            wanted = other(text, padding="max_length", truncation=True, max_length=length)["input_ids"]
            assert own(text).tolist() == wanted, text
