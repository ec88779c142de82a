"""One run as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from valign.report import choice, circle, figures, table, words
from valign.report.marks import coloured
from valign.study.results import Block, Measured, Results, Row, SystemInfo

TEMPLATES = Environment(
    loader=PackageLoader("valign.report", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
MAX_PANELS = 24
"""Blocks whose circles and matrices are drawn; the table holds all of them."""


def render(results: Results, rows: Iterable[Row], out: str | Path) -> Path:
    """Write the page of a run; it needs no network, now or later.

    Model text is untrusted: templates escape it, data blocks are escaped JSON, and a content
    security policy lets only the page's own two scripts run, known by their hash.

    Args:
        results: what to show.
        rows: single answers; read only where `results.samples` is empty.
        out: the HTML file to write. A reader meanwhile sees the old page or the new one whole.

    Returns:
        `out`.
    """
    return write_page(_page(results, rows), out)


def write_page(text: str, out: str | Path) -> Path:
    """Write a page whole or not at all."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    partial.write_text(text, "utf-8")
    os.replace(partial, out)
    return out


def _page(results: Results, rows: Iterable[Row]) -> str:
    compared = choice.compared(results)
    steered = [b for b in compared if b.kind != "none"][:MAX_PANELS]
    best = choice.main_block(results)
    trade, curves = figures.trade_off(results), figures.dose_curves(results)
    plots = {"trade": trade} if trade else {}
    plots |= {f"curve{k}": figure for k, (_, figure) in enumerate(curves)}
    script = source("page.js.jinja")
    library = get_plotlyjs() if plots else ""
    drawn = {b.label: panel(b, results, steered) for b in steered}
    samples = choice.samples(results, rows)
    return TEMPLATES.get_template("page.html.jinja").render(
        r=results,
        headline=words.headline(results),
        reading=choice.main_reading(results),
        dose=choice.comparison_dose(results),
        best=best.label if best else "",
        panels=drawn,
        smalls=[(b.label, small(b, results, steered)) for b in steered],
        plots=plots,
        curves=[(f"curve{k}", title) for k, (title, _) in enumerate(curves)],
        columns=[(c, table.heading(c, results)) for c in table.used_columns(results)],
        lines=[line(b, results, b.label == getattr(best, "label", None)) for b in results.blocks],
        readings=len({b.reading for b in results.blocks}) > 1,
        samples=samples,
        sample_targets=list(dict.fromkeys(s.target for s in samples)),
        receipts={b.label: b for b in steered if any(t.receipt for t in b.targets)},
        picked="" if results.samples else "Prompts are the first of each target in id order.",
        marked=any(sample.marks.get(label) for sample in samples for label in sample.answers),
        coloured=lambda sample, label: coloured(
            sample.answers[label], sample.marks.get(label, []), sample.target, results.system
        ),
        costs=[b for b in results.blocks if b.cost],
        group_spans=group_spans,
        shown_scores=_shown_scores,
        pretty=lambda target: words.pretty(target, results),
        interval=words.interval,
        number=words.number,
        script=Markup(script),
        library=Markup(library),
        style=Markup(source("page.css")),
        hashes=" ".join(script_hash(text) for text in (library, script) if text),
    )


def line(
    block: Block, results: Results, best: bool, columns: Sequence[table.Column] | None = None
) -> dict[str, Any]:
    """A row of the table of methods; `columns` default to those the results fill."""
    cells = []
    for column in table.used_columns(results) if columns is None else columns:
        m = column.get(block)
        percent = table.as_percent(column, results)
        whole = words.interval(m, percent=percent, signed=column.signed)
        point, _, rest = whole.partition(" ")
        sort = m.value if m is not None and math.isfinite(m.value) else ""
        cells.append({"point": point, "rest": rest, "sort": sort})
    return {"block": block, "cells": cells, "best": best}


