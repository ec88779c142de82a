"""MVA: an adapter for each value, each kept apart from the ones before."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from valign.methods.mva.family import AdapterMethod
from valign.methods.mva.penalties import PenaltyName
from valign.methods.mva.training import Recipe


class MVA(AdapterMethod):
    """Multi-value alignment by decorrelated value vectors (arXiv 2511.17579).

        theta_i = argmin  L_DPO(W0 + theta_i; D_i) + strength sum_{j<i} dependence(theta_i, theta_j)
        W(w)    = W0 + sum_i w_i theta_i,       theta_i = s B_i A_i per module

    The first value is plain DPO; every later one is kept independent of the frozen adapters before
    it. Fitted, it carries the target's numbers as weights w; `valign front` searches them, over the
    simplex and beyond, also past 1 and below 0.

    Helps where values pull at the same weights. Hurts by its order: later adapters are held off the
    earlier ones, never the other way round. Costs one DPO training a value.

    The released code's HSIC looks at rows of A and hardly measures dependence
    (`penalty=hsic-released`); the unbiased estimator on the updates is ours, and the default. Its
    strength is ours, untuned; `alpha` is LoRA's, not the paper's alpha.
    """

    name: ClassVar[str] = "mva"

    penalty: PenaltyName = "hsic"
    """`hsic`, `hsic-released`, `orthogonal`, `cosine` or `none`; see `penalties`."""
    strength: float | None = Field(default=None, ge=0)
    """Weight of the penalty; by default 10 for the released one, else 1 (ours, untuned)."""
    beta: float = Field(default=0.1, gt=0)
    """Of DPO (the paper: 0.1)."""
    objective: Literal["dpo", "sft"] = "dpo"
    """What an adapter learns from: preferences (the paper), or the positive sides alone (ours).
    Where what is chosen for one value is rejected for another, preferences set the adapters against
    each other; positive sides covered far more there (docs/mva.md)."""

    def recipe(self) -> Recipe:
        """The settings as a recipe."""
        return replace(super().recipe(), loss="sft" if self.objective == "sft" else self.loss)
