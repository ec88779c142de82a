"""Permutation tests for matrices over values, and rank correlation in batches.

Cells of a matrix over values are not independent (each value stands in a whole row), so a p-value
from the number of cells is wrong. The Mantel test shuffles the values' labels instead: rows and
columns of one matrix together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from valign.measure.estimate import Estimate


@dataclass(frozen=True)
class Tested:
    """An estimate with a one-sided permutation p-value.

    Attributes:
        p: (1 + shuffles at least as good) / (1 + shuffles); NaN where the estimate is undefined.
    """

    estimate: Estimate
    p: float

    def __str__(self) -> str:
        return f"{self.estimate} p={self.p:.3g}"


def outward(found: Estimate, *, bottom: float, top: float) -> Estimate:
    """The interval made symmetric about the estimate, as far as its farther end.

    Noise pulls rank correlations towards zero and lengths away from it, and bootstrap samples are
    noisier than the data: their percentiles may lie wholly on one side of the estimate, while the
    truth lies on the other. This hull of the percentile and the reflected interval covers both
    (ours; conservative).

    Args:
        bottom, top: ends of the scale.
    """
    reach = max(found.value - found.low, found.high - found.value)
    if np.isnan(reach):
        return found
    return replace(found, low=max(bottom, found.value - reach), high=min(top, found.value + reach))


def p_value(observed: float, shuffled: np.ndarray) -> float:
    """Share of shuffles at least as large as the observed number, itself counted."""
    if np.isnan(observed):
        return float("nan")
    return (1 + int((shuffled >= observed - 1e-12).sum())) / (1 + len(shuffled))


def label_shuffles(n: int, permutations: int, seed: int) -> np.ndarray:
    """Shuffled indices 0..n-1, shape (permutations, n)."""
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(n), (permutations, 1)), axis=1)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis, ties averaged; NaN where a side is constant."""
    x, y = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    gone = np.isnan(x).any(axis=-1) | np.isnan(y).any(axis=-1)
    found = pearson(rankdata(x, axis=-1), rankdata(y, axis=-1))
    return np.where(gone, np.nan, found)


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlation along the last axis; NaN where a side is constant."""
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    scale = np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))
    along = (x * y).sum(axis=-1)
    return np.divide(along, scale, out=np.full(np.shape(scale), np.nan), where=scale > 1e-12)


def mantel(
    matrix: np.ndarray,
    theory: np.ndarray,
    cells: tuple[np.ndarray, np.ndarray],
    *,
    permutations: int,
    seed: int,
) -> float:
    """p-value of the rank correlation between two matrices over the same values.

    Args:
        matrix, theory: (n, n).
        cells: row and column indices of the cells that count; a set that every relabelling maps
            onto itself (above the diagonal for symmetric matrices, off the diagonal otherwise).
    """
    row, column = cells
    own = rankdata(matrix[row, column])
    ranks = np.zeros(theory.shape)  # relabelling moves ranks, it does not change them
    ranks[row, column] = rankdata(theory[row, column])
    if (row < column).all():
        ranks += ranks.T
    observed = float(spearman(matrix[row, column], theory[row, column]))
    shuffles = label_shuffles(len(theory), permutations, seed)
    return p_value(observed, over_chunks(
        lambda s: pearson(own, ranks[s[:, row], s[:, column]]), shuffles
    ))  # fmt: skip


def over_chunks(
    function: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, size: int = 500
) -> np.ndarray:
    """`function` on slices of rows, joined; bounds the memory of batched statistics."""
    return np.concatenate([function(rows[i : i + size]) for i in range(0, len(rows), size)])
