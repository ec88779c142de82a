"""Two folders compared on the prompts they share: run against run, study against study, method
against method.

Every comparison is paired by prompt and seed; see `valign.measure.contrast` for interval and
p-value. All p-values of one call are corrected together by Holm's rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from valign.measure.contrast import Number, contrast, holm
from valign.measure.control import on_target
from valign.study.answers import Answers
from valign.study.cells import read_cell
from valign.study.results import Results, Row, read_rows
from valign.values import ValignError

Unit = tuple[int, str]
"""Seed and prompt id."""

Arm = tuple[str, float | None]
"""Method label and dose."""

ALPHA = 0.05
"""Corrected p-values up to this are called a difference."""


class CompareError(ValignError, ValueError):
    """Folders that cannot be compared."""


@dataclass(frozen=True)
class Comparison:
    """One number on both sides.

    Attributes:
        method_a, dose_a, method_b, dose_b: what was compared; `none` is the unsteered model.
        target: profile, or empty for the mean over all shared targets.
        value: the value whose presence is compared, for the unsteered model; else empty.
        metric: see `METRICS`.
        a, b: the number on either side, on shared prompts.
        difference, low, high: b - a with its interval.
        n: prompts.
        p, p_holm: of no difference, alone and corrected for all comparisons of the call.
    """

    model_a: str
    model_b: str
    method_a: str
    dose_a: float | None
    method_b: str
    dose_b: float | None
    target: str
    value: str
    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    n: int
    p: float
    p_holm: float = float("nan")

    @property
    def verdict(self) -> Literal["higher", "lower", "not shown"]:
        """What B is, by the corrected p-value."""
        if not self.p_holm <= ALPHA:
            return "not shown"
        return "higher" if self.difference > 0 else "lower"

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        metric = METRICS[self.metric]
        unit, scale = (" points", 100.0) if metric.share else ("", 1.0)
        told = (
            f"{self.difference * scale:+.3g}{unit} [{self.low * scale:+.3g}, "
            f"{self.high * scale:+.3g}]"
        )
        sides = f"A {self.a * scale:.3g}, B {self.b * scale:.3g}, {self.n} prompts"
        what = f"{self.value}, {metric.title}" if self.value else metric.title
        if self.verdict == "not shown":
            found = f"no difference in {what} shown: {told}"
        else:
            good = metric.better and (self.verdict == metric.better)
            judged = "" if metric.better is None else ", better" if good else ", worse"
            found = f"{what} is {self.verdict} in B by {told}{judged}"
        return f"{self.place}: {found} ({sides}, {_p(self.p_holm)})."

    @property
    def place(self) -> str:
        """Which arm and target."""
        arms = _arm(self.method_a, self.dose_a)
        other = _arm(self.method_b, self.dose_b)
        if arms != other:
            arms = f"{arms} (A) and {other} (B)"
        if self.value:
            return arms
        return f"{arms}, {self.target or 'mean over targets'}"


@dataclass(frozen=True)
class Metric:
    """A number to compare.

    Attributes:
        share: told in percentage points.
        better: which way is better, if any.
        number: what is made of the means of its columns; None is the first one's mean.
        ratio: whether its second column is a denominator.
    """

    title: str
    share: bool
    better: Literal["higher", "lower"] | None
    number: Number | None = None
    ratio: bool = False


METRICS: dict[str, Metric] = {
    "presence": Metric("presence", True, None),
    "gain": Metric("gain", True, "higher"),
    # Without taking off the floor: noise raises both sides alike.
    "leakage_raw": Metric(
        "leakage", True, "lower", lambda means: np.maximum(means, 0).mean(axis=-1)
    ),
    "fluency": Metric("fluent answers", True, "higher"),
    "facts_wrong": Metric("wrong facts", True, "lower", lambda m: m[:, 0] / m[:, 1], ratio=True),
    "perplexity": Metric(
        "perplexity", False, "lower", lambda m: np.exp(m[:, 0] / m[:, 1]), ratio=True
    ),
    "neutral_unchanged": Metric("neutral answers unchanged", True, "higher"),
}
"""What is compared; defined as in `docs/results.md`."""


@dataclass(frozen=True, eq=False)
class Side:
    """The answers of one model in a folder.

    Attributes:
        name: of the model.
        values: names, in order.
        threshold: from this score on a value is present.
        answers: (reading, method, target, dose) -> unit -> row.
    """

    name: str
    values: tuple[str, ...]
    threshold: float
    answers: dict[tuple[str, str, str, float | None], dict[Unit, Row]]

    @classmethod
    def of(cls, results: Results, rows: Sequence[Row]) -> Side:
        found: dict[tuple[str, str, str, float | None], dict[Unit, Row]] = {}
        for row in rows:
            key = (row.reading, row.method, row.target, row.dose)
            found.setdefault(key, {})[row.seed, row.prompt_id] = row
        threshold = float(results.settings.get("presence_threshold", 0.5))  # type: ignore[arg-type]
        return cls(results.model.name, tuple(results.system.values), threshold, found)

    def arms(self) -> dict[Arm, list[str]]:
        """Targets of every arm."""
        found: dict[Arm, list[str]] = {}
        for reading, method, target, dose in self.answers:
            if reading == "ungated" and target and method != "none":
                found.setdefault((method, dose), []).append(target)
        return found

    def at(self, reading: str, arm: Arm, target: str, units: Sequence[Unit]) -> Answers:
        found = self.answers.get((reading, arm[0], target, arm[1]), {})
        return Answers([found.get(unit) for unit in units])

    def shift(self, arm: Arm, target: str, units: Sequence[Unit]) -> np.ndarray:
        """Change of presence per prompt, (n_units, n_values)."""
        read = (self.values, self.threshold)
        plain = self.at("ungated", ("none", None), "", units).presence(*read)
        return self.at("ungated", arm, target, units).presence(*read) - plain


def read_sides(folder: str | Path) -> list[Side]:
    """The models of a run's or a study's folder.

    Raises:
        ResultsError: neither of both, or not finished.
    """
    folder = Path(folder)
    if not (folder / "study.json").is_file():
        return [Side.of(Results.read(folder), list(read_rows(folder / "rows.jsonl")))]
    files = sorted((folder / "results").glob("*.json"))
    if not files:
        raise CompareError(
            f"The study in {folder} has no results yet; run `valign study FILE --out {folder}` to "
            "its end."
        )
    by_model: dict[str, list[Row]] = {}
    for path in sorted((folder / "cells").glob("*.parquet")):
        about, rows = read_cell(path)
        by_model.setdefault(about["cell"]["model"], []).extend(rows)
    found = [Results.read(path) for path in files]
    return [Side.of(results, by_model[results.model.name]) for results in found]


def compare(
    a: Sequence[Side],
    b: Sequence[Side],
    *,
    method_a: str | None = None,
    method_b: str | None = None,
    dose: float | None = None,
    seed: int = 0,
    n_draws: int = 2000,
) -> list[Comparison]:
    """Compare what both sides hold.

    Args:
        a, b: models by `read_sides`; paired by name, or as they are where each side has one.
        method_a, method_b: compare these methods with each other; default every method with
            itself.
        dose: only this one.

    Raises:
        CompareError: nothing in common; the message says what either side holds.
    """
    found: list[Comparison] = []
    for left, right in _pairs(a, b):
        if left.values != right.values:
            raise CompareError(
                f"The sides speak of different values: {', '.join(left.values)} and "
                f"{', '.join(right.values)}."
            )
        for arm_a, arm_b in _arms(left, right, method_a, method_b, dose):
            found += _compared(left, right, arm_a, arm_b, seed, n_draws)
        found += _unsteered(left, right, seed, n_draws)
    if not found:
        raise CompareError("The sides share no prompts; were the same seeds and prompts asked?")
    corrected = holm([one.p for one in found])
    return [replace(one, p_holm=float(p)) for one, p in zip(found, corrected, strict=True)]


def _pairs(a: Sequence[Side], b: Sequence[Side]) -> list[tuple[Side, Side]]:
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    other = {side.name: side for side in b}
    found = [(side, other[side.name]) for side in a if side.name in other]
    if not found:
        names = [", ".join(side.name for side in sides) for sides in (a, b)]
        raise CompareError(f"No model stands on both sides: {names[0]} and {names[1]}.")
    return found


def _arms(
    left: Side, right: Side, method_a: str | None, method_b: str | None, dose: float | None
) -> list[tuple[Arm, Arm]]:
    one, two = left.arms(), right.arms()
    for method, arms in ((method_a, one), (method_b, two)):
        if method is not None and method not in {name for name, _ in arms}:
            there = ", ".join(dict.fromkeys(name for name, _ in arms))
            raise CompareError(f"No answers of {method!r}; there are: {there}.")
    wanted = [
        (x, y)
        for x in one
        for y in two
        if (x[0] == method_a if method_a else True)
        and (y[0] == method_b if method_b else True)
        and (bool(method_a and method_b) or x[0] == y[0])
        and (x[1] == y[1] or None in (x[1], y[1]))
        and (dose is None or dose in (x[1], y[1]))
    ]
    if not wanted:
        told = [", ".join(_arm(*arm) for arm in arms) or "nothing" for arms in (one, two)]
        raise CompareError(f"No method and dose stands on both sides. A: {told[0]}. B: {told[1]}.")
    return wanted


def _compared(
    left: Side, right: Side, arm_a: Arm, arm_b: Arm, seed: int, n_draws: int
) -> Iterator[Comparison]:
    """Every metric for every shared target, then for their mean."""
    targets = [t for t in left.arms()[arm_a] if t in right.arms()[arm_b]]
    sides = ((left, arm_a), (right, arm_b))
    for chosen in [[t] for t in targets] + ([targets] if len(targets) > 1 else []):
        for metric, columns in _COLUMNS.items():
            reading = "neutral" if metric == "neutral_unchanged" else "ungated"
            units = _shared(left, right, arm_a, arm_b, chosen, reading)
            if not units:
                continue
            a, b = (columns(side, arm, chosen, units) for side, arm in sides)
            if not _defined(METRICS[metric], a, b):
                continue
            found = contrast(
                a, b, METRICS[metric].number, clusters=[prompt for _, prompt in units],
                seed=seed, n_draws=n_draws,
            )  # fmt: skip
            d = found.difference
            yield Comparison(
                left.name, right.name, *arm_a, *arm_b, chosen[0] if len(chosen) == 1 else "", "",
                metric, found.a, found.b, d.value, d.low, d.high, d.n, found.p,
            )  # fmt: skip


def _defined(metric: Metric, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether both sides have the number; a target of every value has none to leak into."""
    known = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    if not a[known].size:
        return False
    return not metric.ratio or all(side[known, 1].any() for side in (a, b))


