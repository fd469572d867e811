"""Tokenizers from local files, with the ``tokenizers`` package; nothing is downloaded."""

from __future__ import annotations

import json
import os
import string
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.errors import ModelError, RuntimeUnavailableError, SpecError

UNKNOWN = "[UNK]"
FOREIGN = "\U00012000"  # a cuneiform sign, in no vocabulary
FILES = ("tokenizer.json", "vocab.txt")


def load_tokenizer(source: str, where: str | None = None) -> Any:
    """The tokenizer of a text encoder.

    Args:
        source: a folder with tokenizer.json or vocab.txt (or one of these files), or the hub name of a tokenizer
            that an earlier download left in the local Hugging Face cache.
        where: place of the key in the spec, for messages.

    Returns:
        A ``tokenizers.Tokenizer`` without truncation and padding.

    Raises:
        RuntimeUnavailableError: the ``tokenizers`` package is not installed.
        SpecError: there are no such files, or they are no BERT tokenizer.
    """
    path = find_tokenizer(source)
    if path is None:
        raise SpecError(
            f"there is no tokenizer '{source}' on this machine",
            where=where,
            remedy=f"Put the {' or '.join(FILES)} that the model was trained with into a folder (for "
            "bert-base-uncased: vocab.txt from huggingface.co/google-bert/bert-base-uncased) and name that folder in "
            "model.text_encoder_type. Nothing is downloaded here.",
        )
    tokenizer = _read(path, where)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    missing = [token for token in ("[CLS]", "[SEP]", "[PAD]", ".") if tokenizer.token_to_id(token) is None]
    if missing:
        raise SpecError(
            f"the vocabulary lacks {', '.join(missing)}, so it is not that of a BERT text encoder", where=str(path)
        )
    return tokenizer


class FixedLength:
    """Texts -> the ids that a Hugging Face tokenizer gives with ``padding="max_length"`` and truncation.

    Args:
        source: a tokenizer folder as Hugging Face saves it (tokenizer.json, CLIP's vocab.json and merges.txt, or
            SigLIP's spiece.model), or its tokenizer.json.
        length: L, the model's context length.
        where: place of the key in the spec, for messages.

    Raises:
        RuntimeUnavailableError: the package that reads it is not installed.
        SpecError: there is no such file, it cannot be read, or it does not say what it pads with.
        ModelError: the model knows no such length.
    """

    def __init__(self, source: Path, length: int, where: str | None = None) -> None:
        folder = source if source.is_dir() else source.parent
        pairs = folder / "vocab.json", folder / "merges.txt"
        path = source if source.is_file() else folder / "tokenizer.json"
        if not path.is_file() and all(pair.is_file() for pair in pairs):
            path = pairs[0]
        if not path.is_file():
            path = next(folder.glob("*.model"), path)
        if not path.is_file():
            raise SpecError(
                f"there is no tokenizer in {source}",
                where=where,
                remedy="Save it with the model's own tokenizer.save_pretrained(): tokenizer.json is read, or "
                "vocab.json and merges.txt, or SigLIP's spiece.model.",
            )
        settings: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            if (folder / name).is_file():
                settings |= json.loads((folder / name).read_text(encoding="utf-8"))
        if path.suffix == ".model":
            self._ids = _siglip(path, settings, length, where)
            return
        tokenizer = _read(path, where)
        pad, left = _padding(tokenizer, settings, path)
        tokenizer.enable_padding(direction="left" if left else "right", pad_id=pad, length=length)
        try:
            tokenizer.enable_truncation(length)
        except ValueError as error:  # not even the special tokens fit
            raise ModelError(f"the model takes {length} tokens, too few for its tokenizer: {error}") from error
        self._ids = lambda text: list(tokenizer.encode(text).ids)

    def knows(self, texts: Iterable[str]) -> list[bool]:
        """Whether any part of each text has a token of its own."""
        nothing = {*self._ids(""), *self._ids(FOREIGN)}
        return [not nothing.issuperset(self._ids(text)) for text in texts]

    def __call__(self, text: str) -> NDArray[np.int64]:
        """(L,) ids, special tokens included; what is too long is cut."""
        return np.array(self._ids(text), np.int64)


def _padding(tokenizer: Any, settings: Mapping[str, Any], path: Path) -> tuple[int, bool]:
    """Id, and whether it goes to the left: by the files beside the tokenizer, else by its own."""
    own = tokenizer.padding or {}
    token = settings.get("pad_token") or own.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    found = None if token is None else tokenizer.token_to_id(token)
    if found is None:
        raise SpecError(
            "the tokenizer does not say what it pads with" if token is None else f"'{token}' is no token of it",
            where=str(path),
            remedy="Put its tokenizer_config.json with a pad_token beside it.",
        )
    return int(found), settings.get("padding_side", own.get("direction")) == "left"


