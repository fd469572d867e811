"""Trains the point cloud sample: pillars, a small convolutional map, an anchor head.

The graph is the TAO exporter's: VoxelGeneratorPlugin, pillar features, PillarScatterPlugin, map, DecodeBbox3DPlugin.
Training knows no plugin: it takes the greatest feature over the points of each cell, which is what pillars compute.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nvidia_tao_deploy.transforms.points import VoxelCaps
from samples.pointcloud_data import AREA, GROUND, SIZES, Cuboid, draw_cloud
from samples.render import image_rng
from samples.trainers.blocks import ConvNorm, Residual
from samples.trainers.fit import Batch, constants_to_initializers, declare_shapes, fit, seed_everything

POINTS, PER_VOXEL, VOXELS, VOXEL = 2048, 32, 640, (0.4, 0.4, 4.0)
GRID, MAP, CHANNELS = 64, 32, 64  # the scatter plugin takes 64 channels only
ROTATIONS = (0.0, 1.57)
ANCHORS = np.array([(*size, turn) for size in SIZES.values() for turn in ROTATIONS], np.float32)
DIR_OFFSET = 0.78539
SCORE = 0.1
CAPS = VoxelCaps(AREA, VOXEL, PER_VOXEL, VOXELS)


class VoxelGenerator(torch.autograd.Function):
    """The plugin's node; the values matter to nobody at export."""

    @staticmethod
    def forward(_ctx, points, _num_points):
        batch, _, depth = points.shape
        voxels = points.new_zeros(batch, VOXELS, PER_VOXEL, depth + 6)
        return voxels, torch.zeros(batch, VOXELS, 4, dtype=torch.int32), torch.zeros(batch, dtype=torch.int32)

    @staticmethod
    def symbolic(g, points, num_points):
        return g.op(
            "trt::VoxelGeneratorPlugin", points, num_points, outputs=3, max_num_points_per_voxel_i=PER_VOXEL,
            max_voxels_i=VOXELS, point_cloud_range_f=AREA, voxel_feature_num_i=10, voxel_size_f=VOXEL,
        )  # fmt: skip


class PillarScatter(torch.autograd.Function):
    """The plugin's node."""

    @staticmethod
    def forward(_ctx, features, _coords, _num_pillars):
        return features.new_zeros(len(features), CHANNELS, GRID, GRID)

    @staticmethod
    def symbolic(g, features, coords, num_pillars):
        return g.op("trt::PillarScatterPlugin", features, coords, num_pillars, dense_shape_i=[GRID, GRID])


class DecodeBoxes(torch.autograd.Function):
    """The plugin's node."""

    @staticmethod
    def forward(_ctx, cls, _box, _direction):
        return cls.new_zeros(len(cls), MAP * MAP * len(ANCHORS), 9), torch.zeros(len(cls), dtype=torch.int32)

    @staticmethod
    def symbolic(g, cls, box, direction):
        return g.op(
            "trt::DecodeBbox3DPlugin", cls, box, direction, outputs=2, point_cloud_range_f=AREA,
            anchors_f=ANCHORS.ravel().tolist(), anchor_bottom_height_f=[GROUND] * len(SIZES), dir_offset_f=DIR_OFFSET,
            dir_limit_offset_f=0.0, num_dir_bins_i=2, score_thresh_f=SCORE,
        )  # fmt: skip


