"""Numbers as text, and the headline of a page in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from valign.report.choice import compared, comparison_dose, main_block, unsteered
from valign.study.results import Block, Measured, Results, TargetResult

MISSING = "–"


def number(x: float | None, *, percent: bool = False, signed: bool = False) -> str:
    """Three significant digits at most; a dash where there is no number.

    percent: a share as `52%`; together with `signed`, a change of a share in points, `+38`.
    """
    if x is None or not math.isfinite(x):
        return MISSING
    sign = "+" if signed else ""
    if percent:
        digits = 0 if abs(x) >= 0.095 else 1
        return _minus(f"{100 * x:{sign}.{digits}f}") + ("" if signed else "%")
    digits = 0 if abs(x) >= 100 else 1 if abs(x) >= 10 else 2 if abs(x) >= 0.0995 else 3
    return _minus(f"{x:{sign}.{digits}f}")


def interval(
    m: Measured | None, *, percent: bool = False, signed: bool = False, unit: str = ""
) -> str:
    """`0.38 [0.30, 0.45]`; no brackets where there is no interval; `unit` follows the point."""
    if m is None or not m.defined:
        return MISSING
    point = number(m.value, percent=percent, signed=signed) + unit
    if not (math.isfinite(m.low) and math.isfinite(m.high)):
        return point
    low, high = (number(x, percent=percent, signed=signed) for x in (m.low, m.high))
    return f"{point} [{low}, {high}]"


@dataclass(frozen=True)
class Headline:
    """The title sentence of a page and the sentences that qualify it."""

    title: str
    points: tuple[str, ...]


def headline(results: Results) -> Headline:
    """What was steered, by what, at which dose, what moved and what it cost."""
    block = main_block(results)
    if block is None:
        return Headline(f"{results.model.name}: nothing was steered", ())
    many = len({b.method for b in results.blocks if b.role == "method"} - {block.method}) > 0
    targets = [pretty(t.target, results) for t in block.targets]
    towards = targets[0] if len(targets) == 1 else f"each of {len(targets)} targets"
    dose = comparison_dose(results)
    at = "" if dose is None else f" at a dose of {dose:g} nats"
    if not many:
        title = f"{block.method} steers {results.model.name} towards {towards}{at}"
    else:
        rivals = {b.method for b in compared(results) if b.kind != "none" and b.role == "method"}
        title = f"{len(rivals)} methods steer {results.model.name} towards {towards}{at}"
    points = [_effect(block, results), *_rivals(block, results)]
    points += _side_effects(block, results)
    return Headline(title, tuple(filter(None, points)))


def _effect(block: Block, results: Results) -> str:
    gain = block.summary.gain
    told = _change(gain, results)
    if not gain.defined:
        return f"{block.label}: the gain could not be measured."
    if not gain.low > 0:
        return (
            f"No control was shown: with {block.label} the gain is {told}, an interval that "
            "includes zero."
        )
    target = block.targets[0]
    value = _single(target, results)
    if len(block.targets) == 1 and value is not None:
        j = results.system.values.index(value)
        before, after = block.c0[j].value, block.c[0][j].value
        verb = "rises" if after >= before else "falls"
        what = "share of answers that show" if results.scale == "presence" else "mean score of"
        percent = results.scale == "presence"
        return (
            f"With {block.label}, the {what} {_title(value, results)} {verb} from "
            f"{number(before, percent=percent)} to {number(after, percent=percent)}: a gain of "
            f"{told} over {gain.n} prompts."
        )
    return f"Mean gain of {block.label} over its targets: {told} ({gain.n} prompts)."


def _rivals(best: Block, results: Results) -> list[str]:
    others = [
        b
        for b in compared(results)
        if b is not best and b.kind != "none" and b.role == "method" and b.summary.gain.defined
    ]
    close = [b.method for b in others if b.summary.gain.high >= best.summary.gain.low]
    lines = []
    if close:
        lines.append(
            f"{best.method} has the largest mean gain, but its interval overlaps with that of "
            f"{_listed(close)}: this run does not tell them apart."
        )
    elif others:
        beaten = _listed([b.method for b in others])
        lines.append(f"Its gain is above that of every other method at the same dose ({beaten}).")
    for b in compared(results):
        if b.role == "baseline" and b.kind != "none":
            told = _change(b.summary.gain, results)
            lines.append(f"For comparison, {b.label} gains {told}.")
    return lines


def _side_effects(block: Block, results: Results) -> list[str]:
    s, plain = block.summary, unsteered(results)
    base = plain.summary if plain else None
    lines = []
    if s.leakage is not None and s.leakage.defined:
        word = "does not show" if s.leakage.low <= 0 else "shows"
        lines.append(
            f"Leakage: {block.label} {word} an unwanted rise of the other values on average, "
            f"{_change(s.leakage, results)} per value beyond chance."
        )
    cost = []
    for name, title in (
        ("facts_kept", "facts kept"),
        ("fluency", "fluent answers"),
        ("perplexity", "perplexity"),
        ("neutral_unchanged", "neutral answers unchanged"),
    ):
        m = getattr(s, name)
        if m is not None and m.defined:
            percent = name != "perplexity"
            before = getattr(base, name, None) if base and name != "neutral_unchanged" else None
            was = f" (unsteered {number(before.value, percent=percent)})" if before else ""
            cost.append(f"{title} {number(m.value, percent=percent)}{was}")
    if block.cost and block.cost.relative_time and block.cost.relative_time.defined:
        cost.append(f"time per answer × {number(block.cost.relative_time.value)}")
    if cost:
        lines.append(f"What {block.label} costs: " + ", ".join(cost) + ".")
    return lines


def _change(m: Measured, results: Results) -> str:
    if results.scale == "intensity":
        return interval(m, signed=True)
    return interval(m, percent=True, signed=True, unit=" points")


def _minus(text: str) -> str:
    """A true minus sign, and none before a rounded zero."""
    return text.replace("-", "−" if float(text) else "")


def _single(target: TargetResult, results: Results) -> str | None:
    name, _, rest = target.target.partition("=")
    return name if name in results.system.values and "," not in rest else None


def _title(value: str, results: Results) -> str:
    return results.system.titles[results.system.values.index(value)].lower()


def pretty(target: str, results: Results) -> str:
    """`benevolence` for `benevolence=+1`, `less power` for `power=-1`; else the profile."""
    name, _, score = target.partition("=")
    if name in results.system.values and score in ("", "+1", "1", "-1"):
        less = score == "-1"
        return f"less {_title(name, results)}" if less else _title(name, results)
    return target


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
