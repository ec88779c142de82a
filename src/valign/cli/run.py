"""`valign run`: one or more methods on one model, measured against the baselines."""

from __future__ import annotations

from pathlib import Path

import typer

from valign.cli.options import DTYPE, TRUST_REMOTE_CODE

BASELINES = ("none", "random", "prompt")
"""Rows every table holds, named or not."""


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    model: str = typer.Option(
        "reference", "--model", "-m", help="Folder or Hub name; `reference` is the shipped one."
    ),
    method: list[str] = typer.Option(
        ["neva"], "--method", help="Method name, repeatable; `valign methods` lists them."
    ),
    toward: list[str] = typer.Option(
        [],
        "--toward",
        help="Value or profile to move to, e.g. benevolence=+1; `each` = all in turn.",
    ),
    away: list[str] = typer.Option([], "--away", help="Value or profile to move away from."),
    out: Path = typer.Option(Path("runs/run"), "--out", "-o", help="Folder of the run."),
    dose: list[str] = typer.Option(
        [],
        "--dose",
        help="How far, in nats (95th percentile of per-token KL), or `fitted`: as strong as the "
        "fit made it; repeatable. Default: 0.5, and `fitted` for methods that are trained.",
    ),
    seed: list[int] = typer.Option([0], "--seed", help="Repeatable."),
    setting: list[str] = typer.Option([], "--set", help="method.key=value, repeatable."),
    corpus: str | None = typer.Option(
        None, "--corpus", help="What to fit on and ask: valuetexts, world, or your own folder."
    ),
    detector: str | None = typer.Option(None, "--detector", help="Who judges real text."),
    prompts: int = typer.Option(60, "--prompts", min=1, help="Dilemmas asked per seed."),
    neutral: int = typer.Option(20, "--neutral", min=0, help="Neutral questions asked per seed."),
    max_new_tokens: int = typer.Option(64, "--max-new-tokens"),
    temperature: float = typer.Option(0.0, "--temperature", help="Of judged answers; 0 = greedy."),
    batch_size: int = typer.Option(32, "--batch-size", help="Rows per batch; changes no text."),
    dtype: str = DTYPE,
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    json: bool = typer.Option(False, "--json", help="Print results.json instead of a table."),
) -> None:
    """Fit methods on a model, set their dose, and measure gain, leakage and tax.

    The unsteered model, a random direction and a plain instruction are always measured beside.
    The same command continues a run that was stopped.
    """
    from valign.cli.arguments import battery, default_corpus, load_model, targets
    from valign.cli.running import carry_out, summary
    from valign.methods import get_method
    from valign.study.plan import MethodChoice, Plan

    asked = battery(corpus or default_corpus(model), detector)
    wanted = targets(asked.system, toward, away)
    settings = _settings(setting, method)
    chosen = []
    for name in dict.fromkeys([*BASELINES, *method]):
        made = get_method(name, **settings.get(name, {}))  # a wrong name or setting ends here
        as_fitted = (None,) if made.trains_strength and not dose else None
        chosen.append(MethodChoice(name, settings.get(name, {}), as_fitted))
    plan = Plan(
        methods=tuple(chosen),
        targets=tuple(wanted),
        doses=_doses(dose),
        seeds=tuple(seed),
        prompts=prompts,
        neutral=neutral,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        batch_size=batch_size,
    )
    lm = load_model(model, dtype, trust_remote_code=trust_remote_code)
    what = "each value" if len(wanted) > 1 else str(wanted[0])
    title = f"{', '.join(method)} on {Path(model).name or model} towards {what}"
    results = carry_out(lm, plan, asked, out, title=title)
    if json:
        typer.echo(results.to_json())
    else:
        summary(results, out)


def _doses(given: list[str]) -> tuple[float | None, ...]:
    """What was asked for; .5 nats where nothing was."""
    from valign.study.plan import FITTED, PlanError

    try:
        return tuple(None if dose == FITTED else float(dose) for dose in given or ["0.5"])
    except ValueError:
        raise PlanError(
            f"Cannot read --dose {' '.join(given)}; write a number of nats, for example 0.5, or "
            "`fitted`."
        ) from None


def _settings(given: list[str], methods: list[str]) -> dict[str, dict[str, str]]:
    """`neva.p0=0.95` -> {"neva": {"p0": "0.95"}}; the method may be left out if there is one."""
    from valign.methods import MethodSettingError

    found: dict[str, dict[str, str]] = {}
    for text in given:
        key, equals, value = text.partition("=")
        method, dot, name = key.partition(".")
        if not dot and len(methods) == 1:
            method, name = methods[0], key
        if not equals or not name:
            raise MethodSettingError(
                f"Cannot read --set {text!r}; write method.key=value, for example "
                "neva.share=0.1; `valign methods neva` lists its settings."
            )
        if method not in (*methods, *BASELINES):
            raise MethodSettingError(
                f"--set {text}: {method!r} is not among the methods of this run "
                f"({', '.join(methods)}). Name it with --method {method}."
            )
        found.setdefault(method, {})[name] = value
    return found
