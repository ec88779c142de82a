"""Batteries: the prompts a study asks and the judge that reads the answers.

A battery keeps apart what must not mix: prompts that are judged, prompts on which doses are set,
and whatever methods are fitted on (that is the corpus, which the battery never shows).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from valign.corpora.types import Corpus
from valign.detect.types import Detector
from valign.lm.render import Prompt
from valign.measure.fluency import repetition_rate
from valign.study.results import Mark
from valign.values import ValignError, ValueSystem

LEAST_WEIGHT = 0.1
"""The smallest effect on a score that is marked (ours): below it trained detectors answer to nearly
every word."""
MOST_TEXTS = 1000
"""Texts scored to mark the answers of one page: about half a minute of one core."""


class BatteryError(ValignError, ValueError):
    """A battery that cannot ask what was wanted."""


@dataclass(frozen=True, eq=False)
class Ask:
    """One prompt with an id that stays the same between runs; `truth` is the judge's own."""

    id: str
    prompt: Prompt
    text: str
    truth: Any = None

    @property
    def key(self) -> str:
        """The id with a hash of the prompt; corpora may give an edited prompt its old id."""
        return f"{self.id} {hashlib.sha256(repr(self.prompt).encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Judgement:
    """What the judge read in one answer; counts are None where the prompt states no facts.

    Attributes:
        scores: value -> score in [-1, 1].
        aspects: the same, restricted to one aspect of expression (held-out phrasings, the choice
            between the options); empty where the judge knows none.
    """

    scores: dict[str, float]
    fluent: bool | None = None
    facts: int | None = None
    facts_kept: int | None = None
    facts_wrong: int | None = None
    aspects: dict[str, dict[str, float]] = field(default_factory=dict)


class Battery(Protocol):
    """Prompts and a judge.

    Attributes:
        name, system: what is asked, and about which values.
        judge, tune: names of the detector that judges and of the one that tuned (or None).
        judge_fingerprint: changes with the judge's weights and settings; None where it has none.
        threshold: a value counts as present from this score on.
        ceilings: methods that are no competitors here, since the model was trained on what they
            do; reported apart.
    """

    name: str
    system: ValueSystem
    judge: str
    judge_fingerprint: str | None
    tune: str | None
    threshold: float
    ceilings: frozenset[str]

    def corpus(self, seed: int) -> Corpus:
        """What methods are fitted on under a seed; shares no text with what is asked."""
        ...

    def dilemmas(self, seed: int, n: int) -> list[Ask]:
        """Judged prompts in which values can show."""
        ...

    def neutral(self, seed: int, n: int) -> list[Ask]:
        """Prompts that call for no value."""
        ...

    def dose_prompts(self, seed: int, n: int) -> list[Prompt]:
        """Prompts on which doses are set; never judged."""
        ...

    def read(self, asks: Sequence[Ask], answers: Sequence[str]) -> list[Judgement]:
        """Judge answers."""
        ...

    def natural(self, seed: int) -> np.ndarray | None:
        """Presence in natural text (n, n_values) for the `see` ideal; None where unknown."""
        ...


@runtime_checkable
class Explains(Protocol):
    """A battery whose judge can say what in an answer it went by."""

    def marks(self, prompts: Sequence[str], answers: Sequence[str]) -> list[list[Mark]]:
        """Pieces of each answer that moved the judge, left to right, none over another."""
        ...


