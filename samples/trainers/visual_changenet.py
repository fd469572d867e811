"""visual_changenet, task segment: one encoder for both pictures, a decoder on their difference, five maps out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from samples.pixels_data import draw_change
from samples.render import image_rng, split_indices
from samples.trainers.blocks import Decoder, Encoder, twice
from samples.trainers.fit import Batch, export, fit, seed_everything
from samples.trainers.rtdetr import bilinear

SIDE = 128
OUTPUTS = ["output0", "output1", "output2", "output3", "output_final"]


class ChangeNet(nn.Module):
    """Two RGB pictures in [-1, 1], (N, 3, S, S) each, to logits (N, 2, ...) from a sixteenth of S up to S."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.heads = nn.ModuleList(nn.Conv2d(Decoder.WIDTH, 2, 3, padding=1) for _ in OUTPUTS)

    def forward(self, before: Tensor, after: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(self.encoder(before), self.encoder(after), strict=True)
        features = self.decoder([(one - other).abs() for one, other in pairs])
        return tuple(head(each) for head, each in zip(self.heads, [*features, twice(features[-1])], strict=True))


def training_pool(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 pictures before and after (M, 3, S, S), and 0 or 1 per pixel (M, S, S)."""
    pictures = np.empty((2, count, SIDE, SIDE, 3), np.uint8)
    labels = np.empty((count, SIDE, SIDE), np.uint8)
    for number in range(count):
        *shots, changed = draw_change(image_rng("changes", "train", number), split_indices("train"))
        for taken, shot in zip(pictures, shots, strict=True):
            taken[number] = bilinear(shot, SIDE, SIDE)
        labels[number] = bilinear(changed, SIDE, SIDE) > 127
    before, after = torch.from_numpy(pictures).permute(0, 1, 4, 2, 3)
    return before, after, torch.from_numpy(labels)


def change_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of every map at its own size, the final one most."""
    before, after, labels = batch
    maps = model(before / 127.5 - 1, after / 127.5 - 1)
    wanted = [functional.interpolate(labels[:, None].float(), each.shape[2:]).squeeze(1).long() for each in maps]
    losses = [functional.cross_entropy(each, truth) for each, truth in zip(maps, wanted, strict=True)]
    return losses[-1] + 0.2 * sum(losses[:-1])


def train(folder: Path) -> None:
    """Train and write ``folder/visual_changenet.onnx``."""
    seed_everything()
    model = fit(ChangeNet(), training_pool(3000), change_loss, epochs=20, batch_size=16, learning_rate=4e-3)
    export(model, folder / "visual_changenet.onnx", (3, SIDE, SIDE), ["input0", "input1"], OUTPUTS)
