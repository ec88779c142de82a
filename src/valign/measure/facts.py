"""Do answers keep the facts of their prompts: kept and wrong rates, and what steering cost.

Counts per answer come from whoever can read facts (the world's parser, an entailment model):

    kept_rate   facts repeated rightly / facts the prompt states
    wrong_rate  facts contradicted / facts mentioned at all (kept + wrong)
    retention   kept_rate steered / kept_rate unsteered, on the same prompts
"""

from __future__ import annotations

import numpy as np

from valign.measure.bootstrap import Resampling, ratio, ratio_of_sums, unanimous
from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate


def kept_rate(
    kept: np.ndarray, total: np.ndarray, resampling: Resampling, *, level: float = 0.95
) -> Estimate:
    """Facts kept over facts stated, pooled over answers; both (n_answers,), NaN for no facts."""
    _check(kept, total)
    return _share(*_both(kept, total), resampling, level)


def wrong_rate(
    kept: np.ndarray, wrong: np.ndarray, resampling: Resampling, *, level: float = 0.95
) -> Estimate:
    """Facts contradicted over facts mentioned, pooled over answers; NaN if none is mentioned."""
    right, false = _both(kept, wrong)
    return _share(false, right + false, resampling, level)


def retention(
    kept_steered: np.ndarray,
    kept_baseline: np.ndarray,
    resampling: Resampling,
    *,
    level: float = 0.95,
) -> Estimate:
    """Facts kept under steering per fact kept without it, paired by prompt; 1 costs nothing."""
    return ratio(*_both(kept_steered, kept_baseline), resampling, level=level)


def _share(part: np.ndarray, whole: np.ndarray, resampling: Resampling, level: float) -> Estimate:
    found = resampling.estimates(ratio_of_sums(part, whole), level=level)
    return unanimous(found, np.array(int((whole > 0).sum())), bottom=0.0, top=1.0).at()


def _both(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two counts as floats, NaN on both sides where either is missing."""
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    gone = np.isnan(left) | np.isnan(right)
    return np.where(gone, np.nan, left), np.where(gone, np.nan, right)


def _check(kept: np.ndarray, total: np.ndarray) -> None:
    part, whole = _both(kept, total)
    if (part > whole).any():
        row = int(np.argmax(part > whole))
        raise MeasureError(f"Answer {row} keeps {part[row]:g} of {whole[row]:g} facts.")
