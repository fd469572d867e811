"""faster_rcnn: proposals, crops and class-wise boxes, with the three plugin nodes of the exporter.

Each plugin is a function of torch, which training calls and the exported file is checked against, and one node.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor, nn
from torch.nn import functional

from samples.render import CLASSES
from samples.trainers.blocks import ConvNorm, Residual
from samples.trainers.fit import Batch, export, fit, seed_everything
from samples.trainers.two_stage import anchor_loss, decode, framed_pool, greedy, jittered, roi_loss

WIDTH, HEIGHT, STRIDE = 160, 128, 8
GRID_W, GRID_H = WIDTH // STRIDE, HEIGHT // STRIDE
SIZES, RATIOS = (16.0, 24.0), (0.5, 1.0)
ANCHORS, BEFORE, ROIS, POOL = len(SIZES) * len(RATIOS), 200, 32, 7
PROPOSAL_IOU, IOU, LEAST = 0.7, 0.5, 0.01
BACKGROUND = len(CLASSES)
IDS = [sorted(CLASSES).index(name) for name in CLASSES]  # classes are numbered by their names' order
MEAN_BGR = (103.939, 116.779, 123.68)
DELTA_SCALE = (0.1, 0.1, 0.2, 0.2)


def anchors() -> Tensor:
    """Corners in pixels, (A * h * w, 4): by size, ratio, row, column."""
    y, x = torch.meshgrid((torch.arange(GRID_H) + 0.5) * STRIDE, (torch.arange(GRID_W) + 0.5) * STRIDE, indexing="ij")
    centre = torch.stack([x, y], -1)
    half = torch.tensor([[size * ratio**0.5, size / ratio**0.5] for size in SIZES for ratio in RATIOS]) / 2
    half = half[:, None, None].expand(-1, GRID_H, GRID_W, -1)
    return torch.cat([centre - half, centre + half], -1).reshape(-1, 4)


class Proposal(torch.autograd.Function):
    """Scores (N, A, h, w) and deltas (N, 4A, h, w) to rois (N, 32, 4, 1): y1, x1, y2, x2 in [0, 1]."""

    @staticmethod
    def forward(_ctx: Any, scores: Tensor, deltas: Tensor) -> Tensor:
        boxes = proposed(deltas)
        small = ((boxes[..., 2:] - boxes[..., :2]) <= 1).any(-1)
        order = scores.flatten(1).masked_fill(small, -3e38).topk(BEFORE).indices
        rois = torch.zeros(len(scores), ROIS, 4)
        for image, own in enumerate(order):
            ranked = boxes[image, own]
            kept = greedy(ranked + torch.tensor([0, 0, 1, 1]), PROPOSAL_IOU, ROIS)  # both ends count
            rois[image, : len(kept)] = ranked[kept]
        return relative(rois)[..., None]

    @staticmethod
    def symbolic(g: Any, scores: Any, deltas: Any) -> Any:
        return g.op(
            "trt::ProposalDynamic", scores, deltas,
            input_height_i=HEIGHT, input_width_i=WIDTH, rpn_stride_i=STRIDE, roi_min_size_f=1.0,
            nms_iou_threshold_f=PROPOSAL_IOU, pre_nms_top_n_i=BEFORE, post_nms_top_n_i=ROIS,
            anchor_sizes_f=SIZES, anchor_ratios_f=RATIOS,
        )  # fmt: skip


def proposed(deltas: Tensor) -> Tensor:
    """Corners in pixels, (N, A * h * w, 4)."""
    flat = deltas.reshape(-1, ANCHORS, 4, GRID_H * GRID_W).transpose(2, 3).reshape(-1, ANCHORS * GRID_H * GRID_W, 4)
    boxes = decode(anchors(), flat).clamp(min=0)
    return torch.minimum(boxes, torch.tensor([WIDTH - 1.0, HEIGHT - 1.0] * 2))


def relative(boxes: Tensor) -> Tensor:
    """Corners in pixels to y1, x1, y2, x2 in [0, 1]."""
    return boxes[..., [1, 0, 3, 2]] / torch.tensor([HEIGHT - 1.0, WIDTH - 1.0] * 2)


class CropAndResize(torch.autograd.Function):
    """Features (N, D, h, w) and rois (N, R, 4, 1) to crops (N, R, D, 7, 7)."""

    @staticmethod
    def forward(_ctx: Any, features: Tensor, rois: Tensor) -> Tensor:
        return crop(features, rois)

    @staticmethod
    def symbolic(g: Any, features: Any, rois: Any) -> Any:
        return g.op("trt::CropAndResizeDynamic", features, rois, crop_height_i=POOL, crop_width_i=POOL)


def crop(features: Tensor, rois: Tensor) -> Tensor:
    """Bilinear samples between both ends of every roi."""
    n, count, depth = len(rois), rois.shape[1], features.shape[1]
    y1, x1, y2, x2 = rois.unbind(2)
    steps = torch.linspace(0, 1, POOL)
    y, x = y1 + (y2 - y1) * steps, x1 + (x2 - x1) * steps
    shape = (n, count, POOL, POOL)
    grid = torch.stack([x[:, :, None].expand(shape), y[..., None].expand(shape)], -1) * 2 - 1
    found = functional.grid_sample(features, grid.reshape(n, count * POOL, POOL, 2), align_corners=True)
    return found.reshape(n, depth, count, POOL, POOL).transpose(1, 2)


class Suppression(torch.autograd.Function):
    """Priors (N, 2, 4R, 1), deltas (N, R * C * 4, 1, 1) and scores (N, R * C, 1, 1) to rows and counts."""

    @staticmethod
    def forward(_ctx: Any, prior: Tensor, loc: Tensor, conf: Tensor) -> tuple[Tensor, Tensor]:
        n = len(prior)
        scores = conf.reshape(n, ROIS, -1)
        boxes = decode(prior[:, 0].reshape(n, ROIS, 1, 4), loc.reshape(n, ROIS, -1, 4))
        rows, counts = torch.zeros(n, 1, ROIS, 7), torch.zeros(n, 1, 1, 1)
        rows[..., 1] = -1
        for image in range(n):
            rows[image, ..., 0] = image
            found = []
            for class_id in range(BACKGROUND):
                own = scores[image, :, class_id]
                order = own.argsort(descending=True)[: int((own > LEAST).sum())]
                ranked = boxes[image, order, class_id]
                found += [
                    (own[order[k]], torch.cat([torch.stack([torch.tensor(float(class_id)), own[order[k]]]), ranked[k]]))
                    for k in greedy(ranked, IOU, ROIS)
                ]
            found = sorted(found, key=lambda pair: -float(pair[0]))[:ROIS]
            for row, (_, values) in enumerate(found):
                rows[image, 0, row, 1:] = torch.cat([values[:2], values[2:].clamp(0, 1)])
            counts[image] = len(found)
        return rows, counts

    @staticmethod
    def symbolic(g: Any, prior: Any, loc: Any, conf: Any) -> Any:
        return g.op(
            "trt::NMSDynamic_TRT", prior, loc, conf, outputs=2,
            shareLocation_i=0, varianceEncodedInTarget_i=1, backgroundLabelId_i=BACKGROUND,
            confidenceThreshold_f=LEAST, nmsThreshold_f=IOU, topK_i=ROIS, keepTopK_i=ROIS, codeType_i=1,
            numClasses_i=BACKGROUND + 1, inputOrder_i=[1, 2, 0], confSigmoid_i=0, isNormalized_i=1, scoreBits_i=16,
        )  # fmt: skip


class Plugin(nn.Module):
    """Gives the node its name."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self._function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self._function.apply(*inputs)