def _unsteered(left: Side, right: Side, seed: int, n_draws: int) -> Iterator[Comparison]:
    """Presence of every value in the plain models, where these differ."""
    plain: Arm = ("none", None)
    units = _shared(left, right, plain, plain, [""], "ungated")
    sides = [side.at("ungated", plain, "", units) for side in (left, right)]
    said = [[row.answer for row in side.rows if row] for side in sides]
    if not units or said[0] == said[1]:
        return
    a, b = (
        answers.presence(side.values, side.threshold)
        for answers, side in zip(sides, (left, right), strict=True)
    )
    for j, value in enumerate(left.values):
        found = contrast(a[:, j], b[:, j], clusters=[prompt for _, prompt in units],
                         seed=seed, n_draws=n_draws)  # fmt: skip
        d = found.difference
        yield Comparison(
            left.name, right.name, *plain, *plain, "", value, "presence", found.a, found.b,
            d.value, d.low, d.high, d.n, found.p,
        )  # fmt: skip


def _shared(
    left: Side, right: Side, arm_a: Arm, arm_b: Arm, targets: Sequence[str], reading: str
) -> list[Unit]:
    """Units that both sides were asked in the same words, unsteered and towards every target."""
    held = [
        side.answers.get((reading, *key), {})
        for side, arm in ((left, arm_a), (right, arm_b))
        for key in [("none", "", None), *((arm[0], target, arm[1]) for target in targets)]
    ]
    common = set(held[0]).intersection(*held[1:])
    return sorted(u for u in common if len({answers[u].prompt for answers in held}) == 1)


