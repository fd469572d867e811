"""depth_net, mono and relative: an encoder-decoder that gives inverse depth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from samples.depth_data import draw_depth
from samples.render import image_rng, split_indices
from samples.trainers.blocks import Decoder, Encoder, twice
from samples.trainers.classification_pyt import MEAN, STD
from samples.trainers.fit import Batch, export, fit, seed_everything
from samples.trainers.rtdetr import bilinear

WIDTH, HEIGHT = 224, 112  # multiples of 14, as every mono export, and of 16 for this encoder


class DepthNet(nn.Module):
    """(N, 3, H, W) normalised RGB to inverse depth (N, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.head = nn.Conv2d(Decoder.WIDTH, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return functional.relu(self.head(twice(self.decoder(self.encoder(images))[3]))).squeeze(1)


def training_pool(count: int) -> tuple[Tensor, Tensor]:
    """uint8 images (M, 3, H, W) and depths (M, H, W)."""
    images = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    depths = np.empty((count, HEIGHT, WIDTH), np.float32)
    for number in range(count):
        drawn, depth = draw_depth(image_rng("depth", "train", number), split_indices("train"))
        images[number] = bilinear(drawn, WIDTH, HEIGHT)
        depths[number] = cv2.resize(depth, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(depths)


def depth_loss(model: nn.Module, batch: Batch) -> Tensor:
    """L1 of the inverse depth, relative to the truth so that far surfaces count as much as near ones."""
    images, depths = batch
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return ((model((images / 255 - mean) / std) - 1 / depths).abs() * depths).mean()


def train(folder: Path) -> None:
    """Train and write ``folder/depth_net.onnx``."""
    seed_everything()
    model = fit(DepthNet(), training_pool(2500), depth_loss, epochs=20, batch_size=16, learning_rate=4e-3)
    export(model, folder / "depth_net.onnx", (3, HEIGHT, WIDTH), "images", ["outputs"])
