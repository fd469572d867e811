"""What the two text recognisers share: training lines, the encoder, and how CTC is trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from samples.render import Pixels, image_rng, split_indices
from samples.text_data import MAX_LENGTH, draw_line
from samples.trainers.blocks import ConvNorm, Residual

DIGITS = 10


class Encoder(nn.Sequential):
    """(N, C, H, W) to features (N, 64, 1, W / 4); H is a multiple of 16."""

    def __init__(self, channels: int, height: int) -> None:
        super().__init__()
        self.add_module("stem", ConvNorm(channels, 16, stride=2))
        self.add_module("down1", ConvNorm(16, 32, stride=2))
        self.add_module("layer1", Residual(32))
        self.add_module("down2", ConvNorm(32, 48, stride=(2, 1)))
        self.add_module("layer2", Residual(48))
        self.add_module("down3", ConvNorm(48, 64, stride=(2, 1)))
        self.add_module("collapse", nn.Conv2d(64, 64, (height // 16, 1), bias=False))
        self.add_module("norm", nn.BatchNorm2d(64))
        self.add_module("relu", nn.ReLU())
        self.add_module("mix", nn.Conv2d(64, 64, (1, 3), padding=(0, 1)))
        self.add_module("relu2", nn.ReLU())


def training_lines(count: int, read: Callable[[Pixels], Pixels]) -> tuple[Tensor, Tensor, Tensor]:
    """What ``read`` makes of ``count`` lines (uint8, stacked), their digits (M, 6) padded with 0, and lengths (M,)."""
    images, texts, lengths = [], np.zeros((count, MAX_LENGTH), np.int64), np.zeros(count, np.int64)
    indices = split_indices("train")
    for number in range(count):
        pixels, text = draw_line(image_rng("text_lines", "train", number), indices)
        images.append(read(pixels))
        texts[number, : len(text)], lengths[number] = list(map(int, text)), len(text)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(texts), torch.from_numpy(lengths)


def ctc_loss(logits: Tensor, ids: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """CTC of logits (N, classes, T) against class ids (N, 6)."""
    steps = torch.full_like(lengths, logits.shape[2])
    return functional.ctc_loss(
        logits.log_softmax(1).permute(2, 0, 1), ids, steps, lengths, blank=blank, zero_infinity=True
    )


def best(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, classes, T) to the best class per step, int64, and its probability, both (N, T)."""
    return logits.argmax(1), logits.softmax(1).amax(1)