def panel(block: Block, results: Results, among: list[Block]) -> dict[str, Any]:
    """Circles and matrix of one block; colours and rims are those of all of `among`."""
    system = results.system
    draw = circle.circle if system.angles is not None else circle.bars
    top = _rim(among)
    heat = _largest(among)
    percent = results.scale == "presence"
    return {
        "block": block,
        "circles": [
            (words.pretty(t.target, results), draw(block, k, system, scale=results.scale, top=top))
            for k, t in enumerate(block.targets)
        ],
        "rows": [
            (
                words.pretty(t.target, results),
                t.no_control,
                [
                    {
                        "style": Markup(circle.shade(m, heat)),
                        "dark": m.defined and heat > 0 and abs(m.value) / heat > 0.8,
                        "sure": m.defined and (m.low > 0 or m.high < 0),
                        "own": j in circle.named_values(t.target, system),
                        "text": _cell(m, percent),
                        "tip": words.interval(m, percent=percent, signed=True),
                    }
                    for j, m in enumerate(block.shift[k])
                ],
            )
            for k, t in enumerate(block.targets)
        ],
        "groups": _group_rows(block, results),
    }


def group_spans(system: SystemInfo) -> list[dict[str, Any]]:
    """Runs of neighbouring columns of one group, for the head of a matrix.

    A value of several groups is shown under the first that claims it.
    """
    home: dict[str, str] = {}
    for group, members in system.groups.items():
        for value in members:
            home.setdefault(value, group)
    spans: list[dict[str, Any]] = []
    for value in system.values:
        title = system.group_titles.get(home.get(value, ""), home.get(value, ""))
        if spans and spans[-1]["title"] == title:
            spans[-1]["width"] += 1
        else:
            spans.append({"title": title, "width": 1})
    return spans


def _shown_scores(scores: dict[str, float]) -> str:
    found = {v: s for v, s in scores.items() if math.isfinite(s) and abs(s) >= 0.05}
    ranked = sorted(found.items(), key=lambda pair: -abs(pair[1]))
    return ", ".join(f"{value} {words.number(s, signed=True)}" for value, s in ranked)


def _group_rows(block: Block, results: Results) -> list[tuple[str, list[str]]]:
    if not block.group_leakage:
        return []
    titles = [results.system.group_titles.get(g, g) for g in results.system.groups]
    percent = results.scale == "presence"
    return [
        (title, [words.interval(m, percent=percent, signed=True) for m in row])
        for title, row in zip(titles, block.group_leakage, strict=True)
        if any(m.defined for m in row)
    ]


def small(block: Block, results: Results, among: list[Block]) -> Markup:
    """The matrix of one block without numbers."""
    return circle.small_heat(block, results.system, top=_largest(among))


def _cell(m: Measured, percent: bool) -> str:
    if not m.defined:
        return words.MISSING
    scaled = round(100 * m.value) if percent else round(10 * m.value)
    return f"{scaled:+d}".replace("-", "−").replace("+0", "0")


def _largest(blocks: list[Block]) -> float:
    """One colour scale for all methods: the largest shift of any of them."""
    sizes = [abs(m.value) for b in blocks for row in b.shift for m in row if m.defined]
    return max(sizes, default=0.0)


def _rim(blocks: list[Block]) -> float:
    """One rim for all circles: the next tenth above the largest mean."""
    means = [abs(m.value) for b in blocks for row in [b.c0, *b.c] for m in row if m.defined]
    return min(1.0, math.ceil(max(means, default=1.0) * 10 + 1e-9) / 10) or 1.0


def source(name: str) -> str:
    """A template as it stands in its file."""
    loader = TEMPLATES.loader
    assert loader is not None
    return loader.get_source(TEMPLATES, name)[0]


def script_hash(script: str) -> str:
    """What the content security policy calls a script."""
    # Browsers normalise line ends before they hash.
    digest = hashlib.sha256(re.sub(r"\r\n?", "\n", script).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
