"""A detector, a fidelity check and a rewriter whose behaviour is plain to see."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from valign.methods.visa.reward import Reward
from valign.values import load_system

SYSTEM = load_system("schwartz10")


class WordDetector:
    """`safe` speaks for security, `unsafe` against it, `rank` for power; half a step a word."""

    name = "words"
    system = SYSTEM

    def score(self, texts, prompts=None):
        found = np.zeros((len(texts), len(SYSTEM)))
        for row, text in enumerate(texts):
            words = text.split()
            security = (words.count("safe") - words.count("unsafe")) / 2
            found[row, SYSTEM.index("security")] = np.clip(security, -1, 1)
            found[row, SYSTEM.index("power")] = np.clip(words.count("rank") / 2, -1, 1)
        return found


class NumberFidelity:
    """Facts are numbers."""

    name = "numbers"

    def judge(self, sources, texts, prompts=None):
        rows = []
        for source, text in zip(sources, texts, strict=True):
            a, b = ({w for w in t.split() if w.isdigit()} for t in (source, text))
            rows.append((len(a & b) / len(b) if b else 1.0, len(a & b) / len(a) if a else 1.0)
                        if text.strip() else (0.0, 0.0))  # fmt: skip
        return np.array(rows, dtype=float).reshape(len(rows), 2)

    def faults(self, sources, texts, prompts=None):
        found = []
        for source, text in zip(sources, texts, strict=True):
            a, b = ({w for w in t.split() if w.isdigit()} for t in (source, text))
            found.append((*(f"drops {w}" for w in sorted(a - b)),
                          *(f"adds {w}" for w in sorted(b - a))))  # fmt: skip
        return found


@dataclass
class ScriptedRewriter:
    """Says what its script says, call by call."""

    script: list[list[str]]
    system: object = SYSTEM
    steps: int = 2
    asked: list = field(default_factory=list)

    def rewrite(self, tasks, *, temperature=0.0, seed=0, batch_size=32):
        self.asked.append((list(tasks), temperature, seed))
        said = self.script[min(len(self.asked), len(self.script)) - 1]
        return [said[i % len(said)] for i in range(len(tasks))]


REWARD = Reward(WordDetector(), NumberFidelity())
