"""What the builders' messages mean and what to do: data, searched in order of the table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownError:
    """A message of the parser or builder (regular expression), its cause and its remedy."""

    pattern: str
    cause: str
    remedy: str


KNOWN_ERRORS: tuple[KnownError, ...] = (
    KnownError(
        r"no optimization profile has been defined|dynamic or shape inputs, but no optimization",
        "An input has dynamic axes and no shape profile.",
        "Set min/opt/max_batch_size (and heights and widths) in gen_trt_engine.tensorrt.",
    ),
    KnownError(
        r"MIN<=OPT<=MAX|min.*<=.*opt.*<=.*max",
        "A shape profile is not ordered.",
        "Order the min, opt and max sizes in gen_trt_engine.tensorrt.",
    ),
    KnownError(
        r"missing dimensions in profile",
        "An input's profile is missing, often because its name is misspelt.",
        "Compare the names in the profile with the model's inputs.",
    ),
    KnownError(
        r"has \d+ dimensions but profile|Dimension mismatch for tensor",
        "A profile's shape does not fit the input.",
        "Compare the profile with the model's input shapes.",
    ),
    KnownError(
        r"Compute capability .* not supported|SM(90|100|103)\b",
        "TensorRT-RTX has no target for that GPU.",
        "Use TensorRT on that machine (gen_trt_engine.tensorrt.runtime=tensorrt), or another compute capability.",
    ),
    KnownError(
        r"has no runners that implement it",
        "The parser reads this operator and the library has no kernel for it.",
        "Lower it to standard operators (gen_trt_engine.tensorrt.plugins: lower) or end the model before it.",
    ),
    KnownError(
        r"Plugin not found|is not supported in TensorRT-RTX|getPluginCreator could not find|No importer registered",
        "The operator is a plugin, or unknown to this version.",
        "Lower plugins to standard operators (gen_trt_engine.tensorrt.plugins: lower), or export at an older opset.",
    ),
    KnownError(
        r"must have same input types|must have the same type|must have the same data type",
        "Two types meet in one operator: a strongly typed network promotes nothing.",
        "Prepare the graph again with this command, or add the missing Cast; layers_precision may have split it.",
    ),
    KnownError(
        r"HW-specific datatypes: b16", "bf16 needs compute capability 8.0.", "Drop the older target or use fp16."
    ),
    KnownError(
        r"HW-specific datatypes: fp8",
        "fp8 needs compute capability 8.9, and every listed target must have it.",
        "Drop the older targets or use int8 or fp16.",
    ),
    KnownError(
        r"FP32 GEMM is not supported",
        "Compute capability 7.5 has no fp32 matrix products in TensorRT-RTX.",
        "Use fp16, or drop 7.5 from compute_capabilities.",
    ),
    KnownError(r"DequantizeLinear node has type Int32", "A bias was quantized to int32.", "Quantize without biases."),
    KnownError(
        r"Non-zero zero point|zero point is not supported|zero-point.*(zero|0)",
        "The graph is quantized asymmetrically.",
        "Quantize symmetrically to int8 with zero points of 0.",
    ),
    KnownError(
        r"Scale coefficients must all be positive",
        "A quantization scale is 0 or negative: that tensor was constant during calibration.",
        "Leave that tensor in float, or calibrate on more images.",
    ),
    KnownError(
        r"Unable to load library: libnvinfer_lean|libnvinfer_lean",
        "Version compatible engines need the lean runtime library, which is not installed.",
        "Install tensorrt_lean of the same version, or turn version_compatible off.",
    ),
    KnownError(
        r"Could not find any implementation for node",
        "No kernel fits this layer within the limits given.",
        "Raise workspace_size, simplify the graph (folding is on by default), or keep that layer in another precision.",
    ),
    KnownError(
        r"[Oo]ut of memory|OutOfMemory|std::bad_alloc|cudaErrorMemoryAllocation|insufficient memory",
        "The builder ran out of memory.",
        "Lower max_batch_size or workspace_size, or free the GPU.",
    ),
    KnownError(
        r"_Map_base::at",
        "TensorRT's calibrator was fed batches that are not of the profile's opt shape.",
        "Make cal_batch_size equal to opt_batch_size.",
    ),
    KnownError(
        r"Calibration table does not match calibrator algorithm|calibration.*cache.*(mismatch|version)",
        "The calibration cache was written by another calibrator or TensorRT version.",
        "Delete the cache to calibrate again, or use calibration.mode: explicit, which converts it.",
    ),
    KnownError(
        r"cublas|cudnn|CUBLAS|CUDNN",
        "cuBLAS or cuDNN is missing or does not fit.",
        "Install the versions this TensorRT names, or set TRT_NO_EXTERNAL_TACTICS=1 to build without them.",
    ),
    KnownError(
        r"driver version is insufficient|cudaErrorInsufficientDriver|\b35\b.*CUDA|CUDA initialization failure",
        "There is no GPU driver, or it is too old.",
        "Update the driver, or build with tensorrt_rtx and compute_capabilities, which needs no GPU.",
    ),
    KnownError(
        r"Input file cannot be found|ModelImporter.*could not open|failed to open",
        "The ONNX file or its external weights cannot be read.",
        "Keep the weights file beside the .onnx under its original name.",
    ),
    KnownError(
        r"Failed to parse the ONNX model|Failed to parse ONNX model|MODEL_DESERIALIZE_FAILED",
        "The ONNX file is truncated or damaged.",
        "Export or copy it again.",
    ),
)

# On a machine without a driver TensorRT-RTX reports these at error severity in builds that succeed.
_HARMLESS = re.compile(r"catchCudaError.*|.*CUDA initialization failure with error: 35.*|.*cudaError.*\b35\b.*")


def explain(messages: Iterable[str]) -> KnownError | None:
    """The first entry of the table that matches any of the messages."""
    text = "\n".join(messages)
    return next((known for known in KNOWN_ERRORS if re.search(known.pattern, text)), None)


def is_harmless(message: str, *, gpu: bool) -> bool:
    """Whether an error line says only that there is no driver, which an ahead-of-time build does not need."""
    return not gpu and _HARMLESS.search(message) is not None
