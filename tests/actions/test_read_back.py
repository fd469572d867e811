"""What a build says its engine holds, when the engine tells, tells nothing, or tells something else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nvidia_tao_deploy.actions.gen_trt_engine import _verified
from nvidia_tao_deploy.errors import BuildError

COUNTS = {"fp16": 8, "total": 8}


def verified(layers: dict[str, int] | None, opaque: int = 0) -> dict[str, Any]:
    info: Any = SimpleNamespace(layer_precisions=layers, opaque_layers=opaque)
    return _verified("fp16", info, COUNTS, implicit=False, where=Path("m.onnx"))


def test_an_engine_that_tells_is_believed(capsys: pytest.CaptureFixture[str]) -> None:
    assert verified({"fp16": 7, "fp32": 1, "other": 2})["source"] == "engine"
    assert "In the engine: fp16: 7 of 8" in capsys.readouterr().out


@pytest.mark.parametrize("layers", [None, {}, {"other": 54}])
def test_an_engine_that_does_not_tell_leaves_it_to_the_graph(layers: dict[str, int] | None) -> None:
    """TensorRT 8.5.3.1 answered "N/A due to dynamic shapes" for every layer."""
    assert verified(layers) == {"source": "prepared graph", **COUNTS}


def test_an_engine_without_what_was_asked_for_fails_the_build() -> None:
    with pytest.raises(BuildError, match="fp16 was asked for"):
        verified({"fp32": 8})
    assert verified({"fp32": 8}, opaque=1)["compiled_layers"] == 1
