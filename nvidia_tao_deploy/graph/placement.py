"""Where Q/DQ pairs go: which weighted operators gain from 8 bits, and which residual branches follow them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto

from nvidia_tao_deploy.graph.islands import node_key
from nvidia_tao_deploy.graph.tensors import COMMUTING_OPS, GraphIndex, attribute, label, matches

CANDIDATE_OPS = frozenset({"Conv", "Gemm", "MatMul"})
WEIGHTED_OPS = CANDIDATE_OPS | {"ConvTranspose"}
# A rounding step before these changes decisions or positions, not just values.
SENSITIVE_OPS = frozenset({"TopK", "NonMaxSuppression", "ArgMax", "ArgMin", "NonZero", "RoiAlign", "Log", "Exp"})
CHANNEL_MULTIPLE = 8
MIN_CHANNELS = 16  # input/output channels (K and N of matrix products) below which a layer does not gain
FP8_MAX_KERNEL_VOLUME = 32


@dataclass
class Plan:
    """What to quantize.

    Attributes:
        nodes: weighted operators, in graph order.
        residuals: (Add node, position of its skip input, output name of the Conv on the other branch).
        skipped: (node, reason) for candidates left float.
        unmatched: user globs that name no node.
        groups: sets of tensors that must share one scale (concatenations, commuting operators).
    """

    nodes: list[NodeProto]
    residuals: list[tuple[NodeProto, int, str]]
    skipped: list[tuple[str, str]]
    unmatched: list[str]
    groups: list[set[str]] = field(default_factory=list)

    def tensors(self) -> list[str]:
        """Activations that need a scale, each once."""
        names = [node.input[0] for node in self.nodes]
        names += [add.input[position] for add, position, _ in self.residuals]
        return list(dict.fromkeys(names))

    def shared_scales(self, scales: Mapping[str, float]) -> dict[str, float]:
        """``scales`` with the maximum of its group for every member."""
        shared = dict(scales)
        for group in self.groups:
            members = [name for name in group if name in scales]
            if members:
                largest = max(scales[name] for name in members)
                shared.update(dict.fromkeys(members, largest))
        return shared


def plan_quantization(model: ModelProto, precision: str, globs: Mapping[str, str]) -> Plan:
    """Choose the nodes. ``globs``: node name or glob -> wished precision; an exact name, else the last match."""
    index = GraphIndex(model)
    candidates = [node for node in model.graph.node if node.op_type in CANDIDATE_OPS and node.domain == ""]
    weighted = {
        node_key(node)
        for node in model.graph.node
        if node.op_type in WEIGHTED_OPS and _has_constant_weight(index, node) and not _is_integral(index, node)
    }
    last = _without_weighted_descendants(index, weighted)
    delicate = _feeding_sensitive(index)
    first = _first_weighted(index, weighted)
    chosen, skipped = [], []
    for node in candidates:
        key = node_key(node)
        wish = _wish(node, globs)
        reason = _structural_reason(index, node)
        if reason is None and wish is not None and wish != precision:
            reason = f"layers_precision asks for {wish}"
        if reason is None and wish is None:
            if key in last:
                reason = "last layer before the outputs"
            elif key in delicate:
                reason = f"feeds {delicate[key]}"
            else:
                reason = _small_layer_reason(index, node, precision, key in first)
        if reason is None:
            chosen.append(node)
        else:
            skipped.append((label(node), reason))
    residuals = _residual_skips(index, {node_key(node) for node in chosen})
    unmatched = [glob for glob in globs if not any(matches(node, glob) for node in model.graph.node)]
    plan = Plan(chosen, residuals, skipped, unmatched)
    plan.groups = _scale_groups(index, set(plan.tensors()))
    return plan


def _wish(node: NodeProto, globs: Mapping[str, str]) -> str | None:
    if node.name in globs:
        return globs[node.name]
    wishes = [wish for glob, wish in globs.items() if matches(node, glob)]
    return wishes[-1] if wishes else None


def _has_constant_weight(index: GraphIndex, node: NodeProto) -> bool:
    return len(node.input) > 1 and node.input[1] in index.initializers and node.input[0] not in index.initializers


def _structural_reason(index: GraphIndex, node: NodeProto) -> str | None:
    """Why this operator cannot be quantized at all."""
    if not _has_constant_weight(index, node):
        return "attention or other product of two activations" if node.op_type == "MatMul" else "weights are computed"
    if not index.is_float(node.input[1]):
        return "weights are not FP32"
    if not index.is_float(node.input[0]):
        return "its input is not FP32"
    if _is_integral(index, node):
        return "coordinate arithmetic written as a convolution or product"
    if node.op_type == "MatMul" and len(index.initializers[node.input[1]].dims) < 2:
        return "weight is a vector"
    if node.op_type == "Gemm" and attribute(node, "transA", 0):
        return "transposed input"
    return None


def _is_integral(index: GraphIndex, node: NodeProto) -> bool:
    """A weighted sum over bins (0, 1, 2, ...), as in distribution-based box regression: it is decode, not a layer."""
    if not _has_constant_weight(index, node):
        return False
    dims = index.initializers[node.input[1]].dims
    if not 4 <= math.prod(dims) <= 256:
        return False
    steps = np.diff(np.asarray(index.constant(node.input[1]), dtype=np.float64).ravel())
    return bool(np.all(steps == steps[0]) and steps[0] != 0)


def _small_layer_reason(index: GraphIndex, node: NodeProto, precision: str, is_first: bool) -> str | None:
    dims = list(index.initializers[node.input[1]].dims)
    if node.op_type != "Conv":
        transposed = node.op_type == "Gemm" and attribute(node, "transB", 0)
        depth, width = (dims[1], dims[0]) if transposed else (dims[-2], dims[-1])
        if min(depth, width) < MIN_CHANNELS:
            return f"matrix of {depth} x {width} is smaller than {MIN_CHANNELS}"
        rows = index.shapes.get(node.input[0], ())
        if rows and all(dim == 1 for dim in rows[:-1]):
            return "matrix times vector"
        return None
    groups = attribute(node, "group", 1)
    outputs, inputs, kernel = dims[0], dims[1] * groups, dims[2:]
    if precision == "fp8" and (math.prod(kernel) > FP8_MAX_KERNEL_VOLUME or min(inputs, outputs) <= MIN_CHANNELS):
        return f"convolution of {inputs} to {outputs} channels, kernel {kernel} does not gain in fp8"
    if groups > 1:
        if outputs % CHANNEL_MULTIPLE or any(side < 3 for side in kernel):
            return f"grouped convolution with {outputs} channels and kernel {kernel}"
        return None
    if min(inputs, outputs) >= MIN_CHANNELS:
        return None
    aligned = inputs % CHANNEL_MULTIPLE == 0 or outputs % CHANNEL_MULTIPLE == 0
    if aligned and len(set(kernel)) <= 1 and (is_first or max(inputs, outputs) >= MIN_CHANNELS):
        return None
    return f"convolution of {inputs} to {outputs} channels is smaller than {MIN_CHANNELS}"


def _without_weighted_descendants(index: GraphIndex, weighted: set[str]) -> set[str]:
    """Weighted nodes no other weighted node comes after: the layers that write the outputs."""
    before_weighted: set[str] = set()
    for node in reversed(index.graph.node):
        if any(node_key(f) in weighted or node_key(f) in before_weighted for f in index.followers(node)):
            before_weighted.add(node_key(node))
    return weighted - before_weighted


def _feeding_sensitive(index: GraphIndex) -> dict[str, str]:
    """Node key -> sensitive operator its result reaches without another Conv, Gemm, MatMul or norm between."""
    barrier = WEIGHTED_OPS | {"Einsum", "LayerNormalization", "InstanceNormalization", "GroupNormalization"}
    reaches: dict[str, str] = {}
    for node in reversed(index.graph.node):
        key = node_key(node)
        for name in node.output:
            if not index.is_float(name):
                continue
            for follower in index.consumers.get(name, ()):
                if follower.op_type in SENSITIVE_OPS:
                    reaches[key] = follower.op_type
                elif follower.op_type == "GridSample":
                    if len(follower.input) > 1 and follower.input[1] == name:
                        reaches[key] = "a sampling grid"
                elif follower.op_type not in barrier and node_key(follower) in reaches:
                    reaches.setdefault(key, reaches[node_key(follower)])
    return {key: reason for key, reason in reaches.items() if index.producers[key].op_type in CANDIDATE_OPS}


def _first_weighted(index: GraphIndex, weighted: set[str]) -> set[str]:
    """Weighted nodes with no weighted node before them."""
    after_weighted: set[str] = set()
    first = set()
    for node in index.graph.node:
        key = node_key(node)
        sources = [index.producers[name] for name in node.input if name in index.producers]
        if any(node_key(source) in after_weighted for source in sources):
            after_weighted.add(key)
        elif key in weighted:
            first.add(key)
            after_weighted.add(key)
    return first


def _residual_skips(index: GraphIndex, chosen: set[str]) -> list[tuple[NodeProto, int, str]]:
    """Add nodes that join a quantized Conv with a skip branch: quantize the skip, leave the Conv side to fuse."""
    position_of = {node_key(node): i for i, node in enumerate(index.graph.node)}
    skips = []
    for add in index.graph.node:
        if add.op_type != "Add" or len(add.input) != 2 or add.input[0] == add.input[1]:
            continue
        if any(name in index.initializers or not index.is_float(name) for name in add.input):
            continue
        shapes = [index.shapes.get(name) for name in add.input]
        if shapes[0] is not None and shapes[1] is not None and len(shapes[0]) != len(shapes[1]):
            continue
        branches = []
        for i, name in enumerate(add.input):
            source = index.producers.get(name)
            alone = len(index.consumers[name]) == 1 and name not in index.outputs
            if alone and source is not None and source.op_type == "Conv" and node_key(source) in chosen:
                branches.append((position_of[node_key(source)], i, node_key(source)))
        if branches:
            # With a Conv on both sides (a projected shortcut) the later one is the main branch.
            _, i, conv_output = max(branches)
            source = index.producers.get(add.input[1 - i])
            # TensorRT takes a Q behind a Resize to before it, and 8.5 has no Resize in int8 (seen on unet's decoder).
            if source is None or source.op_type != "Resize":
                skips.append((add, 1 - i, conv_output))
    return skips


def _scale_groups(index: GraphIndex, tensors: set[str]) -> list[set[str]]:
    """Quantized tensors joined by Concat or by commuting operators; unequal scales there cost a requantizing copy."""
    parent = {name: name for name in tensors}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for name in tensors:
        pending, seen = [name], {name}
        while pending:
            node = index.producers.get(pending.pop())
            if node is None or node.op_type not in COMMUTING_OPS | {"Concat"}:
                continue
            for source in node.input if node.op_type == "Concat" else node.input[:1]:
                if source in tensors:
                    parent[root(source)] = root(name)
                elif source not in seen:
                    seen.add(source)
                    pending.append(source)
    groups: dict[str, set[str]] = {}
    for name in tensors:
        groups.setdefault(root(name), set()).add(name)
    return [group for group in groups.values() if len(group) > 1]
