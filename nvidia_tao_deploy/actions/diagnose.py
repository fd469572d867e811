"""diagnose: which layers lose the accuracy of a quantized model by the task's metric, and which to keep in float."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from nvidia_tao_deploy.actions.calibrate import CalibrationImages, find_scales
from nvidia_tao_deploy.actions.measure import Headline, Subset, headline, scalars_of
from nvidia_tao_deploy.actions.prepare import prepare
from nvidia_tao_deploy.actions.run import started
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import BuildError, DataError, ModelError, SpecError
from nvidia_tao_deploy.files import plain, write_json, write_text
from nvidia_tao_deploy.network import Network
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.stream import run_stream
from nvidia_tao_deploy.report import html

if TYPE_CHECKING:
    from onnx import ModelProto

    from nvidia_tao_deploy.spec.sections import NetworkSpec

STATE = "diagnose_state.json"
ERROR_BATCHES = 2  # calibration batches for the pre-ranking
# The search for the mix needs part of the time: the layers' own measurements end here.
RANKING_SHARE = 0.7


def diagnose(
    network: Network,
    source: Path | str | Mapping[str, Any] | NetworkSpec,
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Rank the layers by what quantizing each alone costs, and find the mixed precision that keeps the metric.

    Everything is run with ONNX Runtime on a part of the evaluation set. ``diagnose.json`` and ``diagnose.html`` stand
    in the results folder. A run that its budget or an interrupt ended goes on from ``diagnose_state.json``.

    Args:
        network: which network.
        source: spec file, mapping, or typed spec.
        overrides: ``key=value`` entries over the spec.
        flags: values of the established command-line flags, by spec key.

    Returns:
        What diagnose.json holds; ``layers_precision`` is ready for ``gen_trt_engine.tensorrt``.

    Raises:
        TaoDeployError: anything the user can mend.
    """
    with started(network, "diagnose", source, overrides, flags) as run:
        section = run.spec.diagnose
        found = mixed_precision(network, run.spec, run.folder, section.max_metric_drop)
        report = dict(plain({"network": network.name, **found}))
        write_json(run.folder / "diagnose.json", report)
        write_text(run.folder / "diagnose.html", _page(report))
        for line in report["summary"]:
            say(line)
        say(f"Report: {run.folder / 'diagnose.html'}")
        return report


def mixed_precision(network: Network, spec: Any, folder: Path, max_metric_drop: float) -> dict[str, Any]:
    """Rank the layers and find the largest set of them that may be quantized.

    Args:
        network: which network.
        spec: its typed spec; the ``diagnose`` section sets subset, time, and the precision of what is kept out.
        folder: where the state file stands.
        max_metric_drop: percent of the fp32 value on the subset.

    Returns:
        The report: ``fp32``, ``quantized`` and ``mixed`` values of the deciding metric with their losses in percent,
        ``layers`` ranked, ``layers_precision``, ``within_budget``, ``finished`` and ``summary``.

    Raises:
        DataError: fp32 has no metric value on the subset, so nothing can be compared.
        ModelError: no layer of the model can be quantized.
    """
    clock = _Clock(spec.diagnose.budget_minutes * 60)
    bench = _Bench.prepared(network, spec, folder)
    names = bench.names
    say(f"{len(names)} layers can be {bench.precision}; measuring on {len(bench.dataset)} images")
    reference = bench.metric(())
    if not np.isfinite(reference) or reference == 0:
        raise DataError(
            f"{bench.decides.key} of fp32 is {reference} on the subset, so no loss can be measured against it",
            remedy="Set diagnose.subset higher, or check the model with evaluate first.",
        )
    loss = bench.loss
    methods = _best_method(bench, clock)
    whole = bench.metric(names)
    errors = bench.errors(clock, names)
    order = sorted(names, key=lambda name: -errors.get(name, 0.0))
    alone: dict[str, float] = {}
    for count, name in enumerate(order, 1):
        if clock.spent(RANKING_SHARE) and not bench.knows((name,)):
            continue
        alone[name] = loss(bench.metric((name,)))
        say(f"{count} of {len(order)}: {name} alone in {bench.precision}: loss {alone[name]:.2f} %")
    ranked = sorted(order, key=lambda name: (name in alone, alone.get(name, 0.0), errors.get(name, 0.0)), reverse=True)
    kept, ended = _search(bench, ranked, max_metric_drop, clock)
    mixed = bench.metric([name for name in names if name not in kept])
    finished = len(alone) == len(names) and not ended
    layers = [
        {
            "name": name,
            "loss_percent": alone.get(name),
            "tensor_error": errors.get(name),
            "kept_in_float": name in kept,
        }
        for name in ranked
    ]
    within = bool(loss(mixed) <= max_metric_drop)
    result = {
        "metric": bench.decides.key,
        "precision": bench.precision,
        "images": len(bench.dataset),
        "max_metric_drop": max_metric_drop,
        "calibration_method": bench.method,
        "loss_percent_by_method": methods,
        "fp32": reference,
        "quantized": {"value": whole, "loss_percent": loss(whole), "layers": len(names)},
        "mixed": {"value": mixed, "loss_percent": loss(mixed), "layers": len(names) - len(kept)},
        "within_budget": within,
        "finished": finished,
        "layers": layers,
        "layers_precision": [f"{name}:{spec.diagnose.keep_in}" for name in ranked if name in kept],
    }
    return {**result, "summary": _summary(result, alone)}


