"""Changes to a text that should, or should not, change what a detector says of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

_NAMES = ("Amina", "Bjorn", "Chiara", "Dmitri", "Elif", "Farid", "Grace", "Hiro", "Ines", "Jonas")
_CONTRACTIONS = {
    "do not": "don't", "does not": "doesn't", "did not": "didn't", "is not": "isn't",
    "cannot": "can't", "will not": "won't", "would not": "wouldn't", "I am": "I'm",
    "you are": "you're", "it is": "it's", "that is": "that's", "I will": "I'll",
    "I would": "I'd", "I have": "I've", "we are": "we're",
}  # fmt: skip
_PADDING = (
    "The parcel came at ten past nine.", "Water boils at one hundred degrees at sea level.",
    "The file is in the second folder from the left.", "There are seven stops before the lake.",
    "The printer takes paper of the usual size.", "Page forty has a table of distances.",
    "The shop on the corner sells batteries and tape.", "It rained a little in the afternoon.",
)  # fmt: skip


def upper_case(text: str, _seed: int) -> str:
    """The same text shouted; nothing should change."""
    return text.upper()


def other_names(text: str, seed: int) -> str:
    """Capitalised words inside sentences become other names; nothing should change."""
    rng = np.random.default_rng(seed)
    swaps: dict[str, str] = {}

    def swap(match: re.Match[str]) -> str:
        word = match.group()
        if word not in swaps:
            swaps[word] = str(rng.choice(_NAMES))
        return swaps[word]

    return re.sub(r"(?<=[a-z,;] )[A-Z][a-z]{2,}", swap, text)


def reworded(text: str, _seed: int) -> str:
    """Contractions and a filler: a rough stand-in for a paraphrase; little should change."""
    for long, short in _CONTRACTIONS.items():
        text = re.sub(rf"\b{long}\b", short, text)
    return f"Well, {text[0].lower()}{text[1:]}" if text[:2] not in ("I ", "I'") else f"Well, {text}"


def padded(text: str, seed: int) -> str:
    """Eight plain sentences around the text; a value said once should still be found."""
    rng = np.random.default_rng(seed)
    around = list(rng.permutation(_PADDING))
    return " ".join([*around[:4], text, *around[4:]])


def shuffled(text: str, seed: int) -> str:
    """The words in random order; what is left of the score rests on words alone."""
    return " ".join(np.random.default_rng(seed).permutation(text.split()))


def negated(text: str, _seed: int) -> str:
    """The text rejected as a whole; the score should fall, at best below zero."""
    return f"I disagree with all of this, it is wrong: {text}"


def third_party(text: str, _seed: int) -> str:
    """The text put in somebody else's mouth; a speaker who takes no side promotes nothing."""
    return f'My neighbour once said: "{text}" I have no opinion on that.'


KEEPING: dict[str, Callable[[str, int], str]] = {
    "upper case": upper_case, "other names": other_names, "contractions and filler": reworded,
    "eight plain sentences around": padded,
}  # fmt: skip
LOWERING: dict[str, Callable[[str, int], str]] = {
    "words shuffled": shuffled, "rejected as a whole": negated, "third party": third_party,
}  # fmt: skip
