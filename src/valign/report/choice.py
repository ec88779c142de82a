"""What a page shows first: one reading, one dose at which methods are compared, one main block."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from valign.study.results import Block, Results, Row, Sample

_READINGS = ("ungated", "gated", "on_topic", "neutral")
"""From the strictest to the laxest."""


def main_reading(results: Results) -> str:
    """The strictest reading that was measured."""
    found = {block.reading for block in results.blocks}
    return next((r for r in _READINGS if r in found), "ungated")


def comparison_dose(results: Results) -> float | None:
    """The dose most methods were measured at; the middle one where several tie."""
    methods: dict[float, set[str]] = {}
    for block in results.blocks:
        if block.dose is not None:
            methods.setdefault(block.dose, set()).add(block.method)
    if not methods:
        return None
    most = max(len(names) for names in methods.values())
    tied = sorted(dose for dose, names in methods.items() if len(names) == most)
    return tied[(len(tied) - 1) // 2]


def compared(results: Results) -> list[Block]:
    """Blocks of the main reading at the comparison dose, and those that have no dose."""
    reading, dose = main_reading(results), comparison_dose(results)
    return [b for b in results.blocks if b.reading == reading and b.dose in (None, dose)]


def unsteered(results: Results) -> Block | None:
    """The block without control, whose rates the others are held against."""
    plain = [b for b in results.blocks if b.kind == "none"]
    same = [b for b in plain if b.reading == main_reading(results)]
    return next(iter(same or plain), None)


def main_block(results: Results) -> Block | None:
    """The competing method with the largest mean gain at the comparison dose."""
    steered = [b for b in compared(results) if b.kind != "none"]
    rivals = [b for b in steered if b.role == "method"] or steered
    return max(rivals, key=lambda b: _ranked(b.summary.gain.value), default=None)


def samples(results: Results, rows: Iterable[Row], *, per_target: int = 2) -> Sequence[Sample]:
    """The results' own samples, or else the first prompts of each target, taken in id order.

    Never picked by what the answers say.
    """
    if results.samples:
        return results.samples
    shown = {(b.method, b.dose): b.label for b in compared(results)}
    reading = main_reading(results)
    plain: dict[tuple[str, int], Row] = {}
    steered: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        if row.reading != reading or ((row.method, row.dose) not in shown and row.target):
            continue
        if row.target:
            steered.setdefault((row.target, row.prompt_id, row.seed), []).append(row)
        else:
            plain[row.prompt_id, row.seed] = row
    taken: Counter[str] = Counter()
    found = []
    for (target, prompt_id, seed), answers in sorted(steered.items()):
        if taken[target] == per_target:
            continue
        taken[target] += 1
        by_label = {shown[row.method, row.dose]: row for row in answers}
        if (prompt_id, seed) in plain:
            by_label = {"none": plain[prompt_id, seed], **by_label}
        found.append(
            Sample(
                prompt_id=prompt_id,
                prompt=answers[0].prompt,
                target=target,
                answers={label: row.answer for label, row in by_label.items()},
                scores={label: row.scores for label, row in by_label.items()},
            )
        )
    return found


def _ranked(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
