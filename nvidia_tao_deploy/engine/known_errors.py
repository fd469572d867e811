"""What the builders' messages mean and what to do: data, searched in order of the table."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A message of the parser or builder (regular expression): its cause and its remedy.
KNOWN_ERRORS = {
    r"no optimization profile has been defined|dynamic or shape inputs, but no optimization": (
        "An input has dynamic axes and no shape profile. "
        "Set min/opt/max_batch_size (and heights and widths) in gen_trt_engine.tensorrt."
    ),
    r"MIN<=OPT<=MAX|min.*<=.*opt.*<=.*max": (
        "A shape profile is not ordered. Order the min, opt and max sizes in gen_trt_engine.tensorrt."
    ),
    r"missing dimensions in profile": (
        "An input's profile is missing, often because its name is misspelt. "
        "Compare the names in the profile with the model's inputs."
    ),
    r"has \d+ dimensions but profile|Dimension mismatch for tensor": (
        "A profile's shape does not fit the input. Compare the profile with the model's input shapes."
    ),
    r"Compute capability .* not supported|SM(90|100|103)\b": (
        "TensorRT-RTX has no target for that GPU. "
        "Use TensorRT on that machine (gen_trt_engine.tensorrt.runtime=tensorrt), or another compute capability."
    ),
    r"has no runners that implement it": (
        "The parser reads this operator and the library has no kernel for it. "
        "Lower it to standard operators (gen_trt_engine.tensorrt.plugins: lower) or end the model before it."
    ),
    r"Plugin not found|is not supported in TensorRT-RTX|getPluginCreator could not find|No importer registered": (
        "The operator is a plugin, or unknown to this version. "
        "Lower plugins to standard operators (gen_trt_engine.tensorrt.plugins: lower), or export at an older opset."
    ),
    r"must have same input types|must have the same type|must have the same data type": (
        "Two types meet in one operator: a strongly typed network promotes nothing. "
        "Prepare the graph again with this command, or add the missing Cast; layers_precision may have split it."
    ),
    r"HW-specific datatypes: b16": "bf16 needs compute capability 8.0. Drop the older target or use fp16.",
    r"HW-specific datatypes: fp8": (
        "fp8 needs compute capability 8.9, and every listed target must have it. "
        "Drop the older targets or use int8 or fp16."
    ),
    r"FP32 GEMM is not supported": (
        "Compute capability 7.5 has no fp32 matrix products in TensorRT-RTX. "
        "Use fp16, or drop 7.5 from compute_capabilities."
    ),
    r"DequantizeLinear node has type Int32": "A bias was quantized to int32. Quantize without biases.",
    r"Non-zero zero point|zero point is not supported|zero-point.*(zero|0)": (
        "The graph is quantized asymmetrically. Quantize symmetrically to int8 with zero points of 0."
    ),
    r"Scale coefficients must all be positive": (
        "A quantization scale is 0 or negative: that tensor was constant during calibration. "
        "Leave that tensor in float, or calibrate on more images."
    ),
    r"Unable to load library: libnvinfer_lean|libnvinfer_lean": (
        "Version compatible engines need the lean runtime library, which is not installed. "
        "Install tensorrt_lean of the same version, or turn version_compatible off."
    ),
    r"Could not find any implementation for node|no tactics to implement": (
        "No kernel fits this layer within the limits given. "
        "Raise workspace_size, simplify the graph (folding is on by default), or keep that layer in another precision."
    ),
    r"filterQDQFormats": (
        "This TensorRT has no int8 kernel for a layer between Q/DQ pairs; 8.5 has none for a transformer's. "
        "Use fp16, keep such layers in float by layers_precision, try calibration.mode: implicit, or a newer TensorRT."
    ),
    r"[Oo]ut of memory|OutOfMemory|std::bad_alloc|cudaErrorMemoryAllocation|insufficient memory": (
        "The builder ran out of memory. Lower max_batch_size or workspace_size, or free the GPU."
    ),
    r"_Map_base::at": (
        "TensorRT's calibrator was fed batches that are not of the profile's opt shape. "
        "Make cal_batch_size equal to opt_batch_size."
    ),
    r"Calibration table does not match calibrator algorithm|calibration.*cache.*(mismatch|version)": (
        "The calibration cache was written by another calibrator or TensorRT version. "
        "Delete the cache to calibrate again, or use calibration.mode: explicit, which converts it."
    ),
    r"cublas|cudnn|CUBLAS|CUDNN": (
        "cuBLAS or cuDNN is missing or does not fit. "
        "Install the versions this TensorRT names, or set TRT_NO_EXTERNAL_TACTICS=1 to build without them."
    ),
    r"driver version is insufficient|cudaErrorInsufficientDriver|\b35\b.*CUDA|CUDA initialization failure": (
        "There is no GPU driver, or it is too old. "
        "Update the driver, or build with tensorrt_rtx and compute_capabilities, which needs no GPU."
    ),
    r"Input file cannot be found|ModelImporter.*could not open|failed to open": (
        "The ONNX file or its external weights cannot be read. "
        "Keep the weights file beside the .onnx under its original name."
    ),
    r"Failed to parse the ONNX model|Failed to parse ONNX model|MODEL_DESERIALIZE_FAILED": (
        "The ONNX file is truncated or damaged. Export or copy it again."
    ),
}

# On a machine without a driver TensorRT-RTX reports these at error severity in builds that succeed.
_HARMLESS = re.compile(r"catchCudaError.*|.*CUDA initialization failure with error: 35.*|.*cudaError.*\b35\b.*")


def shown(op_type: str, name: str) -> str:
    """A node as a message names it."""
    return f"{op_type} {name!r}" if name else op_type


def explain(messages: Iterable[str]) -> tuple[str, str] | None:
    """The first entry of the table that matches any of the messages: its pattern, and what it means."""
    text = "\n".join(messages)
    return next(((pattern, meaning) for pattern, meaning in KNOWN_ERRORS.items() if re.search(pattern, text)), None)


def is_harmless(message: str, *, gpu: bool) -> bool:
    """Whether an error line says only that there is no driver, which an ahead-of-time build does not need."""
    return not gpu and _HARMLESS.search(message) is not None
