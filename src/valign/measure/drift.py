"""Drift: how the value profile of one checkpoint differs from another's.

Both checkpoints answer the same questions as the same respondents in the same arrangements, so
everything is paired by respondent. Per value the shift has two intervals:

    shift   percentile bootstrap over respondents: for one value looked at alone
    band    +- c x the bootstrap's standard error: for all values at once; c is the level's
            quantile of max_v |shift*_v - shift_v| / se_v

A value has `moved` where the band leaves out zero: with ten values and no drift at all, some value
is said to have moved in about 5 % of audits, not 40 %. (The rule is ours; the max-t band is
standard.) Shifts are of centred scores, so they sum to about zero: a profile turns, it does not
rise, and one value that gains makes all others lose. Raw shifts stand beside them; co-movement and
tax are taken from raw scores (see `tax`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from valign.measure.bootstrap import Estimates, Resampling, weighted_mean
from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate
from valign.measure.permutation import outward
from valign.measure.questionnaire import value_scores
from valign.measure.tax import CoMovement, Tax, co_movement, tax


@dataclass(frozen=True, eq=False)
class Drift:
    """What changed from one checkpoint to the other.

    Attributes:
        before, after, shift: centred scores per value, shape (n_values,).
        band: shifts with intervals that hold for all values at once.
        raw_band: the same for raw scores, which rise and fall with the use of the scale, but one by
            one: where a single value rises, only its raw score does.
        moved: whether the band leaves out zero, (n_values,) bool.
        size: root mean square of the shifts; above zero by chance alone, so read `moved` first.
        co_movement: of raw scores; None below four respondents.
        tax: the price of moving the target; None where no target was named.
    """

    before: Estimates
    after: Estimates
    shift: Estimates
    band: Estimates
    raw_band: Estimates
    moved: np.ndarray
    size: Estimate
    co_movement: CoMovement | None
    tax: Tax | None


def drift(
    before: np.ndarray,
    after: np.ndarray,
    key: np.ndarray,
    resampling: Resampling,
    *,
    middle: float,
    target: int | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> Drift:
    """Compare ratings of two checkpoints.

    Args:
        before, after: (n_respondents, n_items[, repeats]), the same respondents and items; NaN
            for no valid answer. Cells that either side lacks are left out on both.
        key, middle: as `measure.questionnaire.value_scores`.
        target: column of the value that was meant to move.
        seed: of the co-movement's shuffles.

    Raises:
        MeasureError: arrays that do not fit, or fewer than two respondents with all values.
    """
    a, b = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if a.shape != b.shape:
        raise MeasureError(f"Ratings before are {a.shape}, after {b.shape}; they must be paired.")
    gone = np.isnan(a) | np.isnan(b)
    a, b = np.where(gone, np.nan, a), np.where(gone, np.nan, b)
    old = value_scores(a, key, middle=middle)
    new = value_scores(b, key, middle=middle)
    change = new - old
    complete = ~np.isnan(change).any(axis=1)
    if complete.sum() < 2 or len(a) != resampling.n_rows:
        raise MeasureError(
            f"{int(complete.sum())} of {len(a)} respondents answered for every value on both "
            "sides; an interval needs two, and one resampling row a respondent."
        )
    shift = resampling.estimates(lambda w: weighted_mean(w, change), level=level)
    band = simultaneous(shift, resampling.replicates(lambda w: weighted_mean(w, change)))
    raw = [value_scores(x, key, middle=middle, scored="raw")[complete] for x in (a, b)]
    moved_raw = raw[1] - raw[0]
    kept = Resampling(resampling.counts[:, complete], np.arange(int(complete.sum())))
    raw_shift = kept.estimates(lambda w: weighted_mean(w, moved_raw), level=level)
    return Drift(
        before=resampling.estimates(lambda w: weighted_mean(w, old), level=level),
        after=resampling.estimates(lambda w: weighted_mean(w, new), level=level),
        shift=shift,
        band=band,
        raw_band=simultaneous(raw_shift, kept.replicates(lambda w: weighted_mean(w, moved_raw))),
        moved=(band.low > 0) | (band.high < 0),
        size=outward(
            resampling.estimate(
                lambda w: np.sqrt(np.nanmean(weighted_mean(w, change) ** 2, axis=1)), level=level
            ),
            bottom=0,
            top=np.inf,
        ),
        co_movement=co_movement(moved_raw, seed=seed, level=level) if len(moved_raw) > 3 else None,
        tax=None if target is None else tax(moved_raw, target, kept, level=level),
    )


def simultaneous(found: Estimates, replicates: np.ndarray) -> Estimates:
    """Intervals of all cells at once from their bootstrap replicates (n_boot, ...): max-t.

    The reach is widened for few units as `bootstrap.tail` widens percentiles. A cell that never
    varies keeps the width zero.
    """
    away = replicates - found.value
    error = np.nanstd(away, axis=0, ddof=1)
    ratio = np.divide(np.abs(away), error, out=np.zeros_like(away), where=error > 1e-12)
    flat = np.nan_to_num(ratio.reshape(len(ratio), -1))
    reach = float(np.quantile(flat.max(axis=1), found.level))
    if found.n > 1:
        few = np.sqrt(found.n / (found.n - 1))
        reach = float(-few * stdtrit(found.n - 1, ndtr(-reach)))
    return Estimates(
        found.value, found.value - reach * error, found.value + reach * error, found.n, found.level
    )
