"""BERT tokenizers from local files, with the ``tokenizers`` package; nothing is downloaded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nvidia_tao_deploy.errors import RuntimeUnavailableError, SpecError

UNKNOWN = "[UNK]"
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
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise RuntimeUnavailableError(
            "captions need the 'tokenizers' package, which is not installed",
            where=where,
            remedy="pip install tokenizers",
        ) from error
    path = find_tokenizer(source)
    if path is None:
        raise SpecError(
            f"there is no tokenizer '{source}' on this machine",
            where=where,
            remedy=f"Put the {' or '.join(FILES)} that the model was trained with into a folder (for "
            "bert-base-uncased: vocab.txt from huggingface.co/google-bert/bert-base-uncased) and name that folder in "
            "model.text_encoder_type. Nothing is downloaded here.",
        )
    try:
        tokenizer = Tokenizer.from_file(str(path)) if path.suffix == ".json" else _word_pieces(path)
    except Exception as error:  # the package raises bare Exception for every broken file
        raise SpecError(f"not a readable tokenizer: {error}", where=str(path)) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    missing = [token for token in ("[CLS]", "[SEP]", "[PAD]", ".") if tokenizer.token_to_id(token) is None]
    if missing:
        raise SpecError(
            f"the vocabulary lacks {', '.join(missing)}, so it is not that of a BERT text encoder", where=str(path)
        )
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
