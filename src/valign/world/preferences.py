"""Preferences of the world: two answers to one dilemma, one of which serves a value.

Where another wanted value stands opposite on the circle, the answer that is not preferred serves
that one instead, in the same scene with the same two options: what is chosen for one value is the
like of what is rejected for the other. That is the conflict that methods for several values are
about. A value without an opposite among the wanted is left out or argued against in the answer that
is not preferred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from valign.corpora.types import Corpus, Pair

from .corpus import PROMPTS, world_corpus
from .dice import Dice
from .dilemma import ask, closing, parts, recommend
from .lexicon import N_VALUES, VALUES, value_index
from .scenarios import Situation, draw_situation, rates
from .slots import draw_slots
from .tables import table

SETS: dict[int, tuple[str, ...]] = {
    2: ("benevolence", "achievement"),
    3: ("benevolence", "achievement", "security"),
    5: ("benevolence", "achievement", "security", "self-direction", "universalism"),
}
"""Sets of two, three and five values; benevolence and achievement, and security and self-direction,
are exact opposites."""
OPPOSITE = 4
"""Steps on the circle of ten from which two values count as opposites (144 degrees)."""
PREFERENCES = 240
"""Per value."""


def rival(value: str, values: Sequence[str]) -> str | None:
    """The one of `values` that stands opposite to `value`, or None."""
    v = value_index(value)
    steps = {w: min((value_index(w) - v) % N_VALUES, (v - value_index(w)) % N_VALUES)
             for w in values}  # fmt: skip
    far = max(steps, key=lambda w: steps[w], default=None)
    return far if far is not None and steps[far] >= OPPOSITE else None


def preferences(
    value: str, n: int, *, against: str | None = None, seed: int = 0, split: str = "train"
) -> list[Pair]:
    """`n` preferences for a value, as pairs whose positive side is the chosen answer.

    All value sentences come from those a method may be fitted on.

    Args:
        against: the value that the rejected answer serves.
        seed: another seed gives other scenes.
        split: of the scenarios.
    """
    v = value_index(value)
    keys = [("world", 0, split, f"preference-{value}-{against}", seed, i) for i in range(n)]
    return [_pair(key, split, v, None if against is None else value_index(against)) for key in keys]


def preference_corpus(
    values: Sequence[str], *, seed: int = 0, n: int = PREFERENCES, prompts: int = PROMPTS
) -> Corpus:
    """A corpus whose pairs are preferences for `values`, opposites against each other.

    Args:
        n: preferences per value.
        prompts: dilemmas and neutral questions, each; as in `world_corpus`.
    """
    base = world_corpus(seed, pairs=0, prompts=prompts)
    pairs = [
        pair
        for value in values
        for pair in preferences(
            value, n, against=rival(value, [w for w in values if w != value]), seed=seed
        )
    ]
    return replace(base, name="world-preferences", pairs=tuple(pairs))


def _pair(key: tuple[object, ...], split: str, value: int, against: int | None) -> Pair:
    asked = Dice(*key, "prompt")
    situation = _situation(asked, split, value, against)
    person = "third" if asked.chance(0.6) else "first"
    prompt = asked.pick(table("dialogues")["dilemma"]["prompts"][person]).format(
        **situation.slots()
    )
    wanted, other = {value: 1}, {value: 0 if asked.chance(0.5) else -1}
    if against is not None:
        wanted, other = {value: 1, against: 0}, {value: 0, against: 1}
    chosen, rejected = (
        _answer(Dice(*key, side), situation, person, slots)
        for side, slots in (("chosen", wanted), ("rejected", other))
    )
    messages = ask(asked, prompt, None)
    name = f"{VALUES[value]}-{key[-2]}-{key[-1]}"
    return Pair(name, VALUES[value], chosen, rejected, prompt=messages[-1]["content"])


def _situation(dice: Dice, split: str, value: int, against: int | None) -> Situation:
    """A scene with an option for the value, and one for its rival where scenes allow it."""
    situation = draw_situation(dice, split, VALUES[value])
    if against is None:
        return situation
    for _ in range(200):
        served = {option[1] for option in situation.options}
        if served == {VALUES[value], VALUES[against]}:
            break
        situation = draw_situation(dice, split, VALUES[value])
    return situation


def _answer(dice: Dice, situation: Situation, person: str, wanted: dict[int, int]) -> str:
    slots = draw_slots(dice, rates(situation.scenario), wanted)
    first, _ = recommend(dice, situation, slots, person)
    return " ".join([first, *parts(dice, situation, slots, fit_only=True), *closing(dice)])
