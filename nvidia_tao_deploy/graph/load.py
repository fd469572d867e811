"""Reading ONNX files, and saying what a file is when it is not one."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from nvidia_tao_deploy.errors import ModelError, ModelFileError
from nvidia_tao_deploy.graph.archive import ZIP_MAGIC, read_model
from nvidia_tao_deploy.graph.plain_outputs import plain_outputs
from nvidia_tao_deploy.graph.tensors import (
    INLINE_PROTO_LIMIT,
    dims_of,
    fed_inputs,
    foreign_ops,
    refill,
    serialized_size,
)
from nvidia_tao_deploy.runtime.session import TensorInfo

ENGINE_SUFFIXES = frozenset({".engine", ".plan", ".trt"})
HDF5_MAGIC = b"\x89HDF"
MAX_FILE_BYTES = 2**31  # protobuf's own limit; larger models keep their weights in external files
EXPORT_REMEDY = "Export the model to ONNX again (the export action of its trainer) or copy the file once more."


def load_model(path: Path) -> ModelProto:
    """Read and check an ONNX file, or the only one in a zip archive; external weight files are looked for beside it.

    Dictionaries of scores (ZipMap) become tensors.

    Returns:
        The model with all weights in memory and IR version >= 4 semantics (weights are not inputs).

    Raises:
        ModelError: the file is missing, empty, truncated, encrypted (.etlt), a UFF file, an engine, not ONNX at
            all, lacks an external weight file, or fails the ONNX checker.
    """
    where = str(path)
    head = _read_head(path)
    _refuse_other_kinds(path, head)
    if path.stat().st_size >= MAX_FILE_BYTES:
        raise ModelError(
            f"the file has {path.stat().st_size} bytes, more than the 2 GiB that an ONNX file can have",
            where=where,
            remedy="Export it with external data (onnx.save(..., save_as_external_data=True)).",
        )
    content = read_model(path) if head.startswith(ZIP_MAGIC) else None
    try:
        model = onnx.load_model_from_string(content) if content else onnx.load(str(path), load_external_data=False)
    except Exception as error:  # the protobuf runtimes raise unrelated types for the same broken file
        kind = "zip archive" if path.suffix.lower() == ".zip" else "ONNX file"
        raise ModelError(
            f"not a readable {kind}: it is truncated or of another kind ({_one_line(error)})",
            where=where,
            remedy=EXPORT_REMEDY,
        ) from error
    if not model.graph.node and not model.graph.output:
        raise ModelError("the file holds no ONNX graph", where=where, remedy=EXPORT_REMEDY)
    if not model.opset_import:
        problem = "the file names no ONNX opset, so it is not a complete model"
        raise ModelError(problem, where=where, remedy=EXPORT_REMEDY)
    _load_weights(model, path)
    _check(model, where)
    _drop_initializer_inputs(model)
    plain_outputs(model)
    return model


def model_inputs(model: ModelProto) -> tuple[TensorInfo, ...]:
    """Inputs that must be fed; dynamic dimensions are None.

    Raises:
        ModelError: one is not a tensor.
    """
    return tuple(_tensor_info(value) for value in fed_inputs(model.graph))


def model_outputs(model: ModelProto) -> tuple[TensorInfo, ...]:
    """Outputs in the order of the file; dynamic dimensions are None. Raises as :func:`model_inputs`."""
    return tuple(_tensor_info(value) for value in model.graph.output)


def _tensor_info(value: ValueInfoProto) -> TensorInfo:
    elem_type = value.type.tensor_type.elem_type
    if elem_type == TensorProto.UNDEFINED:
        raise ModelError(f"tensor {value.name!r} has no element type", remedy=EXPORT_REMEDY)
    return TensorInfo(value.name, dims_of(value), np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type)))


def _read_head(path: Path) -> bytes:
    if not path.exists():
        raise ModelFileError("no such ONNX file", where=str(path), remedy="Check gen_trt_engine.onnx_file.")
    if path.is_dir():
        problem = "this is a folder, an ONNX file is needed"
        raise ModelFileError(problem, where=str(path), remedy="Name the .onnx file in it.")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ModelFileError(f"cannot read the file: {error.strerror}", where=str(path)) from error
    if not head:
        raise ModelError("the file is empty", where=str(path), remedy=EXPORT_REMEDY)
    return head


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    suffix = path.suffix.lower()
    if suffix == ".etlt":
        problem = f"an encrypted .etlt model ({_etlt_payload(head)}) needs NVIDIA's closed decryption package"
        remedy = (
            "Export it again as .onnx (the default since TAO 5), or decrypt it once where the vendor package is "
            "installed and give the .onnx file here."
        )
    elif suffix == ".uff":
        problem = "UFF models were dropped by TensorRT after version 8"
        remedy = "Export the model to ONNX instead."
    elif head[1:4] == b"trt" or suffix in ENGINE_SUFFIXES:
        problem = "this is a TensorRT engine, an ONNX model is needed here"
        remedy = "Give the ONNX file it was built from; gen_trt_engine leaves the prepared one beside the engine."
    elif head.startswith(HDF5_MAGIC):
        problem, remedy = "this is an HDF5 file, not an ONNX model", "Export the model to ONNX first."
    else:
        return
    raise ModelError(problem, where=str(path), remedy=remedy)


def _etlt_payload(head: bytes) -> str:
    # 4-byte little-endian length of an input-node name: 0 for ONNX payloads, the name's length for UFF ones.
    if len(head) < 4:
        return "truncated: no header"
    (length,) = struct.unpack("<i", head[:4])
    if length == 0:
        return "its header announces an ONNX payload"
    if 0 < length <= 256:
        name = head[4 : 4 + length].decode("utf-8", errors="replace")
        return f"its header announces a UFF payload with input {name!r}, which no current TensorRT reads"
    return "with a damaged header"


def _load_weights(model: ModelProto, path: Path) -> None:
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # missing file, short file, path leaving the folder: all raise different types
        raise ModelFileError(
            f"an external weight file of the model cannot be read ({_one_line(error)})",
            where=str(path),
            remedy="Keep the weight files in the folder of the .onnx file, under the names they were exported with.",
        ) from error


def _check(model: ModelProto, where: str) -> None:
    if serialized_size(model) > INLINE_PROTO_LIMIT:
        return  # the checker works on serialized bytes; the builder's parser has the last word
    domains = {entry.domain for entry in model.opset_import}
    try:
        if domains <= {"", "ai.onnx", "ai.onnx.ml"} and not foreign_ops(model):
            onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ModelError(
            f"the ONNX checker refuses the model: {_one_line(error)}", where=where, remedy=EXPORT_REMEDY
        ) from error


def _drop_initializer_inputs(model: ModelProto) -> None:
    """Nothing here overrides weights at run time."""
    refill(model.graph.input, fed_inputs(model.graph))
    model.ir_version = max(model.ir_version, 4)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 240 else f"{text[:240]}..."
