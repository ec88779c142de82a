"""Which methods are beaten outright: non-dominated sets and hypervolume in two dimensions.

Everything here is to be maximised; negate what should be small (leakage, time).
"""

from __future__ import annotations

import numpy as np

from valign.measure.errors import MeasureError


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Which points no other point beats: as good everywhere and better somewhere.

    Args:
        points: (n, k), larger is better. Points with NaN are dominated. Equal points stay both.

    Returns:
        bool, shape (n,).
    """
    given = _points(points)
    ok = ~np.isnan(given).any(axis=1)
    better = (given[:, None] >= given[None]).all(-1) & (given[:, None] > given[None]).any(-1)
    return ok & ~better.any(axis=0)


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """Area dominated by the points above the reference, exact, for two objectives.

    Args:
        points: (n, 2), larger is better; those below the reference in a coordinate add nothing.
        reference: (2,), the worst corner; state it with the number, which means nothing alone.

    Raises:
        MeasureError: other than two objectives (moocore's `hypervolume` does any number).
    """
    given, corner = _points(points), np.asarray(reference, dtype=float)
    if given.shape[1] != 2 or corner.shape != (2,):
        raise MeasureError(
            f"hypervolume is for two objectives, got points {given.shape} and reference "
            f"{corner.shape}. For more objectives use moocore.hypervolume."
        )
    front = given[non_dominated(given)]
    front = np.unique(front[(front > corner).all(axis=1)], axis=0)[::-1]
    area, top = 0.0, corner[1]
    for x, y in front:  # x falls, y rises
        area += (x - corner[0]) * (y - top)
        top = y
    return float(area)


def _points(points: np.ndarray) -> np.ndarray:
    given = np.asarray(points, dtype=float)
    if given.ndim != 2:
        raise MeasureError(f"points must be (n, k), got shape {given.shape}.")
    return given
