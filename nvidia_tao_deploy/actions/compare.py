"""compare: precisions side by side (accuracy, speed, size), a verdict, and budgets that decide the exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvidia_tao_deploy.actions.gen_trt_engine import gen_trt_engine
from nvidia_tao_deploy.actions.measure import Headline, Meter, Timing, headline, scalars_of, timed
from nvidia_tao_deploy.actions.model import opened
from nvidia_tao_deploy.actions.run import started
from nvidia_tao_deploy.data.sample import Dataset
from nvidia_tao_deploy.errors import RuntimeUnavailableError, TaoDeployError
from nvidia_tao_deploy.files import plain, write_json, write_text
from nvidia_tao_deploy.metrics.confidence import Scored, Seen, class_votes, scored, seen, thresholds
from nvidia_tao_deploy.network import Network
from nvidia_tao_deploy.pipeline.progress import say
from nvidia_tao_deploy.pipeline.tally import Tally
from nvidia_tao_deploy.report import html, plots

if TYPE_CHECKING:
    from nvidia_tao_deploy.spec.sections import NetworkSpec

ORDER = ("fp32", "fp16", "bf16", "int8", "fp8")
QUANTIZED = ("int8", "fp8")
# A loss that the verdict puts up with where the spec sets no max_metric_drop, in percent (MLPerf's 99 % rule).
TOLERATED = 1.0
MIB = 2**20


class OverBudgetError(TaoDeployError):
    """A precision loses more accuracy, or gains less speed, than the spec allows. The report is written."""


@dataclass
class Measured:
    """One precision: what was built, its accuracy and its speed."""

    precision: str
    built: Mapping[str, Any]
    model: Path
    runtime: str
    numbers: Mapping[str, Any]
    timing: Timing
    per_class: Mapping[str, float]
    seen: list[Seen]
    images: int
    skipped: int
    calibration: str = ""
    loss: float = 0.0  # of the headline against fp32, percent
    speedup: float = 1.0  # over fp32

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "precision": self.precision,
            "metrics": dict(self.numbers),
            "loss_percent": self.loss,
            "speedup": self.speedup,
            **self.timing.report(),
            "engine_bytes": self.built["engine_bytes"],
            "build_seconds": self.built["build_seconds"],
            "layers": self.built["counts"],
            "calibration": self.calibration,
            "measured": str(self.model),
            "runtime": self.runtime,
            "images_evaluated": self.images,
            "images_skipped": self.skipped,
            "per_class": dict(self.per_class),
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

    Args:
        network: which network.
        source: spec file, mapping, or typed spec.
        overrides: ``key=value`` entries over the spec; ``precisions=`` is short for ``compare.precisions=``.
        flags: values of the established command-line flags, by spec key.

    Returns:
        What compare.json holds.

    Raises:
        OverBudgetError: a listed precision misses ``max_metric_drop`` or ``min_speedup``.
        TaoDeployError: anything else the user can mend.
    """
    words = [f"compare.{word}" if word.startswith("precisions=") else word for word in overrides]
    with started(network, "compare", source, words, flags) as run:
        spec, notes = run.spec, []
        precisions, added = with_references(spec.compare.precisions)
        notes += [f"{name} is measured too: nothing can be said of the others without it" for name in added]
        dataset = network.dataset(spec, "evaluate")
        found: list[Measured] = []
        for precision in precisions:
            say(f"--- {precision} ({len(found) + 1} of {len(precisions)})")
            found.append(_measure(network, spec, precision, run.folder, dataset, notes))
        decides = headline(found[0].numbers, spec.compare, spec.where("compare.metric"))
        for entry in found:
            entry.loss = decides.loss(*(scalars_of(row.numbers).get(decides.key, np.nan) for row in (found[0], entry)))
            entry.speedup = entry.timing.throughput / found[0].timing.throughput
        noise = _metric_noise(network, spec, found[0], dataset, decides)
        choice, lines = verdict(found, decides.key, spec.compare.max_metric_drop)
        if any(entry.model.suffix == ".onnx" for entry in found):
            lines[-1] += " (by the speed of ONNX Runtime here; an engine's may differ)"
        misses = over_budget(found, spec.compare, decides.key)
        shift, curves = _confidence(found, spec.compare.score_threshold)
        report = {
            "network": network.name,
            "metric": decides.key,
            "higher_is_better": decides.higher_is_better,
            "verdict": lines,
            "use": choice,
            "over_budget": misses,
            "metric_noise": noise,
            "precisions": [entry.row() for entry in found],
            "confidence": shift,
            "notes": notes,
        }
        report = dict(plain(report))
        write_json(run.folder / "compare.json", report)
        write_text(run.folder / "compare.html", _page(report, found, curves, spec.compare.sample_images))
        for text in (*notes, *lines):
            say(text)
        say(f"Report: {run.folder / 'compare.html'}")
        if misses:
            raise OverBudgetError("; ".join(misses), where=spec.where("compare"), remedy=_remedy(found))
        return report


