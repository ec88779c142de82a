"""Where steering failed, counted and shown: the first answers of every kind of failure.

Examples are the first in order of seed and prompt id. Nothing is chosen by reading it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from valign.study.results import Results, Row

KINDS = {
    "against": "the target shows less than without steering",
    "instead": "another value rises and the target does not",
    "broken": "not fluent, though the unsteered answer is",
    "facts": "more facts wrong than without steering",
}
"""Kind -> what it means; an answer may be of several kinds."""


@dataclass(frozen=True)
class Failure:
    """One failed answer beside the unsteered one."""

    prompt_id: str
    target: str
    prompt: str
    plain: str
    steered: str
    scores: dict[str, float]


@dataclass(frozen=True)
class Failures:
    """One kind of failure of one arm: how often, and the first examples."""

    kind: str
    count: int
    of: int
    examples: Sequence[Failure]


def failures(
    results: Results, rows: Iterable[Row], method: str, dose: float | None, *, shown: int = 2
) -> list[Failures]:
    """Every kind of failure of one method at one dose."""
    threshold = float(results.settings.get("presence_threshold", 0.5))  # type: ignore[arg-type]
    plain: dict[tuple[int, str], Row] = {}
    steered: list[Row] = []
    for row in rows:
        if row.reading == "ungated" and not row.target:
            plain[row.seed, row.prompt_id] = row
        elif row.reading == "ungated" and (row.method, row.dose) == (method, dose):
            steered.append(row)
    pairs = [
        (plain[row.seed, row.prompt_id], row)
        for row in sorted(steered, key=lambda r: (r.seed, r.prompt_id, r.target))
        if (row.seed, row.prompt_id) in plain
    ]
    found = []
    for kind in KINDS:
        failed = [(a, b) for a, b in pairs if kind in _kinds(a, b, threshold)]
        if failed:
            examples = [
                Failure(b.prompt_id, b.target, b.prompt, a.answer, b.answer, b.scores)
                for a, b in failed[:shown]
            ]
            found.append(Failures(kind, len(failed), len(pairs), examples))
    return found


def _kinds(plain: Row, steered: Row, threshold: float) -> set[str]:
    """How an answer failed, if it did."""
    wanted = {
        name.strip(): float(score or 1)
        for name, _, score in (part.partition("=") for part in steered.target.split(","))
    }

    def moved(value: str) -> int:
        ends = (_sign(row.scores.get(value, 0.0), threshold) for row in (plain, steered))
        before, after = ends
        return after - before

    along = sum(score * moved(value) for value, score in wanted.items())
    found = set()
    if along < 0:
        found.add("against")
    if along <= 0 and any(moved(v) > 0 for v in steered.scores if v not in wanted):
        found.add("instead")
    if plain.fluent and steered.fluent is False:
        found.add("broken")
    if (steered.facts_wrong or 0) > (plain.facts_wrong or 0):
        found.add("facts")
    return found


def _sign(score: float, threshold: float) -> int:
    return 0 if abs(score) < threshold else 1 if score > 0 else -1
