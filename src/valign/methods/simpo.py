"""SimPO: preferences in weights without a reference model."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.mva.family import AdapterMethod
from valign.methods.mva.samples import simpo_columns


class SimPO(AdapterMethod):
    """Simple preference optimisation (arXiv 2405.14734) of a LoRA adapter.

        L = -log sigma( beta [ log pi(y+) / |y+| - log pi(y-) / |y-| - margin ] )

    Helps where the lengths of preferred answers mislead DPO. Hurts where nothing holds the model
    back: without a reference it can drift far; the learning rate matters most.

    beta = 2.5 and margin (gamma / beta) = .55 are the source's for Llama-3-Instruct, whose rate,
    1e-6, is for full fine-tuning; rank, modules and rate here are ours, untuned.
    """

    name: ClassVar[str] = "simpo"
    loss = "sigmoid_norm"

    beta: float = Field(default=2.5, gt=0)
    """How sharply the loss turns."""
    margin: float = Field(default=0.55, ge=0)
    """Log-probability per token by which the chosen answer should lead."""

    def reference(self, lm: HostModel, corpus: Corpus, value: str) -> torch.Tensor:
        return simpo_columns(self.samples(lm, corpus, value), self.margin)
