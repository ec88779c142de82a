"""`valign report`: write the page of a run or study again from its numbers."""

from __future__ import annotations

from pathlib import Path

import typer

from valign.cli.console import out


def register(app: typer.Typer) -> None:
    app.command("report")(report)


def report(
    folder: Path = typer.Argument(..., help="Folder of a run or study."),
    markdown: bool = typer.Option(False, "--markdown", help="Print the table as Markdown."),
) -> None:
    """Write report.html from results.json and rows.jsonl, or from the cells of a study."""
    from valign.report import markdown_table, render
    from valign.study.results import Results, read_rows

    if (folder / "study.json").is_file():
        _study(folder, markdown)
        return
    results = Results.read(folder)
    if markdown:
        typer.echo(markdown_table(results))
        return
    folder = folder if folder.is_dir() else folder.parent  # results.json itself may be named
    rows = folder / "rows.jsonl"
    found = list(read_rows(rows)) if rows.is_file() else []
    page = render(results, found, folder / "report.html")
    out.print(str(page), highlight=False, markup=False, soft_wrap=True)


def _study(folder: Path, markdown: bool) -> None:
    from valign.report import markdown_table
    from valign.study.results import Results

    if markdown:
        for path in sorted((folder / "results").glob("*.json")):
            results = Results.read(path)
            typer.echo(f"{results.model.name}\n\n{markdown_table(results)}")
        return
    from valign.cli.study import write_out
    from valign.study.study import read_study
    from valign.study.study_spec import StudySpec

    page = write_out(StudySpec.of_folder(read_study(folder)), folder)
    out.print(str(page), highlight=False, markup=False, soft_wrap=True)
