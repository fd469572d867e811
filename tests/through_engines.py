"""Whole commands by way of engines: a test's ONNX file is built, and the engine runs in its place.

    python -m pytest tests/cv tests/multimodal --through-engines tensorrt     # needs a GPU

The tests' own right answers then hold for the engine: names, shapes and types of the tensors, profiles, plugins and
numbers, for every network. Where no GPU is, ``--through-engines tensorrt_rtx`` builds and runs the prepared graph.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import nvidia_tao_deploy.actions.model as model
from nvidia_tao_deploy.actions import evaluate, inference
from nvidia_tao_deploy.actions.gen_trt_engine import gen_trt_engine
from nvidia_tao_deploy.network import Network
from nvidia_tao_deploy.runtime.session import Session


class Engines:
    """Builds fp32 engines, each once."""

    def __init__(self, folder: Path, runtime: str) -> None:
        self._folder, self._runtime = folder, runtime
        self._built: dict[str, Path] = {}
        self.used: Counter[str] = Counter()  # runs, by network and action

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let evaluate and inference open engines."""
        opened, open_session = model.opened, model.open_session

        def watched(network: Network, spec: Any, action: str, *more: Any) -> Any:
            def instead(path: Path, **options: Any) -> Session:
                if path.suffix == ".onnx" and path.is_file() and not path.name.endswith(".engine.onnx"):  # prepared
                    path = self._engine(network, spec, action, path)
                return open_session(path, **options)

            patch.setattr(model, "open_session", instead)
            return opened(network, spec, action, *more)

        for module in (evaluate, inference):
            patch.setattr(module, "opened", watched)

    def _engine(self, network: Network, spec: Any, action: str, path: Path) -> Path:
        batch = max(8, network.batch_size(spec, action))
        known = repr((network.name, batch, getattr(spec, "model", None))).encode() + path.read_bytes()
        key = hashlib.sha256(known).hexdigest()[:16]
        if key not in self._built:
            build = spec.model_copy(deep=True)
            build.results_dir = str(self._folder / key)
            section = build.gen_trt_engine
            section.onnx_file, section.trt_engine = str(path), str(self._folder / key / f"{network.name}.engine")
            section.results_dir = None
            section.timing_cache = str(self._folder / "timing") if self._runtime == "tensorrt" else None
            section.gpu_id, section.gpu_ids, section.num_gpus = 0, [0], 1
            options = section.tensorrt
            options.runtime, options.data_type, options.layers_precision = self._runtime, "fp32", []
            options.min_batch_size, options.opt_batch_size, options.max_batch_size = 1, batch, batch
            options.calibration.cal_image_dir = []
            with contextlib.redirect_stdout(io.StringIO()):
                built = gen_trt_engine(network, build)
            self._built[key] = Path(built["engine" if self._runtime == "tensorrt" else "prepared_onnx"])
        self.used[f"{network.name} {action}"] += 1
        return self._built[key]

    def __str__(self) -> str:
        runs = ", ".join(f"{name} {count}" for name, count in sorted(self.used.items()))
        return f"{len(self._built)} engines built by {self._runtime}; runs of them: {runs}"
