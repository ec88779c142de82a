"""The baseline: named values and their everyday words, with the direction words before or after.

It reads `more X`, `a bit less X`, `no X`, `X up a notch`, `too X`, `X instead of Y`, and numbers.
It knows nothing of readers, speakers, or what a sentence means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

import yaml

from valign.translate.lexicon import DATA, terms
from valign.translate.numbers import stated_changes
from valign.translate.types import Translation, ValueShift
from valign.values import ValueSystem, load_system

NAME = "rules-1"
_QUOTED = re.compile(r"'[^']{0,60}'(?!\w)|\"[^\"]{0,60}\"|“[^”]{0,60}”|‘[^’]{0,60}’(?!\w)")
_TOKEN = re.compile(r"[a-z]+(?:[-'’][a-z]+)*|[.;!?,]")
_ENDS = frozenset(".;!?")
_REACH = 6
"""Words over which a direction holds on to what comes after it."""
_CONFIDENCE = {"number": 0.95, "directed": 0.7, "bare": 0.5, "nothing": 0.4}
"""Not calibrated: an order of how firm the ground is (ours)."""


class RuleTranslator:
    """Direction words and the words for the values; takes any value system."""

    name = NAME

    def __init__(self, system: ValueSystem | str = "schwartz10"):
        self.system = load_system(system) if isinstance(system, str) else system

    def translate_all(self, instructions: Sequence[str]) -> list[Translation]:
        """One translation an instruction."""
        return [self._translate(instruction) for instruction in instructions]

    def _translate(self, instruction: str) -> Translation:
        stated = stated_changes(instruction, self.system)
        found = directed_changes(instruction, self.system)
        kind = "number" if stated else "directed" if found else "nothing"
        if not found and not stated:
            found = _bare(instruction, self.system)
            kind = "bare" if found else kind
        shift = ValueShift.of(self.system, {**found, **stated}, source=self.name)
        return Translation(shift, _CONFIDENCE[kind])


def directed_changes(instruction: str, system: ValueSystem) -> dict[str, float]:
    """Values that stand beside a direction word, with their change on the grid.

    Of several directions for one value the largest in size holds, and the first of two as large.
    """
    text = _QUOTED.sub(" ", instruction.lower().replace("’", "'"))
    words = _TOKEN.findall(text)
    before, after = _directions()
    known = terms(system)
    longest = max(len(p.split()) for p in [*known, *before, *after])
    changes: dict[str, float] = {}
    amount, since, at = None, 0, 0
    while at < len(words):
        if words[at] in _ENDS:
            amount = None
        phrase, size = _longest(words, at, {**before, **known}, longest)
        if phrase is None:
            at, since = at + 1, since + 1
            continue
        if phrase in before and phrase not in known:
            amount, since = before[phrase], 0
        else:
            term = known[phrase]
            follows, extra = _longest(words, at + size, after, longest)
            change = after[follows] if follows is not None else amount
            if change is not None and (follows is not None or since <= _REACH):
                change *= term.sign
                if abs(change) > abs(changes.get(term.value, 0.0)):
                    changes[term.value] = change
            since, size = 0, size + extra  # a list shares its direction
        at += size
    return {value: change for value, change in changes.items() if change}


def _bare(instruction: str, system: ValueSystem) -> dict[str, float]:
    """A request that is nothing but a value's word (`kinder`, `Loyalty!`) wants more of it."""
    words = [w for w in _TOKEN.findall(instruction.lower()) if w.isalpha() or "-" in w]
    words = [w for w in words if w not in ("please", "and", "thanks", "just")]
    known = terms(system)
    found = {}
    for word in words:
        stem = next((s for s in (word, word[:-2], word[:-1]) if s in known), None)
        if stem is None or (stem != word and not word.endswith("er")):
            return {}
        found[known[stem].value] = float(known[stem].sign)
    return found


def _longest(
    words: Sequence[str], at: int, phrases: Mapping[str, object], limit: int
) -> tuple[str | None, int]:
    for size in range(min(limit, len(words) - at), 0, -1):
        phrase = " ".join(words[at : at + size])
        if phrase in phrases:
            return phrase, size
    return None, 0


@cache
def _directions() -> tuple[dict[str, float], dict[str, float]]:
    raw = yaml.safe_load((DATA / "rules.yaml").read_text("utf-8"))
    before, after = (
        {phrase: float(amount) for amount, phrases in raw[side].items() for phrase in phrases}
        for side in ("before", "after")
    )
    return before, after
