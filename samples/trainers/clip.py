"""clip: a convolutional tower for pictures, one for captions, and vectors of 64 numbers that meet."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from samples.caption_data import PAIRS, caption, draw_pair, prompt, write_tokenizer
from samples.render import image_rng, split_indices
from samples.trainers.blocks import ConvNorm, Residual
from samples.trainers.digit_pool import training_digits
from samples.trainers.fit import OPSET, Batch, constants_to_initializers, fit, seed_everything

SIZE, LENGTH, WIDTH = 64, 16, 64
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CONFIG = """\
model:
  type: clip-digits
  adaptor_name: null
  canonicalize_text: true
"""
INPUTS, OUTPUTS = ("image", "input_ids", "attention_mask"), ("image_embedding", "text_embedding", "logit_scale")


class Words(nn.Sequential):
    """Convolution over the tokens, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, (1, 5), padding=(0, 2), bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )


class Clip(nn.Module):
    """Pictures (N, 3, 64, 64), token ids and mask (N, 16) to embeddings (N, 64) of both, and the scale of cosines."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vision = nn.Sequential(
            ConvNorm(3, 16, stride=2),
            ConvNorm(16, 32, stride=2),
            Residual(32),
            ConvNorm(32, 48, stride=2),
            Residual(48),
            ConvNorm(48, 48, stride=2),
            nn.Flatten(),
            nn.Linear(48 * 16, WIDTH),
        )
        self.words = nn.Embedding(vocabulary, 32)
        self.places = nn.Parameter(0.1 * torch.randn(1, LENGTH, 32))
        self.text = nn.Sequential(Words(32, 48), Words(48, 48), Words(48, 48))
        self.head = nn.Linear(48, WIDTH)
        self.scale = nn.Parameter(torch.tensor(np.log(10.0), dtype=torch.float32))

    def forward(self, image: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = (self.words(ids) + self.places).transpose(1, 2).unsqueeze(2)
        weights = mask.to(torch.float32)
        features = (self.text(tokens).squeeze(2) * weights.unsqueeze(1)).sum(2) / weights.sum(1, keepdim=True).clamp(1)
        return self.vision(image), self.head(features), self.scale.exp()


def crop(image: Image.Image) -> Image.Image:
    """The shorter side to 64 pixels by Pillow bicubic, then the middle square."""
    width, height = image.size
    scale = SIZE / min(width, height)
    image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    return image.crop((left, top, left + SIZE, top + SIZE))


def training_pool(count: int, copies: int, tokens: dict[str, list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """``count`` pictures of pairs and ``copies`` of every training digit: images, token ids, number of the caption."""
    texts = list(tokens)
    pairs = image_rng("captions", "train", 0).integers(len(PAIRS), size=count)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for number, pair in enumerate(pairs.tolist()):
        drawn = draw_pair(image_rng("captions", "train", number + 1), split_indices("train"), pair)
        images[number] = crop(Image.fromarray(drawn))
    singles, values, _ = training_digits(copies, SIZE, crop)
    numbers = torch.cat([torch.from_numpy(pairs), len(PAIRS) + values])
    ids = torch.tensor([tokens[text] for text in texts])[numbers]
    return torch.cat([torch.from_numpy(images).permute(0, 3, 1, 2), singles]), ids, numbers


def contrastive_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy both ways; every text with the picture's words is right."""
    images, ids, numbers = batch
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    vision, text, scale = model((images / 255 - mean) / std, ids, torch.ones_like(ids))
    logits = scale * functional.normalize(vision) @ functional.normalize(text).T
    right = (numbers[:, None] == numbers).float()
    right = right / right.sum(1, keepdim=True)
    return functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)


def export(model: nn.Module, path: Path, ids: Tensor) -> None:
    """Write ``path``, checked by onnx and against torch."""
    import onnx
    import onnxruntime

    def example(rows: int) -> tuple[Tensor, ...]:
        return torch.rand(rows, 3, SIZE, SIZE), ids[:rows], torch.ones_like(ids[:rows])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            example(2),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_axes={name: {0: "batch"} for name in (*INPUTS, *OUTPUTS[:2])},
        )
    proto = onnx.load(str(path))
    constants_to_initializers(proto)
    onnx.save(proto, str(path))
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for rows in (1, 3):
        feeds = example(rows)
        with torch.no_grad():
            wanted = model(*feeds)
        for ours, theirs in zip(
            session.run(OUTPUTS, {n: t.numpy() for n, t in zip(INPUTS, feeds, strict=True)}), wanted, strict=True
        ):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-4)
    print(f"  {path}: {path.stat().st_size:,} bytes, {len(proto.graph.node)} nodes")


def train(folder: Path, *, count: int = 12000, copies: int = 4, epochs: int = 16) -> None:
    """Train and write ``folder/clip.onnx``, ``clip_config.yaml`` and ``clip_tokenizer``."""
    from tokenizers import Tokenizer

    seed_everything()
    write_tokenizer(folder / "clip_tokenizer")
    tokenizer = Tokenizer.from_file(str(folder / "clip_tokenizer" / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("<|endoftext|>"), length=LENGTH)
    texts = [*map(caption, range(len(PAIRS))), *map(prompt, range(10))]
    tokens = {text: tokenizer.encode(text).ids for text in texts}
    pool = training_pool(count, copies, tokens)
    model = fit(
        Clip(tokenizer.get_vocab_size()), pool, contrastive_loss, epochs=epochs, batch_size=128, learning_rate=4e-3
    )
    (folder / "clip_config.yaml").write_text(CONFIG)
    export(model, folder / "clip.onnx", pool[1])
