"""mask_rcnn: a feature pyramid, two stages and masks, with the plugin nodes of the exporter.

Each plugin is a function of torch, which training calls and the exported file is checked against, and one node.
The plugins count both ends of a box; boxes here have their maxima one pixel on, so that sides are differences.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from samples.render import CLASSES
from samples.trainers.blocks import ConvNorm, Residual
from samples.trainers.fit import Batch, export, fit, seed_everything
from samples.trainers.two_stage import anchor_loss, decode, framed_pool, greedy, jittered, roi_loss

WIDTH, HEIGHT, LEVELS, CHANNELS = 192, 128, range(2, 7), 32
ROIS, DETECTIONS, SIDE, COUNT = 64, 20, 28, len(CLASSES) + 1
PROPOSAL_IOU, IOU, BEFORE = 0.5, 0.5, 4096
IMAGE_SIZE = [3, HEIGHT, WIDTH]
MEAN, STD = (0.485, 0.456, 0.406), 0.224
DIVISORS = (10.0, 10.0, 5.0, 5.0)
SHAPES = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))  # width and height of an anchor, in 8 strides
LAST = (0.0, 0.0, 1.0, 1.0)


def anchors(level: int) -> Tensor:
    """(h * w * 3, 4) xyxy."""
    stride = 2**level
    y, x = (stride / 2 + stride * torch.arange(size // stride) for size in (HEIGHT, WIDTH))
    centre = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[:, :, None]
    half = torch.tensor(SHAPES) * 4 * stride
    return torch.cat([centre - half, centre + half], -1).reshape(-1, 4) + torch.tensor(LAST)


def moved(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Boxes xyxy moved by dy, dx, dh, dw, clamped to the image: y1, x1, y2, x2 with both ends in."""
    limited = torch.cat([deltas[..., [1, 0]], deltas[..., [3, 2]].clamp(max=float(np.log(1000 / 16)))], -1)
    found = (decode(boxes, limited) - torch.tensor(LAST)).clamp(min=0)
    return torch.minimum(found, torch.tensor([WIDTH - 1.0, HEIGHT - 1.0] * 2))[..., [1, 0, 3, 2]]


class Propose(torch.autograd.Function):
    """Deltas (N, A, 4, 1) and scores (N, A, 1, 1) of five levels in turn to rois (N, 64, 4)."""

    @staticmethod
    def forward(_ctx: Any, *pairs: Tensor) -> Tensor:
        rois = torch.zeros(len(pairs[0]), ROIS, 4)
        for image, own in enumerate(rois):
            found, ranks = [], []
            for level, delta, score in zip(LEVELS, pairs[::2], pairs[1::2], strict=True):
                order = score[image].flatten().argsort(descending=True)[:BEFORE]
                boxes = moved(anchors(level)[order], delta[image, order, :, 0])
                kept = greedy(boxes, PROPOSAL_IOU, ROIS)
                found.append(boxes[kept])
                ranks.append(score[image].flatten()[order][kept])
            best = torch.cat(ranks).argsort(descending=True)[:ROIS]
            own[: len(best)] = torch.cat(found)[best]
        return rois

    @staticmethod
    def symbolic(g: Any, *pairs: Any) -> Any:
        return g.op(
            "trt::MultilevelProposeROI_TRT", *pairs, prenms_topk_i=BEFORE, keep_topk_i=ROIS,
            fg_threshold_f=0.0, iou_threshold_f=PROPOSAL_IOU, image_size_i=IMAGE_SIZE,
        )  # fmt: skip


class Crop(torch.autograd.Function):
    """Rois (N, R, 4) and five maps to crops (N, R, C, p, p)."""

    @staticmethod
    def forward(_ctx: Any, side: int, rois: Tensor, *maps: Tensor) -> Tensor:
        return crop(side, rois, *maps)

    @staticmethod
    def symbolic(g: Any, side: int, *inputs: Any) -> Any:
        return g.op("trt::MultilevelCropAndResize_TRT", *inputs, pooled_size_i=side, image_size_i=IMAGE_SIZE)


def crop(side: int, rois: Tensor, *maps: Tensor) -> Tensor:
    """A sample in the middle of every bin, from the map that the roi's area asks for; zeros for a roi without area."""
    n, count = rois.shape[:2]
    low, size = rois[..., :2], rois[..., 2:] - rois[..., :2]
    level = (size.prod(-1)[..., None] > torch.tensor([224.0**2 / 4 * 4**step for step in range(4)])).sum(-1)
    level = torch.where((size > 0).all(-1), level, -1)
    total: Any = 0
    for index, features in enumerate(maps):
        edge = torch.tensor(features.shape[2:]) - 1
        at = low[..., None, :] + (torch.arange(side) + 0.5)[:, None] * size[..., None, :] / side  # (N, R, p, 2)
        grid = torch.minimum(at / 2 ** LEVELS[index], edge) / edge * 2 - 1
        y, x = grid.unbind(-1)
        shape = (n, count, side, side)
        grid = torch.stack([x[:, :, None].expand(shape), y[..., None].expand(shape)], -1)
        found = functional.grid_sample(features, grid.reshape(n, count * side, side, 2), align_corners=True)
        found = found.reshape(n, -1, count, side, side).transpose(1, 2)
        total = total + found * (level == index)[..., None, None, None]
    return total


