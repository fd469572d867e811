"""Tests by way of engines, which a GPU machine runs by hand: here the way itself, with the graphs as prepared."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from repository import ROOT


def test_a_networks_tests_run_from_what_was_built() -> None:
    pytest.importorskip("tensorrt_rtx")
    words = [
        "tests/cv/points/test_pointpillars_commands.py",
        "-k",
        "test_evaluate",
        "--through-engines",
        "tensorrt_rtx",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    told = re.search(r"(\d+) engines built by tensorrt_rtx; runs of them: pointpillars evaluate (\d+)", done.stdout)
    assert told is not None
    assert int(told[1]) == int(told[2]) == int(re.search(r"(\d+) passed", done.stdout)[1])  # type: ignore[index]
