"""Which values an answer holds: independent on/off slots, mildly coupled between neighbours on the
circle.

The number of values in an answer is free, so raising one value never lowers another by arithmetic.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from .dice import Dice
from .lexicon import ANGLES, N_VALUES

COUPLING = 0.25
"""Correlation of two values' latent normals is COUPLING x cos(angle between them)."""
POSITIVE = 0.8
"""Share of present values that the answer speaks for; the rest it argues against."""
INTENSITY = (0.30, 0.45, 0.25)
RAISED_INTENSITY = (0.10, 0.30, 0.60)

Slots = dict[int, tuple[int, int]]
"""value index -> (sign, intensity 1..3)"""

_NORMAL = NormalDist()


def correlation() -> np.ndarray:
    """(10, 10) correlation of the slots' latent normals; positive definite, 1 on the diagonal."""
    cos = np.cos(ANGLES[:, None] - ANGLES[None, :])
    return COUPLING * cos + (1 - COUPLING) * np.eye(N_VALUES)


_ROOT = np.linalg.cholesky(correlation())


def draw_slots(dice: Dice, rates: np.ndarray, wanted: dict[int, int] | None = None) -> Slots:
    """Draw the values of one answer.

    Args:
        dice: source of randomness; the price of each slot is counted by its marginal.
        rates: (10,) marginal presence probabilities.
        wanted: value -> +1 on and for, -1 on and against, 0 off. The other slots are then drawn
            from their own
            marginals, without coupling: an instruction intervenes on its slot and tells nothing
            about the rest.
    """
    wanted = wanted or {}
    if wanted:
        on = [dice.chance(p) if v not in wanted else wanted[v] != 0 for v, p in enumerate(rates)]
    else:
        latent = _ROOT @ dice.normal(N_VALUES)
        on = [_NORMAL.cdf(z) < p for z, p in zip(latent, rates, strict=True)]
        inside = np.where(on, rates, 1 - rates)
        dice.nats -= float(np.log(inside).sum())
    slots: Slots = {}
    for v in range(N_VALUES):
        if on[v]:
            sign = wanted[v] if v in wanted else (1 if dice.chance(POSITIVE) else -1)
            scale = RAISED_INTENSITY if v in wanted else INTENSITY
            slots[v] = (sign, 1 + dice.weighted(scale))
    return slots
