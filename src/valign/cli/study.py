"""`valign study`: a grid of methods, values, doses, seeds and models from one file."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from valign.cli.console import errors, out, progress_bar

if TYPE_CHECKING:
    from valign.study.study import Pool
    from valign.study.study_runner import CellRunner
    from valign.study.study_spec import StudySpec


def register(app: typer.Typer) -> None:
    app.command("study")(study)


def study(
    file: Path = typer.Argument(..., help="YAML of the study; docs/studies.md tells its keys."),
    to: Path = typer.Option(Path("runs/study"), "--out", "-o", help="Folder of the study."),
    workers: int = typer.Option(1, "--workers", min=1, help="Processes on this machine."),
    ray: str | None = typer.Option(
        None, "--ray", help="Address of a Ray cluster, e.g. auto; --workers is then its actors."
    ),
    check: bool = typer.Option(False, "--check", help="Only check the file and count cells."),
    json: bool = typer.Option(False, "--json", help="Print study.json instead of a table."),
) -> None:
    """Run every cell of a study that is not finished yet, then write its table and report.

    Every cell is kept as soon as it is finished; the same command continues a study that was
    stopped, also after the grid was extended.
    """
    from valign.study.study_spec import StudySpec, cells_of

    spec = StudySpec.read(file)
    cells = cells_of(spec.plan, [model.name for model in spec.models])
    if check:
        out.print(f"{len(cells)} cells, {len(spec.models)} models.", highlight=False)
        return
    failed = _carry_out(spec, to, workers, ray)
    if json:
        typer.echo((to / "study.json").read_text("utf-8"), nl=False)
    else:
        _summary(to)
    if failed:
        errors.print(
            f"[bold red]{failed} of {len(cells)} cells could not be made[/]; study.json says why. "
            "The same command tries them again.",
            highlight=False,
        )
        raise typer.Exit(1)


def _carry_out(spec: StudySpec, folder: Path, workers: int, ray: str | None) -> int:
    """Make the cells, then write everything; returns how many failed."""
    from dataclasses import asdict

    from valign.cli.running import alone
    from valign.study.study import StudyFolder, run_cells
    from valign.study.study_runner import CellRunner
    from valign.study.study_spec import cells_of

    kept = StudyFolder(folder, spec.settings())
    cells = cells_of(spec.plan, [model.name for model in spec.models])
    threads = None if workers == 1 else max(1, (os.cpu_count() or 1) // workers)
    runner = CellRunner(spec, threads=None if ray else threads)
    with alone(folder), progress_bar("cells") as bar:
        task = bar.add_task("starting", total=None)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=escape(what), completed=done, total=total)

        kept.describe(
            title=spec.title,
            grid=spec.grid(),
            command=shlex.join(["valign", *sys.argv[1:]]),
            cells=len(cells),
        )
        with _workers(runner, workers, ray) as pool:
            failed = run_cells(cells, kept, runner, pool=pool, progress=progress)
        kept.describe(failed=[{**asdict(cell), "why": why} for cell, why in failed.items()])
    errors.print("computing intervals and writing the report ...", highlight=False)
    write_out(spec, folder)
    return len(failed)


def write_out(spec: StudySpec, folder: Path) -> Path:
    """Write `rows.parquet`, `results/` and `report.html` from finished cells; returns the page."""
    from valign.report.study import render_study
    from valign.study.collect import versions
    from valign.study.loading import load_battery
    from valign.study.study import StudyFolder, read_study
    from valign.study.study_spec import cells_of
    from valign.study.study_summary import models_of, write_results, write_table

    kept = StudyFolder(folder, spec.settings())
    kept.describe(versions=versions())
    battery = load_battery(spec.corpus_name, spec.detector)
    cells = cells_of(spec.plan, [model.name for model in spec.models])
    models = models_of(spec.plan, battery, cells, kept)
    write_table(models, folder / "rows.parquet")
    told = read_study(folder)
    results = write_results(models, kept, command=told.get("command", ""), title=spec.title)
    rows = {model.name: model.rows() for model in models}
    return render_study(results, rows, folder / "report.html", study=told)


@contextmanager
def _workers(runner: CellRunner, workers: int, ray: str | None) -> Iterator[Pool | None]:
    """The pool that was asked for; None where this process does the work."""
    if ray is not None:
        from valign.study.study_ray import RayWorkers

        pool: Pool = RayWorkers(runner, address=ray, size=workers if workers > 1 else None)
    elif workers > 1:
        from valign.study.study_processes import Processes

        pool = Processes(runner, workers)
    else:
        yield None
        return
    try:
        yield pool
    finally:
        pool.close()


def _summary(folder: Path) -> None:
    from valign.cli.running import table
    from valign.study.results import Results

    for path in sorted((folder / "results").glob("*.json")):
        results = Results.read(path)
        out.print(table(results, title=results.model.name))
    for what, name in (
        ("report", "report.html"),
        ("table", "rows.parquet"),
        ("numbers", "results"),
        ("answers", "cells"),
    ):
        out.print(f"{what:8} {folder / name}", highlight=False, markup=False, soft_wrap=True)
