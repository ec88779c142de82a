"""The world as a battery: held-out scenarios asked, the exact parser as judge.

Methods are fitted on training scenarios and on the fitting half of the phrasings only; asked are
scenarios no method and no training run has seen. What the parser reads beside presence (held-out
phrasings, sentences that set a value over another, the choice between the two options) is kept as
aspects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from valign.corpora.types import Corpus
from valign.lm.render import Prompt
from valign.study.battery import Ask, Judgement
from valign.study.results import Mark
from valign.values import ValueSystem, load_system
from valign.world import Item, World
from valign.world.corpus import PAIRS, PROMPTS, world_corpus
from valign.world.judge import WorldJudge

_DOSE_SEED = 7_000_000
"""Dose prompts come from a stretch of the generator that nothing else uses."""


class WorldBattery:
    """Prompts of the world's held-out half, read by its exact parser."""

    name = "world"
    judge = "world-parser"
    judge_fingerprint: str | None = None
    tune: str | None = None
    threshold = 0.3
    """The weakest expression scores 1/3."""
    ceilings = frozenset({"prompt"})

    def __init__(self, *, pairs: int = PAIRS, prompts: int = PROMPTS) -> None:
        """Args: `pairs` per value, `prompts` of either kind, that methods are fitted on."""
        self._sizes = (pairs, prompts)
        self.system: ValueSystem = load_system("schwartz10")
        self._asked = World(split="heldout")
        self._judge = WorldJudge()

    def corpus(self, seed: int) -> Corpus:
        return _corpus(seed, *self._sizes)

    def dilemmas(self, seed: int, n: int) -> list[Ask]:
        return _asks("d", seed, self._asked.dilemmas(n, seed=seed))

    def neutral(self, seed: int, n: int) -> list[Ask]:
        return _asks("n", seed, self._asked.neutral(n, seed=seed)) if n else []

    def dose_prompts(self, seed: int, n: int) -> list[Prompt]:
        return [item.messages for item in World().dilemmas(n, seed=_DOSE_SEED + seed)]

    def read(self, asks: Sequence[Ask], answers: Sequence[str]) -> list[Judgement]:
        found = []
        for ask, answer in zip(asks, answers, strict=True):
            reading = self._judge.read(ask.truth, answer)
            found.append(
                Judgement(
                    scores=self._named(reading.scores),
                    fluent=reading.fluent,
                    facts=len(ask.truth.truth.facts),
                    facts_kept=reading.facts_kept,
                    facts_wrong=reading.facts_wrong,
                    aspects={
                        "held_out": self._named(reading.scores * reading.held),
                        "bound": self._named(reading.scores * reading.bound),
                        "choice": {} if reading.choice is None else {reading.choice: 1.0},
                    },
                )
            )
        return found

    def marks(self, prompts: Sequence[str], answers: Sequence[str]) -> list[list[Mark]]:
        """The sentences counted; weights of a value's sentences sum to its score."""
        return [self._counted(answer) for answer in answers]

    def _counted(self, answer: str) -> list[Mark]:
        spans = self._judge.spans(answer)
        times = Counter(value for _, _, value, _ in spans)
        return [
            Mark(start=start, end=end, value=self.system.names[v], weight=score / times[v])
            for start, end, v, score in spans
        ]

    def natural(self, seed: int) -> np.ndarray:
        """Signed presence in 4,000 of the generator's own answers."""
        return _natural(seed)

    def _named(self, scores: np.ndarray) -> dict[str, float]:
        return {n: float(s) for n, s in zip(self.system.names, scores, strict=True)}


def _asks(kind: str, seed: int, items: Sequence[Item]) -> list[Ask]:
    return [
        Ask(f"{kind}{seed}-{i}", item.messages, item.messages[-1]["content"], item)
        for i, item in enumerate(items)
    ]


@lru_cache(maxsize=8)
def _corpus(seed: int, pairs: int, prompts: int) -> Corpus:
    return world_corpus(seed, pairs=pairs, prompts=prompts)


@lru_cache(maxsize=4)
def _natural(seed: int) -> np.ndarray:
    items = World(split="heldout").dilemmas(4000, seed=_DOSE_SEED + 1000 + seed)
    return np.stack([item.truth.sign for item in items]).astype(float)
