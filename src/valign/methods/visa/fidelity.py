"""Does a rewrite say what its source says: forward and backward consistency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from valign.detect.entail import Entailment


class Fidelity(Protocol):
    """Judges what became of the source's content.

    `valign.world.rewrites.WorldFidelity` is the exact one of the generated world.
    """

    name: str

    def judge(
        self,
        sources: Sequence[str],
        texts: Sequence[str],
        prompts: Sequence[str | None] | None = None,
    ) -> np.ndarray:
        """Shape (n, 2), in [0, 1].

        Column 0, forward: how far the source supports the text; falls when it adds content.
        Column 1, backward: how far the text supports the source; falls when it leaves content out.
        """
        ...


class EntailmentFidelity:
    """Entailment both ways, sentence by sentence and averaged (`valign.detect.entail`).

    Args:
        model: by default the bundled model; `Entailment.from_pretrained` takes any NLI model.
    """

    def __init__(self, model: Entailment | None = None):
        from valign.detect.entail import Entailment

        self._model = model or Entailment.bundled()
        self.name = f"entailment:{self._model.name}"

    def judge(
        self,
        sources: Sequence[str],
        texts: Sequence[str],
        prompts: Sequence[str | None] | None = None,
    ) -> np.ndarray:
        """As `Fidelity.judge`; the prompt plays no part. An empty text gets 0 and 0."""
        found = np.zeros((len(texts), 2))
        rows = [i for i, text in enumerate(texts) if text.strip()]
        mutual = self._model.mutual([sources[i] for i in rows], [texts[i] for i in rows])
        for i, both in zip(rows, mutual, strict=True):
            found[i] = both.forward.score, both.backward.score
        return found
