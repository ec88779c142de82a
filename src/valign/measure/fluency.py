"""Is it still language: perplexity, variety, repetition.

Inputs are arrays of per-answer sums, so that answers (not tokens) are resampled.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from valign.measure.bootstrap import Estimates, Resampling, mean
from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate


def perplexity(
    nll: np.ndarray, tokens: np.ndarray, resampling: Resampling, *, level: float = 0.95
) -> Estimate:
    """exp(sum of NLL / number of tokens) over a set of answers.

    Which model scores is the caller's choice; valign scores answers with the *unsteered* model.
    Answers without a token are left out.

    Args:
        nll: sum of -log p over an answer's tokens, in nats, shape (n_answers,).
        tokens: number of those tokens, shape (n_answers,).
    """
    count = np.asarray(tokens, dtype=float)
    total = np.where(count > 0, np.asarray(nll, dtype=float), 0.0)
    if not np.isfinite(total).all():
        raise MeasureError("nll holds values that are not finite; a token had probability 0.")

    def statistic(weights: np.ndarray) -> np.ndarray:
        length = weights @ count
        rate = np.divide(weights @ total, length, out=np.full(len(weights), np.nan),
                         where=length > 0)  # fmt: skip
        return np.exp(rate)

    return resampling.estimate(statistic, level=level)


def distinct_n(answers: Sequence[Sequence[Hashable]], n: int = 2) -> float:
    """Distinct n-grams over all n-grams of a set of answers (Li et al. 2016), in [0, 1].

    It falls with the amount of text by its nature: compare only sets of about equal size. A
    bootstrap of it is biased for the same reason (drawing an answer twice repeats its n-grams),
    so it comes without interval; `repetition` is the per-answer quantity with one.

    Args:
        answers: token ids or words of each answer.
    """
    grams = [gram for answer in answers for gram in _grams(answer, n)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def repetition_rate(answer: Sequence[Hashable], n: int = 3) -> float:
    """Share of an answer's n-grams that stood in it before, 1 - unique / all; 0 if too short."""
    grams = _grams(answer, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def repetition(
    answers: Sequence[Sequence[Hashable]],
    resampling: Resampling,
    *,
    n: int = 3,
    level: float = 0.95,
) -> Estimates:
    """Mean `repetition_rate` over answers, shape ()."""
    rates = np.array([repetition_rate(answer, n) for answer in answers])
    return mean(rates, resampling, level=level)


def distinct_rate(answer: Sequence[Hashable], n: int = 2) -> float:
    """Distinct n-grams over all n-grams *within* one answer; 1 if too short to repeat."""
    return 1.0 - repetition_rate(answer, n)


def _grams(tokens: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    if n < 1:
        raise MeasureError(f"n-grams need n of at least 1, got {n}.")
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
