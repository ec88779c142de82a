"""Which facts of a source a rewrite drops, adds or changes, read without a parser.

Reads names, places, dates, times, amounts and numbers (`factcheck_mentions`), so it sees `170
stalls` go missing and not `the lockers are returned`: what has neither a number nor a capital is
left to entailment (`entail_consistency`). The rules are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from valign.detect.factcheck_mentions import Mention, mentions, plain, related, words
from valign.detect.factcheck_numbers import Number, unit_sizes


@dataclass(frozen=True)
class FactReport:
    """What became of a source's facts.

    Attributes:
        kept: facts of the source that the text states.
        dropped: facts of the source that it does not state.
        added: facts of the text that stand neither in the source nor in what else was allowed.
        changed: pairs (source's, text's) taken out of `dropped` and `added` because both are of
            one kind and count the same thing: `22 volunteers` became `25 volunteers`.
    """

    kept: tuple[Mention, ...]
    dropped: tuple[Mention, ...]
    added: tuple[Mention, ...]
    changed: tuple[tuple[Mention, Mention], ...]

    @property
    def faithful(self) -> bool:
        """Whether nothing was dropped, added or changed."""
        return not (self.dropped or self.added or self.changed)

    @property
    def retention(self) -> float:
        """Share of the source's facts that are kept, 1 where the source states none."""
        total = len(self.kept) + len(self.dropped) + len(self.changed)
        return len(self.kept) / total if total else 1.0

    @property
    def reasons(self) -> tuple[str, ...]:
        """Each fault in words."""
        return (
            *(f"changes {a.kind} {a.text!r} to {b.text!r}" for a, b in self.changed),
            *(f"drops {a.kind} {a.text!r}" for a in self.dropped),
            *(f"adds {a.kind} {a.text!r}" for a in self.added),
        )


def check_facts(source: str, text: str, *, allowed: Sequence[str] = ()) -> FactReport:
    """Compare the facts of a rewrite or answer with those of its source.

    Args:
        source: the text whose facts should stay.
        text: the rewrite or answer.
        allowed: further texts (the prompt) whose facts may appear without being additions; they
            need not be repeated.
    """
    theirs = mentions(source, other=[text, *allowed])
    mine = mentions(text, other=[source, *allowed])
    granted = [m for a in allowed for m in mentions(a, other=[source, text])]
    text_words, known_words = set(words(text)), set(words(" ".join([source, *allowed])))

    kept: list[Mention] = []
    dropped: list[Mention] = []
    for fact in theirs:
        if not fact.soft:
            (kept if _stated(fact, mine, text_words) else dropped).append(fact)
    added = [
        fact
        for fact in mine
        if not fact.soft and not _known(fact, [*theirs, *granted], known_words)
    ]
    changed = []
    for fact in list(dropped):
        match = next((new for new in added if _counts_the_same(fact, new)), None)
        if match is not None:
            changed.append((fact, match))
            dropped.remove(fact)
            added.remove(match)
    return FactReport(tuple(kept), tuple(dropped), tuple(added), tuple(changed))


def _stated(fact: Mention, by: Sequence[Mention], by_words: set[str]) -> bool:
    """Whether a source's fact stands in the text."""
    if fact.kind in ("name", "place"):
        # A name may be shortened (Fleming, the Aram team): half its words must stand.
        hits = sum(any(related(token, word) for word in by_words) for token in fact.key)
        return 2 * hits >= len(fact.key) or _initials(fact.key, by_words)
    if fact.kind == "date" and fact.key[0] != "weekday":
        return any(_date_stated(reading, by) for reading in fact.key if isinstance(reading, tuple))
    return any(_same(fact, other) for other in by)


def _known(fact: Mention, source: Sequence[Mention], source_words: set[str]) -> bool:
    """Whether a text's fact stands in the source."""
    if fact.kind in ("name", "place"):
        # Every word of a name must be known: "Maria Osei" is new where only "Osei" was named.
        short = {"".join(t[0] for t in m.key) for m in source if m.kind in ("name", "place")}
        return all(
            any(related(token, word) for word in source_words) or token in short
            for token in fact.key
        )
    if fact.kind == "date" and fact.key[0] != "weekday":
        return any(
            _date_stated(reading, source) for reading in fact.key if isinstance(reading, tuple)
        )
    return any(_same(fact, other) for other in source)


def _date_stated(date: tuple[int | None, int, int | None], by: Sequence[Mention]) -> bool:
    """Whether month and day stand together, and the year stands there or anywhere."""
    year, month, day = date
    dates = [r for m in by if m.kind == "date" for r in m.key if isinstance(r, tuple)]
    if not any(m == month and (day is None or d == day) for _, m, d in dates):
        return False
    years = {y for y, _, _ in dates} | {
        v for m in by if m.number is not None and m.number.unit is None for v in m.number.values
    }
    return year is None or year in years


def _same(a: Mention, b: Mention) -> bool:
    """Whether two facts that are no names say the same."""
    if a.number is not None and b.number is not None:
        return _same_number(a.number, b.number)
    if {a.kind, b.kind} == {"time", "number"}:
        time, number = (a, b) if a.kind == "time" else (b, a)
        assert number.number is not None
        return number.number.unit is None and any(
            v in (time.key[0] / 60, time.key[0] / 60 - 12) for v in number.number.values
        )
    if a.kind == b.kind == "time":
        gap = (a.key[0] - b.key[0]) % 1440
        # Without am or pm a time before 13:00 can be either half of the day.
        return gap == 0 or (gap == 720 and not (a.key[1] and b.key[1]))
    if a.kind == b.kind == "date":
        if "weekday" in (a.key[0], b.key[0]):
            return a.key == b.key
        return bool(set(a.key) & set(b.key))
    if {a.kind, b.kind} == {"date", "number"}:
        date, number = (a, b) if a.kind == "date" else (b, a)
        assert number.number is not None
        parts = {p for r in date.key if isinstance(r, tuple) for p in (r[0], r[2]) if p is not None}
        return number.number.unit is None and any(v in parts for v in number.number.values)
    return False


def _same_number(a: Number, b: Number) -> bool:
    if a.code or b.code:
        return a.code == b.code
    if a.ordinal != b.ordinal and not (a.soft or b.soft):
        return False
    if a.unit is not None and b.unit is not None and a.unit != b.unit:
        half = {a.unit, b.unit} & {"per cent"} and (a.soft or b.soft)
        if not half:
            return False
    if any(math.isclose(x, y, rel_tol=1e-6) for x in a.values for y in b.values):
        return True
    # A bare number can count the other's unit: "90 minutes" and "all 90 of them".
    bare, counted = (a, b) if a.unit is None else (b, a)
    if bare.unit is not None or counted.unit is None or bare.counts_a_noun:
        return False
    return any(
        math.isclose(x * size, y, rel_tol=1e-6)
        for x in bare.values
        for y in counted.values
        for size in unit_sizes(counted.unit)
    )


def _counts_the_same(a: Mention, b: Mention) -> bool:
    """Whether one could have become the other."""
    if a.number is not None and b.number is not None:
        x, y = a.number, b.number
        if x.unit or y.unit:
            return x.unit == y.unit
        return bool(set(x.head[:2]) & set(y.head[:2]))
    if a.number is not None or b.number is not None:
        return False
    if {a.kind, b.kind} <= {"name", "place"}:
        return any(related(s, t) for s in a.key for t in b.key)
    return a.kind == b.kind


def _initials(key: tuple[str, ...], by_words: set[str]) -> bool:
    return len(key) >= 2 and plain("".join(token[0] for token in key)) in by_words