class PillarDetector(nn.Module):
    """Points (B, P, 4) and their numbers (B,) to ``output_boxes`` and ``num_boxes``."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(10, CHANNELS, bias=False)
        self.norm = nn.BatchNorm1d(CHANNELS)
        self.map = nn.Sequential(ConvNorm(CHANNELS, 48, stride=2), Residual(48), ConvNorm(48, 48), ConvNorm(48, 48))
        self.heads = nn.ModuleList(nn.Conv2d(48, len(ANCHORS) * width, 1) for width in (len(SIZES), 7, 2))
        nn.init.constant_(self.heads[0].bias, -math.log(99))

    def head(self, pillars: Tensor) -> list[Tensor]:
        """(B, 64, 64, 64) to class, box and direction maps (B, 32, 32, anchors * n)."""
        features = self.map(pillars)
        return [head(features).permute(0, 2, 3, 1) for head in self.heads]

    def from_features(self, features: Tensor, cells: Tensor) -> Tensor:
        """Point features (B, P, 10) and cells (B, P), GRID * GRID where there is no point, to the pillar map."""
        batch = len(features)
        real = cells < GRID * GRID
        values = self.norm(self.linear(features[real])).relu()
        where = (cells + torch.arange(batch, device=cells.device)[:, None] * GRID * GRID)[real]
        full = values.new_zeros(batch * GRID * GRID, CHANNELS)
        counts = torch.bincount(where, minlength=len(full))
        # The zero rows of a pillar that is not full count too.
        norm = self.norm
        rest = (norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()).relu()
        full = torch.where(((counts > 0) & (counts < PER_VOXEL))[:, None], rest, full)
        full = full.scatter_reduce(0, where[:, None].expand(-1, CHANNELS), values, "amax")
        return full.view(batch, GRID, GRID, CHANNELS).permute(0, 3, 1, 2)

    def forward(self, points: Tensor, num_points: Tensor) -> tuple[Tensor, Tensor]:
        voxels, coords, num_pillars = VoxelGenerator.apply(points, num_points)
        features = self.linear(voxels).view(-1, PER_VOXEL, CHANNELS)
        features = self.norm(features.permute(0, 2, 1)).relu().max(2).values.view(-1, VOXELS, CHANNELS)
        return DecodeBoxes.apply(*self.head(PillarScatter.apply(features, coords, num_pillars)))


def point_features(points: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The plugin's features (n, 10) and cells (n,) of the points that pillars keep."""
    points = points[CAPS.kept(points)]
    column, row = (np.floor((points[:, k] - AREA[k]) / VOXEL[k]).astype(np.int64) for k in (0, 1))
    cells = row * GRID + column
    _, place, counts = np.unique(cells, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), 3))
    np.add.at(sums, place, points[:, :3])
    centre = np.stack([(column + 0.5) * VOXEL[0] + AREA[0], (row + 0.5) * VOXEL[1] + AREA[1]], 1)
    centre = np.column_stack([centre, np.full(len(points), AREA[2] + VOXEL[2] / 2)])
    mean = (sums / counts[:, None])[place]
    return np.column_stack([points, points[:, :3] - mean, points[:, :3] - centre]).astype(np.float32), cells