def _profile(target: str, values: Sequence[str]) -> np.ndarray:
    """A target as typed, as numbers."""
    wanted = dict(part.split("=") for part in target.split(","))
    return np.array([float(wanted.get(value, 0)) for value in values])


def _gain(side: Side, arm: Arm, targets: Sequence[str], units: Sequence[Unit]) -> np.ndarray:
    moved = [on_target(side.shift(arm, t, units), _profile(t, side.values)[None]) for t in targets]
    return np.mean(moved, axis=0)[:, None]


def _leakage(side: Side, arm: Arm, targets: Sequence[str], units: Sequence[Unit]) -> np.ndarray:
    others = [side.shift(arm, t, units)[:, _profile(t, side.values) == 0] for t in targets]
    return np.concatenate(others, axis=1)


def _mean_of(read: Callable[[Row], float | None]):  # type: ignore[no-untyped-def]
    def columns(side: Side, arm: Arm, targets: Sequence[str], units: Sequence[Unit]) -> np.ndarray:
        found = [side.at("ungated", arm, t, units).column(read) for t in targets]
        return np.mean(found, axis=0)[:, None]

    return columns


def _sums_of(  # type: ignore[no-untyped-def]
    top: Callable[[Row], float | None], bottom: Callable[[Row], float | None]
):
    def columns(side: Side, arm: Arm, targets: Sequence[str], units: Sequence[Unit]) -> np.ndarray:
        answers = [side.at("ungated", arm, t, units) for t in targets]
        return np.stack([np.sum([a.column(read) for a in answers], axis=0)
                         for read in (top, bottom)], axis=1)  # fmt: skip

    return columns


