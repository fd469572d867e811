"""The page of ``compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from nvidia_tao_deploy.data.text import counted
from nvidia_tao_deploy.report import html, plots

MIB = 2**20


def compared_page(report: Mapping[str, Any], pictures: str) -> str:
    """HTML of what compare.json holds, with the ``pictures`` (HTML) of the samples that differ most."""
    metric, rows, noise = report["metric"], report["precisions"], report["metric_noise"]
    names = [row["precision"] for row in rows]
    summary = html.paragraphs(report["verdict"][-1:], "verdict") + html.paragraphs(report["verdict"][:-1])
    summary += html.paragraphs([f"Over budget: {text}" for text in report["over_budget"]], "bad")
    about = ["Loss is in percent of fp32; memory is the GPU's, over what was in use before the model was opened."]
    about += [f"Two evaluations of fp32 differ by {html.number(noise)} in {metric}."] if noise is not None else []
    about += report["notes"]
    speed = f"On {rows[0]['runtime']}, copies to the device included; the range is over rounds of timing, in which the "
    speed += "precisions take turns."
    dots = [(row["precision"], row["timings"][0]["latency_ms"]["p50"], row["metrics"][metric]) for row in rows]
    dots = [dot for dot in dots if dot[2] is not None]
    latency = f"p50 latency, ms per batch of {rows[0]['timings'][0]['batch_size']}"
    keys = [key for key, value in rows[0]["metrics"].items() if value is None or isinstance(value, (int, float))]
    numbers = [[key, *(row["metrics"].get(key) for row in rows)] for key in keys]
    kind, classes = report["per_class_of"], _classes(rows)
    return html.page(
        f"{report['network']}: precisions compared",
        f"{counted(rows[0]['images_evaluated'], report['unit'])}, {rows[0]['images_skipped']} skipped",
        [
            ("Verdict", summary),
            ("Accuracy, size", _accuracy(rows, metric) + html.paragraphs(about, "dim")),
            ("Speed", _speed(rows, report["unit"]) + html.paragraphs([speed], "dim")),
            ("Accuracy against latency", plots.scatter(dots, latency, metric)),
            ("Scores", _scores(report["confidence"])),
            ("All metrics", html.table(["", *names], numbers)),
            (
                f"{kind} by class, most changed first",
                html.grid(
                    plots.dots(classes, names, kind),
                    html.table(["class", *names], [[name, *values] for name, values in classes]),
                ),
            )
            if classes
            else ("", ""),
            (
                f"{names[0]} and {names[-1]} where they differ most" if len(names) > 1 else "",
                pictures or html.paragraphs(["Results of this kind are not drawn here."], "dim"),
            ),
        ],
    )


def _accuracy(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    headers = ["precision", metric, "loss %", "file MiB", "memory MiB", "build s", "calibration"]
    cells = [
        [
            row["precision"],
            row["metrics"][metric],
            html.percent(row["loss_percent"]),
            row["engine_bytes"] / MIB,
            row["device_memory_bytes"] / MIB if row["device_memory_bytes"] is not None else None,
            row["build_seconds"],
            row["calibration"],
        ]
        for row in rows
    ]
    return html.table(headers, cells)


def _speed(rows: Sequence[Mapping[str, Any]], unit: str) -> str:
    rate = f"{unit}/s"
    headers = ["precision", "batch", rate, "range", "vs fp32", "p50 ms", "p90 ms", "p99 ms", f"{rate}/W"]
    cells = [
        [
            row["precision"],
            timing["batch_size"],
            timing["images_per_second"],
            "–".join(html.number(value) for value in timing["images_per_second_range"]),
            f"{timing['speedup']:.2f}x",
            *(timing["latency_ms"][key] for key in ("p50", "p90", "p99")),
            timing["images_per_second_per_watt"],
        ]
        for index in range(len(rows[0]["timings"]))
        for row in rows
        for timing in [row["timings"][index]]
    ]
    return html.table(headers, cells)


def _classes(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[float | None]]]:
    """(class, its value in each precision), the most changed first."""
    found = [(name, [row["per_class"].get(name) for row in rows]) for name in rows[0]["per_class"]]

    def change(row: tuple[str, list[float | None]]) -> float:
        first, last = row[1][0], row[1][-1]
        return inf if first is None or last is None else -abs(last - first)

    return sorted(found, key=change)


def _scores(shift: Mapping[str, Any] | None) -> str:
    if shift is None:
        text = "No scores here could be right or wrong, so no threshold can shift."
        return html.paragraphs([text], "dim")
    f1 = {name: (shift["thresholds"], row["f1"]) for name, row in shift["precisions"].items()}
    levels = {name: (row["histogram_edges"], row["histogram"]) for name, row in shift["precisions"].items()}
    drawn = html.grid(
        plots.lines(f1, "score threshold", "F1", "F1 of what has at least this score"),
        plots.lines(levels, "score", "share", "where the scores from 0.05 on lie", steps=True),
    )
    rows = []
    for name, row in shift["precisions"].items():
        here, back = row["at_fp32_threshold"], row["restored"] or {}
        rows.append(
            [name, here["precision"], here["recall"], here["f1"], *map(back.get, ("threshold", "precision", "f1"))]
        )
    point = html.number(shift["fp32_threshold"])
    headers = ["", f"precision at {point}", f"recall at {point}", f"F1 at {point}"]
    headers += ["threshold for fp32's recall", "precision there", "F1 there"]
    return drawn + html.table(headers, rows)
