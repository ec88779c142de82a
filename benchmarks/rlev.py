"""RLEV on the reference model: notes for the calendar, those for the weekend worth ten times more.

    OMP_NUM_THREADS=1 python benchmarks/rlev.py --work WORK

An adapter is trained by RLOO or GRPO (rewards not scaled within groups) on notes of the world's
training scenarios, with the value, its two controls, or correctness alone, and answers held-out
questions greedily and by sampling. Right is what the world's exact parser takes for a whole note.
Writes `rlev.md` and `rlev.json` beside this file after every training; finished trainings and
answers lie in WORK and are read, an unfinished training goes on from its last checkpoint.
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
from valign.lm import HostModel, generate
from valign.measure.bootstrap import Resampling, weighted_mean
from valign.measure.exam import exam
from valign.methods.rlev import Settings, train
from valign.methods.rlev.notes import CHEAP, DEAR, Notes
from valign.values import Profile, load_system
from valign.world import reference_path

HERE = Path(__file__).parent
WEIGHTINGS = ("value", "none", "shuffled", "uniform")
DRAWS = 2
"""Sampled answers a question, at the training's temperature."""
Answers = dict[str, list[list[float]]]
"""`right` and `tokens`, each 1 + DRAWS lists over the judged questions; the first is greedy."""


def answers(lm: HostModel, notes: Notes, control: Control | None, longest: int) -> Answers:
    found: Answers = {"right": [], "tokens": []}
    prompts = [q.prompt for q in notes.judged]
    for draw in range(1 + DRAWS):
        said = generate(
            lm, prompts, control, max_new_tokens=longest, temperature=float(draw > 0), seed=draw
        )
        right = [notes.right(t, q) for t, q in zip(said.texts, notes.judged, strict=True)]
        found["right"].append(list(map(float, right)))
        found["tokens"].append([float(len(row)) for row in said.token_ids])
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--steps", type=int, default=16)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--generations", type=int, default=4)
    options.add_argument("--questions", type=int, default=240)
    options.add_argument("--judged", type=int, default=120)
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--rate", type=float, default=3e-3)
    options.add_argument("--estimators", nargs="+", default=["rloo", "grpo"])
    asked = options.parse_args()
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    lm = HostModel.load(str(reference_path()))
    found: dict[str, Answers] = {}

    def sat(name: str, notes: Notes, control: Control | None) -> None:
        file = asked.work / f"{name}.json"
        if not file.is_file():
            part = file.with_suffix(".part")
            part.write_text(json.dumps(answers(lm, notes, control, 32)))
            part.replace(file)
        found[name] = json.loads(file.read_text())

    sat("untrained", Notes(0, asked.judged), None)
    for estimator, seed, weighting in product(asked.estimators, range(asked.seeds), WEIGHTINGS):
        notes, name = Notes(asked.questions, asked.judged, seed=seed), f"{estimator}-{weighting}"
        settings = Settings(
            estimator=estimator, weighting=weighting, steps=asked.steps, batch=asked.batch,
            generations=asked.generations, max_new_tokens=32, rate=asked.rate, seed=seed,
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


def figures(
    runs: list[Answers], values: np.ndarray, draws: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right, values and tokens of all runs' answers, each (questions,): means over runs, draws."""
    right = np.mean([run["right"][draws] for run in runs], axis=(0, 1))
    tokens = np.mean([run["tokens"][draws] for run in runs], axis=(0, 1))
    return right, values, tokens


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
        f"Friday to Sunday are worth {DEAR}, others {CHEAP}: s(x) is 2 and 1.1. {len(values)} held-"
        "out questions, exact parser; means over the seeds that are done, 95 % bootstrap intervals "
        "over questions, which do not cover the training's luck. "
        f"Python {platform.python_version()}, torch {torch.__version__}, trl {trl.__version__}, "
        f"transformers {transformers.__version__}.",
    ]  # fmt: skip
    for title, part in (("Greedy", slice(0, 1)), (f"Sampled, {DRAWS} a question", slice(1, None))):
        lines += ["", f"## {title}", "",
                  "| training | seeds | Acc | H-Acc | dear | cheap | tokens | density |",
                  "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
        for arm, runs in arms.items():
            right, worth, tokens = figures(runs, values, part)
            sat = exam(right, worth, tokens, draws)
            dear = worth > CHEAP
            both = {
                name: draws.estimate(lambda w, m=m, r=right: weighted_mean(w[:, m], r[m]))
                for name, m in (("dear", dear), ("cheap", ~dear))
            }
            row = {"Acc": sat.accuracy, "H-Acc": sat.value_accuracy, **both,
                   "tokens": sat.length, "density": sat.density}  # fmt: skip
            cells = [f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in row.values()]
            lines.append(f"| {arm} | {len(runs)} | {' | '.join(cells)} |")
            kept[f"{title}: {arm}"] = {k: vars(e) for k, e in row.items()}
        lines += ["", "`value` minus another, same seeds and questions:", "",
                  "| | Acc | H-Acc | dear | cheap | H-Acc, seed by seed |",
                  "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
        for arm, runs in arms.items():
            estimator, _, weighting = arm.partition("-")
            paired = min(len(runs), len(arms.get(f"{estimator}-value", [])))
            if weighting in ("", "value") or not paired:
                continue
            mine = arms[f"{estimator}-value"]
            gap = {
                k: _gap(figures(mine[:paired], values, part)[0]
                        - figures(runs[:paired], values, part)[0], values, k, draws)
                for k in FIGURES
            }  # fmt: skip
            single = [
                _gap(figures([a], values, part)[0] - figures([b], values, part)[0], values, "H-Acc",
                     draws).value
                for a, b in zip(mine, runs, strict=False)
            ]  # fmt: skip
            cells = [f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]" for e in gap.values()]
            lines.append(
                f"| {estimator}: value - {weighting} | {' | '.join(cells)} | "
                f"{', '.join(f'{x:+.3f}' for x in single)} |"
            )
            kept[f"{title}: {estimator}, value - {weighting}"] = {
                k: vars(e) for k, e in gap.items()
            }
    (HERE / "rlev.md").write_text("\n".join(lines) + "\n")
    (HERE / "rlev.json").write_text(json.dumps(kept, indent=1) + "\n")


def _gap(gap: np.ndarray, values: np.ndarray, figure: str, draws: Resampling):
    """A difference of right answers, by one of `FIGURES`."""
    if figure == "H-Acc":
        return draws.estimate(lambda w: (w @ (gap * values)) / (w @ values))
    dear = values > CHEAP
    m = {"Acc": np.ones_like(dear), "dear": dear, "cheap": ~dear}[figure]
    return draws.estimate(lambda w: weighted_mean(w[:, m], gap[m]))


def _command(asked: argparse.Namespace) -> str:
    return (
        f"OMP_NUM_THREADS=1 python benchmarks/rlev.py --work WORK --steps {asked.steps} "
        f"--batch {asked.batch} --generations {asked.generations} --questions {asked.questions} "
        f"--judged {asked.judged} --seeds {asked.seeds} --rate {asked.rate:g} "
        f"--estimators {' '.join(asked.estimators)}"
    )


if __name__ == "__main__":
    main()
