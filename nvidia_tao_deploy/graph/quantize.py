"""INT8 and FP8 as Q/DQ pairs, placed so that every TensorRT from 8.5 to 11, RTX and ONNX Runtime accept and fuse them.

Placement: both inputs of Conv, Gemm and MatMul with constant weights, the skip branch of a residual Add, nothing else.
Weights are FP constants behind Q -> DQ with one scale per output channel; biases stay float; zero points are explicit
zeros; one pair per tensor serves all its consumers. Rules: TensorRT "Working with Quantized Types"; thresholds for
small layers: the ones NVIDIA's Model Optimizer uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.graph.decompose import set_kernel_shapes
from nvidia_tao_deploy.graph.placement import plan_quantization
from nvidia_tao_deploy.graph.precision import workable
from nvidia_tao_deploy.graph.tensors import attribute, label, refill
from nvidia_tao_deploy.graph.verify import is_quantized

QUANTIZED_MAX = {"int8": 127.0, "fp8": 448.0}
MIN_OPSET = {"int8": 13, "fp8": 19}  # per-axis Q/DQ; FLOAT8E4M3FN


@dataclass(frozen=True)
class QuantizeResult:
    """A Q/DQ graph.

    Attributes:
        model: the new model.
        quantized_nodes: names of the Conv/Gemm/MatMul that now run in the quantized type.
        skipped: (node, reason) for every other one.
        unmatched: globs of ``layers`` that name no node.
    """

    model: ModelProto
    quantized_nodes: list[str]
    skipped: list[tuple[str, str]]
    unmatched: list[str]


def quantizable_tensors(model: ModelProto, *, precision: str = "int8", layers: Mapping[str, str] = {}) -> list[str]:
    """Activations whose scale ``quantize`` will ask for, called with the same options. In graph order."""
    return plan_quantization(_prepare(model, precision), precision, layers).tensors()


def quantize(
    model: ModelProto,
    scales: Mapping[str, float],
    *,
    precision: str = "int8",
    layers: Mapping[str, str] = {},
) -> QuantizeResult:
    """Insert Q/DQ pairs.

    Args:
        model: a simplified FP32 model (BatchNormalization folded).
        scales: activation tensor -> scale: amax / 127 for int8, amax / 448 for fp8. A node whose activation has no
            scale, or one that is not finite and positive, stays float.
        precision: "int8" or "fp8".
        layers: node name or glob -> precision (an exact name, else the last matching glob, counts). Any float
            precision keeps the node out; "int8"/"fp8" overrules the small-layer and last-layer rules.

    Raises:
        ModelError: already quantized. BuildError: the opset cannot hold Q/DQ.
    """
    prepared = _prepare(model, precision)
    plan = plan_quantization(prepared, precision, layers)
    usable = {name: float(scale) for name, scale in scales.items() if np.isfinite(scale) and scale > 0}
    nodes = [node for node in plan.nodes if node.input[0] in usable]
    lacking = [node for node in plan.nodes if node.input[0] not in usable]
    skipped = plan.skipped + [(label(node), f"no scale for its input {node.input[0]}") for node in lacking]
    inserter = _Inserter(prepared, precision, plan.shared_scales(usable))
    for node in nodes:
        inserter.quantize_input(node, 0)
        inserter.quantize_weight(node)
    done = {node.output[0] for node in nodes}
    for add, position, conv_output in plan.residuals:
        if conv_output in done and add.input[position] in usable:
            inserter.quantize_input(add, position)
    inserter.finish()
    set_kernel_shapes(prepared)  # read off the weights, which now stand behind Q/DQ
    return QuantizeResult(prepared, [label(node) for node in nodes], skipped, plan.unmatched)


def weight_scales(weight: NDArray[np.float32], axis: int | None, precision: str = "int8") -> NDArray[np.float32]:
    """Symmetric scales absmax / qmax: per slice along ``axis``, or one scalar for None; all-zero slices get 1.

    A channel of zeros needs some positive scale (TensorRT refuses 0), and any serves.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.abs(weight).max(axis=others, initial=0.0).astype(np.float64) / QUANTIZED_MAX[precision]
    return np.where(scale > np.finfo(np.float32).tiny, scale, 1.0).astype(np.float32)


def output_axis(node: NodeProto, weight_rank: int) -> int:
    """Axis of the weight that counts output channels: Conv 0, Gemm by transB, MatMul the last."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 0 if node.op_type == "Conv" else weight_rank - 1


def _prepare(model: ModelProto, precision: str) -> ModelProto:
    if is_quantized(model):
        raise ModelError(
            "the model already carries quantization (Q/DQ or QLinear nodes)",
            remedy="Build it as it is, or export it without quantization-aware training.",
        )
    return workable(model, precision, MIN_OPSET[precision], "Export the model with opset 17 or newer.")


class _Inserter:
    """Adds Q/DQ pairs to a model it owns; ``finish`` puts the new nodes in order."""

    def __init__(self, model: ModelProto, precision: str, scales: Mapping[str, float]) -> None:
        self.graph = model.graph
        self.precision = precision
        self.scales = scales
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self.pairs: set[str] = set()
        self.after: dict[str, list[NodeProto]] = {}  # tensor -> nodes to insert once it exists

    def quantize_input(self, node: NodeProto, position: int) -> None:
        """Feed input ``position`` of ``node`` from the tensor's one Q/DQ pair."""
        name = node.input[position]
        node.input[position] = self._pair(name, None, np.asarray(self.scales[name], dtype=np.float32))

    def quantize_weight(self, node: NodeProto) -> None:
        name = node.input[1]
        weight = numpy_helper.to_array(self.initializers[name])
        axis = output_axis(node, weight.ndim) if self.precision == "int8" else None
        node.input[1] = self._pair(name, axis, weight_scales(weight, axis, self.precision))

    def _pair(self, name: str, axis: int | None, scale: NDArray[np.float32]) -> str:
        """Name of what comes out of the pair, added at the first call."""
        stem = name if axis is None else f"{name}::axis{axis}"
        quantized, target = f"{stem}::quantized", f"{stem}::dequantized"
        if target in self.pairs:
            return target
        self.pairs.add(target)
        constants = [f"{stem}::scale", f"{stem}::zero_point"]
        self.graph.initializer.append(numpy_helper.from_array(scale, constants[0]))
        self.graph.initializer.append(self._zero_point(constants[1], scale.shape))
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        for op, before, behind in (("QuantizeLinear", name, quantized), ("DequantizeLinear", quantized, target)):
            node = helper.make_node(op, [before, *constants], [behind], name=f"{stem}::{op}", **attributes)
            self.after.setdefault(name, []).append(node)
        return target

    def _zero_point(self, name: str, shape: tuple[int, ...]) -> TensorProto:
        if self.precision == "int8":
            return numpy_helper.from_array(np.zeros(shape, dtype=np.int8), name)
        count = int(np.prod(shape, dtype=np.int64))
        return TensorProto(name=name, data_type=TensorProto.FLOAT8E4M3FN, dims=list(shape), raw_data=bytes(count))

    def finish(self) -> None:
        produced = {name for node in self.graph.node for name in node.output}
        ordered = [node for name, nodes in self.after.items() if name not in produced for node in nodes]
        for node in self.graph.node:
            ordered.append(node)
            for name in node.output:
                ordered.extend(self.after.get(name, ()))
        refill(self.graph.node, ordered)
