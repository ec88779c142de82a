"""The trained translator over the nineteen refined values: each takes its parent's change (ours).

Where the instruction names some of a value's parts (`nature` of universalism), only those change;
where it names none, all parts do. Face and humility have no parent among the ten: they change only
where a direction word stands beside them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from valign.translate.model import EnglishTranslator
from valign.translate.numbers import stated_changes
from valign.translate.rules import directed_changes
from valign.translate.types import Translation, ValueShift
from valign.values import convert, load_system


class NineteenTranslator:
    """An `EnglishTranslator` whose shifts are spread over `schwartz19`."""

    def __init__(self, ten: EnglishTranslator):
        self.ten = ten
        self.name = ten.name
        self.system = load_system("schwartz19")

    def translate_all(self, instructions: Sequence[str]) -> list[Translation]:
        """One translation an instruction; the confidence is that of the ten values' shift."""
        return [
            self._spread(instruction, found)
            for instruction, found in zip(
                instructions, self.ten.translate_all(instructions), strict=True
            )
        ]

    def _spread(self, instruction: str, found: Translation) -> Translation:
        named = _named(instruction)
        changes: dict[str, float] = {}
        for value, change in found.items():
            parts = parts_of(value)
            chosen = [part for part in parts if part in named] or parts
            changes |= dict.fromkeys(chosen, change)
        parentless = set(self.system.names) - {
            p for v in self.ten.system.names for p in parts_of(v)
        }
        directed = directed_changes(instruction, self.system)
        changes |= {value: directed[value] for value in parentless if value in directed}
        changes |= stated_changes(instruction, self.system)
        return Translation(ValueShift.of(self.system, changes, source=self.name), found.confidence)


@cache
def parts_of(value: str) -> tuple[str, ...]:
    """The nineteen's parts of one of the ten, in circle order."""
    names = load_system("schwartz19").names

    def belongs(part: str) -> bool:
        alone = {name: float(name == part) for name in names}
        return convert(alone, "schwartz19", "schwartz10")[value] > 0

    return tuple(part for part in names if belongs(part))


def _named(instruction: str) -> set[str]:
    """Parts whose name, title or keyword stands in the text."""
    text = " ".join(re.findall(r"[a-z]+", instruction.lower()))

    def stands(phrase: str) -> bool:
        flat = " ".join(re.findall(r"[a-z]+", phrase.lower()))
        return re.search(rf"\b{flat}\b", text) is not None

    return {
        value.name
        for value in load_system("schwartz19")
        if any(map(stands, (value.name, *value.keywords)))
    }
