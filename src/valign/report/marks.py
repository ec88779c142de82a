"""An answer with the words coloured that made the judge say so."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from valign.report import circle
from valign.study.results import Mark, SystemInfo

_LEVELS = (0.15, 0.3)
"""Weights from which a colour is stronger, and strongest."""


def coloured(answer: str, marks: Sequence[Mark], target: str, system: SystemInfo) -> Markup:
    """The answer, escaped, with its marks.

    Words of a value that the target names are filled, those of another value underlined; the
    colour says whether they raise or lower the value's score, its strength by how much. The title
    of a word names value and weight.
    """
    named = {system.values[k] for k in circle.named_values(target, system)}
    titles = dict(zip(system.values, system.titles, strict=True))
    out, at = Markup(), 0
    for mark in marks:
        level = 1 + sum(abs(mark.weight) >= least for least in _LEVELS)
        kind = "raises" if mark.weight > 0 else "lowers"
        whose = "own" if mark.value in named else "other"
        weight = f"{mark.weight:+.2f}".replace("-", "−")
        told = f"{titles.get(mark.value, mark.value)} {weight}"
        out += escape(answer[at : mark.start])
        out += Markup('<mark class="{} {} w{}" title="{}">{}</mark>').format(
            kind, whose, level, told, answer[mark.start : mark.end]
        )
        at = mark.end
    return out + escape(answer[at:])
