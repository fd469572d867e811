"""What the two-stage networks share: their pictures, overlaps, box codes and suppression."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from samples.render import Pixels, draw_inked_scene, image_rng, split_indices

MOST = 10  # digits of a training scene
FINE = 56  # side of a digit's training mask, stretched over its box


def framed_pool(
    count: int, width: int, height: int, resize: Callable[[Pixels, tuple[int, int]], Pixels], centred: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scenes with their aspect kept, in the middle of their mean colour or at the top left of ImageNet's.

    Returns uint8 images (M, 3, height, width) RGB, boxes (M, 10, 4) xyxy, classes (M, 10), -1 for none, and uint8
    masks (M, 10, 56, 56).
    """
    images = np.empty((count, height, width, 3), np.uint8)
    boxes, classes = np.zeros((count, MOST, 4), np.float32), np.full((count, MOST), -1)
    masks = np.zeros((count, MOST, FINE, FINE), np.uint8)
    indices = split_indices("train")
    for n in range(count):
        pixels, found, inks = draw_inked_scene(image_rng("scenes", "train", n), indices, (6, MOST), (2, 4))
        scale = min(height / pixels.shape[0], width / pixels.shape[1])
        wide, high = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
        left, top = ((width - wide) // 2, (height - high) // 2) if centred else (0, 0)
        images[n] = pixels.mean((0, 1)) if centred else (124, 116, 104)
        images[n, top : top + high, left : left + wide] = resize(pixels, (wide, high))
        for k, (box, ink) in enumerate(zip(found, inks, strict=True)):
            boxes[n, k] = np.array([box.x1, box.y1, box.x2, box.y2]) * scale + np.array([left, top] * 2)
            classes[n, k] = box.class_id
            masks[n, k] = stretched(ink)
    return torch.from_numpy(images).permute(0, 3, 1, 2), *map(torch.from_numpy, (boxes, classes, masks))


def stretched(ink: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return cv2.resize(ink.astype(np.uint8), (FINE, FINE), interpolation=cv2.INTER_NEAREST_EXACT)


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """IoU of corners (..., A, 4) and (..., B, 4): (..., A, B)."""
    low = torch.maximum(a[..., None, :2], b[..., None, :, :2])
    high = torch.minimum(a[..., None, 2:], b[..., None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(-1) for each in (a, b)]
    return shared / (areas[0][..., None] + areas[1][..., None, :] - shared).clamp(min=1e-6)


def greedy(boxes: Tensor, threshold: float, most: int) -> list[int]:
    """Rows of corners (R, 4), best first, that no row kept before them overlaps by more than the threshold."""
    left, kept = torch.arange(len(boxes)), list[int]()
    while len(left) and len(kept) < most:
        kept.append(int(left[0]))
        left = left[1:][overlaps(boxes[left[:1]], boxes[left[1:]])[0] <= threshold]
    return kept


def encode(boxes: Tensor, wanted: Tensor) -> Tensor:
    """From boxes to wanted, corners (..., 4): shift of the centre in sides, and log growth, as x, y, w, h."""
    sides, wanted_sides = (each[..., 2:] - each[..., :2] for each in (boxes, wanted))
    shift = (wanted[..., :2] + wanted_sides / 2 - boxes[..., :2] - sides / 2) / sides
    return torch.cat([shift, (wanted_sides / sides).log()], -1)


def decode(boxes: Tensor, deltas: Tensor) -> Tensor:
    """What :func:`encode` came from."""
    sides = boxes[..., 2:] - boxes[..., :2]
    centre, half = boxes[..., :2] + sides / 2 + deltas[..., :2] * sides, deltas[..., 2:].exp() * sides / 2
    return torch.cat([centre - half, centre + half], -1)


def jittered(boxes: Tensor, copies: int) -> Tensor:
    """Each of (N, G, 4) corners ``copies`` times, moved and grown by up to about a fifth: (N, G * copies, 4)."""
    boxes = boxes.repeat(1, copies, 1)
    return decode(boxes, (torch.randn(boxes.shape) * 0.12).clamp(-0.3, 0.3)) + boxes.new_tensor([0, 0, 1e-3, 1e-3])


def matched(boxes: Tensor, truth: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each of (N, R, 4): best IoU with a digit, that digit's class and its row, (N, R) each."""
    iou, row = (overlaps(boxes, truth) * (classes >= 0)[:, None]).max(-1)
    return iou, classes.gather(1, row), row


def anchor_loss(anchors: Tensor, logits: Tensor, deltas: Tensor, truth: Tensor, classes: Tensor) -> Tensor:
    """Focal loss of "is a digit" (N, A) and L1 of the deltas (N, A, 4) of anchors (A, 4), summed."""
    iou = overlaps(anchors, truth) * (classes >= 0)[:, None]
    share, row = (iou / iou.max(1, keepdim=True).values.clamp(min=0.1)).max(-1)  # of what the digit's best anchor has
    digit = share > 0.9
    counted = digit | (share < 0.6)
    target = digit.float()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focus = (logits.detach().sigmoid() - target).abs()
    wanted = truth.gather(1, row[..., None].expand(-1, -1, 4))
    distance = (deltas[digit] - encode(anchors.expand_as(wanted)[digit], wanted[digit])).abs().sum()
    return (focus * cross_entropy * counted).sum() + distance


def roi_loss(
    rois: Tensor, logits: Tensor, deltas: Tensor, truth: Tensor, classes: Tensor, background: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of logits (N, R, C) and L1 of the own class's deltas (N, R, C, 4), summed.

    ``background`` is 0 or the last class. Also which rois are digits (N, R), and the row of the digit of each.
    """
    iou, own, row = matched(rois, truth, classes)
    digit = iou >= 0.5
    target = torch.where(digit, own + (background == 0), background)
    entropy = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum")
    wanted = truth.gather(1, row[..., None].expand(-1, -1, 4))[digit]
    distance = (deltas[digit, target[digit]] - encode(rois[digit], wanted)).abs().sum()
    return entropy + 2 * distance, digit, row
