"""Plots as inline SVG, written by hand: points and lines over two linear axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from math import floor, isfinite, log10

from nvidia_tao_deploy.report.html import number

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 12, 34
LABEL, ROW, LETTERS = 110, 16, 20  # of a plot with a label per row
COLORS = 5  # --s0 ... of the style sheet

Series = tuple[Sequence[float], Sequence[float]]


def lines(series: Mapping[str, Series], x_title: str, y_title: str, caption: str = "", *, steps: bool = False) -> str:
    """One line per series over shared axes, with a legend.

    Args:
        series: name -> (x, y), equally long; points that are not finite are left out.
        steps: draw each y as a level from its x to the next (histograms; x are left edges).

    Returns:
        A <figure>, or "" where there is no point.
    """
    frame = _Frame.around(series, x_title, y_title, zero=True)
    if frame is None:
        return ""
    parts = []
    for index, (xs, ys) in enumerate(series.values()):
        points = [(frame.x(x), frame.y(y)) for x, y in zip(xs, ys, strict=True) if isfinite(x) and isfinite(y)]
        if steps and len(points) > 1:
            points.append((2 * points[-1][0] - points[-2][0], points[-1][1]))
            points = [p for a, b in pairwise(points) for p in (a, (b[0], a[1]))]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{_color(index)}" {_stroke(index)}/>')
    return _figure(frame.axes() + "".join(parts), list(series), caption)


def scatter(points: Sequence[tuple[str, float, float]], x_title: str, y_title: str) -> str:
    """Named points, (name, x, y) each; "" where there is none."""
    series: dict[str, Series] = {name: ((x,), (y,)) for name, x, y in points if isfinite(x) and isfinite(y)}
    frame = _Frame.around(series, x_title, y_title, zero=False)
    if frame is None:
        return ""
    dots = "".join(
        f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" {_ring(index, 1.6)}/>'
        for index, ((x,), (y,)) in enumerate(series.values())
    )
    return _figure(frame.axes() + dots, list(series), "")


def dots(rows: Sequence[tuple[str, Sequence[float | None]]], names: Sequence[str], x_title: str) -> str:
    """A line per row (label, values) with a dot per name, over one axis; none for None, NaN; "" without numbers."""
    known = [v for _, values in rows for v in values if v is not None and isfinite(v)]
    if not known:
        return ""
    height = TOP + BOTTOM + ROW * len(rows)
    ticks = _ticks(min(known), max(known))

    def across(value: float) -> float:
        return LABEL + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (WIDTH - LABEL - RIGHT)

    parts = _x_axis([(across(tick), tick) for tick in ticks], height)
    for row, (label, values) in enumerate(rows):
        y = TOP + ROW * (row + 0.5)
        short = label if len(label) <= LETTERS else f"{label[: LETTERS - 1]}\u2026"
        parts.append(f'<text x="{LABEL - 6}" y="{y + 3:.1f}" text-anchor="end">{escape(short)}</text>')
        parts.append(f'<path class="axis" d="M{LABEL} {y:.1f}H{WIDTH - RIGHT}"/>')
        for index, value in enumerate(values):
            if value is not None and isfinite(value):
                parts.append(f'<circle cx="{across(value):.1f}" cy="{y:.1f}" {_ring(index)}/>')
    parts.append(f'<text x="{(WIDTH + LABEL) / 2}" y="{height - 6}" text-anchor="middle">{escape(x_title)}</text>')
    return _figure("".join(parts), names, "", height)


class _Frame:
    """Axes: data ranges and the way from data to the drawing."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float], x_title: str, y_title: str) -> None:
        self.x_ticks, self.y_ticks = _ticks(min(xs), max(xs)), _ticks(min(ys), max(ys))
        self._titles = x_title, y_title

    @classmethod
    def around(cls, series: Mapping[str, Series], x_title: str, y_title: str, *, zero: bool) -> _Frame | None:
        pairs = [p for xs, ys in series.values() for p in zip(xs, ys, strict=True) if all(map(isfinite, p))]
        if not pairs:
            return None
        xs, ys = [p[0] for p in pairs], [p[1] for p in pairs]
        # At least 1 % of the values is shown: what is alike looks alike.
        least = [0.0] if zero else [value * factor for value in (min(ys), max(ys)) for factor in (0.995, 1.005)]
        return cls([*xs, 0.0], [*ys, *least], x_title, y_title)

    def x(self, value: float) -> float:
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def axes(self) -> str:
        parts = _x_axis([(self.x(tick), tick) for tick in self.x_ticks], HEIGHT)
        for tick in self.y_ticks:
            y = self.y(tick)
            parts.append(f'<path class="axis" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{number(tick, 7)}</text>')
        x_title, y_title = map(escape, self._titles)
        middle = (HEIGHT - BOTTOM + TOP) / 2
        parts.append(f'<text x="{(WIDTH + LEFT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{x_title}</text>')
        parts.append(f'<text transform="translate(10 {middle}) rotate(-90)" text-anchor="middle">{y_title}</text>')
        return "".join(parts)


def _x_axis(ticks: Sequence[tuple[float, float]], height: int) -> list[str]:
    """Lines and numbers at (x, value) each."""
    parts = []
    for x, value in ticks:
        parts.append(f'<path class="axis" d="M{x:.1f} {TOP}V{height - BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - BOTTOM + 12}" text-anchor="middle">{number(value, 7)}</text>')
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round values that enclose ``low`` and ``high``."""
    if high <= low:
        pad = abs(low) * 0.05 or 0.5
        low, high = low - pad, high + pad
    step = 10.0 ** floor(log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    first = floor(low / step + 1e-9)
    count = 1
    while (first + count) * step < high - step * 1e-9:
        count += 1
    return [float(f"{(first + i) * step:.10g}") for i in range(count + 1)]


def _color(index: int) -> str:
    return f"var(--s{index % COLORS})"


def _stroke(index: int) -> str:
    """The first line is broad and whole, the others narrow and dashed: lines that coincide stay visible."""
    return (
        'stroke-width="3.2" stroke-opacity=".45"'
        if index == 0
        else f'stroke-width="1.5" stroke-dasharray="{4 * index} 2"'
    )


def _ring(index: int, size: float = 1.0) -> str:
    """The first dot is a disc, the others ever wider rings: dots that coincide stay visible."""
    if index == 0:
        return f'r="{2.5 * size:.1f}" fill="{_color(0)}"'
    return f'r="{(2 + 1.5 * index) * size:.1f}" fill="none" stroke-width="{1.3 * size:.1f}" stroke="{_color(index)}"'


def _figure(drawing: str, names: Sequence[str], caption: str, height: int = HEIGHT) -> str:
    legend = " &nbsp; ".join(
        f'<span style="color:{_color(index)}">&#9632;</span> {escape(name)}' for index, name in enumerate(names)
    )
    text = f"<br>{escape(caption)}" if caption else ""
    svg = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(caption)}">{drawing}</svg>'
    return f'<figure>{svg}<figcaption class="dim">{legend}{text}</figcaption></figure>'
