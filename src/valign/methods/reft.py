"""LoReFT: a learned edit inside a low-rank subspace of the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from pydantic import Field

from valign.control import Edit, EditsControl, Site
from valign.corpora.types import Corpus, Pair
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.gate import gate_where
from valign.methods.layers import Layers, chosen_sites
from valign.methods.preference import Loss, learn
from valign.methods.readings import need_pairs, read
from valign.values import Profile


class LoReFT(Method):
    """Low-rank representation finetuning (arXiv 2404.03592) on contrast pairs.

        a <- a + R^T (W a + b - R a),    R (rank, width) with orthonormal rows, W and b learned

    Inside the subspace of R the activation is replaced by what W and b say, outside it stays. It
    is carried out as pushes: x = relu(x) - relu(-x), so every row of R is one push in its own
    direction and one against it.

    Helps where a constant shift is too blunt, since the move depends on the activation. Hurts
    with few pairs, which it learns by heart, and picks up the style of its texts where these
    differ in more than the value. Costs a forward and a backward pass over the pairs per epoch.

    loss=lm on the wanted texts is the source's; loss=preference (the default, see
    `preference.py`) sets a text against its twin, so that what both share teaches nothing. That,
    answer positions in place of the prompt's first and last, one edit per value side by side, a
    value to move away from learned with its pairs turned round, the middle layer, the learning
    rate in the layer's own scale and all numbers are ours; rank 4 is that of the AxBench
    comparison (arXiv 2501.17148).
    """

    name: ClassVar[str] = "reft"

    rank: int = Field(default=4, ge=1)
    """Dimensions of the subspace."""
    layers: Layers = "middle"
    """Where it acts, one edit for each layer learned together; see `caa`."""
    loss: Loss = "preference"
    """`preference` of a text to its twin, or likelihood of the wanted texts (`lm`)."""
    beta: float = Field(default=0.1, gt=0)
    """preference only. How sharply the loss turns."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the pairs."""
    rate: float = Field(default=0.01, gt=0)
    """Learning rate."""
    batch_size: int = Field(default=8, ge=1)
    """Pairs per step."""
    gate: bool = False
    """Act only on prompts that have to do with values (`gate.py`); the source has none."""
    seed: int = 0
    """Of the first weights and the order of the pairs."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        found = {v: read(lm, corpus, "resid", v, positions="mean") for v in target.named}
        sites = chosen_sites(lm, self.layers, list(found.values()), method=self.name)
        parts: dict[Site, list[Edit]] = {site: [] for site in sites}
        losses = {}
        for value, score in target.named.items():
            start = [
                _Subspace.start(site, reading.positive, reading.std, self.rank, self.seed)
                for site, reading in ((site, found[value][site]) for site in sites)
            ]
            learned, losses[value] = self._learned(lm, corpus, value, score > 0, start)
            for subspace in learned:
                parts[subspace.site].append(subspace.edit(abs(score)))
        gate, gate_accuracy = gate_where(self.gate, lm, corpus, target, seed=self.seed)
        return EditsControl(
            target=target,
            edits=tuple(_side_by_side(edits) for edits in parts.values()),
            gate=gate,
            provenance=dict(
                sites=[str(site) for site in sites], losses=losses, gate_accuracy=gate_accuracy
            ),
        )

    def _learned(
        self, lm: HostModel, corpus: Corpus, value: str, toward: bool, start: Sequence[_Subspace]
    ) -> tuple[list[_Subspace], list[float]]:
        """The edits of one value and the loss of each epoch, kept in `lm.memo`."""
        own = self.model_dump(exclude={"layers", "gate"}).values()
        key = ("reft", corpus.fingerprint, value, toward, tuple(s.site for s in start), *own)
        if key not in lm.memo:
            pairs = corpus.pairs_of(value)

            def control(way: float) -> EditsControl:
                edits = tuple(subspace.edit() for subspace in start)
                return EditsControl(target=Profile.of(corpus.system), edits=edits).scaled(way)

            history = learn(
                lm, pairs if toward else [_turned(pair) for pair in pairs],
                [parameter for s in start for parameter in (s.rows, s.slope, s.shift)], control,
                what=f"reft: {value}", loss=self.loss, both_ways=False, beta=self.beta,
                epochs=self.epochs, rate=self.rate, batch_size=self.batch_size, seed=self.seed,
            )  # fmt: skip
            lm.memo[key] = list(start), [round(loss, 4) for loss in history]
        return lm.memo[key]


def _side_by_side(edits: Sequence[Edit]) -> Edit:
    """One push with the rows of several: none of them sees what the others move."""
    names = edits[0].tensors
    joined = {name: torch.cat([edit.tensors[name] for edit in edits]) for name in names}
    return replace(edits[0], tensors=joined)


def _turned(pair: Pair) -> Pair:
    return replace(pair, positive=pair.negative, negative=pair.positive)


@dataclass(frozen=True, eq=False)
class _Subspace:
    """LoReFT's parameters at one site, on activations centred by m and scaled by r.

        a <- a + r R^T (D z + b),    z = (a - m) / r,    D = W - R

    Attributes:
        centre, spread: m (width,) and r, a number.
        rows: (rank, width), made orthonormal to give R.
        slope, shift: D (rank, width) and b (rank,).
    """

    site: Site
    centre: torch.Tensor
    spread: float
    rows: torch.Tensor
    slope: torch.Tensor
    shift: torch.Tensor

    @classmethod
    def start(
        cls, site: Site, centre: torch.Tensor, std: torch.Tensor, rank: int, seed: int
    ) -> _Subspace:
        """Random rows, and almost no edit: exactly none would give pushes no gradient."""
        rng = torch.Generator().manual_seed(seed + site.layer)
        width = len(centre)
        rows, slope = (torch.randn(rank, width, generator=rng) / width**0.5 for _ in range(2))
        return cls(
            site=site, centre=centre, spread=float(std.square().mean().sqrt()),
            rows=rows, slope=1e-3 * slope, shift=torch.full((rank,), 1e-3),
        )  # fmt: skip

    def edit(self, share: float = 1.0) -> Edit:
        """`share` of R^T (D z + b) as a push each way: relu(y) R - relu(-y) R for y = D z + b."""
        basis = share * self.spread * torch.linalg.qr(self.rows.T).Q.T
        weight = self.slope / self.spread
        bias = self.shift - weight @ self.centre
        return Edit(
            site=self.site,
            kind="push",
            tensors=dict(
                weight=torch.cat([-weight, weight]),
                bias=torch.cat([-bias, bias]),
                target=torch.zeros(2 * len(bias)),
                direction=torch.cat([basis, -basis]),
            ),
        )
