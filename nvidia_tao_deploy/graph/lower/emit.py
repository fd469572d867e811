"""Write the standard ONNX nodes that replace one plugin node, or one norm.

An :class:`Emitter` collects nodes and constants under one name prefix and hides what differs between opsets, so that
the lowering functions read as array code. It emits for opset 11 and later; what needs a newer one says so with
:class:`CannotLowerError`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nvidia_tao_deploy.arrays import Array

Dim = int | None
Tensor = str
Operand = str | float | int | Array

FLOAT, INT32, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL
MAX_TOP_K = 3840  # TensorRT refuses a larger K
# Precision passes must leave the replaced arithmetic in FP32: every emitted node's name starts so.
NAME_PREFIX = "lowered_"


class CannotLowerError(Exception):
    """This plugin node cannot be expressed by standard ops; the text is the reason, for a user."""


class Emitter:
    """Nodes and constants that replace one plugin node.

    Args:
        prefix: start of every node and tensor name.
        opset: version of the default domain the nodes must conform to.
        shapes: known shapes of tensors of the graph, None for a dimension that is not fixed.
        batch_source: a tensor of the graph whose first dimension is the batch.
    """

    def __init__(self, prefix: str, opset: int, shapes: dict[str, tuple[Dim, ...]], batch_source: str) -> None:
        self.prefix, self.opset, self.batch_source = prefix, opset, batch_source
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._shapes = shapes
        self._counter = itertools.count()
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def _name(self, label: str) -> str:
        return f"{self.prefix}/{label}_{next(self._counter)}"

    def shape(self, tensor: Tensor, rank: int | Sequence[int]) -> tuple[Dim, ...]:
        """Known shape of an input of the plugin; raises when it is unknown or of another rank."""
        allowed = (rank,) if isinstance(rank, int) else tuple(rank)
        shape = self._shapes.get(tensor)
        if shape is None:
            raise CannotLowerError(f"the shape of its input {tensor!r} is not known")
        if len(shape) not in allowed:
            raise CannotLowerError(f"its input {tensor!r} has {len(shape)} dimensions, expected {allowed}")
        return shape

    def fixed(self, tensor: Tensor, rank: int | Sequence[int]) -> tuple[int, ...]:
        """As :meth:`shape`, where every dimension but the first must be fixed; a free batch dimension reads -1."""
        first, *rest = self.shape(tensor, rank)
        if any(dim is None for dim in rest):
            raise CannotLowerError(f"its input {tensor!r} must have fixed dimensions apart from the batch")
        return (-1 if first is None else first, *(dim for dim in rest if dim is not None))

    def const(self, value: Operand) -> Tensor:
        """Name of a constant: float -> float32, int -> int64, arrays as they are (float64 -> float32)."""
        if isinstance(value, str):
            return value
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self._name("const")
            self.constants.append(numpy_helper.from_array(array.copy(order="C"), self._known[key]))
        return self._known[key]

    def many(self, op: str, *inputs: Operand, outputs: int, **attrs: Any) -> list[Tensor]:
        """Append a node with several outputs; their names."""
        names = [self._name(op) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, [self.const(i) for i in inputs], names, name=names[0], **attrs))
        return names

    def __call__(self, op: str, *inputs: Operand, **attrs: Any) -> Tensor:
        """Append a node with one output; its name."""
        return self.many(op, *inputs, outputs=1, **attrs)[0]

    # Thin words over the operators whose form depends on the opset, or that are used everywhere.

    def reduce(self, op: str, x: Operand, axes: Sequence[int], keepdims: bool = True) -> Tensor:
        if self.opset >= (13 if op == "ReduceSum" else 18):
            return self(op, x, np.asarray(axes, np.int64), keepdims=int(keepdims))
        return self(op, x, axes=list(axes), keepdims=int(keepdims))

    def reshape(self, x: Operand, *dims: int) -> Tensor:
        return self("Reshape", x, np.asarray(dims, np.int64))

    def transpose(self, x: Operand, *perm: int) -> Tensor:
        return self("Transpose", x, perm=list(perm))

    def slice(self, x: Operand, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
        bounds = [np.asarray([value], np.int64) for value in (start, stop, axis, step)]
        return self("Slice", x, *bounds)

    def columns(self, x: Operand, count: int, axis: int = -1) -> list[Tensor]:
        """x cut into ``count`` slices of width one along an axis."""
        return [self.slice(x, axis, i, i + 1) for i in range(count)]

    def cast(self, x: Operand, to: int) -> Tensor:
        return self("Cast", x, to=to)

    def concat(self, parts: Sequence[Operand], axis: int) -> Tensor:
        return self("Concat", *parts, axis=axis) if len(parts) > 1 else self.const(parts[0])

    def clamp(self, x: Operand, low: Operand, high: Operand) -> Tensor:
        return self("Min", self("Max", x, low), high)

    def at_least(self, x: Operand, low: Operand) -> Tensor:
        """x >= low as booleans (GreaterOrEqual exists from opset 12 only)."""
        return self("Not", self("Less", x, low))

    def batched(self, *tail: int, value: float | int) -> Tensor:
        """A constant tensor (batch, *tail): float32 for a float value, else int64."""
        scalar = np.asarray([value], np.float32 if isinstance(value, float) else np.int64)
        batch = self._batch()
        if batch is not None:
            return self.const(np.broadcast_to(scalar, (batch, *tail)).copy())
        batch_size = self.slice(self("Shape", self.batch_source), 0, 0, 1)
        shape = self.concat([batch_size, np.asarray(tail, np.int64)], 0)
        return self("ConstantOfShape", shape, value=numpy_helper.from_array(scalar))

    def batch_index(self) -> Tensor:
        """(B, 1) int64: 0, 1, ... B-1."""
        batch = self._batch()
        if batch is not None:
            return self.const(np.arange(batch, dtype=np.int64)[:, None])
        # Range needs scalars, which some parsers handle badly; a running sum of ones does not.
        total = self("CumSum", self.batched(1, value=1.0), 0, exclusive=1)
        return self.cast(total, INT64)

    def _batch(self) -> Dim:
        return (self._shapes.get(self.batch_source) or (None,))[0]

    def top_k(self, x: Operand, k: int, below: float) -> tuple[Tensor, Tensor]:
        """The k largest of x (..., N) in descending order and their int64 indices.

        Ties keep the lower index first in ONNX Runtime; TensorRT leaves them open. ``below`` is less than or equal to
        every value: TensorRT takes at most 3840 at a time, so what is taken is overwritten by it before the next time.
        """
        values, indices = [], []
        while k > 0:
            part = min(k, MAX_TOP_K)
            v, i = self.many("TopK", x, np.asarray([part], np.int64), outputs=2, axis=-1, largest=1, sorted=1)
            values.append(v)
            indices.append(i)
            k -= part
            if k:
                x = self("ScatterElements", x, i, self("Add", self("Mul", v, 0.0), below), axis=-1)
        return self.concat(values, -1), self.concat(indices, -1)

    def unsqueeze(self, x: Operand, *axes: int) -> Tensor:
        if self.opset >= 13:
            return self("Unsqueeze", x, np.asarray(axes, np.int64))
        return self("Unsqueeze", x, axes=list(axes))

    def take_rows(self, data: Operand, indices: Operand, width: int) -> Tensor:
        """Rows of data (B, N, width) at indices (B, K) -> (B, K, width); no broadcasting over B."""
        repeated = self("Mul", self.unsqueeze(indices, 2), np.ones((1, 1, width), np.int64))
        return self("GatherElements", data, repeated, axis=1)

    def loop(
        self,
        trips: int,
        initial: Sequence[tuple[Tensor, int, int]],
        body: Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]],
    ) -> list[Tensor]:
        """Loop with state only: ``body(iteration, state) -> (go on, new state)``; at most ``trips`` rounds.

        ``initial`` holds (tensor, element type, width) per (B, width) state variable. Scan outputs are not used: their
        length would depend on the data when the loop ends early. Constants of the body live in the outer graph.
        """
        outer, self.nodes = self.nodes, []
        iteration, going = self._name("iteration"), self._name("going")
        state = [self._name("state") for _ in initial]
        go_on, new_state = body(iteration, list(state))
        inner, self.nodes = self.nodes, outer
        kinds = [(kind, [None, width]) for _, kind, width in initial]
        inputs = [
            helper.make_tensor_value_info(iteration, INT64, []),
            helper.make_tensor_value_info(going, BOOL, []),
            *(helper.make_tensor_value_info(n, *kind) for n, kind in zip(state, kinds, strict=True)),
        ]
        outputs = [
            helper.make_tensor_value_info(go_on, BOOL, []),
            *(helper.make_tensor_value_info(n, *kind) for n, kind in zip(new_state, kinds, strict=True)),
        ]
        graph = helper.make_graph(inner, self._name("body"), inputs, outputs)
        start = [tensor for tensor, _, _ in initial]
        return self.many("Loop", np.asarray(trips, np.int64), np.asarray(True), *start, outputs=len(start), body=graph)
