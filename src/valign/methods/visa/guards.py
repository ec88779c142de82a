"""Signs of a text that games its reward: odd length, saying things twice, copying the source.

All thresholds are ours, untuned.
"""

from __future__ import annotations

import math
import re
from collections import Counter

_WORD = re.compile(r"[\w’']+")


def words(text: str) -> list[str]:
    """Lower-case words."""
    return _WORD.findall(text.lower())


def length_ratio(source: str, text: str) -> float:
    """Words of the text per word of the source."""
    return len(words(text)) / max(len(words(source)), 1)


def repetition(text: str, *, n: int = 4) -> float:
    """Share of the text's n-grams that stood in it before; 0 for texts shorter than n words."""
    found = words(text)
    grams = Counter(zip(*(found[i:] for i in range(n)), strict=False))
    total = sum(grams.values())
    return 1 - len(grams) / total if total else 0.0


def copied(source: str, text: str, *, n: int = 4) -> float:
    """Share of the text's n-grams that stand in the source."""
    a, b = words(source), words(text)
    known = set(zip(*(a[i:] for i in range(n)), strict=False))
    grams = list(zip(*(b[i:] for i in range(n)), strict=False))
    return sum(gram in known for gram in grams) / len(grams) if grams else 0.0


def length_penalty(ratio: float, *, shortest: float = 0.5, longest: float = 2.0) -> float:
    """0 within the limits; beyond, the distance in doublings, at most 1."""
    if ratio <= 0:
        return 1.0
    outside = max(math.log2(shortest / ratio), math.log2(ratio / longest), 0.0)
    return min(outside, 1.0)


def repetition_penalty(share: float, *, allowed: float = 0.1) -> float:
    """0 up to the allowed share of repeated n-grams, then growing to 1."""
    return max(0.0, share - allowed) / (1 - allowed)
