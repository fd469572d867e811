"""Calibration caches worked by hand, and their conversion to scales of a graph."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nvidia_tao_deploy.calibration.cache import (
    decode_version,
    encode_version,
    format_cache,
    match_scales,
    parse_cache,
    read_cache,
    read_qat_scales,
    scales_from_qat,
    write_cache,
)
from nvidia_tao_deploy.calibration.provenance import (
    CacheKey,
    explain_mismatch,
    hash_images,
    key_path,
    read_key,
    write_key,
)
from nvidia_tao_deploy.engine.implicit import cache_header, usable_cache
from nvidia_tao_deploy.errors import BuildError, DataError

# 3c010204 is float32(1 / 127); 3f800000 is 1.0; 40000000 is 2.0
HAND = """TRT-8503-EntropyCalibration2
input_1:0: 3c010204
(Unnamed Layer* 8) [Constant]_output: 3f800000
block/relu: with colon: 40000000
"""


def test_a_cache_worked_by_hand():
    cache = parse_cache(HAND)
    assert cache.version == (8, 5, 3)
    assert cache.algorithm == "EntropyCalibration2"
    assert cache.scales == {
        "input_1:0": pytest.approx(1 / 127, rel=1e-7),
        "(Unnamed Layer* 8) [Constant]_output": 1.0,
        "block/relu: with colon": 2.0,
    }
    assert format_cache(cache.scales, version=(8, 5, 3)) == HAND


def test_versions_in_both_forms():
    assert encode_version((8, 6, 1)) == 8601
    assert encode_version((10, 13, 3)) == 101303
    for version in ((7, 2, 3), (8, 5, 3), (10, 0, 1), (10, 16, 1)):
        assert decode_version(encode_version(version)) == version
    assert decode_version(11303) is None
    assert any("names no TensorRT version" in w for w in parse_cache("TRT-11303-EntropyCalibration2\n").warnings)


@given(
    st.dictionaries(
        st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).filter(
            lambda s: s.strip() == s
        ),
        st.floats(1e-37, 1e38, allow_nan=False),
        max_size=8,
    )
)
def test_any_table_survives_writing_and_reading(table):
    read = parse_cache(format_cache(table, version=(10, 3, 0))).scales
    assert read == {name: float(np.float32(scale)) for name, scale in table.items()}


def test_bad_values_are_dropped_or_doubted_by_name():
    text = "\n".join(
        [
            "TRT-100300-MinMaxCalibration",
            "nan: 7fc00000",
            "inf: 7f800000",
            "zero: 0",
            "denormal: 1",
            "negative: bf800000",
            "short: c010204",  # leading zero dropped by other writers: 0c010204
            "huge: 47c35000",
            "not hex: xyz",
            "",
        ]
    )
    cache = parse_cache(text)
    assert cache.version == (10, 3, 0)
    assert cache.scales == {
        "negative": 1.0,
        "short": float(np.array([0x0C010204], dtype=np.uint32).view(np.float32)[0]),
        "huge": 1e5,
    }
    text = " ".join(cache.warnings)
    for word in ("nan: ", "inf: ", "zero: scale 0", "denormal", "sign was ignored", "suspiciously", "line 9"):
        assert word in text


@pytest.mark.parametrize("text", ["", "hello\n", "TRT-EntropyCalibration2\na: 3f800000\n"])
def test_text_without_a_header_is_refused(text):
    with pytest.raises(DataError, match="first line"):
        parse_cache(text)


def test_files(tmp_path):
    path = tmp_path / "new" / "cal.bin"
    write_cache(path, {"a": 1.0}, version=(8, 6, 1))
    assert path.read_bytes() == b"TRT-8601-EntropyCalibration2\na: 3f800000\n"
    assert read_cache(path).scales == {"a": 1.0}
    with pytest.raises(DataError, match="No such"):
        read_cache(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a TensorRT calibration cache"):
        read_cache(tmp_path / "binary")
    for bad in (0.0, -1.0, float("nan"), 1e-60):
        with pytest.raises(DataError, match="not a positive"):
            format_cache({"a": bad}, version=(8, 6, 1))


def chain():
    """x -> conv -> relu -> pool -> transpose -> concat(t, other) ... each name a tensor to look up."""
    weight = numpy_helper.from_array(np.ones((32, 3, 1, 1), dtype=np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("MaxPool", ["relu"], ["pool"], kernel_shape=[2, 2]),
        helper.make_node("Transpose", ["pool"], ["moved"], perm=[0, 2, 3, 1]),
        helper.make_node("Sigmoid", ["moved"], ["sig"]),
        helper.make_node("Concat", ["moved", "sig"], ["cat"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("cat", TensorProto.FLOAT, None)],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_scales_are_found_by_name_then_back_through_commuting_operators():
    names = ["x", "moved", "sig", "cat"]
    table = {"relu": 0.5, "x": 0.1, "gone": 1.0, "(Unnamed Layer* 3) [Shuffle]_output": 2.0}
    match = match_scales(chain(), table, names)
    assert match.scales == {"x": 0.1, "moved": 0.5}
    assert match.matched == ["x"]
    assert match.fused == [("moved", "relu")]
    assert match.unmatched == ["sig", "cat"]  # a concatenation needs all its parts
    assert match.unused == ["gone"]
    match = match_scales(chain(), {"conv": 0.7, "sig": 0.9}, names)
    assert match.scales == {"moved": 0.7, "sig": 0.9, "cat": 0.9}
    assert "2 fused" in match.report()


def test_a_cache_gives_scales_for_what_is_asked():
    match = match_scales(chain(), parse_cache("TRT-8503-EntropyCalibration2\nx: 3f800000\n").scales, ["x", "sig"])
    assert match.scales == {"x": 1.0}
    assert match.unmatched == ["sig"]


def test_qat_scales_by_exact_name_then_unique_prefix(tmp_path):
    path = tmp_path / "qat.json"
    path.write_text(json.dumps({"tensor_scales": {"x": 127.0, "conv/quant": 254.0, "sig/a": 1, "sig/b": 2}}))
    scales = read_qat_scales(path)
    match = scales_from_qat(chain(), scales, ["x", "conv/BiasAdd:0", "sig/z"])
    assert match.scales == {"x": 1.0, "conv/BiasAdd:0": 2.0}  # "sig" has two candidates
    for content in ("[]", "{}", '{"tensor_scales": {}}', '{"tensor_scales": {"a": -1}}', "{"):
        path.write_text(content)
        with pytest.raises(DataError):
            read_qat_scales(path)
    with pytest.raises(DataError, match="No such"):
        read_qat_scales(tmp_path / "none.json")


def test_the_key_tells_what_changed(tmp_path):
    cache = tmp_path / "cal.bin"
    assert read_key(cache) is None
    old = CacheKey(model="aa", transform="resize 640", images="11", method="entropy")
    write_key(cache, old)
    assert key_path(cache).name == "cal.bin.json"
    assert read_key(cache) == old
    assert explain_mismatch(old, old) == ""
    new = CacheKey(model="aa", transform="resize 512", images="11", method="minmax")
    text = explain_mismatch(old, new)
    assert text == "the transform changed (resize 640 -> resize 512); the method changed (entropy -> minmax)"
    key_path(cache).write_text("[1]")
    with pytest.raises(DataError):
        read_key(cache)


def test_image_hash_follows_contents_not_names(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for path, content in zip(paths, (b"1", b"2", b"1"), strict=True):
        path.write_bytes(content)
    a, b, c = paths
    assert hash_images([a, b]) == hash_images([c, b]) != hash_images([b, a])


@pytest.mark.parametrize("version", ["8.5.3.1", "8.6.1", "10.0.1", "10.16.1.11"])
@pytest.mark.parametrize("algorithm", ["EntropyCalibration2", "MinMaxCalibration"])
def test_tensorrts_own_calibrator_is_handed_our_file_unchanged(version, algorithm):
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    text = format_cache({"input:0": 0.01, "a b": 2.5e-20}, version=(major, minor, patch), algorithm=algorithm)
    assert text.splitlines()[0] == cache_header(version, algorithm)
    assert text.splitlines()[1] == "input:0: 3c23d70a"
    assert usable_cache(text.encode(), version, algorithm, can_calibrate=True) == (text.encode(), None)
    with pytest.raises(BuildError):
        usable_cache(text.encode(), version, "LegacyCalibration", can_calibrate=False)
