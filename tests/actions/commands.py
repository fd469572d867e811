"""Running a command in this process, and reading what it left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from nvidia_tao_deploy.cli.main import main


class Shell:
    """Runs ``main`` as a shell would and keeps what was printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: object) -> int:
        self._capsys.readouterr()
        code = main([str(word) for word in words])
        self.out, self.err = self._capsys.readouterr()
        return code

    def refused(self, code: int, *words: object) -> str:
        """Run a command that must fail with ``code``; the message, which must not be a traceback."""
        assert self(*words) == code, self.out + self.err
        assert "Traceback" not in self.err
        assert "Internal error" not in self.err
        return self.err


def write_spec(path: Path, content: dict[str, Any]) -> Path:
    """``content`` as a YAML file."""
    path.write_text(yaml.safe_dump(content))
    return path


def status(folder: Path) -> list[dict[str, Any]]:
    """The records of status.json."""
    return [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]
