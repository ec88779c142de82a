"""CAA: add the mean difference of activations."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import field_validator

from valign.control import Edit, EditsControl, Site
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.errors import MethodSettingError
from valign.methods.neurons import against_others
from valign.methods.readings import Positions, Readings, need_pairs, paired_values, read
from valign.values import Profile


class CAA(Method):
    """Contrastive activation addition (arXiv 2312.06681) on the residual stream.

        a_l <- a_l + sum_v s_v (mean of v's positive texts - mean of its negative ones)_l

    Helps almost everywhere: strong, cheap, nothing to tune but the dose. Hurts where the pairs
    share more than the value: whatever all positive sides have in common is added too.

    The paper reads the answer letter's token at one layer; reading the mean over the answer's
    tokens and editing several layers are ours, and did better on free text.
    """

    name: ClassVar[str] = "caa"

    layers: Literal["inner", "best"] | tuple[int, ...] = "inner"
    """`inner`: all but the first and the last; `best`: the one whose probe tells held-out pairs
    apart best; or layer numbers."""
    positions: Positions = "mean"
    """Read the mean over the answer's tokens, or only the last one."""
    specific: bool = False
    """Take the other values' mean differences off, so that what all pairs share is not added
    (ours)."""

    @field_validator("layers", mode="before")
    @classmethod
    def _one_layer(cls, layers: Any) -> Any:
        one = isinstance(layers, int) or (isinstance(layers, str) and layers.isdigit())
        return (layers,) if one else layers

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        found = {v: read(lm, corpus, "resid", v, positions=self.positions) for v in target.named}
        sites = self._sites(lm, list(found.values()))
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

    def _sites(self, lm: HostModel, found: list[Readings]) -> list[Site]:
        sites = list(lm.sites("resid"))
        if self.layers == "inner":
            return sites[1:-1] if len(sites) > 2 else sites
        if self.layers == "best":
            return [max(sites, key=lambda s: sum(r[s].probe.accuracy for r in found))]
        wrong = [layer for layer in self.layers if not 0 <= layer < len(sites)]
        if wrong:
            raise MethodSettingError(
                f"caa: layers={wrong[0]}: the model has layers 0 to {len(sites) - 1}."
            )
        return [sites[layer] for layer in self.layers]
