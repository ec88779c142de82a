"""How well a target is controlled: C0, C[i, j], signed shifts and the gain.

    C0[j]    = mean over prompts of value j without intervention
    C[i, j]  = mean over prompts of value j while steering towards target i
    shift    = C[i, j] - C0[j]
    gain_i   = C[i, i] - C0[i]                   for a target of one value, else
    gain_t   = sum_j t_j shift_tj / sum_j |t_j|  for a profile t of several values (ours)

With presence in {0, 1} C is the control success ratio (CSR) of ConVA (mean judge label over the
test questions of a value; also what NeVA's leakage is said to be built on). With scores in
[-1, 1] it is a mean intensity. Both are *per value*: each column is averaged on its own and rows
are never normalised over values. The other reading, a value's share among all values of an
answer, is left out on purpose: shares sum to one, so raising one value lowers the others by
arithmetic, a perfect controller shows spurious negative shifts, and true leakage hides below them.

The caller chooses the reading by choosing which answers fill the arrays (ours):

    ungated    the control forced open on every value's own prompts; the strict one
    gated      as deployed, on the same prompts; the gate decides
    on_topic   the target's own prompts, judged for all values

Arrays: `baseline` (n_prompts, n_values), `steered` (n_targets, n_prompts, n_values), NaN for
missing. Prompt k of `steered` and of `baseline` is the same prompt: everything is paired. For
readings where targets are asked different prompts, fill the prompts a target was not asked with
NaN. A cell may be judged on a subset of prompts (value j's own questions): NaN elsewhere, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from valign.measure.bootstrap import (
    Estimates,
    Resampling,
    counted,
    unanimous,
    weighted_mean,
)
from valign.measure.errors import MeasureError

Reading = Literal["ungated", "gated", "on_topic"]


@dataclass(frozen=True, eq=False)
class Paired:
    """Baseline and steered scores of the same prompts; checked once, measured many times.

    Attributes:
        baseline: (n_prompts, n_values) in [-1, 1].
        steered: (n_targets, n_prompts, n_values) in [-1, 1].
        targets: wanted profile of each target, (n_targets, n_values) in [-1, 1]; a negative
            number asks the value to fall, and falling is then the gain.
    """

    baseline: np.ndarray
    steered: np.ndarray
    targets: np.ndarray

    @classmethod
    def of(
        cls,
        baseline: np.ndarray,
        steered: np.ndarray,
        *,
        targets: Sequence[int] | np.ndarray | None = None,
    ) -> Paired:
        """Check shapes and ranges.

        Args:
            targets: profiles (n_targets, n_values); or the column of each target, meaning +1
                there and 0 elsewhere; None means columns 0..n_targets-1.

        Raises:
            MeasureError: shapes that do not fit, scores outside [-1, 1], a target that names
                no value or a column that is not there.
        """
        base, moved = np.asarray(baseline, dtype=float), np.asarray(steered, dtype=float)
        if base.ndim != 2 or moved.ndim != 3 or moved.shape[1:] != base.shape or not moved.size:
            raise MeasureError(
                "baseline must be (n_prompts, n_values) and steered (n_targets, n_prompts, "
                f"n_values) with the same prompts and values; got {base.shape} and {moved.shape}."
            )
        for name, array in (("baseline", base), ("steered", moved)):
            if (np.abs(array[~np.isnan(array)]) > 1 + 1e-9).any():
                raise MeasureError(f"{name} holds scores outside [-1, 1]; NaN marks missing.")
        wanted = target_profiles(targets, len(moved), base.shape[1])
        # A prompt missing on one side says nothing about the change: drop it on both.
        gone = np.isnan(base)[None] | np.isnan(moved)
        return cls(base, np.where(gone, np.nan, moved), wanted)

    @property
    def n_prompts(self) -> int:
        return self.baseline.shape[0]

    def paired_shift(self) -> np.ndarray:
        """Per-prompt change, shape (n_prompts, n_targets, n_values); NaN where either is."""
        return np.swapaxes(self.steered - self.baseline[None], 0, 1)

    def shift(self, weights: np.ndarray) -> np.ndarray:
        """C[i, j] - C0[j] under row weights, over prompts present on both sides; (b, T, V)."""
        return weighted_mean(weights, self.paired_shift())

    def gain(self, weights: np.ndarray) -> np.ndarray:
        """Movement towards each target under row weights, shape (b, n_targets)."""
        return on_target(self.shift(weights), self.targets)


@dataclass(frozen=True, eq=False)
class ControlMatrix:
    """What steering did to every value.

    Attributes:
        c0: C0[j], shape (n_values,).
        c: C[i, j], shape (n_targets, n_values).
        shift: C - C0 over the paired prompts, shape (n_targets, n_values). Signed: the headline
            for a single cell, because its noise has mean zero.
        gain: the movement towards the target, shape (n_targets,).
        mean_gain: over targets, shape ().
    """

    c0: Estimates
    c: Estimates
    shift: Estimates
    gain: Estimates
    mean_gain: Estimates


def control_matrix(paired: Paired, resampling: Resampling, *, level: float = 0.95) -> ControlMatrix:
    """C0, C, shifts and gains with paired bootstrap intervals.

    Presence is counted, see `bootstrap.counted`; so is the gain on a single value. Scores, and
    means over several values or targets, have percentile intervals, and where all prompts agree
    (every answer moved alike) the room that `bootstrap.unanimous` leaves.
    """
    steered = np.swapaxes(paired.steered, 0, 1)
    moves = paired.paired_shift()
    mean_gain = resampling.estimates(lambda w: paired.gain(w).mean(axis=-1), level=level)
    signed = np.nanmin(paired.baseline, initial=0) < 0 or np.nanmin(paired.steered, initial=0) < 0
    bottom = -1.0 if signed else 0.0

    def cells(rows: np.ndarray, bottom: float) -> Estimates:
        if _counts(paired):
            return counted(rows, resampling, bottom=bottom, top=1.0, level=level)
        found = resampling.estimates(lambda w: weighted_mean(w, rows), level=level)
        n = (~np.isnan(rows)).sum(axis=0)
        return unanimous(found, n, bottom=bottom, top=1.0)

    present = (~np.isnan(moves)).sum(axis=0)
    moved = present.min(axis=1, where=paired.targets != 0, initial=mean_gain.n)
    return ControlMatrix(
        c0=cells(paired.baseline, bottom),
        c=cells(steered, bottom),
        shift=cells(moves, -1.0),
        gain=gains(paired, resampling, level=level),
        mean_gain=unanimous(mean_gain, moved.min(), bottom=-1.0, top=1.0),
    )


def gains(paired: Paired, resampling: Resampling, *, level: float = 0.95) -> Estimates:
    """Movement towards each target, shape (n_targets,)."""
    moves = paired.paired_shift()
    found = resampling.estimates(paired.gain, level=level)
    present = (~np.isnan(moves)).sum(axis=0)
    moved = present.min(axis=1, where=paired.targets != 0, initial=found.n)
    found = unanimous(found, moved, bottom=-1.0, top=1.0)
    single = np.isin(np.abs(paired.targets), (0, 1)).all(axis=1) & (
        (paired.targets != 0).sum(axis=1) == 1
    )
    if not (_counts(paired) and single.any()):
        return found
    rows = np.where(paired.targets != 0, moves * paired.targets, 0.0).sum(axis=-1)
    exact = counted(rows, resampling, bottom=-1.0, top=1.0, level=level)
    return replace(
        found,
        low=np.where(single, exact.low, found.low),
        high=np.where(single, exact.high, found.high),
    )


def _counts(paired: Paired) -> bool:
    """Whether the scores are presence: for, not at all or against."""
    return all(
        np.isin(array[~np.isnan(array)], (-1.0, 0.0, 1.0)).all()
        for array in (paired.baseline, paired.steered)
    )


def on_target(shift: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Gain from shifts (..., n_targets, n_values): (..., n_targets)."""
    named = np.where(targets != 0, shift * targets, 0.0)
    return named.sum(axis=-1) / np.abs(targets).sum(axis=-1)


def target_profiles(
    targets: Sequence[int] | np.ndarray | None, n_targets: int, n_values: int
) -> np.ndarray:
    """Targets as profiles (n_targets, n_values); see `Paired.of`."""
    given = np.arange(n_targets) if targets is None else np.asarray(targets)
    if given.ndim == 1 and np.issubdtype(given.dtype, np.integer):
        if len(given) != n_targets or (given < 0).any() or (given >= n_values).any():
            raise MeasureError(
                f"{n_targets} targets need as many column indices below {n_values}, got "
                f"{given.tolist()}."
            )
        return np.eye(n_values)[given]
    if given.shape != (n_targets, n_values):
        raise MeasureError(f"targets must be {(n_targets, n_values)}, got {given.shape}.")
    profiles = given.astype(float)
    if not (np.abs(profiles) <= 1).all() or (profiles == 0).all(axis=1).any():
        raise MeasureError("A target profile needs a value that is not 0, all within [-1, 1].")
    return profiles
