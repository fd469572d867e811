"""The example specs of the segmentation networks load without a note."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from nvidia_tao_deploy.spec.load import load_spec

SPECS = Path(__file__).parents[3] / "specs"
FILES = [
    path for name in ("unet", "segformer", "mask2former", "oneformer") for path in sorted((SPECS / name).glob("*"))
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_example_specs_load(path: Path) -> None:
    module = importlib.import_module(f"nvidia_tao_deploy.cv.{path.parent.name}.spec")
    assert load_spec(module.Spec, path).notes == []
