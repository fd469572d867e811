"""What a prepared ONNX graph holds, as far as the builder must know it: read without weights, nothing is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.engine.known_errors import shown
from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.graph.load import model_inputs, model_outputs
from nvidia_tao_deploy.graph.tensors import QUANTIZE_OPS, STANDARD_DOMAINS, GraphIndex, all_nodes, attribute, opset
from nvidia_tao_deploy.graph.verify import COUNTED_OPS, LEGACY_QUANTIZED_OPS
from nvidia_tao_deploy.runtime.session import TensorInfo

_NAMES: dict[int, str] = {number: name.lower() for name, number in TensorProto.DataType.items()}
# Types that pass through without arithmetic; forcing a precision on them would only forbid fusions.
_NOT_ARITHMETIC = QUANTIZE_OPS | {"Cast", "Constant", "Identity", "Shape", "Size", "ConstantOfShape"}
_AGAIN = "Export it again, or copy it again: it may be truncated."


@dataclass(frozen=True)
class GraphFacts:
    """Read from one ONNX file. Types are ONNX names in lower case ("float16", "float8e4m3fn"), nodes as in messages."""

    opset: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    float_types: frozenset[str]
    quantized_types: frozenset[str]
    quantize_nodes: int
    dequantize_nodes: int
    quantized_layers: int  # Conv, ConvTranspose, Gemm and MatMul whose first input comes from a DequantizeLinear
    weighted_layers: int
    quantized_convolution: bool
    scale_types: frozenset[str]
    custom_nodes: tuple[str, ...]  # of a domain other than ONNX's own
    integer_nodes: tuple[str, ...]
    faulty_quantizers: tuple[str, ...]  # sentences: wrong type, zero point or scale
    missing_zero_points: int
    nms_nodes: tuple[str, ...]
    fp32_nodes: tuple[str, ...]  # arithmetic that stays float32 in a graph that also computes in half precision
    fp32_tensors: tuple[str, ...]  # what those nodes compute

    @property
    def is_quantized(self) -> bool:
        """Whether the graph carries Q/DQ pairs."""
        return self.quantize_nodes + self.dequantize_nodes > 0

    @property
    def precision(self) -> str:
        """The narrowest type the graph computes in: fp32, fp16, bf16, int8 or fp8."""
        if any(name.startswith("float8") for name in self.quantized_types):
            return "fp8"
        if self.is_quantized:
            return "int8"
        return "bf16" if "bfloat16" in self.float_types else "fp16" if "float16" in self.float_types else "fp32"


def read(model_path: Path) -> GraphFacts:
    """Read the facts of an ONNX file; external weights are not touched.

    Raises:
        ModelError: the file is missing, empty or not ONNX.
    """
    if not model_path.is_file():
        raise ModelError(f"there is no ONNX file {model_path}", remedy="Check the path in the spec.")
    try:
        model = onnx.load(str(model_path), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"not a readable ONNX file ({error})", where=str(model_path), remedy=_AGAIN) from error
    if not model.graph.node:
        raise ModelError("the ONNX file holds no nodes", where=str(model_path), remedy=_AGAIN)
    reader = _Reader(model)
    counts = Counter(node.op_type for node in reader.nodes)
    quantized = [node for node in reader.nodes if node.op_type in COUNTED_OPS and reader.is_dequantized(node.input[0])]
    fp32_nodes, fp32_tensors = reader.fp32_islands()
    faults, missing, scale_types = reader.quantizer_faults()
    return GraphFacts(
        opset=opset(model),
        inputs=model_inputs(model),
        outputs=model_outputs(model),
        float_types=reader.float_types,
        quantized_types=frozenset(reader.quantized_type(node) for node in reader.nodes if node.op_type in QUANTIZE_OPS),
        quantize_nodes=counts["QuantizeLinear"],
        dequantize_nodes=counts["DequantizeLinear"],
        quantized_layers=len(quantized),
        weighted_layers=sum(counts[op] for op in COUNTED_OPS),
        quantized_convolution=any(node.op_type.startswith("Conv") for node in quantized),
        scale_types=frozenset(scale_types),
        custom_nodes=reader.shown(lambda node: node.domain not in STANDARD_DOMAINS or not onnx.defs.has(node.op_type)),
        integer_nodes=reader.shown(lambda node: node.op_type in LEGACY_QUANTIZED_OPS),
        faulty_quantizers=tuple(faults),
        missing_zero_points=missing,
        nms_nodes=reader.shown(lambda node: node.op_type == "NonMaxSuppression"),
        fp32_nodes=fp32_nodes,
        fp32_tensors=fp32_tensors,
    )


class _Reader:
    """Looks up types and producers of tensors in one model."""

    def __init__(self, model: ModelProto) -> None:
        index = GraphIndex(model)
        self.nodes = list(all_nodes(model.graph))
        self.producers = {output: node for node in self.nodes for output in node.output}
        self.initializers = index.initializers
        self._types = {name: _NAMES[kind] for name, kind in index.elem_types.items()}
        for name, node in self.producers.items():  # of inner graphs and behind plugins, what the nodes declare
            if node.op_type == "Cast":
                self._types.setdefault(name, _NAMES[attribute(node, "to", TensorProto.UNDEFINED)])
            elif (tensor := self.constant(name)) is not None:
                self._types.setdefault(name, _NAMES[tensor.data_type])
        self.float_types = frozenset(self._types.values()) & {"float", "float16", "bfloat16"}

    def shown(self, holds: Callable[[NodeProto], bool]) -> tuple[str, ...]:
        """The nodes for which it holds."""
        return tuple(shown(node.op_type, node.name) for node in self.nodes if holds(node))

    def constant(self, name: str) -> TensorProto | None:
        """The tensor behind a name, None if it is computed."""
        node = self.producers.get(name)
        if name in self.initializers or node is None or node.op_type != "Constant":
            return self.initializers.get(name)
        tensor: TensorProto | None = attribute(node, "value")
        return tensor

    def is_dequantized(self, name: str) -> bool:
        """Whether a DequantizeLinear computes the tensor."""
        node = self.producers.get(name)
        return node is not None and node.op_type == "DequantizeLinear"

    def quantized_type(self, node: NodeProto) -> str:
        """The type behind a Q or in front of a DQ."""
        if len(node.input) > 2 and node.input[2]:
            return self._types.get(node.input[2], "int8")
        if node.op_type == "DequantizeLinear":
            return self._types.get(node.input[0], "uint8")
        return _NAMES[attribute(node, "output_dtype", 0) or TensorProto.UINT8]

    def quantizer_faults(self) -> tuple[list[str], int, set[str]]:
        """Sentences about Q/DQ nodes no TensorRT takes, the count without a zero point, the types of the scales."""
        faults: list[str] = []
        missing, scale_types = 0, set()
        for node in self.nodes:
            if node.op_type not in QUANTIZE_OPS:
                continue
            named = shown(node.op_type, node.name)
            scale_types.add(self._types.get(node.input[1], "float"))
            has_zero_point = len(node.input) > 2 and bool(node.input[2])
            missing += not has_zero_point
            kind = self.quantized_type(node)
            if has_zero_point and kind == "uint8":
                faults.append(f"{named} is uint8, which TensorRT reads as int8: quantize symmetrically to int8")
            elif kind == "int32":
                faults.append(f"{named} dequantizes int32 (a bias): keep biases in float")
            elif has_zero_point and self._any(node.input[2], lambda values: values != 0):
                faults.append(f"{named} has a zero point other than 0: quantize symmetrically")
            if self._any(node.input[1], lambda values: ~(np.isfinite(values) & (values > 0))):
                faults.append(f"{named} has a scale that is not above 0 and finite")
            elif self.constant(node.input[1]) is None:
                faults.append(f"{named} has a computed scale; it must be a constant")
        return faults, missing, scale_types

    def _any(self, name: str, test: Callable[[Array], Any]) -> bool:
        tensor = self.constant(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return False
        return bool(np.any(test(numpy_helper.to_array(tensor).astype(np.float32))))

    def fp32_islands(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the nodes, and of the tensors they compute, that are float32 by choice in a half-precision graph."""
        if not self.float_types & {"float16", "bfloat16"}:
            return (), ()
        names, tensors = [], []
        for node in self.nodes:
            # What stands between DequantizeLinear nodes runs in int8; pinning it would undo the quantization.
            if node.op_type in _NOT_ARITHMETIC or any(map(self.is_dequantized, node.input)):
                continue
            outputs = [name for name in node.output if self._types.get(name) == "float"]
            if outputs:
                names.append(node.name)
                tensors.extend(outputs)
        return tuple(name for name in names if name), tuple(tensors)
