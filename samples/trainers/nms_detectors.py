"""yolo_v4, ssd and efficientdet_tf2: one convolutional trunk trained once, three heads, and the plugin that ends each.

Their inputs are the same picture in other units (RGB over a deviation, or BGR levels minus the same mean), so the
exported stems differ by a factor and the order of channels only. The heads differ as the trainers' do: what a box is
measured against, how a score is made, and the order of the plugin's inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from samples.render import CLASSES, Pixels
from samples.trainers.blocks import ConvNorm, Residual
from samples.trainers.fit import Batch, export, fit, seed_everything
from samples.trainers.scenes import source_scenes

WIDTH, HEIGHT, CHANNELS = 160, 128, 48
STRIDES, ANCHORS = (8, 16), ((16.0, 24.0), (20.0, 30.0))  # width and height of the one anchor of a level
MEAN, DEVIATION = (0.485, 0.456, 0.406), 0.224  # of RGB in [0, 1]; efficientdet has one deviation for all channels
VARIANCES = (0.1, 0.1, 0.2, 0.2)
N, TOP_K = len(CLASSES), 50
INT, FLOAT = TensorProto.INT32, TensorProto.FLOAT


class Trunk(nn.Module):
    """(N, 3, 128, 160) normalized RGB to features (N, 48, 16, 20) and (N, 48, 8, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 16, stride=2)
        self.down1, self.layer1 = ConvNorm(16, 32, stride=2), Residual(32)
        self.down2, self.layer2 = ConvNorm(32, CHANNELS, stride=2), Residual(CHANNELS)
        self.down3 = ConvNorm(CHANNELS, CHANNELS, stride=2)
        self.fuse = ConvNorm(CHANNELS, CHANNELS)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.layer2(self.down2(self.layer1(self.down1(self.stem(images)))))
        coarse = self.down3(fine)
        return [self.fuse(fine + functional.interpolate(coarse, scale_factor=2.0)), coarse]


class Head(nn.Module):
    """``columns`` numbers per anchor, the first four for the box: (N, R, columns), fine level first, row by row."""

    def __init__(self, columns: int, first: float) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(CHANNELS, columns, 1) for _ in STRIDES)
        self.register_buffer("anchors", anchors())
        for level in self.levels:
            nn.init.zeros_(level.bias)
            nn.init.constant_(level.bias[4:], first)

    def forward(self, features: list[Tensor]) -> Tensor:
        maps = [level(each).permute(0, 2, 3, 1) for level, each in zip(self.levels, features, strict=True)]
        return torch.cat([each.reshape(-1, int(each.shape[1] * each.shape[2]), int(each.shape[3])) for each in maps], 1)


