"""Running a plan from the command line: progress, results, report, a closing summary."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from valign.cli.console import errors, out, progress_bar

if TYPE_CHECKING:
    from valign.lm import HostModel
    from valign.study.battery import Battery
    from valign.study.plan import Plan
    from valign.study.results import Measured, Results


def carry_out(
    lm: HostModel, plan: Plan, battery: Battery, folder: Path, *, title: str = ""
) -> Results:
    """Run (or continue) a plan, write `results.json` and `report.html`."""
    from valign.report import render
    from valign.study.collect import collect
    from valign.study.engine import Bench, identity
    from valign.study.folder import RunFolder

    kept = RunFolder(folder, identity(plan, lm, battery))
    with alone(folder), progress_bar("answers") as bar:
        task = bar.add_task("starting", total=None)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=escape(what), completed=done, total=total)

        bench = Bench(lm, plan, battery, kept, progress=progress)
        bench.run()
    errors.print("computing intervals and writing the report ...", highlight=False)
    results = collect(bench, command=shlex.join(["valign", *sys.argv[1:]]), title=title)
    results.write(folder / "results.json")
    render(results, kept.rows(), folder / "report.html")
    return results


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a second process out of the folder: both would write the same rows."""
    from filelock import FileLock, Timeout

    from valign.study.folder import FolderError

    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise FolderError(
            f"Another process is running in {folder}. Wait for it, or choose another --out folder."
        ) from None


def table(results: Results, *, title: str) -> Table:
    """The table a person wants first."""
    table = Table(
        title=escape(title) or None,
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
        collapse_padding=True,
    )
    heads = ("method", "dose", "gain", "leakage", "fluent", "facts off", "neutral")
    table.add_column(heads[0], overflow="fold")  # a long name may wrap, a number may not
    for name in heads[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for block in results.blocks:
        m = block.summary
        cells = [m.gain, m.leakage, m.fluency, m.facts_wrong, m.neutral_unchanged]
        dose = "" if block.dose is None else f"{block.dose:g}"
        table.add_row(escape(block.method), dose, *map(_cell, cells))
    return table


def summary(results: Results, folder: Path) -> None:
    """The table of a run, then where everything lies."""
    out.print(table(results, title=results.title))
    for what, name in (
        ("report", "report.html"),
        ("numbers", "results.json"),
        ("controls", "controls"),
    ):
        out.print(f"{what:8} {folder / name}", highlight=False, markup=False, soft_wrap=True)


def _cell(x: Measured | None) -> str:
    """A value with half of its 95 % interval."""
    if x is None or not x.defined:
        return ""
    return f"{x.value:.2f}±{(x.high - x.low) / 2:.2f}"
