"""`valign ask`: what a model says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from valign.measure.permutation import Tested
    from valign.study.survey import Survey
    from valign.values import ValueSystem
    from valign.values.questionnaires import Questionnaire


def register(app: typer.Typer) -> None:
    app.command("ask")(ask)


def ask(
    model: str = typer.Option("reference", "--model", "-m", help="Folder or Hub name."),
    questionnaire: str = QUESTIONNAIRE,
    items: Path | None = ITEMS,
    control: Path | None = typer.Option(None, "--control", "-c", help="Ask it steered."),
    respondents: int = RESPONDENTS,
    anchored: bool = ANCHORED,
    scoring: str = SCORING,
    pairs: int = PAIRS,
    shuffled: bool = SHUFFLED,
    structure: bool = typer.Option(
        False, "--structure", help="Also test whether the values form the theory's circle."
    ),
    seed: int = SEED,
    batch_size: int = BATCH_SIZE,
    dtype: str = DTYPE,
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    json: bool = JSON,
    file: Path | None = OUT,
) -> None:
    """Put a questionnaire to a model: its value profile as self-report."""
    from valign.cli.arguments import load_control, load_model
    from valign.study.survey import as_json
    from valign.values.questionnaires import load_questionnaire

    form = load_questionnaire(questionnaire, items=items)
    system = _circle(form) if structure else None
    people = respond_as(form, respondents, anchored, seed)
    options = dict(scoring=checked_scoring(scoring), pairs=pairs, shuffled=shuffled, seed=seed,
                   batch_size=batch_size)  # fmt: skip
    lm = load_model(model, dtype, trust_remote_code=trust_remote_code)
    steered = load_control(control, lm) if control else None
    survey = take_survey(lm, form, people, options, control=steered)
    draws = survey.draws(seed=seed)
    report, rates = survey.report(draws), survey.rates(draws)
    tests = None if system is None else _structure(survey, system)
    found = {
        **head(survey), "control": None if control is None else str(control),
        "anchored": anchored, "kind": "self-report",
        "values": {v: {"centred": as_json(report.centred.at(j)), "raw": as_json(report.raw.at(j)),
                       "alpha": as_json(report.alpha[j])} for j, v in enumerate(form.values)},
        "mean_rating": as_json(report.mrat), "answers": as_json(rates),
        "structure": as_json(tests),
    }  # fmt: skip
    if written(found, json, file):
        return
    out.print(f"{model}: {form.title}, {len(people)} respondents, self-report", style="bold",
              markup=False, highlight=False, soft_wrap=True)  # fmt: skip
    table = Table("value")
    for title in ("centred [95 %]", "raw [95 %]", "alpha"):
        table.add_column(title, justify="right", no_wrap=True)
    for j in (-report.centred.value).argsort():
        k, alpha = int(j), report.alpha[j]
        table.add_row(
            form.values[k],
            signed(report.centred.at(k)),
            plain(report.raw.at(k)),
            "" if alpha != alpha else f"{alpha:.2f}",
        )
    out.print(table)
    say_rates(rates)
    for name, test in (tests or {}).items():
        out.print(f"{name}: {test}", markup=False, highlight=False, soft_wrap=True)


def _structure(survey: Survey, system: ValueSystem) -> dict[str, Tested]:
    from valign.measure.circle import circle_test, structure

    draws = survey.draws(seed=survey.settings["seed"])
    centred = structure(survey.scores(), system, draws)
    names = ("circle_rank", "order_index", "fit", "congruence", "gap", "fisher", "rotation",
             "variance")  # fmt: skip
    found = {name: getattr(centred, name) for name in names}
    return found | {"circle_rank_raw": circle_test(survey.scores(raw=True), system, draws)}


def _circle(form: Questionnaire) -> ValueSystem:
    """The system whose circle is tested; refused before anything is asked."""
    from valign.values import load_system

    if form.system is None or not load_system(form.system).has_circle:
        raise typer.BadParameter(f"--structure: {form.name} has no value system with a circle.")
    return load_system(form.system)
