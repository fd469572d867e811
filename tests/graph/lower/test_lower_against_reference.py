"""Every plugin, lowered and run on ONNX Runtime, against plain loops that follow its description."""

from __future__ import annotations

import numpy as np
import plugin_graph
import pytest
from plugin_reference import REFERENCE

CASES = [
    case
    for family, make in plugin_graph.recorder().FAMILIES.items()
    for case in make()
    if case.op in REFERENCE and not case.name.endswith("_all_inputs")
]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.op}-{case.name}" for case in CASES])
def test_lowered_plugin_equals_its_description(case) -> None:
    model = plugin_graph.plugin_model(case.op, case.attrs, case.inputs, case.outputs, case.constants)
    got = plugin_graph.run_onnx(plugin_graph.lower_checked(model), case.inputs)
    expected = REFERENCE[case.op](case.attrs, *case.inputs.values())
    for name, actual, wanted in zip(case.outputs, got, expected, strict=True):
        assert actual.dtype == wanted.dtype, name
        np.testing.assert_allclose(actual, wanted, rtol=2e-5, atol=2e-5, err_msg=name)
