"""classification_pyt: a small residual network on 64x64 pictures, raw logits out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from samples.render import CLASSES
from samples.trainers.blocks import ConvNorm, Residual
from samples.trainers.digit_pool import training_digits
from samples.trainers.fit import Batch, export, fit, seed_everything

SIZE = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Classifier(nn.Module):
    """(N, 3, 64, 64) normalised RGB to (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.add_module("stem", ConvNorm(3, 16, stride=2))
        self.backbone.add_module("down1", ConvNorm(16, 32, stride=2))
        self.backbone.add_module("layer1", Residual(32))
        self.backbone.add_module("down2", ConvNorm(32, 64, stride=2))
        self.backbone.add_module("layer2", Residual(64))
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.gap(self.backbone(images)).flatten(1))


def classification_loss(model: nn.Module, batch: Batch) -> Tensor:
    images, targets, _ = batch
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return functional.cross_entropy(model((images / 255 - mean) / std), targets, label_smoothing=0.05)


def train(folder: Path) -> None:
    """Train and write ``folder/classification_pyt.onnx``."""
    seed_everything()
    model = fit(
        Classifier(), training_digits(8, SIZE), classification_loss, epochs=7, batch_size=64, learning_rate=4e-3
    )
    export(model, folder / "classification_pyt.onnx", (3, SIZE, SIZE), "input", ["output"])
