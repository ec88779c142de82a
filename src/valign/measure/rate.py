"""Rates of independent yes/no outcomes, with an interval that is right at 0 and 1, too."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate


def rate(outcomes: np.ndarray, *, level: float = 0.95) -> Estimate:
    """Share of yes with Wilson's score interval (Wilson 1927).

    For one outcome per prompt. Where prompts repeat (several seeds), use `bootstrap.mean` with
    clusters instead: Wilson takes every outcome as independent.

    Args:
        outcomes: 0/1 or bool, shape (n,); NaN is missing.
    """
    given = np.asarray(outcomes, dtype=float).reshape(-1)
    kept = given[~np.isnan(given)]
    if not np.isin(kept, (0.0, 1.0)).all():
        raise MeasureError("A rate counts yes and no: outcomes must be 0 or 1 (NaN is missing).")
    n = len(kept)
    if n == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, level)
    z = NormalDist().inv_cdf(1 - (1 - level) / 2)
    p = float(kept.mean())
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    # Rounding may leave an end a hair inside the point at 0 and 1.
    return Estimate(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), n, level)
