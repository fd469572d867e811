"""Scripts of a fresh clone, run as a user would: no PYTHONPATH, nothing installed from here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT


@pytest.mark.parametrize("folder", [ROOT, Path("/")])
def test_verify_gpu_starts_from_anywhere(folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, str(ROOT / "scripts" / "verify_gpu.py"), "--help"]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--calibrators" in done.stdout
