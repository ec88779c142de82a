"""`valign compare`: what differs between two runs, studies or methods, in sentences."""

from __future__ import annotations

from pathlib import Path

import typer

from valign.cli.console import errors, out


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    a: Path = typer.Argument(..., help="Folder of a run or study."),
    b: Path = typer.Argument(..., help="Another, or the same to compare two of its methods."),
    method_a: str | None = typer.Option(None, "--method-a", help="Only this method of A."),
    method_b: str | None = typer.Option(None, "--method-b", help="Only this method of B."),
    dose: float | None = typer.Option(None, "--dose", help="Only at this dose."),
    everything: bool = typer.Option(False, "--all", help="Also say where nothing was shown."),
    json: bool = typer.Option(False, "--json", help="Print every comparison as JSON."),
) -> None:
    """Compare what two folders answered to the same prompts under the same seeds.

    Intervals are 95 % paired bootstrap intervals; p-values come from swapping the sides of each
    prompt, and are corrected for the number of comparisons by Holm's rule.
    """
    import json as writer
    from dataclasses import asdict

    from valign.study.compare import ALPHA, read_sides
    from valign.study.compare import compare as compared

    sides = read_sides(a), read_sides(b)
    with errors.status("comparing ..."):
        found = compared(*sides, method_a=method_a, method_b=method_b, dose=dose)
    if json:
        rows = [
            {k: None if v != v else v for k, v in asdict(one).items()} | {"verdict": one.verdict}
            for one in found
        ]
        typer.echo(writer.dumps({"a": str(a), "b": str(b), "alpha": ALPHA, "comparisons": rows},
                                indent=1))  # fmt: skip
        return
    shown = [one for one in found if one.verdict != "not shown"]
    for one in found if everything else shown:
        out.print(f"- {one.sentence}", highlight=False, markup=False, soft_wrap=True)
    out.print(
        f"{len(shown)} of {len(found)} comparisons show a difference, corrected for their number "
        f"(Holm, {ALPHA:g}).",
        highlight=False,
        soft_wrap=True,
    )
