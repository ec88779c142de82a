"""A corpus over the words of the tiny models: every value has one word of its own."""

from __future__ import annotations

import random

from tests.lm.tiny import WORDS
from valign.corpora.types import Corpus, Dilemma, Neutral, Pair
from valign.values import load_system

SYSTEM = load_system("schwartz10")


def toy_corpus(*, pairs: int = 12, dilemmas: int = 10, neutral: int = 20, plain: bool = False):
    """`plain` leaves the pairs without prompts."""
    rng = random.Random(0)

    def say(words: int) -> str:
        return " ".join(rng.choice(WORDS[10:]) for _ in range(words))

    return Corpus(
        system=SYSTEM,
        name="toy",
        pairs=tuple(
            Pair(f"{value}-{i}", value, f"{say(5)} {word} {word}", say(7),
                 prompt=None if plain else say(5))
            for value, word in zip(SYSTEM.names, WORDS, strict=False)
            for i in range(pairs)
        ),
        dilemmas=tuple(
            Dilemma(f"{value}-d{i}", value, f"should I {say(4)} or {say(3)} ?")
            for value in SYSTEM.names
            for i in range(dilemmas)
        ),
        neutral=tuple(Neutral(f"n{i}", f"the week {say(4)} .") for i in range(neutral)),
    )  # fmt: skip
