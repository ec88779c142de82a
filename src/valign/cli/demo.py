"""`valign demo`: the main job on the embedded world and reference model."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    out: Path = typer.Option(Path("runs/demo"), "--out", "-o", help="Folder of the run."),
    prompts: int = typer.Option(24, "--prompts", help="Dilemmas asked per value."),
    json: bool = typer.Option(False, "--json", help="Print results.json instead of a table."),
) -> None:
    """See everything work: five methods, ten values, one report. No network, a few minutes."""
    from valign.cli.arguments import load_model
    from valign.cli.running import carry_out, summary
    from valign.study.plan import MethodChoice, Plan
    from valign.study.world import WorldBattery
    from valign.values import Profile

    battery = WorldBattery(pairs=20, prompts=60)  # fitted in seconds; benchmarks use more
    names = ("none", "random", "prompt", "caa", "neva")
    plan = Plan(
        methods=tuple(MethodChoice(name) for name in names),
        targets=tuple(Profile.from_mapping(battery.system, {v: 1.0}) for v in battery.system.names),
        doses=(0.1,),  # more gains no more here, and costs fluency: benchmarks/full_table.md
        prompts=prompts,
        neutral=8,
        dose_prompts=12,
        temperature=1.0,
        batch_size=128,
    )
    results = carry_out(
        load_model("reference"), plan, battery, out, title="Ten values, five methods, one dose"
    )
    if json:
        typer.echo(results.to_json())
    else:
        summary(results, out)
