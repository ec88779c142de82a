"""Changes that are stated as numbers next to a value's name: `power -0.5`, `+1 benevolence`."""

from __future__ import annotations

import re
from functools import cache

from valign.values import ValueSystem

_NUMBER = r"(?<![\w.,])(?P<{0}>[+\-−]?\s?(?:[01](?:[.,]\d+)?|[.,]\d+))(?![\w%]|[.,]\d)"
_LINK = r"(?:\s*(?:=|:)\s*|\s+(?:by|to|at)\s+|\s+)"
_TURN = r"(?:\s+(?P<turn>up|down))?"


def stated_changes(text: str, system: ValueSystem) -> dict[str, float]:
    """Values with the number stated for them, clipped to [-1, 1]; empty where there is none.

    A sign or `up` and `down` say the direction. A number without either counts only after `=`,
    `:` or `to`, so that `the 1 tradition we have` states nothing.
    """
    found: dict[str, float] = {}
    for match in _pattern(system).finditer(text.lower()):
        before, name = match["before"], match["name"] or match["name2"]
        raw = re.sub(r"\s", "", before or match["after"]).replace("−", "-").replace(",", ".")
        turn = match["turn"] if before is None else None
        linked = before is None and re.search(r"[=:]|\bto\b", match["link"] or "") is not None
        if not (raw[0] in "+-" or turn or linked):
            continue
        number = float(raw) * (-1 if turn == "down" and raw[0] not in "+-" else 1)
        found[_names(system)[_flat(name)]] = max(-1.0, min(1.0, number))
    return found


@cache
def _names(system: ValueSystem) -> dict[str, str]:
    return {_flat(form): value.name for value in system for form in (value.name, value.title)}


def _flat(name: str) -> str:
    return re.sub(r"[\s:-]+", " ", name.lower()).strip()


@cache
def _pattern(system: ValueSystem) -> re.Pattern[str]:
    names = "|".join(
        re.escape(form).replace(r"\ ", r"[\s:-]+")
        for form in sorted(_names(system), key=len, reverse=True)
    )
    after = rf"\b(?P<name>{names})\b{_TURN}(?P<link>{_LINK}){_NUMBER.format('after')}"
    before = rf"{_NUMBER.format('before')}\s+(?:on\s+|for\s+|of\s+)?(?P<name2>{names})\b"
    return re.compile(f"{before}|{after}")
