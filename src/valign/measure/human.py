"""Leakage in excess of how values hang together in people.

A model whose values are structured as people's are must leak along that structure, so a leakage
whose ideal is zero punishes a faithful model. The part that people's correlations R explain is

    ideal_ij = b_i G_i R_ij,   b_i = max(0, sum' (shift_kj G_k R_kj) / sum' (G_k R_kj)^2)

with G the gains and sums over targets k and values j that have nothing to do with target i: the
size of the coupling is learned from the *other* values (ours). There is no constant term: a control
that raises everything alike is not explained by any structure. `leakage(..., slopes=...)` then
gives every number as an excess, debiased and with intervals; b is taken as given in them.

How closely spill-over follows R at all, `structural fidelity`, is in `valign.measure.spillover`.
"""

from __future__ import annotations

import numpy as np

from valign.measure.bootstrap import Resampling
from valign.measure.control import Paired, on_target
from valign.measure.errors import MeasureError
from valign.measure.leakage import Leakage, leakage
from valign.measure.structure import circle_distance
from valign.values import ValueSystem


def circle_correlations(system: ValueSystem) -> np.ndarray:
    """What the circle says of R: the cosine of the angle between two values, (n, n).

    Use a published matrix instead where there is one.

    Raises:
        NoCircleError: the system has no circle.
    """
    return np.cos(np.deg2rad(circle_distance(system)))


def human_slopes(paired: Paired, correlations: np.ndarray) -> np.ndarray:
    """ideal_ij per unit of gain, (n_targets, n_values), for `leakage(slopes=...)`.

    Args:
        correlations: R, (n_values, n_values), symmetric, in the order of the columns.

    Raises:
        MeasureError: R of another shape or beyond [-1, 1], or too few targets to learn from.
    """
    r = np.asarray(correlations, dtype=float)
    n_targets, n_values = paired.targets.shape
    if (
        r.shape != (n_values, n_values)
        or not np.allclose(r, r.T, atol=1e-6)
        or (np.abs(r) > 1 + 1e-6).any()
    ):
        raise MeasureError(
            f"Correlations of {n_values} values are a symmetric ({n_values}, {n_values}) matrix "
            f"within [-1, 1]; got {r.shape}."
        )
    shift = paired.shift(np.ones((1, paired.n_prompts)))[0]
    gain = on_target(shift, paired.targets)
    along = paired.targets @ r / np.abs(paired.targets).sum(axis=1, keepdims=True)
    own = paired.targets != 0
    slopes = np.zeros((n_targets, n_values))
    for i in range(n_targets):
        apart = ~(own & own[i]).any(axis=1)
        cells = apart[:, None] & ~own & ~own[i][None, :] & ~np.isnan(shift)
        x, y = (gain[:, None] * along)[cells], shift[cells]
        if apart.sum() < 2 or not (x**2).sum() > 0:
            raise MeasureError(
                "The coupling is learned from other targets: measure two more at least that "
                "share no value with this one, and that move."
            )
        slopes[i] = max(0.0, float(x @ y / (x @ x))) * along[i]
    return slopes


def excess_leakage(
    paired: Paired,
    system: ValueSystem,
    resampling: Resampling,
    *,
    correlations: np.ndarray | None = None,
    level: float = 0.95,
) -> Leakage:
    """Leakage beyond what people's correlations explain.

    Args:
        correlations: R; the circle's where none are given.
    """
    r = circle_correlations(system) if correlations is None else correlations
    return leakage(paired, system, resampling, slopes=human_slopes(paired, r), level=level)
