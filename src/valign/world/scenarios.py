"""Situations: a topic and two of its activities, each serving one value through its affordance.

A scenario raises the rates of a few values in answers. About a fifth of all scenarios, and about a
seventh of all (activity, value) pairs, never occur in training; every single word does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

from .dice import Dice, fixed_share
from .lexicon import N_VALUES, VALUES
from .tables import facts, table

BASE_RATE, RAISED_RATE = 0.08, 0.30
HELD_SCENARIOS, HELD_PAIRS = 0.20, 0.15


@dataclass(frozen=True)
class Scenario:
    """A topic with two activities."""

    topic: str
    first: str
    second: str

    @property
    def id(self) -> str:
        """Identity, independent of the order in which the options are told."""
        return f"{self.topic}: {self.first} / {self.second}"

    @property
    def held(self) -> bool:
        """Kept out of training."""
        return fixed_share(HELD_SCENARIOS, "scenario", self.id)

    def rates(self) -> np.ndarray:
        """(10,) float: probability that a free answer speaks for or against each value."""
        spec = table("scenarios")["topics"][self.topic]
        raised = {spec["raises"], spec["activities"][self.first], spec["activities"][self.second]}
        out = np.full(N_VALUES, BASE_RATE)
        out[[VALUES.index(v) for v in raised]] = RAISED_RATE
        return out


@cache
def scenarios(split: str) -> tuple[Scenario, ...]:
    """All scenarios of a split, ``train`` or ``heldout``."""
    if split not in ("train", "heldout"):
        raise ValueError(f"unknown split {split!r}; expected 'train' or 'heldout'")
    found = (
        Scenario(topic, a, b)
        for topic, spec in table("scenarios")["topics"].items()
        for a, b in combinations(spec["activities"], 2)
    )
    return tuple(s for s in found if s.held == (split == "heldout"))


@cache
def rates(scenario: Scenario) -> np.ndarray:
    """Cached :meth:`Scenario.rates` (read-only)."""
    out = scenario.rates()
    out.setflags(write=False)
    return out


def pair_is_held(activity: str, value: str) -> bool:
    """Whether this activity never serves this value in training."""
    return fixed_share(HELD_PAIRS, "pair", activity, value)


@dataclass(frozen=True)
class Situation:
    """A scenario told with facts: the options in the order told, their values and affordances."""

    scenario: Scenario
    options: tuple[tuple[str, str, str], tuple[str, str, str]]
    """(activity, value, affordance clause), twice."""
    facts: dict[str, str]
    intro: str

    def slots(self) -> dict[str, str]:
        """Everything a template may name."""
        (a, _, fa), (b, _, fb) = self.options
        return {**self.facts, "a": a, "b": b, "fa": fa, "fb": fb, "intro": self.intro}


def draw_facts(dice: Dice) -> dict[str, str]:
    """One fact of each kind."""
    return {kind: dice.pick(options) for kind, options in facts().items()}


def draw_situation(dice: Dice, split: str, serve: str | None = None) -> Situation:
    """A situation of the split; with ``serve`` one option serves that value where allowed."""
    scenario = dice.pick(scenarios(split))
    activities = dice.shuffled((scenario.first, scenario.second))
    # In the held-out split a held-out (activity, value) pair is allowed; in training never.
    allowed = [
        [v for v in VALUES if split == "heldout" or not pair_is_held(act, v)] for act in activities
    ]
    values = [dice.pick(allowed[0]), ""]
    if serve in allowed[0]:
        values[0] = serve
    values[1] = dice.pick([v for v in allowed[1] if v != values[0]])
    if serve in allowed[1] and values[0] != serve:
        values[1] = serve
    if dice.chance(0.5):
        activities.reverse()
        values.reverse()
    told = draw_facts(dice)
    spec = table("scenarios")
    clauses = [dice.pick(spec["affordances"][v]) for v in values]
    options = tuple(zip(activities, values, clauses, strict=True))
    intro = dice.pick(spec["topics"][scenario.topic]["intro"]).format(**told)
    return Situation(scenario, options, told, intro)
