"""Fronts of several objectives: hypervolume with intervals, and the choice of a point.

Everything here is to be maximised. Two dimensions are exact arithmetic of `pareto`; more are
moocore's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from valign.measure.bootstrap import Resampling, weighted_mean
from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate
from valign.measure.pareto import hypervolume, non_dominated


def volume(points: np.ndarray, reference: np.ndarray) -> float:
    """Hypervolume dominated by the points above the reference, for any number of objectives.

    Args:
        points: (n, k), larger is better; points that are not above the reference in every
            coordinate add nothing.
        reference: (k,), the worst corner.

    Raises:
        MeasureError: shapes that do not fit, or three objectives and more without moocore.
    """
    given, corner = np.asarray(points, float), np.asarray(reference, float)
    if given.ndim != 2 or corner.shape != given.shape[1:]:
        raise MeasureError(
            f"points (n, k) and a reference (k,) are needed, got {given.shape} and {corner.shape}."
        )
    if given.shape[1] == 1:
        return float(max((given - corner).max(initial=0.0), 0.0))
    if given.shape[1] == 2:
        return hypervolume(given, corner)
    above = given[(given > corner).all(axis=1)]
    if not len(above):
        return 0.0
    try:
        import moocore
    except ImportError:
        raise MeasureError(
            "The hypervolume of three objectives and more needs moocore: "
            "pip install 'valign[train]'."
        ) from None
    return float(moocore.hypervolume(above, ref=corner, maximise=True))


def front_volume(
    scores: np.ndarray, reference: np.ndarray, resampling: Resampling, *, level: float = 0.95
) -> Estimate:
    """Hypervolume of points whose objectives are means over prompts, with a percentile interval.

    Choose the points on other prompts: the best of many noisy points is better than it is. Also
    within one set of prompts the volume of noisy means is a little too large, for every method
    alike, the more so the more points there are.

    Args:
        scores: (prompts, points, k); NaN is missing.
        reference: (k,).
    """
    rows = np.asarray(scores, float)

    def statistic(weights: np.ndarray) -> np.ndarray:
        return np.array([volume(means, reference) for means in weighted_mean(weights, rows)])

    return resampling.estimate(statistic, level=level)


def preferred(
    points: np.ndarray, *, plain: np.ndarray, keep: Mapping[int, float], most: int
) -> int | None:
    """The point with most of one objective that keeps enough of others, or None.

    "No worse than 95 % of safe, most helpful" is `keep={safe: 0.95}, most=helpful`.

    Args:
        points: (n, k).
        plain: (k,), the model without control.
        keep: objective -> share of the way from the plain model to the best point that has to be
            reached; 0 is "no worse than the plain model".
        most: the objective to maximise among those.
    """
    given = np.asarray(points, float)
    ok = ~np.isnan(given).any(axis=1)
    for objective, share in keep.items():
        best, start = np.nanmax(given[:, objective]), float(plain[objective])
        ok &= given[:, objective] >= start + share * (best - start) - 1e-12
    candidates = np.flatnonzero(ok)
    if not len(candidates):
        return None
    best_first = max(candidates, key=lambda i: (given[i, most], given[i].sum()))
    return int(best_first)


def front_of(points: np.ndarray) -> list[int]:
    """Numbers of the non-dominated points, each place once, sorted by the first objective."""
    given = np.asarray(points, float)
    found = np.flatnonzero(non_dominated(given))
    _, first = np.unique(given[found], axis=0, return_index=True)
    return sorted((int(found[i]) for i in first), key=lambda i: given[i, 0])
