"""rtdetr: convolutional backbone, transformer encoder, top-k query selection and one decoder layer; no NMS needed.

The convolutional head on the backbone proposes one class heat map and one box per 8-pixel cell. A digit is taught to
the one cell that holds its middle, and a local-maximum rule inside the graph lowers its neighbours, so each digit is
found once. Two files come out of one training: ``rtdetr.onnx`` refines the proposals with attention;
``rtdetr_conv.onnx`` gives the proposals alone, with the same inputs and outputs, for runtimes that cannot build
transformer graphs (TensorRT 8.5).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from samples.render import CLASSES, Pixels
from samples.trainers.blocks import ConvNorm, Residual
from samples.trainers.fit import Batch, export, fit, seed_everything
from samples.trainers.scenes import training_scenes

WIDTH, HEIGHT, STRIDE = 160, 128, 8
GRID_W, GRID_H = WIDTH // STRIDE, HEIGHT // STRIDE
QUERIES, CHANNELS, HEADS = 100, 64, 4


class Backbone(nn.Sequential):
    """(N, 3, 128, 160) RGB in [0, 1] to features (N, 64, 16, 20)."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("stem", ConvNorm(3, 16, stride=2))
        self.add_module("down1", ConvNorm(16, 32, stride=2))
        self.add_module("layer1", Residual(32))
        self.add_module("down2", ConvNorm(32, CHANNELS, stride=2))
        self.add_module("layer2", Residual(CHANNELS))
        self.add_module("layer3", Residual(CHANNELS))


class ProposalHead(nn.Module):
    """Per cell: class logits (N, cells, C) and box parameters (N, cells, 4)."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.conv = ConvNorm(CHANNELS, CHANNELS)
        self.score = nn.Conv2d(CHANNELS, classes, 1)
        self.box = nn.Conv2d(CHANNELS, 4, 1)
        nn.init.constant_(self.score.bias, -4.0)
        nn.init.constant_(self.box.bias, -0.5)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw logits, logits with all but local maxima lowered, box parameters."""
        hidden = self.conv(features)
        score = self.score(hidden)
        peak = functional.max_pool2d(score, 3, 1, 1)
        # A difference rather than a comparison: it stays right when a low precision rounds the pooled copy.
        peaks = score - 4.0 * functional.relu(peak - score)
        return as_tokens(score), as_tokens(peaks), as_tokens(self.box(hidden))


class Attention(nn.Module):
    """Multi-head attention written with MatMul and Softmax, as exported RT-DETR graphs have it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(CHANNELS, CHANNELS) for _ in range(4))

    def forward(self, queries: Tensor, memory: Tensor, values: Tensor) -> Tensor:
        def split(tokens: Tensor) -> Tensor:
            return tokens.reshape(-1, int(tokens.shape[1]), HEADS, CHANNELS // HEADS).transpose(1, 2)

        q, k, v = split(self.query(queries)), split(self.key(memory)), split(self.value(values))
        weights = (q @ k.transpose(2, 3) * (CHANNELS // HEADS) ** -0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(-1, int(queries.shape[1]), CHANNELS))


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(CHANNELS, 2 * CHANNELS)
        self.linear2 = nn.Linear(2 * CHANNELS, CHANNELS)
        self.norm = nn.LayerNorm(CHANNELS)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens + self.linear2(functional.relu(self.linear1(tokens))))


class EncoderLayer(nn.Module):
    """Self-attention over all cells."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = Attention()
        self.norm = nn.LayerNorm(CHANNELS)
        self.ffn = FeedForward()

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        placed = tokens + position
        return self.ffn(self.norm(tokens + self.self_attn(placed, placed, tokens)))


