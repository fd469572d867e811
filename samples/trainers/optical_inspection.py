"""optical_inspection: a siamese encoder whose embeddings of good boards lie close together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from samples.boards_data import LIGHTS, draw_pair
from samples.render import image_rng, split_indices
from samples.trainers.blocks import ConvNorm, Residual
from samples.trainers.classification_pyt import MEAN, STD
from samples.trainers.fit import Batch, export, fit, seed_everything
from samples.trainers.rtdetr import bilinear

WIDTH, HEIGHT = 96, 64  # of one light
FEATURES, MARGIN = 32, 2.0


class Siamese(nn.Module):
    """Two boards, (N, 3, 128, 96) normalised RGB with the lights below each other, to embeddings (N, 32) each."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            ConvNorm(3, 16, stride=2), ConvNorm(16, 32, stride=2), Residual(32), ConvNorm(32, 48, stride=2),
            Residual(48), ConvNorm(48, 48, stride=2), nn.Conv2d(48, 16, 1), nn.ReLU(),
        )  # fmt: skip
        self.embedding = nn.Linear(16 * (len(LIGHTS) * HEIGHT // 16) * (WIDTH // 16), FEATURES)

    def forward(self, unit: Tensor, golden: Tensor) -> tuple[Tensor, Tensor]:
        first, second = (self.embedding(self.backbone(board).flatten(1)) for board in (unit, golden))
        return first, second


def training_pool(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 units and golden boards (M, 3, 128, 96), and whether the unit has a defect (M,)."""
    boards = np.empty((2, count, len(LIGHTS) * HEIGHT, WIDTH, 3), np.uint8)
    defects = np.arange(count) % 2 == 0
    for number, defect in enumerate(defects):
        drawn = draw_pair(image_rng("boards", "train", number), split_indices("train"), defect=bool(defect))
        for taken, lights in zip(boards, drawn, strict=True):
            taken[number] = np.concatenate([bilinear(light, WIDTH, HEIGHT) for light in lights])
    unit, golden = torch.from_numpy(boards).permute(0, 1, 4, 2, 3)
    return unit, golden, torch.from_numpy(defects)


def contrastive_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Squared distance of good pairs; squared lack of distance below the margin of defects."""
    unit, golden, defect = batch
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    distance = functional.pairwise_distance(*model((unit / 255 - mean) / std, (golden / 255 - mean) / std))
    return torch.where(defect, functional.relu(MARGIN - distance), distance).square().mean()


def train(folder: Path) -> None:
    """Train and write ``folder/optical_inspection.onnx``."""
    seed_everything()
    model = fit(Siamese(), training_pool(12000), contrastive_loss, epochs=25, batch_size=32, learning_rate=3e-3)
    shape = (3, len(LIGHTS) * HEIGHT, WIDTH)
    export(model, folder / "optical_inspection.onnx", shape, ["input_1", "input_2"], ["output_1", "output_2"])
