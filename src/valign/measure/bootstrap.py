"""Bootstrap intervals over prompts; a statistic is a function of row weights.

Every measured quantity of valign is a smooth or kinked function of weighted means over answers.
Writing a statistic as `weights (n_boot, n_rows) -> (n_boot, ...)` buys three things at once: all
replicates are one matrix product; everything computed under the same `Resampling` is paired
(baseline, steered, perplexity and facts of one prompt are drawn together); and the jackknife that
BCa needs is the same call with other weights.

The unit that is drawn is the prompt. Rows that share a prompt (several seeds, several answers)
are passed as `clusters` and are drawn together; rows from disjoint prompt sets (one set per seed
or per scenario family) are passed as `strata` and each stratum keeps its size. Tokens are never
units: tokens of one answer are far from independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from scipy.special import ndtr, stdtrit

from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate

Statistic = Callable[[np.ndarray], np.ndarray]
"""Row weights (b, n_rows) -> values (b, ...)."""

Method = Literal["percentile", "bca"]

_DEFINED = 0.95
"""Share of replicates that must be defined; below it an interval would be a fiction."""

_normal = NormalDist()
_cdf = np.vectorize(_normal.cdf, otypes=[float])
_inv_cdf = np.vectorize(
    lambda p: _normal.inv_cdf(p) if 0 < p < 1 else np.copysign(np.inf, p - 0.5), otypes=[float]
)


@dataclass(frozen=True, eq=False)
class Estimates:
    """Many estimates of one shape, for matrices; `at` takes one out.

    Attributes:
        value, low, high: arrays of one shape.
        n: independent units that were resampled.
        level: nominal coverage.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: int
    level: float = 0.95

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def at(self, *index: int) -> Estimate:
        """One cell."""
        return Estimate(
            float(self.value[index]), float(self.low[index]), float(self.high[index]),
            self.n, self.level,
        )  # fmt: skip

    def tolist(self) -> list[Estimate]:
        """All cells in C order."""
        return [self.at(*index) for index in np.ndindex(self.shape)]


@dataclass(frozen=True, eq=False)
class Resampling:
    """One fixed set of bootstrap draws; every number made with it is paired with the others.

    Attributes:
        counts: how often each row stands in each replicate, shape (n_boot, n_rows).
        unit: the drawn unit each row belongs to, integers 0..n_units-1, shape (n_rows,).
    """

    counts: np.ndarray
    unit: np.ndarray

    @classmethod
    def of(
        cls,
        n_rows: int,
        *,
        seed: int,
        n_boot: int = 1000,
        clusters: Sequence | np.ndarray | None = None,
        strata: Sequence | np.ndarray | None = None,
    ) -> Resampling:
        """Draw units with replacement, within each stratum, as many as the stratum holds.

        Args:
            n_rows: rows of the arrays that will be measured.
            seed: of the draws; same seed, same intervals.
            n_boot: replicates.
            clusters: label per row; rows of one label are drawn together. Default: every row is
                its own unit. The same prompts under several seeds: pass the prompt ids here, so
                that a prompt comes with all its seeds and every seed keeps its size.
            strata: label per row; draws stay inside a stratum. For disjoint prompt sets.

        Raises:
            MeasureError: no rows, labels of the wrong length, or a cluster in two strata.
        """
        if n_rows < 1 or n_boot < 1:
            raise MeasureError(f"Nothing to resample: {n_rows} rows, {n_boot} replicates.")
        unit = _codes("clusters", clusters, n_rows)
        stratum = np.zeros(n_rows, int) if strata is None else _codes("strata", strata, n_rows)
        n_units = int(unit.max()) + 1
        home = np.zeros(n_units, int)
        home[unit] = stratum
        if (home[unit] != stratum).any():
            bad = int(unit[np.argmax(home[unit] != stratum)])
            label = bad if clusters is None else np.unique(np.asarray(clusters))[bad]
            raise MeasureError(
                f"Cluster {label!r} lies in two strata. The same prompts under several seeds: "
                "pass clusters=prompt ids and no strata; a prompt then comes with all its seeds."
            )
        rng = np.random.default_rng(seed)
        drawn = np.empty((n_boot, n_units))
        for s in np.unique(home):
            members = np.flatnonzero(home == s)
            equal = np.full(len(members), 1 / len(members))
            drawn[:, members] = rng.multinomial(len(members), equal, size=n_boot)
        return cls(drawn[:, unit], unit)

    @property
    def n_rows(self) -> int:
        return len(self.unit)

    @property
    def n_units(self) -> int:
        """Independent units: the n of every estimate."""
        return int(self.unit.max()) + 1

    def point(self, statistic: Statistic) -> np.ndarray:
        """The statistic on the data as they are, shape (...)."""
        return np.asarray(statistic(np.ones((1, self.n_rows))), dtype=float)[0]

    def replicates(self, statistic: Statistic) -> np.ndarray:
        """The statistic in every replicate, shape (n_boot, ...)."""
        return np.asarray(statistic(self.counts), dtype=float)

    def estimates(
        self, statistic: Statistic, *, level: float = 0.95, method: Method = "percentile"
    ) -> Estimates:
        """Point estimates and intervals of an array-valued statistic.

        percentile: quantiles of the replicates, a little farther out for small n (see `tail`).
        bca: bias-corrected and accelerated (Efron 1987),
        with a delete-one-unit jackknife; second-order accurate and right for skewed ratios, at
        the price of n_units more evaluations. A cell is NaN at both ends where its point is NaN
        or where more than 5 % of its replicates are (a ratio whose denominator may be nothing).
        """
        point, boot = self.point(statistic), self.replicates(statistic)
        if method == "percentile":
            return self.summarise(point, boot, level=level)
        out = np.arange(self.n_units)[:, None] != self.unit[None, :]
        jack = np.asarray(statistic(out.astype(float)), dtype=float)
        levels = _bca_levels(point, boot, jack, (1 - level) / 2)
        return self._estimates(point, boot, levels, level)

    def summarise(self, point: np.ndarray, boot: np.ndarray, *, level: float = 0.95) -> Estimates:
        """Percentile intervals from replicates made elsewhere, boot (n_boot, ...)."""
        outside = tail(level, self.n_units)
        levels = np.full(point.shape, outside), np.full(point.shape, 1 - outside)
        return self._estimates(point, boot, levels, level)

    def _estimates(
        self,
        point: np.ndarray,
        boot: np.ndarray,
        levels: tuple[np.ndarray, np.ndarray],
        level: float,
    ) -> Estimates:
        low, high = (_quantiles(boot, p) for p in levels)
        undefined = np.isnan(point) | (np.isfinite(boot).mean(axis=0) < _DEFINED)
        return Estimates(
            value=point,
            low=np.where(undefined, np.nan, low),
            high=np.where(undefined, np.nan, high),
            n=self.n_units,
            level=level,
        )

    def estimate(
        self, statistic: Statistic, *, level: float = 0.95, method: Method = "percentile"
    ) -> Estimate:
        """The same for a statistic that returns one number per replicate, shape (b,)."""
        return self.estimates(statistic, level=level, method=method).at()


