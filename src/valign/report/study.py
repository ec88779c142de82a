"""A study as one self-contained HTML file: all methods on all models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from valign.report import choice, table, words
from valign.report.failures import KINDS, failures
from valign.report.multiples import gains_of
from valign.report.page import (
    MAX_PANELS,
    TEMPLATES,
    group_spans,
    line,
    panel,
    script_hash,
    small,
    source,
    write_page,
)
from valign.report.trade import Arm, arms, pareto_figure
from valign.study.results import Block, Results, Row


def render_study(
    results: Sequence[Results],
    rows: Mapping[str, Sequence[Row]],
    out: str | Path,
    *,
    study: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of a study; it needs no network, now or later.

    Model text is untrusted and stays text, as on the page of a run.

    Args:
        results: the numbers of each model.
        rows: single answers by name of model, for the failures.
        out: the HTML file to write.
        study: what `study.json` says.

    Returns:
        `out`.
    """
    return write_page(_page(results, rows, study or {}), out)


def _page(
    results: Sequence[Results], rows: Mapping[str, Sequence[Row]], study: Mapping[str, Any]
) -> str:
    many = len(results) > 1
    found = {r.model.name: arms(r.model.name, r.blocks, choice.unsteered(r)) for r in results}
    every = [arm for mine in found.values() for arm in mine]
    percent = all(r.scale == "presence" for r in results)
    figure = pareto_figure(every, percent=percent)
    plots = {"pareto": figure} if figure else {}
    library, script = get_plotlyjs() if plots else "", source("page.js.jinja")
    columns = [c for c in table.COLUMNS if any(c in table.used_columns(r) for r in results)]
    models = [_model(r, rows.get(r.model.name, ()), many) for r in results]
    return TEMPLATES.get_template("study.html.jinja").render(
        title=study.get("title") or "Study",
        failed=study.get("failed", []),
        command=study.get("command", ""),
        results=results,
        first=results[0] if results else None,
        many=many,
        models=models,
        columns=[(c, table.heading(c, results[0])) for c in columns] if results else [],
        lines=[
            line(block, r, False, columns) | _traded(block, found[r.model.name], r.model.name)
            for r in results
            for block in r.blocks
        ],
        front=[arm for arm in every if arm.front],
        plots=plots,
        kinds=KINDS,
        group_spans=group_spans,
        number=words.number,
        interval=words.interval,
        shown=lambda scores: ", ".join(
            f"{value} {words.number(score, signed=True)}"
            for value, score in sorted(scores.items(), key=lambda pair: -abs(pair[1]))
            if abs(score) >= 0.05
        ),
        script=Markup(script),
        library=Markup(library),
        style=Markup(source("page.css") + source("study.css")),
        hashes=" ".join(script_hash(text) for text in (library, script) if text),
    )


def _traded(block: Block, found: Sequence[Arm], model: str) -> dict[str, Any]:
    arm = next((arm for arm in found if arm.block is block), None)
    known = arm is not None and arm.tax == arm.tax
    return {
        "model": model,
        "tax": words.number(arm.tax, percent=True) if arm and known else words.MISSING,
        "tax_sort": arm.tax if arm and known else "",
        "front": bool(arm and arm.front),
    }


def _model(results: Results, rows: Sequence[Row], many: bool) -> dict[str, Any]:
    """What is drawn of one model, at the dose at which its methods are compared."""
    compared = [b for b in choice.compared(results) if b.kind != "none"][:MAX_PANELS]
    best = choice.main_block(results)
    percent = results.scale == "presence"

    def key(block: Block) -> str:
        return f"{results.model.name}: {block.label}" if many else block.label

    targets = list(dict.fromkeys(t.target for b in compared for t in b.targets))
    return {
        "results": results,
        "headline": words.headline(results),
        "dose": choice.comparison_dose(results),
        "best": key(best) if best else "",
        "panels": {key(b): panel(b, results, compared) for b in compared},
        "smalls": [(b.label, small(b, results, compared)) for b in compared],
        "values": [
            (words.pretty(t, results),
             gains_of(compared, t, title=words.pretty(t, results), percent=percent))
            for t in targets
        ],
        "failures": {key(b): failures(results, rows, b.method, b.dose) for b in compared},
        "pretty": lambda target: words.pretty(target, results),
    }  # fmt: skip
