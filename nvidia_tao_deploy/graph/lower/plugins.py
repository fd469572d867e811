"""The pass: find plugin nodes, replace each by standard operators."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nvidia_tao_deploy.arrays import Array
from nvidia_tao_deploy.graph.lower.attention import (
    lower_deformable_attention,
    lower_modulated_deform_conv,
    lower_multi_camera_attention,
)
from nvidia_tao_deploy.graph.lower.emit import FLOAT, INT32, NAME_PREFIX, CannotLowerError, Emitter
from nvidia_tao_deploy.graph.lower.nms import (
    lower_batched_nms,
    lower_detection_output,
    lower_efficient_nms,
    lower_efficient_nms_onnx,
)
from nvidia_tao_deploy.graph.lower.node import Lowering, PluginNode
from nvidia_tao_deploy.graph.lower.points import lower_decode_boxes, lower_pillar_scatter, lower_voxel_generator
from nvidia_tao_deploy.graph.lower.pyramid import lower_pyramid_roi_align
from nvidia_tao_deploy.graph.lower.resize import (
    lower_batch_tile,
    lower_instance_normalization,
    lower_leaky_relu,
    lower_resize_nearest,
    lower_special_slice,
)
from nvidia_tao_deploy.graph.lower.roi import (
    lower_crop_and_resize,
    lower_generate_detection,
    lower_multilevel_crop,
    lower_multilevel_propose,
    lower_proposal,
)
from nvidia_tao_deploy.graph.tensors import (
    GraphIndex,
    attribute,
    captured_names,
    copy_model,
    opset,
    refill,
    remove_unused_initializers,
)

MIN_OPSET = 11


@dataclass(frozen=True)
class PluginOp:
    """How one plugin is lowered, and the element types of its outputs."""

    lower: Lowering
    outputs: tuple[int, ...]


# Plugins of TensorRT's static-shape interface: they run in no engine whose batch is open.
STATIC_PLUGINS = frozenset(
    {
        "NMS_TRT", "BatchedNMS_TRT", "Proposal", "CropAndResize", "MultilevelProposeROI", "MultilevelProposeROI_TRT",
        "MultilevelCropAndResize", "MultilevelCropAndResize_TRT", "GenerateDetection", "GenerateDetection_TRT",
        "SpecialSlice", "SpecialSlice_TRT", "ResizeNearest", "ResizeNearest_TRT", "PyramidROIAlign",
        "PyramidROIAlign_TRT", "BatchTilePlugin_TRT", "LReLU_TRT",
    }
)  # fmt: skip

# Op types, with and without an open batch -> how they are lowered.
_LOWERINGS = {
    "BatchedNMS_TRT BatchedNMSDynamic_TRT": PluginOp(lower_batched_nms, (INT32, FLOAT, FLOAT, FLOAT)),
    "NMS_TRT NMSDynamic_TRT": PluginOp(lower_detection_output, (FLOAT, INT32)),
    "EfficientNMS_TRT": PluginOp(lower_efficient_nms, (INT32, FLOAT, FLOAT, INT32)),
    "EfficientNMS_ONNX_TRT": PluginOp(lower_efficient_nms_onnx, (INT32,)),
    "Proposal ProposalDynamic": PluginOp(lower_proposal, (FLOAT,)),
    "CropAndResize CropAndResizeDynamic": PluginOp(lower_crop_and_resize, (FLOAT,)),
    "ResizeNearest_TRT ResizeNearestDynamic": PluginOp(lower_resize_nearest, (FLOAT,)),
    "MultilevelProposeROI_TRT": PluginOp(lower_multilevel_propose, (FLOAT,)),
    "MultilevelCropAndResize_TRT": PluginOp(lower_multilevel_crop, (FLOAT,)),
    "PyramidROIAlign_TRT": PluginOp(lower_pyramid_roi_align, (FLOAT,)),
    "GenerateDetection_TRT": PluginOp(lower_generate_detection, (FLOAT,)),
    "SpecialSlice_TRT": PluginOp(lower_special_slice, (FLOAT,)),
    "MultiscaleDeformableAttnPlugin_TRT": PluginOp(lower_deformable_attention, (FLOAT,)),
    "MSDA": PluginOp(lower_multi_camera_attention, (FLOAT,)),
    "ModulatedDeformConv2d": PluginOp(lower_modulated_deform_conv, (FLOAT,)),
    "BatchTilePlugin_TRT": PluginOp(lower_batch_tile, (FLOAT,)),
    "LReLU_TRT": PluginOp(lower_leaky_relu, (FLOAT,)),
    "InstanceNormalization_TRT": PluginOp(lower_instance_normalization, (FLOAT,)),
    "VoxelGeneratorPlugin": PluginOp(lower_voxel_generator, (FLOAT, INT32, INT32)),
    "PillarScatterPlugin": PluginOp(lower_pillar_scatter, (FLOAT,)),
    "DecodeBbox3DPlugin": PluginOp(lower_decode_boxes, (FLOAT, INT32)),
}
PLUGIN_OPS = {name: op for names, op in _LOWERINGS.items() for name in names.split()}


@dataclass(frozen=True)
class LowerResult:
    """A model without the plugins that could be lowered.

    Attributes:
        model: the new model; the one given is not changed.
        lowered: (node name, op type) of what was replaced.
        unsupported: (node name, op type, reason) of plugin nodes left in the graph against the caller's wish.
    """

    model: ModelProto
    lowered: list[tuple[str, str]]
    unsupported: list[tuple[str, str, str]]


def lower_plugins(model: ModelProto, *, keep: Collection[str] = ()) -> LowerResult:
    """Replace TensorRT plugin nodes by standard ONNX operators.

    The replacement holds no plugin, no NonMaxSuppression and no other operator that TensorRT-RTX cannot build. Every
    emitted node's name starts with ``NAME_PREFIX``; a precision pass must leave those in FP32. Graph outputs keep their
    names; ``NMSDynamic_TRT``'s count, declared float by the exporters but holding int32 bits, becomes int32.

    Args:
        model: any ONNX model of opset 11 or later; sizes other than the batch must be fixed around the plugins.
        keep: op types to leave as they are.
    """
    result = copy_model(model)
    graph = result.graph
    lowered: list[tuple[str, str]] = []
    reasons: dict[int, tuple[str, str, str]] = {}
    # What one replacement makes known may be what the next plugin needs: infer again until nothing changes.
    while True:
        pending = [i for i, node in enumerate(graph.node) if node.op_type in PLUGIN_OPS and node.op_type not in keep]
        if not pending:
            break
        index = typed(result)
        reasons = {}
        replacements: dict[int, Emitter] = {}
        for number in pending:
            node = graph.node[number]
            name = node.name or (node.output[0] if node.output else node.op_type)
            try:
                replacements[number] = _lower(node, name, opset(model), index)
                lowered.append((name, node.op_type))
            except CannotLowerError as error:
                reasons[number] = (name, node.op_type, str(error))
        if not replacements:
            break
        _replace(graph, replacements)
    _prune(graph)
    return LowerResult(result, lowered, list(reasons.values()))


def _lower(node: NodeProto, name: str, version: int, index: GraphIndex) -> Emitter:
    entry = PLUGIN_OPS[node.op_type]
    inputs = [i for i in node.input if i]
    if not inputs:
        raise CannotLowerError("it has no inputs")
    if version < MIN_OPSET:
        raise CannotLowerError(f"the model has opset {version}, at least {MIN_OPSET} is needed")
    shapes = dict(index.shapes)
    g = Emitter(f"{NAME_PREFIX}{node.op_type}/{name}", version, shapes, inputs[0])
    half = {i: g.cast(i, FLOAT) for i in inputs if index.elem_types.get(i) == TensorProto.FLOAT16}
    shapes.update({new: shapes[old] for old, new in half.items() if old in shapes})
    inputs = [half.get(i, i) for i in inputs]
    g.batch_source = inputs[0]
    attrs = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    outputs = entry.lower(g, PluginNode(name, node.op_type, tuple(inputs), attrs, partial(_constant, index)))
    for target, source, kind in zip(node.output, outputs, entry.outputs, strict=False):
        if target:
            if half and kind == FLOAT:
                source = g.cast(source, TensorProto.FLOAT16)
            g.nodes.append(helper.make_node("Identity", [source], [target], name=f"{g.prefix}/{target}"))
    return g


def typed(model: ModelProto) -> GraphIndex:
    """Types and shapes as far as ONNX's inference can tell them; the annotations of plugins' outputs do not count."""
    return GraphIndex(model, {name for node in model.graph.node if node.op_type in PLUGIN_OPS for name in node.output})


def _constant(index: GraphIndex, name: str) -> Array | None:
    """The value of a tensor that does not depend on the graph's inputs, through casts; None for the others."""
    node = index.producers.get(name)
    if node is not None and node.op_type == "Constant":
        tensor = attribute(node, "value")
        return None if tensor is None else numpy_helper.to_array(tensor)
    return _constant(index, node.input[0]) if node and node.op_type in ("Cast", "Identity") else index.constant(name)


