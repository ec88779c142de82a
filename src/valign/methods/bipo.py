"""BiPO: a steering vector learned so that the model prefers the value's texts."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from valign.control import Edit, EditsControl, Site
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.gate import gate_where
from valign.methods.layers import Layers, chosen_sites
from valign.methods.preference import learn
from valign.methods.readings import need_pairs, read
from valign.values import Profile


class BiPO(Method):
    """Bi-directional preference optimisation of a steering vector (arXiv 2406.00045).

        a_l <- a_l + sum_v s_v u_v
        u_v = argmin  E_{d = +-1}  -log sigma( d beta [ gain(positive) - gain(negative) ] )
        gain(y) = log p(y | a_l + d u_v) - log p(y)

    Where `caa` takes the difference that the value's texts leave behind, this asks which shift
    makes the model say them rather than their twins, in both directions at once.

    Helps where reading a value and causing it are different things. Hurts with few pairs, which it
    learns by heart, and without tuning: AxBench (arXiv 2501.17148) found the loss to collapse
    there. Costs a forward and a backward pass over the pairs per epoch.

    Objective and beta = .1 are the source's. One vector per value, summed; the answer's positions
    only, from the last prompt token on; the learning rate in units of the layer's own spread; the
    middle layer (the source: 15 of 32), and the number of epochs are ours.
    """

    name: ClassVar[str] = "bipo"

    layers: Layers = "middle"
    """Where the vector is added, one for each layer learned together; see `caa`."""
    beta: float = Field(default=0.1, gt=0)
    """How sharply the loss turns; larger lets it stop sooner."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the pairs."""
    rate: float = Field(default=0.02, gt=0)
    """Learning rate, in standard deviations of the layer per step."""
    batch_size: int = Field(default=8, ge=1)
    """Pairs per step."""
    gate: bool = False
    """Act only on prompts that have to do with values (`gate.py`); the source has none."""
    seed: int = 0
    """Of the order of the pairs and the directions."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        found = {v: read(lm, corpus, "resid", v, positions="mean") for v in target.named}
        sites = chosen_sites(lm, self.layers, list(found.values()), method=self.name)
        summed = {site: torch.zeros(lm.site_width(site)) for site in sites}
        losses = {}
        for value, score in target.named.items():
            spread = {s: float(found[value][s].std.square().mean().sqrt()) for s in sites}
            vectors, losses[value] = self._learned(lm, corpus, value, spread)
            for site in sites:
                summed[site] += score * vectors[site]
        gate, gate_accuracy = gate_where(self.gate, lm, corpus, target, seed=self.seed)
        return EditsControl(
            target=target,
            edits=_added(summed),
            gate=gate,
            provenance=dict(
                sites=[str(site) for site in sites], losses=losses, gate_accuracy=gate_accuracy
            ),
        )

    def _learned(
        self, lm: HostModel, corpus: Corpus, value: str, spread: dict[Site, float]
    ) -> tuple[dict[Site, torch.Tensor], list[float]]:
        """The vectors of one value and the loss of each epoch, kept in `lm.memo`."""
        key = ("bipo", corpus.fingerprint, value, tuple(spread), self.beta, self.epochs, self.rate,
               self.batch_size, self.seed)  # fmt: skip
        if key not in lm.memo:
            units = {site: torch.zeros(lm.site_width(site)) for site in spread}

            def control(way: float) -> EditsControl:
                edits = _added({site: spread[site] * unit for site, unit in units.items()})
                return EditsControl(target=Profile.of(corpus.system), edits=edits).scaled(way)

            history = learn(
                lm, corpus.pairs_of(value), list(units.values()), control,
                what=f"bipo: {value}", loss="preference", both_ways=True, beta=self.beta,
                epochs=self.epochs, rate=self.rate, batch_size=self.batch_size, seed=self.seed,
            )  # fmt: skip
            vectors = {site: spread[site] * unit for site, unit in units.items()}
            lm.memo[key] = vectors, [round(loss, 4) for loss in history]
        return lm.memo[key]


def _added(vectors: dict[Site, torch.Tensor]) -> tuple[Edit, ...]:
    return tuple(
        Edit(site=site, kind="add", tensors=dict(vector=vector)) for site, vector in vectors.items()
    )