class Generate(torch.autograd.Function):
    """Deltas (N, R, 4C, 1, 1), scores (N, R, C, 1, 1) and rois to detections (N, 20, 6)."""

    @staticmethod
    def forward(_ctx: Any, deltas: Tensor, scores: Tensor, rois: Tensor) -> Tensor:
        rows = torch.tensor([0.0, 0, 0, 0, -1, 0]).repeat(len(rois), DETECTIONS, 1)
        best, label = scores[:, :, 1:, 0, 0].max(-1)
        own = deltas.reshape(len(rois), ROIS, COUNT, 4)
        for image in range(len(rois)):
            order = best[image].argsort(descending=True)[: int((best[image] > 0.01).sum())]
            ids = label[image, order] + 1
            corners = rois[image, order][:, [1, 0, 3, 2]] + torch.tensor(LAST)
            boxes = moved(corners, own[image, order, ids] / torch.tensor(DIVISORS))
            apart = boxes + 1000.0 * ids[:, None]  # classes do not suppress each other
            for row, k in enumerate(greedy(apart, IOU, DETECTIONS)):
                rows[image, row] = torch.cat([boxes[k], ids[k : k + 1], best[image, order[k : k + 1]]])
        return rows

    @staticmethod
    def symbolic(g: Any, deltas: Any, scores: Any, rois: Any) -> Any:
        return g.op(
            "trt::GenerateDetection_TRT", deltas, scores, rois, num_classes_i=COUNT, keep_topk_i=DETECTIONS,
            score_threshold_f=0.0, iou_threshold_f=IOU, image_size_i=IMAGE_SIZE,
        )  # fmt: skip


class BoxesOf(torch.autograd.Function):
    """The first four columns of detections."""

    @staticmethod
    def forward(_ctx: Any, detections: Tensor) -> Tensor:
        return detections[..., :4].clone()

    @staticmethod
    def symbolic(g: Any, detections: Any) -> Any:
        return g.op("trt::SpecialSlice_TRT", detections)


class Double(torch.autograd.Function):
    """Every pixel four times."""

    @staticmethod
    def forward(_ctx: Any, maps: Tensor) -> Tensor:
        return doubled(maps)

    @staticmethod
    def symbolic(g: Any, maps: Any) -> Any:
        return g.op("trt::ResizeNearest_TRT", maps, scale_f=2.0)


def doubled(maps: Tensor) -> Tensor:
    return functional.interpolate(maps, scale_factor=2.0)


