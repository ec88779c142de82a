"""Value alignment tax: what other values pay when one is aligned (arXiv 2602.12134).

With delta_s(w) = z_after(s, w) - z_before(s, w), the change of value w in sample s (a respondent,
a scene), and v the value that was meant to move:

    Gain(v)  = E_s delta_s(v)
    GND_v(w) = E_s delta_s(w) / (|Gain(v)| + eps)               the paper's; eps = .01 is ours
    R_uw     = Spearman_s(delta_s(u), delta_s(w))               co-movement
    nVAT     = sqrt( sum_{u != w} R_uw^2 / (V (V - 1)) )        ours, in [0, 1]
    nVAT_raw = ||R||_F / sqrt(V)                                as printed; always 1 or more
    spread   = sqrt( sum_{w != v} m_w^2 / (m_v^2 + .05^2) ), m = E_s delta_s    second-hand

The printed nVAT cannot be what gave the published .09 to .15, hence the bounded form. It has a
floor: S samples of unrelated values give about 1/sqrt(S - 1), .21 for 24 respondents. Read it
against `floor` and `p`, and never compare two with different S. Give raw scores: centred ones move
against each other by arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata, t

from valign.measure.bootstrap import Estimates, Resampling, weighted_mean
from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate
from valign.measure.permutation import Tested, outward, p_value

EPS = 0.01
SMALL_GAIN = 0.05
_SPREAD_EPS = 0.05


@dataclass(frozen=True, eq=False)
class CoMovement:
    """How values move together.

    Attributes:
        matrix: R, (V, V); NaN for values that never move.
        nvat: the bounded form over values that move; its interval is a jackknife's, its p-value
            counts shuffles in which values move independently. NaN where fewer than two move.
        nvat_raw: as printed.
        floor: what nvat is by chance alone.
    """

    matrix: np.ndarray
    nvat: Tested
    nvat_raw: float
    floor: float


@dataclass(frozen=True, eq=False)
class Tax:
    """The price of moving one value.

    Attributes:
        gain: of the target.
        gnd: signed movement of each value per unit of gain, (V,); NaN on the target.
        spread: root of summed squares of the others' movement over the target's.
        small_gain: |gain| < .05: ratios to it say little.
    """

    gain: Estimate
    gnd: Estimates
    spread: Estimate
    small_gain: bool


def co_movement(
    delta: np.ndarray, *, permutations: int = 1000, seed: int = 0, level: float = 0.95
) -> CoMovement:
    """Second-order tax from changes (n_samples, n_values), no missing.

    The interval is value +- t x the delete-one jackknife's error, cut to [0, 1]: bootstrap samples
    repeat rows, which adds correlation and pushes a percentile interval above the estimate.
    """
    x = _changes(delta)
    n, moving = len(x), np.ptp(x, axis=0) > 1e-12
    matrix = np.full((x.shape[1], x.shape[1]), np.nan)
    own = x[:, moving]
    matrix[np.ix_(moving, moving)] = _spearman_matrix(own)
    floor = 1 / float(np.sqrt(n - 1))
    if moving.sum() < 2 or n < 4:
        nothing = Estimate(float("nan"), float("nan"), float("nan"), n, level)
        return CoMovement(matrix, Tested(nothing, float("nan")), float("nan"), floor)
    found = _nvat(matrix[np.ix_(moving, moving)])
    left_out = np.array([_nvat(_spearman_matrix(np.delete(own, s, axis=0))) for s in range(n)])
    error = float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))
    half = float(t.ppf((1 + level) / 2, n - 1)) * error
    rng = np.random.default_rng(seed)
    ranks = rankdata(own, axis=0)
    chance = [_nvat(_correlation(rng.permuted(ranks, axis=0))) for _ in range(permutations)]
    estimate = Estimate(found, max(0.0, found - half), min(1.0, found + half), n, level)
    total = float(np.sqrt(np.nansum(matrix**2) / moving.sum()))
    return CoMovement(matrix, Tested(estimate, p_value(found, np.array(chance))), total, floor)


def tax(delta: np.ndarray, target: int, resampling: Resampling, *, level: float = 0.95) -> Tax:
    """First-order tax from changes (n_samples, n_values); `target` is a column."""
    x = _changes(delta)
    if not 0 <= target < x.shape[1]:
        raise MeasureError(f"target {target} is no column of {x.shape[1]} values.")
    others = np.arange(x.shape[1]) != target

    def deviation(weights: np.ndarray) -> np.ndarray:
        moved = weighted_mean(weights, x)
        return np.where(others, moved / (np.abs(moved[:, [target]]) + EPS), np.nan)

    def spread(weights: np.ndarray) -> np.ndarray:
        moved = weighted_mean(weights, x) ** 2
        return np.sqrt(moved[:, others].sum(axis=1) / (moved[:, target] + _SPREAD_EPS**2))

    gain = resampling.estimate(lambda w: weighted_mean(w, x[:, target]), level=level)
    return Tax(
        gain,
        resampling.estimates(deviation, level=level),
        outward(resampling.estimate(spread, level=level), bottom=0, top=np.inf),
        abs(gain.value) < SMALL_GAIN,
    )


def _changes(delta: np.ndarray) -> np.ndarray:
    x = np.asarray(delta, dtype=float)
    if x.ndim != 2 or len(x) < 2 or x.shape[1] < 2 or not np.isfinite(x).all():
        raise MeasureError(
            "Changes must be complete, (n_samples, n_values) with two of each at least; got "
            f"{x.shape}."
        )
    return x


def _spearman_matrix(x: np.ndarray) -> np.ndarray:
    return _correlation(rankdata(x, axis=0))


def _correlation(x: np.ndarray) -> np.ndarray:
    """Correlations of columns; 0 with a column that does not vary (a jackknife may leave one)."""
    away = x - x.mean(axis=0)
    size = np.sqrt((away**2).sum(axis=0))
    unit = np.divide(away, size, out=np.zeros_like(away), where=size > 1e-12)
    found = np.clip(unit.T @ unit, -1, 1)
    np.fill_diagonal(found, 1.0)
    return found


def _nvat(r: np.ndarray) -> float:
    v = len(r)
    return float(np.sqrt(max(0.0, (r**2).sum() - v) / (v * (v - 1))))
