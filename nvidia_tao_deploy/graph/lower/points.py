"""The PointPillars plugins: points to pillars, pillars to a map, head outputs to 3-D boxes.

The plugins number pillars, order points and order boxes by the arrival of GPU threads. Here the order is fixed: pillars
by grid cell (row-major), boxes by row, column, anchor.
"""

from __future__ import annotations

import math

import numpy as np

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.graph.lower.emit import BOOL, FLOAT, INT32, INT64, CannotLowerError, Emitter, Tensor
from nvidia_tao_deploy.graph.lower.node import PluginNode

_BLOCK = 256


def lower_pillar_scatter(g: Emitter, node: PluginNode) -> list[Tensor]:
    """PillarScatterPlugin: features (B, V, C), coords (B, V, 4) = (0, 0, y, x), counts (B,) -> (B, C, H, W)."""
    node.expect_inputs(3)
    features, coords, counts = node.inputs
    height, width = (int(v) for v in node.numbers("dense_shape", 2))
    _, pillars, channels = g.fixed(features, 3)
    y, x = g.slice(coords, 2, 2, 3), g.slice(coords, 2, 3, 4)
    cell = g("Add", g("Mul", g.cast(y, INT64), width), g.cast(x, INT64))
    cell = g.reshape(cell, -1, pillars)
    real = _below_count(g, pillars, counts)
    target = g("Where", real, cell, height * width)
    rows = _scatter_rows(g, features, target, height * width, channels)
    return [g.reshape(g.transpose(rows, 0, 2, 1), -1, channels, height, width)]


def lower_decode_boxes(g: Emitter, node: PluginNode) -> list[Tensor]:
    """DecodeBbox3DPlugin: boxes (B, H*W*A, 9) = x, y, z, dx, dy, dz, yaw, class, score, and counts (B,) int32.

    Boxes whose score reaches the threshold come first, in the order of the grid; the rest is zero.
    """
    node.expect_inputs(3)
    cls, box, direction = node.inputs
    area = node.numbers("point_cloud_range", 6)
    anchors = np.asarray(node.numbers("anchors"), np.float32).reshape(-1, 4)
    per_cell = len(anchors)
    _, rows, columns, class_channels = g.fixed(cls, 4)
    if class_channels % per_cell:
        raise CannotLowerError(f"its {class_channels} class channels do not divide into {per_cell} anchors")
    classes, total = class_channels // per_cell, rows * columns * per_cell
    bottom = np.repeat(np.asarray(node.numbers("anchor_bottom_height"), np.float32), 2)
    if len(bottom) != per_cell:
        raise CannotLowerError(f"it has {len(bottom) // 2} bottom heights for {per_cell} anchors of two rotations")
    bins, offset = node.integer("num_dir_bins", 2), node.number("dir_offset")
    centres = _anchor_centres(area, rows, columns, anchors, bottom)

    logits = g.reshape(cls, -1, total, classes)
    score = g("Sigmoid", g.reduce("ReduceMax", logits, [2]))
    label = g.cast(g("ArgMax", logits, axis=2, keepdims=1), FLOAT)
    t = g.columns(g.reshape(box, -1, total, 7), 7, axis=2)
    size = np.tile(anchors[:, :3], (rows * columns, 1))[None]
    diagonal = np.sqrt(size[..., :1] ** 2 + size[..., 1:2] ** 2)
    scale = np.concatenate([diagonal, diagonal, size[..., 2:]], -1)
    position = g("Add", g("Mul", g.concat(t[:3], 2), scale), centres)
    extent = g("Mul", g("Exp", g.concat(t[3:6], 2)), size)
    rotation = g("Add", t[6], np.tile(anchors[:, 3:], (rows * columns, 1))[None])
    first, second = g.columns(g.reshape(direction, -1, total, 2), 2, axis=2)
    backwards = g.cast(g("Not", g("Greater", first, second)), FLOAT)
    period = 2 * math.pi / bins
    turned = g("Sub", rotation, offset)
    turns = g("Floor", g("Add", g("Div", turned, period), node.number("dir_limit_offset")))
    yaw = g("Add", g("Sub", turned, g("Mul", turns, period)), offset)
    yaw = g("Add", yaw, g("Mul", backwards, period))
    table = g.concat([position, extent, yaw, label, score], 2)

    good = g.reshape(g.at_least(score, node.number("score_thresh")), -1, total)
    rank, count = _running_count(g, good, total)
    target = g("Where", good, rank, total)
    return [_scatter_rows(g, table, target, total, 9), g.cast(g.reshape(count, -1), INT32)]


