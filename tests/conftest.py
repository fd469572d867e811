"""Sample data for the tests that run whole commands: made once per session, a small part of what the demo uses."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

sys.path.insert(0, str(ROOT))  # the samples package is not installed
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs start so; the tests of Ctrl-C, and what they start, would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ENGINES = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--through-engines", metavar="RUNTIME", help="see tests/through_engines.py")


@pytest.fixture(scope="session")
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What builds the engines, where they are asked for."""
    runtime = request.config.getoption("--through-engines")
    if not runtime:
        return None
    from through_engines import Engines

    request.config.stash[ENGINES] = Engines(tmp_path_factory.mktemp("engines"), runtime)
    return request.config.stash[ENGINES]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if ENGINES in config.stash:
        terminalreporter.write_line(str(config.stash[ENGINES]))


@pytest.fixture(autouse=True)
def _through_engines(engines: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if engines is not None:
        if request.node.get_closest_marker("onnx_file"):
            pytest.skip("about what is said of an ONNX file")
        engines.install(monkeypatch)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """classes.txt, test/<class>/*.png, calibration/<class>/*.png."""
    from samples.data import write_digits

    out = tmp_path_factory.mktemp("data")
    return write_digits(out, test=60, calibration=20)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(COCO folder, KITTI folder) of the same scenes."""
    from samples.data import write_scenes

    out = tmp_path_factory.mktemp("scenes")
    return write_scenes(out, test=24, calibration=16)
