"""Pictures of two digits side by side with a caption each, and the tokenizer their words make."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samples.data import fresh_folder
from samples.render import CLASSES, Pixels, background, digits, image_rng, paint, split_indices, stroke, to_pixels

INKS = {"orange": "an", "blue": "a", "brown": "a"}
SIZES = ((96, 96), (128, 96), (96, 112), (128, 128))
ONE = list(product(INKS, range(10)))
PAIRS = list(product(ONE, ONE))  # ink and digit on the left, and on the right
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
START, END = "<|startoftext|>", "<|endoftext|>"


def caption(pair: int) -> str:
    """E.g. "an orange seven left of a blue two"."""
    left, right = (f"{INKS[ink]} {ink} {CLASSES[digit]}" for ink, digit in PAIRS[pair])
    return f"{left} left of {right}"


def prompt(digit: int) -> str:
    """What an orange digit alone is called."""
    return f"a photo of a {CLASSES[digit]}"


def draw_pair(rng: np.random.Generator, indices: NDArray[np.int64], pair: int) -> Pixels:
    """The two digits, taken from ``indices``, in the middle square of an RGB uint8 picture of one of ``SIZES``."""
    width, height = SIZES[rng.integers(len(SIZES))]
    side = min(width, height)
    image = background(rng, width, height)
    values = digits()[1]
    for place, (name, digit) in zip((-0.22, 0.22), PAIRS[pair], strict=True):
        ink = stroke(rng, int(rng.choice(indices[values[indices] == digit])), side * rng.uniform(0.42, 0.52))
        x = round(width / 2 + (place + rng.uniform(-0.02, 0.02)) * side - ink.shape[1] / 2)
        y = round(height / 2 + rng.uniform(-0.15, 0.15) * side - ink.shape[0] / 2)
        paint(rng, image, ink, name, x, y)
    return to_pixels(image)


def write_captions(out: Path, *, test: int = 120, calibration: int = 48) -> Path:
    """Write ``out/captions``: ``<split>/pair_<n>.{png,txt}``, no caption twice in a split, and ``prompts.txt``."""
    with fresh_folder(Path(out) / "captions") as folder:
        (folder / "prompts.txt").write_text("".join(f"{prompt(digit)}\n" for digit in range(10)))
        for split, count in (("test", test), ("calibration", calibration)):
            (folder / split).mkdir()
            pairs = image_rng("captions", split, 0).permutation(len(PAIRS))
            for number, pair in enumerate(pairs[:count].tolist()):
                pixels = draw_pair(image_rng("captions", split, number + 1), split_indices(split), pair)
                Image.fromarray(pixels).save(folder / split / f"pair_{number:04d}.png")
                (folder / split / f"pair_{number:04d}.txt").write_text(f"{caption(pair)}\n")
    return Path(out) / "captions"


def write_tokenizer(folder: Path) -> None:
    """Write a byte-level BPE tokenizer of CLIP's kind, trained on the captions, as Hugging Face saves one."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=400, end_of_word_suffix="</w>", special_tokens=[START, END], show_progress=False
    )
    texts = [*map(caption, range(len(PAIRS))), *map(prompt, range(10)), *(chr(c) for c in range(33, 127))]
    tokenizer.train_from_iterator(texts, trainer)
    ids = {token: tokenizer.token_to_id(token) for token in (START, END)}
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, ids[END]), (START, ids[START]), trim_offsets=False, add_prefix_space=False
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    named = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(named, indent=2) + "\n")
    settings = {**named, "tokenizer_class": "CLIPTokenizer", "model_max_length": 16}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
