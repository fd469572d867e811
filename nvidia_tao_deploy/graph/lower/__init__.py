"""Legacy TensorRT plugin nodes, rewritten to standard ONNX operators."""

from nvidia_tao_deploy.graph.lower.emit import NAME_PREFIX
from nvidia_tao_deploy.graph.lower.plugins import PLUGIN_OPS, STATIC_PLUGINS, class_count, lower_plugins

__all__ = ["NAME_PREFIX", "PLUGIN_OPS", "STATIC_PLUGINS", "class_count", "lower_plugins"]