def anchor_targets(objects: list[Cuboid]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Per row, column and anchor: 1 object, 0 none, -1 does not count, (32, 32, 6); and x, y, ..., yaw, (32, 32, 6, 7).

    An object's anchors are those of its class within half a metre of its centre, or nearest to it.
    """
    states, boxes = np.zeros((MAP, MAP, len(ANCHORS)), np.int64), np.zeros((MAP, MAP, len(ANCHORS), 7), np.float32)
    x, y = anchor_centres()
    for item in objects:
        distance = np.hypot(x[None] - item.box[0], y[:, None] - item.box[1])
        near = distance <= max(0.5, distance.min())
        around = (distance < 1.0) & ~near
        for turn, rotation in enumerate(ROTATIONS):
            anchor = list(SIZES).index(item.name) * 2 + turn
            aligned = abs(math.sin(item.box[6] - rotation)) < 0.82  # nearer than 55 degrees
            states[near, anchor] = 1 if aligned else 0
            states[..., anchor][around & (states[..., anchor] == 0)] = -1
            boxes[near, anchor] = item.box
    return states, boxes


def anchor_centres() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x (32,) and y (32,) of the anchors, as the plugin has them."""
    return np.linspace(AREA[0], AREA[3], MAP), np.linspace(AREA[1], AREA[4], MAP)


def training_pool(count: int) -> tuple[Tensor, ...]:
    """Features, cells, states and boxes of ``count`` scenes."""
    features, cells = np.zeros((count, POINTS, 10), np.float32), np.full((count, POINTS), GRID * GRID)
    targets = []
    for number in range(count):
        points, objects = draw_cloud(image_rng("clouds", "train", number))
        found, own = point_features(points)
        features[number, : len(own)], cells[number, : len(own)] = found, own
        targets.append(anchor_targets(objects))
    states, boxes = (np.stack(part) for part in zip(*targets, strict=True))
    return tuple(torch.from_numpy(part) for part in (features, cells, states, boxes))


def detection_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Focal loss on classes, smooth L1 on boxes (sine of the yaw's error), cross entropy on the direction."""
    features, cells, states, boxes = batch
    scenes, per_cell = len(states), len(ANCHORS)
    cls, box, direction = model.head(model.from_features(features, cells))
    cls = cls.reshape(scenes, MAP, MAP, per_cell, len(SIZES))
    positive, anchor = states == 1, torch.as_tensor(ANCHORS, device=states.device)
    own = functional.one_hot(torch.arange(per_cell, device=states.device) // 2, len(SIZES))
    target = (own * positive[..., None]).float()
    cross_entropy = functional.binary_cross_entropy_with_logits(cls, target, reduction="none")
    chance = cls.sigmoid()
    focus = torch.where(target > 0, 0.25 * (1 - chance) ** 2, 0.75 * chance**2)
    number = positive.sum().clamp(min=1)
    classes = (focus * cross_entropy * (states >= 0)[..., None]).sum() / number

    which = positive.nonzero()
    a, t = anchor[which[:, 3]], boxes[positive]
    x, y = (torch.as_tensor(part, dtype=torch.float32, device=a.device) for part in anchor_centres())
    diagonal = a[:, :2].norm(dim=1)
    wanted = torch.stack(
        [
            (t[:, 0] - x[which[:, 2]]) / diagonal,
            (t[:, 1] - y[which[:, 1]]) / diagonal,
            (t[:, 2] - GROUND - a[:, 2] / 2) / a[:, 2],
            *(t[:, 3:6] / a[:, :3]).log().T,
        ],
        1,
    )
    found = box.reshape(scenes, MAP, MAP, per_cell, 7)[positive]
    error = torch.cat([found[:, :6] - wanted, (found[:, 6:] - (t[:, 6:] - a[:, 3:])).sin()], 1)
    places = functional.smooth_l1_loss(error, torch.zeros_like(error), beta=1 / 9, reduction="sum") / number
    half = torch.floor((t[:, 6] - DIR_OFFSET) / math.pi).long() % 2
    turns = functional.cross_entropy(direction.reshape(scenes, MAP, MAP, per_cell, 2)[positive], half)
    return 2 * classes + places + 0.2 * turns


def export(model: nn.Module, path: Path) -> None:
    """Write the exporter's graph: fixed points, dynamic batch, plugins in the default domain."""
    import onnx

    inputs, outputs = ["points", "num_points"], ["output_boxes", "num_boxes"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, POINTS, 4), torch.zeros(1, dtype=torch.int32)),
            str(path),
            dynamo=False,
            opset_version=11,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
        )
    proto = onnx.load(str(path))
    constants_to_initializers(proto)
    for node in proto.graph.node:
        node.domain = ""
    del proto.opset_import[1:]
    declare_shapes(proto, [(MAP * MAP * len(ANCHORS), 9), ()])
    onnx.save(proto, str(path))
    print(f"  {path}: {path.stat().st_size:,} bytes, {len(proto.graph.node)} nodes")


def train(folder: Path) -> None:
    """Train and write ``folder/pointpillars.onnx``."""
    seed_everything()
    pool = training_pool(2000)
    model = fit(PillarDetector(), pool, detection_loss, epochs=16, batch_size=8, learning_rate=4e-3)
    export(model, folder / "pointpillars.onnx")
