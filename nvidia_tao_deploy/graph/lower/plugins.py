"""The pass: find plugin nodes, replace each by standard operators."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from nvidia_tao_deploy.graph.lower.attention import lower_deformable_attention, lower_multi_camera_attention
from nvidia_tao_deploy.graph.lower.emit import FLOAT, INT32, NAME_PREFIX, Array, CannotLowerError, Dim, Emitter
from nvidia_tao_deploy.graph.lower.nms import (
    lower_batched_nms,
    lower_detection_output,
    lower_efficient_nms,
    lower_efficient_nms_onnx,
)
from nvidia_tao_deploy.graph.lower.node import Lowering, PluginNode
from nvidia_tao_deploy.graph.lower.points import lower_decode_boxes, lower_pillar_scatter, lower_voxel_generator
from nvidia_tao_deploy.graph.lower.pyramid import lower_pyramid_roi_align
from nvidia_tao_deploy.graph.lower.resize import lower_resize_nearest, lower_special_slice
from nvidia_tao_deploy.graph.lower.roi import (
    lower_crop_and_resize,
    lower_generate_detection,
    lower_multilevel_crop,
    lower_multilevel_propose,
    lower_proposal,
)


@dataclass(frozen=True)
class PluginOp:
    """How one plugin is lowered, and the element types of its outputs."""

    lower: Lowering
    outputs: tuple[int, ...]


_BATCHED_NMS = PluginOp(lower_batched_nms, (INT32, FLOAT, FLOAT, FLOAT))
_DETECTION_OUTPUT = PluginOp(lower_detection_output, (FLOAT, INT32))
_PROPOSAL = PluginOp(lower_proposal, (FLOAT,))
_CROP = PluginOp(lower_crop_and_resize, (FLOAT,))
_RESIZE = PluginOp(lower_resize_nearest, (FLOAT,))

# Plugins of TensorRT's static-shape interface: they run in no engine whose batch is open.
STATIC_PLUGINS = frozenset(
    {
        "NMS_TRT", "BatchedNMS_TRT", "Proposal", "CropAndResize", "MultilevelProposeROI", "MultilevelProposeROI_TRT",
        "MultilevelCropAndResize", "MultilevelCropAndResize_TRT", "GenerateDetection", "GenerateDetection_TRT",
        "SpecialSlice", "SpecialSlice_TRT", "ResizeNearest", "ResizeNearest_TRT", "PyramidROIAlign",
        "PyramidROIAlign_TRT",
    }
)  # fmt: skip

PLUGIN_OPS: dict[str, PluginOp] = {
    "BatchedNMS_TRT": _BATCHED_NMS,
    "BatchedNMSDynamic_TRT": _BATCHED_NMS,
    "NMS_TRT": _DETECTION_OUTPUT,
    "NMSDynamic_TRT": _DETECTION_OUTPUT,
    "EfficientNMS_TRT": PluginOp(lower_efficient_nms, (INT32, FLOAT, FLOAT, INT32)),
    "EfficientNMS_ONNX_TRT": PluginOp(lower_efficient_nms_onnx, (INT32,)),
    "Proposal": _PROPOSAL,
    "ProposalDynamic": _PROPOSAL,
    "CropAndResize": _CROP,
    "CropAndResizeDynamic": _CROP,
    "ResizeNearest_TRT": _RESIZE,
    "ResizeNearestDynamic": _RESIZE,
    "MultilevelProposeROI_TRT": PluginOp(lower_multilevel_propose, (FLOAT,)),
    "MultilevelCropAndResize_TRT": PluginOp(lower_multilevel_crop, (FLOAT,)),
    "PyramidROIAlign_TRT": PluginOp(lower_pyramid_roi_align, (FLOAT,)),
    "GenerateDetection_TRT": PluginOp(lower_generate_detection, (FLOAT,)),
    "SpecialSlice_TRT": PluginOp(lower_special_slice, (FLOAT,)),
    "MultiscaleDeformableAttnPlugin_TRT": PluginOp(lower_deformable_attention, (FLOAT,)),
    "MSDA": PluginOp(lower_multi_camera_attention, (FLOAT,)),
    "VoxelGeneratorPlugin": PluginOp(lower_voxel_generator, (FLOAT, INT32, INT32)),
    "PillarScatterPlugin": PluginOp(lower_pillar_scatter, (FLOAT,)),
    "DecodeBbox3DPlugin": PluginOp(lower_decode_boxes, (FLOAT, INT32)),
}

# Initializers above this size take no part in shape inference: their values never are shapes.
_SMALL = 256


@dataclass(frozen=True)
class LowerResult:
    """A model without the plugins that could be lowered.

    Attributes:
        model: the new model; the one given is not changed.
        lowered: (node name, op type) of what was replaced.
        unsupported: (node name, op type, reason) of plugin nodes left in the graph against the caller's wish.
    """

    model: onnx.ModelProto
    lowered: list[tuple[str, str]] = field(default_factory=list)
    unsupported: list[tuple[str, str, str]] = field(default_factory=list)


def lower_plugins(model: onnx.ModelProto, *, keep: Collection[str] = ()) -> LowerResult:
    """Replace TensorRT plugin nodes by standard ONNX operators.

    The replacement holds no plugin, no NonMaxSuppression and no other operator that TensorRT-RTX cannot build. Every
    emitted node's name starts with ``NAME_PREFIX``; a precision pass must leave those in FP32. Graph outputs keep their
    names; ``NMSDynamic_TRT``'s count, declared float by the exporters but holding int32 bits, becomes int32.

    Args:
        model: any ONNX model of opset 11 or later; sizes other than the batch must be fixed around the plugins.
        keep: op types to leave as they are.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    lowered: list[tuple[str, str]] = []
    reasons: dict[int, tuple[str, str, str]] = {}
    # What one replacement makes known may be what the next plugin needs: infer again until nothing changes.
    while True:
        pending = [i for i, node in enumerate(graph.node) if node.op_type in PLUGIN_OPS and node.op_type not in keep]
        if not pending:
            break
        types = infer_types(result)
        constants = _Constants(graph)
        reasons = {}
        replacements: dict[int, tuple[list[onnx.NodeProto], list[onnx.TensorProto]]] = {}
        for index in pending:
            node = graph.node[index]
            name = node.name or (node.output[0] if node.output else node.op_type)
            try:
                replacements[index] = _lower(node, name, opset, types, constants)
                lowered.append((name, node.op_type))
            except CannotLowerError as error:
                reasons[index] = (name, node.op_type, str(error))
        if not replacements:
            break
        _replace(graph, replacements)
    _prune(result)
    return LowerResult(result, lowered, list(reasons.values()))


