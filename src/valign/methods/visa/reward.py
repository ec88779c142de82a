"""The composite reward of a rewrite, and how its parts become advantages.

    value         cos(D(y'), target)
    consistency   (forward + backward) / 2
    guard         - length penalty - repetition penalty
    reward        w_v value + w_c consistency + w_g guard;  value = consistency = 0 behind the gate

The first two and their sum are the paper's (VISA, arXiv 2603.04822); the mean of both directions,
equal weights, the gate (one direction below 0.1) and the guards are ours, untuned. D is the
detector that tunes: what judges must be another one.

Advantages normalise each part inside its group first and then sum (GDPO; in TRL
`multi_objective_aggregation="normalize_then_sum"`), since a cosine and an entailment have very
different spreads inside a group:

    z_ik = (r_ik - mean_group r_k) / (std_group r_k + 1e-4),   s_i = sum_k w_k z_ik,
    A_i  = (s_i - mean s) / (std s + 1e-4)                      over the whole batch
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from valign.detect.types import Detector
from valign.methods.visa.errors import RewriteError
from valign.methods.visa.fidelity import Fidelity
from valign.methods.visa.guards import (
    length_penalty,
    length_ratio,
    repetition,
    repetition_penalty,
)

PARTS = ("value", "consistency", "guard")
"""Order of the reward's parts."""
_NORM = 1e-4
_ABSENT = 0.1


def value_cosine(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Cosine of each row of scores with its target, both (n, n_values); in [-1, 1].

    The cosine says nothing where a vector is zero (ours): a target without any value is met by a
    text without any (1), and missed by the text's length (1 - |scores|); a text without values
    gets 0 for any other target.
    """
    size, goal = np.linalg.norm(scores, axis=1), np.linalg.norm(target, axis=1)
    both = np.divide(
        (scores * target).sum(1), size * goal, out=np.zeros(len(scores)), where=size * goal > 1e-12
    )
    empty = goal < _ABSENT
    return np.where(empty, 1 - np.minimum(size, 1), np.clip(both, -1, 1))


def gate(fidelity: np.ndarray, *, floor: float = 0.1) -> np.ndarray:
    """Whether both directions reach the floor; (n, 2) -> (n,) bool.

    What fails is empty, off topic or made up, and earns nothing however well its values fit.
    """
    return np.asarray(fidelity).min(axis=1) >= floor


def advantages(
    parts: np.ndarray, weights: Sequence[float], *, group: int, epsilon: float = _NORM
) -> np.ndarray:
    """Group-normalised parts, summed and normalised over the batch.

    Args:
        parts: (n, n_parts); rows of one group stand together.
        weights: one a part.
        group: rows a group.

    Returns:
        (n,); the standard deviations are the sample's (n - 1), as in TRL.

    Raises:
        RewriteError: rows that do not fill groups, or weights of another number.
    """
    parts = np.asarray(parts, dtype=float)
    if parts.ndim != 2 or len(parts) % group or group < 2 or parts.shape[1] != len(weights):
        raise RewriteError(
            f"Rewards of shape {parts.shape} do not fill groups of {group} with {len(weights)} "
            "weights; expected (groups x size, parts), and two rows a group at least."
        )
    grouped = parts.reshape(-1, group, parts.shape[1])
    spread = grouped.std(axis=1, ddof=1, keepdims=True)
    z = (grouped - grouped.mean(axis=1, keepdims=True)) / (spread + epsilon)
    summed = (z * np.asarray(weights, dtype=float)).sum(axis=2).reshape(-1)
    return (summed - summed.mean()) / (summed.std(ddof=1) + epsilon)


@dataclass(frozen=True)
class Marks:
    """What a batch of rewrites earned, and why.

    Attributes:
        parts: (n, 3), in the order of `PARTS`.
        scores: what the detector read, (n, n_values).
        fidelity: forward and backward consistency, (n, 2).
        distance: |scores - target|_2, (n,).
        total: weighted sum of the parts, (n,).
    """

    parts: np.ndarray
    scores: np.ndarray
    fidelity: np.ndarray
    distance: np.ndarray
    total: np.ndarray


@dataclass(frozen=True)
class Reward:
    """The composite reward.

    Attributes:
        detector: reads values; never the one that judges.
        fidelity: compares with the source.
        weights: of value, consistency and guard; the guard's 0 switches it off.
        floor: of the gate; 0 leaves it open.
        question: whether what the question says may be added. A rewriter that is rewarded so
            learns to write all of the question's facts into every answer.
    """

    detector: Detector
    fidelity: Fidelity
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    floor: float = 0.1
    question: bool = False

    def mark(
        self,
        sources: Sequence[str],
        texts: Sequence[str],
        targets: np.ndarray,
        prompts: Sequence[str | None] | None = None,
    ) -> Marks:
        """Judge rewrites of sources; targets are (n, n_values)."""
        targets = np.asarray(targets, dtype=float).reshape(len(texts), -1)
        asked = list(prompts) if prompts is not None else [None] * len(texts)
        scores = self.detector.score(texts, asked)
        faithful = self.fidelity.judge(sources, texts, asked if self.question else None)
        passed = gate(faithful, floor=self.floor)
        guard = [
            -length_penalty(length_ratio(s, t)) - repetition_penalty(repetition(t))
            for s, t in zip(sources, texts, strict=True)
        ]
        parts = np.stack(
            [
                np.where(passed, value_cosine(scores, targets), 0.0),
                np.where(passed, faithful.mean(axis=1), 0.0),
                np.array(guard),
            ],
            axis=1,
        )
        distance = np.linalg.norm(scores - targets, axis=1)
        return Marks(parts, scores, faithful, distance, parts @ np.array(self.weights))

    def functions(self) -> list[Callable[..., list[float]]]:
        """One function a part, as TRL's trainers call them; a batch is judged once for all."""
        judged = _Batch(self)
        return [_part(judged, number, name) for number, name in enumerate(PARTS)]


@dataclass
class _Batch:
    """The last batch and its marks."""

    reward: Reward
    key: tuple[Any, ...] | None = None
    marks: Marks | None = field(default=None)

    def read(self, completions: Sequence[Any], columns: dict[str, Any]) -> Marks:
        texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        key = (tuple(texts), tuple(columns["source"]))
        if self.marks is None or key != self.key:
            self.key = key
            self.marks = self.reward.mark(
                columns["source"], texts, np.array(columns["target"]), columns["question"]
            )
        return self.marks


def _part(judged: _Batch, number: int, name: str) -> Callable[..., list[float]]:
    def reward(completions: Sequence[Any], **columns: Any) -> list[float]:
        return judged.read(completions, columns).parts[:, number].tolist()

    reward.__name__ = name
    return reward
