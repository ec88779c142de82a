"""Confirmatory factor analysis of the circle's groups: how badly a simple model fits.

Each value loads on the factor of its higher-order group, factors correlate freely. Fitted by
maximum likelihood on the covariance matrix S of raw (not centred) scores:

    F = log|Sigma| + tr(S Sigma^-1) - log|S| - p,    Sigma = L Phi L' + Theta
    CFI = 1 - max(chi2 - df, 0) / max(chi2_0 - df_0, chi2 - df, 0),   chi2 = (n - 1) F

with the model of unrelated values as the base. Published for language models' answers: CFI .23
for ten factors and .56 for the four groups (GPLA, arXiv 2502.02444); a poor fit is usual, because a
circle is no simple structure. Read it beside `structure`, not instead of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.stats import ncx2

from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate


@dataclass(frozen=True)
class FactorFit:
    """Attributes:
    cfi: in [0, 1]; a point estimate, as everywhere. NaN where even unrelated values fit.
    rmsea: with the interval of the noncentral chi-square.
    chi2, df: of the model.
    """

    cfi: float
    rmsea: Estimate
    chi2: float
    df: int


def factor_fit(
    scores: np.ndarray, factor: Sequence[int] | np.ndarray, *, level: float = 0.9
) -> FactorFit:
    """Fit the grouping.

    Args:
        scores: (n_respondents, n_columns), raw; columns are values, or items.
        factor: the factor of each column, integers from 0; each factor needs two columns.
        level: of RMSEA's interval; 90 % is the custom.

    Raises:
        MeasureError: too few respondents or columns, missing scores, or a covariance matrix that
            has no inverse (centred scores have none: pass raw ones).
    """
    x, group = np.asarray(scores, dtype=float), np.asarray(factor)
    n, p = x.shape if x.ndim == 2 else (0, 0)
    sizes = np.bincount(group) if len(group) else np.zeros(1)
    if group.shape != (p,) or (sizes < 2).any() or n <= p or np.isnan(x).any():
        raise MeasureError(
            f"A factor model needs complete scores of more respondents than columns ({n} of {p}) "
            "and at least two columns a factor."
        )
    s = np.corrcoef(x, rowvar=False)  # the fit does not depend on the columns' units
    if not np.isfinite(s).all() or np.linalg.cond(s) > 1e10:
        raise MeasureError("Scores do not vary freely; pass raw scores, not centred ones.")
    factors = len(sizes)
    df = p * (p + 1) // 2 - (2 * p + factors * (factors - 1) // 2)
    if df < 1:
        raise MeasureError(f"{p} columns in {factors} factors leave nothing to test.")
    logdet = np.linalg.slogdet(s)[1]
    chi2 = (n - 1) * max(0.0, _best(s, group, factors) - logdet - p)
    base = -(n - 1) * logdet
    base_df = p * (p - 1) // 2
    worst = max(base - base_df, chi2 - df, 0.0)
    cfi = float("nan") if worst == 0 else 1 - max(chi2 - df, 0.0) / worst
    return FactorFit(cfi, _rmsea(chi2, df, n, level), chi2, df)


def _best(s: np.ndarray, group: np.ndarray, factors: int) -> float:
    """Smallest log|Sigma| + tr(S Sigma^-1)."""
    p = len(s)
    a, b = np.triu_indices(factors, k=1)

    def value_and_slope(z: np.ndarray) -> tuple[float, np.ndarray]:
        load, rest, corr = z[:p], np.exp(z[p : 2 * p]), np.tanh(z[2 * p :])
        phi = np.eye(factors)
        phi[a, b] = phi[b, a] = corr
        between = phi[np.ix_(group, group)]
        sigma = np.outer(load, load) * between + np.diag(rest)
        sign, logdet = np.linalg.slogdet(sigma)
        if sign <= 0 or np.linalg.eigvalsh(phi)[0] < 1e-8:
            return 1e10, np.zeros_like(z)
        inverse = np.linalg.inv(sigma)
        slope = inverse - inverse @ s @ inverse
        by_phi = np.zeros((factors, factors))
        np.add.at(by_phi, (group[:, None], group[None, :]), slope * np.outer(load, load))
        return logdet + float(np.sum(inverse * s)), np.concatenate([
            2 * (slope * between) @ load, np.diag(slope) * rest, 2 * by_phi[a, b] * (1 - corr**2),
        ])  # fmt: skip

    start = np.concatenate([np.full(p, 0.7), np.full(p, np.log(0.5)), np.zeros(len(a))])
    signed = start.copy()
    for g in range(factors):  # loadings may differ in sign within a factor
        own = np.flatnonzero(group == g)
        lead = own[np.abs(s[np.ix_(own, own)]).sum(axis=0).argmax()]
        signed[own] *= np.where(s[own, lead] < 0, -1, 1)
    found = [
        minimize(value_and_slope, z, jac=True, method="L-BFGS-B", options={"maxiter": 2000})
        for z in (start, signed)
    ]
    return min(float(f.fun) for f in found)


def _rmsea(chi2: float, df: int, n: int, level: float) -> Estimate:
    def size(noncentrality: float) -> float:
        return float(np.sqrt(max(0.0, noncentrality) / (df * (n - 1))))

    def end(tail: float) -> float:
        def excess(noncentrality: float) -> float:
            return float(ncx2.cdf(chi2, df, noncentrality)) - tail

        if excess(1e-9) <= 0:
            return 0.0
        top = max(10.0, 4 * chi2)
        while excess(top) > 0:
            top *= 2
        return size(float(brentq(excess, 1e-9, top)))

    tail = (1 - level) / 2
    return Estimate(size(chi2 - df), end(1 - tail), end(tail), n, level)
