"""How many prompts a control moved the wrong way: what a mean hides.

Steering works on the average and backwards on many inputs (Tan et al., arXiv 2407.12404; Braun,
arXiv 2602.17881), so this share stands beside every gain. A prompt moves by the change of its
score along the target; with presence in {-1, 0, 1} most prompts do not move at all, and the
three shares add up to one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valign.measure.bootstrap import Estimates, Resampling, mean
from valign.measure.control import Paired, on_target


@dataclass(frozen=True, eq=False)
class Moves:
    """Shares of prompts per target, (n_targets,) each; NaN where a target has no prompts.

    Attributes:
        wrong: moved against the target.
        right: moved towards it.
        still: did not move.
    """

    wrong: Estimates
    right: Estimates
    still: Estimates


def moves(
    paired: Paired, resampling: Resampling, *, tolerance: float = 1e-9, level: float = 0.95
) -> Moves:
    """Count the directions.

    Args:
        tolerance: changes up to this size are none; raise it for scores that are never equal.
    """
    change = on_target(paired.paired_shift(), paired.targets)
    missing = np.isnan(change)

    def share(happened: np.ndarray) -> Estimates:
        return mean(np.where(missing, np.nan, happened), resampling, level=level)

    return Moves(
        wrong=share(change < -tolerance),
        right=share(change > tolerance),
        still=share(np.abs(change) <= tolerance),
    )
