"""A front of mixtures as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from valign.report.figures import PALETTE
from valign.report.page import TEMPLATES, script_hash, source, write_page
from valign.study.front_result import FrontResult, Interval, Point


def render_front(result: FrontResult, out: str | Path) -> Path:
    """Write the page of a front; it needs no network, now or later."""
    plots = {
        f"front{k}": figure(result, a, b) for k, (a, b) in enumerate(combinations(result.values, 2))
    }
    script, library = source("page.js.jinja"), get_plotlyjs()
    text = TEMPLATES.get_template("front.html.jinja").render(
        r=result,
        title=f"Mixtures of {', '.join(result.values)}",
        plots=plots,
        points=[("plain model", result.plain, False)]
        + [(told(p), p, k == result.chosen) for k, p in enumerate(result.points)],
        read=[v for v in result.values if result.reward and v in result.plain.scores],
        cell=_cell,
        words=_words,
        others=lambda p: _others(result, p),
        script=Markup(script),
        library=Markup(library),
        style=Markup(source("page.css")),
        hashes=" ".join(script_hash(part) for part in (library, script)),
    )
    return write_page(text, out)


def told(point: Point) -> str:
    """The mixture in words: `benevolence 1, power 0.5`."""
    return _words(point.weights)


def _words(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{value} {weight:g}" for value, weight in weights.items())


def figure(result: FrontResult, x: str, y: str) -> dict[str, Any]:
    """Candidates, judged points with intervals, and the choice, for two of the values."""
    judged = sorted(result.points, key=lambda p: p.objective(x).value)
    flat = len(result.values) == 2
    what = "reward" if result.reward else "score"
    traces = [
        {
            "type": "scatter", "mode": "markers", "name": "searched (other prompts)",
            "x": [s.scores[x] for s in result.searched],
            "y": [s.scores[y] for s in result.searched],
            "text": [_words(s.weights) for s in result.searched],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"size": 6, "opacity": 0.35, "color": PALETTE[7]},
        },
        _judged("front", judged, x, y, PALETTE[0], "circle", lines=flat),
        _judged("plain model", [result.plain], x, y, PALETTE[1], "square"),
    ]  # fmt: skip
    if result.chosen is not None:
        chosen = [result.points[result.chosen]]
        traces.append(_judged("chosen", chosen, x, y, PALETTE[2], "star"))
    axis = {"zeroline": True}
    return {
        "data": traces,
        "layout": {
            "xaxis": {"title": {"text": f"mean {what}: {x}"}, **axis},
            "yaxis": {"title": {"text": f"mean {what}: {y}"}, **axis},
            "height": 460,
            "legend": {"orientation": "h", "y": 1.12},
            "margin": {"t": 40, "r": 20},
        },
    }


def _judged(
    name: str, points: list[Point], x: str, y: str, colour: str, symbol: str, *, lines: bool = False
) -> dict[str, Any]:
    def bars(value: str) -> dict[str, Any]:
        cells = [p.objective(value) for p in points]
        return {
            "type": "data", "symmetric": False, "thickness": 1, "width": 0,
            "array": [c.high - c.value for c in cells],
            "arrayminus": [c.value - c.low for c in cells],
        }  # fmt: skip

    return {
        "type": "scatter", "mode": "lines+markers" if lines else "markers", "name": name,
        "x": [p.objective(x).value for p in points], "y": [p.objective(y).value for p in points],
        "error_x": bars(x), "error_y": bars(y),
        "text": [told(p) for p in points], "hovertemplate": "%{text}<extra></extra>",
        "line": {"width": 1, "dash": "dot", "color": colour},
        "marker": {"size": 14 if symbol == "star" else 10, "color": colour, "symbol": symbol},
    }  # fmt: skip


def _cell(found: Interval | None) -> str:
    if found is None:
        return "–"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _others(result: FrontResult, point: Point) -> str:
    """What else moved: the largest shift among the values without an adapter."""
    moved = {
        v: s.value - result.plain.scores[v].value
        for v, s in point.scores.items()
        if v not in result.values
    }
    if not moved:
        return "–"
    worst = max(moved, key=lambda v: abs(moved[v]))
    return f"{worst} {moved[worst]:+.2f}"
