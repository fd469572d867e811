"""diagnose: which layers lose the accuracy of a quantized model by the task's metric, and which to keep in float."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from nvidia_tao_deploy.actions.bench import Bench
from nvidia_tao_deploy.actions.run import Run, action
from nvidia_tao_deploy.data.sample import called
from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.errors import BuildError, DataError, SpecError
from nvidia_tao_deploy.files import plain, write_json, write_text
from nvidia_tao_deploy.network import Network
from nvidia_tao_deploy.pipeline.progress import progress, say
from nvidia_tao_deploy.report.html import percent

# Shares of the time after which each kind of measurement ends; the search for the mix has the rest.
METHODS_SHARE, ERRORS_SHARE, RANKING_SHARE = 0.2, 0.35, 0.7


@action
def diagnose(run: Run) -> dict[str, Any]:
    """Rank blocks and layers by what quantizing each alone costs, and find the mix that keeps the metric.

    Everything is run with ONNX Runtime on a part of the evaluation set. ``diagnose.json`` and ``diagnose.html`` stand
    in the results folder. A run that its budget or an interrupt ended goes on from ``diagnose_state.json``.

    Returns:
        What diagnose.json holds; its ``layers_precision`` is ready for a build's spec.
    """
    return mixed_precision(run.network, run.spec, run.folder, run.spec.diagnose.max_metric_drop)


def mixed_precision(network: Network, spec: Any, folder: Path, max_metric_drop: float) -> dict[str, Any]:
    """Rank the layers, find the largest set that loses at most ``max_metric_drop`` percent of fp32, write the report.

    Returns:
        What diagnose.json holds: ``fp32``, ``quantized`` and ``mixed`` values of the deciding metric with their losses
        in percent, ``blocks`` and ``layers`` ranked, ``layers_precision``, ``within_budget``, ``finished``...

    Raises:
        DataError: fp32 has no metric value on the subset, so nothing can be compared.
        ModelError: no layer of the model can be quantized.
    """
    from nvidia_tao_deploy.report.diagnosed import diagnosed_page

    bench = Bench(network, spec, folder)
    names, precision = bench.names, bench.precision
    say(f"{len(names)} layers can be {precision}; measuring on {counted(len(bench.dataset), called(bench.dataset))}")
    reference = bench.metric(())
    if not (np.isfinite(reference) and reference > 0):  # COCO writes -1 where nothing is annotated
        raise DataError(
            f"{bench.decides.key} of fp32 is {reference} on the subset, so no loss can be measured against it",
            remedy="Are there annotations? Set diagnose.subset higher, or check the model with evaluate first.",
        )
    methods = _best_method(bench)
    blocks = blocks_of(names)
    by_block = _alone(bench, blocks) if 1 < len(blocks) < len(names) else {}
    # The cheap order of the measurements to come.
    shown = progress(names, len(names), "errors of the outputs with one layer quantized", "layers")
    errors = {name: bench.error(name) for name in shown if not bench.spent(ERRORS_SHARE)}
    block_loss = {name: by_block.get(block, 0.0) for block, members in blocks.items() for name in members}
    order = sorted(names, key=lambda name: (block_loss[name], errors.get(name) or 0.0), reverse=True)
    alone = _alone(bench, {name: [name] for name in order})
    ranked = sorted(order, key=lambda name: (name in alone, alone.get(name, errors.get(name) or 0.0)), reverse=True)
    kept, ended = _search(bench, ranked, max_metric_drop)

    def figures(layers: list[str]) -> dict[str, float]:
        return {"value": bench.metric(layers), "loss_percent": bench.loss(layers), "layers": len(layers)}

    mixed = figures([name for name in names if name not in kept])
    result = {
        "network": network.name,
        "metric": bench.decides.key,
        "precision": precision,
        "images": len(bench.dataset),
        "unit": called(bench.dataset),
        "max_metric_drop": max_metric_drop,
        "calibration_method": bench.method,
        "loss_percent_by_method": methods,
        "fp32": reference,
        "quantized": figures(names),
        "mixed": mixed,
        "within_budget": mixed["loss_percent"] <= max_metric_drop,
        "finished": len(alone) == len(names) and not ended,
        "blocks": [
            {"name": name, "loss_percent": by_block[name], "layers": blocks[name]}
            for name in sorted(by_block, key=by_block.__getitem__, reverse=True)
        ],
        "layers": [
            {
                "name": name,
                "loss_percent": alone.get(name),
                "tensor_error": errors.get(name),
                "kept_in_float": name in kept,
            }
            for name in ranked
        ],
        "layers_precision": [f"{name}:{spec.diagnose.keep_in}" for name in ranked if name in kept],
    }
    report = dict(plain({**result, "summary": _summary(result, len(alone))}))
    write_json(folder / "diagnose.json", report)
    write_text(folder / "diagnose.html", diagnosed_page(report))
    for line in report["summary"]:
        say(line)
    say(f"Report: {folder / 'diagnose.html'}")
    return report


def keep_within(network: Network, spec: Any, folder: Path) -> list[str]:
    """The ``layers_precision`` with which a quantized build keeps ``calibration.max_metric_drop``.

    The layers the spec names keep their own precision; those found are added. The spec's calibration method becomes the
    best one, where the spec leaves a choice.

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
    found = mixed_precision(network, asked, folder, options.calibration.max_metric_drop)
    options.calibration.method = found["calibration_method"]
    if not found["mixed"]["layers"]:
        raise BuildError(
            f"no layer was found that can be {options.data_type} with a loss of at most {found['max_metric_drop']} %",
            where=spec.where(key),
            remedy="Allow more loss, give diagnose.budget_minutes more time, or build in fp16.",
        )
    return [*options.layers_precision, *found["layers_precision"]]


