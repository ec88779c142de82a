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
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from valign.corpora.triplets import Triplet, load_triplets
from valign.detect import Detector, load_detector
from valign.lm import HostModel
from valign.measure import Resampling
from valign.measure.bootstrap import mean
from valign.measure.rewriting import distance, figures, reached, success, success_curve
from valign.methods.progress import listening
from valign.methods.visa.best_of import best_of
from valign.methods.visa.fidelity import EntailmentFidelity
from valign.methods.visa.guards import copied, length_ratio, repetition, words
from valign.methods.visa.reward import Reward
from valign.methods.visa.rewriter import Rewriter, Task, template_text
from valign.methods.visa.target import composed
from valign.methods.visa.training import Phase, Settings, Trained, train
from valign.values import load_system
from valign.world import WorldJudge, reference_path
from valign.world.detector import WorldDetector
from valign.world.rewrites import WorldFidelity, all_facts, rewrites
from valign.world.tuner import WorldTuner

SYSTEM = load_system("schwartz10")
LARGEST, LEAST = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0), (0.3, 0.5, 0.7, 0.9)
PLAIN = (
    "{{ source }}{% for c in changes %} {% if c.level > 0 %}Speak in favour of {{ c.name }}."
    "{% elif c.level < 0 %}Speak against {{ c.name }}.{% else %}Leave {{ c.name }} out."
    "{% endif %}{% endfor %} {{ prompt }}"
)
"""Instructions in the wording that the reference model knows, with the question and the source."""
REAL = (
    "The 50 bundled triplets, judged by english-b and the bundled entailment model: what texts "
    "written by hand get. No language model for English was at hand to rewrite them."
)
ARMS: dict[str, tuple[Phase, dict[str, Any]]] = {
    "visa": ("grpo", dict(batch=16, generations=8, beta=0.02, rate=2e-4)),
    "sft": ("sft", dict(batch=8, rate=5e-4)),
    "dpo": ("dpo", dict(batch=4, beta=0.1, rate=5e-5)),
    "simpo": ("simpo", dict(batch=4, beta=2.0, margin=1.0, rate=5e-5)),
    "visa, question allowed": ("grpo", dict(batch=16, generations=8, beta=0.02, rate=2e-4)),
    "visa, no guards": ("grpo", dict(batch=16, generations=8, beta=0.02, rate=2e-4)),
}
"""Small models take larger rates than the papers'; none was tuned."""
OTHER_SEEDS = 1000
"""Added to a seed, it draws tasks like the training's that training never saw."""
FRESH = 6000
"""Triplets after the warm-up's, for the arms: more than any of them reads in ten minutes."""


