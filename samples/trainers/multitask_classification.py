"""multitask_classification: the classifier's backbone with one head per task, probabilities out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from samples.render import CLASSES, TASKS
from samples.trainers.classification_pyt import SIZE, Classifier
from samples.trainers.digit_pool import training_digits
from samples.trainers.fit import Batch, export, fit, seed_everything

CAFFE_BGR = (103.939, 116.779, 123.68)


class Tasks(Classifier):
    """(N, 3, 64, 64) BGR minus the caffe mean to a row of probabilities per task, tasks in sorted order."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.ModuleList(nn.Linear(64, len(names)) for names in TASKS.values())

    def logits(self, images: Tensor) -> list[Tensor]:
        features = self.gap(self.backbone(images)).flatten(1)
        return [head(features) for head in self.head]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(rows.softmax(1) for rows in self.logits(images))


def loss(model: nn.Module, batch: Batch) -> Tensor:
    images, digit, decoy = batch
    mean = torch.tensor(CAFFE_BGR).view(3, 1, 1)
    rows = model.logits(images.flip(1) - mean)
    targets = {"decoy": decoy, "digit": digit}
    return sum(
        functional.cross_entropy(row, targets[task], label_smoothing=0.05)
        for task, row in zip(TASKS, rows, strict=True)
    )


def train(folder: Path) -> None:
    """Train and write ``folder/multitask_classification.onnx``."""
    seed_everything()
    images, values, decoys = training_digits(8, SIZE)
    order = torch.tensor([TASKS["digit"].index(name) for name in CLASSES])
    model = fit(Tasks(), (images, order[values], decoys), loss, epochs=7, batch_size=64, learning_rate=4e-3)
    export(model, folder / "multitask_classification.onnx", (3, SIZE, SIZE), "input_1", list(TASKS))