class Detector(nn.Module):
    """(N, 3, 128, 160) BGR levels minus the mean to ``nms_out`` (N, 1, 32, 7) and ``nms_out_1`` (N, 1, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            ConvNorm(3, 16, 2), ConvNorm(16, 32, 2), Residual(32), ConvNorm(32, 48, 2), Residual(48), Residual(48)
        )
        self.rpn, self.score, self.delta = ConvNorm(48, 48), nn.Conv2d(48, ANCHORS, 1), nn.Conv2d(48, 4 * ANCHORS, 1)
        self.head = nn.Sequential(ConvNorm(48, 64, 2), ConvNorm(64, 64, 2))
        self.dense_class = nn.Linear(64 * 4, BACKGROUND + 1)
        self.dense_regress = nn.Linear(64 * 4, 4 * (BACKGROUND + 1))
        self.proposal, self.CropAndResize_plugin, self.NMS = map(Plugin, (Proposal, CropAndResize, Suppression))
        self.register_buffer("delta_scale", torch.tensor(DELTA_SCALE))
        nn.init.constant_(self.score.bias, -4.0)

    def regions(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (N, 48, h, w), score logits (N, A, h, w), deltas (N, 4A, h, w)."""
        features = self.backbone(images)
        hidden = self.rpn(features)
        return features, self.score(hidden), self.delta(hidden)

    def classify(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, R, C) and deltas (N, R, C, 4) of crops (N, R, 48, 7, 7)."""
        count = int(crops.shape[1])
        hidden = self.head(crops.reshape(-1, 48, POOL, POOL)).reshape(-1, count, 64 * 4)
        deltas = self.dense_regress(hidden).reshape(-1, count, BACKGROUND + 1, 4) * self.delta_scale
        return self.dense_class(hidden), deltas

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, scores, deltas = self.regions(images)
        rois = self.proposal(scores.sigmoid(), deltas)
        logits, moves = self.classify(self.CropAndResize_plugin(features, rois))
        corners = rois.reshape(-1, ROIS, 4)[..., [1, 0, 3, 2]].reshape(-1, 1, 4 * ROIS, 1)
        scores = logits.softmax(-1).reshape(-1, ROIS * (BACKGROUND + 1), 1, 1)
        return self.NMS(torch.cat([corners, corners], 1), moves.reshape(-1, ROIS * (BACKGROUND + 1) * 4, 1, 1), scores)


def normalized(images: Tensor) -> Tensor:
    """RGB grey levels as the network takes them."""
    return images.flip(1).float() - torch.tensor(MEAN_BGR).reshape(3, 1, 1)


def detection_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The losses of both stages, per digit; the second sees the best proposals, weaker ones and moved digits."""
    images, truth, classes = batch
    classes = torch.where(classes >= 0, torch.tensor(IDS)[classes], -1)
    features, scores, deltas = model.regions(normalized(images))
    flat = deltas.reshape(-1, ANCHORS, 4, GRID_H * GRID_W).transpose(2, 3).reshape(len(images), -1, 4)
    first = anchor_loss(anchors(), scores.flatten(1), flat, truth, classes)
    with torch.no_grad():
        ranked = scores.flatten(1).topk(BEFORE).indices
        ranked = torch.cat([ranked[:, :24], ranked[:, torch.randint(24, BEFORE, (16,))]], 1)
        rois = torch.cat([proposed(deltas).gather(1, ranked[..., None].expand(-1, -1, 4)), jittered(truth, 2)], 1)
    logits, moves = model.classify(crop(features, relative(rois)[..., None]))
    return (first + roi_loss(rois, logits, moves, truth, classes, BACKGROUND)[0]) / (classes >= 0).sum()


def train(folder: Path) -> None:
    """Train and write ``folder/faster_rcnn.onnx``."""
    seed_everything()
    pool = framed_pool(5000, WIDTH, HEIGHT, cv2.resize, centred=True)[:3]
    model = fit(Detector(), pool, detection_loss, epochs=12, batch_size=16, learning_rate=2e-3)
    names, examples = ["nms_out", "nms_out_1"], normalized(pool[0][:3])
    export(model, folder / "faster_rcnn.onnx", (3, HEIGHT, WIDTH), "input_image", names, examples)