class Bench:
    """One seed's rewriters and their rewrites, kept in a folder."""

    def __init__(
        self, work: Path, seed: int, *, tasks: int, warm: Sequence[int], seconds: float,
        familiar: bool,
    ):  # fmt: skip
        self.work, self.seed = work / f"seed-{seed}", seed
        self.work.mkdir(parents=True, exist_ok=True)
        self.warm, self.seconds = warm, seconds
        self.judged = rewrites(tasks, seed=seed, split="heldout")
        if familiar:
            self.judged = rewrites(tasks, seed=OTHER_SEEDS + seed)
        self.familiar = familiar
        self.material = rewrites(8 * sum(warm) + FRESH, seed=seed)
        self.reference = Rewriter(
            HostModel.load(reference_path()), SYSTEM, template_text("world"),
            steps=3, max_new_tokens=90,
        )  # fmt: skip
        self.reward = Reward(WorldTuner(), WorldFidelity())
        self.tasks = [Task(t.source, t.changes, prompt=t.prompt) for t in self.judged]

    def settings(self, **more: Any) -> Settings:
        return Settings(
            lora_rank=None, max_new_tokens=90, save_every=20, seed=self.seed, **more
        )  # fmt: skip

    def warm_ups(self) -> list[Trained]:
        """The shared start: rounds of supervised steps, each with its rate from 1e-3 to zero."""
        rewriter, rounds = self.reference, list[Trained]()
        for number, steps in enumerate(self.warm):
            done = 8 * sum(self.warm[:number])
            made = train(
                "sft", rewriter, self.material[done : done + 8 * steps],
                self.work / f"warm-up-{number}", self.settings(steps=steps, batch=8, rate=1e-3),
            )  # fmt: skip
            rounds.append(made)
            rewriter = Rewriter.load(made.folder)
        return rounds

    def warmed(self) -> Rewriter:
        return Rewriter.load(self.warm_ups()[-1].folder)

    def trained(self, arm: str) -> Trained:
        phase, own = ARMS[arm]
        reward = self.reward
        if arm.endswith("no guards"):
            reward = replace(reward, weights=(1.0, 1.0, 0.0), floor=0.0)
        if arm.endswith("question allowed"):
            reward = replace(reward, question=True)
        return train(
            phase, self.warmed(), self.material[-FRESH:],
            self.work / arm.replace(", ", "-").replace(" ", "-"),
            self.settings(steps=100_000, processor_seconds=self.seconds, **own),
            reward=reward if phase == "grpo" else None,
        )  # fmt: skip

    def texts(self, arm: str) -> list[str]:
        """The arm's rewrites, made once."""
        file = self.work / f"{arm}{', familiar' if self.familiar else ''}.json"
        if file.is_file():
            return json.loads(file.read_text())
        made = self._made(arm)
        file.write_text(json.dumps(made))
        return made

    def _made(self, arm: str) -> list[str]:
        if arm == "unchanged":
            return [t.source for t in self.judged]
        if arm == "reference rewrites":
            return [t.rewrite for t in self.judged]
        if arm == "untrained":
            return self.reference.rewrite(self.tasks)
        if arm == "prompting":
            return replace(self.reference, template=PLAIN).rewrite(self.tasks)
        if arm == "warm-up":
            return self.warmed().rewrite(self.tasks)
        if arm == "best of 8":
            target = np.array([t.target for t in self.judged])
            start = self.warmed()
            drawn = best_of(start, self.reward, self.tasks, target, n=8)
            return [c.text for c in drawn]
        return Rewriter.load(self.trained(arm).folder).rewrite(self.tasks)