def _lower(
    node: onnx.NodeProto, name: str, opset: int, types: _Types, constants: _Constants
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    entry = PLUGIN_OPS[node.op_type]
    inputs = [i for i in node.input if i]
    if not inputs:
        raise CannotLowerError("it has no inputs")
    shapes = {tensor: shape for tensor, (_, shape) in types.items() if shape is not None}
    g = Emitter(f"{NAME_PREFIX}{node.op_type}/{name}", opset, shapes, inputs[0])
    kinds = {types[i][0] for i in inputs if i in types}
    half = TensorProto.FLOAT16 in kinds
    if half:
        cast = {i: g.cast(i, FLOAT) for i in inputs if types.get(i, (0, None))[0] == TensorProto.FLOAT16}
        shapes.update({new: shapes[old] for old, new in cast.items() if old in shapes})
        inputs = [cast.get(i, i) for i in inputs]
        g.batch_source = inputs[0]
    attrs = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    outputs = entry.lower(g, PluginNode(name, node.op_type, tuple(inputs), attrs, constants.value))
    for target, source, kind in zip(node.output, outputs, entry.outputs, strict=False):
        if target:
            if half and kind == FLOAT:
                source = g.cast(source, TensorProto.FLOAT16)
            g.nodes.append(helper.make_node("Identity", [source], [target], name=f"{g.prefix}/{target}"))
    return g.nodes, g.constants


_Types = dict[str, tuple[int, "tuple[Dim, ...] | None"]]


def infer_types(model: onnx.ModelProto) -> _Types:
    """Element type and shape of every tensor that ONNX's inference can reach, without copying large weights."""
    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    plugin_outputs = {o for node in model.graph.node if node.op_type in PLUGIN_OPS for o in node.output}
    light.graph.value_info.extend(v for v in model.graph.value_info if v.name not in plugin_outputs)
    given = {value.name for value in model.graph.input}
    types: _Types = {}
    for tensor in model.graph.initializer:
        types[tensor.name] = (tensor.data_type, tuple(tensor.dims))
        size = 1
        for dim in tensor.dims:
            size *= dim
        if size <= _SMALL and not tensor.external_data:
            light.graph.initializer.append(tensor)
        elif tensor.name not in given:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    inferred = shape_inference.infer_shapes(light, data_prop=True).graph
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        tensor_type = value.type.tensor_type
        if value.name in types or not value.type.HasField("tensor_type"):
            continue
        dims: tuple[Dim, ...] | None = None
        if tensor_type.HasField("shape"):
            dims = tuple(
                d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor_type.shape.dim
            )
        types[value.name] = (tensor_type.elem_type, dims)
    return types


class _Constants:
    """Values of tensors that do not depend on the graph's inputs, followed through casts and the like."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {output: node for node in graph.node for output in node.output}

    def value(self, name: str) -> Array | None:
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name])
        node = self._producers.get(name)
        if node is None:
            return None
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    return numpy_helper.to_array(attribute.t)
        if node.op_type in ("Cast", "Identity"):
            return self.value(node.input[0])
        return None


def _replace(
    graph: onnx.GraphProto, replacements: dict[int, tuple[list[onnx.NodeProto], list[onnx.TensorProto]]]
) -> None:
    nodes: list[onnx.NodeProto] = []
    retyped: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        if index in replacements:
            new_nodes, constants = replacements[index]
            nodes.extend(new_nodes)
            graph.initializer.extend(constants)
            retyped.update(zip(node.output, PLUGIN_OPS[node.op_type].outputs, strict=False))
        else:
            nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    for value in graph.output:
        if retyped.get(value.name) == INT32:
            value.type.tensor_type.elem_type = INT32
    stale = [value for value in graph.value_info if value.name not in retyped]
    del graph.value_info[:]
    graph.value_info.extend(stale)


def _prune(model: onnx.ModelProto) -> None:
    """Drop the constants and nodes that only a replaced plugin used."""
    graph = model.graph
    while True:
        used = {name for node in graph.node for name in _consumed(node)} | {value.name for value in graph.output}
        dead = [n for n in graph.node if n.op_type in ("Constant", "Cast", "Identity") and not used & set(n.output)]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    given = {value.name for value in graph.input}
    for tensor in [t for t in graph.initializer if t.name not in used and t.name not in given]:
        graph.initializer.remove(tensor)


def _consumed(node: onnx.NodeProto) -> set[str]:
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= _consumed(inner)
            names |= {value.name for value in graph.output}
    return names
