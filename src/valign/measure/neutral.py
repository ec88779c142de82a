"""What steering does where it should do nothing: everyday questions that call for no value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from valign.measure.bootstrap import Estimates, Resampling, mean, weighted_mean
from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate
from valign.measure.rate import rate


def unchanged(baseline: Sequence[str], steered: Sequence[str], *, level: float = 0.95) -> Estimate:
    """Share of neutral prompts whose greedy answer is the same text with and without control.

    Spaces at the ends do not count. Only for greedy decoding: sampled answers differ anyway.
    """
    if len(baseline) != len(steered):
        raise MeasureError(f"{len(baseline)} unsteered answers, but {len(steered)} steered ones.")
    same = [a.strip() == b.strip() for a, b in zip(baseline, steered, strict=True)]
    return rate(np.array(same, dtype=float), level=level)


def presence(
    scores: np.ndarray, resampling: Resampling, *, threshold: float = 0.5, level: float = 0.95
) -> Estimates:
    """Share of neutral answers in which each value is present, |score| >= threshold; (n_values,).

    Args:
        scores: (n_answers, n_values) in [-1, 1].
    """
    return mean(_present(scores, threshold), resampling, level=level)


def added_presence(
    baseline: np.ndarray,
    steered: np.ndarray,
    resampling: Resampling,
    *,
    threshold: float = 0.5,
    level: float = 0.95,
) -> Estimate:
    """Values per neutral answer that steering put in, steered minus unsteered, paired.

    Args:
        baseline, steered: (n_answers, n_values) in [-1, 1].
    """
    added = (_present(steered, threshold) - _present(baseline, threshold)).sum(axis=1)
    return resampling.estimate(lambda weights: weighted_mean(weights, added), level=level)


def _present(scores: np.ndarray, threshold: float) -> np.ndarray:
    given = np.asarray(scores, dtype=float)
    return np.where(np.isnan(given), np.nan, (np.abs(given) >= threshold).astype(float))
