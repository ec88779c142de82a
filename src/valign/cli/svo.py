"""`valign svo`: how a model shares with a stranger."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table

from valign.cli.asking import (
    BATCH_SIZE,
    JSON,
    OUT,
    SCORING,
    SEED,
    checked_scoring,
    plain,
    written,
)
from valign.cli.console import out, progress_bar
from valign.cli.options import DTYPE, TRUST_REMOTE_CODE


def register(app: typer.Typer) -> None:
    app.command("svo")(svo)


def svo(
    model: str = typer.Option("reference", "--model", "-m", help="Folder or Hub name."),
    asked: str | None = typer.Option(
        None, "--as", help="Act as altruistic, prosocial, individualistic or competitive."
    ),
    control: Path | None = typer.Option(None, "--control", "-c", help="Ask it steered."),
    repeats: int = typer.Option(24, "--repeats", min=2, help="Shuffled orders; the n."),
    scoring: str = SCORING,
    seed: int = SEED,
    batch_size: int = BATCH_SIZE,
    dtype: str = DTYPE,
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    json: bool = JSON,
    file: Path | None = OUT,
) -> None:
    """Social value orientation: how a model shares with a stranger, beside random answers."""
    from valign.cli.arguments import load_control, load_model
    from valign.measure import MeasureError
    from valign.measure.svo import TYPES
    from valign.study.sliders import take_sliders
    from valign.study.survey import as_json

    if asked not in (None, *TYPES):
        raise MeasureError(f"No orientation {asked!r}; there are {', '.join(TYPES)}.")
    checked_scoring(scoring)
    lm = load_model(model, dtype, trust_remote_code=trust_remote_code)
    steered = load_control(control, lm) if control else None
    with progress_bar("questions") as bar:
        task = bar.add_task("asking", total=None)
        found, left_out = take_sliders(
            lm, asked=asked, repeats=repeats, control=steered, scoring=scoring, seed=seed,  # type: ignore[arg-type]
            batch_size=batch_size,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    payload = {
        "model": lm.name, "fingerprint": lm.fingerprint, "repeats": repeats, "seed": seed,
        "scoring": scoring, "as": asked, "left_out": left_out, "kind": "self-report",
        **as_json(found),
    }  # fmt: skip
    if written(payload, json, file):
        return
    role = "" if asked is None else f" as {asked}"
    out.print(f"{model}{role}: six sliders, {repeats} repeats", style="bold", markup=False,
              highlight=False, soft_wrap=True)  # fmt: skip
    out.print(f"angle {plain(found.angle, 1)} degrees; random answers {found.chance_angle:.1f}",
              highlight=False, markup=False, soft_wrap=True)  # fmt: skip
    table = Table("type")
    for title in ("share [95 %]", "random answers"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, share in found.types.items():
        table.add_row(name, plain(share), f"{found.chance[name]:.3f}")
    out.print(table)
    if found.rationality is not None:
        out.print(f"value rationality {plain(found.rationality, 1)} degrees (0 at best)",
                  highlight=False, markup=False, soft_wrap=True)  # fmt: skip
    if left_out:
        out.print(f"left out for invalid answers: {left_out:.0%}", highlight=False)
