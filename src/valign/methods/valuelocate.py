"""ValueLocate: excite the neurons that fire on the value's texts, quieten their opposites."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field

from valign.control import Edit, EditsControl, Site
from valign.corpora.types import Corpus
from valign.lm import HostModel, capture
from valign.methods.base import Method
from valign.methods.errors import FitError
from valign.methods.readings import need_pairs, sides
from valign.values import Profile


class ValueLocate(Method):
    """Value neurons by difference in firing, after ValueLocate (arXiv 2505.17712).

    The paper's text on the edit was not available to us; the formulas are read in a repository
    that is probably the authors' and in its parent, NPTI.

        p_j(+-)  share of the tokens of either side at which neuron j is above zero
        d_j      p_j(+) - p_j(-);    N+ the largest d, N- the smallest
        a_j <- a_j + |s_v| c_j f(d_j)    for j in N+,   f(d) = sigma(10 (d - .15))
        a_j <- min(a_j, 0)               for j in N-

    N+ holds the best `share` of all neurons and then all with d_j >= `gap`; N- likewise. Away from
    a value the two change places. The dose scales both moves: below strength 1 the clamp goes part
    of the way, above it the neurons of N- are pushed below zero.

    Helps where a value shows in which neurons fire at all. Hurts where neurons serve many values:
    nothing here asks what else they do (`neva` does). Needs one MLP per block, which mixtures of
    experts lack.

    Ours: neurons are the inputs of the down projection, where the source takes the gate's
    activation alone; texts are the corpus' pairs and not the model's own answers; c_j is the mean
    of a_j where it fires, in place of its 95 % point; a size that is a share, since the source's
    2,000 neurons fit one model; several values at once. The source's dropping of a random tenth
    of the neurons at every call is left out: the same prompt gives the same answer.
    """

    name: ClassVar[str] = "valuelocate"

    share: float = Field(default=0.005, gt=0, le=0.5)
    """Least share of all neurons in N+, and in N-."""
    gap: float = Field(default=0.1, gt=0, le=1)
    """Neurons that differ by this much in firing are taken however many there are."""
    amount: Literal["active", "prob"] = "active"
    """c_j: the mean of the neuron where it fires, or its p_j (the source's fallback)."""
    quieten: bool = True
    """Clamp N- as well as exciting N+."""
    neurons: Literal["value", "random"] = "value"
    """`random`: as many neurons in each layer, with the same shifts, drawn at random. The control
    that tells whether it matters which neurons they are."""
    seed: int = 0
    """Of the random neurons."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        edits: list[Edit] = []
        sizes: dict[str, dict[str, int]] = {}
        for value, score in target.named.items():
            firing = _firing(lm, corpus, value)
            wanted, other = (0, 1) if score > 0 else (1, 0)
            up, down = self._located(firing, wanted), self._located(firing, other)
            if not len(up):
                raise FitError(
                    f"valuelocate: no neuron fires more on one side of {value} than on the other. "
                    f"Add pairs for it (there are {len(corpus.pairs_of(value))})."
                )
            shift = self._shift(firing, wanted, up)
            if self.neurons == "random":
                rng = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}|{value}".encode()))
                shift, down = firing.shuffled(shift, down, rng)
            edits += firing.excite(abs(score) * shift)
            if self.quieten:
                edits += firing.quieten(down, abs(score))
            sizes[value] = dict(excited=int((shift != 0).sum()), quietened=len(down))
        return EditsControl(target=target, edits=tuple(edits), provenance=dict(neurons=sizes))

    def _located(self, firing: _Firing, side: int) -> torch.Tensor:
        """Flat numbers of the neurons that fire more on a side, most first."""
        more = firing.share[side] - firing.share[1 - side]
        least = max(1, round(self.share * len(more)))
        count = max(least, int((more >= self.gap).sum()))
        best = more.topk(min(count, len(more)))
        return best.indices[best.values > 0]

    def _shift(self, firing: _Firing, side: int, chosen: torch.Tensor) -> torch.Tensor:
        """c_j f(d_j) on the chosen neurons, 0 elsewhere, (N,)."""
        more = firing.share[side] - firing.share[1 - side]
        amount = firing.active[side] if self.amount == "active" else firing.share[side]
        shift = torch.zeros_like(more)
        shift[chosen] = (amount * torch.sigmoid(10 * (more - 0.15)))[chosen]
        return shift


@dataclass(frozen=True, eq=False)
class _Firing:
    """All neurons, side by side, under one value's pairs.

    Attributes:
        widths: site -> how many neurons it has, in order.
        share: (2, N), share of tokens at which a neuron is above 0, positive and negative side.
        active: (2, N), its mean over those tokens, 0 for a neuron that never fires.
    """

    widths: dict[Site, int]
    share: torch.Tensor
    active: torch.Tensor

    def excite(self, shift: torch.Tensor) -> list[Edit]:
        parts = zip(self.widths, shift.split(list(self.widths.values())), strict=True)
        return [
            Edit(site=site, kind="add", tensors=dict(vector=part.clone()))
            for site, part in parts
            if part.any()
        ]

    def quieten(self, chosen: torch.Tensor, strength: float) -> list[Edit]:
        edits = []
        begin = 0
        for site, width in self.widths.items():
            index = chosen[(chosen >= begin) & (chosen < begin + width)].sort().values - begin
            if len(index):
                high = torch.zeros(len(index))
                low = torch.full_like(high, torch.finfo(high.dtype).min)
                tensors = dict(index=index, low=low, high=high)
                edits.append(Edit(site=site, kind="clamp", tensors=tensors, strength=strength))
            begin += width
        return edits

    def shuffled(
        self, shift: torch.Tensor, down: torch.Tensor, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same shifts and as many clamps in every layer, each on neurons drawn at random."""
        moved, others = torch.zeros_like(shift), []
        begin = 0
        for width in self.widths.values():
            order = torch.randperm(width, generator=rng) + begin
            here = torch.nonzero(shift[begin : begin + width]).flatten() + begin
            moved[order[: len(here)]] = shift[here]
            count = int(((down >= begin) & (down < begin + width)).sum())
            others.append(order[width - count :])
            begin += width
        return moved, torch.cat(others)


def _firing(lm: HostModel, corpus: Corpus, value: str) -> _Firing:
    """Counts over all tokens of the value's pairs, batch by batch; kept in `lm.memo`."""
    key = ("firing", corpus.fingerprint, value)
    if key not in lm.memo:
        pairs = corpus.pairs_of(value)
        widths = {site: lm.site_width(site) for site in lm.sites("neurons")}
        tokens = torch.zeros(2, 1)
        fired = {site: torch.zeros(2, width) for site, width in widths.items()}
        total = {site: torch.zeros(2, width) for site, width in widths.items()}
        batches = capture(lm, sides(pairs), list(widths), positions="tokens", batch_size=4)
        for numbers, batch in batches:
            side = (torch.tensor(numbers) >= len(pairs)).long()
            tokens.index_add_(0, side, torch.ones(len(side), 1))
            for site, a in batch.items():
                fired[site].index_add_(0, side, (a > 0).float())
                total[site].index_add_(0, side, a.relu())
        counts, sums = (torch.cat(list(d.values()), dim=1) for d in (fired, total))
        lm.memo[key] = _Firing(
            widths=widths, share=counts / tokens.clamp_min(1), active=sums / counts.clamp_min(1)
        )
    return lm.memo[key]
