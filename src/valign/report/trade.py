"""Gain against leakage against tax: which arms of a study are not beaten, as a picture.

The tax here is one number made for the picture (ours): the mean of what was measured among the
fluent answers lost, the wrong facts gained and the neutral answers changed, each as a share and
against the unsteered model. The table holds the parts with their intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from valign.measure.pareto import non_dominated
from valign.report.figures import PALETTE, SYMBOLS, Figure, axes, error_bars, told
from valign.report.words import interval, number
from valign.study.results import Block, Measured


@dataclass(frozen=True)
class Arm:
    """One steered block of one model.

    Attributes:
        tax: see the module; NaN where nothing of it was measured.
        front: it gains (by its interval), and no other arm of the same model that gains is as
            good in gain, leakage and tax and better in one of them. Without the first condition
            whatever does nothing would stand on the front: it costs nothing.
    """

    model: str
    block: Block
    tax: float
    front: bool = False


def tax(block: Block, plain: Block | None) -> float:
    """The mean share lost, against the unsteered model."""
    s, base = block.summary, plain.summary if plain else None

    def rise(now: Measured | None, before: Measured | None, sign: float) -> float:
        if now is None or before is None:
            return math.nan
        return sign * (now.value - before.value)

    parts = [
        rise(s.fluency, base.fluency if base else None, -1),
        rise(s.facts_wrong, base.facts_wrong if base else None, 1),
        math.nan if s.neutral_unchanged is None else 1 - s.neutral_unchanged.value,
    ]
    known = [part for part in parts if math.isfinite(part)]
    return sum(known) / len(known) if known else math.nan


def arms(model: str, blocks: Sequence[Block], plain: Block | None) -> list[Arm]:
    """All steered arms of a model that have gain and leakage, with the front marked."""
    found = [
        Arm(model, block, tax(block, plain))
        for block in blocks
        if block.kind != "none"
        and block.summary.gain.defined
        and block.summary.leakage is not None
        and block.summary.leakage.defined
    ]
    if not found:
        return []
    gaining = [arm.block.summary.gain.low > 0 for arm in found]
    points = np.array([_place(arm) if gains else [np.nan] * 3
                       for arm, gains in zip(found, gaining, strict=True)])  # fmt: skip
    front = non_dominated(points)
    return [replace(arm, front=bool(best)) for arm, best in zip(found, front, strict=True)]


def _place(arm: Arm) -> list[float]:
    """Gain, leakage and tax, larger is better."""
    s = arm.block.summary
    assert s.leakage is not None
    return [s.gain.value, -s.leakage.value, 0.0 if math.isnan(arm.tax) else -arm.tax]


def pareto_figure(found: Sequence[Arm], *, percent: bool) -> Figure | None:
    """Gain against leakage; colour is tax, a line joins the doses of a method, a ring is the
    front."""
    if not found:
        return None
    unit, suffix = (100.0, " (points)") if percent else (1.0, "")
    many = len({arm.model for arm in found}) > 1
    traces = []
    lines: dict[tuple[str, str], list[Arm]] = {}
    for arm in found:
        lines.setdefault((arm.model, arm.block.method), []).append(arm)
    methods = list(dict.fromkeys(arm.block.method for arm in found))
    for (model, method), mine in lines.items():
        mine = sorted(mine, key=lambda arm: arm.block.dose or 0)
        gain = [arm.block.summary.gain for arm in mine]
        leak = [m for arm in mine if (m := arm.block.summary.leakage) is not None]
        place = methods.index(method)
        symbol = SYMBOLS[place % len(SYMBOLS)]
        name = f"{model}: {method}" if many else method
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [m.value * unit for m in gain],
                "y": [m.value * unit for m in leak],
                "error_x": error_bars(gain, unit) | {"color": "#9aa0a8", "thickness": 0.8},
                "error_y": error_bars(leak, unit) | {"color": "#9aa0a8", "thickness": 0.8},
                "line": {"color": PALETTE[place % len(PALETTE)], "width": 1.2, "dash": "dot"},
                "marker": {
                    "symbol": symbol,
                    "size": [15 if arm.front else 9 for arm in mine],
                    "color": [None if math.isnan(a.tax) else a.tax * 100 for a in mine],
                    "coloraxis": "coloraxis",
                    "line": {
                        "width": [2.5 if arm.front else 0.5 for arm in mine],
                        "color": PALETTE[place % len(PALETTE)],
                    },
                },
                "text": [_hover(arm, percent) for arm in mine],
                "hovertemplate": told("%{text}"),
            }
        )
    layout = axes("Gain" + suffix, "Leakage per other value" + suffix, False)
    layout["coloraxis"] = {
        "colorscale": [[0, "#56b4e9"], [0.5, "#e69f00"], [1, "#a02c00"]],
        "colorbar": {"title": {"text": "Tax (points)", "side": "right"}, "thickness": 12},
    }
    layout["margin"] |= {"r": 8}
    return {"data": traces, "layout": layout}


def _hover(arm: Arm, percent: bool) -> str:
    s = arm.block.summary
    lines = [
        arm.block.label + (" (not beaten)" if arm.front else ""),
        f"gain {interval(s.gain, percent=percent, signed=True)}",
        f"leakage {interval(s.leakage, percent=percent, signed=True)}",
        f"tax {number(arm.tax, percent=True)}",
    ]
    # Plotly reads a small HTML subset; names of methods are not HTML.
    return "<br>".join(line.replace("<", "‹").replace(">", "›") for line in lines)
