"""RLEV on the reference model: notes for the calendar, those for the weekend worth ten times more.

    OMP_NUM_THREADS=1 python benchmarks/rlev.py --work WORK

An adapter is trained by RLOO or GRPO (rewards not scaled within groups) on notes of the world's
training scenarios, with the value, its two controls, or correctness alone, and answers held-out
questions greedily; beside that stands the probability of a right note. Right is a rule of wording,
or with `--exam facts` the facts (`valign.methods.rlev.notes` has both). Writes `rlev.md` and
`rlev.json` beside this file after every training; finished trainings and answers lie in WORK and
are read, an unfinished training goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
import transformers
import trl

from valign.control import Control, WeightsControl, from_peft
from valign.lm import HostModel, generate, token_logprobs
from valign.measure.bootstrap import Resampling, weighted_mean
from valign.measure.estimate import Estimate
from valign.measure.exam import exam
from valign.methods.rlev import Settings, train
from valign.methods.rlev.notes import CHEAP, DEAR, Notes
from valign.values import Profile, load_system
from valign.world import reference_path

HERE = Path(__file__).parent
WEIGHTINGS = ("value", "none", "shuffled", "uniform")
RIGHT = {
    "wording": "Right is a note that begins with Reminder where it is dear, with Note elsewhere; "
    "only the beginning is generated.",
    "facts": "Right are all five facts, by the world's exact parser.",
}
Answers = dict[str, list[float]]
"""Over the judged questions: `right` and `tokens` of the greedy answer, and `likely`."""


def answers(lm: HostModel, notes: Notes, control: Control | None, longest: int) -> Answers:
    """Greedy answers, and the probability of a right one.

    That is what a sampled answer scores on average, without the luck of sampling.
    """
    said = generate(lm, [q.prompt for q in notes.judged], control, max_new_tokens=longest)
    right = [notes.right(t, q) for t, q in zip(said.texts, notes.judged, strict=True)]
    rows = [(k, q.prompt, w) for k, q in enumerate(notes.judged) for w in notes.right_starts(q)]
    found = token_logprobs(lm, [p for _, p, _ in rows], [w for *_, w in rows], control)
    likely = np.zeros(len(notes.judged))
    for (k, *_), logs in zip(rows, found, strict=True):
        likely[k] += float(logs.sum().exp())
    return {
        "right": list(map(float, right)),
        "tokens": [float(len(row)) for row in said.token_ids],
        "likely": likely.tolist(),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--exam", choices=("wording", "facts"), default="wording")
    options.add_argument("--steps", type=int, default=12)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--generations", type=int, default=4)
    options.add_argument("--questions", type=int, default=240)
    options.add_argument("--judged", type=int, default=120)
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--rate", type=float, default=3e-3)
    options.add_argument("--estimators", nargs="+", default=["rloo", "grpo"])
    options.add_argument("--weightings", nargs="+", choices=WEIGHTINGS, default=WEIGHTINGS)
    asked = options.parse_args()
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    lm = HostModel.load(str(reference_path()))
    longest = 4 if asked.exam == "wording" else 32
    found: dict[str, Answers] = {}

    def sat(name: str, notes: Notes, control: Control | None) -> None:
        file = asked.work / f"{name}.json"
        if not file.is_file():
            part = file.with_suffix(".part")
            part.write_text(json.dumps(answers(lm, notes, control, longest)))
            part.replace(file)
        found[name] = json.loads(file.read_text())

    sat("untrained", Notes(0, asked.judged, asked=asked.exam), None)
    for estimator, seed, weighting in product(
        asked.estimators, range(asked.seeds), asked.weightings
    ):
        notes = Notes(asked.questions, asked.judged, asked=asked.exam, seed=seed)
        name = f"{estimator}-{weighting}"
        settings = Settings(
            estimator=estimator, weighting=weighting, steps=asked.steps, batch=asked.batch,
            generations=asked.generations, max_new_tokens=longest, rate=asked.rate, seed=seed,
            save_every=4,
        )  # fmt: skip
        began = time.process_time()
        made = train(lm, notes.taught, asked.work / name, settings, verifier=notes.right)
        adapter = from_peft(made, name="rlev")
        sat(
            f"{name}-{seed}", notes,
            WeightsControl(
                target=Profile.of(load_system("schwartz10")), adapters=(adapter,),
                weights={"rlev": 1.0},
            ),
        )  # fmt: skip
        print(f"{name}-{seed}: {time.process_time() - began:.0f} s of processor time", flush=True)
        write(found, np.array([q.value for q in notes.judged]), asked)


FIGURES = ("Acc", "H-Acc", "dear", "cheap")


def write(found: dict[str, Answers], values: np.ndarray, asked: argparse.Namespace) -> None:
    """The tables: means over seeds, resampled over questions, and differences to `value`."""
    draws = Resampling.of(len(values), seed=0)
    arms: dict[str, list[Answers]] = {}
    for name, run in found.items():
        arms.setdefault("-".join(name.split("-")[:2]), []).append(run)
    kept: dict[str, dict] = {}
    lines = [
        "# RLEV on the reference model", "", f"`{_command(asked)}`", "",
        f"{asked.steps} steps of {asked.batch} answers (groups of {asked.generations}) on "
        f"{asked.questions} questions for a note, LoRA of rank 16, rate {asked.rate:g}. Notes for "
        f"Friday to Sunday are worth {DEAR}, others {CHEAP}: s(x) is 2 and 1.1. "
        f"{RIGHT[asked.exam]} {len(values)} held-out questions, {(values > CHEAP).mean():.0%} of "
        "them dear; means over the seeds that are done, 95 % bootstrap intervals over questions, "
        "which do not cover the training's luck. `uniform` differs from `none` by a factor that "
        "Adam takes out again. "
        f"Python {platform.python_version()}, torch {torch.__version__}, trl {trl.__version__}, "
        f"transformers {transformers.__version__}.",
    ]  # fmt: skip
    for title, kind in (("Greedy answers", "right"), ("Probability of a right note", "likely")):
        lines += ["", f"## {title}", "",
                  "| training | seeds | Acc | H-Acc | dear | cheap | tokens | density |",
                  "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
        for arm, runs in arms.items():
            right = np.mean([run[kind] for run in runs], axis=0)
            tokens = np.mean([run["tokens"] for run in runs], axis=0)
            sat = exam(right, values, tokens, draws)
            row = {k: _figure(right, values, k, draws) for k in FIGURES}
            row |= {"tokens": sat.length, "density": sat.density} if kind == "right" else {}
            cells = [f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in row.values()]
            cells += [""] * (6 - len(cells))
            lines.append(f"| {arm} | {len(runs)} | {' | '.join(cells)} |")
            kept[f"{title}: {arm}"] = {k: vars(e) for k, e in row.items()}
        lines += ["", "`value` minus another, same seeds and questions:", "",
                  "| | Acc | H-Acc | dear | cheap | H-Acc, seed by seed |",
                  "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
        for arm, runs in arms.items():
            estimator, _, weighting = arm.partition("-")
            mine = arms.get(f"{estimator}-value", [])
            if weighting in ("", "value") or not mine:
                continue
            gaps = [np.subtract(a[kind], b[kind]) for a, b in zip(mine, runs, strict=False)]
            gap = {k: _figure(np.mean(gaps, axis=0), values, k, draws) for k in FIGURES}
            cells = [f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]" for e in gap.values()]
            single = [f"{_figure(g, values, 'H-Acc', draws).value:+.3f}" for g in gaps]
            what = f"{estimator}: value - {weighting}"
            lines.append(f"| {what} | {' | '.join(cells)} | {', '.join(single)} |")
            kept[f"{title}: {what}"] = {k: vars(e) for k, e in gap.items()}
    (HERE / "rlev.md").write_text("\n".join(lines) + "\n")
    (HERE / "rlev.json").write_text(json.dumps(kept, indent=1) + "\n")


def _figure(right: np.ndarray, values: np.ndarray, name: str, draws: Resampling) -> Estimate:
    """One of `FIGURES` of answers that are right, likely right, or more so than others, (n,)."""
    if name == "H-Acc":
        return draws.estimate(lambda w: (w @ (right * values)) / (w @ values))
    dear = values > CHEAP
    m = {"Acc": np.ones_like(dear), "dear": dear, "cheap": ~dear}[name]
    return draws.estimate(lambda w: weighted_mean(w[:, m], right[m]))


def _command(asked: argparse.Namespace) -> str:
    return (
        f"OMP_NUM_THREADS=1 python benchmarks/rlev.py --work WORK --exam {asked.exam} "
        f"--steps {asked.steps} "
        f"--batch {asked.batch} --generations {asked.generations} --questions {asked.questions} "
        f"--judged {asked.judged} --seeds {asked.seeds} --rate {asked.rate:g} "
        f"--estimators {' '.join(asked.estimators)} --weightings {' '.join(asked.weightings)}"
    )


if __name__ == "__main__":
    main()
