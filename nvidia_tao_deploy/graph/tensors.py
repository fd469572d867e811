"""What the passes need to know about a graph: element types, shapes, constants, producers and consumers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from nvidia_tao_deploy.arrays import Array

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
QUANTIZE_OPS = frozenset({"QuantizeLinear", "DequantizeLinear"})
# They read the shape of a tensor, never its values: any element type will do.
SHAPE_OPS = frozenset({"Shape", "Size"})
# Pure data movement and MaxPool: quantizing before or after them gives the same numbers.
COMMUTING_OPS = frozenset(
    {"MaxPool", "Transpose", "Reshape", "Flatten", "Slice", "Squeeze", "Unsqueeze", "Gather", "Split", "Identity"}
)
LARGEST_SHAPE_BYTES = 4096  # constants above it are weights: no shape is read off them
INLINE_PROTO_LIMIT = 1_900_000_000  # protobuf refuses 2 GiB; leave room for the graph itself


def copy_model(model: ModelProto) -> ModelProto:
    """A deep copy; passes never change the model they are given."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def label(node: NodeProto) -> str:
    """How messages name a node: its own name, else its op type and first output."""
    return node.name or f"{node.op_type} -> {node.output[0] if node.output else '?'}"


def matches(node: NodeProto, glob: str) -> bool:
    """Whether a user's pattern names this node: exactly, or as a shell glob (node names may hold brackets)."""
    return bool(node.name) and (node.name == glob or fnmatchcase(node.name, glob))


def opset(model: ModelProto) -> int:
    """Version of the standard operators the model imports; 1 when it names none."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), 1)


def fed_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """Inputs that must be fed; files of IR version 3 list every weight as an input too."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def foreign_ops(model: ModelProto) -> list[str]:
    """Op types of the top graph, sorted, that neither the ONNX standard at the model's opset nor the model defines.

    Plugins such as BatchedNMSDynamic_TRT live in the default domain.
    """
    version, functions = opset(model), {function.name for function in model.functions}
    return sorted(
        node.op_type
        for node in model.graph.node
        if node.op_type not in functions and not onnx.defs.has(node.op_type, version, node.domain)
    )


def refill(field: Any, items: Iterable[Any]) -> None:
    """Let ``items``, which may come from it, be all that a repeated field of a message holds."""
    kept = list(items)
    del field[:]
    field.extend(kept)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node of the graph and of its subgraphs."""
    for node in graph.node:
        yield node
        for body in subgraphs(node):
            yield from all_nodes(body)


def captured_names(graph: GraphProto) -> set[str]:
    """Names that subgraphs of ``graph`` read from outside themselves (a superset; inner names that collide count)."""
    names: set[str] = set()
    for node in all_nodes(graph):
        for body in subgraphs(node):
            names.update(name for inner in body.node for name in inner.input)
            names.update(output.name for output in body.output)
    return names


def remove_unused_initializers(graph: GraphProto) -> None:
    """Drop initializers nothing reads, in place."""
    used = {name for node in graph.node for name in node.input} | captured_names(graph)
    used |= {value.name for value in (*graph.input, *graph.output)}
    refill(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node attribute or ``default``."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


def serialized_size(model: ModelProto) -> int:
    """Bytes of the weights held in the model: what decides whether protobuf can serialize it."""
    return sum(len(tensor.raw_data) + 8 * len(tensor.float_data) for tensor in model.graph.initializer)


def constants_to_initializers(graph: GraphProto) -> None:
    """Turn Constant nodes of the top graph into initializers, in place, so that passes see one kind of constant."""
    kept = []
    for node in graph.node:
        tensor = _constant_value(node)
        if tensor is None:
            kept.append(node)
        else:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
    refill(graph.node, kept)


def _constant_value(node: NodeProto) -> TensorProto | None:
    """The tensor of a Constant node; None: it is another node, or holds no numbers."""
    if node.op_type != "Constant" or node.domain not in STANDARD_DOMAINS or len(node.attribute) != 1:
        return None
    entry = node.attribute[0]
    if entry.name == "value":
        tensor: TensorProto = entry.t
        return tensor
    dtypes = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if entry.name not in dtypes:
        return None
    return numpy_helper.from_array(np.asarray(onnx.helper.get_attribute_value(entry), dtype=dtypes[entry.name]))


class GraphIndex:
    """A read-only look at the top graph of a model.

    Attributes:
        producers: tensor name -> node that writes it.
        consumers: tensor name -> nodes of the top graph that read it (once per node).
        initializers: name -> TensorProto.
        elem_types: tensor name -> TensorProto element type, where known.
        shapes: tensor name -> dims, None where dynamic, for tensors whose rank is known.
        outputs: names of the graph outputs.
    """

    def __init__(self, model: ModelProto, distrusted: Collection[str] = ()) -> None:
        """Look at ``model``; what the file says of the ``distrusted`` tensors does not count."""
        graph = model.graph
        self.graph = graph
        self.producers: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output if name}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(filter(None, node.input)):
                self.consumers[name].append(node)
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = [value.name for value in fed_inputs(graph)]
        self.outputs = {value.name for value in graph.output}
        self.elem_types: dict[str, int] = {}
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        inferred = infer_shapes(model, distrusted).graph
        stated = () if distrusted else graph.value_info
        for value in (*inferred.value_info, *stated, *inferred.input, *inferred.output):
            tensor_type = value.type.tensor_type
            if tensor_type.elem_type:
                self.elem_types[value.name] = tensor_type.elem_type
            if tensor_type.HasField("shape"):
                self.shapes[value.name] = dims_of(value)
        for tensor in graph.initializer:
            self.elem_types[tensor.name] = tensor.data_type
            self.shapes[tensor.name] = tuple(tensor.dims)

    def followers(self, node: NodeProto) -> list[NodeProto]:
        """Nodes of the top graph that read what ``node`` writes."""
        return [reader for name in node.output for reader in self.consumers.get(name, ())]

    def is_float(self, name: str) -> bool:
        return self.elem_types.get(name) == TensorProto.FLOAT

    def constant(self, name: str) -> Array | None:
        """Value of an initializer, or None when ``name`` is computed."""
        tensor = self.initializers.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)


def dims_of(value: ValueInfoProto) -> tuple[int | None, ...]:
    """Dims of a value; None for symbolic, absent or non-positive ones."""
    return tuple(
        int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    )


def infer_shapes(model: ModelProto, distrusted: Collection[str] = ()) -> ModelProto:
    """The model with inferred value_info; inference failures leave what is already there.

    What the file says of the ``distrusted`` tensors is left out.
    Weights become inputs of the same type and shape: only small constants (shapes, axes) influence the result, and
    protobuf could not carry more than 2 GiB into the native library anyway.
    """
    light = ModelProto(ir_version=max(model.ir_version, 4), producer_name=model.producer_name)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(value for value in model.graph.value_info if value.name not in distrusted)
    declared = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) + 4 * len(tensor.float_data) <= LARGEST_SHAPE_BYTES:
            graph.initializer.append(tensor)
        elif tensor.name not in declared:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    try:
        return onnx.shape_inference.infer_shapes(light, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return light
