"""docs/adding_a_network.md is true: the network it describes is built from the page and runs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from actions.commands import Shell
from onnx import TensorProto, helper
from PIL import Image
from repository import ROOT

from nvidia_tao_deploy import networks

PAGE = (ROOT / "docs" / "adding_a_network.md").read_text()


def listing(name: str) -> str:
    """The fenced block that follows a line naming a file."""
    found = re.search(rf"^`{re.escape(name)}`:\n\n```\w+\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found, f"the page has no listing of {name}"
    return found[1]


def test_the_network_of_the_page_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("digit_sum/spec.py", "digit_sum/__init__.py", "digit_sum.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(listing(name))
    entry = re.search(r"^\"digit_sum\": (Entry\(.*\)),$", PAGE, re.MULTILINE)
    assert entry
    module, title = re.findall(r'"([^"]*)"', entry[1])
    monkeypatch.setitem(networks.NETWORKS, "digit_sum", networks.Entry(module, title))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["brightness"]),
    ]
    ends = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 16, 16]),
        helper.make_tensor_value_info("brightness", TensorProto.FLOAT, ["n", 1]),
    ]
    graph = helper.make_graph(nodes, "digit_sum", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "digit_sum.onnx")
    (tmp_path / "images").mkdir()
    labels = {}
    for number, level in enumerate([0, 51, 102, 255, 255, 0, 51, 204, 153]):
        Image.fromarray(np.full((20 + number, 30, 3), level, np.uint8)).save(tmp_path / "images" / f"{number}.png")
        labels[f"{number}.png"] = level / 255
    (tmp_path / "labels.csv").write_text("".join(f"{name},{value}\n" for name, value in labels.items()))
    shell = Shell(capsys)
    try:
        assert shell("digit_sum", "gen_trt_engine", "-e", "digit_sum.yaml") == 0, shell.err
        assert Path("digit_sum.engine").is_file()
        assert shell("digit_sum", "evaluate", "-e", "digit_sum.yaml", "--json") == 0, shell.err
        results = json.loads(shell.out)
        assert results["mean_error"] == pytest.approx(0, abs=1e-5)
        assert results["images_evaluated"] == 9
        assert shell("digit_sum", "inference", "-e", "digit_sum.yaml") == 0, shell.err
        written = Path("results/trt_inference/brightness.csv").read_text().splitlines()
        assert written == [f"{name},{value:.3f}" for name, value in labels.items()]
        message = shell.refused(2, "digit_sum", "evaluate", "-e", "digit_sum.yaml", "dataset.image_dir=x")
        assert "images_dir" in message
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "digit_sum"]:
            del sys.modules[name]
