"""RLEV: a right answer earns more where the question is worth more (arXiv 2510.20187).

    s(x)   = 1 + min(alpha v(x), 1)        in [1, 2]
    r(x,y) = s(x) * correct(y)

v(x) is the question's share of what its exam is worth: a scalar importance of a *prompt*, not a
human value. The floor of 1 keeps a signal on cheap questions, the clip stops outliers.

The pitfall (not in the paper; measured in `advantages`' test): s(x) is constant within a prompt's
group, so dividing advantages by the group's standard deviation, as GRPO does by default, cancels
it: rewards {0, s} give the same advantages for every s. Train with RLOO, or with GRPO whose
rewards are not scaled within groups; `training` allows nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from valign.methods.errors import MethodSettingError

Weighting = Literal["value", "uniform", "shuffled", "none"]
"""`value`: s(x). Controls: `uniform` gives every prompt the mean of s, `shuffled` deals the same s
to other prompts, `none` is correctness alone."""

ALPHA = 10.0
"""The paper's; with its exams alpha v reaches the clip on about one question in a hundred."""


def scales(
    values: Sequence[float] | np.ndarray,
    weighting: Weighting = "value",
    *,
    alpha: float = ALPHA,
    seed: int = 0,
) -> np.ndarray:
    """s(x) of each prompt, (n,).

    Args:
        values: v(x) in [0, 1]: points of the question over points of its exam.
        seed: of `shuffled`.

    Raises:
        MethodSettingError: values outside [0, 1], or an unknown weighting.
    """
    v = np.asarray(values, dtype=float)
    if v.size and not ((v >= 0) & (v <= 1)).all():
        raise MethodSettingError(
            "Values of prompts are shares in [0, 1]: points of a question over points of its exam."
        )
    s = 1 + np.minimum(alpha * v, 1)
    if weighting == "value":
        return s
    if weighting == "uniform":
        return np.full_like(s, s.mean() if s.size else 1.0)
    if weighting == "shuffled":
        return np.random.default_rng(seed).permutation(s)
    if weighting == "none":
        return np.ones_like(s)
    raise MethodSettingError(
        f"No weighting {weighting!r}; there are value, uniform, shuffled and none."
    )


def advantages(
    rewards: np.ndarray, *, estimator: Literal["rloo", "grpo"], scale: bool = False
) -> np.ndarray:
    """What each completion's log-probability is pushed by, (prompts, generations).

    Args:
        rewards: (prompts, generations).
        estimator: `rloo` takes off the mean of the *others*, `grpo` the group's mean.
        scale: also divide by the group's standard deviation; that takes s(x) out again.
    """
    r = np.asarray(rewards, dtype=float)
    n = r.shape[1]
    if estimator == "rloo":
        centred = r - (r.sum(1, keepdims=True) - r) / (n - 1)
    else:
        centred = r - r.mean(1, keepdims=True)
    return centred / (r.std(1, ddof=1, keepdims=True) + 1e-4) if scale else centred
