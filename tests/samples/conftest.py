"""The example specs that users copy, on a small part of the sample data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from actions.commands import Shell
from repository import MODELS, ROOT


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="session")
def scene_masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from samples.mask_data import write_scene_masks

    return write_scene_masks(tmp_path_factory.mktemp("masks"), test=24, calibration=16)


@pytest.fixture
def example(scenes: tuple[Path, Path], scene_masks: Path, tmp_path: Path) -> Callable[..., list[object]]:
    """(network, action, overrides, model=) -> the words of the command; results are written below ``tmp_path``."""
    folders = {"scenes_coco": scenes[0], "scenes_kitti": scenes[1], "scenes_masks": scene_masks}

    def words(network: str, action: str, *overrides: str, model: Path | None = None) -> list[object]:
        text = (ROOT / "specs" / network / f"{action}.yaml").read_text()
        for name, folder in folders.items():
            text = text.replace(f"demo/data/{name}", str(folder))
        path = tmp_path / f"{network}_{action}.yaml"
        path.write_text(text.replace("demo/", f"{tmp_path}/").replace("samples/models", str(MODELS)))
        named = [] if action == "gen_trt_engine" else [f"{action}.trt_engine={model or MODELS / f'{network}.onnx'}"]
        return [network, action, "-e", path, *named, *overrides]

    return words
