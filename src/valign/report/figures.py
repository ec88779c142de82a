"""Interactive figures as plain Plotly specifications: gain against leakage, and dose curves.

They carry no colours of page or text: the page's script puts those in, for light and dark.
"""

from __future__ import annotations

import math
from typing import Any

from valign.report.choice import compared
from valign.report.words import interval
from valign.study.results import Measured, Metrics, Results

Figure = dict[str, Any]

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
"""Okabe and Ito's colours, told apart by colour-blind readers; black and yellow replaced, which
vanish on a dark or a light page. Symbols and dashes repeat the distinction."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "triangle-down")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")


def trade_off(results: Results) -> Figure | None:
    """Gain against leakage of all compared methods, with both intervals."""
    found = [
        b
        for b in compared(results)
        if b.summary.leakage is not None and b.summary.leakage.defined and b.summary.gain.defined
    ]
    steered = [b for b in found if b.kind != "none"]
    if not steered:
        return None
    percent = results.scale == "presence"
    unit, suffix = _points(results)
    style = _styles(results)
    traces = []
    for block in found:
        gain, leak = block.summary.gain, block.summary.leakage
        assert leak is not None
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": block.label,
                "x": [gain.value * unit],
                "y": [leak.value * unit],
                "error_x": error_bars([gain], unit),
                "error_y": error_bars([leak], unit),
                "marker": {"size": 11, **style[block.method]["marker"]},
                "hovertemplate": told(
                    block.label,
                    f"gain {interval(gain, percent=percent, signed=True)}",
                    f"leakage {interval(leak, percent=percent, signed=True)}",
                ),
            }
        )
    layout = axes("Gain" + suffix, "Leakage per other value" + suffix, False)
    return {"data": traces, "layout": layout}


CURVES: tuple[tuple[str, str, bool], ...] = (
    ("gain", "Gain", True),
    ("leakage", "Leakage per other value", True),
    ("facts_kept", "Facts kept", True),
    ("fluency", "Fluent answers", True),
    ("perplexity", "Perplexity", False),
)


def dose_curves(results: Results) -> list[tuple[str, Figure]]:
    """(metric title, figure) for each metric some curve holds, one line per method.

    Curves over all targets are drawn where there are any, else those of single targets.
    """
    means = [c for c in results.curves if c.target is None]
    curves = means or results.curves
    style = _styles(results)
    found = []
    for key, title, share in CURVES:
        change = key in ("gain", "leakage")
        percent = share and not (results.scale == "intensity" and change)
        unit, suffix = _points(results) if change else (1.0, "")
        traces = []
        for curve in curves:
            points = [(p, _of(p.metrics, key)) for p in curve.points]
            kept = sorted(
                ((p.p95, m) for p, m in points if m is not None and m.defined and p.p95.defined),
                key=lambda pair: pair[0].value,
            )
            if not kept:
                continue
            name = curve.method if curve.target is None else f"{curve.method}, {curve.target}"
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": name,
                    "x": [dose.value for dose, _ in kept],
                    "y": [m.value * unit for _, m in kept],
                    "error_y": error_bars([m for _, m in kept], unit),
                    "text": [interval(m, percent=percent, signed=change) for _, m in kept],
                    "hovertemplate": told(name, "dose %{x:.3g} nats", "%{text}"),
                    **style.get(curve.method, style[""]),
                }
            )
        if traces:
            layout = axes("Measured dose (nats, log scale)", title + suffix, percent and not change)
            asked = sorted({point.asked for curve in curves for point in curve.points})
            layout["xaxis"] |= {
                "type": "log",
                "tickmode": "array",
                "tickvals": asked,
                "ticktext": [f"{dose:g}" for dose in asked],
            }
            found.append((title, {"data": traces, "layout": layout}))
    return found


def _of(metrics: Metrics, key: str) -> Measured | None:
    return getattr(metrics, key)


def _points(results: Results) -> tuple[float, str]:
    """Changes of a share are drawn in percentage points."""
    return (100.0, " (points)") if results.scale == "presence" else (1.0, "")


def error_bars(measured: list[Measured], unit: float) -> dict[str, Any]:
    """Intervals as Plotly draws them."""

    def arm(x: float) -> float | None:
        return max(0.0, x) * unit if math.isfinite(x) else None

    return {
        "type": "data",
        "symmetric": False,
        "array": [arm(m.high - m.value) for m in measured],
        "arrayminus": [arm(m.value - m.low) for m in measured],
        "thickness": 1.2,
        "width": 3,
    }


def _styles(results: Results) -> dict[str, dict[str, Any]]:
    methods = list(dict.fromkeys([b.method for b in results.blocks]))
    methods += [c.method for c in results.curves if c.method not in methods]
    found: dict[str, dict[str, Any]] = {}
    for k, method in enumerate([*methods, ""]):
        colour, symbol = PALETTE[k % len(PALETTE)], SYMBOLS[(k + k // 8) % len(SYMBOLS)]
        found[method] = {
            "marker": {"color": colour, "symbol": symbol, "size": 8},
            "line": {"color": colour, "dash": _DASHES[k % len(_DASHES)], "width": 2},
        }
    for entry in found.values():
        entry["marker"]["size"] = 9
    return found


def told(*lines: str) -> str:
    """Hover text."""
    # Plotly reads a small HTML subset in hover text and legends; method names are not HTML.
    safe = [line.replace("<", "‹").replace(">", "›") for line in lines]
    return "<br>".join(safe) + "<extra></extra>"


def axes(x: str, y: str, percent: bool) -> dict[str, Any]:
    """A layout with titled axes."""

    def axis(title: str) -> dict[str, Any]:
        return {"title": {"text": title}, "automargin": True, "zeroline": True}

    return {
        "xaxis": axis(x),
        "yaxis": axis(y) | ({"tickformat": ".0%"} if percent else {}),
        "margin": {"l": 60, "r": 16, "t": 16, "b": 50},
        "legend": {"orientation": "h", "y": -0.25, "x": 0},
        "hovermode": "closest",
    }