def blocks_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Layers by block: by as many leading parts of their names as leave at most 3/4 as many blocks as layers.

    Names are like "/backbone/layer1/conv1/Conv", in graph order; those without such parts make blocks of neighbours,
    about as many as each has layers.
    """
    parts = [re.split(r"(?<=[^/])/", name) for name in names]
    found: dict[str, list[str]] = {}
    for depth in range(1, max(map(len, parts), default=0)):
        blocks: dict[str, list[str]] = {}
        for name, path in zip(names, parts, strict=True):
            blocks.setdefault("/".join(path[:depth]), []).append(name)
        if 4 * len(blocks) > 3 * len(names):
            break
        found = blocks
    if len(found) > 1:
        return found
    size = max(1, isqrt(len(names)))
    runs = [list(names[start : start + size]) for start in range(0, len(names), size)]
    return {f"{run[0]} to {run[-1]}" if len(run) > 1 else run[0]: run for run in runs}


def smallest_prefix(count: int, fits: Callable[[int], bool | None]) -> int:
    """The smallest k in 0..count with ``fits(k)``, by doubling and bisection; ``count`` where none is known to fit.

    ``fits`` is taken to stay true once it is true; None: no time left, and what is known so far decides.
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


def _best_method(bench: Bench) -> dict[str, float]:
    """Loss in percent with all layers quantized, by calibration method; ``bench`` goes on with the best of them."""
    losses: dict[str, float] = {}
    for method in bench.methods:
        bench.method = method
        if losses and bench.spent(METHODS_SHARE) and not bench.knows(bench.names):
            continue
        losses[method] = bench.loss(bench.names)
        say(f"all layers in {bench.precision}, calibrated by {method}: loss {percent(losses[method])} %")
    bench.method = min(losses, key=losses.__getitem__)
    return losses


def _alone(bench: Bench, groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Loss in percent with each group of layers alone quantized, as far as the time goes."""
    losses: dict[str, float] = {}
    for count, (name, layers) in enumerate(groups.items(), 1):
        if bench.spent(RANKING_SHARE) and not bench.knows(layers):
            continue
        losses[name] = bench.loss(layers)
        say(f"{count} of {len(groups)}: {name} alone in {bench.precision}: loss {percent(losses[name])} %")
    return losses


def _search(bench: Bench, ranked: Sequence[str], limit: float) -> tuple[set[str], bool]:
    """(layers to keep in float, whether time ran out): the worst ones first, then each is tried in int8 once more."""
    ended = False

    def fits_without(kept: Iterable[str]) -> bool | None:
        nonlocal ended
        left = set(kept)
        quantized = [name for name in bench.names if name not in left]
        if bench.spent() and not bench.knows(quantized):
            ended = True
            return None
        answer = bool(bench.loss(quantized) <= limit)
        say(f"kept in float: {len(left)}; {'within' if answer else 'over'} the budget of {limit} %")
        return answer

    kept = list(ranked[: smallest_prefix(len(ranked), lambda count: fits_without(ranked[:count]))])
    for name in reversed(kept.copy()):  # the mildest first: it stood in the way of none, perhaps
        fewer = [other for other in kept if other != name]
        if fits_without(fewer):
            kept = fewer
    return set(kept), ended


def _summary(result: Mapping[str, Any], measured: int) -> list[str]:
    precision, metric, count = result["precision"], result["metric"], result["quantized"]["layers"]
    whole, mixed = (f"{percent(result[key]['loss_percent'])} %" for key in ("quantized", "mixed"))
    kept = len(result["layers_precision"])
    found = {
        f"All {count} layers can be {precision}: loss of {metric} {whole}": not kept,
        f"All in {precision}: loss of {metric} {whole}; with {kept} of {count} layers kept in float: {mixed}": kept,
        f"Calibration method: {result['calibration_method']}": len(result["loss_percent_by_method"]) > 1,
        f"No mix found that loses at most {result['max_metric_drop']} %": not result["within_budget"],
        f"budget_minutes ended after {measured} of {count} layers; the same command goes on from where this ended": (
            not result["finished"]
        ),
    }
    return [line for line, holds in found.items() if holds]
