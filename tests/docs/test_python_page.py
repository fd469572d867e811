"""docs/python.md: its examples run as they stand."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from repository import MODELS, ROOT


def test_the_examples_run(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digits, tmp_path / "digits")
    shutil.copy(MODELS / "classification_pyt.onnx", tmp_path)
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), {})
    assert Path("engines/digits.engine").is_file()
    assert Path("results/trt_inference/result.csv").is_file()
    assert "(2, 10)" in capsys.readouterr().out
