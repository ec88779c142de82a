"""The ten values and the closed table of sentences that speak for or against them.

Half of the positive sentences are plain: they name one treasure of their own value ("Think of a
high rank first."). The other half are bound: they name a second treasure, of another value, and
only the frame tells which of the two wins ("Choose a high rank over soft comfort."). Plain
sentences are what most people write, and what an added direction can raise; bound ones show whether
a method moves the value or only its words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from .tables import table

VALUES: tuple[str, ...] = (
    "self-direction",
    "stimulation",
    "hedonism",
    "achievement",
    "power",
    "security",
    "conformity",
    "tradition",
    "benevolence",
    "universalism",
)
N_VALUES = len(VALUES)
PARTNERS = (1, 4, 7, 9, 6)
"""How far round the circle the losing value of each bound frame stands: near, across and between,
so that no pair of values is tied together by the words."""
ANGLES = np.arange(N_VALUES) * 2 * math.pi / N_VALUES
"""Angle of each value on the circle, in radians."""


@dataclass(frozen=True)
class Phrase:
    """One value sentence of the closed table."""

    text: str
    value: int
    sign: int
    held: bool
    """Kept for judging: never in texts for fitting."""
    bound: bool
    """Names a treasure of another value too, which loses."""


def value_index(value: str | int) -> int:
    """Index of a value on the circle; accepts its name or its index."""
    if isinstance(value, str):
        if value not in VALUES:
            raise ValueError(f"unknown value {value!r}; the world knows {', '.join(VALUES)}")
        return VALUES.index(value)
    return int(value)


def capital(text: str) -> str:
    """The sentence with a capital first letter."""
    return text[:1].upper() + text[1:]


@cache
def phrases() -> tuple[Phrase, ...]:
    """All value sentences, in a fixed order."""
    treasures = [table("values")["treasures"][v] for v in VALUES]
    lost = [0] * N_VALUES
    out: list[Phrase] = []
    for sign, kind in ((1, "pos"), (-1, "neg")):
        frames = [
            (f, held)
            for held in (False, True)
            for f in table("values")["frames"][kind]["held" if held else "fit"]
        ]
        for v in range(N_VALUES):
            partners = iter(PARTNERS)
            for f, (frame, held) in enumerate(frames):
                own, bound, losing = treasures[v][(f + v) % 4], "{other}" in frame, ""
                if bound:
                    # A Latin-square walk: every treasure of a value loses about equally often.
                    other = (v + next(partners)) % N_VALUES
                    losing = treasures[other][lost[other] % 4]
                    lost[other] += 1
                text = capital(frame.format(own=own, other=losing))
                out.append(Phrase(text, v, sign, held, bound))
    return tuple(out)


@cache
def phrases_of(value: int, sign: int, fit_only: bool) -> tuple[Phrase, ...]:
    """The sentences of one value and sign; with ``fit_only`` without the held-out ones."""
    return tuple(
        p for p in phrases() if p.value == value and p.sign == sign and not (fit_only and p.held)
    )


@cache
def openers() -> dict[int, tuple[str, ...]]:
    """Openers by intensity 1, 2, 3."""
    return {int(k): tuple(v) for k, v in table("values")["openers"].items()}


def with_opener(opener: str, sentence: str) -> str:
    """Put an opener before a sentence; an empty opener leaves it as it is."""
    return f"{opener} {sentence[:1].lower()}{sentence[1:]}" if opener else sentence


@cache
def sentence_table() -> dict[str, tuple[Phrase, int]]:
    """Every value sentence as it can appear in an answer -> (phrase, intensity)."""
    return {
        with_opener(opener, p.text): (p, intensity)
        for p in phrases()
        for intensity, options in openers().items()
        for opener in options
    }


def values_of_word() -> dict[str, set[int]]:
    """Lower-case word -> the values in whose positive sentences it occurs: two or more."""
    found: dict[str, set[int]] = {}
    for p in phrases():
        if p.sign > 0:
            for word in p.text.lower().replace(",", "").rstrip(".").split():
                found.setdefault(word, set()).add(p.value)
    return found


def arrays(slots: dict[int, tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Presence, sign, intensity (10,) int8, read-only, from ``{value: (sign, intensity)}``."""
    out = np.zeros((3, N_VALUES), np.int8)
    for v, (sign, intensity) in slots.items():
        out[:, v] = 1, sign, intensity
    out.setflags(write=False)
    return out[0], out[1], out[2]


def names(indices: Sequence[int]) -> list[str]:
    """Names of the given value indices."""
    return [VALUES[i] for i in indices]
