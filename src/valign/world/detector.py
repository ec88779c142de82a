"""The exact judge in the clothes of a detector, for whatever asks for `load_detector("world")`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from valign.values import load_system

from .judge import WorldJudge
from .lexicon import VALUES


class WorldDetector:
    """Signed value scores by the world's own grammar; reads nothing but texts of the world."""

    name = "world-parser"

    def __init__(self) -> None:
        self.system = load_system("schwartz10")
        self._order = [VALUES.index(name) for name in self.system.names]
        self._judge = WorldJudge()

    def score(
        self, texts: Sequence[str], prompts: Sequence[str | None] | None = None
    ) -> np.ndarray:
        """Scores in [-1, 1], shape (n_texts, 10), in the order of the system's values.

        Args:
            texts: answers.
            prompts: what they answer; not needed for values, but must match in number.

        Raises:
            ValueError: `prompts` and `texts` differ in number.
        """
        asked = [None] * len(texts) if prompts is None else list(prompts)
        rows = [
            self._judge.read(prompt or {}, text).scores[self._order]
            for prompt, text in zip(asked, texts, strict=True)
        ]
        return np.array(rows).reshape(len(rows), len(self._order))
