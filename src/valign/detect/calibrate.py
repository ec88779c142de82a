"""From raw scores to scores that mean what they say, and how far off they are.

A calibrated score is the expected label: P(promotes) - P(argues against), so among texts scored
0.7 on a value the mean label is about 0.7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

_PULL = 2.0
"""Strength of the pull to no change: keeps values with a handful of positives from extremes."""


@dataclass(frozen=True)
class SignCalibration:
    """Per-value temperature and two offsets on the logits of "for" and "against".

    P = softmax([t u_against + b_against, 0, t u_for + b_for]); vector scaling with one temperature
    per value (after Guo et al. 2017, On calibration of modern neural networks; the shape is ours).

    Attributes:
        temperature: t, shape (n_values,), positive.
        offset: (b_against, b_for), shape (n_values, 2).
    """

    temperature: np.ndarray
    offset: np.ndarray

    @classmethod
    def identity(cls, n_values: int) -> SignCalibration:
        """Leaves the logits as they are."""
        return cls(np.ones(n_values), np.zeros((n_values, 2)))

    @classmethod
    def fit(
        cls, logits: np.ndarray, labels: np.ndarray, weight: np.ndarray | None = None
    ) -> SignCalibration:
        """Fit on held-out texts by penalised likelihood.

        Args:
            logits: (n, n_values, 2), against and for.
            labels: (n, n_values) in {-1, 0, 1}; NaN where unknown.
            weight: (n,) weight of each text, to balance sources; default 1.
        """
        n, n_values, _ = logits.shape
        weight = np.ones(n) if weight is None else np.asarray(weight, float)
        fitted = cls.identity(n_values)
        for v in range(n_values):
            known = ~np.isnan(labels[:, v])
            u, y, w = logits[known, v], labels[known, v].astype(int) + 1, weight[known]

            def loss(theta: np.ndarray, u=u, y=y, w=w) -> float:
                p = sign_probabilities(np.exp(theta[0]) * u + theta[1:])
                nll = -np.log(np.clip(p[np.arange(len(y)), y], 1e-12, None))
                pull = _PULL * (theta[0] ** 2 + 0.1 * (theta[1:] ** 2).sum())
                return float((w * nll).sum() + pull)

            best = minimize(loss, np.zeros(3), method="L-BFGS-B").x
            fitted.temperature[v] = np.exp(best[0])
            fitted.offset[v] = best[1:]
        return fitted

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated logits, shape (n, n_values, 2)."""
        return logits * self.temperature[:, None] + self.offset


def sign_probabilities(logits: np.ndarray) -> np.ndarray:
    """P(against), P(absent), P(for) on a last axis of 3, from logits (..., 2) with absent at 0."""
    full = np.stack([logits[..., 0], np.zeros(logits.shape[:-1]), logits[..., 1]], axis=-1)
    full = np.exp(full - full.max(axis=-1, keepdims=True))
    return full / full.sum(axis=-1, keepdims=True)


def expected_sign(logits: np.ndarray) -> np.ndarray:
    """The score, P(for) - P(against), in [-1, 1]; logits (..., 2) -> (...)."""
    p = sign_probabilities(logits)
    return p[..., 2] - p[..., 0]


@dataclass(frozen=True)
class Reliability:
    """A reliability table: per bin the mean prediction, the observed rate, and the count.

    Attributes:
        error: expected calibration error, the count-weighted mean gap.
        brier: mean squared gap between prediction and outcome.
    """

    predicted: np.ndarray
    observed: np.ndarray
    count: np.ndarray
    error: float
    brier: float


def reliability(probability: np.ndarray, outcome: np.ndarray, *, bins: int = 10) -> Reliability:
    """How well probabilities agree with what happened, in `bins` equal bins of [0, 1].

    Args:
        probability: any shape, in [0, 1].
        outcome: same shape, 0 or 1; NaN is left out.
    """
    known = ~np.isnan(outcome)
    p, y = probability[known], outcome[known]
    place = np.minimum((p * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    some = np.maximum(count, 1)
    predicted = np.bincount(place, p, bins) / some
    observed = np.bincount(place, y, bins) / some
    gap = np.abs(predicted - observed)
    return Reliability(
        predicted=predicted,
        observed=observed,
        count=count,
        error=float((count * gap).sum() / max(count.sum(), 1)),
        brier=float(((p - y) ** 2).mean()) if len(p) else float("nan"),
    )
