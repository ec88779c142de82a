"""What `ask`, `drift` and `svo` share: options, the asking with its progress, how answers print."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from valign.cli.console import out, progress_bar

if TYPE_CHECKING:
    from valign.lm import HostModel
    from valign.measure import Estimate
    from valign.measure.questionnaire import Rates
    from valign.study.survey import Survey
    from valign.values.questionnaires import Questionnaire

QUESTIONNAIRE = typer.Option(
    "portraits10", "--questionnaire", "-q",
    help="portraits10, portraits19, your .yaml; with --items also pvq40, pvq-rr, pvq21, svs, "
    "valuebench/INVENTORY.",
)  # fmt: skip
ITEMS = typer.Option(None, "--items", help="Your copy of a published questionnaire's items.")
RESPONDENTS = typer.Option(24, "--respondents", min=2, help="People it is put to; the n.")
ANCHORED = typer.Option(
    False, "--anchored", help="Give every respondent one value that matters most."
)
SCORING = typer.Option(
    "logprob", "--scoring", help="logprob (of option labels) or generated (answers are read)."
)
PAIRS = typer.Option(1, "--pairs", min=1, help="Mirrored pairs of arrangements a question.")
SHUFFLED = typer.Option(False, "--shuffled", help="Shuffle the options of the scale.")
SEED = typer.Option(0, "--seed", min=0)
BATCH_SIZE = typer.Option(32, "--batch-size", min=1)
JSON = typer.Option(False, "--json")
OUT = typer.Option(None, "--out", help="Also write the JSON to this file.")


def respond_as(form: Questionnaire, n: int, anchored: bool, seed: int) -> tuple[str, ...]:
    from valign.study.respondents import anchored as with_anchor
    from valign.study.respondents import people
    from valign.values import load_system

    if not anchored:
        return people(n, seed=seed)
    if form.system is None:
        raise typer.BadParameter(f"{form.name} has no value system to take anchors from.")
    return with_anchor(n, load_system(form.system), seed=seed)


def checked_scoring(scoring: str) -> str:
    if scoring not in ("logprob", "generated"):
        raise typer.BadParameter(f"--scoring is logprob or generated, not {scoring!r}.")
    return scoring


def take_survey(
    lm: HostModel, form: Questionnaire, people: tuple[str, ...], options: dict[str, Any],
    **more: Any,
) -> Survey:  # fmt: skip
    from valign.study.survey import take

    with progress_bar("questions") as bar:
        task = bar.add_task("asking", total=None)
        return take(
            lm, form, people, **options, **more,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip


def head(survey: Survey) -> dict[str, Any]:
    from valign.study.collect import versions

    return {
        "model": survey.model,
        "fingerprint": survey.fingerprint,
        **survey.settings,
        "versions": versions(),
    }


def written(found: dict[str, Any], json: bool, file: Path | None) -> bool:
    """Write and print JSON where asked; says whether it was printed."""
    text = json_module.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", "utf-8")
    if json:
        typer.echo(text)
    return json


def say_rates(rates: Rates, head: str = "") -> None:
    """How the questions were answered, with a warning where that leaves little to read."""
    lines = [
        f"{name} {plain(share)}"
        for name, share in (
            ("refused", rates.refused),
            ("invalid", rates.invalid),
            ("probability on the labels", rates.label_mass),
        )
        if share is not None
    ]
    lines.append(
        f"mirrored options: same answer {plain(rates.same_option)}, "
        f"same place {plain(rates.same_place)}"
    )
    if rates.same_place.value > rates.same_option.value:
        lines.append("warning: answers follow the place of an option more than what it says")
    if rates.label_mass is not None and rates.label_mass.value < 0.5:
        lines.append("warning: it would rather say something else; try --scoring generated")
    for line in lines:
        out.print(head + line, markup=False, highlight=False, soft_wrap=True)


def signed(x: Estimate, digits: int = 2) -> str:
    return f"{x.value:+.{digits}f} [{x.low:+.{digits}f}, {x.high:+.{digits}f}]"


def plain(x: Estimate, digits: int = 2) -> str:
    return f"{x.value:.{digits}f} [{x.low:.{digits}f}, {x.high:.{digits}f}]"