def weighted_mean(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean over rows under each weighting, missing rows left out.

    Args:
        weights: shape (b, n_rows).
        rows: shape (n_rows, ...); NaN is missing.

    Returns:
        shape (b, ...); NaN where every weighted row is missing.
    """
    rows = np.asarray(rows, dtype=float)
    if rows.shape[0] != weights.shape[1]:
        raise MeasureError(f"{rows.shape[0]} rows, but weights for {weights.shape[1]}.")
    flat = rows.reshape(len(rows), -1)
    present = ~np.isnan(flat)
    total = weights @ np.where(present, flat, 0.0)
    mass = weights @ present.astype(float)
    mean = np.divide(total, mass, out=np.full(total.shape, np.nan), where=mass > 0)
    return mean.reshape(len(weights), *rows.shape[1:])


def mean(
    rows: np.ndarray, resampling: Resampling, *, level: float = 0.95, method: Method = "percentile"
) -> Estimates:
    """Means over the first axis with intervals; `rows` is (n_rows, ...).

    Yes/no outcomes (every number 0 or 1) get the interval of `counted`.
    """
    rows = np.asarray(rows, dtype=float)
    seen = ~np.isnan(rows)
    if seen.any() and np.isin(rows[seen], (0.0, 1.0)).all():
        return counted(rows, resampling, bottom=0.0, top=1.0, level=level)
    return resampling.estimates(
        lambda weights: weighted_mean(weights, rows), level=level, method=method
    )


def tail(level: float, n: int) -> float:
    """Share of replicates to leave out at either end.

    Replicates of a mean of n spread by sqrt((n - 1) / n) too little and as a normal rather than
    as Student's t, so that plain percentiles of 10 units cover 90 % where 95 % are claimed. The
    expanded percentile interval (Hesterberg 2015, section 5.2) makes up for both.
    """
    outside = (1 - level) / 2
    if n < 2:
        return outside
    return float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, outside)))


def counted(
    rows: np.ndarray,
    resampling: Resampling,
    *,
    bottom: float,
    top: float,
    level: float = 0.95,
) -> Estimates:
    """Means of answers that are counted, with intervals that hold near the ends of the scale.

    For rows that are 0 or 1, or -1, 0 or 1, such as presence and its change. Quantiles of
    replicates fail there: of 60 answers none shows a value, and every replicate says 0 for
    certain; with 3 expected they cover 82 % instead of 95 %. Instead, a few made-up answers stand
    at both ends of the scale: two at each end of [0, 1] (Agresti & Coull 1998) and one at each
    end of [-1, 1] (Bonett & Price 2012, for paired differences). The interval is the normal one
    of all answers, real and made up; the spread of the real ones is the bootstrap's, so that rows
    of one prompt count together. The combination with the bootstrap is ours. Where an event is
    rare it covers more than its level, never much less.

    Args:
        rows: shape (n_rows, ...); NaN is missing.
        bottom, top: ends of the scale at which the made-up answers stand.
    """
    rows = np.asarray(rows, dtype=float)
    point = weighted_mean(np.ones((1, len(rows))), rows)[0]
    boot = weighted_mean(resampling.counts, rows)
    spread = np.var(np.where(np.isnan(boot), point, boot), axis=0)
    n = _units(rows, resampling)
    extra = 2 / (top - bottom)
    total = n + 2 * extra
    centre = (n * point + extra * (bottom + top)) / total
    ends = (bottom - centre) ** 2 + (top - centre) ** 2
    variance = (n * (n * spread + (point - centre) ** 2) + extra * ends) / total
    half = _normal.inv_cdf((1 + level) / 2) * np.sqrt(variance / total)
    reach = np.abs(np.where(np.isnan(rows), 0.0, rows)).max(initial=max(-bottom, top))
    floor = 0.0 if bottom == 0 else -reach
    return Estimates(
        value=point,
        low=np.maximum(np.minimum(point, centre - half), floor),
        high=np.minimum(np.maximum(point, centre + half), reach),
        n=resampling.n_units,
        level=level,
    )


def unanimous(found: Estimates, n: np.ndarray, *, bottom: float, top: float) -> Estimates:
    """Widen intervals of zero width to what an event that was not seen could do.

    Where all n units agree, every replicate does, and a bootstrap would claim certainty. The rate
    of an unseen event is below 1 - (1 - level)^(1/n), about 3/n (the rule of three; using it here
    is ours), and it moves the mean by at most that share of one. For scores and means over
    several of them; what is counted has `counted`.

    Args:
        n: units behind each cell, shape of `found`.
        bottom, top: ends of the scale.
    """
    room = 1 - (1 - found.level) ** (1 / np.maximum(np.minimum(n, found.n), 1))
    flat = (found.low == found.high) & (found.value == found.low)
    return replace(
        found,
        low=np.where(flat, np.maximum(found.low - room, bottom), found.low),
        high=np.where(flat, np.minimum(found.high + room, top), found.high),
    )


def ratio(
    numerator: np.ndarray,
    denominator: np.ndarray,
    resampling: Resampling,
    *,
    level: float = 0.95,
    method: Method = "percentile",
) -> Estimate:
    """`ratio_of_sums` with its interval."""
    return resampling.estimate(ratio_of_sums(numerator, denominator), level=level, method=method)


def ratio_of_sums(numerator: np.ndarray, denominator: np.ndarray) -> Statistic:
    """Sum over sum (not mean of ratios), both (n_rows,); NaN where the denominator is 0."""
    top, bottom = np.nan_to_num(numerator), np.nan_to_num(denominator)

    def statistic(weights: np.ndarray) -> np.ndarray:
        below = weights @ bottom
        return np.divide(weights @ top, below, out=np.full(len(weights), np.nan), where=below != 0)

    return statistic


def _units(rows: np.ndarray, resampling: Resampling) -> np.ndarray:
    """Units behind each cell: those with a row that is there; shape (...)."""
    present = ~np.isnan(rows)
    found = np.zeros((resampling.n_units, *rows.shape[1:]), dtype=bool)
    np.logical_or.at(found, resampling.unit, present)
    return found.sum(axis=0)


def _codes(what: str, labels: Sequence | np.ndarray | None, n_rows: int) -> np.ndarray:
    if labels is None:
        return np.arange(n_rows)
    found = np.asarray(labels)
    if found.shape != (n_rows,):
        raise MeasureError(f"{what} must hold one label per row: {n_rows}, got {found.shape}.")
    return np.unique(found, return_inverse=True)[1].reshape(-1)


def _bca_levels(
    point: np.ndarray, boot: np.ndarray, jack: np.ndarray, tail: float
) -> tuple[np.ndarray, np.ndarray]:
    # Ties count half, so that discrete statistics are not shifted by their own grid.
    below = (boot < point).mean(axis=0) + 0.5 * (boot == point).mean(axis=0)
    margin = 0.5 / len(boot)
    z0 = _inv_cdf(np.clip(below, margin, 1 - margin))
    gap = np.nanmean(jack, axis=0) - jack
    cube, square = np.nansum(gap**3, axis=0), np.nansum(gap**2, axis=0)
    scale = 6 * square**1.5
    accel = np.divide(cube, scale, out=np.zeros_like(cube), where=scale > 0)

    def shifted(p: float) -> np.ndarray:
        z = z0 + _normal.inv_cdf(p)
        return _cdf(z0 + z / (1 - accel * z))

    return shifted(tail), shifted(1 - tail)


def _quantiles(boot: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Per-cell quantiles with a level per cell, over the finite replicates."""
    flat, levels = boot.reshape(len(boot), -1), np.asarray(level).reshape(-1)
    if levels.size and (levels == levels[0]).all() and np.isfinite(flat).all():
        return np.quantile(flat, levels[0], axis=0).reshape(boot.shape[1:])
    found = np.full(flat.shape[1], np.nan)
    for cell in range(flat.shape[1]):
        column = flat[:, cell]
        column = column[np.isfinite(column)]
        if len(column):
            found[cell] = np.quantile(column, levels[cell])
    return found.reshape(boot.shape[1:])
