"""Two sides of a comparison on the same prompts: the difference, its interval, its p-value.

A number to compare is a function of the means of some columns over prompts: a gain is one mean, a
share of wrong facts is one sum over another, leakage is a mean of positive parts. Written so, both
instruments are one matrix product:

    interval    prompts are drawn with replacement, both sides of a prompt together (bootstrap)
    p-value     the sides of each prompt are swapped at random (paired permutation test), which is
                exact where nothing distinguishes the sides, however few the prompts and however
                rare the event; a bootstrap p-value is too small there

Many comparisons: `holm` (Holm 1979) keeps the chance of any false finding below the level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from valign.measure.bootstrap import Resampling
from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate

Number = Callable[[np.ndarray], np.ndarray]
"""Means of columns (b, k) -> the number (b,)."""


@dataclass(frozen=True)
class Contrast:
    """A number on two sides of the same prompts.

    Attributes:
        a, b: the number on either side, over the prompts that both have.
        difference: b - a, with its interval.
        p: two-sided p-value of no difference, not yet corrected for other comparisons.
    """

    a: float
    b: float
    difference: Estimate
    p: float


def contrast(
    a: np.ndarray,
    b: np.ndarray,
    number: Number | None = None,
    *,
    clusters: Sequence | np.ndarray | None = None,
    seed: int = 0,
    n_draws: int = 2000,
    level: float = 0.95,
) -> Contrast:
    """Compare a number on two sides, paired by row.

    Args:
        a, b: columns of either side, shape (n_rows, k) or (n_rows,); row r of both is the same
            prompt. A row with NaN on either side is left out on both.
        number: what is made of the columns' means; default the mean of the first column.
        clusters: label per row; rows of one label (one prompt under several seeds) are drawn and
            swapped together.
        seed: of draws and swaps.
        n_draws: of either.

    Raises:
        MeasureError: shapes that differ, or no row that both sides have.
    """
    left, right = (np.asarray(x, dtype=float).reshape(len(x), -1) for x in (a, b))
    if left.shape != right.shape:
        raise MeasureError(f"The sides must be paired by row: {left.shape} and {right.shape}.")
    labels = np.arange(len(left)) if clusters is None else np.asarray(clusters)
    both = ~(np.isnan(left).any(axis=1) | np.isnan(right).any(axis=1))
    if not both.any():
        raise MeasureError("No prompt was answered on both sides, so nothing can be compared.")
    left, right, labels = left[both], right[both], labels[both]
    made = number or (lambda means: means[:, 0])

    def apart(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return made(high) - made(low)

    draws = Resampling.of(len(left), seed=seed, n_boot=n_draws, clusters=labels)
    mean_a, mean_b = left.mean(axis=0, keepdims=True), right.mean(axis=0, keepdims=True)
    weights = draws.counts / draws.counts.sum(axis=1, keepdims=True)
    observed = apart(mean_a, mean_b)
    difference = draws.summarise(observed[0], apart(weights @ left, weights @ right), level=level)

    gap = np.zeros((draws.n_units, left.shape[1]))
    np.add.at(gap, draws.unit, right - left)
    swap = np.random.default_rng([seed, 1]).random((n_draws, draws.n_units)) < 0.5
    moved = swap.astype(float) @ gap / len(left)
    p = _two_sided(float(observed[0]), apart(mean_a + moved, mean_b - moved))
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = float(made(mean_a)[0]), float(made(mean_b)[0])
    return Contrast(*ends, difference.at(), p)


def _two_sided(observed: float, swapped: np.ndarray) -> float:
    """Share of swaps at least as far from nothing as what was observed.

    Where no swap reaches it, the count says only p < 1/n; there Hoeffding's bound for sums of
    random signs, 2 exp(-z^2 / 2) with z in standard deviations of the swaps, carries on (a bound
    for means; close for other numbers; this use of it is ours), so that a strong effect survives
    the correction for many comparisons.
    """
    found = np.abs(swapped[np.isfinite(swapped)])
    if not np.isfinite(observed) or not len(found):
        return float("nan")
    edge = abs(observed) * (1 - 1e-9) - 1e-12  # what is equal but for rounding counts as reached
    reached = int((found >= edge).sum())
    p = (1 + reached) / (1 + len(found))
    spread = float(np.sqrt(np.mean(found**2)))
    if reached or not spread:
        return p
    return min(p, 2 * float(np.exp(-((observed / spread) ** 2) / 2)))


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """P-values corrected for their number by Holm's step-down rule; NaN counts for nothing."""
    given = np.asarray(p, dtype=float)
    found = np.full(given.shape, np.nan)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    stepped = given[order] * np.arange(len(order), 0, -1)
    found[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return found
