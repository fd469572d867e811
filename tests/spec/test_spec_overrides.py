"""The grammar of ``key=value`` overrides."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvidia_tao_deploy.cv.detectnet_v2.spec import Spec as DetectnetSpec
from nvidia_tao_deploy.cv.rtdetr.spec import Spec as RtdetrSpec
from nvidia_tao_deploy.errors import SpecError
from nvidia_tao_deploy.spec.load import load_spec
from nvidia_tao_deploy.spec.overrides import parse_override, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-7", -7), ("1_000", 1000), ("1.5", 1.5), ("1e-3", 1e-3), (".5", 0.5), ("inf", math.inf),
        ("true", True), ("False", False), ("null", None), ("NULL", None), ("", ""), ("abc", "abc"),
        ("hello there", "hello there"), ("/a/b c.engine", "/a/b c.engine"), ("a=b", "a=b"), ("1,2", "1,2"),
        ("'1'", "1"), ('"a b"', "a b"), (r"'it\'s'", "it's"), ("[1,2]", [1, 2]), ("[1, 2]", [1, 2]), ("[]", []),
        ("[a,'b,c',[1]]", ["a", "b,c", [1]]), ("{a:1,b:[x]}", {"a": 1, "b": ["x"]}), ("{}", {}),
        ("${a.b}", "${a.b}"), ("x/${a.b}/y", "x/${a.b}/y"), ("[${a},1]", ["${a}", 1]), ("???", "???"),
        ("__import__('os')", "__import__('os')"), ("0x10", "0x10"), ("1.2.3", "1.2.3"), ("a:b", "a:b"),
        ("007", "007"), ("01.5", "01.5"), ("1e1_0", 1e10), (r"/lr\=0.1/x", "/lr=0.1/x"), (r"a\,b", "a,b"),
        (r"[a\,b, c\ d]", ["a,b", "c d"]), (r"{a\:b: c}", {"a:b": "c"}), (r"\\server\x", r"\server\x"),
        (r"'C:\\x\y'", r"C:\\x\y"), (r"'a\\'", "a\\"), (r"['a\\\'b','c']", [r"a\'b", "c"]), ('"it\'s"', "it's"),
    ],
)  # fmt: skip
def test_values(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize("text", ["[1", "[1,", "{a:1", "{a}", "'x", "[1]x", "'x'y", "['x' 1]", "${a", "{:1}"])
def test_unbalanced_values_are_refused(text):
    with pytest.raises(SpecError, match="cannot read the value"):
        parse_value(text)


@pytest.mark.parametrize("text", ["evaluate", "=3", "", "a..b=1", "a[x]=1", ".a=1", "+=1"])
def test_what_is_no_override(text):
    with pytest.raises(SpecError):
        parse_override(text)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="ascii", min_codepoint=32)).map(str),
    lambda below: (
        st.lists(below, max_size=4) | st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), below, max_size=3)
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_json_with_quoted_keys_reads_as_itself(value):
    def quoted(item):
        if isinstance(item, str):
            return "'" + re.sub(r"(\\+)\Z", r"\1\1", re.sub(r"(\\*)'", r"\1\1\\'", item)) + "'"
        if isinstance(item, list):
            return "[" + ",".join(quoted(entry) for entry in item) + "]"
        if isinstance(item, dict):
            return "{" + ",".join(f"{key}: {quoted(entry)}" for key, entry in item.items()) + "}"
        return json.dumps(item)

    assert parse_value(quoted(value)) == value


def test_plus_lets_an_unknown_key_through_with_a_note():
    spec = load_spec(RtdetrSpec, {}, ["+foo.bar=1", "+evaluate.batch_size=2", "++inference.batch_size=3"])
    assert (spec.evaluate.batch_size, spec.inference.batch_size) == (2, 3)
    assert [note for note in spec.notes if "foo.bar" in note]
    with pytest.raises(SpecError, match="unknown key"):
        load_spec(RtdetrSpec, {}, ["foo.bar=1"])


def test_tilde_removes_a_key():
    assert load_spec(RtdetrSpec, {"evaluate": {"batch_size": 2}}, ["~evaluate.batch_size"]).evaluate.batch_size == -1
    with pytest.raises(SpecError, match="no key"):
        load_spec(RtdetrSpec, {"evaluate": {}}, ["~evaluate.batch_size"])


def test_blocks_merge_and_lists_are_replaced():
    source = {"inference": {"color_map": {"a": "red"}}, "dataset": {"eval_class_ids": [1, 2, 3]}}
    spec = load_spec(
        RtdetrSpec,
        source,
        ["inference.color_map={b: blue}", "inference.color_map.c=green", "dataset.eval_class_ids=[4]"],
    )
    assert spec.inference.color_map == {"a": "red", "b": "blue", "c": "green"}
    assert spec.dataset.eval_class_ids == [4]


def test_list_elements_can_be_set():
    source = {"cost_function_config": {"target_classes": [{"name": "a"}, {"name": "b"}]}}
    for key in ("target_classes[1].name", "target_classes.1.name"):
        spec = load_spec(DetectnetSpec, source, [f"cost_function_config.{key}=c"])
        assert [item.name for item in spec.cost_function_config.target_classes] == ["a", "c"]
    with pytest.raises(SpecError, match="no element 2"):
        load_spec(DetectnetSpec, source, ["cost_function_config.target_classes[2].name=c"])