class DecoderLayer(nn.Module):
    """Self-attention among the queries, then attention of the queries to all cells."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = Attention(), Attention()
        self.norm1, self.norm2 = nn.LayerNorm(CHANNELS), nn.LayerNorm(CHANNELS)
        self.ffn = FeedForward()

    def forward(self, queries: Tensor, query_position: Tensor, memory: Tensor, position: Tensor) -> Tensor:
        placed = queries + query_position
        queries = self.norm1(queries + self.self_attn(placed, placed, queries))
        queries = self.norm2(queries + self.cross_attn(queries + query_position, memory + position, memory))
        return self.ffn(queries)


class Detector(nn.Module):
    """(N, 3, 128, 160) RGB in [0, 1] to ``pred_logits`` (N, 100, C) and ``pred_boxes`` (N, 100, 4) cxcywh in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.proposal = ProposalHead()
        self.encoder = EncoderLayer()
        self.decoder = DecoderLayer()
        self.score_head = nn.Linear(CHANNELS, len(CLASSES))
        self.box_head = nn.Linear(CHANNELS, 4)
        for head in (self.score_head, self.box_head):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.position = nn.Parameter(torch.randn(GRID_H * GRID_W, CHANNELS) * 0.02)
        self.register_buffer("cells", cell_corners())

    def propose(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Features (N, 64, h, w), raw and peak logits, box parameters, and the chosen cells (N, 100)."""
        features = self.backbone(images)
        raw, peaks, boxes = self.proposal(features)
        chosen = peaks.max(-1).values.topk(QUERIES, dim=1).indices
        return features, raw, peaks, boxes, chosen

    def refine(self, features: Tensor, peaks: Tensor, boxes: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 100, C) and box parameters (N, 100, 4) of the chosen cells after attention."""
        memory = self.encoder(as_tokens(features), self.position)
        position = self.position[chosen]
        queries = self.decoder(pick(memory, chosen), position, memory, self.position)
        return pick(peaks, chosen) + self.score_head(queries), pick(boxes, chosen) + self.box_head(queries)

    def place(self, parameters: Tensor, chosen: Tensor) -> Tensor:
        """Box parameters of the chosen cells to cxcywh in [0, 1]: the middle within its cell, the size free."""
        unit = parameters.sigmoid()
        size = torch.tensor([1.0 / GRID_W, 1.0 / GRID_H])
        return torch.cat([self.cells[chosen] + (unit[..., :2] * 2 - 0.5) * size, unit[..., 2:]], -1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, _, peaks, boxes, chosen = self.propose(images)
        logits, parameters = self.refine(features, peaks, boxes, chosen)
        return logits, self.place(parameters, chosen)


class ConvDetector(nn.Module):
    """The proposals of a trained :class:`Detector` alone."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        _, _, peaks, boxes, chosen = self.detector.propose(images)
        return pick(peaks, chosen), self.detector.place(pick(boxes, chosen), chosen)


def as_tokens(maps: Tensor) -> Tensor:
    """(N, C, h, w) to (N, h*w, C). Plain integers keep the exported Reshape free of shape arithmetic."""
    return maps.reshape(-1, int(maps.shape[1]), GRID_H * GRID_W).transpose(1, 2)


def pick(rows: Tensor, chosen: Tensor) -> Tensor:
    """Rows (N, cells, D) of the chosen cells (N, K): (N, K, D)."""
    # Adding zeros broadcasts the index with a single node; expand and repeat export shape arithmetic.
    columns = torch.zeros(int(rows.shape[2]), dtype=chosen.dtype)
    return rows.gather(1, chosen.unsqueeze(-1) + columns)


def cell_corners() -> Tensor:
    """Top left corner of every cell in [0, 1], shape (cells, 2)."""
    y, x = torch.meshgrid(torch.arange(GRID_H) / GRID_H, torch.arange(GRID_W) / GRID_W, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def bilinear(pixels: Pixels, width: int, height: int) -> Pixels:
    resized = cv2.resize(pixels.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.rint(resized).astype(np.uint8)


def cell_targets(boxes: NDArray[np.float32], classes: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """Per cell: class id, shape (cells,), and box cxcywh in [0, 1], shape (cells, 4).

    Class -1 is background; -2 is a cell that nearly holds a digit's middle, which is not taught either way.
    """
    cells = np.full((GRID_H, GRID_W), -1, np.int64)
    wanted = np.zeros((GRID_H, GRID_W, 4), np.float32)
    middle = np.stack([boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]], 1) / 2
    spots = (middle / STRIDE).astype(int)
    sizes = np.stack([boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]], 1)
    frame = np.array([WIDTH, HEIGHT], np.float32)
    x_middle, y_middle = (np.arange(GRID_W) + 0.5) * STRIDE, (np.arange(GRID_H) + 0.5)[:, None] * STRIDE
    for centre in middle:
        cells[(np.abs(x_middle - centre[0]) < 0.9 * STRIDE) & (np.abs(y_middle - centre[1]) < 0.9 * STRIDE)] = -2
    for (x, y), centre, size, class_id in zip(spots, middle, sizes, classes, strict=True):
        cells[y, x], wanted[y, x] = class_id, np.concatenate([centre / frame, size / frame])
    return cells.reshape(-1), wanted.reshape(-1, 4)


def training_pool(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 images (M, 3, H, W), cell classes (M, cells) and boxes (M, cells, 4)."""
    images = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    cells = np.empty((count, GRID_H * GRID_W), np.int64)
    wanted = np.empty((count, GRID_H * GRID_W, 4), np.float32)
    for number, (pixels, boxes, classes) in enumerate(training_scenes(count, WIDTH, HEIGHT, bilinear)):
        images[number] = pixels
        cells[number], wanted[number] = cell_targets(boxes, classes)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(cells), torch.from_numpy(wanted)


def class_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Focal loss, summed; cells marked -2 are not counted."""
    target = functional.one_hot(cells.clamp(min=0), logits.shape[-1]) * (cells >= 0)[..., None]
    target = target.to(logits.dtype)
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focus = (logits.detach().sigmoid() - target).abs()
    return (focus * cross_entropy * (cells != -2)[..., None]).sum()


def box_loss(boxes: Tensor, wanted: Tensor) -> Tensor:
    """L1 in units of a typical digit plus 1 - IoU, summed over the rows of cxcywh boxes (n, 4)."""
    low = torch.maximum(boxes[:, :2] - boxes[:, 2:] / 2, wanted[:, :2] - wanted[:, 2:] / 2)
    high = torch.minimum(boxes[:, :2] + boxes[:, 2:] / 2, wanted[:, :2] + wanted[:, 2:] / 2)
    shared = (high - low).clamp(min=0).prod(1)
    union = boxes[:, 2:].prod(1) + wanted[:, 2:].prod(1) - shared
    return (boxes - wanted).abs().sum() * 5 + (1 - shared / union).sum()


def detection_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The proposals' and the refined queries' losses, per digit."""
    images, cells, wanted = batch
    features, raw, peaks, parameters, chosen = model.propose(images / 255)
    everything = torch.arange(GRID_H * GRID_W).expand(len(images), -1)
    digit = cells >= 0
    proposal = class_loss(raw, cells) + box_loss(model.place(parameters, everything)[digit], wanted[digit])
    logits, refined = model.refine(features, peaks, parameters, chosen)
    picked = cells.gather(1, chosen)
    digit = picked >= 0
    final = class_loss(logits, picked) + box_loss(model.place(refined, chosen)[digit], pick(wanted, chosen)[digit])
    return (proposal + final) / (cells >= 0).sum().clamp(min=1)


def train(folder: Path) -> None:
    """Train once and write ``folder/rtdetr.onnx`` and ``folder/rtdetr_conv.onnx``."""
    seed_everything()
    model = fit(Detector(), training_pool(5000), detection_loss, epochs=10, batch_size=16, learning_rate=2e-3)
    for name, variant in (("rtdetr", model), ("rtdetr_conv", ConvDetector(model).eval())):
        export(variant, folder / f"{name}.onnx", (3, HEIGHT, WIDTH), "inputs", ["pred_logits", "pred_boxes"])
