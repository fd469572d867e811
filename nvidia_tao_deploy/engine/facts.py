"""What a prepared ONNX graph holds, as far as the builder must know it: read without weights, nothing is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nvidia_tao_deploy.errors import ModelError
from nvidia_tao_deploy.runtime.session import TensorInfo

_STANDARD_DOMAINS = {"", "ai.onnx"}
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_INTEGER_OPS = {
    "QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear",
}  # fmt: skip
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# Types that pass through without arithmetic; forcing a precision on them would only forbid fusions.
_NOT_ARITHMETIC = {"Cast", "Constant", "Identity", "Shape", "Size", "ConstantOfShape", _QUANTIZE, _DEQUANTIZE}


@dataclass(frozen=True)
class NodeRef:
    """A node as a message names it."""

    name: str
    op_type: str

    def __str__(self) -> str:
        return f"{self.op_type} {self.name!r}" if self.name else self.op_type


@dataclass(frozen=True)
class GraphFacts:
    """Read from one ONNX file. Types are ONNX names in lower case ("float16", "float8e4m3fn")."""

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
    custom_nodes: tuple[NodeRef, ...]  # of a domain other than ONNX's own
    integer_nodes: tuple[NodeRef, ...]
    faulty_quantizers: tuple[str, ...]  # sentences: wrong type, zero point or scale
    missing_zero_points: int
    nms_nodes: tuple[NodeRef, ...]
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
    import onnx
    from google.protobuf.message import DecodeError

    if not model_path.is_file():
        raise ModelError(f"there is no ONNX file {model_path}", remedy="Check the path in the spec.")
    try:
        model = onnx.load(str(model_path), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"not a readable ONNX file ({error})", where=str(model_path), remedy=_AGAIN) from error
    if not model.graph.node:
        raise ModelError("the ONNX file holds no nodes", where=str(model_path), remedy=_AGAIN)
    return from_model(model)


_AGAIN = "Export it again, or copy it again: it may be truncated."


def from_model(model: Any) -> GraphFacts:
    """The facts of an ``onnx.ModelProto``."""
    reader = _Reader(model)
    refs = [(node, NodeRef(node.name, node.op_type)) for node in reader.nodes]
    counts = Counter(node.op_type for node in reader.nodes)
    quantized = [node for node in reader.nodes if node.op_type in _WEIGHTED and reader.is_dequantized(node.input[0])]
    fp32_nodes, fp32_tensors = reader.fp32_islands()
    faults, missing, scale_types = reader.quantizer_faults()
    return GraphFacts(
        opset=next((entry.version for entry in model.opset_import if entry.domain in _STANDARD_DOMAINS), 0),
        inputs=tuple(_tensor_info(value) for value in model.graph.input if value.name not in reader.initializers),
        outputs=tuple(_tensor_info(value) for value in model.graph.output),
        float_types=frozenset(reader.float_types),
        quantized_types=frozenset(reader.quantized_types()),
        quantize_nodes=counts[_QUANTIZE],
        dequantize_nodes=counts[_DEQUANTIZE],
        quantized_layers=len(quantized),
        weighted_layers=sum(counts[op] for op in _WEIGHTED),
        quantized_convolution=any(node.op_type.startswith("Conv") for node in quantized),
        scale_types=frozenset(scale_types),
        custom_nodes=tuple(ref for node, ref in refs if node.domain not in _STANDARD_DOMAINS or _is_plugin(ref)),
        integer_nodes=tuple(ref for node, ref in refs if node.op_type in _INTEGER_OPS),
        faulty_quantizers=tuple(faults),
        missing_zero_points=missing,
        nms_nodes=tuple(ref for node, ref in refs if node.op_type == "NonMaxSuppression"),
        fp32_nodes=fp32_nodes,
        fp32_tensors=fp32_tensors,
    )


def _is_plugin(ref: NodeRef) -> bool:
    # TensorRT plugins are exported into the default domain, told apart only by not being ONNX operators.
    import onnx

    return not onnx.defs.has(ref.op_type)


def _all_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g)
            for subgraph in attribute.graphs:
                yield from _all_nodes(subgraph)


def _tensor_info(value: Any) -> TensorInfo:
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(
        int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in tensor.shape.dim
    )
    return TensorInfo(value.name, shape, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))


class _Reader:
    """Looks up types and producers of tensors in one model."""

    def __init__(self, model: Any) -> None:
        import onnx

        self._names: dict[int, str] = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
        try:
            inferred = onnx.shape_inference.infer_shapes(model).graph
        except (onnx.shape_inference.InferenceError, ValueError):
            inferred = model.graph  # plugin nodes and files over 2 GB: what is declared must do
        self.nodes = list(_all_nodes(model.graph))
        self.producers = {output: node for node in self.nodes for output in node.output}
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._types: dict[str, str] = {
            value.name: self._names[value.type.tensor_type.elem_type]
            for values in (inferred.value_info, inferred.input, inferred.output)
            for value in values
        }
        self._types.update({name: self._names[tensor.data_type] for name, tensor in self.initializers.items()})
        for name, node in self.producers.items():
            declared = self._declared(node)
            if declared is not None and name not in self._types:
                self._types[name] = declared
        self.float_types = {name for name in self._types.values() if name in ("float", "float16", "bfloat16")}

    def _declared(self, node: Any) -> str | None:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                return self._names[attribute.i]
            if node.op_type == "Constant" and attribute.name == "value":
                return self._names[attribute.t.data_type]
        return None

    def constant(self, name: str) -> Any:
        """The TensorProto behind a name, None if it is computed."""
        if name in self.initializers:
            return self.initializers[name]
        node = self.producers.get(name)
        if node is not None and node.op_type == "Constant":
            return next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        return None

    def is_dequantized(self, name: str) -> bool:
        """Whether a DequantizeLinear computes the tensor."""
        node = self.producers.get(name)
        return node is not None and node.op_type == _DEQUANTIZE

    def quantized_types(self) -> set[str]:
        return {self._quantized_type(node) for node in self.nodes if node.op_type in (_QUANTIZE, _DEQUANTIZE)}

    def _quantized_type(self, node: Any) -> str:
        if len(node.input) > 2 and node.input[2]:
            return self._types.get(node.input[2], "int8")
        if node.op_type == _DEQUANTIZE:
            return self._types.get(node.input[0], "uint8")
        declared = next((a.i for a in node.attribute if a.name == "output_dtype" and a.i), None)
        return self._names[declared] if declared else "uint8"

    def quantizer_faults(self) -> tuple[list[str], int, set[str]]:
        """Sentences about Q/DQ nodes no TensorRT takes, the count without a zero point, the types of the scales."""
        faults: list[str] = []
        missing, scale_types = 0, set()
        for node in self.nodes:
            if node.op_type not in (_QUANTIZE, _DEQUANTIZE):
                continue
            ref = NodeRef(node.name, node.op_type)
            scale_types.add(self._types.get(node.input[1], "float"))
            has_zero_point = len(node.input) > 2 and bool(node.input[2])
            missing += not has_zero_point
            kind = self._quantized_type(node)
            if has_zero_point and kind == "uint8":
                faults.append(f"{ref} is uint8, which TensorRT reads as int8: quantize symmetrically to int8")
            elif kind == "int32":
                faults.append(f"{ref} dequantizes int32 (a bias): keep biases in float")
            elif has_zero_point and self._any(node.input[2], lambda values: np.any(values != 0)):
                faults.append(f"{ref} has a zero point other than 0: quantize symmetrically")
            if self._any(node.input[1], lambda values: not np.all(np.isfinite(values) & (values > 0))):
                faults.append(f"{ref} has a scale that is not above 0 and finite")
            elif self.constant(node.input[1]) is None:
                faults.append(f"{ref} has a computed scale; it must be a constant")
        return faults, missing, scale_types

    def _any(self, name: str, test: Any) -> bool:
        import onnx

        tensor = self.constant(name)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return False
        return bool(test(onnx.numpy_helper.to_array(tensor).astype(np.float32)))

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
