"""Sessions: a loaded engine or ONNX file behind one interface."""
