"""The score along the decoding, with and without guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from valign.control import BridgeControl
from valign.lm import HostModel, generate
from valign.lm.render import Prompt
from valign.values import ValignError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def score_curves(
    lm: HostModel, prompts: Sequence[Prompt], control: BridgeControl, **options: Any
) -> dict[str, dict[str, np.ndarray]]:
    """What the value module reads while answers are made.

    The unguided reading is the same module's on the plain model's own answers (strength 0).

    Args:
        options: of `generate`: length, temperature, seed.

    Returns:
        {"guided" | "unguided": {"tokens": (n,) answer tokens that were there, value: (n,) mean
        logit over the answers that were still going on, "answers": (n,) how many these are}}, for
        each value with a goal.

    Raises:
        ValignError: a static control, which reads once.
    """
    if not control.refresh:
        raise ValignError("A static bridge reads the prompt only; there is no curve to draw.")
    curves = {}
    for name, arm in (("guided", control), ("unguided", control.scaled(0.0))):
        told = [r.guidance for r in generate(lm, prompts, arm, **options).receipts]
        length = max(g.refreshes for g in told)
        table = np.full((len(told), length, len(control.scores)), np.nan)
        for row, guidance in enumerate(told):
            table[row, : guidance.refreshes] = guidance.before
        columns = [control.scores.index(value) for value in control.goals]
        means = np.nanmean(table, axis=0)
        curves[name] = {
            "tokens": np.arange(length) * control.refresh,
            "answers": (~np.isnan(table[:, :, 0])).sum(0),
            **{control.scores[c]: means[:, c] for c in columns},
        }
    return curves


def draw_scores(curves: dict[str, dict[str, np.ndarray]], goals: dict[str, float]) -> Figure:
    """A figure of `score_curves`: solid guided, dotted unguided, a line at each goal."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, dash in (("guided", "solid"), ("unguided", "dot")):
        for value in goals:
            figure.add_scatter(
                x=curves[name]["tokens"], y=curves[name][value], mode="lines",
                name=f"{value}, {name}", line={"dash": dash},
                customdata=curves[name]["answers"], hovertemplate="%{y:.2f}, %{customdata} answers",
            )  # fmt: skip
    for value, goal in goals.items():
        figure.add_hline(y=goal, line={"width": 1, "dash": "dash"}, annotation_text=f"goal {value}")
    figure.update_layout(xaxis_title="answer tokens", yaxis_title="score (logit)")
    return figure
