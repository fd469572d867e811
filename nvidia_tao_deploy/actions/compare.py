"""compare: precisions side by side (accuracy, speed, size), a verdict, and budgets that decide the exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nvidia_tao_deploy.actions.gen_trt_engine import gen_trt_engine
from nvidia_tao_deploy.actions.measure import (
    Headline,
    Subset,
    headline,
    lacks,
    numbers_of,
    per_class,
    precisions_of,
    scalars_of,
    taken,
)
from nvidia_tao_deploy.actions.model import OpenModel, opened
from nvidia_tao_deploy.actions.run import started
from nvidia_tao_deploy.actions.timing import Timing, first_batch, metered, run_for
from nvidia_tao_deploy.data.sample import Dataset, Sample, called
from nvidia_tao_deploy.errors import RuntimeUnavailableError, TaoDeployError
from nvidia_tao_deploy.files import plain, write_json, write_text
from nvidia_tao_deploy.metrics.confidence import Seen, class_votes, found_boxes, scored, seen, thresholds, whole_answers
from nvidia_tao_deploy.network import Network
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.tally import Tally

if TYPE_CHECKING:
    from nvidia_tao_deploy.spec.sections import NetworkSpec

ORDER = ("fp32", "fp16", "bf16", "int8", "fp8")
QUANTIZED = ("int8", "fp8")
# A loss that the verdict puts up with where the spec sets no max_metric_drop, in percent (MLPerf's 99 % rule).
TOLERATED = 1.0
LOOKED_AT = 64  # samples, spread over the dataset, among which those to show are chosen


class OverBudgetError(TaoDeployError):
    """A precision loses more accuracy, or gains less speed, than the spec allows. The report is written."""


@dataclass
class Evaluated:
    """What the evaluation set says of a model."""

    numbers: Mapping[str, Any]
    by_class: tuple[str, Mapping[str, float]]
    seen: list[Seen]
    kept: dict[int | str, tuple[Sample, Any]]  # some samples with their predictions, for pictures
    tally: Tally


@dataclass
class Measured:
    """One precision: what was built, its accuracy and its speed."""

    precision: str
    spec: Any  # opens what was built
    built: Mapping[str, Any]
    found: Evaluated
    runtime: str = ""
    calibration: str = ""
    timings: list[Timing] = field(default_factory=list)  # by batch size
    memory_bytes: int | None = None
    loss: float = 0.0  # of the headline against fp32, percent

    @property
    def timing(self) -> Timing:
        """That of the batch size by which verdict and budgets go."""
        return self.timings[0]

    def speedup(self, over: Measured, index: int = 0) -> float:
        """Throughput over that of another precision."""
        return self.timings[index].throughput / over.timings[index].throughput

    def row(self, reference: Measured) -> dict[str, Any]:
        """For JSON."""
        return {
            "precision": self.precision,
            "metrics": self.found.numbers,
            "loss_percent": self.loss,
            "timings": [
                {**timing.report(), "speedup": self.speedup(reference, i)} for i, timing in enumerate(self.timings)
            ],
            "device_memory_bytes": self.memory_bytes,
            "engine_bytes": self.built["engine_bytes"],
            "build_seconds": self.built["build_seconds"],
            "layers": self.built["counts"],
            "calibration": self.calibration,
            "measured": self.spec.evaluate.trt_engine,
            "runtime": self.runtime,
            "images_evaluated": self.found.tally.images,
            "images_skipped": len(self.found.tally.skipped),
            "per_class": self.found.by_class[1],
        }


def compare(
    network: Network,
    source: Path | str | Mapping[str, Any] | NetworkSpec,
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build each precision of ``compare.precisions``, measure it on the evaluation set, and write a report.

    An engine is measured where its GPU is here, else the prepared ONNX file that stands beside it. ``compare.json`` and
    ``compare.html`` stand in the results folder.

    Args are gen_trt_engine's; ``precisions=`` is short for ``compare.precisions=``. Returns what compare.json holds.

    Raises:
        OverBudgetError: a listed precision misses ``max_metric_drop`` or ``min_speedup``.
        TaoDeployError: anything else the user can mend.
    """
    words = [f"compare.{word}" if word.startswith("precisions=") else word for word in overrides]
    with started(network, "compare", source, words, flags) as run:
        from nvidia_tao_deploy.report.compared import compared_page
        from nvidia_tao_deploy.report.images import Kept, side_by_side

        spec, section = run.spec, run.spec.compare
        known = precisions_of(spec)
        lacking = [name for name in section.precisions if name not in known]
        if lacking and section.precisions != type(section)().precisions:
            raise lacks(network, spec, lacking, "compare.precisions")
        precisions, added = with_references([name for name in section.precisions if name in known])
        notes = [f"{name} is left out: {network.name} has none" for name in lacking]
        notes += [f"{name} is measured too: nothing can be said of the others without it" for name in added]
        dataset = network.dataset(spec, "evaluate")
        found: list[Measured] = []
        for precision in reversed(precisions):  # int8 first: what it lacks is told before the others are built
            say(f"--- {precision} ({len(found) + 1} of {len(precisions)})")
            found.insert(0, _measure(network, spec, precision, run.folder, dataset, notes))
            decides = headline(found[0].found.numbers, section, spec.where("compare.metric"))
        first, last = found[0], found[-1]
        values = [scalars_of(entry.found.numbers).get(decides.key, np.nan) for entry in found]
        for entry, value in zip(found, values, strict=True):
            entry.loss = decides.loss(values[0], value)
        again = _time(network, found, dataset, section, notes)
        noise = None if again is None else abs(scalars_of(again.numbers).get(decides.key, np.nan) - values[0])
        choice, lines = verdict(found, decides, section.max_metric_drop)
        if first.spec.evaluate.trt_engine.endswith(".onnx"):
            lines[-1] += " (by the speed of ONNX Runtime here; an engine's may differ)"
        misses = over_budget(found, section, decides)
        shift = _confidence(found, section.score_threshold)
        pairs = [(*first.found.kept[name], last.found.kept.get(name)) for name in first.found.kept]
        kept = [Kept(sample, one, other[1]) for sample, one, other in pairs if other is not None]
        report = {
            "network": network.name,
            "unit": called(dataset),
            "metric": decides.key,
            "higher_is_better": decides.higher_is_better,
            "verdict": lines,
            "use": choice,
            "over_budget": misses,
            "metric_noise": noise,
            "precisions": [entry.row(first) for entry in found],
            "per_class_of": first.found.by_class[0],
            "confidence": shift,
            "notes": notes,
        }
        report = dict(plain(report))
        pictures = ""
        if last is not first:
            restored = shift and shift["precisions"][last.precision]["restored"]
            at = [shift["fp32_threshold"] if shift else 0.0] * 2
            at[1] = restored["threshold"] if restored else at[0]
            pictures = side_by_side(kept, (first.precision, last.precision), (at[0], at[1]), section.sample_images)
        write_json(run.folder / "compare.json", report)
        write_text(run.folder / "compare.html", compared_page(report, pictures))
        for text in (*notes, *lines):
            say(text)
        say(f"Report: {run.folder / 'compare.html'}")
        if misses:
            remedy = "The report says where it stands; diagnose finds the layers that lose accuracy in int8."
            raise OverBudgetError("; ".join(misses), where=str(run.folder / "compare.html"), remedy=remedy)
        return report