def keep_within(network: Network, spec: Any, folder: Path) -> list[str]:
    """The ``layers_precision`` with which a quantized build keeps ``calibration.max_metric_drop``.

    The layers the spec names keep their own precision; those found are added. Where ``diagnose.methods`` names some,
    the spec's calibration method becomes the best of them. ``diagnose.json`` and ``diagnose.html``
    are written into ``folder``.

    Raises:
        SpecError: the calibration mode leaves no choice of layers.
        BuildError: no layer can be quantized within the limit in the time there is.
        DataError, ModelError: see :func:`mixed_precision`.
    """
    options = spec.gen_trt_engine.tensorrt
    key = "gen_trt_engine.tensorrt.calibration.max_metric_drop"
    if options.calibration.mode == "implicit":
        raise SpecError(
            "max_metric_drop chooses among Q/DQ nodes, and calibration mode implicit has none",
            where=spec.where(key),
            remedy="Set calibration.mode to explicit, or leave max_metric_drop out.",
        )
    asked = spec.model_copy(deep=True)
    asked.diagnose.precision = options.data_type
    found = dict(plain(mixed_precision(network, asked, folder, options.calibration.max_metric_drop)))
    report = {"network": network.name, **found}
    write_json(folder / "diagnose.json", report)
    write_text(folder / "diagnose.html", _page(report))
    for line in found["summary"]:
        say(line)
    if asked.diagnose.methods:
        options.calibration.method = found["calibration_method"]
    if not found["mixed"]["layers"]:
        raise BuildError(
            f"no layer was found that can be {options.data_type} with a loss of at most {found['max_metric_drop']} %",
            where=spec.where(key),
            remedy="Allow more loss, give diagnose.budget_minutes more time, or build in fp16.",
        )
    return [*options.layers_precision, *found["layers_precision"]]


def smallest_prefix(count: int, fits: Callable[[int], bool | None]) -> int:
    """The smallest k in 0..count with ``fits(k)``, by doubling and bisection; ``count`` where none is known to fit.

    Args:
        count: largest k.
        fits: taken to stay true once it is true; None: no time left, and what is known so far decides.
    """
    low, high = 0, 0  # everything below `low` does not fit
    while True:
        answer = fits(high)
        if answer:
            break
        if answer is None or high == count:
            return count
        low, high = high + 1, min(count, max(1, 2 * high))
    while low < high:
        middle = (low + high) // 2
        answer = fits(middle)
        if answer is None:
            break
        low, high = (low, middle) if answer else (middle + 1, high)
    return high


def _best_method(bench: _Bench, clock: _Clock) -> dict[str, float]:
    """Loss in percent with all layers quantized, by calibration method; ``bench`` goes on with the best of them."""
    losses: dict[str, float] = {}
    for method in bench.calibrations:
        bench.method = method
        if losses and clock.spent(RANKING_SHARE / 2) and not bench.knows(bench.names):
            continue
        losses[method] = bench.loss(bench.metric(bench.names))
        say(f"all layers in {bench.precision}, calibrated by {method}: loss {losses[method]:.2f} %")
    bench.method = min(losses, key=losses.__getitem__)
    return losses


