"""`valign front`: the mixtures of a fitted control that nothing beats, and the one preferred."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    app.command("front")(front)


def front(
    folder: Path = typer.Argument(..., help="Folder of `valign fit mva --values a,b --out DIR`."),
    model: str | None = typer.Option(
        None, "--model", "-m", help="By default the model it was fitted on."
    ),
    corpus: str | None = typer.Option(
        None, "--corpus", help="What to ask: valuetexts, world, or your own folder."
    ),
    detector: str | None = typer.Option(None, "--detector", help="Who judges real text."),
    keep: list[str] = typer.Option(
        [],
        "--keep",
        help="value=SHARE: reach this share of the best gain in it, e.g. benevolence=0.95; "
        "repeatable.",
    ),
    most: str | None = typer.Option(
        None, "--most", help="The value to maximise among those that keep the rest."
    ),
    low: float = typer.Option(0.0, "--low", help="Smallest weight."),
    high: float = typer.Option(1.5, "--high", help="Largest weight; 1 is an adapter as trained."),
    steps: int = typer.Option(6, "--steps", help="Weights per value on the grid of two values."),
    points: int = typer.Option(64, "--points", help="Candidates for three values and more."),
    search: int = typer.Option(40, "--search", help="Prompts that mixtures are found on."),
    prompts: int = typer.Option(80, "--prompts", help="Other prompts that the front is judged on."),
    neutral: int = typer.Option(20, "--neutral", min=0, help="Neutral questions asked."),
    reference: list[str] = typer.Option(
        [], "--reference", help="value=SCORE: worst corner of the hypervolume; 0 by default."
    ),
    max_new_tokens: int = typer.Option(96, "--max-new-tokens"),
    temperature: float = typer.Option(0.0, "--temperature", help="0 = greedy."),
    batch_size: int = typer.Option(128, "--batch-size", help="Rows per batch; changes no text."),
    seed: int = typer.Option(0, "--seed"),
    dtype: str = typer.Option("auto", "--dtype", help="auto, float32, bfloat16, float16."),
    trust_remote_code: bool = typer.Option(False, "--trust-remote-code"),
    json: bool = typer.Option(False, "--json", help="Print front.json instead of a table."),
) -> None:
    """Search the weights of a control's adapters, judge the best mixtures, choose one.

    Writes front.json, front.html and, where a point was chosen, chosen/control.safetensors into the
    folder. The same command goes on where it was stopped.
    """
    import typer as typer_module
    from rich.markup import escape

    from valign.cli.arguments import battery, default_corpus, load_control, load_model
    from valign.cli.console import errors, progress_bar
    from valign.cli.console import out as console
    from valign.cli.running import alone
    from valign.control import load
    from valign.control.weights import WeightsControl
    from valign.report.front import render_front, told
    from valign.study.front import FrontError, FrontPlan, Scorer, objectives, search_front
    from valign.study.front_result import front_identity, judge_front
    from valign.study.front_rows import FrontRows

    plan = FrontPlan(
        low=low, high=high, steps=steps, points=points, search=search, judged=prompts,
        neutral=neutral, max_new_tokens=max_new_tokens, temperature=temperature,
        batch_size=batch_size, seed=seed,
    )  # fmt: skip
    kept, corner = _numbers(keep, "--keep"), _numbers(reference, "--reference")
    control = load(folder)
    if not isinstance(control, WeightsControl):
        raise FrontError(
            f"{folder} holds a control of kind {control.kind}; mixtures are those of adapters. "
            "Fit one with `valign fit mva --values a,b --out DIR`."
        )
    values = objectives(control)
    for value in [*kept, *corner, *([most] if most else [])]:
        if value not in values:
            raise FrontError(f"{value} has no adapter here; there are {', '.join(values)}.")
    name = model or str(control.provenance.get("model", "reference"))
    asked = battery(corpus or _corpus(name, default_corpus(name)), detector)
    lm = load_model(name, dtype, trust_remote_code=trust_remote_code)
    load_control(folder, lm)  # warns where it was fitted on another model
    rows = FrontRows(folder / "front" / "rows.jsonl", front_identity(lm, control, asked, plan))
    with alone(folder), progress_bar("answers") as bar:
        task = bar.add_task("starting", total=None)

        def heard(what: str, done: int, total: int) -> None:
            bar.update(task, description=escape(what), completed=done, total=total)

        scorer = Scorer(lm, asked, rows, plan, progress=heard)
        found = search_front(scorer, control, asked.dilemmas(seed, search), plan)
        result = judge_front(
            scorer, control, found, asked, plan, reference=corner, keep=kept, most=most, model=name
        )
    path = result.write(folder / "front.json")
    page = render_front(result, folder / "front.html")
    if result.chosen is not None:
        chosen = control.with_weights(result.points[result.chosen].weights)
        chosen.save(folder / "chosen")
    if json:
        typer_module.echo(path.read_text("utf-8"))
        return
    for k, point in enumerate(result.points):
        scores = "  ".join(f"{v} {point.scores[v].value:+.2f}" for v in values)
        mark = "*" if k == result.chosen else " "
        console.print(f"{mark} {told(point):40s} {scores}", markup=False, highlight=False)
    if result.chosen is None:
        errors.print("No mixture keeps what was asked.", highlight=False)
    console.print(str(page), markup=False, highlight=False, soft_wrap=True)


def _corpus(model: str, default: str) -> str:
    """The world also for the folder of the reference model, which a fitted control names."""
    from valign.world import reference_path

    return "world" if Path(model) == reference_path() else default


def _numbers(pairs: list[str], option: str) -> dict[str, float]:
    from valign.study.front import FrontError

    found = {}
    for pair in pairs:
        value, _, number = pair.partition("=")
        try:
            found[value] = float(number)
        except ValueError:
            raise FrontError(
                f"Cannot read {option} {pair!r}; write value=number, e.g. benevolence=0.95."
            ) from None
    return found