class Yolo(Head):
    """Columns: centre, size, objectness, classes."""

    def __init__(self) -> None:
        super().__init__(5 + N, 0.0)
        for level in self.levels:
            nn.init.constant_(level.bias[4:5], -4.0)
        step = [stride for stride, count in zip(STRIDES, level_sizes(), strict=True) for _ in range(count)]
        self.register_buffer("step", torch.tensor(step, dtype=torch.float32)[:, None])

    def boxes(self, rows: Tensor) -> Tensor:
        """Centre and size in pixels, (N, R, 4): the centre moves up to one cell, by YOLOv4's scaled sigmoid."""
        centre = self.anchors[:, :2] + (rows[..., :2].sigmoid() * 2 - 1) * self.step
        return torch.cat([centre, self.anchors[:, 2:] * rows[..., 2:4].exp()], -1)

    def class_loss(self, rows: Tensor, cells: Tensor) -> Tensor:
        classes = functional.binary_cross_entropy_with_logits(rows[..., 5:], one_hot(cells), reduction="none")
        return focal(rows[..., 4], (cells >= 0).float(), cells) + classes[cells >= 0].sum()

    def ports(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The plugin's inputs: corners (N, R, 1, 4) in [0, 1], scores (N, R, C, 1)."""
        box = self.boxes(rows)
        low, high = box[..., :2] - box[..., 2:] * 0.5, box[..., :2] + box[..., 2:] * 0.5
        corners = torch.cat([low, high], -1) * torch.tensor([1 / WIDTH, 1 / HEIGHT] * 2)
        return corners.unsqueeze(2), (rows[..., 5:].sigmoid() * rows[..., 4:5].sigmoid()).unsqueeze(3)


class Ssd(Head):
    """Columns: centre, size, background, classes."""

    def __init__(self) -> None:
        super().__init__(5 + N, 0.0)
        for level in self.levels:
            nn.init.constant_(level.bias[4:5], 4.0)

    def boxes(self, rows: Tensor) -> Tensor:
        """Centre and size in pixels, (N, R, 4)."""
        scaled = rows[..., :4] * torch.tensor(VARIANCES)
        centre = self.anchors[:, :2] + scaled[..., :2] * self.anchors[:, 2:]
        return torch.cat([centre, self.anchors[:, 2:] * scaled[..., 2:].exp()], -1)

    def class_loss(self, rows: Tensor, cells: Tensor) -> Tensor:
        target = (cells + 1).clamp(min=0)
        entropy = functional.cross_entropy(rows[..., 4:].transpose(1, 2), target, reduction="none")
        return ((1 - (-entropy.detach()).exp()) * entropy * (cells != -2)).sum()

    def ports(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The plugin's inputs: priors and variances (N, 2, R * 4, 1), loc (N, R * 4, 1, 1), conf (N, R * 11, 1, 1)."""
        count = len(self.anchors)
        low, high = self.anchors[:, :2] - self.anchors[:, 2:] / 2, self.anchors[:, :2] + self.anchors[:, 2:] / 2
        priors = torch.cat([low, high], 1) / torch.tensor([WIDTH, HEIGHT] * 2)
        priors = torch.stack([priors.reshape(-1), torch.tensor(VARIANCES).repeat(count)])[None, :, :, None]
        loc = rows[..., :4].reshape(-1, count * 4, 1, 1)
        # The plugin reads priors of every image; adding zeros broadcasts them without shape arithmetic.
        each = priors + loc.reshape(-1, 1, count * 4, 1) * 0.0
        return each, loc, rows[..., 4:].softmax(-1).reshape(-1, count * (N + 1), 1, 1)


class EfficientDet(Head):
    """Columns: y, x, height, width, classes."""

    def __init__(self) -> None:
        super().__init__(4 + N, -4.0)

    def boxes(self, rows: Tensor) -> Tensor:
        """Centre and size in pixels, x before y, (N, R, 4)."""
        centre = self.anchors[:, :2] + rows[..., [1, 0]] * self.anchors[:, 2:]
        return torch.cat([centre, self.anchors[:, 2:] * rows[..., [3, 2]].exp()], -1)

    def class_loss(self, rows: Tensor, cells: Tensor) -> Tensor:
        return focal(rows[..., 4:], one_hot(cells), cells[..., None])

    def ports(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The plugin's inputs but for the constant anchors: deltas (N, R, 4), logits (N, R, C)."""
        return rows[..., :4], rows[..., 4:]


class Detectors(nn.Module):
    """The trunk and the three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.heads = nn.ModuleDict({"yolo_v4": Yolo(), "ssd": Ssd(), "efficientdet_tf2": EfficientDet()})


class Exported(nn.Module):
    """One network, from its own input to its plugin's inputs."""

    def __init__(self, model: Detectors, name: str) -> None:
        super().__init__()
        self.trunk, self.head = deepcopy(model.trunk), deepcopy(model.heads[name])
        self.channels_last = name == "efficientdet_tf2"
        if not self.channels_last:  # BGR levels minus the mean; classes in the order of their sorted names
            weight = self.trunk.stem.conv.weight
            weight.data = weight.data.flip(1) / (255 * DEVIATION)
            order = [*range(5), *(5 + index for index in sorted(range(N), key=CLASSES.__getitem__))]
            for level in self.head.levels:
                level.weight.data, level.bias.data = level.weight.data[order], level.bias.data[order]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.channels_last:
            images = images.permute(0, 3, 1, 2) * (1 / (255 * DEVIATION)) - per_channel(MEAN) / DEVIATION
        return self.head.ports(self.head(self.trunk(images)))


def level_sizes() -> list[int]:
    return [WIDTH * HEIGHT // stride**2 for stride in STRIDES]


def anchors() -> Tensor:
    """(R, 4) centre and size in pixels."""
    parts = []
    for stride, size in zip(STRIDES, ANCHORS, strict=True):
        y, x = torch.meshgrid(torch.arange(HEIGHT // stride), torch.arange(WIDTH // stride), indexing="ij")
        centre = (torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride
        parts.append(torch.cat([centre, torch.tensor(size).expand(len(centre), 2)], 1))
    return torch.cat(parts)


def per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).reshape(1, 3, 1, 1)


def one_hot(cells: Tensor) -> Tensor:
    return (functional.one_hot(cells.clamp(min=0), N) * (cells >= 0)[..., None]).float()


def focal(logits: Tensor, target: Tensor, cells: Tensor) -> Tensor:
    """Summed; anchors marked -2 are not counted."""
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((logits.detach().sigmoid() - target).abs() * entropy * (cells != -2)).sum()


def place(pixels: Pixels, boxes: NDArray[np.float32], number: int) -> tuple[Pixels, NDArray[np.float32]]:
    """A scene on the canvas as one of the three networks gets it: stretched, in the middle, or top left."""
    height, width = pixels.shape[:2]
    scale = np.array([WIDTH / width, HEIGHT / height])
    if number % 3:
        scale[:] = scale.min()
    size = tuple(round(side) for side in scale * (width, height))
    if number % 3 == 1:
        resized = np.rint(cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_LINEAR))
        left, top = (WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2
        canvas = np.broadcast_to(pixels.mean((0, 1)), (HEIGHT, WIDTH, 3)).astype(np.uint8)
    else:
        resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        left = top = 0
        canvas = np.broadcast_to(np.uint8([124, 116, 104]), (HEIGHT, WIDTH, 3)).copy()
    canvas[top : top + size[1], left : left + size[0]] = resized
    return canvas, boxes * np.tile(scale, 2) + (left, top, left, top)


def targets(boxes: NDArray[np.float32], classes: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """Per anchor: class id, (R,), and centre and size in pixels, (R, 4).

    The cells around a digit's middle hold it, at both levels. Class -1 is background; -2 is a cell that nearly holds
    one, which is not taught either way.
    """
    places, steps = anchors().numpy(), np.repeat(STRIDES, level_sizes())
    cells, wanted = np.full(len(places), -1, np.int64), np.zeros((len(places), 4), np.float32)
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    nearest = np.full(len(places), np.inf)
    for centre, size, class_id in zip(centres, sizes, classes, strict=True):
        distance = np.abs(places[:, :2] - centre).max(1) / steps
        mine = (distance < 0.75) & (distance < nearest)
        cells[(distance < 1.15) & (cells < 0)] = -2
        cells[mine], nearest[mine] = class_id, distance[mine]
        wanted[mine] = np.concatenate([centre, size])
    return cells, wanted


def training_pool(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 images (M, 3, H, W), classes (M, R) and boxes (M, R, 4) by anchor."""
    images, cells, wanted = [], [], []
    for number, (pixels, boxes, classes) in enumerate(source_scenes(count)):
        canvas, placed = place(pixels, boxes, number)
        images.append(canvas)
        for part, rows in zip((cells, wanted), targets(placed, classes), strict=True):
            part.append(rows)
    pool = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return pool, torch.from_numpy(np.stack(cells)), torch.from_numpy(np.stack(wanted))


def box_loss(boxes: Tensor, wanted: Tensor) -> Tensor:
    """L1 in units of 8 pixels plus 1 - IoU, summed over rows of centre and size (n, 4)."""
    low = torch.maximum(boxes[:, :2] - boxes[:, 2:] / 2, wanted[:, :2] - wanted[:, 2:] / 2)
    high = torch.minimum(boxes[:, :2] + boxes[:, 2:] / 2, wanted[:, :2] + wanted[:, 2:] / 2)
    shared = (high - low).clamp(min=0).prod(1)
    union = boxes[:, 2:].prod(1) + wanted[:, 2:].prod(1) - shared
    return (boxes - wanted).abs().sum() / 8 + (1 - shared / union).sum()


def detection_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The three heads' losses, per anchor that holds a digit."""
    images, cells, wanted = batch
    features = model.trunk((images / 255 - per_channel(MEAN)) / DEVIATION)
    digit = cells >= 0
    total = 0.0
    for head in model.heads.values():
        rows = head(features)
        total = total + head.class_loss(rows, cells) + box_loss(head.boxes(rows)[digit], wanted[digit])
    return total / digit.sum().clamp(min=1)


def end_in_plugin(
    path: Path,
    op_type: str,
    name: str,
    constants: Mapping[str, Tensor],
    outputs: Mapping[str, tuple[int, list[int]]],
    **attrs: Any,
) -> None:
    """Replace the outputs of the model in ``path`` by a plugin node that reads them and ``constants``.

    ``outputs`` gives the element type and the shape after the batch; ``attrs`` are the node's.
    """
    model = onnx.load(str(path))
    graph = model.graph
    graph.initializer.extend(onnx.numpy_helper.from_array(value.numpy(), key) for key, value in constants.items())
    inputs = [value.name for value in graph.output] + list(constants)
    graph.node.append(helper.make_node(op_type, inputs, list(outputs), name=name, **attrs))
    del graph.output[:]
    for key, (kind, shape) in outputs.items():
        graph.output.append(helper.make_tensor_value_info(key, kind, ["batch", *shape]))
    onnx.save(model, str(path))


def train(folder: Path) -> None:
    """Train once and write ``folder/{yolo_v4,ssd,efficientdet_tf2}.onnx``."""
    seed_everything()
    model = fit(Detectors(), training_pool(4500), detection_loss, epochs=10, batch_size=16, learning_rate=4e-3)
    write(model, folder)


def write(model: nn.Module, folder: Path) -> None:
    """Export the three networks."""
    kept = {"shareLocation": 1, "topK": 2 * TOP_K, "keepTopK": TOP_K, "isNormalized": 1, "scoreBits": 16}
    path, shape = folder / "yolo_v4.onnx", (3, HEIGHT, WIDTH)
    export(Exported(model, "yolo_v4").eval(), path, shape, "Input", ["boxes", "scores"])
    end_in_plugin(
        path,
        "BatchedNMSDynamic_TRT",
        "BatchedNMS_N",
        {},
        {
            "BatchedNMS": (INT, [1]),
            "BatchedNMS_1": (FLOAT, [TOP_K, 4]),
            "BatchedNMS_2": (FLOAT, [TOP_K]),
            "BatchedNMS_3": (FLOAT, [TOP_K]),
        },
        **kept,
        backgroundLabelId=-1,
        numClasses=N,
        scoreThreshold=0.01,
        iouThreshold=0.5,
        clipBoxes=1,
    )
    path = folder / "ssd.onnx"
    export(Exported(model, "ssd").eval(), path, shape, "Input", ["anchor_data", "loc_data", "conf_data"])
    end_in_plugin(
        path,
        "NMSDynamic_TRT",
        "NMS",
        {},
        {"NMS": (FLOAT, [1, TOP_K, 7]), "NMS_1": (FLOAT, [1, 1, 1])},
        **kept,
        backgroundLabelId=0,
        numClasses=N + 1,
        confidenceThreshold=0.01,
        nmsThreshold=0.5,
        inputOrder=[1, 2, 0],
        codeType=1,
        confSigmoid=0,
        varianceEncodedInTarget=0,
    )
    path, boxes = folder / "efficientdet_tf2.onnx", model.heads["efficientdet_tf2"].anchors[None, :, [1, 0, 3, 2]]
    names = ["box_outputs", "class_outputs"]
    export(Exported(model, "efficientdet_tf2").eval(), path, (HEIGHT, WIDTH, 3), "input", names)
    end_in_plugin(
        path,
        "EfficientNMS_TRT",
        "nms/non_maximum_suppression",
        {"anchors": boxes},
        {
            "num_detections": (INT, [1]),
            "detection_boxes": (FLOAT, [100, 4]),
            "detection_scores": (FLOAT, [100]),
            "detection_classes": (INT, [100]),
        },
        plugin_version="1",
        background_class=-1,
        max_output_boxes=100,
        score_threshold=0.01,
        iou_threshold=0.5,
        score_activation=1,
        box_coding=1,
    )
