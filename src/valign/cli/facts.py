"""`valign facts`: does a text keep the facts of its source, and if not, what became of them."""

from __future__ import annotations

import json as json_module
from pathlib import Path

import typer

from valign.cli.console import out, progress_bar

_BATCH = 16


def register(app: typer.Typer) -> None:
    app.command("facts")(facts)


def facts(
    source: str = typer.Argument(None, help="The text whose facts should stay."),
    text: str = typer.Argument(None, help="The rewrite or answer."),
    prompt: str | None = typer.Option(
        None, "--prompt", help="The question: what it says is no addition."
    ),
    file: Path | None = typer.Option(
        None, "--file", "-f", help="JSONL: objects with `source`, `text` and maybe `prompt`."
    ),
    json: bool = typer.Option(False, "--json", help="One object a text, with every finding."),
) -> None:
    """Say whether a text keeps its source's facts, and what it drops, adds, changes or contradicts.

    Ends with exit code 1 where one does not. How often it errs: `valign detector card entailment`.
    """
    from valign.cli.textfile import TextFileError, no_file_as_text, stream_objects
    from valign.detect.entail_consistency import Consistency

    typed = [one for one in (source, text) if one is not None]
    if len(typed) != (2 if file is None else 0):
        raise typer.BadParameter("Give a source and a text, or a file of both with --file.")
    if file is None:
        no_file_as_text([source, text])
        rows = [dict(source=source, text=text, prompt=prompt)]
    else:
        rows = [
            row for _, row in stream_objects(
                file, example='{"source": "...", "text": "..."}', needed=("source", "text"),
                optional=("prompt",),
            )
        ]  # fmt: skip
        if not rows:
            raise TextFileError(f"{file} is empty: expected one JSON object a line.")
    judge, kept = Consistency(), 0
    with progress_bar("texts", quiet=file is None) as bar:
        task = bar.add_task("reading", total=len(rows))
        for begin in range(0, len(rows), _BATCH):
            some = rows[begin : begin + _BATCH]
            found = judge.judge(
                [row["source"] for row in some], [row["text"] for row in some],
                [row.get("prompt") or prompt for row in some],
            )  # fmt: skip
            for row, one in zip(some, found, strict=True):
                kept += one.consistent
                if json:
                    told = dict(
                        text=row["text"], consistent=one.consistent, score=round(one.score, 4),
                        reasons=one.reasons,
                        findings={k: round(v, 4) for k, v in one.findings.items()},
                    )  # fmt: skip
                    typer.echo(json_module.dumps(told, ensure_ascii=False))
                    continue
                head = f"{row['text']}\n  " if file is not None else ""
                verdict = "keeps the facts" if one.consistent else "; ".join(one.reasons)
                out.print(head + verdict, markup=False, highlight=False, soft_wrap=True)
            bar.advance(task, len(some))
    raise typer.Exit(0 if kept == len(rows) else 1)
