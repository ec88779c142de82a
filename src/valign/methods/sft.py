"""SFT: the value's own texts, learned by heart, in weights."""

from __future__ import annotations

from typing import ClassVar

from valign.methods.mva.family import AdapterMethod


class SFT(AdapterMethod):
    """Supervised fine-tuning of a LoRA adapter on the positive side of the pairs.

        L = -log pi(y+) / tokens

    What preferences add is seen by comparing `dpo` with this. Helps a model that does not know the
    value's texts. Hurts by copying their style along with the value, and it never sees what not to
    say. The trainer runs the negative side too, without use: a step costs as much as one of `dpo`.
    Rank, modules and rate are ours, untuned.
    """

    name: ClassVar[str] = "sft"
    loss = "sft"
