"""`valign report`: write a run's page again from its numbers."""

from __future__ import annotations

from pathlib import Path

import typer

from valign.cli.console import out


def register(app: typer.Typer) -> None:
    app.command("report")(report)


def report(
    folder: Path = typer.Argument(..., help="Folder of a run."),
    markdown: bool = typer.Option(False, "--markdown", help="Print the table as Markdown."),
) -> None:
    """Write report.html from results.json and rows.jsonl."""
    from valign.report import markdown_table, render
    from valign.study.results import Results, read_rows

    results = Results.read(folder)
    if markdown:
        typer.echo(markdown_table(results))
        return
    folder = folder if folder.is_dir() else folder.parent  # results.json itself may be named
    rows = folder / "rows.jsonl"
    found = list(read_rows(rows)) if rows.is_file() else []
    page = render(results, found, folder / "report.html")
    out.print(str(page), highlight=False, markup=False, soft_wrap=True)
