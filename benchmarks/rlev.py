"""RLEV on the reference model: neutral questions, of which reminder notes are worth ten times more.

    OMP_NUM_THREADS=1 python benchmarks/rlev.py --work WORK

A copy of the reference model is trained by RLOO or GRPO (rewards not scaled within groups) on
questions of training scenarios, with the value, its two controls, or correctness alone, and
answers held-out questions greedily. Right is what the world's exact parser takes for a whole answer
without a value. Writes `rlev.md` and `rlev.json` beside this file; finished trainings are read.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
import trl

from valign.lm import HostModel, generate
from valign.measure.bootstrap import Resampling
from valign.measure.exam import Exam, exam
from valign.methods.rlev import Question, Settings, train
from valign.world import World, WorldJudge, reference_path
from valign.world.check import answered
from valign.world.items import Item

HERE = Path(__file__).parent
DEAR, CHEAP = 0.1, 0.01


def value(item: Item) -> float:
    """A note, the form the reference model is worst at, is worth ten other questions."""
    return DEAR if "note" in item.messages[-1]["content"].rpartition(".")[0].lower() else CHEAP


def measured(lm: HostModel, items: Sequence[Item], draws: Resampling) -> Exam:
    said = generate(lm, [item.messages for item in items], max_new_tokens=96)
    readings = WorldJudge().read_all(items, said.texts)
    right = [answered(i.truth, r) for i, r in zip(items, readings, strict=True)]
    return exam(right, [value(i) for i in items], list(map(len, said.token_ids)), draws)


def row(label: str, found: Exam) -> str:
    cells = [
        f"{e.value:.{d}f} [{e.low:.{d}f}, {e.high:.{d}f}]"
        for e, d in (
            (found.accuracy, 3), (found.value_accuracy, 3), (found.length, 1), (found.density, 2),
        )
    ]  # fmt: skip
    return f"| {label} | {' | '.join(cells)} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--questions", type=int, default=240)
    options.add_argument("--judged", type=int, default=200)
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--rate", type=float, default=2e-4)
    options.add_argument("--estimators", nargs="+", default=["rloo", "grpo"])
    asked = options.parse_args()
    torch.set_num_threads(1)
    lm = HostModel.load(str(reference_path()))
    judged = World(split="heldout").neutral(asked.judged, seed=900)
    draws = Resampling.of(len(judged), seed=0)
    found: dict[str, Exam] = {"untrained": measured(lm, judged, draws)}
    for estimator in asked.estimators:
        for weighting in ("none", "value", "uniform", "shuffled"):
            for seed in range(asked.seeds):
                items = World(split="train").neutral(asked.questions, seed=seed)
                by_prompt = {item.messages[-1]["content"]: item for item in items}

                def right(text: str, question: Question, known: dict = by_prompt) -> bool:
                    item = known[question.prompt]
                    return answered(item.truth, WorldJudge().read_all([item], [text])[0])

                made = train(
                    lm,
                    [Question(i.messages[-1]["content"], i.answer, value(i)) for i in items],
                    asked.work / f"{estimator}-{weighting}-{seed}",
                    Settings(
                        estimator=estimator, weighting=weighting, steps=asked.steps, batch=32,
                        generations=8, max_new_tokens=72, rate=asked.rate, seed=seed,
                    ),
                    verifier=right,
                )  # fmt: skip
                label = f"{estimator}, {weighting}, seed {seed}"
                found[label] = measured(HostModel.load(str(made)), judged, draws)
                write(found, asked)


def write(found: dict[str, Exam], asked: argparse.Namespace) -> None:
    command = (
        f"OMP_NUM_THREADS=1 python benchmarks/rlev.py --work WORK --steps {asked.steps} "
        f"--questions {asked.questions} --judged {asked.judged} --seeds {asked.seeds} "
        f"--rate {asked.rate:g} --estimators {' '.join(asked.estimators)}"
    )
    lines = [
        "# RLEV on the reference model", "", f"`{command}`", "",
        f"{asked.steps} steps of 32 answers (groups of 8) on {asked.questions} neutral questions; "
        f"notes are worth {DEAR}, others {CHEAP}. {asked.judged} held-out questions, greedy, exact "
        "parser; 95 % bootstrap intervals over questions, which do not cover the training's luck. "
        f"Python {platform.python_version()}, torch {torch.__version__}, trl {trl.__version__}, "
        f"transformers {transformers.__version__}. Rate and steps ours, untuned.", "",
        "| training | Acc | H-Acc | tokens | density |", "| --- | --- | --- | --- | --- |",
        *(row(label, e) for label, e in found.items()),
    ]  # fmt: skip
    (HERE / "rlev.md").write_text("\n".join(lines) + "\n")
    figures = {k: {n: vars(e) for n, e in vars(x).items()} for k, x in found.items()}
    (HERE / "rlev.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
