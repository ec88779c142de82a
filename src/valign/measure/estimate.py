"""A number with its interval: the only form in which valign prints a measured quantity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A point estimate with a confidence interval.

    Attributes:
        value: the point estimate, NaN where it is undefined (a ratio without a denominator).
        low, high: ends of the interval.
        n: sample size: independent units that were resampled (prompts, not tokens).
        level: nominal coverage.
    """

    value: float
    low: float
    high: float
    n: int
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"
