"""`valign eval`: well-known tests of capability and safety, before and after a control."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from valign.cli.console import errors, out, progress_bar
from valign.cli.options import DTYPE, TRUST_REMOTE_CODE

if TYPE_CHECKING:
    from valign.evals.compare import Outcome
    from valign.evals.judges import AnswerJudge


def register(app: typer.Typer) -> None:
    app.command("eval")(evaluate)


def evaluate(
    model: str = typer.Option("reference", "--model", "-m", help="Folder or Hub name."),
    control: Path = typer.Option(..., "--control", "-c", help="A control's file or folder."),
    task: list[str] = typer.Option(
        ..., "--task", "-t",
        help="NAME=FILE: mmlu, truthfulqa, truthfulqa-mc2, blimp, gsm8k, wikitext, harmbench, "
        "strongreject, simple-safety-tests, xstest. NAME alone reads the folder VALIGN_DATA.",
    ),
    limit: int = typer.Option(500, "--limit", "-n", min=0, help="Items a test; 0 = all."),
    strength: float = typer.Option(1.0, "--strength", help="Times the control's own strength."),
    max_new_tokens: int = typer.Option(128, "--max-new-tokens", min=1, help="Of answers."),
    batch_size: int = typer.Option(16, "--batch-size", min=1),
    seed: int = typer.Option(0, "--seed", min=0, help="Which items are drawn."),
    dtype: str = DTYPE,
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    folder: Path | None = typer.Option(
        None, "--out", "-o", help="Keep answers here; what is finished is not asked again."
    ),
    judge_url: str | None = typer.Option(
        None, "--judge-url",
        help="A language model reads the answers of safety tests: its endpoint, up to /v1. "
        "Otherwise the shipped classifiers do.",
    ),
    judge_model: str | None = typer.Option(None, "--judge-model", help="The judge's name there."),
    judge_api_key_env: str | None = typer.Option(
        None, "--judge-api-key-env", help="Environment variable that holds the judge's key."
    ),
    json: bool = typer.Option(False, "--json", help="One object a metric."),
) -> None:  # fmt: skip
    """Ask well-known tests before and after a control.

    Changes come with 95 % paired bootstrap intervals; p-values are corrected for their number
    (Holm). Numbers compare a model with itself: published ones use examples and primers, for which
    there is `lm_eval` (see the documentation).
    """
    import json as writer
    import warnings
    from dataclasses import asdict

    from valign.cli.arguments import load_control, load_model
    from valign.detect.judge import JudgeWarning
    from valign.evals.compare import Asking, compare

    files = _files(task)
    judge = _judge(judge_url, judge_model, judge_api_key_env, files, folder)
    lm = load_model(model, dtype, trust_remote_code=trust_remote_code)
    steered = load_control(control, lm)
    if strength != 1.0:
        steered = steered.scaled(strength)
    with warnings.catch_warnings(), progress_bar("tests") as bar:
        warnings.simplefilter("ignore", JudgeWarning)  # told at the end, test by test
        line = bar.add_task("starting", total=None)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(line, description=escape(what), completed=done, total=total)

        found = compare(
            lm, steered, files, limit=limit or None, seed=seed, kept=folder, progress=progress,
            asking=Asking(max_new_tokens=max_new_tokens, batch_size=batch_size, judge=judge),
        )  # fmt: skip
    for said in _told(found):
        errors.print(escape(said), highlight=False, soft_wrap=True)
    if json:
        for outcome in found:
            row = asdict(outcome) | {"verdict": outcome.verdict}
            typer.echo(writer.dumps(_plain(row), ensure_ascii=False))
        return
    out.print(_table(found))
    errors.print(
        f"{escape(lm.name)} under {escape(steered.method)} ({escape(str(steered.target))}), "
        "bare items without examples. ↑ higher is better, ↓ lower; brackets hold 95 %.",
        highlight=False,
        soft_wrap=True,
    )


def _files(given: list[str]) -> dict[str, str]:
    import os

    files: dict[str, str] = {}
    for text in given:
        name, _, path = text.partition("=")
        found = path or os.environ.get("VALIGN_DATA", "")
        if not found:
            raise typer.BadParameter(
                f"--task {name} names no file. Write {name}=FILE, or set VALIGN_DATA to the folder "
                "of the public sets."
            )
        if name in files:
            raise typer.BadParameter(f"--task {name} is given twice.")
        files[name] = str(Path(found).expanduser())
    return files


def _judge(
    url: str | None, model: str | None, key: str | None, files: dict[str, str], folder: Path | None
) -> AnswerJudge:
    from valign.evals.judges import Classifiers, LLMAnswerJudge
    from valign.evals.tasks import TASKS, get_task

    tasks = [get_task(name) for name in files]
    if url is None and model is None and key is None:
        return Classifiers()
    if url is None or model is None:
        missing = "--judge-url" if url is None else "--judge-model"
        raise typer.BadParameter(
            f"A judge needs an endpoint and a model; {missing} is missing. Write, for example, "
            "--judge-url http://localhost:8000/v1 --judge-model NAME."
        )
    if not any(task.judging for task in tasks):
        known = ", ".join(name for name, task in TASKS.items() if task.judging)
        raise typer.BadParameter(f"None of these tests has answers to judge. Those are {known}.")
    cache = folder / "judged" if folder else None
    return LLMAnswerJudge(url, model, api_key_env=key, cache=cache)


def _told(found: list[Outcome]) -> Iterator[str]:
    """Who judged each test, what was left out, and what it took."""
    for name, judged in {o.task: o.judged for o in found if o.judged}.items():
        line = f"{name}: {judged.answers} answers read by {judged.by}"
        if judged.failures:
            why = ", ".join(f"{n} {failure}" for failure, n in judged.failures.items())
            line += f"; without a verdict and left out: {why}"
        u = judged.usage
        if u.requests or u.cached:
            line += (
                f"; {u.requests} requests, {u.cached} verdicts kept from before, "
                f"{u.prompt_tokens} + {u.completion_tokens} tokens"
            )
        yield f"{line}."


def _table(found: list[Outcome]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column("test")
    for name in ("n", "before", "after", "change", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    colours = {"worse": "red", "better": "green"}
    for o in found:
        name = f"{o.task}: {o.metric} {'↑' if o.better == 'higher' else '↓'}"
        if not o.n:
            table.add_row(name, "0", *["–"] * 4, o.verdict)
            continue
        c = o.change
        colour = colours.get(o.verdict)
        table.add_row(
            name, str(o.n),
            f"{o.before:.3f}", f"{o.after:.3f}",
            escape(f"{c.value:+.3f} [{c.low:+.3f}, {c.high:+.3f}]"), f"{o.p:.2g}",
            f"[{colour}]{o.verdict}[/]" if colour else "",
        )  # fmt: skip
    return table


def _plain(thing):
    """NaN and infinity, which JSON has not, as null."""
    if isinstance(thing, dict):
        return {key: _plain(value) for key, value in thing.items()}
    if isinstance(thing, float) and thing - thing != 0:
        return None
    return thing
