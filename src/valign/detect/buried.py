"""Texts with their value said once among plain sentences (ours).

Answers of a language model are mostly such texts. A reader trained on short statements alone
takes the plain sentences for the absence of values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from valign.corpora.split import id_fraction
from valign.detect.entail import sentences
from valign.detect.training_data import LabelledText

_AROUND = {"neutral", "sources", "plain"}
_BURIED = {"pairs", "answers", "rewrites", "neutral", "inventory", "described"}
_MAX_WORDS = 68
"""Of the whole text: it has to fit one window of the detectors (96 tokens)."""


def buried_texts(rows: Sequence[LabelledText]) -> Iterator[LabelledText]:
    """Every short text again, with plain sentences of the same part before and after it.

    What is known of its values stays; the sides of a contrast pair get the same surroundings, so
    that these tell nothing about the value. A text too long for two plain sentences is left out.
    """
    plain: dict[str, list[str]] = {}
    for row in rows:
        if row.source in _AROUND:
            plain.setdefault(row.part, []).extend(
                s for s in sentences(row.text) if 4 <= len(s.split()) <= 18 and s[-1] in ".!"
            )
    longest = _longest_of_pair(rows)
    for row in rows:
        if row.source not in _BURIED or row.part not in plain:
            continue
        key = row.id.removesuffix("-negative")
        before, after = _around(key, plain[row.part], _MAX_WORDS - longest[key])
        if len(before) + len(after) < 2:
            continue
        yield replace(
            row,
            id=f"buried-{row.id}",
            source="buried",
            text=" ".join([*before, row.text, *after]),
            rival=f"buried-{row.rival}" if row.rival else None,
        )


def _around(key: str, plain: Sequence[str], room: int) -> tuple[list[str], list[str]]:
    """Up to eight sentences within `room` words, drawn and shared out by the key."""
    rng = np.random.default_rng(int(id_fraction(key, salt="buried") * 2**32))
    wanted = int(rng.integers(2, 9))
    before: list[str] = []
    after: list[str] = []
    for k in rng.permutation(len(plain))[:wanted]:
        room -= len(plain[k].split())
        if room < 0:
            break
        (before if rng.random() < 0.5 else after).append(plain[k])
    return before, after


def _longest_of_pair(rows: Sequence[LabelledText]) -> dict[str, int]:
    longest: dict[str, int] = {}
    for row in rows:
        key = row.id.removesuffix("-negative")
        longest[key] = max(longest.get(key, 0), len(row.text.split()))
    return longest
