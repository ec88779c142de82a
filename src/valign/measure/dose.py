"""Reading dose curves: gain at equal dose, and anything else at equal gain.

Methods are comparable only at the same push or at the same effect. A curve is a method measured
at a few doses; between them it is read off on straight lines over log dose (gain grows about
with the logarithm of the dose), below the smallest dose on the straight line over dose from
(0, 0 change). Outside the measured range the answer is NaN: no extrapolation.

Functions take curves (..., n_doses) and keep the leading axes, so they serve as statistics under
a `Resampling`: compute every dose's gain from the same weights, then read off.

    resampling.estimate(lambda w: metric_at_gain(gains(w), leakages(w), gain=0.3))
"""

from __future__ import annotations

import numpy as np

from valign.measure.errors import MeasureError


def at_dose(doses: np.ndarray, metric: np.ndarray, dose: float, *, start: float) -> np.ndarray:
    """The metric at a dose, shape (...).

    Args:
        doses: measured doses in nats, rising, above 0, shape (n_doses,).
        metric: at those doses, shape (..., n_doses).
        start: the metric without steering (0 for gain and leakage, the unsteered rate for facts).
    """
    x, y = _curve(doses, metric)
    if not 0 <= dose <= x[-1]:
        return np.full(y.shape[:-1], np.nan)
    if dose <= x[0]:
        return start + (y[..., 0] - start) * (dose / x[0])
    k = int(np.searchsorted(x, dose))
    part = np.log(dose / x[k - 1]) / np.log(x[k] / x[k - 1])
    return y[..., k - 1] + (y[..., k] - y[..., k - 1]) * part


def metric_at_gain(
    gains: np.ndarray, metric: np.ndarray, gain: float, *, start: float = 0.0
) -> np.ndarray:
    """The metric where the gain first reaches a level on the way up, shape (...).

    The curve starts at (gain 0, `start`). Gain need not be monotone: too large a dose often
    loses it again, and the first crossing is the cheapest. NaN where the level is never reached.

    Args:
        gains: at rising doses, shape (..., n_doses).
        metric: at the same doses, shape (..., n_doses).
        gain: the level, above 0.
    """
    if gain <= 0:
        raise MeasureError(f"The gain to compare at must be above 0, got {gain}.")
    reached, price = np.broadcast_arrays(
        np.asarray(gains, dtype=float), np.asarray(metric, dtype=float)
    )
    zero = np.zeros((*reached.shape[:-1], 1))
    reached = np.concatenate([zero, reached], axis=-1)
    price = np.concatenate([zero + start, price], axis=-1)
    crossed = reached >= gain
    k = crossed.argmax(axis=-1)[..., None]

    def take(curve: np.ndarray, index: np.ndarray) -> np.ndarray:
        return np.take_along_axis(curve, np.maximum(index, 0), axis=-1)[..., 0]

    g0, g1 = take(reached, k - 1), take(reached, k)
    m0, m1 = take(price, k - 1), take(price, k)
    step = np.where(g1 > g0, g1 - g0, 1.0)
    return np.where(crossed.any(axis=-1), m0 + (m1 - m0) * (gain - g0) / step, np.nan)


def dose_at_gain(doses: np.ndarray, gains: np.ndarray, gain: float) -> np.ndarray:
    """The smallest dose, in nats, at which the gain reaches a level; NaN if it never does."""
    x, y = _curve(doses, gains)
    # The first stretch is straight in dose, the later ones in log dose, as in `at_dose`.
    early = metric_at_gain(y[..., :1], np.broadcast_to(x[:1], y[..., :1].shape), gain)
    later = metric_at_gain(y, np.broadcast_to(np.log(x), y.shape), gain, start=np.log(x[0]))
    return np.where(y[..., 0] >= gain, early, np.exp(later))


def _curve(doses: np.ndarray, metric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(doses, dtype=float), np.asarray(metric, dtype=float)
    if x.ndim != 1 or y.shape[-1:] != x.shape or (np.diff(x) <= 0).any() or (x <= 0).any():
        raise MeasureError(
            f"doses must rise from above 0 and match the last axis of the metric; got {x.tolist()} "
            f"and {y.shape}."
        )
    return x, y
