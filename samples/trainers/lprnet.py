"""lprnet: license plates by CTC whose blank is the last class."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from torch import Tensor, nn

from samples.render import Pixels
from samples.trainers.fit import Batch, export, fit, seed_everything
from samples.trainers.text_lines import DIGITS, Encoder, best, ctc_loss, training_lines

WIDTH, HEIGHT = 96, 48


class PlateReader(nn.Module):
    """(N, 3, 48, 96) in [0, 1] to class ids and probabilities (N, 24); the channels are summed first."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(1, HEIGHT)
        self.head = nn.Conv2d(64, DIGITS + 1, 1)

    def logits(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images.sum(1, keepdim=True))).squeeze(2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return best(self.logits(images))


def read(pixels: Pixels) -> Pixels:
    """(3, 48, 96), BGR, as the command reads plates."""
    return np.ascontiguousarray(cv2.resize(pixels[..., ::-1], (WIDTH, HEIGHT)).transpose(2, 0, 1))


def loss(model: nn.Module, batch: Batch) -> Tensor:
    images, texts, lengths = batch
    return ctc_loss(model.logits(images / 255), texts, lengths, DIGITS)


def train(folder: Path) -> None:
    """Train and write ``folder/lprnet.onnx``."""
    seed_everything()
    model = fit(PlateReader(), training_lines(12000, read), loss, epochs=12, batch_size=64, learning_rate=3e-3)
    names = ["tf_op_layer_ArgMax", "tf_op_layer_Max"]
    export(model, folder / "lprnet.onnx", (3, HEIGHT, WIDTH), "image_input", names)
