"""The rewriters that `visa_rewrites.py` compares: trained, and their rewrites, kept in a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from valign.lm import HostModel
from valign.methods.visa.best_of import best_of
from valign.methods.visa.reward import Reward
from valign.methods.visa.rewriter import Rewriter, Task, template_text
from valign.methods.visa.training import Phase, Settings, Trained, train
from valign.values import load_system
from valign.world import reference_path
from valign.world.rewrites import WorldFidelity, rewrites
from valign.world.tuner import WorldTuner

SYSTEM = load_system("schwartz10")
PLAIN = (
    "{{ source }}{% for c in changes %} {% if c.level > 0 %}Speak in favour of {{ c.name }}."
    "{% elif c.level < 0 %}Speak against {{ c.name }}.{% else %}Leave {{ c.name }} out."
    "{% endif %}{% endfor %} {{ prompt }}"
)
"""Instructions in the wording that the reference model knows, with the question and the source."""
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
