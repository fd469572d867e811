"""Deformable attention and convolution: samples at places that the network computes."""

from __future__ import annotations

import numpy as np

from nvidia_tao_deploy.graph.lower.emit import FLOAT, CannotLowerError, Emitter, Tensor
from nvidia_tao_deploy.graph.lower.node import PluginNode


def lower_deformable_attention(g: Emitter, node: PluginNode) -> list[Tensor]:
    """MultiscaleDeformableAttnPlugin_TRT: (N, Lq, M, D) from one GridSample per level.

    Inputs: value (N, S, M, D), spatial_shapes (L, 2) rows of height and width, level_start_index (L,),
    sampling_locations (N, Lq, M, L, P, 2) x and y in 0..1, attention_weights (N, Lq, M, L, P).
    """
    node.expect_inputs(5)
    value, shapes_name, starts_name, locations, weights = node.inputs
    shapes, starts = node.constants(shapes_name), node.constants(starts_name)
    if shapes is None:
        raise CannotLowerError(f"its input {shapes_name!r} must be a constant; fold constants first")
    sizes = [(int(height), int(width)) for height, width in shapes]
    areas = [height * width for height, width in sizes]
    begins = [int(s) for s in starts] if starts is not None else list(np.cumsum([0, *areas[:-1]]))
    _, _, heads, dim = g.shape(value, 4)
    _, queries, _, levels, points, _ = g.shape(locations, 6)
    if not (heads and dim and queries and points):
        raise CannotLowerError("the numbers of heads, channels, queries and points must be fixed")
    if levels != len(sizes):
        raise CannotLowerError(f"it has {levels} levels of locations and {len(sizes)} spatial shapes")

    grid = g("Sub", g("Mul", g.transpose(locations, 0, 2, 3, 1, 4, 5), 2.0), 1.0)  # (N, M, L, Lq, P, 2)
    weights = g.transpose(weights, 0, 2, 3, 1, 4)  # (N, M, L, Lq, P)
    total = ""
    for level, ((height, width), area, begin) in enumerate(zip(sizes, areas, begins, strict=True)):
        rows = g.slice(value, 1, int(begin), int(begin) + area)
        feature = g.reshape(g.transpose(rows, 0, 2, 3, 1), -1, dim, height, width)
        where = g.reshape(g.slice(grid, 2, level, level + 1), -1, queries, points, 2)
        sampled = _sampled(g, feature, where)  # (N*M, D, Lq, P)
        weighted = g("Mul", sampled, g.reshape(g.slice(weights, 2, level, level + 1), -1, 1, queries, points))
        part = g.reduce("ReduceSum", weighted, [3], keepdims=False)
        total = g("Add", total, part) if total else part
    return [g.transpose(g.reshape(total, -1, heads, dim, queries), 0, 3, 1, 2)]


