"""Long texts, read window by window."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import numpy as np

Rule = Literal["max", "mean"]
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)]*\s+|\n+")


def split_windows(text: str, count: Callable[[str], int], *, size: int) -> list[str]:
    """Cut a text into windows of whole sentences, each of at most `size` units where possible.

    Sentences are packed greedily from the start; one that alone exceeds `size` is halved at a
    space until its parts fit. A text that fits is one window, unchanged; a blank one has none.

    Args:
        count: length of a piece of text in the units of `size` (tokens, words).
    """
    if not text.strip():
        return []
    if count(text) <= size:
        return [text]
    windows: list[str] = []
    current = ""
    for piece in _pieces(text, count, size):
        joined = f"{current} {piece}" if current else piece
        if current and count(joined) > size:
            windows.append(current)
            current = piece
        else:
            current = joined
    return [*windows, current]


def combine(scores: np.ndarray, *, rule: Rule) -> np.ndarray:
    """One score per value from those of the windows, (n_windows, n_values) -> (n_values,).

    `max`: the score of largest size, with its sign (the earliest where two are equal); a value
    that is expressed once in a long text counts in full. `mean`: the plain mean.
    """
    if rule == "mean":
        return scores.mean(axis=0)
    strongest = np.abs(scores).argmax(axis=0)
    return scores[strongest, np.arange(scores.shape[1])]


def _pieces(text: str, count: Callable[[str], int], size: int) -> list[str]:
    found: list[str] = []
    for sentence in filter(None, (part.strip() for part in _SENTENCE_END.split(text))):
        found += _halved(sentence, count, size)
    return found


def _halved(sentence: str, count: Callable[[str], int], size: int) -> list[str]:
    words = sentence.split()
    if count(sentence) <= size or len(words) < 2:
        return [sentence]
    middle = len(words) // 2
    return [
        piece
        for half in (" ".join(words[:middle]), " ".join(words[middle:]))
        for piece in _halved(half, count, size)
    ]