def with_references(wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """(precisions in their order, those of them that were not asked for): fp32 always, fp16 where int8 or fp8 is."""
    needed = {"fp32"} | ({"fp16"} if set(wanted) & set(QUANTIZED) else set())
    return [name for name in ORDER if name in needed | set(wanted)], sorted(needed - set(wanted))


def verdict(found: Sequence[Measured], decides: Headline, max_metric_drop: float | None) -> tuple[str, list[str]]:
    """(the precision to use, a line about each of the others, and the verdict); ``found`` has fp32 first.

    The fastest precision that keeps the metric wins. int8 and fp8 must be faster than fp16 in every round of timing:
    within the noise they are not worth their risk.
    """
    limit = TOLERATED if max_metric_drop is None else max_metric_drop
    use, lines = found[0], dict[str, str]()
    half = next((entry for entry in found if entry.precision == "fp16"), None)
    for entry in found[1:]:
        kept = isfinite(entry.loss) and entry.loss <= limit
        rivals = [use, half] if entry.precision in QUANTIZED and half is not None and half.loss <= limit else [use]
        ahead = [rival for rival in rivals if min(entry.timing.rounds) <= max(rival.timing.rounds)]
        reason = " (too inaccurate)" if entry.loss > limit else ""  # undefined: that is said already
        if kept and ahead:
            slower = max(entry.timing.rounds) < min(ahead[0].timing.rounds)
            reason = f" ({'slower than' if slower else 'speed within the noise of'} {ahead[0].precision})"
        elif kept:
            use = entry
        base = half if entry.precision in QUANTIZED and half is not None else found[0]
        speed = f"{entry.precision}: {entry.speedup(base):.2f}x {base.precision}{_elsewhere(entry, base)}"
        lines[entry.precision] = f"{speed}, {decides.change(entry.loss)}{reason}"
    quantized = [entry.precision for entry in found if entry.precision in QUANTIZED]
    why = f"{' and '.join(quantized)} not worth it here: " if quantized else ""
    if use.precision in quantized or (use is not found[0] and not quantized):
        why = f"{lines.pop(use.precision)}: "
    return use.precision, [*lines.values(), f"{why}use {use.precision}"]


def _elsewhere(entry: Measured, base: Measured) -> str:
    """Which batch size a speedup is for, and what it is at the others; nothing where there is one."""
    first, *others = (timing.batch for timing in entry.timings)
    if not others:
        return ""
    return f" at batch {first} ({', '.join(f'{entry.speedup(base, i):.2f}x at {n}' for i, n in enumerate(others, 1))})"


def over_budget(found: Sequence[Measured], section: Any, decides: Headline) -> list[str]:
    """One sentence per budget that a listed precision misses."""
    misses = []
    for entry in found:
        if entry.precision == "fp32" or entry.precision not in section.precisions:
            continue
        limit, least = section.max_metric_drop, section.min_speedup
        if limit is not None and not entry.loss <= limit:  # NaN misses it too
            misses.append(f"{entry.precision}: {decides.change(entry.loss)}, max_metric_drop is {limit} %")
        if least is not None and entry.speedup(found[0]) < least:
            misses.append(f"{entry.precision} is {entry.speedup(found[0]):.2f}x fp32, min_speedup is {least}")
    return misses


def _measure(network: Network, base: Any, precision: str, folder: Path, dataset: Dataset, notes: list[str]) -> Measured:
    """Build and evaluate."""
    from nvidia_tao_deploy.engine.manifest import Manifest

    spec = base.model_copy(deep=True)
    options, sizes = spec.gen_trt_engine.tensorrt, spec.compare.batch_sizes
    if sizes:  # the engine must take them all
        options.min_batch_size = min(options.min_batch_size, *sizes)
        options.max_batch_size = max(options.max_batch_size, *sizes)
    spec.gen_trt_engine.results_dir = spec.evaluate.results_dir = str(folder / precision)
    options.data_type = precision
    engine, made = folder / precision / f"{network.name}.engine", []
    for ending, onnx_file in network.sources(Path(spec.require("gen_trt_engine.onnx_file"))).items():
        spec.gen_trt_engine.onnx_file = str(onnx_file)
        spec.gen_trt_engine.trt_engine = str(engine.with_stem(engine.stem + ending))
        made.append(gen_trt_engine(network, spec))
    built: dict[str, Any] = {key: sum(one[key] for one in made) for key in ("engine_bytes", "build_seconds")}
    built["counts"] = {key: sum(one["counts"][key] for one in made) for key in made[0]["counts"]}
    spec.evaluate.trt_engine = _runnable_here(engine, made, spec, notes)
    with opened(network, spec, "evaluate") as model:
        entry = Measured(precision, spec, built, _evaluated(model, dataset), model.session.device)
    facts = Manifest.load(Path(made[0]["engine"])).calibration or {}
    if facts and precision in QUANTIZED:
        entry.calibration = f"{facts.get('method') or facts.get('algorithm') or ''} ({facts['source']})".strip()
    return entry


def _evaluated(model: OpenModel, dataset: Dataset) -> Evaluated:
    samples = Subset(dataset, LOOKED_AT)
    wanted = {samples[index].id for index in range(len(samples))}
    tally, metric = Tally(), model.network.metric(model.spec, dataset)
    found, kept = list[Seen | None](), {}
    for sample, prediction in model.predict(dataset, tally):
        if not taken(metric, sample, prediction, tally, strict=model.spec.strict):
            continue
        found.append(seen(sample.target, prediction))
        if sample.id in wanted:
            boxes = found_boxes(prediction)  # without masks, which are large
            kept[sample.id] = (sample, prediction if boxes is None else boxes)
    numbers = numbers_of(metric)
    if hasattr(metric, "answers"):  # of queries, which only the whole set can answer
        found = [whole_answers([answer]) for answer in metric.answers()]
    scored = [one for one in found if one is not None]
    return Evaluated(numbers, per_class(metric, numbers, dataset), scored, kept, tally)


def _time(
    network: Network, found: Sequence[Measured], dataset: Dataset, section: Any, notes: list[str]
) -> Evaluated | None:
    """Time the precisions in turns, so that a machine that slows down meanwhile slows all of them; fp32 once more.

    All models are open at once. From two rounds on the first is also evaluated again, which says how much an evaluation
    varies by itself.
    """
    with ExitStack() as stack:
        models, feeds = list[OpenModel](), list[Any]()
        for entry in found:
            with metered(_gpu(entry.spec)) as reading:
                model = stack.enter_context(opened(network, entry.spec, "evaluate"))
                if not models:
                    asked = section.batch_sizes or [max(1, network.batch_size(entry.spec, "evaluate"))]
                    sizes = list(dict.fromkeys(map(model.session.batch.clamp, asked)))
                    feeds = [stack.enter_context(first_batch(model, dataset, size)) for size in sizes]
                    if sizes != asked:
                        notes.append(f"Timed with batches of {sizes}, what the model takes of {asked}")
                for batch in feeds:
                    run_for(model, batch, 0, getattr(model.session, "slots", 1))
            models.append(model)
            entry.memory_bytes, entry.timings = reading.memory_bytes, [Timing(size) for size in sizes]
        for number in range(section.repeats):
            say(f"timing: round {number + 1} of {section.repeats}")
            for index, batch in enumerate(feeds):
                for entry, model in zip(found, models, strict=True):
                    entry.timings[index].round(model, batch, section.timing_seconds, _gpu(entry.spec))
        return _evaluated(models[0], dataset) if section.repeats > 1 else None


def _gpu(spec: Any) -> int:
    return int(spec.evaluate.gpu_ids[0]) if spec.evaluate.gpu_ids else 0


def _runnable_here(engine: Path, made: Sequence[Mapping[str, Any]], spec: Any, notes: list[str]) -> str:
    """The engine (what stands for it, where it is made of several) where its GPU is here, else the prepared ONNX."""
    from nvidia_tao_deploy.engine.manifest import preflight, prepared_onnx_path
    from nvidia_tao_deploy.runtime.cuda import gpu_available

    reason = "no GPU is here"
    if gpu_available():
        try:
            for one in made:
                preflight(Path(one["engine"]), _gpu(spec))
        except RuntimeUnavailableError as error:
            reason = error.what
        else:
            return str(engine)
    note = f"The prepared ONNX was measured, not the engine ({reason}): accuracy is the graph's, speed ONNX Runtime's"
    if note not in notes:
        notes.append(note)
    return str(prepared_onnx_path(engine))


def _confidence(found: Sequence[Measured], threshold: float | None) -> dict[str, Any] | None:
    """The operating point of fp32, what each precision makes of that threshold, and which threshold restores it."""
    if not found[0].found.seen:
        return None
    votes = class_votes(found[0].found.seen)
    curves = {entry.precision: scored(entry.found.seen, votes) for entry in found}
    reference = curves[found[0].precision]
    if not reference.positives:
        return None
    point = reference.best_threshold() if threshold is None else threshold
    grid = np.union1d(thresholds(curves.values()), point)
    wanted = reference.at(point)
    rows = {}
    for name, curve in curves.items():
        restored = curve.threshold_for_recall(wanted["recall"]) if name != found[0].precision else point
        edges, shares = curve.histogram()
        rows[name] = {
            "at_fp32_threshold": curve.at(point),
            "restored": None if restored is None else curve.at(restored),
            "mean_score": float(curve.scores.mean()) if len(curve.scores) else None,
            "histogram_edges": edges,
            "histogram": shares,
            "f1": curve.f1(grid),
        }
    return {"fp32_threshold": point, "thresholds": grid, "class_of_prediction": votes, "precisions": rows}
