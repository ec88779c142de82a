"""Exams whose questions count differently: accuracy, value-weighted accuracy, length, density.

    Acc     = share of questions answered right
    H-Acc   = sum of v over right answers / sum of v over all
    density = H-Acc in percent / mean length

Source: RLEV (arXiv 2510.20187), its metrics; intervals are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valign.measure.bootstrap import Resampling, mean, ratio, weighted_mean
from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate


@dataclass(frozen=True)
class Exam:
    """What a model got.

    Attributes:
        accuracy: share of right answers.
        value_accuracy: H-Acc, share of the value that right answers hold.
        length: mean length of answers, in tokens.
        density: percent of value per token.
    """

    accuracy: Estimate
    value_accuracy: Estimate
    length: Estimate
    density: Estimate


def exam(
    correct: np.ndarray, values: np.ndarray, lengths: np.ndarray, resampling: Resampling
) -> Exam:
    """Score one answer a question.

    Args:
        correct: (n,) 0 or 1.
        values: (n,) what each question counts, >= 0 and not all 0.
        lengths: (n,) tokens of the answers.
        resampling: of the n questions; the same for two models makes them comparable.

    Raises:
        MeasureError: arrays of unlike length, negative values, or no value at all.
    """
    right, worth, tokens = (np.asarray(x, dtype=float) for x in (correct, values, lengths))
    if not right.shape == worth.shape == tokens.shape or right.ndim != 1:
        raise MeasureError(
            f"One row a question: correct {right.shape}, values {worth.shape}, lengths "
            f"{tokens.shape}."
        )
    if (worth < 0).any() or not worth.sum() > 0:
        raise MeasureError("Values of questions are >= 0, and at least one is above 0.")

    def density(weights: np.ndarray) -> np.ndarray:
        share = (weights @ (right * worth)) / np.maximum(weights @ worth, 1e-300)
        length = weighted_mean(weights, tokens)
        return np.divide(100 * share, length, out=np.full(len(weights), np.nan), where=length > 0)

    return Exam(
        accuracy=mean(right[:, None], resampling).at(0),
        value_accuracy=ratio(right * worth, worth, resampling),
        length=mean(tokens[:, None], resampling).at(0),
        density=resampling.estimate(density),
    )
