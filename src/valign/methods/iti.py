"""ITI: shift the few attention heads whose output tells the value's texts apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field

from valign.control import Edit, EditsControl, Site
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.errors import FitError
from valign.methods.probes import fit_probes, split
from valign.methods.readings import Positions, collect, need_pairs, sides
from valign.values import Profile

Head = tuple[Site, int]
"""Layer (as its `heads` site) and number of the head in it."""


class ITI(Method):
    """Inference-time intervention (arXiv 2306.03341) on attention heads.

        x_h    output of head h, before the attention's output projection
        probe  a logistic regression per head on the value's texts
        H_v    the `share` of heads with the best held-out accuracy
        x_h <- x_h + s_v sigma_h theta_h   for h in H_v, at every answer token

    theta_h is the unit mean difference of the two sides, sigma_h the standard deviation of the
    texts along it, so each head moves by what is usual for it. In the paper this stands before a
    strength alpha, which here the dose sets.

    Helps where a value is read by a few heads and a residual shift would touch too much. Hurts
    with few pairs, where the ranking of heads is noise, and where heads are few.

    The paper reads the last token and takes 48 of 1,024 heads, ranked over two folds; the mean
    over the answer's tokens, the share, one held-out part, ties broken by how far the sides lie
    apart, and several values at once (each with its own heads) are ours.
    """

    name: ClassVar[str] = "iti"

    share: float = Field(default=0.05, gt=0, le=1)
    """Share of all heads that are shifted, at least one."""
    direction: Literal["mean", "probe"] = "mean"
    """Along the mean difference of the sides, or along the probe's weight."""
    positions: Positions = "mean"
    """Read the mean over the answer's tokens, or only the last one."""
    ridge: float = Field(default=1.0, gt=0)
    """Penalty of the probes, 1 / C."""
    seed: int = 0
    """Of the split into pairs to fit on and held-out pairs."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        vectors = {site: torch.zeros(lm.site_width(site)) for site in lm.sites("heads")}
        chosen: dict[str, list[str]] = {}
        for value, score in target.named.items():
            heads = self._heads(lm, corpus, value)
            count = max(1, round(self.share * len(heads)))
            best = sorted(heads, key=lambda h: (-heads[h].accuracy, -heads[h].apart, h))[:count]
            for site, number in best:
                shift = heads[site, number].shift
                span = slice(number * len(shift), (number + 1) * len(shift))
                vectors[site][span] += score * shift
            chosen[value] = [f"{site}.{number}" for site, number in sorted(best)]
        return EditsControl(
            target=target,
            edits=tuple(
                Edit(site=site, kind="add", tensors=dict(vector=vector))
                for site, vector in vectors.items()
                if vector.any()
            ),
            provenance=dict(heads=chosen),
        )

    def _heads(self, lm: HostModel, corpus: Corpus, value: str) -> dict[Head, _Reading]:
        """Every head under one value's pairs, kept in `lm.memo`."""
        key = ("iti", corpus.fingerprint, value, self.positions, self.direction, self.ridge,
               self.seed)  # fmt: skip
        if key not in lm.memo:
            pairs = corpus.pairs_of(value)
            n = len(pairs)
            found = collect(lm, sides(pairs), lm.sites("heads"), positions=self.positions)
            outputs = {
                (site, number): x.contiguous()
                for site, a in found.items()
                for number, x in enumerate(a.chunk(head_count(lm, site), dim=1))
            }
            train = split(n, seed=self.seed).repeat(2)
            probes = fit_probes(outputs, torch.arange(2 * n) < n, train, ridge=self.ridge)
            lm.memo[key] = {
                head: self._reading(x.cpu(), probes[head].weight, probes[head].accuracy)
                for head, x in outputs.items()
            }
        return lm.memo[key]

    def _reading(self, x: torch.Tensor, weight: torch.Tensor, accuracy: float) -> _Reading:
        n = len(x) // 2
        gap = x[:n].mean(0) - x[n:].mean(0)
        theta = torch.nn.functional.normalize(gap if self.direction == "mean" else weight, dim=0)
        sigma = (x @ theta).std()
        return _Reading(
            shift=sigma * theta,
            accuracy=accuracy,
            apart=float(gap @ theta / sigma.clamp_min(1e-12)),
        )


@dataclass(frozen=True, eq=False)
class _Reading:
    """One head under one value.

    Attributes:
        shift: sigma theta, (head width,).
        accuracy: of its probe on held-out texts.
        apart: distance of the sides' means along theta, in sigmas.
    """

    shift: torch.Tensor
    accuracy: float
    apart: float


def head_count(lm: HostModel, site: Site) -> int:
    """Number of heads side by side at a site.

    Raises:
        FitError: the configuration does not say, or says what does not fit.
    """
    config = lm.model.config.get_text_config()
    count = getattr(config, "num_attention_heads", None)
    width = lm.site_width(site)
    if not count or width % count:
        raise FitError(
            f"iti: {lm.name} says it has {count} attention heads, which does not fit the {width} "
            f"activations at {site}. Use a method that edits the residual stream, such as caa."
        )
    return int(count)
