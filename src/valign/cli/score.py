"""`valign score`: which values a text expresses."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from valign.cli.console import out, progress_bar
from valign.cli.textfile import TextFileError, no_file_as_text, stream_texts

if TYPE_CHECKING:
    from valign.detect import Detector

_BATCH = 64
_EXPLAINED, _WORDS = 3, 5
"""Values that `--explain` explains, and words it names for each."""


def register(app: typer.Typer) -> None:
    app.command("score")(score)


def score(
    text: list[str] = typer.Argument(None, help="Texts; - reads standard input."),
    file: Path | None = typer.Option(
        None, "--file", "-f", help="Plain lines, or .jsonl with a `text` field; any size."
    ),
    detector: str = typer.Option("english-b", "--detector", help="Name or folder."),
    explain: bool = typer.Option(
        False, "--explain", help="Also say which words made the detector say so."
    ),
    json: bool = typer.Option(False, "--json", help="One object a row, with `scores`."),
) -> None:
    """Read the values a text expresses, from -1 (argues against) to +1 (promotes)."""
    from valign.detect import load_detector

    if not text and file is None:
        raise typer.BadParameter("Give a text, - for standard input, or a file with --file.")
    no_file_as_text(text or [])
    judge = load_detector(detector)
    names = judge.system.names

    def texts() -> Iterator[str]:
        for given in text or []:
            yield from _typed_in() if given == "-" else [given]
        if file is not None:
            yield from (line for _, line in stream_texts(file))

    total = sum(1 for _ in file.open("rb")) if file is not None and file.is_file() else None
    with progress_bar("texts", quiet=file is None) as bar:
        task = bar.add_task("reading", total=total)
        seen = 0
        for batch in _batches(texts(), _BATCH):
            rows = judge.score(batch)
            for line, row in zip(batch, rows, strict=True):
                seen += 1
                scores = {name: round(float(s), 4) for name, s in zip(names, row, strict=True)}
                reasons = _reasons(judge, line, scores) if explain else {}
                if json:
                    found = {"text": line, "scores": scores}
                    found |= {"words": reasons} if explain else {}
                    typer.echo(json_module.dumps(found, ensure_ascii=False))
                else:
                    shown = line if len(line) < 100 else line[:97] + "..."
                    out.print(shown, style="bold", markup=False, highlight=False, soft_wrap=True)
                    out.print(_table(scores, reasons))
            bar.advance(task, len(batch))
    if not seen:
        raise typer.BadParameter("There was no text to read.")


def _typed_in() -> Iterator[str]:
    """Lines of standard input that hold something."""
    try:
        yield from filter(None, (line.strip() for line in sys.stdin))
    except UnicodeDecodeError as error:
        raise TextFileError(f"Standard input is not UTF-8 text: {error.reason}.") from None


def _batches(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for line in texts:
        batch.append(line)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _reasons(judge: Detector, text: str, scores: dict[str, float]) -> dict[str, dict[str, float]]:
    """The words that moved the strongest values most: value -> word -> effect on the score."""
    from valign.detect.attribute import occlude

    spans, effects = occlude(judge, text)
    strongest = sorted(scores, key=lambda name: -abs(scores[name]))[:_EXPLAINED]
    found = {}
    for name in strongest:
        column = effects[:, judge.system.index(name)]
        told = [(text[start:end], float(e)) for (start, end), e in zip(spans, column, strict=True)]
        told = sorted(told, key=lambda pair: -abs(pair[1]))[:_WORDS]
        found[name] = {word: round(effect, 4) for word, effect in told if effect}
    return found


def _table(scores: dict[str, float], reasons: dict[str, dict[str, float]]) -> Table:
    table = Table(show_header=False, box=None)
    for name, value in sorted(scores.items(), key=lambda kv: -abs(kv[1])):
        bar = ("+" if value > 0 else "-") * round(abs(value) * 20)
        words = ", ".join(f"{word} {effect:+.2f}" for word, effect in reasons.get(name, {}).items())
        table.add_row(name, f"{value:+.2f}", bar, escape(words))
    return table