def _unchanged(side: Side, arm: Arm, targets: Sequence[str], units: Sequence[Unit]) -> np.ndarray:
    plain = side.at("neutral", ("none", None), "", units).rows
    same = [
        [x.answer.strip() == y.answer.strip()  # type: ignore[union-attr]
         for x, y in zip(plain, side.at("neutral", arm, t, units).rows, strict=True)]
        for t in targets
    ]  # fmt: skip
    return np.mean(np.array(same, dtype=float), axis=0)[:, None]


def _mentioned(row: Row) -> float | None:
    return None if row.facts_kept is None else row.facts_kept + (row.facts_wrong or 0)


_COLUMNS = {
    "gain": _gain,
    "leakage_raw": _leakage,
    "fluency": _mean_of(lambda row: row.fluent),
    "facts_wrong": _sums_of(lambda row: row.facts_wrong, _mentioned),
    "perplexity": _sums_of(
        lambda row: row.nll, lambda row: row.tokens if row.nll is not None else None
    ),
    "neutral_unchanged": _unchanged,
}
"""Metric -> columns per prompt, from (side, arm, targets, units)."""


def _arm(method: str, dose: float | None) -> str:
    name = "unsteered model" if method == "none" else method
    return name if dose is None else f"{name} @ {dose:g}"


def _p(p: float) -> str:
    if not np.isfinite(p):
        return "no p-value"
    return "Holm p < 0.001" if p < 0.001 else f"Holm p = {p:.2g}"
