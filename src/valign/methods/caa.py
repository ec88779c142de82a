"""CAA: add the mean difference of activations."""

from __future__ import annotations

from typing import ClassVar

import torch

from valign.control import Edit, EditsControl, Site
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.layers import Layers, chosen_sites
from valign.methods.neurons import against_others
from valign.methods.readings import Positions, need_pairs, paired_values, read
from valign.values import Profile


class CAA(Method):
    """Contrastive activation addition (arXiv 2312.06681) on the residual stream.

        a_l <- a_l + sum_v s_v (mean of v's positive texts - mean of its negative ones)_l

    Helps almost everywhere: strong, cheap, nothing to tune but the dose. Hurts where the pairs
    share more than the value: whatever all positive sides have in common is added too.

    The paper reads the answer letter's token at one layer; reading the mean over the answer's
    tokens and editing several layers are ours, untuned.
    """

    name: ClassVar[str] = "caa"

    layers: Layers = "inner"
    """`inner`: all but the first and the last; `middle`; `best`: the one whose probe tells held-out
    pairs apart best; or layer numbers."""
    positions: Positions = "mean"
    """Read the mean over the answer's tokens, or only the last one."""
    specific: bool = False
    """Take the other values' mean differences off, so that what all pairs share is not added
    (ours)."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        found = {v: read(lm, corpus, "resid", v, positions=self.positions) for v in target.named}
        sites = chosen_sites(lm, self.layers, list(found.values()), method=self.name)
        edits = []
        for site in sites:
            gaps = (
                self._gaps(lm, corpus, site)
                if self.specific
                else {v: readings[site].gap for v, readings in found.items()}
            )
            vector = torch.stack([s * gaps[v] for v, s in target.named.items()]).sum(0)
            edits.append(Edit(site=site, kind="add", tensors=dict(vector=vector)))
        return EditsControl(
            target=target, edits=tuple(edits), provenance=dict(sites=[str(s) for s in sites])
        )

    def _gaps(self, lm: HostModel, corpus: Corpus, site: Site) -> dict[str, torch.Tensor]:
        """Each value's mean difference less the mean of the other values'."""
        values = paired_values(corpus)
        rows = [read(lm, corpus, "resid", v, positions=self.positions)[site].gap for v in values]
        return dict(zip(values, against_others(torch.stack(rows)), strict=True))