def _anchor_centres(area: list[float], rows: int, columns: int, anchors: Array, bottom: Array) -> Array:
    """(1, rows * columns * A, 3) float32 x, y, z of the anchors' centres."""
    x_step = (area[3] - area[0]) / max(columns - 1, 1)
    y_step = (area[4] - area[1]) / max(rows - 1, 1)
    y, x, z = np.meshgrid(
        area[1] + np.arange(rows) * y_step,
        area[0] + np.arange(columns) * x_step,
        anchors[:, 2] / 2 + bottom,
        indexing="ij",
    )
    return np.stack([x, y, z], -1).reshape(1, -1, 3).astype(np.float32)


def lower_voxel_generator(g: Emitter, node: PluginNode) -> list[Tensor]:
    """VoxelGeneratorPlugin: points (B, P, F), counts (B,) -> voxels (B, V, Kp, F + 6), coords (B, V, 4), pillars (B,).

    Without a sort: in every round each occupied cell takes one of its waiting points (all write their number to the
    cell, one stays), at most Kp rounds. Which points a full pillar keeps is as open as in the plugin. More than V
    occupied cells keep the first V; the plugin writes out of bounds there.
    """
    node.expect_inputs(2)
    points, counts = node.inputs
    _, total, depth = g.fixed(points, 3)
    per_voxel, limit = node.integer("max_num_points_per_voxel"), node.integer("max_voxels")
    if node.integer("voxel_feature_num", depth + 6) != depth + 6:
        raise CannotLowerError(f"its voxel_feature_num is not the {depth} point features plus 6")
    area = np.asarray(node.numbers("point_cloud_range", 6), np.float32)
    size = np.asarray(node.numbers("voxel_size", 3), np.float32)
    columns, rows = (int(n) for n in np.rint((area[3:5] - area[:2]) / size[:2]))
    cells = rows * columns

    # Last point first: where the last of several writes to one place stays (ONNX Runtime on one thread), a pillar then
    # holds its points in the order of the input.
    points = g.slice(points, 1, -1, -(total + 1), -1)
    xyz = g.slice(points, 2, 0, 3)
    within = g("And", g.at_least(xyz, area[:3]), g("Less", xyz, area[3:]))
    inside = g("Greater", g.reduce("ReduceMin", g.cast(within, FLOAT), [2]), 0.5)
    inside = g("And", g.reshape(inside, -1, total), _below_count(g, total, counts, backwards=True))
    column, row = (
        g("Floor", g("Div", g("Sub", g.slice(points, 2, axis, axis + 1), float(area[axis])), float(size[axis])))
        for axis in (0, 1)
    )
    # A range that is no multiple of the voxel size rounds to fewer cells: points beyond the last one are dropped (the
    # plugin counts them to the next row).
    column, row = g.reshape(column, -1, total), g.reshape(row, -1, total)
    inside = g("And", inside, g("And", g("Less", column, float(columns)), g("Less", row, float(rows))))
    cell = g("Add", g("Mul", g.cast(row, INT64), columns), g.cast(column, INT64))
    cell = g("Where", inside, cell, cells)
    slot = _arrival_slots(g, cell, inside, total, cells, per_voxel)

    ones = g("Add", g.batched(total, 1, value=0.0), 1.0)
    occupied = g("Greater", _scatter_rows(g, ones, cell, cells, 1), 0.5)
    number, pillars = _running_count(g, g.reshape(occupied, -1, cells), cells)
    # Point -> pillar: the dummy cell behind the last belongs to no pillar.
    padded = g.concat([number, g.batched(1, value=limit)], 1)
    pillar = g("GatherElements", padded, cell, axis=1)
    fits = g("And", g("And", inside, g("Less", pillar, limit)), g("Less", slot, per_voxel))
    place = g("Add", g("Mul", pillar, per_voxel), slot)
    place = g("Where", fits, place, limit * per_voxel)
    centre_x, centre_y = (
        g("Add", g("Mul", g("Add", index, 0.5), float(size[axis])), float(area[axis]))
        for axis, index in ((0, column), (1, row))
    )
    centre_z = float(area[2] + size[2] / 2)
    centres = g.concat([g.unsqueeze(centre_x, 2), g.unsqueeze(centre_y, 2), g("Add", g("Mul", ones, 0.0), centre_z)], 2)
    full = g.concat([points, g("Sub", xyz, centres), ones], 2)
    grouped = _scatter_rows(g, full, place, limit * per_voxel, depth + 4)
    grouped = g.reshape(grouped, -1, limit, per_voxel, depth + 4)
    taken = g.slice(grouped, 3, depth + 3, depth + 4)
    own_xyz = g.slice(grouped, 3, 0, 3)
    kept = g("Max", g.reduce("ReduceSum", taken, [2]), 1.0)
    mean = g("Div", g.reduce("ReduceSum", own_xyz, [2]), kept)
    from_mean = g("Mul", g("Sub", own_xyz, mean), taken)
    voxels = g.concat([g.slice(grouped, 3, 0, depth), from_mean, g.slice(grouped, 3, depth, depth + 3)], 3)

    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(1, cells, 2)
    grid = np.concatenate([np.zeros_like(grid), grid], -1).astype(np.float32)
    target = g("Where", g("And", g.reshape(occupied, -1, cells), g("Less", number, limit)), number, limit)
    coords = _scatter_rows(g, g("Add", g.batched(1, 1, value=0.0), grid), target, limit, 4)
    count = g("Where", g("Less", pillars, limit), pillars, limit)
    return [voxels, g.cast(coords, INT32), g.cast(g.reshape(count, -1), INT32)]


