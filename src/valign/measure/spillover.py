"""The steering spill-over matrix: does steering one value move the others as the circle says?

S_ij is the mean change of value j while value i is steered, at one dose. All of it is ours:

    fidelity       Spearman(S_ij, cos(theta_i - theta_j)) over i != j, Mantel p-value
    selectivity_i  S_ii / mean_{j != i} |S_ij|

High fidelity with low selectivity is a control that moves a whole side of the circle; high
selectivity leaves little to correlate. A perfect control (nothing else moves) has no fidelity
(NaN) and infinite selectivity; no control has neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valign.measure.bootstrap import Estimates, Resampling
from valign.measure.control import Paired
from valign.measure.errors import MeasureError
from valign.measure.permutation import Tested, mantel, outward, spearman
from valign.measure.structure import circle_distance
from valign.values import ValueSystem


@dataclass(frozen=True, eq=False)
class Spillover:
    """Attributes:
    matrix: S, rows are targets, shape (n_values, n_values).
    fidelity: in [-1, 1].
    selectivity: per target, (n_values,).
    """

    matrix: Estimates
    fidelity: Tested
    selectivity: Estimates


def spillover(
    paired: Paired,
    system: ValueSystem,
    resampling: Resampling,
    *,
    permutations: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Spillover:
    """Measure S on paired answers; target i of `paired` must be value i of the system, alone.

    Raises:
        MeasureError: other targets, or columns of another system.
        NoCircleError: the system has no circle.
    """
    n = len(system)
    if paired.targets.shape != (n, n) or (paired.targets != np.eye(n)).any():
        raise MeasureError(
            f"A spill-over matrix steers to each value of {system.name} in turn: {n} targets in "
            f"the system's order, each +1 on its own value; got targets {paired.targets.shape}."
        )
    theory = np.cos(np.deg2rad(circle_distance(system)))
    i, j = np.nonzero(~np.eye(n, dtype=bool))
    matrix = resampling.estimates(paired.shift, level=level)
    return Spillover(
        matrix=matrix,
        fidelity=Tested(
            outward(
                resampling.estimate(lambda w: fidelity(paired.shift(w), theory), level=level),
                bottom=-1,
                top=1,
            ),
            mantel(matrix.value, theory, (i, j), permutations=permutations, seed=seed),
        ),
        selectivity=resampling.estimates(lambda w: selectivity(paired.shift(w)), level=level),
    )


def fidelity(shift: np.ndarray, theory: np.ndarray) -> np.ndarray:
    """Rank correlation off the diagonal; shift (..., n, n), theory (n, n), result (...)."""
    i, j = np.nonzero(~np.eye(len(theory), dtype=bool))
    return spearman(shift[..., i, j], theory[i, j])


def selectivity(shift: np.ndarray) -> np.ndarray:
    """Own change over the mean size of the others', (..., n, n) -> (..., n).

    Infinite where only the target moves, NaN where nothing does.
    """
    n = shift.shape[-1]
    own = np.einsum("...ii->...i", shift)
    others = (np.abs(shift).sum(axis=-1) - np.abs(own)) / (n - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(others > 1e-12, own / others, np.where(own == 0, np.nan, own * np.inf))
