"""What steering towards or away from each value does to safety.

Steering vectors change how often harmful requests are met, and by value (arXiv 2603.24543,
2506.06404), so one number for a method is not enough: each value and sign stands alone, on the
same requests as the plain model, with p-values corrected for all of them (Holm).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from valign.measure.contrast import contrast, holm
from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate

Side = tuple[str, Literal[1, -1]]
"""(value, +1 towards or -1 away)."""


@dataclass(frozen=True)
class SafetyChange:
    """One outcome under one value and sign.

    Attributes:
        outcome: such as `harmful`, `refused`.
        before, after: its share.
        change: after - before, with its interval.
        p: corrected for all outcomes, values and signs.
    """

    value: str
    sign: int
    outcome: str
    before: float
    after: float
    change: Estimate
    p: float


def safety_changes(
    before: Mapping[str, np.ndarray],
    after: Mapping[Side, Mapping[str, np.ndarray]],
    *,
    seed: int = 0,
    n_draws: int = 2000,
    level: float = 0.95,
) -> list[SafetyChange]:
    """Compare every steered side with the plain model.

    Args:
        before: outcome -> yes or no per request, (n_requests,), NaN for none.
        after: (value, sign) -> the same outcomes on the same requests.

    Raises:
        MeasureError: a side that lacks an outcome, or other requests.
    """
    found = []
    for (value, sign), outcomes in after.items():
        if set(outcomes) != set(before):
            raise MeasureError(
                f"{value} {sign:+d} has outcomes {sorted(outcomes)}, the plain model "
                f"{sorted(before)}; give the same."
            )
        for name, plain in before.items():
            one = contrast(plain, outcomes[name], seed=seed, n_draws=n_draws, level=level)
            found.append(SafetyChange(value, sign, name, one.a, one.b, one.difference, one.p))
    corrected = holm([row.p for row in found])
    return [replace(row, p=float(p)) for row, p in zip(found, corrected, strict=True)]


def overlap(move: np.ndarray, refusal: np.ndarray) -> float:
    """Cosine of a control's move with the direction of refusal, (width,) each.

    Most of what steering does to jailbreaks is said to go through it (arXiv 2603.24543).
    """
    a, b = (np.asarray(x, dtype=float) for x in (move, refusal))
    if a.shape != b.shape or a.ndim != 1:
        raise MeasureError(f"Two directions at one site are compared; got {a.shape}, {b.shape}.")
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths > 0 else float("nan")
