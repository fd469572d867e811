"""ml_recog: the classifier's backbone, an embedding out; trained so that equal digits point the same way."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from samples.render import CLASSES
from samples.trainers.classification_pyt import MEAN, SIZE, Classifier
from samples.trainers.digit_pool import stretch, training_digits
from samples.trainers.fit import Batch, export, fit, seed_everything

STD = (0.226, 0.226, 0.226)
WIDTH, MARGIN, SHARPNESS = 32, 0.2, 16.0


class Embedder(Classifier):
    """(N, 3, 64, 64) normalised RGB to (N, 32) embeddings of any length; the classes' directions are for training."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, WIDTH)
        self.directions = nn.Parameter(torch.randn(len(CLASSES), WIDTH))


def enlarge_crop(image: Image.Image) -> Image.Image:
    """To 1.14 times the input size, then its centre."""
    side = int(SIZE * 1.14)
    corner = round((side - SIZE) / 2)
    return stretch(side)(image).crop((corner, corner, corner + SIZE, corner + SIZE))


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy of the cosines to the classes' directions, the own class's lowered by a margin."""
    images, values, _ = batch
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    embeddings = functional.normalize(model((images / 255 - mean) / std))
    cosines = embeddings @ functional.normalize(model.directions).T
    return functional.cross_entropy(SHARPNESS * (cosines - MARGIN * functional.one_hot(values, len(CLASSES))), values)


def train(folder: Path) -> None:
    """Train and write ``folder/ml_recog.onnx``."""
    seed_everything()
    pool = training_digits(8, SIZE, enlarge_crop)
    model = fit(Embedder(), pool, loss, epochs=7, batch_size=64, learning_rate=4e-3)
    export(model, folder / "ml_recog.onnx", (3, SIZE, SIZE), "input", ["fc_pred"])