def facts(judged: Sequence[Triplet], texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Per rewrite: share of the source's facts kept, and whether a fact was added."""
    kept, added = [], []
    for triplet, text in zip(judged, texts, strict=True):
        known, said = all_facts(triplet.source), all_facts(text)
        kept.append(len(known & said) / max(len(known), 1))
        added.append(len(said - known) / max(len(said), 1))
    return np.array(kept), np.array(added)


def favourites(detector: Detector, known: Collection[str], *, each: int = 10) -> set[str]:
    """The words that score highest for each value, `each` a value, when they stand alone.

    A rewriter that plays to its detector says more of them than the reference rewrites do.
    """
    listed = sorted(known)
    scores = np.abs(detector.score(listed))
    best = np.argsort(-scores, axis=0, kind="stable")[:each]
    return {listed[i] for column, own in enumerate(best.T) for i in own if scores[i, column] > 0}


def measure(benches: Sequence[Bench], arm: str) -> dict[str, Any]:
    """All figures of one arm over all seeds."""
    judged = [t for bench in benches for t in bench.judged]
    texts = [text for bench in benches for text in bench.texts(arm)]
    judge, fidelity = WorldDetector(), WorldFidelity()
    scores = judge.score(texts)
    original = np.array([t.original for t in judged])
    target = np.array([t.target for t in judged])
    faithful = fidelity.judge([t.source for t in judged], texts)
    draws = Resampling.of(len(texts), seed=0, n_boot=2000)
    found = {k: asdict(v) for k, v in vars(
        figures(scores, original, target, faithful, draws)
    ).items()}  # fmt: skip
    kept, added = facts(judged, texts)
    far, both = distance(scores, target), faithful.mean(axis=1)
    readings = [WorldJudge().read({}, text) for text in texts]
    tuner = benches[0].reward.detector
    tuned = tuner.score(texts)
    lures = favourites(tuner, {w for t in judged for w in words(t.source + " " + t.rewrite)})
    extra = {
        "facts_kept": kept,
        "facts_added": added,
        "all_facts_kept_none_added": (kept == 1) & (added == 0),
        "moved": (np.abs(target - original).sum(1) > np.abs(target - scores).sum(1)).astype(float),
        "exact": ((far < 1e-6) & (faithful.min(axis=1) == 1)).astype(float),
        "fluent": np.array([float(r.fluent) for r in readings]),
        "length_ratio": np.array(
            [length_ratio(t.source, x) for t, x in zip(judged, texts, strict=True)]
        ),
        "repetition": np.array([repetition(x) for x in texts]),
        "copied": np.array([copied(t.source, x) for t, x in zip(judged, texts, strict=True)]),
        "tuner_minus_judge": np.abs(tuned - scores).sum(axis=1),
        "lured": np.array([np.mean([w in lures for w in words(x)] or [0]) for x in texts]),
    }
    for name, rows in extra.items():
        found[name] = asdict(mean(np.asarray(rows, dtype=float), draws).at())
    curve = success_curve(far, both, draws, largest=LARGEST, least=LEAST)
    found["jsr_curve"] = {
        "largest": LARGEST, "least": LEAST, "value": curve.value.tolist(),
        "low": curve.low.tolist(), "high": curve.high.tolist(),
    }  # fmt: skip
    return found


def compared(benches: Sequence[Bench], arms: Sequence[str]) -> dict[str, Any]:
    """The first arm minus each other one, paired by task."""
    judged = [t for bench in benches for t in bench.judged]
    target = np.array([t.target for t in judged])
    before = distance(np.array([t.original for t in judged]), target)
    draws = Resampling.of(len(judged), seed=0, n_boot=2000)

    def rows(arm: str) -> dict[str, np.ndarray]:
        texts = [text for bench in benches for text in bench.texts(arm)]
        far = distance(WorldDetector().score(texts), target)
        both = WorldFidelity().judge([t.source for t in judged], texts).mean(axis=1)
        return {
            "jsr": success(far, both).astype(float),
            "reached": reached(far, before, both).astype(float),
            "consistency": both,
        }

    own = rows(arms[0])
    others = {arm: rows(arm) for arm in arms[1:]}
    found: dict[str, Any] = {
        name: {
            arm: asdict(mean(own[name] - other[name], draws).at()) for arm, other in others.items()
        }
        for name in own
    }
    return {"first": arms[0], **found}


def real_text() -> dict[str, Any]:
    """What the instruments say of the bundled triplets: the ceiling of these figures on real text.

    Judged by `english-b` and the bundled entailment model; the target is the judge's reading of the
    source with the wanted values set.
    """
    triplets = load_triplets(SYSTEM)
    judge, fidelity = load_detector("english-b"), EntailmentFidelity()
    original = judge.score([t.source for t in triplets])
    arms = {
        "unchanged": [(i, t.source) for i, t in enumerate(triplets)],
        "reference rewrites": [(i, t.rewrite) for i, t in enumerate(triplets)],
        "rewrites with a fault": [(i, x) for i, t in enumerate(triplets) for x in t.worse],
    }
    found = {}
    for arm, rows in arms.items():
        numbers, texts = [i for i, _ in rows], [text for _, text in rows]
        target = np.array([composed(SYSTEM, original[i], triplets[i].changes) for i in numbers])
        faithful = fidelity.judge([triplets[i].source for i in numbers], texts)
        draws = Resampling.of(len(texts), seed=0, n_boot=2000, clusters=numbers)
        made = figures(judge.score(texts), original[numbers], target, faithful, draws)
        found[arm] = {name: asdict(estimate) for name, estimate in vars(made).items()}
    return found


def table(results: dict[str, Any]) -> str:
    """The page."""
    columns = {
        "consistency": "consistency", "distance": "L2", "cosine": "cosine", "jsr": "JSR",
        "reached": "half the way and consistency > 0.3",
        "exact": "exactly right",
        "untouched": "untouched values moved by",
    }  # fmt: skip
    audit = {
        "facts_kept": "facts kept", "facts_added": "facts added", "fluent": "fluent",
        "length_ratio": "length / source", "repetition": "repeated 4-grams",
        "copied": "4-grams copied", "tuner_minus_judge": "tuner against judge (L1)",
        "lured": "tuner's favourite words",
    }  # fmt: skip
    lines = ["# Rewriters on the world", "", f"`{results['command']}`", "", results["about"], ""]
    if results["note"]:
        lines += [results["note"], ""]
    for title, names, key in (
        ("Held-out scenarios and wordings", columns, "arms"),
        ("Audit", audit, "arms"),
        ("Fresh tasks like the training's", columns, "familiar"),
        ("Audit of these", audit, "familiar"),
    ):
        lines += [f"## {title}", "", "| rewriter | " + " | ".join(names.values()) + " |"]
        lines.append("| --- |" + " --- |" * len(names))
        for arm, found in results[key].items():
            cells = [
                f"{found[n]['value']:.2f} [{found[n]['low']:.2f}, {found[n]['high']:.2f}]"
                for n in names
            ]
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += [
        "## JSR over cuts",
        "",
        "Held-out tasks, at consistency > 0.3 and, in brackets, > 0.9.",
        "",
    ]
    lines += ["| rewriter | " + " | ".join(f"L2 < {a}" for a in LARGEST) + " |"]
    lines.append("| --- |" + " --- |" * len(LARGEST))
    for arm, found in results["arms"].items():
        value = found["jsr_curve"]["value"]
        cells = [f"{row[0]:.2f} ({row[-1]:.2f})" for row in value]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    heads = ("JSR", "half the way and consistency > 0.3", "consistency")
    for key, which in (("against", "held-out"), ("against_familiar", "like the training's")):
        lines += ["", f"## {results[key]['first']} minus the others, paired by task: {which}", ""]
        lines += ["| other | " + " | ".join(heads) + " |", "| --- | --- | --- | --- |"]
        for arm in results[key]["jsr"]:
            cells = [
                f"{e['value']:+.2f} [{e['low']:+.2f}, {e['high']:+.2f}]"
                for e in (results[key][n][arm] for n in ("jsr", "reached", "consistency"))
            ]
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += ["", "## Real text", "", REAL, ""]
    few = {k: v for k, v in columns.items() if k not in ("exact", "reached")}
    lines += ["| texts | " + " | ".join(few.values()) + " |", "| --- |" + " --- |" * len(few)]
    for arm, found in results["real_text"].items():
        cells = [
            f"{found[n]['value']:.2f} [{found[n]['low']:.2f}, {found[n]['high']:.2f}]" for n in few
        ]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## Cost",
        "",
        "| training | steps | processor seconds | steps per processor hour |",
    ]
    lines.append("| --- | --- | --- | --- |")
    for arm, cost in results["cost"].items():
        lines.append(
            f"| {arm} | {cost['steps']} | {cost['processor_seconds']:.0f} "
            f"| {cost['steps_per_processor_hour']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _shown(arguments: Sequence[str]) -> list[str]:
    """What was typed, without the note, which stands on the page itself."""
    place = arguments.index("--note") if "--note" in arguments else len(arguments)
    return [shlex.quote(a) for a in (*arguments[:place], *arguments[place + 2 :])]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True, help="Folder of models and texts.")
    options.add_argument("--out", type=Path, default=Path(__file__).parent)
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--tasks", type=int, default=100)
    options.add_argument("--warm-up", type=int, nargs="+", default=[300], help="Steps a round.")
    options.add_argument("--seconds", type=float, default=300, help="Processor time of an arm.")
    options.add_argument("--arms", nargs="*", default=["visa", "sft", "dpo", "simpo"])
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
                for seed in range(asked.seeds)
            ]
            for like in (False, True)
        )  # fmt: skip
        if asked.only:
            for bench in (*benches, *familiar):
                bench.texts(asked.only)
            return
        kept = asked.work / "real-text.json"
        if not kept.is_file():
            kept.write_text(json.dumps(real_text()))
        real = json.loads(kept.read_text())
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
            f"{asked.seeds} seed(s), {asked.tasks} tasks of each set a seed, one thread of a "
            "shared CPU. Judge: the world's exact parser; the reward reads values by another "
            "detector. Facts: exact, in the reward as in the judgement. Settings ours, untuned."
        ),
        note=asked.note,
        versions={p: metadata.version(p) for p in ("torch", "transformers", "trl")}
        | {"python": platform.python_version()},
        model=benches[0].reference.lm.fingerprint,
        arms=found,
        familiar=like,
        real_text=real,
        against=compared(benches, others),
        against_familiar=compared(familiar, others),
        cost=cost,
        samples=samples,
    )
    (asked.out / "visa_rewrites.json").write_text(json.dumps(results, indent=1) + "\n")
    (asked.out / "visa_rewrites.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
