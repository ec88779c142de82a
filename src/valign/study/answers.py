"""Answers of one arm as arrays: what every number of a run or a comparison is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from valign.study.results import Row


@dataclass(frozen=True, eq=False)
class Answers:
    """Rows of one arm and target in the order of the units, None where a row is missing."""

    rows: list[Row | None]

    def column(self, read: Any) -> np.ndarray:
        """One number per unit, NaN where there is none."""
        found = [None if row is None else read(row) for row in self.rows]
        return np.array([np.nan if x is None else float(x) for x in found])

    def presence(
        self, values: Sequence[str], threshold: float, aspect: str | None = None
    ) -> np.ndarray:
        """(n_units, n_values) in {-1, 0, 1}: for, not at all, or against each value.

        With an `aspect`, what that aspect alone shows; NaN in rows whose judge did not read it.

        A text that argues against a value does not express it; it counts as -1, so that a
        control towards a value gains nothing by making the model argue against it.
        """
        table = np.full((len(self.rows), len(values)), np.nan)
        for number, row in enumerate(self.rows):
            found = None if row is None else row.aspects.get(aspect) if aspect else row.scores
            if found is not None:
                scores = np.array([found.get(name, 0.0) for name in values])
                table[number] = np.where(np.abs(scores) >= threshold, np.sign(scores), 0.0)
        return table
