"""The one protocol of everything that reads values in text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from valign.values import ValueSystem


@runtime_checkable
class Detector(Protocol):
    """Text in, profile out; the only judge of what a text expresses.

    Attributes:
        name: short name with version, stands in every result; the detector that tunes and the
            one that judges must differ in it.
        system: the values it reads, in the order of its columns.
    """

    name: str
    system: ValueSystem

    def score(
        self, texts: Sequence[str], prompts: Sequence[str | None] | None = None
    ) -> np.ndarray:
        """Scores in [-1, 1], shape (n_texts, n_values); an empty text scores 0 everywhere.

        `prompts`, where given, holds the question each text answers (some judges read facts or
        the choice off it); it has the length of `texts`.
        """
        ...
