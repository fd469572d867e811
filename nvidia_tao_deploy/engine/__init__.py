"""Engines: prepared ONNX in, serialized plan and manifest out, on TensorRT and TensorRT-RTX."""
