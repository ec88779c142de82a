"""DPO: preferences in weights, one adapter a value or one for all."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from valign.control.weights import WeightsControl
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.mva.combine import control_of
from valign.methods.mva.family import AdapterMethod
from valign.methods.mva.schemes import mixed, modpo, sequential
from valign.values import Profile


class DPO(AdapterMethod):
    """Direct preference optimisation (arXiv 2305.18290) of LoRA adapters.

        L = -log sigma( beta [ log pi(y+)/pi_0(y+) - log pi(y-)/pi_0(y-) ] )

    `scheme` says what becomes of several values:

    - `separate`: an adapter each, weighted by the target's numbers (rewarded soups, arXiv
      2306.04488, where the numbers sum to 1; task arithmetic, arXiv 2212.04089, elsewhere).
    - `sequential`: one adapter trained on one value after the other; each is the next one's start
      and reference.
    - `mixed`: one adapter on all values' pairs, drawn in proportion to the target's numbers.
    - `modpo`: one adapter on the first value's pairs, the others as margins (arXiv 2310.03708).

    Helps where preferences are at hand. Hurts with few pairs, which it learns by heart, and, but
    for `separate`, by one training for every trade-off. Rank, modules and rate are ours, untuned.
    """

    name: ClassVar[str] = "dpo"

    beta: float = Field(default=0.1, gt=0)
    """How far the model may move for a preference; larger stays closer."""
    scheme: Literal["separate", "sequential", "mixed", "modpo"] = "separate"
    """What becomes of several values; see above."""

    def trained(self, lm: HostModel, corpus: Corpus, target: Profile) -> WeightsControl:
        if self.scheme == "separate" or len(target.named) == 1:
            return super().trained(lm, corpus, target)
        made = dict(sequential=sequential, mixed=mixed, modpo=modpo)[self.scheme](
            self, lm, corpus, self.in_order(target)
        )
        return control_of(target, [made], weights=[1.0])
