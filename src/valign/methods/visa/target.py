"""Where a rewrite should end: the original profile and a shift, or a person's own profile.

    target = snap(clip(original + shift, -1, 1))                    additive
    target = snap((1 - t) original + t profile)                     towards a full profile

The paper adds the shift to the original vector; formula, range and grid are unknown there, so
clipping, the grid of half steps and the interpolation are ours (VISA, arXiv 2603.04822, section
2.3 of our notes). A value without a shift keeps its original score exactly, on the grid or not:
what nobody asked to change is not moved by rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from valign.methods.visa.errors import RewriteError
from valign.values import Profile, ValueSystem

STEPS = 2
"""Grid steps from 0 to 1: half steps, as the paper's edits of 0.5 and 1.5 suggest (ours)."""


def snapped(scores: np.ndarray, *, steps: int = STEPS) -> np.ndarray:
    """The nearest point of the grid {-1, ..., -1/steps, 0, 1/steps, ..., 1} of each score."""
    if steps < 1:
        raise RewriteError(f"steps={steps}: a grid has at least one step from 0 to 1.")
    return np.round(np.clip(np.asarray(scores, dtype=float), -1, 1) * steps) / steps


def shifted(original: np.ndarray, shift: np.ndarray, *, steps: int = STEPS) -> np.ndarray:
    """Original plus shift, clipped and snapped where there is a shift.

    Args:
        original: scores of the text, (..., n_values).
        shift: wanted change of each value, the same shape; 0 leaves a value alone.

    Raises:
        RewriteError: shapes that differ, or numbers that are not finite.
    """
    original, shift = _both(original, shift)
    return np.where(shift == 0, original, snapped(original + shift, steps=steps))


def towards(
    original: np.ndarray, profile: np.ndarray, *, share: float = 1.0, steps: int = STEPS
) -> np.ndarray:
    """A way `share` of the distance from the original to a full profile, snapped.

    Args:
        original: scores of the text, (..., n_values).
        profile: what the person wants of every value; 0 means absent, not "as it is".
        share: 0 is the original itself, 1 the profile.

    Raises:
        RewriteError: a share outside [0, 1], shapes that differ, or numbers that are not finite.
    """
    original, profile = _both(original, profile)
    if not 0 <= share <= 1:
        raise RewriteError(f"share={share} is outside [0, 1]: 0 is the text, 1 the profile.")
    if share == 0:
        return original
    return snapped((1 - share) * original + share * profile, steps=steps)


def changed(
    original: np.ndarray, target: np.ndarray, system: ValueSystem, *, least: float = 1e-6
) -> dict[str, float]:
    """The values that are to move and where to, in the system's order: what a rewriter is told."""
    return {
        name: float(goal)
        for name, now, goal in zip(system.names, original, target, strict=True)
        if abs(goal - now) > least
    }


def composed(system: ValueSystem, original: np.ndarray, changes: Mapping[str, float]) -> np.ndarray:
    """The original with some values set: the target that a triplet's changes mean."""
    found = np.array(original, dtype=float)
    for name, score in changes.items():
        found[system.index(name)] = score
    return found


def shift_vector(system: ValueSystem, shift: Profile | Mapping[str, float]) -> np.ndarray:
    """A shift as an array (n_values,); shifts may reach from -2 to 2, so it is no profile.

    Raises:
        RewriteError: a number outside [-2, 2].
        UnknownValueError: a value the system does not hold.
    """
    found = np.zeros(len(system))
    for name, score in shift.items():
        if not -2 <= score <= 2:
            raise RewriteError(f"{name}={score}: a shift lies between -2 and 2.")
        found[system.index(name)] = score
    return found


def _both(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.array(a, dtype=float), np.array(b, dtype=float)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise RewriteError(
            f"Scores {a.shape} and {b.shape} must be finite and of one shape, one a value."
        )
    return a, b
