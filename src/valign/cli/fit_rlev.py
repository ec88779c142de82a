"""`valign fit rlev`: a model trained on questions that are worth different amounts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from valign.methods.rlev import Fitted, Question, Settings, Verifier

WORLD_QUESTIONS = 600
"""Of the world's exam, those held out among them."""


def fit_rlev(
    *,
    model: str,
    out: Path,
    corpus: str | None,
    setting: list[str],
    seed: int,
    dtype: str,
    trust_remote_code: bool,
    json: bool,
) -> None:
    """Train, save the control, and say what it gets right on questions it was not trained on.

    Args:
        corpus: `world`, or a JSONL or CSV file of questions; None is the world for the reference
            model.
        seed: of the world's questions; the training's is a setting.
    """
    import json as json_module
    import shutil

    from rich.markup import escape

    from valign.cli.arguments import load_model
    from valign.cli.console import out as console
    from valign.cli.console import progress_bar
    from valign.cli.fit import UNFINISHED, say_how_to_try
    from valign.cli.running import alone
    from valign.methods.errors import MethodSettingError
    from valign.methods.progress import listening
    from valign.methods.rlev import Settings, fit
    from valign.methods.rlev.training import check

    settings = Settings.from_strings([text.removeprefix("rlev.") for text in setting])
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise MethodSettingError("RLEV trains in one process; leave `accelerate launch` out.")
    taught, judged, verifier = _exam(corpus, model, settings, seed)
    check(taught, settings)
    lm = load_model(model, dtype, trust_remote_code=trust_remote_code)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out), progress_bar("steps") as bar:
        task = bar.add_task("fitting", total=None)

        def heard(what: str, done: int, total: int) -> None:
            told = escape(f"fitting: {what}")
            bar.update(task, description=told, completed=done, total=total or None)

        with listening(heard):
            fitted = fit(lm, taught, judged, out / UNFINISHED, settings, verifier=verifier)
        path = fitted.control.save(out)
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    if json:
        typer.echo(json_module.dumps(fitted.control.provenance, indent=1))
        return
    console.print(summary(fitted))
    console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    say_how_to_try(model, path, trust_remote_code)


def summary(fitted: Fitted) -> Table:
    """The exam before and after, each figure with half of its 95 % interval."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=f"{fitted.judged} questions it was not trained on, greedy answers", box=SIMPLE_HEAD
    )
    for name in ("", "Acc", "H-Acc", "tokens", "density"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, sat in (("before", fitted.before), ("after", fitted.after)):
        cells = (
            f"{e.value:.{d}f} ±{(e.high - e.low) / 2:.{d}f}"
            for e, d in (
                (sat.accuracy, 2), (sat.value_accuracy, 2), (sat.length, 1), (sat.density, 2),
            )
        )  # fmt: skip
        table.add_row(name, *cells)
    return table


def _exam(
    corpus: str | None, model: str, settings: Settings, seed: int
) -> tuple[list[Question], list[Question], Verifier]:
    """Questions to train on, questions to judge on, and who says what is right."""
    from valign.cli.arguments import default_corpus
    from valign.corpora.errors import CorpusError
    from valign.methods.rlev import read_questions, says_the_answer, split

    if corpus is None and default_corpus(model) != "world":
        raise CorpusError(
            "Name the questions to train on: --corpus FILE.jsonl (or .csv), rows with prompt, "
            "answer and value, the share of the exam's points in [0, 1]."
        )
    if corpus not in (None, "world"):
        return *split(
            read_questions(corpus), settings.held_out, seed=settings.seed
        ), says_the_answer
    from valign.methods.rlev.notes import Notes

    n = max(1, round(WORLD_QUESTIONS * settings.held_out))
    exam = Notes(WORLD_QUESTIONS - n, n, seed=seed)
    return exam.taught, exam.judged, exam.right
