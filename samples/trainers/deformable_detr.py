"""deformable_detr: multi-scale deformable attention in an encoder and a decoder layer, as plugin nodes.

Proposals per 8-pixel cell and the choice of queries are rtdetr's; channel i of the logits is category id i, so
channel 0 stays empty. Normalization is batch norm in 1x1 convolutions over the tokens, which every TensorRT builds.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from samples.render import CLASSES
from samples.trainers.blocks import ConvNorm
from samples.trainers.fit import Batch, export, fit, seed_everything
from samples.trainers.rtdetr import (
    CHANNELS,
    GRID_H,
    GRID_W,
    HEADS,
    HEIGHT,
    QUERIES,
    WIDTH,
    Attention,
    Backbone,
    ProposalHead,
    box_loss,
    cell_corners,
    class_loss,
    pick,
    training_pool,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((GRID_H, GRID_W), (GRID_H // 2, GRID_W // 2))  # of the two levels
CELLS, TOKENS, POINTS, WIDTH_PER_HEAD = GRID_H * GRID_W, GRID_H * GRID_W * 5 // 4, 4, CHANNELS // HEADS


class MultiscaleAttention(torch.autograd.Function):
    """The plugin of the exporter: value (N, S, M, D), locations (N, Q, M, L, P, 2), weights (N, Q, M, L, P)."""

    @staticmethod
    def forward(_ctx: Any, value: Tensor, _shapes: Tensor, _starts: Tensor, where: Tensor, weights: Tensor) -> Tensor:
        return attend(value, where, weights)

    @staticmethod
    def symbolic(g: Any, *inputs: Any) -> Any:
        return g.op("trt::MultiscaleDeformableAttnPlugin_TRT", *inputs, name_s="MSDA", version_s="1", namespace_s="")


def attend(value: Tensor, where: Tensor, weights: Tensor) -> Tensor:
    """What the plugin computes: (N, Q, M, D)."""
    queries, begin, total = int(where.shape[1]), 0, 0
    for level, (height, width) in enumerate(SIZES):
        rows = value[:, begin : begin + height * width].permute(0, 2, 3, 1).reshape(-1, WIDTH_PER_HEAD, height, width)
        grid = 2 * where[:, :, :, level].transpose(1, 2).reshape(-1, queries, POINTS, 2) - 1
        sampled = functional.grid_sample(rows, grid, align_corners=False)
        total = total + (sampled * weights[:, :, :, level].transpose(1, 2).reshape(-1, 1, queries, POINTS)).sum(-1)
        begin += height * width
    return total.reshape(-1, HEADS, WIDTH_PER_HEAD, queries).permute(0, 3, 1, 2)


class DeformableAttention(nn.Module):
    """Queries (N, C, Q, 1) look at points around their places (N, Q, 4) cxcywh in the memory (N, C, S, 1)."""

    def __init__(self) -> None:
        super().__init__()
        samples = HEADS * len(SIZES) * POINTS
        self.value, self.out = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.offsets, self.weights = nn.Conv2d(CHANNELS, 2 * samples, 1), nn.Conv2d(CHANNELS, samples, 1)
        angle = torch.arange(HEADS)[:, None] * (2 * math.pi / HEADS) + torch.arange(POINTS) * (math.pi / 8)
        ring = torch.stack([angle.cos(), angle.sin()], -1) * torch.arange(1, POINTS + 1)[:, None] / POINTS
        nn.init.normal_(self.offsets.weight, std=0.01)
        self.offsets.bias.data = ring[:, None].expand(-1, len(SIZES), -1, -1).reshape(-1).clone()
        shapes = torch.tensor(SIZES, dtype=torch.int32)
        self.register_buffer("shapes", shapes)
        self.register_buffer("starts", torch.tensor([0, CELLS], dtype=torch.int32))

    def forward(self, queries: Tensor, places: Tensor, memory: Tensor) -> Tensor:
        count = int(queries.shape[2])
        value = self.value(memory).reshape(-1, HEADS, WIDTH_PER_HEAD, TOKENS).permute(0, 3, 1, 2)
        weights = self.weights(queries).reshape(-1, HEADS, len(SIZES) * POINTS, count).permute(0, 3, 1, 2).softmax(-1)
        weights = weights.reshape(-1, count, HEADS, len(SIZES), POINTS)
        offsets = self.offsets(queries).reshape(-1, HEADS, len(SIZES), POINTS, 2, count).permute(0, 5, 1, 2, 3, 4)
        centre, size = (part.reshape(-1, count, 1, 1, 1, 2) for part in places.split(2, -1))
        where = centre + offsets * size
        inputs = (value, self.shapes, self.starts, where, weights)
        found = MultiscaleAttention.apply(*inputs) if torch.onnx.is_in_onnx_export() else attend(value, where, weights)
        return self.out(found.reshape(-1, count, CHANNELS).transpose(1, 2).unsqueeze(-1))


class Refine(nn.Module):
    """Adds what attention found and a feed-forward block, each behind batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = DeformableAttention()
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.linear1, self.linear2 = nn.Conv2d(CHANNELS, 2 * CHANNELS, 1), nn.Conv2d(2 * CHANNELS, CHANNELS, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(2 * CHANNELS), nn.BatchNorm2d(CHANNELS)

    def forward(self, tokens: Tensor, position: Tensor, places: Tensor, memory: Tensor) -> Tensor:
        tokens = tokens + self.norm(self.attention(tokens + position, places, memory))
        hidden = functional.relu(self.norm1(self.linear1(tokens)))
        return functional.relu(tokens + self.norm2(self.linear2(hidden)))


class Detector(nn.Module):
    """(N, 3, 128, 160) normalized RGB to ``pred_logits`` (N, 100, 11) and ``pred_boxes`` (N, 100, 4) cxcywh."""

    def __init__(self) -> None:
        super().__init__()
        classes = 1 + len(CLASSES)
        self.backbone = Backbone()
        del self.backbone.layer3  # the encoder stands for it
        self.coarse = ConvNorm(CHANNELS, CHANNELS, stride=2)
        self.proposal = ProposalHead(classes)
        self.encoder, self.decoder, self.self_attn = Refine(), Refine(), Attention()
        self.score_head, self.box_head = nn.Linear(CHANNELS, classes), nn.Linear(CHANNELS, 4)
        for head in (self.score_head, self.box_head):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.position = nn.Parameter(torch.randn(1, CHANNELS, TOKENS, 1) * 0.02)
        self.register_buffer("cells", cell_corners())
        self.register_buffer("places", token_places())

    def propose(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Memory (N, C, S, 1), raw and peak logits, box parameters, and the chosen cells (N, 100)."""
        fine = self.backbone(images)
        levels = zip((fine, self.coarse(fine)), SIZES, strict=True)
        tokens = torch.cat([level.reshape(-1, CHANNELS, h * w, 1) for level, (h, w) in levels], 2)
        memory = self.encoder(tokens, self.position, self.places, tokens)
        raw, peaks, boxes = self.proposal(memory[:, :, :CELLS].reshape(-1, CHANNELS, GRID_H, GRID_W))
        return memory, raw, peaks, boxes, peaks.max(-1).values.topk(QUERIES, dim=1).indices

    def refine(self, memory: Tensor, peaks: Tensor, boxes: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 100, C) and box parameters (N, 100, 4) of the chosen cells after attention."""
        parameters, tokens = pick(boxes, chosen), pick(memory[..., 0].transpose(1, 2), chosen)
        position = self.position[0, :, :CELLS, 0].t()[chosen]
        tokens = tokens + self.self_attn(tokens + position, tokens + position, tokens)
        columns, position = (part.transpose(1, 2).unsqueeze(-1) for part in (tokens, position))
        queries = self.decoder(columns, position, self.place(parameters, chosen), memory)[..., 0].transpose(1, 2)
        return pick(peaks, chosen) + self.score_head(queries), parameters + self.box_head(queries)

    def place(self, parameters: Tensor, chosen: Tensor) -> Tensor:
        """Box parameters of the chosen cells to cxcywh in [0, 1]: the middle within its cell, the size free."""
        unit = parameters.sigmoid()
        size = torch.tensor([1.0 / GRID_W, 1.0 / GRID_H])
        return torch.cat([self.cells[chosen] + (unit[..., :2] * 2 - 0.5) * size, unit[..., 2:]], -1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        memory, _, peaks, boxes, chosen = self.propose(images)
        logits, parameters = self.refine(memory, peaks, boxes, chosen)
        return logits, self.place(parameters, chosen)


def token_places() -> Tensor:
    """Centre of every token's cell and four cells' sides, cxcywh in [0, 1], shape (1, S, 4)."""
    rows = []
    for height, width in SIZES:
        y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
        sides = torch.full_like(x, 4 / width), torch.full_like(y, 4 / height)
        rows.append(torch.stack([x, y, *sides], -1).flatten(0, 1))
    return torch.cat(rows)[None]


def normalized(images: Tensor) -> Tensor:
    """Grey levels (N, 3, H, W) RGB as the network takes them."""
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    return (images / 255 - mean) / std


def detection_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The proposals' and the refined queries' losses, per digit."""
    images, cells, wanted = batch
    cells = cells + (cells >= 0)  # category ids
    memory, raw, peaks, parameters, chosen = model.propose(normalized(images))
    digit, everything = cells >= 0, torch.arange(CELLS).expand(len(images), -1)
    proposal = class_loss(raw, cells) + box_loss(model.place(parameters, everything)[digit], wanted[digit])
    logits, refined = model.refine(memory, peaks, parameters, chosen)
    picked = cells.gather(1, chosen).clamp(min=-1)  # here a digit's other cells are taught to be none
    digit = picked >= 0
    final = class_loss(logits, picked) + box_loss(model.place(refined, chosen)[digit], pick(wanted, chosen)[digit])
    return (proposal + final) / (cells >= 0).sum().clamp(min=1)


def train(folder: Path) -> None:
    """Train and write ``folder/deformable_detr.onnx``."""
    seed_everything()
    pool = training_pool(5000)
    model = fit(Detector(), pool, detection_loss, epochs=12, batch_size=16, learning_rate=2e-3)
    names, examples = ["pred_logits", "pred_boxes"], normalized(pool[0][:3].float())
    export(model, folder / "deformable_detr.onnx", (3, HEIGHT, WIDTH), "inputs", names, examples)
