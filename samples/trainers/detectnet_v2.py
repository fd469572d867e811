"""detectnet_v2: a purely convolutional grid detector, coverage and box offsets per class and 16-pixel cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from samples.render import CLASSES, Pixels
from samples.trainers.blocks import ConvNorm, Residual
from samples.trainers.fit import Batch, export, fit, seed_everything
from samples.trainers.scenes import training_scenes

WIDTH, HEIGHT = 320, 256
STRIDE, OFFSET, SCALE = 16, 0.5, 35.0
GRID_W, GRID_H = WIDTH // STRIDE, HEIGHT // STRIDE


class GridDetector(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] to coverage (N, C, h, w) and offsets (N, 4C, h, w) in units of 35 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.add_module("stem", ConvNorm(3, 16, stride=2))
        self.backbone.add_module("down1", ConvNorm(16, 32, stride=2))
        self.backbone.add_module("down2", ConvNorm(32, 48, stride=2))
        self.backbone.add_module("layer2", Residual(48))
        self.backbone.add_module("down3", ConvNorm(48, 96, stride=2))
        self.backbone.add_module("layer3", Residual(96))
        self.cov = nn.Conv2d(96, len(CLASSES), 1)
        self.bbox = nn.Conv2d(96, 4 * len(CLASSES), 1)
        nn.init.constant_(self.cov.bias, -4.0)
        nn.init.constant_(self.bbox.bias, 0.6)

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(images)
        return self.cov(features), self.bbox(features)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        coverage, offsets = self.logits(images)
        return coverage.sigmoid(), offsets


def lanczos(pixels: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def grid_targets(boxes: NDArray[np.float32], classes: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """Per cell: class id or -1, shape (GRID_H, GRID_W), and the four offsets, shape (4, GRID_H, GRID_W).

    A digit covers the cells near its middle: two rows and one column at least, so that the summed coverage
    of a cluster exceeds DBSCAN's minimum of one.
    """
    x = STRIDE * np.arange(GRID_W, dtype=np.float32)[None, :] + OFFSET
    y = STRIDE * np.arange(GRID_H, dtype=np.float32)[:, None] + OFFSET
    cells = np.full((GRID_H, GRID_W), -1, np.int64)
    offsets = np.zeros((4, GRID_H, GRID_W), np.float32)
    nearest = np.full((GRID_H, GRID_W), np.inf)
    for (x1, y1, x2, y2), class_id in zip(boxes, classes, strict=True):
        across, down = np.abs(x - (x1 + x2) / 2), np.abs(y - (y1 + y2) / 2)
        distance = np.hypot(across, down)
        inside = (across <= max(0.35 * (x2 - x1), 8.1)) & (down <= max(0.35 * (y2 - y1), 16.1)) & (distance < nearest)
        nearest[inside], cells[inside] = distance[inside], class_id
        sides = np.stack(np.broadcast_arrays(x - x1, y - y1, x2 - x, y2 - y)) / SCALE
        offsets[:, inside] = sides[:, inside]
    return cells, offsets


def training_pool(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 images (M, 3, H, W), cell classes (M, h, w) and cell offsets (M, 4, h, w)."""
    images = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    cells = np.empty((count, GRID_H, GRID_W), np.int64)
    offsets = np.empty((count, 4, GRID_H, GRID_W), np.float32)
    for number, (pixels, boxes, classes) in enumerate(training_scenes(count, WIDTH, HEIGHT, lanczos)):
        images[number] = pixels
        cells[number], offsets[number] = grid_targets(boxes, classes)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(cells), torch.from_numpy(offsets)


def detection_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Focal loss on the coverage, L1 on the offsets of the covered cells' own class; both per covered cell."""
    images, cells, offsets = batch
    coverage, predicted = model.logits(images / 255)
    covered = cells >= 0
    target = functional.one_hot(cells.clamp(min=0), len(CLASSES)).permute(0, 3, 1, 2) * covered[:, None]
    target = target.float()
    cross_entropy = functional.binary_cross_entropy_with_logits(coverage, target, reduction="none")
    focus = (coverage.detach().sigmoid() - target).abs()
    n, h, w = cells.shape
    own = predicted.view(n, len(CLASSES), 4, h, w).permute(0, 3, 4, 1, 2)[covered, cells[covered]]
    distance = (own - offsets.permute(0, 2, 3, 1)[covered]).abs().sum()
    return ((focus * cross_entropy).sum() + 2.0 * distance) / covered.sum().clamp(min=1)


def train(folder: Path) -> None:
    """Train and write ``folder/detectnet_v2.onnx``."""
    seed_everything()
    pool = training_pool(3600)
    model = fit(GridDetector(), pool, detection_loss, epochs=10, batch_size=16, learning_rate=4e-3)
    export(model, folder / "detectnet_v2.onnx", (3, HEIGHT, WIDTH), "input_1", ["output_cov", "output_bbox"])