def _siglip(path: Path, settings: Mapping[str, Any], length: int, where: str | None) -> Callable[[str], list[int]]:
    """SigLIP's tokenizer, the one that comes as SentencePiece alone: no ASCII punctuation, </s> ends and fills."""
    kind = settings.get("tokenizer_class", "SiglipTokenizer")
    if kind != "SiglipTokenizer":
        raise SpecError(
            f"this is the SentencePiece model of a {kind}, of which tokenizer.json is read",
            where=str(path),
            remedy="Write it beside it: transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder).",
        )
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        what, remedy = (
            f"{path.name} needs the 'sentencepiece' package, which is not installed",
            "pip install sentencepiece",
        )
        raise RuntimeUnavailableError(what, where=where, remedy=remedy) from error
    try:
        pieces = SentencePieceProcessor(model_file=str(path))
    except Exception as error:  # the package raises what its C++ raises
        raise SpecError(f"not a readable tokenizer: {error}", where=str(path)) from error
    end, lower = pieces.piece_to_id("</s>"), settings.get("do_lower_case", True)

    def ids(text: str) -> list[int]:
        words = " ".join((text.lower() if lower else text).translate(_NO_PUNCTUATION).split())
        found = pieces.encode(words)[: length - 1]
        return [*found, *[end] * (length - len(found))]

    return ids


def canonical(text: str) -> str:
    """Lower case, ``_`` as a blank, no ASCII punctuation, one blank between words (``model.canonicalize_text``)."""
    return " ".join(text.replace("_", " ").translate(_NO_PUNCTUATION).lower().split())


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _read(path: Path, where: str | None) -> Any:
    """A tokenizer from tokenizer.json, CLIP's vocab.json with merges.txt, or BERT's vocab.txt."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise RuntimeUnavailableError(
            "captions need the 'tokenizers' package, which is not installed",
            where=where,
            remedy="pip install tokenizers",
        ) from error
    try:
        if path.name == "vocab.json":
            tokenizer = _byte_pairs(path)
        else:
            tokenizer = Tokenizer.from_file(str(path)) if path.suffix == ".json" else _word_pieces(path)
    except Exception as error:  # the package raises bare Exception for every broken file
        raise SpecError(f"not a readable tokenizer: {error}", where=str(path)) from error
    return tokenizer


def find_tokenizer(source: str) -> Path | None:
    """The tokenizer file that ``source`` stands for (see :func:`load_tokenizer`); None if there is none."""
    given = Path(source).expanduser()
    if given.is_file():
        return given
    for folder in (given, *_cached(source)):
        for name in FILES:
            if (folder / name).is_file():
                return folder / name
    return None


def _cached(name: str) -> list[Path]:
    """Folders of a hub name in the Hugging Face cache, newest first."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    repositories = (name, f"google-bert/{name}") if "/" not in name else (name,)
    found = [
        folder
        for repository in repositories
        for folder in (hub / f"models--{repository.replace('/', '--')}").glob("snapshots/*")
    ]
    return sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)


def _byte_pairs(vocabulary: Path) -> Any:
    """CLIP's byte-level BPE over vocab.json and merges.txt, set up as its fast tokenizer is."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    start, end = "<|startoftext|>", "<|endoftext|>"
    vocab, merges = models.BPE.read_file(str(vocabulary), str(vocabulary.with_name("merges.txt")))
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=end)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([start, end])
    tokenizer.enable_padding(pad_id=vocab[end], pad_token=end)
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, vocab[end]), (start, vocab[start]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def _word_pieces(vocabulary: Path) -> Any:
    """BERT's WordPiece over a vocabulary file, set up as its fast tokenizer is."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = models.WordPiece.read_file(str(vocabulary))
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token=UNKNOWN, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=_lower_cases(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens([token for token in ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]") if token in pieces])
    if "[CLS]" in pieces and "[SEP]" in pieces:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", pieces["[SEP]"]), ("[CLS]", pieces["[CLS]"]))
    return tokenizer


def _lower_cases(vocabulary: Path) -> bool:
    """What tokenizer_config.json beside the vocabulary says; else true unless the folder is named "...-cased"."""
    config = vocabulary.with_name("tokenizer_config.json")
    if config.is_file():
        content = json.loads(config.read_text(encoding="utf-8"))
        return bool(content.get("do_lower_case", True))
    name = vocabulary.parent.name
    return not name.endswith("-cased")