def _search(bench: _Bench, ranked: Sequence[str], limit: float, clock: _Clock) -> tuple[set[str], bool]:
    """(layers to keep in float, whether time ran out): the worst ones first, then each is tried in int8 once more."""
    ended = False

    def fits_without(kept: Iterable[str]) -> bool | None:
        nonlocal ended
        left = set(kept)
        quantized = [name for name in bench.names if name not in left]
        if clock.spent() and not bench.knows(quantized):
            ended = True
            return None
        return bool(bench.loss(bench.metric(quantized)) <= limit)

    def fits(count: int) -> bool | None:
        answer = fits_without(ranked[:count])
        if answer is not None:
            say(f"{count} layers in float: {'within' if answer else 'over'} the budget of {limit} %")
        return answer

    kept = list(ranked[: smallest_prefix(len(ranked), fits)])
    for name in reversed(kept.copy()):  # the mildest first: it stood in the way of none, perhaps
        fewer = [other for other in kept if other != name]
        if fits_without(fewer):
            kept = fewer
    return set(kept), ended


@dataclass
class _Clock:
    """Time that may be spent, in seconds."""

    budget: float
    began: float = field(default_factory=time.monotonic)

    def spent(self, share: float = 1.0) -> bool:
        return time.monotonic() - self.began >= share * self.budget


