"""Reading messages and inspector reports: known errors, calibration cache headers, layer precisions."""

from __future__ import annotations

import json

import pytest

from nvidia_tao_deploy.engine import inspector
from nvidia_tao_deploy.engine.implicit import cache_header, usable_cache
from nvidia_tao_deploy.engine.known_errors import KNOWN_ERRORS, explain, is_harmless
from nvidia_tao_deploy.errors import BuildError


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("Network has dynamic or shape inputs, but no optimization profile has been defined.", "no shape profile"),
        ("Compute capability 9.0 (SM90) not supported by this TensorRT-RTX version.", "no target for that GPU"),
        ("Dynamic-shaped input tensor x has 4 dimensions but profile 0 has 3 dimensions.", "does not fit the input"),
        ("Dynamic input tensor x is missing dimensions in profile 1.", "misspelt"),
        ("nms_0 has no runners that implement it", "no kernel"),
        ("ElementWiseOperation SUM must have same input types. But they are of types Float and Half", "Two types"),
        ("HW-specific datatypes: fp8_e4m3", "8.9"),
        ("Unable to load library: libnvinfer_lean.so.1", "lean runtime"),
        ("Plugin not found, are the plugin name, version, and namespace correct?", "plugin"),
        ("_Map_base::at", "opt shape"),
        ("2: [optimizer.cpp::filterQDQFormats::4422] Error Code 2: Internal Error (Assertion", "transformer"),
        ("Scale coefficients must all be positive", "0 or negative"),
    ],
)
def test_known_errors_are_explained(message: str, cause: str) -> None:
    known = explain(["something before", message])
    assert known is not None
    assert cause in known[1]


def test_every_entry_has_cause_and_remedy() -> None:
    assert all(meaning.endswith(".") and meaning.count(". ") >= 1 for meaning in KNOWN_ERRORS.values())
    assert explain(["all is well"]) is None


def test_driver_lines_are_harmless_only_without_a_gpu() -> None:
    line = "Error Code 1: Cuda Runtime (In catchCudaError at /_src/common.h:117: cudaError 35)"
    assert is_harmless(line, gpu=False)
    assert not is_harmless(line, gpu=True)
    assert not is_harmless("nms_0 has no runners that implement it", gpu=False)


@pytest.mark.parametrize(
    ("version", "header"),
    [
        ("8.5.3.1", "TRT-8503-EntropyCalibration2"),
        ("8.6.1", "TRT-8601-EntropyCalibration2"),
        ("10.13.3.9", "TRT-101303-EntropyCalibration2"),
    ],
)
def test_cache_header_of_each_version(version: str, header: str) -> None:
    assert cache_header(version, "EntropyCalibration2") == header


def test_cache_of_another_version_is_recalibrated_or_renamed() -> None:
    body = b"x: 3c010204\n"
    same = b"TRT-8503-EntropyCalibration2\n" + body
    assert usable_cache(same, "8.5.3.1", "EntropyCalibration2", can_calibrate=True) == (same, None)
    contents, note = usable_cache(same, "10.3.0", "EntropyCalibration2", can_calibrate=True)
    assert contents is None
    assert "calibrating again" in (note or "")
    contents, note = usable_cache(same, "10.3.0", "EntropyCalibration2", can_calibrate=False)
    assert contents == b"TRT-100300-EntropyCalibration2\n" + body
    assert "used as" in (note or "")
    with pytest.raises(BuildError, match="TRT-8503-MinMaxCalibration is needed"):
        usable_cache(same, "8.5.3", "MinMaxCalibration", can_calibrate=False)
    with pytest.raises(BuildError, match="starts with 'nonsense'"):
        usable_cache(b"nonsense", "8.5.3", "MinMaxCalibration", can_calibrate=False)


def test_layer_precisions_are_counted_by_what_the_layer_reads() -> None:
    def layer(kind: str, spelled: str) -> dict[str, object]:
        return {"ParameterType": kind, "Inputs": [{"Name": "t", "Format/Datatype": spelled}]}

    report = {
        "Layers": [
            layer("Convolution", "Four wide channel vectorized row major Int8 format"),
            layer("Convolution", "Row major linear FP16 format"),
            layer("Deconvolution", "Half"),
            layer("Matrix Multiply", "Row major linear FP32"),
            layer("Convolution", "BFloat16"),
            layer("Pooling", "Row major linear Int8 format"),
            {**layer("Convolution", "Half"), "Name": "conv1 [profile 1]"},  # conv1 once more, for another context
            "a layer named only",
        ]
    }
    text = json.dumps(report)
    assert inspector.count_precisions(text) == {"int8": 1, "fp16": 2, "fp32": 1, "bf16": 1}