def _arrival_slots(g: Emitter, cell: Tensor, inside: Tensor, total: int, cells: int, rounds: int) -> Tensor:
    """(B, total) int64: place of each point within its cell, ``rounds`` where there is none left."""
    image = g("Mul", g.batch_index(), cells + 1)
    address = g.unsqueeze(g.reshape(g("Add", cell, image), -1), 1)
    ids = np.arange(total, dtype=np.int64)[None]
    blank = g.reshape(g.batched(cells + 1, value=-1), -1)

    def body(iteration: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        waiting, slot = state
        # Points that do not wait write to their image's dummy cell.
        dummy = g("Add", image, np.full((1, total), cells))
        own = g("Where", waiting, g.reshape(address, -1, total), dummy)
        own_flat = g.reshape(own, -1)
        names = g.reshape(g("Where", waiting, ids, -1), -1)
        winner = g("ScatterND", blank, g.unsqueeze(own_flat, 1), names)
        won = g("Equal", g.reshape(g("Gather", winner, own_flat, axis=0), -1, total), ids)
        won = g("And", won, waiting)
        slot = g("Where", won, iteration, slot)
        waiting = g("And", waiting, g("Not", won))
        left = g("Greater", g.reduce("ReduceMax", g.cast(waiting, FLOAT), [0, 1], keepdims=False), 0.5)
        return left, [waiting, slot]

    start = [(inside, BOOL, total), (g.batched(total, value=rounds), INT64, total)]
    return g.reshape(g.loop(rounds, start, body)[1], -1, total)


def _below_count(g: Emitter, total: int, counts: Tensor, backwards: bool = False) -> Tensor:
    """(B, total) bool: position < count of the image."""
    positions = np.arange(total, dtype=np.int64)[None]
    return g("Less", positions[:, ::-1] if backwards else positions, g.cast(g.reshape(counts, -1, 1), INT64))


def _scatter_rows(g: Emitter, rows: Tensor, target: Tensor, size: int, width: int) -> Tensor:
    """(B, size, width) zeros with rows (B, count, width) written at target (B, count); target ``size`` drops a row."""
    image = g("Mul", g.batch_index(), size + 1)
    address = g.unsqueeze(g.reshape(g("Add", target, image), -1), 1)
    blank = g.reshape(g.batched(size + 1, width, value=0.0), -1, width)
    filled = g("ScatterND", blank, address, g.reshape(rows, -1, width))
    return g.slice(g.reshape(filled, -1, size + 1, width), 1, 0, size)


def _running_count(g: Emitter, mask: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """How many true values stand before each position of mask (B, total), int64, and in all (B, 1), int64.

    By products with triangular matrices, a block and then the sums of the blocks: some TensorRT versions run CumSum as
    a loop over the axis. Exact in float32 up to 2**24.
    """
    blocks = math.ceil(total / _BLOCK)
    flat = g.cast(mask, FLOAT)
    if blocks * _BLOCK != total:
        flat = g.concat([flat, g.batched(blocks * _BLOCK - total, value=0.0)], 1)
    flat = g.reshape(flat, -1, blocks, _BLOCK)
    inside = g("MatMul", flat, np.triu(np.ones((_BLOCK, _BLOCK), np.float32), 1))
    sums = g.reshape(g.reduce("ReduceSum", flat, [2]), -1, 1, blocks)
    before = g("MatMul", sums, np.triu(np.ones((blocks, blocks), np.float32), 1))
    running = g.reshape(g("Add", inside, g.reshape(before, -1, blocks, 1)), -1, blocks * _BLOCK)
    all_of_it = g.reshape(g.reduce("ReduceSum", sums, [2]), -1, 1)
    return g.cast(g.slice(running, 1, 0, total), INT64), g.cast(all_of_it, INT64)