@dataclass
class _Bench:
    """Measures the model with any set of its layers quantized; every measurement is kept in the state file."""

    network: Network
    spec: Any
    precision: str
    model: ModelProto
    calibrations: Mapping[str, Mapping[str, float]]
    method: str
    keep: tuple[str, ...]
    names: list[str]
    images: CalibrationImages | None
    dataset: Subset
    whole: Dataset
    state_file: Path
    key: str
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    known_errors: dict[str, float] = field(default_factory=dict)
    chosen: Headline | None = None

    @classmethod
    def prepared(cls, network: Network, base: Any, folder: Path) -> _Bench:
        """Load the model, find its scales, and take up an earlier run's measurements where they fit."""
        from nvidia_tao_deploy.actions.prepare import float_globs
        from nvidia_tao_deploy.calibration.provenance import hash_file
        from nvidia_tao_deploy.engine.backend import choose_runtime
        from nvidia_tao_deploy.graph.quantize import is_quantized, quantizable_tensors, quantize
        from nvidia_tao_deploy.graph.runnable import runnable

        precision = base.diagnose.precision
        spec = base.model_copy(deep=True)
        options = spec.gen_trt_engine.tensorrt
        # The graph as it is before quantization: the same passes, in fp32. The layers' own wishes come later.
        layers = dict(entry.rsplit(":", 1) for entry in options.layers_precision)
        options.data_type, options.layers_precision = "fp32", []
        prepared = prepare(network, spec, choose_runtime(options.runtime))
        if is_quantized(prepared.model):
            raise ModelError("the model carries its own quantization", remedy="Diagnose the float export instead.")
        options.data_type = precision
        options.calibration.cal_cache_file = _existing(options.calibration.cal_cache_file)
        keep = (*float_globs(), *(glob for glob, wish in layers.items() if wish != precision))
        tensors = quantizable_tensors(prepared.model, precision=precision, keep_nodes=keep)
        images = _calibration_images(network, spec, prepared)
        calibrations: dict[str, Mapping[str, float]] = {}
        for method in spec.diagnose.methods or [options.calibration.method]:
            if spec.diagnose.methods:  # a cache holds the ranges of one method
                options.calibration.method, options.calibration.cal_cache_file = method, None
            calibrations[method] = find_scales(
                spec, runnable(prepared.model), tensors, prepared.ports, prepared.transform, images, (10, 16, 1)
            ).by_tensor
        method, by_tensor = next(iter(calibrations.items()))
        names = quantize(prepared.model, by_tensor, precision=precision, keep_nodes=keep).quantized_nodes
        if not names:
            raise ModelError(f"no layer of the model can be {precision}", where=_model_place(spec))
        whole = network.dataset(spec, "evaluate")
        dataset = Subset(whole, spec.diagnose.subset)
        facts = [
            hash_file(Path(spec.gen_trt_engine.onnx_file)),
            json.dumps(prepared.transform.describe(), sort_keys=True),
            names,
            [str(dataset[index].id) for index in range(len(dataset))],
            spec.model_dump_json(exclude={"results_dir", "gen_trt_engine", "diagnose", "compare", "encryption_key"}),
        ]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        bench = cls(
            network,
            spec,
            precision,
            prepared.model,
            calibrations,
            method,
            keep,
            names,
            images,
            dataset,
            whole,
            folder / STATE,
            key,
        )
        bench._resume()
        return bench

    @property
    def decides(self) -> Headline:
        """The deciding number; known once something was measured."""
        assert self.chosen is not None
        return self.chosen

    def loss(self, value: float) -> float:
        """Percent of the fp32 value that is lost at ``value``; a value that is not finite has lost everything."""
        return self.decides.loss(self.metric(()), value) if np.isfinite(value) else 100.0

    def knows(self, quantized: Sequence[str]) -> bool:
        """Whether this set was measured before."""
        return self._id(quantized) in self.metrics

    def metric(self, quantized: Sequence[str]) -> float:
        """The deciding number on the subset with exactly these layers quantized."""
        name = self._id(quantized)
        if name not in self.metrics:
            self.metrics[name] = self._evaluate(self.variant(quantized))
            self._save()
        numbers = self.metrics[name]
        if self.chosen is None:
            self.chosen = headline(numbers, self.spec.diagnose, self.spec.where("diagnose.metric"))
        return scalars_of(numbers).get(self.chosen.key, float("nan"))

    def errors(self, clock: _Clock, names: Sequence[str]) -> dict[str, float]:
        """Per layer, the error of the model's outputs with it alone quantized: 1 - cosine of the worst output."""
        from nvidia_tao_deploy.graph.parity import compare
        from nvidia_tao_deploy.graph.runnable import runnable

        if self.images is None:
            return {}
        batches = list(islice(self.images.batches(), ERROR_BATCHES))
        for name in names:
            key = self._id((name,))
            if key in self.known_errors:
                continue
            if clock.spent(RANKING_SHARE / 2):
                break
            parity = compare(runnable(self.model), runnable(self.variant((name,))), batches)
            self.known_errors[key] = max(0.0, 1.0 - parity.worst_cosine)
        self._save()
        found = {name: self.known_errors.get(self._id((name,))) for name in names}
        return {name: error for name, error in found.items() if error is not None}

    def variant(self, quantized: Sequence[str]) -> ModelProto:
        """The graph with exactly these layers quantized."""
        from nvidia_tao_deploy.graph.quantize import quantize

        if not quantized:
            return self.model
        wanted = set(quantized)
        out = {name: "fp32" for name in self.names if name not in wanted}
        return quantize(
            self.model, self.calibrations[self.method], precision=self.precision, keep_nodes=self.keep, layers=out
        ).model

    def _evaluate(self, model: ModelProto) -> dict[str, float]:
        from nvidia_tao_deploy.runtime.open import open_session

        spec, network = self.spec, self.network
        metric = network.metric(spec, self.whole)
        with TemporaryDirectory(prefix="tao_deploy_") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(model.SerializeToString())
            session = open_session(
                path, providers=spec.runtime.providers, provider_options=spec.runtime.provider_options
            )
            try:
                source = Path(spec.gen_trt_engine.onnx_file)
                ports = replace(network.bind(session.inputs, session.outputs), source=source)
                size = max(1, network.batch_size(spec, "evaluate"))
                stream = run_stream(
                    self.dataset,
                    network.transform(spec, ports),
                    session,
                    ports,
                    network.decode(spec, ports, "evaluate"),
                    batch_size=size,
                    workers=spec.runtime.workers,
                    strict=spec.strict,
                )
                for sample, prediction in stream:
                    metric.update(sample, prediction)
            finally:
                session.close()
        return scalars_of(metric.compute())

    def _id(self, quantized: Sequence[str]) -> str:
        """A name for a set of quantized layers with their scales."""
        scales = sorted(self.calibrations[self.method].items()) if quantized else []
        return hashlib.sha256(json.dumps([sorted(quantized), scales]).encode()).hexdigest()

    def _resume(self) -> None:
        """Take up the measurements of an earlier run of the same model, data and settings."""
        try:
            state = json.loads(self.state_file.read_text(encoding="utf-8"))
            if state["key"] != self.key:
                say(f"note: {self.state_file} is of another model, data or setting; starting anew")
                return
            self.metrics, self.known_errors = dict(state["metrics"]), dict(state["errors"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            say(f"note: {self.state_file} cannot be read; starting anew")
            return
        say(f"{len(self.metrics)} measurements taken up from {self.state_file}")

    def _save(self) -> None:
        write_json(self.state_file, {"key": self.key, "metrics": self.metrics, "errors": self.known_errors})


def _model_place(spec: Any) -> str:
    """Where the model is named."""
    return str(spec.where("gen_trt_engine.onnx_file"))


def _existing(cache: str | None) -> str | None:
    """A calibration cache is read here and never written."""
    return cache if cache and Path(cache).is_file() else None


def _calibration_images(network: Network, spec: Any, prepared: Any) -> CalibrationImages | None:
    from nvidia_tao_deploy.engine.profiles import static_batch
    from nvidia_tao_deploy.graph.load import model_inputs

    if not spec.gen_trt_engine.tensorrt.calibration.cal_image_dir:
        return None
    images = CalibrationImages(network, spec, prepared.transform, prepared.ports, None)
    fixed = static_batch(model_inputs(prepared.model))
    images.batch_size, images.whole = fixed or images.batch_size, fixed is not None
    return images


def _percent(measured: Mapping[str, Any]) -> str:
    """Its loss; without the minus of a negative zero."""
    return f"{round(measured['loss_percent'], 2) + 0.0:.2f} %"


def _summary(result: Mapping[str, Any], alone: Mapping[str, float]) -> list[str]:
    precision, metric, count = result["precision"], result["metric"], result["quantized"]["layers"]
    whole, mixed, kept = result["quantized"], result["mixed"], len(result["layers_precision"])
    if not kept:
        lines = [f"All {count} layers can be {precision}: {metric} loses {_percent(whole)}"]
    else:
        lines = [
            f"All in {precision}: {metric} loses {_percent(whole)}; with {kept} of {count} layers kept in "
            f"float: {_percent(mixed)}"
        ]
    if len(result["loss_percent_by_method"]) > 1:
        lines.append(f"Calibration method: {result['calibration_method']}")
    if not result["within_budget"]:
        lines.append(f"No mix found that loses at most {result['max_metric_drop']} %")
    if not result["finished"]:
        lines.append(
            f"budget_minutes ended after {len(alone)} of {count} layers; the same command goes on from where this ended"
        )
    return lines


def _page(report: Mapping[str, Any]) -> str:
    layers, metric, precision = report["layers"], report["metric"], report["precision"]
    by_metric = [
        (entry["name"], entry["loss_percent"], f"{entry['loss_percent']:.2f} %")
        for entry in layers
        if entry["loss_percent"] is not None
    ]
    rows = [
        [
            entry["name"],
            rank,
            entry["loss_percent"],
            entry["tensor_error"],
            "float" if entry["kept_in_float"] else precision,
        ]
        for rank, entry in enumerate(layers, 1)
    ]
    listing = "gen_trt_engine:\n  tensorrt:\n    layers_precision:\n" + "".join(
        f"      - {json.dumps(entry, ensure_ascii=False)}\n" for entry in report["layers_precision"]
    )
    values = [
        ["fp32", report["fp32"], 0.0, 0],
        *(
            [text, report[key]["value"], report[key]["loss_percent"], report[key]["layers"]]
            for text, key in ((f"all {precision}", "quantized"), ("mixed", "mixed"))
        ),
    ]
    return html.page(
        f"{report['network']}: which layers lose accuracy in {precision}",
        f"{metric} on {report['images']} images of the evaluation set, run with ONNX Runtime",
        [
            (
                "Result",
                html.paragraphs(report["summary"][:1], "verdict")
                + html.paragraphs(report["summary"][1:], "bad")
                + html.table(["", metric, "loss %", f"{precision} layers"], values),
            ),
            (
                f"Calibration methods, all layers in {precision}",
                html.table(["method", "loss %"], list(report["loss_percent_by_method"].items()))
                if len(report["loss_percent_by_method"]) > 1
                else "",
            ),
            (f"Loss of {metric} with one layer alone in {precision}", html.bars(by_metric)),
            ("For the spec", html.listing(listing) if report["layers_precision"] else ""),
            ("All layers", html.table(["layer", "rank", "loss %", "output error (1 - cosine)", "mixed"], rows)),
        ],
    )