def with_references(wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """(precisions in their order, those of them that were not asked for): fp32 always, fp16 where int8 or fp8 is."""
    needed = {"fp32"} | ({"fp16"} if set(wanted) & set(QUANTIZED) else set())
    return [name for name in ORDER if name in needed | set(wanted)], sorted(needed - set(wanted))


def verdict(found: Sequence[Measured], metric: str, max_metric_drop: float | None) -> tuple[str, list[str]]:
    """(the precision to use, one line per precision).

    The fastest precision that keeps the metric wins. int8 and fp8 must be faster than fp16 in every round of timing:
    within the noise they are not worth their risk.

    Args:
        found: the precisions measured, fp32 first.
        metric: the deciding number's name.
        max_metric_drop: percent; None: 1.
    """
    limit = TOLERATED if max_metric_drop is None else max_metric_drop
    use, lines = found[0], []
    half = next((entry for entry in found if entry.precision == "fp16"), None)
    for entry in found[1:]:
        kept = isfinite(entry.loss) and entry.loss <= limit
        rivals = [use, half] if entry.precision in QUANTIZED and half is not None and half.loss <= limit else [use]
        worth = all(min(entry.timing.rounds) > max(rival.timing.rounds) for rival in rivals)
        if kept and worth:
            use = entry
        base = half if entry.precision in QUANTIZED and half is not None else found[0]
        ratio = entry.timing.throughput / base.timing.throughput
        change = f"{metric} {round(-entry.loss, 2) + 0.0:+.2f} %" if isfinite(entry.loss) else f"{metric} undefined"
        reason = "" if kept and worth else f" ({'no faster beyond the noise' if kept else 'too inaccurate'})"
        lines.append(f"{entry.precision}: {ratio:.2f}x {base.precision}, {change}{reason}")
    quantized = [entry.precision for entry in found if entry.precision in QUANTIZED]
    spurned = f"{' and '.join(quantized)} not worth it here: " if quantized and use.precision not in quantized else ""
    return use.precision, [*lines, f"{spurned}use {use.precision}"]


def over_budget(found: Sequence[Measured], section: Any, metric: str) -> list[str]:
    """One sentence per budget that a listed precision misses."""
    misses = []
    for entry in found:
        if entry.precision == "fp32" or entry.precision not in section.precisions:
            continue
        limit, least = section.max_metric_drop, section.min_speedup
        if limit is not None and not entry.loss <= limit:  # NaN misses it too
            misses.append(f"{entry.precision} loses {entry.loss:.2f} % of {metric}, max_metric_drop is {limit}")
        if least is not None and entry.speedup < least:
            misses.append(f"{entry.precision} is {entry.speedup:.2f}x fp32, min_speedup is {least}")
    return misses


def _remedy(found: Sequence[Measured]) -> str:
    if any(entry.precision in QUANTIZED for entry in found):
        return "The report says where it stands; diagnose finds the layers that lose the accuracy."
    return "The report says where it stands."


def _measure(network: Network, base: Any, precision: str, folder: Path, dataset: Dataset, notes: list[str]) -> Measured:
    spec = base.model_copy(deep=True)
    built = gen_trt_engine(
        network,
        spec,
        flags={
            "gen_trt_engine.tensorrt.data_type": precision,
            "gen_trt_engine.trt_engine": str(folder / precision / f"{network.name}.engine"),
            "gen_trt_engine.results_dir": str(folder / precision),
        },
    )
    path = _runnable_here(built, spec, notes)
    spec.evaluate.trt_engine = str(path)
    gpu = spec.evaluate.gpu_ids[0] if spec.evaluate.gpu_ids else 0
    meter, tally, metric, kept = Meter(gpu), Tally(), network.metric(spec, dataset), list[Seen]()
    section = spec.compare
    with opened(network, spec, "evaluate") as model:
        for sample, prediction in model.predict(dataset, tally):
            metric.update(sample, prediction)
            one = seen(sample, prediction)
            if one is not None:
                kept.append(one)
        timing = timed(
            model,
            dataset,
            batch=section.batch_size,
            rounds=section.repeats,
            seconds=section.timing_seconds,
            meter=meter,
        )
        device = model.session.device
    numbers = metric.compute()
    return Measured(
        precision, built, path, device, numbers, timing, _per_class(metric, dataset), kept, tally.images,
        len(tally.skipped), _calibration(spec, precision),
    )  # fmt: skip


def _runnable_here(built: Mapping[str, Any], spec: Any, notes: list[str]) -> Path:
    """The engine where its GPU is here, else the prepared ONNX file."""
    from nvidia_tao_deploy.engine.manifest import preflight
    from nvidia_tao_deploy.runtime.cuda import gpu_available

    reason = "no GPU is here"
    if gpu_available():
        try:
            preflight(Path(built["engine"]), spec.evaluate.gpu_ids[0] if spec.evaluate.gpu_ids else 0)
        except RuntimeUnavailableError as error:
            reason = error.what
        else:
            return Path(built["engine"])
    note = f"the prepared ONNX was measured, not the engine ({reason}): accuracy is the graph's, speed ONNX Runtime's"
    if note not in notes:
        notes.append(note)
    return Path(built["prepared_onnx"])


def _calibration(spec: Any, precision: str) -> str:
    calibration = spec.gen_trt_engine.tensorrt.calibration
    return f"{calibration.mode} {calibration.method}" if precision in QUANTIZED else ""


def _per_class(metric: Any, dataset: Dataset) -> dict[str, float]:
    """AP by class name where the metric has it."""
    table = getattr(metric, "per_class", None)
    if table is None:
        return {}
    names = getattr(dataset, "categories", {})
    return {str(names.get(key, key)): float(values[0]) for key, values in table().items()}


def _metric_noise(network: Network, base: Any, first: Measured, dataset: Dataset, decides: Headline) -> float | None:
    """|difference| of the headline between two evaluations of fp32; None where it is measured once only."""
    if base.compare.repeats < 2:
        return None
    spec = base.model_copy(deep=True)
    spec.evaluate.trt_engine = str(first.model)
    metric = network.metric(spec, dataset)
    with opened(network, spec, "evaluate") as model:
        for sample, prediction in model.predict(dataset, Tally()):
            metric.update(sample, prediction)
    again, before = (scalars_of(numbers).get(decides.key, np.nan) for numbers in (metric.compute(), first.numbers))
    return abs(again - before)


def _confidence(found: Sequence[Measured], threshold: float | None) -> tuple[dict[str, Any] | None, dict[str, Scored]]:
    """The operating point of fp32, what each precision makes of that threshold, and which threshold restores it."""
    if not found[0].seen:
        return None, {}
    votes = class_votes(found[0].seen)
    curves = {entry.precision: scored(entry.seen, votes) for entry in found}
    reference = curves[found[0].precision]
    grid = thresholds(curves.values())
    point = threshold if threshold is not None else _best(reference, grid)
    wanted = reference.at(point)
    rows = {}
    for name, curve in curves.items():
        restored = curve.threshold_for_recall(wanted["recall"]) if name != found[0].precision else point
        rows[name] = {
            "at_fp32_threshold": curve.at(point),
            "restored": None if restored is None else curve.at(restored),
            "mean_score": float(curve.scores.mean()) if len(curve.scores) else None,
            "histogram": curve.histogram()[1],
            "f1": curve.f1(grid),
        }
    return {"fp32_threshold": point, "thresholds": grid, "class_of_prediction": votes, "precisions": rows}, curves


def _best(curve: Scored, grid: NDArray[np.float64]) -> float:
    """The highest of the thresholds with the best F1."""
    f1 = curve.f1(grid)
    return float(grid[np.flatnonzero(f1 == f1.max())[-1]])


def _page(report: Mapping[str, Any], found: Sequence[Measured], curves: Mapping[str, Scored], images: int) -> str:
    metric, rows = report["metric"], report["precisions"]
    headers = ["precision", metric, "loss %", "images/s", "range", "vs fp32", "p50 ms", "p90 ms", "p99 ms", "file MiB"]
    headers += ["memory MiB", "images/s/W", "build s", "calibration"]
    cells = [
        [
            row["precision"],
            row["metrics"].get(metric),
            html.number(row["loss_percent"], 3),
            row["images_per_second"],
            "–".join(html.number(value) for value in row["images_per_second_range"]),
            f"{row['speedup']:.2f}x",
            *(row["latency_ms"][key] for key in ("p50", "p90", "p99")),
            row["engine_bytes"] / MIB,
            row["device_memory_bytes"] / MIB if row["device_memory_bytes"] is not None else None,
            row["images_per_second_per_watt"],
            row["build_seconds"],
            row["calibration"],
        ]
        for row in rows
    ]
    keys = list(scalars_of(found[0].numbers))
    numbers = [[key, *(scalars_of(entry.numbers).get(key) for entry in found)] for key in keys]
    names = [entry.precision for entry in found]
    dots = [
        (row["precision"], row["latency_ms"]["p50"], row["metrics"].get(metric))
        for row in rows
        if isinstance(row["metrics"].get(metric), float)
    ]
    summary = html.paragraphs(report["verdict"][-1:], "verdict") + html.paragraphs(report["verdict"][:-1])
    summary += html.paragraphs([f"Over budget: {text}" for text in report["over_budget"]], "bad")
    noise = report["metric_noise"]
    about = [
        f"Batch {rows[0]['batch_size']}, {rows[0]['runtime']}; range is over rounds of timing, copies to the device "
        "included. loss % is of the fp32 value."
    ]
    about += [f"Two evaluations of fp32 differ by {html.number(noise)} in {metric}."] if noise is not None else []
    classes = [[name, *(entry.per_class.get(name) for entry in found)] for name in found[0].per_class]
    return html.page(
        f"{report['network']}: precisions compared",
        f"{rows[0]['images_evaluated']} images, {rows[0]['images_skipped']} skipped",
        [
            ("Verdict", summary),
            ("Precisions", html.table(headers, cells) + html.paragraphs([*about, *report["notes"]], "dim")),
            (
                "Accuracy against latency",
                f'<div class="plots">{plots.scatter(dots, "p50 latency, ms per batch", metric)}</div>' if dots else "",
            ),
            ("Scores", _scores(report["confidence"], curves)),
            ("All metrics", html.table(["", *names], numbers)),
            ("AP per class", html.table(["class", *names], classes) if classes else ""),
            ("Where they differ most", _pictures(found, report["confidence"], images)),
        ],
    )


def _scores(shift: Mapping[str, Any] | None, curves: Mapping[str, Scored]) -> str:
    if shift is None:
        return ""
    f1 = {name: (shift["thresholds"], row["f1"]) for name, row in shift["precisions"].items()}
    levels = {name: tuple(part.tolist() for part in curve.histogram()) for name, curve in curves.items()}
    drawn = plots.lines(f1, "score threshold", "F1", "F1 of what has at least this score")
    drawn += plots.lines(levels, "score", "share", "where the scores from 0.05 on lie", steps=True)  # type: ignore[arg-type]
    rows = []
    for name, row in shift["precisions"].items():
        here, back = row["at_fp32_threshold"], row["restored"] or {}
        rows.append([name, here["precision"], here["recall"], here["f1"]])
        rows[-1] += [back.get(key) for key in ("threshold", "precision", "f1")]
    point = html.number(shift["fp32_threshold"])
    headers = ["", f"precision at {point}", f"recall at {point}", f"F1 at {point}"]
    headers += ["threshold for fp32's recall", "precision there", "F1 there"]
    return f'<div class="plots">{drawn}</div>{html.table(headers, rows)}'


def _pictures(found: Sequence[Measured], shift: Mapping[str, Any] | None, count: int) -> str:
    """fp32 and the last precision side by side, for the images on which they differ most."""
    from nvidia_tao_deploy.report.images import pair, picture, unmatched

    if shift is None or len(found) < 2 or not count:
        return ""
    first, last = found[0], found[-1]
    others = {one.sample.id: one for one in last.seen}
    ranked = []
    for one in first.seen:
        other = others.get(one.sample.id)
        if other is None:
            continue
        if one.classified:
            ranked.append(
                (float(one.class_ids[0] != other.class_ids[0]) + abs(one.scores[0] - other.scores[0]), one, other)
            )
            continue
        restored = shift["precisions"][last.precision]["restored"] or {"threshold": shift["fp32_threshold"]}
        one, other = _above(one, shift["fp32_threshold"]), _above(other, restored["threshold"])
        a = unmatched(one.boxes, one.class_ids, other.boxes, other.class_ids)
        b = unmatched(other.boxes, other.class_ids, one.boxes, one.class_ids)
        ranked.append((float(a.sum() + b.sum()), one, other))
    ranked.sort(key=lambda entry: -entry[0])
    parts = []
    for _, one, other in ranked[:count]:
        pictures, texts = [], []
        for entry, this, that in ((first, one, other), (last, other, one)):
            if this.classified:
                boxes, marked = np.zeros((0, 4)), np.zeros(0, bool)
                text = f"class {this.class_ids[0]}, score {this.scores[0]:.3f}, truth {this.truth_ids[0]}"
            else:
                boxes, marked = this.boxes, unmatched(this.boxes, this.class_ids, that.boxes, that.class_ids)
                text = f"{len(boxes)} found, {int(marked.sum())} not in the other"
            pictures.append(picture(this.sample.path, boxes, marked))
            texts.append(f"{entry.precision}: {text} ({this.sample.path.name})")
        if pictures[0] and pictures[1]:
            parts.append(pair(pictures[0], pictures[1], *texts))
    marks = ["Red: not in the other picture. Each at its own threshold: fp32's, and the one that restores its recall."]
    return (html.paragraphs(marks, "dim") if parts and not first.seen[0].classified else "") + "".join(parts)


def _above(one: Seen, threshold: float) -> Seen:
    kept = one.scores >= threshold
    return Seen(one.boxes[kept], one.scores[kept], one.class_ids[kept], one.truth_boxes, one.truth_ids, one.sample)
