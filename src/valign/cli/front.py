"""`valign front`: the mixtures of a fitted control that nothing beats, and the one preferred."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from valign.cli.options import DTYPE, TRUST_REMOTE_CODE

if TYPE_CHECKING:
    from valign.detect.judge import LLMJudge
    from valign.study.battery import Battery
    from valign.study.front_result import Wins
    from valign.values import ValueSystem


def register(app: typer.Typer) -> None:
    app.command("front")(front)


def front(
    folder: Path = typer.Argument(
        ..., help="Of `valign fit mva --values a,b --out DIR`, or sft, dpo, simpo."
    ),
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
        [],
        "--reference",
        help="value=SCORE: worst corner of the hypervolume; by default 0, and the plain model's "
        "mean with --reward.",
    ),
    reward: list[str] = typer.Option(
        [],
        "--reward",
        help="value=MODEL: search by the reward model in this folder or of this Hub name, one for "
        "each value; the detector then only reads what else moved.",
    ),
    judge_url: str | None = typer.Option(
        None,
        "--judge-url",
        help="A language model compares answers with the plain model's: its endpoint, up to /v1.",
    ),
    judge_model: str | None = typer.Option(None, "--judge-model", help="The judge's name there."),
    judge_api_key_env: str | None = typer.Option(
        None, "--judge-api-key-env", help="Environment variable that holds the judge's key."
    ),
    judge: str = typer.Option(
        "front",
        "--judge",
        help="Mixtures it compares: front (and the corners of the range), or all.",
    ),
    max_new_tokens: int = typer.Option(96, "--max-new-tokens"),
    temperature: float = typer.Option(0.0, "--temperature", help="0 = greedy."),
    batch_size: int = typer.Option(128, "--batch-size", help="Rows per batch; changes no text."),
    seed: int = typer.Option(0, "--seed"),
    dtype: str = DTYPE,
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    json: bool = typer.Option(False, "--json", help="Print front.json instead of a table."),
) -> None:
    """Search the weights of a control's adapters, judge the best mixtures, choose one.

    Writes front.json, front.html and, where a point was chosen, chosen/control.safetensors into the
    folder. The same command goes on where it was stopped.
    """
    import typer as typer_module
    from rich.markup import escape

    from valign.cli.arguments import default_corpus, load_control, load_model
    from valign.cli.console import errors, progress_bar
    from valign.cli.console import out as console
    from valign.cli.running import alone
    from valign.control import load
    from valign.control.weights import WeightsControl
    from valign.report.front import render_front, told
    from valign.study.front import FrontError, FrontPlan, Scorer, objectives, search_front
    from valign.study.front_judge import check_judge, contest, win_rates
    from valign.study.front_result import front_identity, judge_front
    from valign.study.front_reward import RewardModels
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
    comparing = _judge(
        judge_url, judge_model, judge_api_key_env, judge, control.target.system, folder
    )
    rewards = RewardModels.load(
        _pairs(reward), values, trust_remote_code=trust_remote_code
    ) if reward else None  # fmt: skip
    name = model or str(control.provenance.get("model", "reference"))
    asked = _battery(corpus or _corpus(name, default_corpus(name)), detector, bool(reward))
    unread = [value for value in values if value not in asked.system.names]
    if unread and rewards is None:
        raise FrontError(
            f"{asked.judge} reads {asked.system.name} and not {', '.join(unread)}. Give each value "
            "a reward model with --reward value=MODEL."
        )
    if comparing:
        check_judge(comparing, values[0])
    lm = load_model(name, dtype, trust_remote_code=trust_remote_code)
    load_control(folder, lm)  # warns where it was fitted on another model
    identity = front_identity(lm, control, asked, plan, rewards)
    rows = FrontRows(folder / "front" / "rows.jsonl", identity)
    with alone(folder), progress_bar("answers") as bar:
        task = bar.add_task("starting", total=None)

        def heard(what: str, done: int, total: int) -> None:
            bar.update(task, description=escape(what), completed=done, total=total)

        scorer = Scorer(lm, asked, rows, plan, reward=rewards, progress=heard)
        found = search_front(scorer, control, asked.dilemmas(seed, search), plan)
        result = judge_front(
            scorer, control, found, asked, plan, reference=corner, keep=kept, most=most, model=name
        )
        if comparing:
            result.write(folder / "front.json")  # stays if the judge fails
            pairs = contest(scorer, control, found, asked, plan, judged=judge)
            errors.print(
                f"{pairs.questions} questions to {escape(comparing.client.model)}: "
                f"{len(pairs.mixtures)} mixtures, {len(pairs.pairs)} different pairs of answers, "
                f"{len(values)} values, 2 orders; those answered before are not asked again.",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
            wins = win_rates(pairs, comparing, seed=seed, progress=heard)
            result = result.model_copy(update={"wins": wins})
    path = result.write(folder / "front.json")
    page = render_front(result, folder / "front.html")
    if result.chosen is not None:
        chosen = control.with_weights(result.points[result.chosen].weights)
        chosen.save(folder / "chosen")
    if json:
        typer_module.echo(path.read_text("utf-8"))
        return
    for k, point in enumerate(result.points):
        scores = "  ".join(f"{v} {point.objective(v).value:+.2f}" for v in values)
        mark = "*" if k == result.chosen else " "
        console.print(f"{mark} {told(point):40s} {scores}", markup=False, highlight=False)
    if result.chosen is None:
        errors.print("No mixture keeps what was asked.", highlight=False)
    if result.wins is not None:
        for line in _told(result.wins):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(str(page), markup=False, highlight=False, soft_wrap=True)


def _corpus(model: str, default: str) -> str:
    """The world also for the folder of the reference model, which a fitted control names."""
    from valign.world import reference_path

    return "world" if Path(model) == reference_path() else default


def _battery(corpus: str, detector: str | None, rewarded: bool) -> Battery:
    """What is asked; a reward needs no detector where none reads the corpus's values."""
    from valign.cli.arguments import battery

    if rewarded and detector is None and corpus != "world":
        from valign.corpora import load_corpus
        from valign.study.front_reward import UnreadBattery

        found = load_corpus(corpus)
        if found.system.name != "schwartz10":
            return UnreadBattery(found)
    return battery(corpus, detector)


