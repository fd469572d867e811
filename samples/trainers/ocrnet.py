"""ocrnet: one encoder trained with a CTC head and an attention decoder, written as two models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from samples.render import Pixels
from samples.text_data import MAX_LENGTH
from samples.trainers.fit import Batch, export, fit, seed_everything
from samples.trainers.text_lines import DIGITS, Encoder, best, ctc_loss, training_lines

WIDTH, HEIGHT = 100, 32
STEPS = WIDTH // 4
GO, STOP = 0, 1


class CtcReader(nn.Module):
    """(N, 1, 32, 100) in [-1, 1] to class ids, int32, and probabilities (N, 25); class 0 is the blank."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Conv2d(64, DIGITS + 1, 1)

    def logits(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images)).squeeze(2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        ids, probabilities = best(self.logits(images))
        return ids.int(), probabilities


class AttentionReader(nn.Module):
    """(N, 1, 32, 100) in [-1, 1] to class ids, int32, and probabilities (N, 7): [GO], [s], then the digits.

    Additive attention over the columns around a gated recurrent state, unrolled.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.place = nn.Parameter(torch.randn(1, STEPS, 64) * 0.1)
        self.key, self.query, self.score = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 1)
        self.token = nn.Embedding(DIGITS + 2, 32)
        self.gates, self.content = nn.Linear(160, 128), nn.Linear(160, 64)
        self.head = nn.Linear(64, DIGITS + 2)

    def logits(self, images: Tensor, texts: Tensor | None = None) -> Tensor:
        """(N, 12, 7); each step sees the character of ``texts`` (N, 6) before it, else its own last one."""
        features = self.encoder(images).squeeze(2).transpose(1, 2) + self.place
        keys = self.key(features)
        state = features.mean(1)
        last = torch.zeros_like(images[:, 0, 0, 0], dtype=torch.int64)
        found = []
        for step in range(MAX_LENGTH + 1):
            weights = self.score(torch.tanh(keys + self.query(state).unsqueeze(1))).softmax(1)
            seen = torch.cat([(weights * features).sum(1), self.token(last)], 1)
            keep, forget = self.gates(torch.cat([seen, state], 1)).sigmoid().chunk(2, 1)
            new = torch.tanh(self.content(torch.cat([seen, forget * state], 1)))
            state = keep * state + (1 - keep) * new
            found.append(self.head(state))
            last = found[-1].argmax(1) if texts is None or step == MAX_LENGTH else texts[:, step]
        return torch.stack(found, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        ids, probabilities = best(self.logits(images))
        return ids.int(), probabilities


class Readers(nn.Module):
    """Both, on one encoder."""

    def __init__(self) -> None:
        super().__init__()
        encoder = Encoder(1, HEIGHT)
        self.ctc, self.attention = CtcReader(encoder), AttentionReader(encoder)


def read(pixels: Pixels) -> Pixels:
    """(1, 32, 100), grey, as the command reads words."""
    grey = Image.fromarray(pixels).convert("L").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return np.asarray(grey)[None]


def loss(model: nn.Module, batch: Batch) -> Tensor:
    images, texts, lengths = batch
    images = (images / 255 - 0.5) / 0.5
    places = torch.arange(MAX_LENGTH + 1)
    ended = functional.pad(texts + 2, (0, 1)).masked_fill(places >= lengths[:, None], STOP)
    attention = functional.cross_entropy(model.attention.logits(images, ended[:, :-1]), ended)
    return ctc_loss(model.ctc.logits(images), texts + 1, lengths, 0) + attention


def train(folder: Path) -> None:
    """Train and write ``folder/ocrnet.onnx`` (CTC) and ``folder/ocrnet_attn.onnx``."""
    seed_everything()
    model = fit(Readers(), training_lines(20000, read), loss, epochs=12, batch_size=64, learning_rate=3e-3)
    for name, reader in (("ocrnet", model.ctc), ("ocrnet_attn", model.attention)):
        export(reader, folder / f"{name}.onnx", (1, HEIGHT, WIDTH), "input", ["output_id", "output_prob"])