class Detector(nn.Module):
    """(N, 3, 128, 192) normalized RGB to detections (N, 20, 6) and mask logits (N, 20, 11, 28, 28)."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom = nn.Sequential(ConvNorm(3, 16, 2), ConvNorm(16, 32, 2), Residual(32), Residual(32))
        self.stages = nn.ModuleList(
            [nn.Sequential(ConvNorm(32, 48, 2), Residual(48)), ConvNorm(48, 48, 2), ConvNorm(48, 48, 2)]
        )
        self.lateral = nn.ModuleList(nn.Conv2d(depth, CHANNELS, 1) for depth in (32, 48, 48, 48))
        self.smooth = ConvNorm(CHANNELS, CHANNELS)
        self.rpn, self.score, self.delta = ConvNorm(CHANNELS, CHANNELS), nn.Conv2d(32, 3, 1), nn.Conv2d(32, 12, 1)
        self.head = nn.Sequential(ConvNorm(CHANNELS, 64), ConvNorm(64, 64, 2), ConvNorm(64, 64, 2))
        self.class_predict, self.box_predict = nn.Linear(256, COUNT), nn.Linear(256, 4 * COUNT)
        self.mask_head = nn.Sequential(
            ConvNorm(CHANNELS, CHANNELS), ConvNorm(CHANNELS, CHANNELS),
            nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2), nn.ReLU(), nn.Conv2d(CHANNELS, COUNT, 1),
        )  # fmt: skip
        nn.init.constant_(self.score.bias, -4.0)

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """P2 to P6."""
        double = Double.apply if torch.onnx.is_in_onnx_export() else doubled
        found = [self.bottom(images)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        maps = [self.lateral[3](found[3])]
        for index in (2, 1, 0):
            maps.insert(0, self.lateral[index](found[index]) + double(maps[0]))
        maps[0] = self.smooth(maps[0])
        return [*maps, functional.max_pool2d(maps[3], 1, 2)]

    def regions(self, maps: list[Tensor]) -> list[Tensor]:
        """Deltas (N, A, 4, 1) and score logits (N, A, 1, 1), level by level."""
        found = []
        for features in maps:
            hidden = self.rpn(features)
            count = 3 * int(features.shape[2]) * int(features.shape[3])
            found.append(self.delta(hidden).permute(0, 2, 3, 1).reshape(-1, count, 4, 1))
            found.append(self.score(hidden).permute(0, 2, 3, 1).reshape(-1, count, 1, 1))
        return found

    def classify(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, R, C) and deltas (N, R, 4C) of crops (N, R, 32, 7, 7)."""
        count = int(crops.shape[1])
        hidden = self.head(crops.reshape(-1, CHANNELS, SIDE // 4, SIDE // 4)).reshape(-1, count, 256)
        return self.class_predict(hidden), self.box_predict(hidden)

    def masks(self, crops: Tensor) -> Tensor:
        """Logits (N, R, C, 28, 28) of crops (N, R, 32, 14, 14)."""
        count = int(crops.shape[1])
        found = self.mask_head(crops.reshape(-1, CHANNELS, SIDE // 2, SIDE // 2))
        return found.reshape(-1, count, COUNT, SIDE, SIDE)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.pyramid(images)
        pairs = [part.sigmoid() if index % 2 else part for index, part in enumerate(self.regions(maps))]
        rois = Propose.apply(*pairs)
        logits, deltas = self.classify(Crop.apply(SIDE // 4, rois, *maps))
        scores = logits.softmax(-1).reshape(-1, ROIS, COUNT, 1, 1)
        detections = Generate.apply(deltas.reshape(-1, ROIS, 4 * COUNT, 1, 1), scores, rois)
        return detections, self.masks(Crop.apply(SIDE // 2, BoxesOf.apply(detections), *maps))


def normalized(images: Tensor) -> Tensor:
    """RGB grey levels as the network takes them."""
    return (images / 255 - torch.tensor(MEAN).reshape(3, 1, 1)) / STD


def mask_targets(masks: Tensor, boxes: Tensor, rois: Tensor) -> Tensor:
    """What digits' masks (K, 56, 56), each over its box (K, 4) xyxy, cover of the bins of rois: (K, 28, 28)."""
    at = (torch.arange(SIDE) + 0.5)[None, :, None] / SIDE * (rois[:, None, 2:] - rois[:, None, :2]) + rois[:, None, :2]
    x, y = ((at - boxes[:, None, :2]) / (boxes[:, None, 2:] - boxes[:, None, :2]) * 2 - 1).unbind(-1)
    shape = (len(rois), SIDE, SIDE)
    grid = torch.stack([x[:, None].expand(shape), y[..., None].expand(shape)], -1)
    return functional.grid_sample(masks[:, None] / 1.0, grid, align_corners=False)[:, 0]


def detection_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The losses of both stages and of the masks, per digit."""
    images, truth, classes, masks = batch
    last = torch.tensor(LAST)
    maps = model.pyramid(normalized(images))
    pairs = model.regions(maps)
    deltas, scores = torch.cat(pairs[::2], 1)[..., 0], torch.cat(pairs[1::2], 1)[..., 0, 0]
    places = torch.cat([anchors(level) for level in LEVELS])
    first = anchor_loss(places, scores, deltas[..., [1, 0, 3, 2]], truth + last, classes)
    with torch.no_grad():
        ranked = scores.topk(256).indices
        ranked = torch.cat([ranked[:, :24], ranked[:, torch.randint(24, 256, (16,))]], 1)
        found = moved(places[ranked], deltas.gather(1, ranked[..., None].expand(-1, -1, 4)))
        near = jittered(truth, 2)
        rois = torch.cat([found, near[..., [1, 0, 3, 2]]], 1)
    logits, moves = model.classify(crop(SIDE // 4, rois, *maps))
    moves = moves.reshape(*moves.shape[:2], COUNT, 4)[..., [1, 0, 3, 2]] / torch.tensor(DIVISORS)
    second, digit, row = roi_loss(rois[..., [1, 0, 3, 2]] + last, logits, moves, truth + last, classes, 0)
    digit, row = digit[:, -near.shape[1] :], row[:, -near.shape[1] :]
    image = torch.arange(len(images))[:, None].expand_as(row)[digit]
    row = row[digit]
    shapes = model.masks(crop(SIDE // 2, near[..., [1, 0, 3, 2]], *maps))[digit]
    own = shapes[torch.arange(len(row)), classes[image, row] + 1]
    wanted = mask_targets(masks[image, row], truth[image, row], near[digit])
    third = functional.binary_cross_entropy_with_logits(own, wanted, reduction="none").mean((1, 2)).sum()
    return (first + second + third) / (classes >= 0).sum()


def pillow(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def train(folder: Path) -> None:
    """Train and write ``folder/mask_rcnn.onnx``."""
    seed_everything()
    pool = framed_pool(4000, WIDTH, HEIGHT, pillow, centred=False)
    model = fit(Detector(), pool, detection_loss, epochs=16, batch_size=16, learning_rate=2e-3)
    names, examples = ["generate_detections", "mask_fcn_logits/BiasAdd"], normalized(pool[0][:3])
    export(model, folder / "mask_rcnn.onnx", (3, HEIGHT, WIDTH), "Input", names, examples)
