"""`valign drift`: what moved between two checkpoints."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table

from valign.cli.asking import (
    ANCHORED,
    BATCH_SIZE,
    ITEMS,
    JSON,
    OUT,
    PAIRS,
    QUESTIONNAIRE,
    RESPONDENTS,
    SCORING,
    SEED,
    SHUFFLED,
    checked_scoring,
    head,
    plain,
    respond_as,
    say_rates,
    signed,
    take_survey,
    written,
)
from valign.cli.console import out
from valign.cli.options import DTYPE, TRUST_REMOTE_CODE


def register(app: typer.Typer) -> None:
    app.command("drift")(drift)


def drift(
    before: str = typer.Argument(..., help="Folder or Hub name of the first checkpoint."),
    after: str = typer.Argument(..., help="Folder or Hub name of the second."),
    questionnaire: str = QUESTIONNAIRE,
    items: Path | None = ITEMS,
    target: str | None = typer.Option(None, "--target", help="The value that was meant to move."),
    respondents: int = RESPONDENTS,
    anchored: bool = ANCHORED,
    scoring: str = SCORING,
    pairs: int = PAIRS,
    shuffled: bool = SHUFFLED,
    seed: int = SEED,
    batch_size: int = BATCH_SIZE,
    dtype: str = DTYPE,
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    json: bool = JSON,
    file: Path | None = OUT,
) -> None:
    """Compare the value profiles of two checkpoints: what moved, and at what tax."""
    from valign.cli.arguments import load_model
    from valign.measure import MeasureError
    from valign.study.survey import as_json, compare
    from valign.values.questionnaires import load_questionnaire

    form = load_questionnaire(questionnaire, items=items)
    if target is not None and target not in form.values:
        raise MeasureError(f"{target!r} is not scored; values are {', '.join(form.values)}.")
    people = respond_as(form, respondents, anchored, seed)
    options = dict(scoring=checked_scoring(scoring), pairs=pairs, shuffled=shuffled, seed=seed,
                   batch_size=batch_size)  # fmt: skip
    # One model in memory at a time.
    old, new = (
        take_survey(
            load_model(name, dtype, trust_remote_code=trust_remote_code), form, people, options
        )
        for name in (before, after)
    )
    draws = old.draws(seed=seed, n_boot=2000)
    found = compare(old, new, draws, target=target)
    rates = {"before": old.rates(draws), "after": new.rates(draws)}
    payload = {
        "before": head(old), "after": head(new), "anchored": anchored, "kind": "self-report",
        "values": {
            v: {name: as_json(getattr(found, name).at(j))
                for name in ("before", "after", "shift", "band", "raw_band")}
            | {"moved": bool(found.moved[j])}
            for j, v in enumerate(form.values)
        },
        "size": as_json(found.size), "co_movement": as_json(found.co_movement),
        "target": target, "tax": as_json(found.tax), "answers": as_json(rates),
    }  # fmt: skip
    if written(payload, json, file):
        return
    out.print(f"{before} -> {after}: {form.title}, {len(people)} respondents, self-report",
              style="bold", markup=False, highlight=False, soft_wrap=True)  # fmt: skip
    table = Table("value")
    for title in ("before", "after", "shift [95 %, all at once]", "moved", "raw shift"):
        table.add_column(title, justify="right", no_wrap=True)
    for j in (-abs(found.shift.value)).argsort():
        k = int(j)
        table.add_row(form.values[k], f"{found.before.value[k]:+.2f}",
                      f"{found.after.value[k]:+.2f}", signed(found.band.at(k)),
                      "yes" if found.moved[k] else "", signed(found.raw_band.at(k)))  # fmt: skip
    out.print(table)
    lines = [f"size of the drift (root mean square): {plain(found.size)}"]
    if found.co_movement is not None:
        c = found.co_movement
        lines.append(
            f"co-movement, nVAT: {plain(c.nvat.estimate)}, p {c.nvat.p:.3g} "
            f"(unrelated values would give {c.floor:.2f})"
        )
    if found.tax is not None:
        small = "  (small: ratios to it say little)" if found.tax.small_gain else ""
        lines.append(f"gain on {target}, raw points: {signed(found.tax.gain)}{small}")
        for j, value in enumerate(form.values):
            if value != target:
                lines.append(f"  per unit of gain, {value}: {signed(found.tax.gnd.at(j))}")
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    for name, survey_rates in rates.items():
        say_rates(survey_rates, f"{name}: ")
