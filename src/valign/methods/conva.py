"""ConVA: the smallest residual shift that brings a value probe to its target."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from valign.control import EditsControl
from valign.control.edit import Scope
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.gate import gate_where
from valign.methods.probes import informative
from valign.methods.push import logit, push_edit
from valign.methods.readings import Positions, need_pairs, read
from valign.values import Profile


class ConVA(Method):
    """Controlled value vector activation (arXiv 2507.11316), built from the authors' public code.

        P(a) = sigma(w . a + b) per value and layer, fitted on contrast pairs
        a <- a + gate(x) max(0, logit(P0) - w . a - b) / |w|^2 w

    at every kept layer, in order, so that a layer sees the shifts before it. The shift is read at
    the last prompt token and held for the whole answer (`per_token=false`, the code's way; the
    paper's wording is per input). A value to move away from has its probe turned round; a score
    of .5 makes up half of the shortfall; several values are pushed at once (all three ours).

    Helps where pairs are well controlled and probes are good (accuracy > .9, large models). Hurts
    where the probe reads the value but does not cause it: small models, few pairs.

    Differs from the original: the gate is a probe on the prompt (see `gate.py`) and not a second
    model; the P0 tuned per value there is one number here, since strength is set by a dose.
    """

    name: ClassVar[str] = "conva"

    p0: float = Field(default=0.9, gt=0.5, lt=1)
    """Probability the probe is brought to."""
    positions: Positions = "last"
    """Where probes are fitted: the text's last token (the paper's), or the mean of its tokens."""
    threshold: float = Field(default=0.9, ge=0, le=1)
    """Layers below this held-out accuracy are left alone; the best quarter if all are."""
    drop_last: int = Field(default=5, ge=0)
    """How many of the last layers are left alone."""
    per_token: bool = False
    """Compute the shift anew at every token instead of holding the prompt's."""
    scope: Scope = "all"
    """Where the shift is added: at `all` positions (the code's way) or in the answer only."""
    gate: bool = True
    """Act only on prompts that have to do with the target's values."""
    ridge: float = Field(default=1.0, gt=0)
    """Penalty of the probes, 1 / C."""
    seed: int = 0
    """Of the split into pairs to fit on and held-out pairs."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        named = target.named
        found = {
            v: read(lm, corpus, "resid", v, positions=self.positions, ridge=self.ridge,
                    seed=self.seed)
            for v in named
        }  # fmt: skip
        accuracy = {
            site: sum(found[v][site].probe.accuracy for v in named) / len(named)
            for site in lm.sites("resid")
        }
        kept, rule = informative(accuracy, threshold=self.threshold, drop_last=self.drop_last)
        side = torch.tensor([1.0 if score > 0 else -1.0 for score in named.values()])
        share = torch.tensor([abs(score) for score in named.values()])
        edits = []
        for site in kept:
            probes = [found[v][site].probe for v in named]
            edits.append(
                push_edit(
                    site,
                    weight=torch.stack([p.weight for p in probes]) * side[:, None],
                    bias=torch.tensor([p.bias for p in probes]) * side,
                    target=torch.full_like(side, logit(self.p0)),
                    share=share,
                    hold=not self.per_token,
                    scope=self.scope,
                )
            )
        gate, gate_accuracy = gate_where(self.gate, lm, corpus, target, seed=self.seed)
        return EditsControl(
            target=target,
            edits=tuple(edits),
            gate=gate,
            provenance=dict(
                sites=[str(site) for site in kept],
                layer_rule=rule,
                probe_accuracy={str(site): round(accuracy[site], 3) for site in kept},
                gate_accuracy=gate_accuracy,
            ),
        )
