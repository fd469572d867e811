"""One self-contained HTML page: no script, no font, no picture from elsewhere; whatever a user named is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import isfinite
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #5b6570; --line: #d5dae0; --back: #ffffff; --bar: #3b6fb6;
  --bad: #b3261e; --good: #1b7a3d; --s0: #3b6fb6; --s1: #c2641c; --s2: #2f8a57; --s3: #8b4bb0; --s4: #7a6a12; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --dim: #9aa5b1; --line: #3a424b; --back: #15181c;
  --bar: #6fa0e0; --bad: #ff8a80; --good: #7fd49b; --s0: #6fa0e0; --s1: #f0a060; --s2: #6fcf97; --s3: #c79be6;
  --s4: #d8c65a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 82rem; padding: 1.2rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--back); overflow-wrap: anywhere; }
h1 { font-size: 1.45rem; line-height: 1.25; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; max-width: 60rem; } .dim { color: var(--dim); } .bad { color: var(--bad); }
.good { color: var(--good); } .verdict { font-size: 1.1rem; font-weight: 600; border-left: 4px solid;
  padding-left: .7rem; }
.wide { overflow-x: auto; font-size: .93rem; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th { font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.2rem 2rem; }
.plots > div { min-width: 0; }
figure { margin: 0 0 .8rem; max-width: 36rem; } svg { width: 100%; height: auto; }
figcaption { font-size: .87rem; }
svg text { fill: var(--ink); font: 10px system-ui, sans-serif; } svg .axis { stroke: var(--line); fill: none; }
.bars { display: grid; grid-template-columns: minmax(7rem, 24rem) 1fr auto; gap: .25rem .7rem; align-items: center; }
.bars i { display: block; height: .8rem; background: var(--bar); min-width: 1px; } .bars b { font-weight: 400; }
h3 { font-size: .93rem; font-weight: 600; margin: 1.1rem 0 .3rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; margin-bottom: .9rem; }
.pair img { width: min(100%, 26rem); }
.pair { max-width: 56rem; } @media (max-width: 40rem) { .bars { grid-template-columns: 1fr auto; }
  .bars b { grid-column: 1 / -1; margin-top: .4rem; } }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .7rem; }
"""


def page(title: str, subtitle: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole page of sections (heading text, body made by the functions of this room); empty bodies are left out."""
    parts = [f"<section><h2>{escape(heading)}</h2>{body}</section>" for heading, body in sections if body]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<h1>{escape(title)}</h1><p class="dim">{escape(subtitle)}</p>{"".join(parts)}</body></html>\n'
    )


def number(value: Any, digits: int = 4) -> str:
    """``value`` with ``digits`` significant digits; text as it is; a dash for None and NaN."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    """Two decimals, without the minus of a zero; a dash for None."""
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}"


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table that scrolls sideways where it is too wide; cells are text or numbers."""
    head = "".join(f"<th>{escape(text)}</th>" for text in headers)
    body = "".join(f"<tr>{''.join(f'<td>{escape(number(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def paragraphs(texts: Sequence[str], kind: str = "") -> str:
    """One paragraph per text; ``kind`` is a class of the style sheet: dim, bad, good, verdict."""
    return "".join(f'<p class="{escape(kind)}">{escape(text)}</p>' for text in texts)


def listing(text: str) -> str:
    """Text to copy."""
    return f"<pre>{escape(text)}</pre>"


def grid(*parts: str) -> str:
    """Figures and tables beside each other as far as there is room; "" for none."""
    cells = "".join(f"<div>{part}</div>" for part in parts if part)
    return f'<div class="plots">{cells}</div>' if cells else ""


def pair(cells: Sequence[tuple[str, str]], title: str, kind: str) -> str:
    """Pictures side by side under a title: (data URI, text below it) each; ``kind`` of the texts: dim or bad."""
    figures = "".join(
        f'<figure><img src="{escape(uri)}" alt=""><figcaption class="{kind}">{escape(text)}</figcaption></figure>'
        for uri, text in cells
    )
    return f'<h3>{escape(title)}</h3><div class="pair">{figures}</div>'


def bars(rows: Sequence[tuple[str, float, str]], whole: float) -> str:
    """Horizontal bars: (label, length, what is written at the end); negative lengths have no bar.

    The longest bar has the whole width if it is as long as ``whole``.
    """
    longest = max([whole, *(length for _, length, _ in rows if isfinite(length))]) or 1.0
    cells = []
    for label, length, text in rows:
        share = 100 * min(1.0, max(0.0, length / longest)) if isfinite(length) else 0.0
        cells.append(f'<b>{escape(label)}</b><i style="width:{share:.1f}%"></i><span>{escape(text)}</span>')
    return f'<div class="bars">{"".join(cells)}</div>' if rows else ""