class TextBattery:
    """Real prompts from a corpus, read by a detector.

    Dilemmas and neutral questions are cut in two by a hash of their id: one part goes into the
    corpus (gates are fitted on it) and sets doses, the other is asked and judged.

    Args:
        corpus: pairs to fit on, dilemmas and neutral questions.
        judge: the detector that judges; where it has a `fingerprint`, results carry it.
        tune: name of the detector that was used for tuning, if any.
    """

    def __init__(self, corpus: Corpus, judge: Detector, *, tune: str | None = None):
        from valign.corpora import split_corpus
        from valign.detect import check_detector

        check_detector(judge, corpus.system)
        if tune == judge.name:
            raise BatteryError(
                f"{judge.name} cannot both tune and judge. Judge with another detector, for "
                "example --detector english-b."
            )
        self.name, self.system = corpus.name, corpus.system
        self.judge, self.tune, self._detector = judge.name, tune, judge
        self.judge_fingerprint: str | None = getattr(judge, "fingerprint", None)
        self.ceilings: frozenset[str] = frozenset()
        self.threshold = float(getattr(judge, "threshold", 0.5))
        self._fit, self._asked = split_corpus(corpus, test=0.5)
        self._pairs = corpus.pairs
        for half, use in ((self._fit, "set doses on"), (self._asked, "ask")):
            if not half.dilemmas:
                raise BatteryError(
                    f"The corpus {corpus.name} has {len(corpus.dilemmas)} dilemmas, and none is "
                    f"left to {use}: a hash of their ids cuts them in two halves. Add dilemmas; "
                    "20 are a start."
                )

    def corpus(self, seed: int) -> Corpus:
        return replace(self._fit, pairs=self._pairs)

    def dilemmas(self, seed: int, n: int) -> list[Ask]:
        rows = _spread(self._asked.dilemmas, n, [d.value for d in self._asked.dilemmas])
        return [Ask(d.id, d.text, d.text) for d in rows]

    def neutral(self, seed: int, n: int) -> list[Ask]:
        return [Ask(q.id, q.prompt, q.prompt) for q in self._asked.neutral[:n]]

    def dose_prompts(self, seed: int, n: int) -> list[Prompt]:
        rows = self._fit.dilemmas
        return [d.text for d in _spread(rows, n, [d.value for d in rows])]

    def read(self, asks: Sequence[Ask], answers: Sequence[str]) -> list[Judgement]:
        scores = self._detector.score(answers, prompts=[ask.text for ask in asks])
        names = self.system.names
        return [
            Judgement(
                dict(zip(names, map(float, row), strict=True)),
                fluent=bool(answer.strip()) and repetition_rate(answer.split()) < 0.3,
            )
            for row, answer in zip(scores, answers, strict=True)
        ]

    def marks(self, prompts: Sequence[str], answers: Sequence[str]) -> list[list[Mark]]:
        """Words without which the score of a value falls or rises by `LEAST_WEIGHT` or more.

        Each word is given to the value it moves most. Where there are many words, several are left
        out at a time, so that no more than about `MOST_TEXTS` texts are scored in all; a detector
        that asks a server is not asked at all.
        """
        from valign.detect.attribute import occlude

        if getattr(self._detector, "remote", False):
            return [[] for _ in answers]
        size = math.ceil(sum(len(answer.split()) for answer in answers) / MOST_TEXTS) or 1
        found: list[list[Mark]] = []
        for prompt, answer in zip(prompts, answers, strict=True):
            spans, effects = occlude(self._detector, answer, prompt=prompt, size=size)
            found.append([])
            for (start, end), row in zip(spans, effects, strict=True):
                v = int(np.abs(row).argmax())
                if abs(row[v]) >= LEAST_WEIGHT:
                    value, weight = self.system.names[v], float(row[v])
                    found[-1].append(Mark(start=start, end=end, value=value, weight=weight))
        return found

    def natural(self, seed: int) -> np.ndarray | None:
        return None


def _spread(rows: Sequence[Any], n: int, labels: Sequence[str]) -> list[Any]:
    """The first n rows, taken from each label in turn so that none dominates."""
    seen: dict[str, int] = {}
    keyed = []
    for place, (row, label) in enumerate(zip(rows, labels, strict=True)):
        seen[label] = seen.get(label, 0) + 1
        keyed.append((seen[label], place, row))
    return [row for _, _, row in sorted(keyed, key=lambda k: k[:2])[:n]]
