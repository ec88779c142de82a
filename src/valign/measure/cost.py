"""What a control costs in time, relative to the unsteered model."""

from __future__ import annotations

import numpy as np

from valign.measure.bootstrap import Resampling
from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate


def relative_time(
    steered: np.ndarray, baseline: np.ndarray, resampling: Resampling, *, level: float = 0.95
) -> Estimate:
    """Median over runs of seconds steered / seconds unsteered; 1 costs nothing.

    Time the two in turns (unsteered, steered, unsteered, ...) so that a slow spell of the
    machine hits both; the median forgets the runs in which it hit one.

    Args:
        steered, baseline: seconds of run k for the same work, shape (n_runs,).
    """
    pairs = _timed(steered) / _timed(baseline)
    order = np.argsort(pairs)

    def weighted_median(weights: np.ndarray) -> np.ndarray:
        mass = np.cumsum(weights[:, order], axis=1)
        half = mass[:, -1:] / 2
        lower = (mass < half - 1e-9).sum(axis=1)
        upper = (mass <= half + 1e-9).sum(axis=1)
        ranked = pairs[order]
        return (ranked[lower] + ranked[np.minimum(upper, len(ranked) - 1)]) / 2

    return resampling.estimate(weighted_median, level=level)


def _timed(seconds: np.ndarray) -> np.ndarray:
    found = np.asarray(seconds, dtype=float)
    if not (found > 0).all():
        raise MeasureError("Seconds must be above zero.")
    return found
