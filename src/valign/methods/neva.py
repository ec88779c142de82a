"""NeVA: steer through a few neurons of the MLPs that belong to the value and to no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from transformers.pytorch_utils import Conv1D

from valign.control import Edit, EditsControl, Site
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.errors import FitError
from valign.methods.gate import gate_where
from valign.methods.neurons import (
    Exclude,
    Move,
    Scorer,
    against_others,
    choose,
    neutral_move,
    rivals,
)
from valign.methods.probes import informative
from valign.methods.push import logit, push_edit
from valign.methods.readings import (
    Positions,
    Reading,
    Readings,
    gradients,
    need_pairs,
    paired_values,
    read,
)
from valign.values import Profile

Flat = torch.Tensor
"""(n_values, N): one row per value over the neurons of all kept layers, side by side."""


class NeVA(Method):
    """Neuron-level value editing in the manner of NeVA (arXiv 2602.07356).

    What the paper says and we could read: value probes, few value-relevant neurons, an edit of
    their activations at inference under a context-aware rule, no weights changed. Its equations
    were not available to us; every formula here is ours.

        neurons   a = input of the MLP's down projection
        gap_v     mean a on v's positive texts - on its negative ones
        grad_v    how a shift of a changes the log-probability of v's texts, same contrast
        score     grad_v * gap_v, both contrasted with all other values (`specific`)
        S_v       the best `share` of neurons by score
        add       a_S <- a_S + s_v move_S
        move      by default the cheapest shift that by gradient raises v and leaves all other
                  values where they are: min sum_j delta_j^2 / m_j  s.t.  grad delta = e_v,
                  m_j = 1 / mean grad_j^2 (neurons on which everything hangs are dear)
                  move = argmin sum_j F_j move_j^2  with  grad_v . move = 1, grad_u . move = 0
        push      a_S <- a_S + relu(s0 - w_S . a_S - b) w_S / |w_S|^2

    F_j is the mean squared gradient, so the default move raises the value at the least KL
    divergence and leaves all other values u where they are, both to first order.

    Helps where pairs show texts that hold a value but not what makes a model say them: the
    gradient asks for the cause, the mean difference for the trace. Helps where side effects
    matter. Hurts where there is little to contrast with (few pairs, one value only); costs a
    backward pass over `gradient_pairs` pairs of every value, once per model and corpus. Needs one
    MLP per block, which mixtures of experts lack.
    """

    name: ClassVar[str] = "neva"

    score: Scorer = "attribution"
    """`attribution`: signed gradient x gap. `contrib`: probe weight x gap. `abs_weight`: size of
    the probe weight. `write`: how much of the residual value direction the neuron writes."""
    share: float = Field(default=0.05, gt=0, le=1)
    """Share of the kept layers' neurons that are edited."""
    exclude: Exclude = "none"
    """Leave out neurons among the best of values out of the target's group, of `any`, of `none`."""
    specific: bool = True
    """Contrast scores and moves with all other values' pairs, so that only what sets the value
    apart counts."""
    mode: Literal["add", "push"] = "add"
    """`add` a constant on the chosen neurons, or `push` until a probe is satisfied."""
    move: Move = "neutral"
    """add only. Along the shift of least KL divergence that by gradient raises the value and no
    other (`neutral`), or along the value's `gap`."""
    reads: Literal["probe", "gap"] = "probe"
    """push only. What is brought to its target: the probe, or the projection on the gap up to the
    positive texts' mean."""
    p0: float = Field(default=0.9, gt=0.5, lt=1)
    """push only. Probability the probe is brought to."""
    per_token: bool = True
    """push only. Compute the move at every token, or once at the last prompt token."""
    clip: bool = True
    """push only. Keep edited neurons in the range seen on the pairs, widened to three times its
    width (single tokens vary more than a text's mean)."""
    layers: Literal["all", "informative"] = "all"
    """`all` but the first, or only those whose probe is `informative` (ConVA's rule)."""
    gate: bool = True
    """Act only on prompts that have to do with the target's values."""
    positions: Positions = "mean"
    """Read the mean over the answer's tokens, or only the last one."""
    gradient_pairs: int = Field(default=30, ge=8)
    """Pairs per value for the gradients."""
    seed: int = 0
    """Of the split into pairs to fit on and held-out pairs."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        field = self._field(lm, corpus, target)
        chosen, moves = {}, {}
        for value in target.named:
            number = field.values.index(value)
            chosen[value] = choose(
                field.scores, number, field.count(self.share), field.rivals[number]
            )
            if not len(chosen[value]):
                raise FitError(
                    f"neva: no neuron speaks for {value}: every {self.score} score is <= 0. "
                    f"Add pairs for it (there are {len(corpus.pairs_of(value))})."
                )
            moves[value] = self._move(field, number, chosen[value])
        if self.mode == "add":
            scaled = [score * moves[v] for v, score in target.named.items()]
            edits = field.add(torch.stack(scaled).sum(0))
        else:
            edits = self._push(field, target, chosen)
        gate, gate_accuracy = gate_where(self.gate, lm, corpus, target, seed=self.seed)
        return EditsControl(
            target=target,
            edits=edits,
            gate=gate,
            provenance=dict(
                neurons={v: len(index) for v, index in chosen.items()},
                neurons_per_layer={v: field.per_site(index) for v, index in chosen.items()},
                contrasted_with=list(field.values) if self.specific else [],
                layer_rule=field.rule,
                gate_accuracy=gate_accuracy,
            ),
        )

    def _field(self, lm: HostModel, corpus: Corpus, target: Profile) -> _Field:
        """Everything about the neurons that the choice needs."""
        contrast = self.specific or self.exclude != "none" or self.move != "gap"
        values = paired_values(corpus) if contrast else list(target.named)
        found = [
            read(lm, corpus, "neurons", v, positions=self.positions, seed=self.seed) for v in values
        ]
        sites = list(lm.sites("neurons"))
        sites, rule = (sites[1:], "all but the first") if len(sites) > 1 else (sites, "all")
        if self.layers == "informative":
            targets = [found[values.index(v)] for v in target.named]
            accuracy = {s: sum(r[s].probe.accuracy for r in targets) / len(targets) for s in sites}
            sites, rule = informative(accuracy)

        def flat(read_off: Callable[[Reading], torch.Tensor]) -> Flat:
            return torch.stack([torch.cat([read_off(row[s]) for s in sites]) for row in found])

        gap = flat(lambda reading: reading.gap)
        weight = flat(lambda reading: reading.probe.weight)
        effect, cheap = torch.zeros_like(gap), torch.ones_like(gap[0])
        if self.score == "attribution" or self.move != "gap":
            slopes = [
                gradients(lm, corpus, "neurons", v, pairs=self.gradient_pairs) for v in values
            ]
            effect = torch.stack([torch.cat([g[s][0] - g[s][1] for s in sites]) for g in slopes])
            price = torch.stack([torch.cat([g[s][2] for s in sites]) for g in slopes]).mean(0)
            cheap = 1 / (price + 1e-3 * price.mean())
        slope = effect
        if self.specific:
            gap, weight, slope = map(against_others, (gap, weight, effect))
        if self.score == "attribution":
            scores = slope * gap
        elif self.score == "contrib":
            scores = weight * gap
        elif self.score == "abs_weight":
            scores = (weight * flat(lambda reading: reading.std)).abs()
        else:
            scores = self._write(lm, corpus, values, sites, gap)
        return _Field(
            values=values,
            sites=sites,
            rule=rule,
            readings=found,
            gap=gap,
            effect=effect,
            cheap=cheap,
            scores=scores,
            rivals=rivals(corpus.system, values, self.exclude),
        )

    def _write(
        self, lm: HostModel, corpus: Corpus, values: list[str], sites: list[Site], gap: Flat
    ) -> Flat:
        """gap_j * (W_down[:, j] . value direction of the residual stream after the block)."""
        resid = [
            read(lm, corpus, "resid", v, positions=self.positions, seed=self.seed) for v in values
        ]
        parts = []
        for site in sites:
            after = Site("resid", site.layer)
            direction = torch.stack([r[after].gap for r in resid])
            if self.specific:
                direction = against_others(direction)
            down = lm.layout.module(site)
            weight = down.get_parameter("weight").detach().float().cpu()
            if isinstance(down, Conv1D):  # keeps its weight transposed
                weight = weight.T
            parts.append(torch.nn.functional.normalize(direction, dim=1) @ weight)
        return torch.cat(parts, dim=1) * gap

    def _move(self, field: _Field, number: int, index: torch.Tensor) -> torch.Tensor:
        """The shift on the chosen neurons for score 1, (N,)."""
        mask = torch.zeros_like(field.gap[number])
        mask[index] = 1.0
        if self.move == "gap":
            return field.gap[number] * mask
        return neutral_move(field.effect, number, mask * field.cheap)

    def _push(
        self, field: _Field, target: Profile, chosen: dict[str, torch.Tensor]
    ) -> tuple[Edit, ...]:
        side = torch.tensor([1.0 if s > 0 else -1.0 for s in target.named.values()])
        share = torch.tensor([abs(s) for s in target.named.values()])
        edits = []
        begin = 0
        for site in field.sites:
            width = field.readings[0][site].positive.shape[0]
            masks = torch.zeros(len(chosen), width, dtype=torch.bool)
            for row, index in enumerate(chosen.values()):
                here = index[(index >= begin) & (index < begin + width)] - begin
                masks[row, here] = True
            rows = torch.nonzero(masks.any(1)).flatten()
            if len(rows):
                names = [list(chosen)[row] for row in rows.tolist()]
                edits.append(
                    self._push_at(site, field, names, masks[rows], side[rows], share[rows], begin)
                )
            begin += width
        return tuple(edits)

    def _push_at(
        self,
        site: Site,
        field: _Field,
        names: list[str],
        masks: torch.Tensor,
        side: torch.Tensor,
        share: torch.Tensor,
        begin: int,
    ) -> Edit:
        readings = [field.readings[field.values.index(name)][site] for name in names]
        if self.reads == "probe":
            # The whole probe is read, and moved through its chosen neurons.
            weight = torch.stack([r.probe.weight for r in readings]) * side[:, None]
            bias = torch.tensor([r.probe.bias for r in readings]) * side
            target = torch.full_like(side, logit(self.p0))
        else:
            end = begin + masks.shape[1]
            gaps = torch.stack([field.gap[field.values.index(n), begin:end] for n in names])
            weight = gaps * masks * side[:, None]
            bias = torch.zeros_like(side)
            goals = torch.stack(
                [r.positive if s > 0 else r.negative for r, s in zip(readings, side, strict=True)]
            )
            target = (weight * goals).sum(1)
        limits = None
        if self.clip:
            low = torch.stack([r.low for r in readings]).amin(0)
            high = torch.stack([r.high for r in readings]).amax(0)
            limits = (low - (high - low), high + (high - low))
        return push_edit(
            site, weight, bias, target, share,
            free=masks.any(0), hold=not self.per_token, limits=limits,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Field:
    """The neurons of the kept layers under all values that are contrasted.

    Attributes:
        gap: contrasted with the other values if the method is `specific`; `raw` as it was read.
        effect: mean gradient of each value's positive texts minus that of its negative ones.
        cheap: one over the mean squared gradient, (N,); the weak neurons' share is bounded.
    """

    values: list[str]
    sites: list[Site]
    rule: str
    readings: list[Readings]
    gap: Flat
    effect: Flat
    cheap: torch.Tensor
    scores: Flat
    rivals: torch.Tensor

    def count(self, share: float) -> int:
        return max(1, round(share * self.scores.shape[1]))

    def split(self, flat: torch.Tensor) -> dict[Site, torch.Tensor]:
        """One value's row back to its sites."""
        widths = [self.readings[0][site].positive.shape[0] for site in self.sites]
        return dict(zip(self.sites, flat.split(widths), strict=True))

    def add(self, move: torch.Tensor) -> tuple[Edit, ...]:
        return tuple(
            Edit(site=site, kind="add", tensors=dict(vector=vector))
            for site, vector in self.split(move).items()
            if vector.any()
        )

    def per_site(self, index: torch.Tensor) -> dict[str, int]:
        chosen = torch.zeros(self.scores.shape[1])
        chosen[index] = 1
        return {str(s): int(part.sum()) for s, part in self.split(chosen).items() if part.any()}