def _replace(graph: GraphProto, replacements: Mapping[int, Emitter]) -> None:
    nodes: list[NodeProto] = []
    retyped: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        if index in replacements:
            nodes.extend(replacements[index].nodes)
            graph.initializer.extend(replacements[index].constants)
            retyped.update(zip(node.output, PLUGIN_OPS[node.op_type].outputs, strict=False))
        else:
            nodes.append(node)
    refill(graph.node, nodes)
    for value in graph.output:
        if retyped.get(value.name) == INT32:
            value.type.tensor_type.elem_type = INT32
    refill(graph.value_info, [value for value in graph.value_info if value.name not in retyped])


def _prune(graph: GraphProto) -> None:
    """Drop the constants and nodes that only a replaced plugin used."""
    while True:
        used = {name for node in graph.node for name in node.input} | captured_names(graph)
        used |= {value.name for value in graph.output}
        dead = [n for n in graph.node if n.op_type in ("Constant", "Cast", "Identity") and not used & set(n.output)]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    remove_unused_initializers(graph)


def class_count(model: ModelProto) -> int | None:
    """Classes, without the background, of the suppression plugin a detector ends in; None: no such plugin."""
    for node in model.graph.node:
        numbers: dict[str, int] = {attribute.name: attribute.i for attribute in node.attribute}
        if "numClasses" in numbers:
            return numbers["numClasses"] - (numbers.get("backgroundLabelId", -1) >= 0)
        if node.op_type == "EfficientNMS_TRT":
            *_, columns = typed(model).shapes.get(node.input[1]) or (None,)
            return None if columns is None else columns - (numbers.get("background_class", -1) >= 0)
    return None
