"""Rewriters compared on the world's rewriting tasks: VISA, SFT, DPO, SimPO, prompting, best of n.

    OMP_NUM_THREADS=1 python benchmarks/visa_rewrites.py --work DIR --out benchmarks

All rewriters are the reference model. One warm-up by references is shared; from it SFT goes on, and
GRPO, DPO and SimPO start, each for the same time on the processor (`--seconds`). Best of 8 draws
from the warm-up with GRPO's reward. `prompting` asks the reference model in the instructions it was
trained on; `untrained` gives it the rewriters' request. `unchanged` hands the source back. Requests
hold the question that the source answers; what it says and the source does not counts as added,
except in the reward of `visa, question allowed`. `--arms visa 'visa, no guards'` audits the guards:
the same training without gate, length and repetition penalties.

Tasks for judging are of held-out scenarios and of sentences that training never shows; a second
set is fresh, too, but drawn as the training's was, as published test sets mostly are. Values are
judged by the world's exact parser, which tunes nothing (the reward reads values by an n-gram
regression); facts by the world's exact check, which the reward uses, too. Intervals: 95 % bootstrap
over tasks, the same draws for all rows.
Settings are ours and untuned; the learning rate of the warm-up was chosen by training loss.

The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch
from visa_rewrites_arms import Bench
from visa_rewrites_numbers import compared, measure
from visa_rewrites_page import table

from valign.methods.progress import listening


def _shown(arguments: Sequence[str]) -> list[str]:
    """What was typed, without the note, which stands on the page itself."""
    place = arguments.index("--note") if "--note" in arguments else len(arguments)
    return [shlex.quote(a) for a in (*arguments[:place], *arguments[place + 2 :])]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True, help="Folder of models and texts.")
    options.add_argument("--out", type=Path, default=Path(__file__).parent)
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    options.add_argument("--tasks", type=int, default=100)
    options.add_argument("--warm-up", type=int, nargs="+", default=[300], help="Steps a round.")
    options.add_argument("--seconds", type=float, default=300, help="Processor time of an arm.")
    options.add_argument("--arms", nargs="*", default=["visa", "sft", "dpo", "simpo"])
    options.add_argument("--name", default="visa_rewrites", help="Of the two files written.")
    options.add_argument("--note", default="", help="Remarks that the page should carry.")
    options.add_argument("--only", help="Make this arm's rewrites and end: for two processes.")
    asked = options.parse_args()
    torch.set_num_threads(1)
    last = [0.0]

    def heard(what: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] > 30:
            last[0] = time.monotonic()
            print(time.strftime("%H:%M:%S"), what, done, flush=True)

    with listening(heard):
        benches, familiar = (
            [
                Bench(
                    asked.work, seed, tasks=asked.tasks, warm=asked.warm_up,
                    seconds=asked.seconds, familiar=like,
                )
                for seed in asked.seeds
            ]
            for like in (False, True)
        )  # fmt: skip
        if asked.only:
            for bench in (*benches, *familiar):
                bench.texts(asked.only)
            return
        arms = ["unchanged", "untrained", "prompting", "warm-up", "best of 8"]
        arms = [*arms, *asked.arms, "reference rewrites"]
        found, like = {}, {}
        for arm in arms:
            began = time.monotonic()
            found[arm], like[arm] = measure(benches, arm), measure(familiar, arm)
            brief = {k: round(found[arm][k]["value"], 3) for k in ("consistency", "jsr", "reached")}
            print(arm, brief, f"{time.monotonic() - began:.0f} s", flush=True)
    cost = {}
    for name in ("warm-up", *asked.arms):
        made = [
            t for b in benches for t in (b.warm_ups() if name == "warm-up" else [b.trained(name)])
        ]
        steps, seconds = sum(t.steps for t in made), sum(t.seconds for t in made)
        busy = sum(t.processor_seconds for t in made)
        cost[name] = dict(
            steps=steps,
            seconds=seconds,
            processor_seconds=busy,
            steps_per_processor_hour=steps / busy * 3600,
            log=[t.log for t in made],
        )
    samples = [
        dict(source=t.source, changes=dict(t.changes), rewrites={
            arm: benches[0].texts(arm)[i] for arm in arms
        })
        for i, t in enumerate(benches[0].judged[:8])
    ]  # fmt: skip
    others = [*asked.arms, "warm-up", "best of 8", "prompting", "untrained", "unchanged"]
    results = dict(
        command=" ".join(["python", Path(sys.argv[0]).as_posix(), *_shown(sys.argv[1:])]),
        about=(
            f"Seed{'s' * (len(asked.seeds) > 1)} {', '.join(map(str, asked.seeds))}; "
            f"{asked.tasks} tasks of each set a seed, one thread of a "
            "shared CPU. Judge: the world's exact parser; the reward reads values by another "
            "detector. Facts: exact, in the reward as in the judgement. Settings ours, untuned."
        ),
        note=asked.note,
        versions={p: metadata.version(p) for p in ("torch", "transformers", "trl")}
        | {"python": platform.python_version()},
        model=benches[0].reference.lm.fingerprint,
        arms=found,
        familiar=like,
        against=compared(benches, others),
        against_familiar=compared(familiar, others),
        cost=cost,
        samples=samples,
    )
    (asked.out / f"{asked.name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (asked.out / f"{asked.name}.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
