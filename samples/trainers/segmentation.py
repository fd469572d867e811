"""segformer and unet: one encoder-decoder trained once, exported as either trainer exports its own."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from samples.pixels_data import CLASSES, draw_masked
from samples.render import image_rng, split_indices
from samples.trainers.blocks import Decoder, Encoder, twice
from samples.trainers.fit import Batch, export, fit, seed_everything

WIDTH, HEIGHT = 160, 128


class Segmenter(nn.Module):
    """(N, 3, H, W) RGB in [-1, 1] to logits of a quarter of the size and of the whole size."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.quarter = nn.Conv2d(Decoder.WIDTH, len(CLASSES), 1)
        self.whole = nn.Conv2d(Decoder.WIDTH, len(CLASSES), 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.decoder(self.encoder(images))
        return self.quarter(features[2]), self.whole(twice(features[3]))


class Segformer(nn.Module):
    """The logits of a quarter of the size."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)[0]


class Unet(nn.Module):
    """(N, 3, H, W) BGR in [-1, 1] to the best class (N, H, W, 1)."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = deepcopy(model)
        first = self.model.encoder.stem.conv.weight
        first.data = first.data.flip(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)[1].permute(0, 2, 3, 1).argmax(-1, keepdim=True)


def training_pool(count: int) -> tuple[Tensor, Tensor]:
    """uint8 images (M, 3, H, W) and labels (M, H, W)."""
    images = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    labels = np.empty((count, HEIGHT, WIDTH), np.uint8)
    for number in range(count):
        drawn, marked = draw_masked(image_rng("masks", "train", number), split_indices("train"))
        images[number] = Image.fromarray(drawn).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        labels[number] = Image.fromarray(marked).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)


def segmentation_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy at the labels' size; the quarter's logits are stretched to it."""
    images, labels = batch
    quarter, whole = model(images / 127.5 - 1)
    stretched = functional.interpolate(quarter, labels.shape[1:], mode="bilinear")
    return sum(functional.cross_entropy(logits, labels.long()) for logits in (stretched, whole))


def train(folder: Path) -> None:
    """Train once and write ``folder/segformer.onnx`` and ``folder/unet.onnx``."""
    seed_everything()
    model = fit(Segmenter(), training_pool(3000), segmentation_loss, epochs=20, batch_size=16, learning_rate=4e-3)
    shape = (3, HEIGHT, WIDTH)
    export(Segformer(model).eval(), folder / "segformer.onnx", shape, "input", ["output"])
    export(Unet(model).eval(), folder / "unet.onnx", shape, "input_1", ["argmax_1"], opset=11)
