"""The world as a corpus: what methods may be fitted on."""

from __future__ import annotations

from valign.corpora.types import Corpus, Dilemma, Neutral, Pair
from valign.values import load_system

from .generator import World
from .lexicon import VALUES

PAIRS = 60
"""Contrast pairs per value."""
PROMPTS = 200
"""Dilemmas and neutral questions, each."""


def world_corpus(
    seed: int = 0, *, pairs: int = PAIRS, prompts: int = PROMPTS, split: str = "train"
) -> Corpus:
    """Pairs, dilemmas and neutral questions of the world's training scenarios.

    The sides of a pair differ in one or two sentences and use only phrasings that methods may be
    fitted on; the held-out phrasings are for judging.

    Args:
        seed: another seed draws other texts.
        pairs: per value.
        prompts: dilemmas, and as many neutral questions about the same kind of situations.
        split: `train` or `heldout` scenarios.
    """
    world = World(split=split)
    rows = [
        Pair(f"{value}-{seed}-{i}", value, positive, negative, prompt=messages[-1]["content"])
        for value in VALUES
        for i, (messages, positive, negative) in enumerate(world.pairs(value, pairs, seed=seed))
    ]
    dilemmas = [
        Dilemma(f"d-{seed}-{i}", item.truth.choice or VALUES[0], item.messages[-1]["content"])
        for i, item in enumerate(world.dilemmas(prompts, seed=seed + 1))
    ]
    neutral = [
        Neutral(f"n-{seed}-{i}", item.messages[-1]["content"], item.answer)
        for i, item in enumerate(world.neutral(prompts, seed=seed + 1))
    ]
    return Corpus(
        system=load_system("schwartz10"),
        name="world",
        pairs=tuple(rows),
        dilemmas=tuple(dilemmas),
        neutral=tuple(neutral),
        of_world=True,
    )
