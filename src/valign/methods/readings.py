"""What the pairs of a value look like inside the model; read once and shared by all methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from valign.control import Site
from valign.control.edit import SiteKind
from valign.corpora.types import Corpus, Pair
from valign.lm import HostModel, capture, site_gradients
from valign.methods.errors import FitError
from valign.methods.probes import Probe, fit_probes, split
from valign.values import Profile

Positions = Literal["last", "mean"]
MIN_PAIRS = 8
"""Fewer pairs than this make no probe and no direction worth the name (ours)."""


@dataclass(frozen=True, eq=False)
class Reading:
    """One value at one site, over the value's contrast pairs.

    Attributes:
        positive, negative: mean activation of either side, (width,).
        std: spread over the texts of both sides, (width,).
        low, high: range over the texts of both sides, (width,).
        probe: tells the sides apart.
    """

    positive: torch.Tensor
    negative: torch.Tensor
    std: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    probe: Probe

    @property
    def gap(self) -> torch.Tensor:
        """positive - negative, (width,)."""
        return self.positive - self.negative


Readings = dict[Site, Reading]


def need_pairs(corpus: Corpus, target: Profile) -> None:
    """Refuse a corpus that cannot teach the target.

    Raises:
        FitError: a value of the target has fewer than `MIN_PAIRS` pairs.
    """
    for value in target.named:
        count = len(corpus.pairs_of(value))
        if count < MIN_PAIRS:
            raise FitError(
                f"The corpus {corpus.name} has {count} contrast pairs for {value}; "
                f"{MIN_PAIRS} are needed, 100 are better. Add rows with value={value}, positive "
                "and negative to its pairs, or fit on a corpus that has them."
            )


def paired_values(corpus: Corpus) -> list[str]:
    """The values with enough pairs, in the system's order."""
    return [v for v in corpus.system.names if len(corpus.pairs_of(v)) >= MIN_PAIRS]


def sides(pairs: Sequence[Pair]) -> list[tuple[str | None, str]]:
    """Examples for `capture`: all positive sides, then all negative ones."""
    return [(p.prompt, p.positive) for p in pairs] + [(p.prompt, p.negative) for p in pairs]


def read(
    lm: HostModel,
    corpus: Corpus,
    kind: SiteKind,
    value: str,
    *,
    positions: Positions,
    ridge: float = 1.0,
    seed: int = 0,
) -> Readings:
    """The readings of one value at all sites of a kind, kept in `lm.memo`.

    One capture over the value's pairs; its activations are dropped once means and probes are made,
    so memory holds one value's texts at a time.

    Raises:
        UnsupportedSiteError: the model lacks this kind of site.
    """
    key = ("reading", corpus.fingerprint, kind, value, positions, ridge, seed)
    if key not in lm.memo:
        pairs = corpus.pairs_of(value)
        activations = collect(lm, sides(pairs), lm.sites(kind), positions=positions)
        labels = torch.arange(2 * len(pairs)) < len(pairs)
        probes = fit_probes(
            activations, labels, split(len(pairs), seed=seed).repeat(2), ridge=ridge
        )
        lm.memo[key] = {
            site: Reading(
                positive=a[: len(pairs)].mean(0).cpu(),
                negative=a[len(pairs) :].mean(0).cpu(),
                std=a.std(0).cpu(),
                low=a.amin(0).cpu(),
                high=a.amax(0).cpu(),
                probe=probes[site],
            )
            for site, a in activations.items()
        }
    return lm.memo[key]


def collect(
    lm: HostModel,
    examples: Sequence[tuple[str | None, str]],
    sites: Sequence[Site],
    *,
    positions: Literal["last", "mean", "prompt"],
) -> dict[Site, torch.Tensor]:
    """Activations of all examples in their order, {site: (n, width)}, float32.

    They lie on the model's GPU if it has one: the linear algebra that follows belongs there.
    """
    home = lm.device if lm.device.type == "cuda" else torch.device("cpu")
    found = {site: torch.empty(len(examples), lm.site_width(site), device=home) for site in sites}
    for numbers, batch in capture(lm, examples, sites, positions=positions):
        for site, a in batch.items():
            found[site][numbers] = a.to(home)
    return found


def gradients(
    lm: HostModel, corpus: Corpus, kind: SiteKind, value: str, *, pairs: int
) -> dict[Site, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """How a shift of each site would change the value's texts, kept in `lm.memo`.

    Args:
        pairs: at most so many pairs of the value, in order; a backward pass costs two forwards.

    Returns:
        {site: (mean gradient of the positive sides' log-probability, of the negative sides',
        mean square of both)}, each (width,).
    """
    key = ("gradient", corpus.fingerprint, kind, value, pairs)
    if key not in lm.memo:
        chosen = corpus.pairs_of(value)[:pairs]
        found = site_gradients(lm, sides(chosen), lm.sites(kind))
        n = len(chosen)
        lm.memo[key] = {
            site: (g[:n].mean(0), g[n:].mean(0), g.square().mean(0)) for site, g in found.items()
        }
    return lm.memo[key]


@dataclass(frozen=True, eq=False)
class ProbeBank:
    """The probes of many values at all sites of a kind.

    Attributes:
        values, sites: what the first and second index mean.
        weight: site -> (n_values, width), raw space.
        bias, accuracy: (n_values, n_sites).
    """

    values: tuple[str, ...]
    sites: tuple[Site, ...]
    weight: dict[Site, torch.Tensor]
    bias: torch.Tensor
    accuracy: torch.Tensor


def probe_bank(
    lm: HostModel,
    corpus: Corpus,
    kind: SiteKind = "resid",
    *,
    positions: Positions = "mean",
    ridge: float = 1.0,
    seed: int = 0,
) -> ProbeBank:
    """Probes for every value that has pairs; costs one capture, and nothing the next time."""
    values = paired_values(corpus)
    options = dict(positions=positions, ridge=ridge, seed=seed)
    found = [read(lm, corpus, kind, value, **options) for value in values]  # type: ignore[arg-type]
    sites = lm.sites(kind)
    probes = [[readings[site].probe for site in sites] for readings in found]
    return ProbeBank(
        values=tuple(values),
        sites=sites,
        weight={s: torch.stack([row[i].weight for row in probes]) for i, s in enumerate(sites)},
        bias=torch.tensor([[p.bias for p in row] for row in probes]),
        accuracy=torch.tensor([[p.accuracy for p in row] for row in probes]),
    )