def lower_multi_camera_attention(g: Emitter, node: PluginNode) -> list[Tensor]:
    """nv::MSDA of sparse4d: (B, Q, E), the weighted sum of bilinear samples of all cameras and levels.

    Inputs: features (B, S, E); spatial_shapes (C, L, 2) rows of height and width and level_start_index (C, L), both
    constant; sampling_locations (B, Q, P, C, 2) x and y, one for all levels; weights (B, Q, P, C, L, G), one for each
    of G groups of channels. Only locations with 0 < x < 1 and 0 < y < 1 count; NaN and infinities do not.
    """
    node.expect_inputs(5)
    features, shapes_name, starts_name, locations, weights = node.inputs
    shapes, starts = node.constants(shapes_name), node.constants(starts_name)
    if shapes is None or starts is None:
        raise CannotLowerError(
            f"its inputs {shapes_name!r} and {starts_name!r} must be constants; fold constants first"
        )
    if (shapes != shapes[:1]).any():
        raise CannotLowerError("its cameras have maps of different sizes")
    channels, groups = g.shape(features, 3)[2], g.shape(weights, 6)[5]
    _, queries, points, _, _ = g.shape(locations, 5)
    if not (channels and groups and queries and points):
        raise CannotLowerError("the numbers of channels, groups, queries and points must be fixed")

    within = g("And", g("Greater", locations, 0.0), g("Less", locations, 1.0))
    counted = g.reduce("ReduceMin", g.cast(within, FLOAT), [4], keepdims=False)  # (B, Q, P, C)
    placed = g("Sub", g("Mul", g("Where", within, locations, 0.5), 2.0), 1.0)
    grid = g.reshape(g.transpose(placed, 0, 3, 1, 2, 4), -1, queries, points, 2)
    shares = g.transpose(g("Mul", weights, g.unsqueeze(counted, 4, 5)), 0, 3, 4, 5, 1, 2)  # (B, C, L, G, Q, P)
    total = ""
    for level, (height, width) in enumerate(shapes[0].tolist()):
        begins = starts[:, level].tolist()
        rows = g.concat([g.slice(features, 1, begin, begin + height * width) for begin in begins], 1)
        maps = g.transpose(g.reshape(rows, -1, height * width, channels), 0, 2, 1)
        sampled = _sampled(g, g.reshape(maps, -1, channels, height, width), grid)  # (B*C, E, Q, P)
        share = g.reshape(g.slice(shares, 2, level, level + 1), -1, groups, 1, queries, points)
        weighted = g("Mul", g.reshape(sampled, -1, groups, channels // groups, queries, points), share)
        part = g.reduce("ReduceSum", weighted, [4], keepdims=False)
        total = g("Add", total, part) if total else part
    merged = g.reduce("ReduceSum", g.reshape(total, -1, len(shapes), channels, queries), [1], keepdims=False)
    return [g.transpose(merged, 0, 2, 1)]


def lower_modulated_deform_conv(g: Emitter, node: PluginNode) -> list[Tensor]:
    """ModulatedDeformConv2d (DCNv2): (B, Co, oh, ow), one GridSample for all taps, then a 1x1 convolution.

    Inputs: x (B, Ci, H, W); offset (B, D 2 T, oh, ow), per tap y then x in pixels; mask (B, D T, oh, ow); weight
    (Co, Ci / group, kh, kw); optionally bias (Co,). T = kh kw taps; each of D deformable groups has its own offsets.
    """
    node.expect_inputs(4, 5)
    x, offset, mask, weight, *bias = node.inputs
    _, channels, height, width = g.fixed(x, 4)
    _, _, rows, columns = g.fixed(offset, 4)
    _, depth, kh, kw = g.fixed(weight, 4)
    (sy, sx), (py, px), (dy, dx) = (node.numbers(name, 2) for name in ("stride", "padding", "dilation"))
    groups, parts, taps = node.integer("group"), node.integer("deformable_group"), kh * kw
    tap_y, tap_x, row, column = np.meshgrid(*map(np.arange, (kh, kw, rows, columns)), indexing="ij")
    start = np.stack([column * sx - px + tap_x * dx, row * sy - py + tap_y * dy], -1).astype(np.float32)
    step = np.asarray([2 / width, 2 / height], np.float32)  # pixel centres to -1..1
    moved = g.transpose(g.reshape(offset, -1, taps, 2, rows, columns), 0, 1, 3, 4, 2)
    moved = g.concat([g.slice(moved, 4, 1, 2), g.slice(moved, 4, 0, 1)], 4)
    grid = g("Add", g("Mul", moved, step), (start.reshape(taps, rows, columns, 2) + 0.5) * step - 1)
    pixels = g.reshape(x, -1, channels // parts, height, width)
    sampled = _sampled(g, pixels, g.reshape(grid, -1, taps * rows, columns, 2))
    weighted = g("Mul", sampled, g.reshape(mask, -1, 1, taps * rows, columns))
    taken = g.reshape(weighted, -1, channels * taps, rows, columns)
    return [g("Conv", taken, g.reshape(weight, -1, depth * taps, 1, 1), *bias, group=groups, kernel_shape=[1, 1])]


def _sampled(g: Emitter, feature: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples (N, C, Q, P) of a map (N, C, H, W) at x and y in -1..1 (N, Q, P, 2), zero outside."""
    if g.opset < 16:
        raise CannotLowerError(f"GridSample needs opset 16, the model has {g.opset}")
    mode = "linear" if g.opset >= 20 else "bilinear"
    return g("GridSample", feature, grid, mode=mode, padding_mode="zeros", align_corners=0)
