"""`valign profile`: which values a model expresses unprompted."""

from __future__ import annotations

import json as json_module
from pathlib import Path

import typer
from rich.table import Table

from valign.cli.console import out, progress_bar
from valign.cli.options import DTYPE, TRUST_REMOTE_CODE


def register(app: typer.Typer) -> None:
    app.command("profile")(profile)


def profile(
    model: str = typer.Option("reference", "--model", "-m", help="Folder or Hub name."),
    corpus: str | None = typer.Option(None, "--corpus", help="Where the dilemmas come from."),
    detector: str | None = typer.Option(None, "--detector", help="Who reads the answers."),
    control: Path | None = typer.Option(None, "--control", "-c", help="Profile it steered."),
    prompts: int = typer.Option(100, "--prompts", min=1, help="Dilemmas asked."),
    seed: int = typer.Option(0, "--seed", min=0),
    max_new_tokens: int = typer.Option(64, "--max-new-tokens", min=1),
    temperature: float = typer.Option(0.0, "--temperature", min=0.0, help="0 = greedy."),
    dtype: str = DTYPE,
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    json: bool = typer.Option(False, "--json"),
) -> None:
    """Ask a model everyday dilemmas and read which values its answers express."""
    import numpy as np

    from valign.cli.arguments import battery, default_corpus, load_control, load_model
    from valign.lm import generate
    from valign.measure import Resampling
    from valign.measure.bootstrap import mean

    asked = battery(corpus or default_corpus(model), detector)
    lm = load_model(model, dtype, trust_remote_code=trust_remote_code)
    steered = load_control(control, lm) if control else None
    asks = asked.dilemmas(seed, prompts)
    answers: list[str] = []
    with progress_bar("answers") as bar:
        task = bar.add_task("asking", total=len(asks))
        for begin in range(0, len(asks), 32):
            part = asks[begin : begin + 32]
            answers += generate(
                lm, [a.prompt for a in part], steered, max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=[seed * 100_003 + i for i in range(begin, begin + len(part))],
            ).texts  # fmt: skip
            bar.advance(task, len(part))
    judged = asked.read(asks, answers)
    scores = np.array([[j.scores[v] for v in asked.system.names] for j in judged])
    draws = Resampling.of(len(scores), seed=seed)
    strength = mean(scores, draws)
    present = mean((scores >= asked.threshold).astype(float), draws)
    if json:
        rows = {
            name: {
                "score": vars(strength.at(j)),
                "present": vars(present.at(j)),
            }
            for j, name in enumerate(asked.system.names)
        }
        head = {"model": lm.name, "judge": asked.judge, "prompts": len(asks), "seed": seed}
        typer.echo(json_module.dumps({**head, "values": rows}, indent=1))
        return
    title = f"{model}: {len(asks)} answers read by {asked.judge}"
    out.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    table = Table()
    table.add_column("value")
    table.add_column("mean score [95 %]", justify="right")
    table.add_column("expressed in [95 %]", justify="right")
    for j in np.argsort(-strength.value):
        s, p = strength.at(j), present.at(j)
        table.add_row(
            asked.system.names[j],
            f"{s.value:+.3f} [{s.low:+.3f}, {s.high:+.3f}]",
            f"{p.value:.0%} [{p.low:.0%}, {p.high:.0%}]",
        )
    out.print(table)
