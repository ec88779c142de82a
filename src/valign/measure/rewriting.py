"""Did a rewrite reach its target and keep its source: the figures of VISA's tables.

    consistency   (forward + backward) / 2
    L2            |D(y') - target|_2
    cosine        <D(y'), target> / (|D(y')| |target|)
    JSR           share with L2 < 0.8 and consistency > 0.3
    reached       share with L2 at most half of |D(y) - target| and consistency > 0.3
    untouched     mean |D(y') - D(y)| over the values that were not to change

VISA, arXiv 2603.04822; the cuts of the joint success rate are the paper's. Its L2 cut lies inside
the range of all mean L2 it reports, so the rate moves a lot for small changes: the curve over cuts
stands beside it (ours). It also counts sources that were near their target from the start, even
when they are handed back unchanged; `reached` does not (ours). Cosine is missing (NaN) where either
vector is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from valign.measure.bootstrap import Estimates, Resampling, mean
from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate

DISTANCE, CONSISTENCY = 0.8, 0.3
"""The paper's cuts."""


def distance(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """L2 of each row from its target, both (n, n_values)."""
    a, b = _rows(scores, target)
    return np.linalg.norm(a - b, axis=1)


def cosine(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Cosine of each row with its target, both (n, n_values); NaN where one is zero."""
    a, b = _rows(scores, target)
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), size, out=np.full(len(a), np.nan), where=size > 1e-12)


def success(
    distances: np.ndarray,
    consistency: np.ndarray,
    *,
    largest: float = DISTANCE,
    least: float = CONSISTENCY,
) -> np.ndarray:
    """Whether each rewrite reached its target and kept its source, (n,) bool."""
    distances, consistency = np.asarray(distances, float), np.asarray(consistency, float)
    if distances.shape != consistency.shape:
        raise MeasureError(
            f"Distances {distances.shape} and consistency {consistency.shape} must be of one "
            "shape: one of each a rewrite."
        )
    return (distances < largest) & (consistency > least)


def reached(
    distances: np.ndarray,
    before: np.ndarray,
    consistency: np.ndarray,
    *,
    share: float = 0.5,
    least: float = CONSISTENCY,
) -> np.ndarray:
    """Whether each rewrite went far enough and kept its source, (n,) bool.

    Args:
        distances, before: L2 from the target of the rewrite and of its source.
        share: of the source's distance that may be left.
    """
    far, start = np.asarray(distances, float), np.asarray(before, float)
    if far.shape != start.shape:
        raise MeasureError(f"Distances {far.shape} and {start.shape} must be of one shape.")
    return (far <= share * start) & (np.asarray(consistency, float) > least)


def success_curve(
    distances: np.ndarray,
    consistency: np.ndarray,
    resampling: Resampling,
    *,
    largest: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2),
    least: Sequence[float] = (0.3, 0.5, 0.7, 0.9),
    level: float = 0.95,
) -> Estimates:
    """Joint success rate at every pair of cuts, shape (n_largest, n_least)."""
    cells = np.stack(
        [
            np.stack([success(distances, consistency, largest=a, least=b) for b in least], axis=1)
            for a in largest
        ],
        axis=1,
    ).astype(float)
    return mean(cells, resampling, level=level)


def untouched(
    scores: np.ndarray, original: np.ndarray, target: np.ndarray, *, least: float = 1e-6
) -> np.ndarray:
    """Mean absolute change of the values that were not to change, (n,); NaN if all were.

    Args:
        scores, original, target: of rewrites, sources and what was wanted, (n, n_values).
    """
    a, b = _rows(scores, original)
    goal = np.asarray(target, dtype=float)
    still = np.abs(goal - b) <= least
    moved = np.where(still, np.abs(a - b), 0.0).sum(axis=1)
    count = still.sum(axis=1)
    return np.divide(moved, count, out=np.full(len(a), np.nan), where=count > 0)


@dataclass(frozen=True)
class RewriteFigures:
    """One method's row of the table, each figure with its interval."""

    consistency: Estimate
    forward: Estimate
    backward: Estimate
    distance: Estimate
    cosine: Estimate
    jsr: Estimate
    reached: Estimate
    untouched: Estimate


def figures(
    scores: np.ndarray,
    original: np.ndarray,
    target: np.ndarray,
    fidelity: np.ndarray,
    resampling: Resampling,
    *,
    level: float = 0.95,
) -> RewriteFigures:
    """All figures of one method over one set of rewrites.

    Args:
        scores: what the judge reads in the rewrites, (n, n_values).
        original: in their sources.
        target: what was wanted.
        fidelity: forward and backward consistency, (n, 2).
        resampling: of the n rows; the same one for all methods, so that they are paired.
    """
    faithful = np.asarray(fidelity, dtype=float)
    far, both = distance(scores, target), faithful.mean(axis=1)

    def of(rows: np.ndarray) -> Estimate:
        return mean(np.asarray(rows, dtype=float), resampling, level=level).at()

    return RewriteFigures(
        consistency=of(both),
        forward=of(faithful[:, 0]),
        backward=of(faithful[:, 1]),
        distance=of(far),
        cosine=of(cosine(scores, target)),
        jsr=of(success(far, both)),
        reached=of(reached(far, distance(original, target), both)),
        untouched=of(untouched(scores, original, target)),
    )


def _rows(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.ndim != 2 or a.shape != b.shape:
        raise MeasureError(
            f"Scores {a.shape} and {b.shape} must both be (rewrites, values), one row a rewrite."
        )
    return a, b
