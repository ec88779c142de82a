"""Does a rewrite say what its source says: graded, as the paper does, and fault by fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from valign.detect.entail import Entailment
    from valign.detect.entail_consistency import Consistency


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

    def faults(
        self,
        sources: Sequence[str],
        texts: Sequence[str],
        prompts: Sequence[str | None] | None = None,
    ) -> list[tuple[str, ...]]:
        """What each text drops, adds or contradicts, in words; empty where it keeps its source."""
        ...


class EntailmentFidelity:
    """Entailment both ways, sentence by sentence and averaged (`valign.detect.entail`).

    Faults are read by `valign.detect.entail_consistency`, with the bundled entailment model its
    limits were set with.

    Args:
        model: of the grades; by default the bundled model. `Entailment.from_pretrained` takes any
            NLI model.
    """

    def __init__(self, model: Entailment | None = None):
        from valign.detect.entail import Entailment

        self._model = model or Entailment.bundled()
        self.name = f"entailment:{self._model.name}"
        self._consistency: Consistency | None = None

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

    def faults(
        self,
        sources: Sequence[str],
        texts: Sequence[str],
        prompts: Sequence[str | None] | None = None,
    ) -> list[tuple[str, ...]]:
        """As `Fidelity.faults`; what the prompt says is no addition."""
        if self._consistency is None:
            from valign.detect.entail_consistency import Consistency

            self._consistency = Consistency()
        return [one.reasons for one in self._consistency.judge(sources, texts, prompts)]
