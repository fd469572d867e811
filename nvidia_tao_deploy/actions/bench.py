"""The bench of ``diagnose``: a model with any set of its layers quantized, measured by the task's metric."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.actions.calibrate import find_scales
from nvidia_tao_deploy.actions.measure import (
    Headline,
    Subset,
    headline,
    lacks,
    numbers_of,
    precisions_of,
    scalars_of,
    taken,
)
from nvidia_tao_deploy.actions.prepare import float_globs, images_of, prepare
from nvidia_tao_deploy.data.sample import called
from nvidia_tao_deploy.errors import ModelError, SpecError
from nvidia_tao_deploy.files import write_json
from nvidia_tao_deploy.network import Network
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.stream import Tally, run_stream

if TYPE_CHECKING:
    from onnx import ModelProto

STATE = "diagnose_state.json"
ERROR_BATCHES = 2  # calibration batches for tensor errors


class Bench:
    """Measures the model with any set of its layers quantized; whatever was found out is kept in the state file.

    Attributes:
        precision: the quantized type.
        methods: calibration methods to choose from.
        method: the one in use.
        names: layers that can be quantized, in graph order, as the ONNX file names them.
        dataset: part of the evaluation set, without the images of the calibration where there are others.
    """

    def __init__(self, network: Network, base: Any, folder: Path) -> None:
        """Load the model, find its scales, and take up an earlier run's measurements where they fit.

        Raises:
            SpecError: the network has no such precision, or the spec names nothing to calibrate with.
            ModelError: no layer of the model can be quantized, or it is quantized already.
        """
        from nvidia_tao_deploy.engine.backend import choose_runtime
        from nvidia_tao_deploy.graph.quantize import quantizable_tensors, quantize
        from nvidia_tao_deploy.graph.verify import is_quantized

        self._began, self.precision = time.monotonic(), str(base.diagnose.precision)
        self._network, self._spec = network, base.model_copy(deep=True)
        self._spec.evaluate.trt_engine = self._spec.evaluate.results_dir = None  # measurements depend on neither
        options, given = self._spec.gen_trt_engine.tensorrt, Path(base.require("gen_trt_engine.onnx_file"))
        parts = [*network.sources(given).values()]
        if given not in parts:
            raise SpecError(
                f"{given} stands for {' and '.join(map(str, parts))}, and one file is diagnosed at a time",
                where=base.where("gen_trt_engine.onnx_file"),
                remedy=f"Name one of them, e.g. gen_trt_engine.onnx_file={parts[0]}; the other stays in float.",
            )
        if self.precision not in precisions_of(base):
            raise lacks(network, base, [self.precision], "diagnose.precision")
        # The graph as it is before quantization: the same passes, in fp32. The layers' own wishes come later.
        wishes = dict(entry.rsplit(":", 1) for entry in options.layers_precision)
        options.data_type, options.layers_precision = "fp32", []
        self._prepared = prepare(network, self._spec, choose_runtime(options.runtime))
        self._model = self._prepared.model
        if is_quantized(self._model):
            raise ModelError("the model carries its own quantization", remedy="Diagnose the float export instead.")
        options.data_type = self.precision
        calibration = options.calibration
        if calibration.cal_cache_file and not Path(calibration.cal_cache_file).is_file():
            calibration.cal_cache_file = None  # read here, never written
        own = [glob for glob, wish in wishes.items() if wish != self.precision]
        self._keep = dict.fromkeys((*float_globs(), *own), "fp32")
        self._tensors = quantizable_tensors(self._model, precision=self.precision, layers=self._keep)
        self._images = self._prepared.images = images_of(network, self._spec, self._prepared)
        self.methods = _methods(self._spec)
        self.method = self.methods[0]
        self._whole = network.dataset(self._spec, "evaluate")
        used = {path for sample in self._images.samples for path in sample.paths} if self._images else set()
        self.dataset = Subset(self._whole, self._spec.diagnose.subset, used, references=True)
        if not self.dataset.held_out:
            say(f"note: all {called(self._whole)} of the evaluation set were calibrated on too: losses may look small")
        self._state_file, self._key = folder / STATE, self._state_key()
        self._scales: dict[str, dict[str, float]] = {}
        self._metrics: dict[str, dict[str, float]] = {}
        self._errors: dict[str, float] = {}
        self._resume()
        scales = self._calibrated()
        self.names = quantize(self._model, scales, precision=self.precision, layers=self._keep).quantized_nodes
        if not self.names:
            place = str(self._spec.where("gen_trt_engine.onnx_file"))
            raise ModelError(f"no layer of the model can be {self.precision}", where=place)

    def spent(self, share: float = 1.0) -> bool:
        """Whether so much of ``diagnose.budget_minutes`` is over."""
        return bool(time.monotonic() - self._began >= share * 60 * self._spec.diagnose.budget_minutes)

    @property
    def decides(self) -> Headline:
        """The deciding number."""
        return headline(self._numbers(()), self._spec.diagnose, self._spec.where("diagnose.metric"))

    def metric(self, quantized: Sequence[str]) -> float:
        """The deciding number on the subset with exactly these layers quantized."""
        return scalars_of(self._numbers(quantized)).get(self.decides.key, float("nan"))

    def loss(self, quantized: Sequence[str]) -> float:
        """What is lost with exactly these layers quantized, percent of fp32; all where the metric is undefined."""
        value = self.metric(quantized)
        return self.decides.loss(self.metric(()), value) if np.isfinite(value) else 100.0

    def knows(self, quantized: Sequence[str]) -> bool:
        """Whether this set was measured before."""
        return self._id(quantized) in self._metrics

    def error(self, name: str) -> float | None:
        """Error of the model's outputs with this layer alone quantized: 1 - cosine of the worst output.

        None where there are no calibration images.
        """
        from nvidia_tao_deploy.graph.parity import compare
        from nvidia_tao_deploy.graph.runnable import runnable

        key = self._id((name,))
        if key not in self._errors and self._images is not None:
            parity = compare(runnable(self._model), runnable(self._variant((name,))), self._batches)
            self._errors[key] = max(0.0, 1.0 - parity.worst_cosine)
            self._save()
        return self._errors.get(key)

    @cached_property
    def _batches(self) -> list[dict[str, NDArray[Any]]]:
        return list(islice(self._images.batches(), ERROR_BATCHES)) if self._images else []

    def _calibrated(self) -> Mapping[str, float]:
        """Scales by tensor of the method in use."""
        from nvidia_tao_deploy.graph.runnable import runnable

        if self.method not in self._scales:
            calibration = self._spec.gen_trt_engine.tensorrt.calibration
            calibration.method = self.method
            if len(self.methods) > 1:
                calibration.cal_cache_file = None  # holds the ranges of one method
            model = runnable(self._model)
            self._scales[self.method], _ = find_scales(self._spec, self._prepared, model, self._tensors, (10, 16, 1))
            self._save()
        return self._scales[self.method]

    def _variant(self, quantized: Sequence[str]) -> ModelProto:
        """The graph with exactly these layers quantized."""
        from nvidia_tao_deploy.graph.quantize import quantize

        if not quantized:
            return self._model
        out = dict.fromkeys(set(self.names) - set(quantized), "fp32")
        scales = self._calibrated()
        return quantize(self._model, scales, precision=self.precision, layers=self._keep | out).model

    def _numbers(self, quantized: Sequence[str]) -> Mapping[str, float]:
        name = self._id(quantized)
        if name not in self._metrics:
            self._metrics[name] = self._evaluate(self._variant(quantized))
            self._save()
        return self._metrics[name]

    def _evaluate(self, model: ModelProto) -> dict[str, float]:
        from nvidia_tao_deploy.runtime.open import open_session

        spec, network = self._spec, self._network
        with TemporaryDirectory(prefix="tao_deploy_") as folder:
            spec.evaluate.results_dir = folder  # some metrics write files: here they are of no use
            metric = network.metric(spec, self._whole)
            source = Path(spec.gen_trt_engine.onnx_file)
            path = Path(folder) / source.name
            if len(network.sources(source)) > 1:  # the other part stays as it is, with whatever it stands beside
                for other in source.absolute().parent.iterdir():
                    (Path(folder) / other.name).symlink_to(other)
                path.unlink()
            path.write_bytes(model.SerializeToString())
            opened = partial(
                open_session, providers=spec.runtime.providers, provider_options=spec.runtime.provider_options
            )
            spec.evaluate.trt_engine = str(path)
            session = network.open(spec, "evaluate", opened)
            try:
                ports, tally = network.bound(session.inputs, session.outputs, source), Tally()
                for sample, prediction in run_stream(
                    self.dataset,
                    network.transform(spec, ports),
                    session,
                    ports,
                    network.decode(spec, ports, "evaluate"),
                    batch_size=max(1, network.batch_size(spec, "evaluate")),
                    workers=spec.runtime.workers,
                    strict=spec.strict,
                    tally=tally,
                ):
                    taken(metric, sample, prediction, tally, strict=spec.strict)
            finally:
                session.close()
            return scalars_of(numbers_of(metric))

    def _id(self, quantized: Sequence[str]) -> str:
        """A name for a set of quantized layers."""
        return hashlib.sha256(json.dumps([self.method if quantized else "", *sorted(quantized)]).encode()).hexdigest()

    def _state_key(self) -> str:
        """A name for everything that measurements depend on."""
        from nvidia_tao_deploy.calibration.provenance import hash_file, hash_images

        options = self._spec.gen_trt_engine.tensorrt.calibration
        cache = options.cal_cache_file
        facts = [
            *map(hash_file, self._network.sources(Path(self._spec.gen_trt_engine.onnx_file)).values()),
            self._prepared.transform.describe(),
            self._tensors,
            [str(self.dataset[index].id) for index in range(len(self.dataset))],
            hash_images(path for sample in self._images.samples for path in sample.paths) if self._images else "",
            hash_file(Path(cache)) if cache else "",
            options.model_dump(mode="json", exclude={"method", "max_metric_drop"}),
            self._spec.model_dump(
                mode="json",
                exclude={"results_dir", "gen_trt_engine", "diagnose", "compare", "inference", "encryption_key"},
            ),
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _resume(self) -> None:
        """Take up the measurements of an earlier run of the same model, data and settings."""
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
            if state["key"] != self._key:
                say(f"note: {self._state_file} is of another model, data or setting; starting anew")
                return
            self._scales, self._metrics, self._errors = state["scales"], state["metrics"], state["errors"]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            say(f"note: {self._state_file} cannot be read; starting anew")
            return
        say(f"{len(self._metrics)} measurements taken up from {self._state_file}")

    def _save(self) -> None:
        state = {"key": self._key, "scales": self._scales, "metrics": self._metrics, "errors": self._errors}
        write_json(self._state_file, state, indent=None)


def _methods(spec: Any) -> list[str]:
    """``diagnose.methods``; else every one, unless the spec names one or has scales that need none."""
    from nvidia_tao_deploy.calibration.ranges import METHODS

    options = spec.gen_trt_engine.tensorrt.calibration
    if spec.diagnose.methods:
        return list(spec.diagnose.methods)
    settled = "method" in options.model_fields_set or options.cal_cache_file or options.cal_json_file or options.qat
    return [options.method] if settled else [options.method, *(name for name in METHODS if name != options.method)]
