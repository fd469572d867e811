"""ocdnet: a probability map of shrunk text lines at the input's resolution, by a small U-shaped network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from samples.render import image_rng, split_indices
from samples.text_data import draw_text_scene
from samples.trainers.blocks import ConvNorm, Residual
from samples.trainers.fit import Batch, export, fit, seed_everything

WIDTH, HEIGHT = 160, 128
MEAN = (122.67891434, 116.66876762, 104.00698793)
SHRINK = 0.4


class TextDetector(nn.Module):
    """(N, 3, 128, 160), BGR, (x - mean) / 255, to probabilities (N, 1, 128, 160)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 16, stride=2)
        self.stage1 = nn.Sequential(ConvNorm(16, 32, stride=2), Residual(32))
        self.stage2 = nn.Sequential(ConvNorm(32, 48, stride=2), Residual(48))
        self.up1, self.merge1 = nn.ConvTranspose2d(48, 32, 2, 2), ConvNorm(32, 32)
        self.up2, self.merge2 = nn.ConvTranspose2d(32, 16, 2, 2), ConvNorm(16, 16)
        self.head = nn.ConvTranspose2d(16, 1, 2, 2)

    def logits(self, images: Tensor) -> Tensor:
        half = self.stem(images)
        quarter = self.stage1(half)
        deep = self.merge1(self.up1(self.stage2(quarter)) + quarter)
        return self.head(self.merge2(self.up2(deep) + half))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images).sigmoid()


def shrunk(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """A parallelogram (4, 2) moved inwards by area * (1 - 0.4^2) / perimeter on every side."""
    along, down = corners[1] - corners[0], corners[3] - corners[0]
    area = abs(along[0] * down[1] - along[1] * down[0])
    distance = area * (1 - SHRINK**2) / (2 * (np.linalg.norm(along) + np.linalg.norm(down)))
    # Moving a side inwards by d shortens the other pair of sides by 2d / sin of the angle between them.
    across, deep = (min(distance * np.linalg.norm(side) / area, 0.45) for side in (down, along))
    shares = np.array([[across, deep], [1 - across, deep], [1 - across, 1 - deep], [across, 1 - deep]])
    return corners[0] + shares @ np.stack([along, down])


def training_pool(count: int) -> tuple[Tensor, Tensor]:
    """uint8 BGR images (M, 3, H, W) and masks (M, 1, H, W) of the shrunk lines."""
    images = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    masks = np.zeros((count, 1, HEIGHT, WIDTH), np.uint8)
    for number in range(count):
        pixels, lines = draw_text_scene(image_rng("text_scenes", "train", number), split_indices("train"), (3, 5))
        images[number] = cv2.resize(pixels[..., ::-1], (WIDTH, HEIGHT))
        scale = np.array([WIDTH / pixels.shape[1], HEIGHT / pixels.shape[0]])
        for corners, _ in lines:
            cv2.fillPoly(masks[number, 0], [np.rint(shrunk(corners * scale)).astype(np.int32)], 1)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy, text pixels weighted up, and dice."""
    images, masks = batch
    target = masks.float()
    logits = model.logits((images - torch.tensor(MEAN).view(3, 1, 1)) / 255)
    probability = logits.sigmoid()
    dice = 1 - 2 * (probability * target).sum() / (probability.sum() + target.sum() + 1)
    weight = torch.tensor(3.0)
    return functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight) + dice


def train(folder: Path) -> None:
    """Train and write ``folder/ocdnet.onnx``."""
    seed_everything()
    model = fit(TextDetector(), training_pool(3000), loss, epochs=12, batch_size=16, learning_rate=4e-3)
    export(model, folder / "ocdnet.onnx", (3, HEIGHT, WIDTH), "input", ["pred"])
