"""What methods are fitted on and measured with: pairs, dilemmas, answers, neutral texts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property

from valign.values import Profile, ValueSystem

Message = dict[str, str]
"""One chat turn, {"role": "system" | "user" | "assistant", "content": ...}."""


@dataclass(frozen=True)
class Pair:
    """A context-controlled contrast pair: same scene, same length, only the value differs.

    Where `prompt` is set, the two sides are answers to it; where it is None they are plain texts.
    `also` names other values the positive side touches.
    """

    id: str
    value: str
    positive: str
    negative: str
    prompt: str | None = None
    context: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dilemma:
    """A question whose answer can serve `value` or not; `pole` names the course that serves it."""

    id: str
    value: str
    text: str
    context: str = ""
    pole: str = ""


@dataclass(frozen=True)
class Answer:
    """A text with signed labels on values (+1 promotes, -1 argues against; unnamed = absent)."""

    id: str
    text: str
    labels: tuple[tuple[str, float], ...] = ()
    prompt: str | None = None


@dataclass(frozen=True)
class Neutral:
    """An everyday question with a plain answer that expresses no value."""

    id: str
    prompt: str
    answer: str = ""


@dataclass(frozen=True)
class FaultyRewrite:
    """A rewrite that fails, and how (`drops fact 3`, `contradiction`, `wrong value`)."""

    text: str
    fault: str


@dataclass(frozen=True)
class Rewrite:
    """An answer with its facts, and the same facts told under target values."""

    id: str
    prompt: str
    source: str
    facts: tuple[str, ...]
    target: Profile
    rewrite: str
    bad: tuple[FaultyRewrite, ...] = ()


@dataclass(frozen=True)
class Shift:
    """How somebody asks for another slant; `shift` is empty where no value was asked for."""

    id: str
    instruction: str
    shift: Profile


@dataclass(frozen=True)
class Corpus:
    """Everything a method may be fitted on. Never the texts a result is judged on.

    `fingerprint` is a hash of all texts: results carry it, and caches are keyed by it. `of_world`
    says that the test world generated the texts over its ten values, so that its own readers and
    rewrites serve them; the name cannot say it, since a user's folder may have any.
    """

    system: ValueSystem
    name: str
    pairs: tuple[Pair, ...] = ()
    dilemmas: tuple[Dilemma, ...] = ()
    answers: tuple[Answer, ...] = ()
    neutral: tuple[Neutral, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)
    of_world: bool = False

    def pairs_of(self, value: str) -> tuple[Pair, ...]:
        """The pairs of one value, in order."""
        self.system.index(value)
        return tuple(pair for pair in self.pairs if pair.value == value)

    def dilemmas_of(self, value: str) -> tuple[Dilemma, ...]:
        """The dilemmas of one value, in order."""
        self.system.index(value)
        return tuple(dilemma for dilemma in self.dilemmas if dilemma.value == value)

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over all rows."""
        rows = [asdict(row) for part in (self.pairs, self.dilemmas, self.answers, self.neutral)
                for row in part]  # fmt: skip
        text = json.dumps([self.system.name, rows], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