def _judge(
    url: str | None,
    model: str | None,
    key: str | None,
    judged: str,
    system: ValueSystem,
    folder: Path,
) -> LLMJudge | None:
    from valign.detect.judge import LLMJudge

    if judged not in ("front", "all"):
        raise typer.BadParameter(f"--judge takes front or all, not {judged!r}.")
    if url is None and model is None and key is None and judged == "front":
        return None
    if url is None or model is None:
        missing = "--judge-url" if url is None else "--judge-model"
        raise typer.BadParameter(
            f"A judge needs an endpoint and a model; {missing} is missing. Write, for example, "
            "--judge-url http://localhost:8000/v1 --judge-model NAME."
        )
    return LLMJudge(url, model, system=system, api_key_env=key, cache=folder / "front" / "judged")


def _told(wins: Wins) -> list[str]:
    """Win rates, and what they took."""
    lines = [f"won against the plain model, by {wins.judge}, ties half:"]
    for point in wins.points:
        name = ", ".join(f"{value} {weight:g}" for value, weight in point.weights.items())
        rates = "  ".join(
            f"{v} –" if r is None else f"{v} {r.value:.2f} [{r.low:.2f}, {r.high:.2f}]"
            for v, r in point.rates.items()
        )
        lines.append(f"  {name:40s} {rates}")
    used = wins.usage
    last = (
        f"  {used['requests']} requests, {used['cached']} answers kept from before, "
        f"{used['prompt_tokens']} + {used['completion_tokens']} tokens"
    )
    if wins.failures:
        why = ", ".join(f"{n} {failure}" for failure, n in wins.failures.items())
        last += f"; without a valid answer and left out: {why}"
    return [*lines, f"{last}."]


def _pairs(given: list[str]) -> dict[str, str]:
    from valign.study.front import FrontError

    found: dict[str, str] = {}
    for pair in given:
        value, _, path = pair.partition("=")
        if not value or not path:
            raise FrontError(
                f"Cannot read --reward {pair!r}; write value=MODEL, e.g. power=models/power-reward."
            )
        if value in found:
            raise FrontError(f"--reward {value} is given twice.")
        found[value] = path
    return found


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
