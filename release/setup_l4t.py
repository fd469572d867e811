"""The slim wheel for Jetson: setup.py's package with docker/requirements-l4t.txt as dependencies, tagged linux_aarch64.

``python release/setup_l4t.py bdist_wheel``; everything else comes from setup.py, so the two cannot drift apart.
"""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path
from typing import Any

import setuptools

TOP = Path(__file__).resolve().parents[1]
# What JetPack brings or what has no aarch64 wheel.
LEFT_OUT = ("rtx", "tensorrt")


def requirements(path: Path) -> list[str]:
    """The requirements of a file, without comments."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def l4t_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """``settings`` of setup.py changed for L4T."""
    extras = {name: value for name, value in settings.get("extras_require", {}).items() if name not in LEFT_OUT}
    return {
        **settings,
        "install_requires": requirements(TOP / "docker" / "requirements-l4t.txt"),
        "extras_require": extras,
        "options": {"bdist_wheel": {"plat_name": "linux_aarch64"}},
    }


def main() -> None:
    """Run setup.py with the changed settings."""
    os.chdir(TOP)
    real = setuptools.setup
    settings: dict[str, Any] = {}
    setuptools.setup = settings.update
    try:
        runpy.run_path("setup.py")
    finally:
        setuptools.setup = real
    setuptools.setup(**l4t_settings(settings))


if __name__ == "__main__":
    main()
