"""Merging adapters: the ways MVA competes with, each as a weights control again.

`soup` is exact on the low-rank factors. `ties` and `dare` look at single entries of the full
changes s B A, so their result has full rank; it is kept densely, as it is, and not pressed back
into a low rank. All take a control's own weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from valign.control.weights import Adapter, AdapterError, LowRank, WeightsControl

Deltas = dict[str, torch.Tensor]
"""module -> (adapters, outputs, inputs) float32, zeros where an adapter changes nothing."""


def soup(control: WeightsControl, shares: Mapping[str, float]) -> WeightsControl:
    """Rewarded soups: a point between the fine-tuned models.

    sum_i l_i (W0 + D_i) with l on the simplex is W0 + sum_i l_i D_i (arXiv 2306.04488, eq. 1).
    Off the simplex it is task arithmetic (arXiv 2212.04089) and MVA's extrapolation; for that
    use `control.with_weights`.

    Args:
        control: its weights do not matter.
        shares: adapter name -> l_i >= 0, all together 1; adapters not named get 0.

    Raises:
        AdapterError: shares that are no shares, or a name no adapter has.
    """
    if min(shares.values(), default=-1) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise AdapterError(
            f"Shares are numbers >= 0 that add up to 1, got {dict(shares)}. For free numbers use "
            "control.with_weights(...)."
        )
    return control.with_weights({**dict.fromkeys(control.weights, 0.0), **shares})


def ties(control: WeightsControl, *, density: float = 0.2) -> WeightsControl:
    """TIES: trim, elect signs, and average what agrees (arXiv 2306.01708, algorithm 1).

    Of each adapter the largest entries are kept, over all its modules together as in the paper
    (PEFT trims module by module). An entry's sign is that of the sum over the trimmed adapters;
    those of that sign are weighted and divided by their number, as PEFT does. The paper has one
    factor for the whole instead of a weight per task.

    Args:
        control: adapters whose weight is 0 stay out.
        density: share of entries kept; the paper's default is 0.2.

    Raises:
        AdapterError: a density outside (0, 1], or no adapter that acts.
    """
    _check(control, density)
    deltas = _deltas(control)
    for number in range(len(control.acting)):
        _trim([delta[number] for delta in deltas.values()], density)
    weights = _weights(control)
    return _dense(control, "ties", {m: _elected(delta, weights) for m, delta in deltas.items()},
                  dict(density=density))  # fmt: skip


def dare(
    control: WeightsControl, *, density: float = 0.5, seed: int = 0, elect: bool = False
) -> WeightsControl:
    """DARE: drop entries by chance and make up for them (arXiv 2311.03099, section 3.1).

    Args:
        control: adapters whose weight is 0 stay out.
        density: chance that an entry stays, 1 - p; it is divided by this.
        seed: of the chance. The same seed, density and adapters give the same entries, whatever
            the weights are.
        elect: elect signs afterwards as TIES does, instead of a plain weighted sum.

    Raises:
        AdapterError: a density outside (0, 1], or no adapter that acts.
    """
    _check(control, density)
    rng = torch.Generator().manual_seed(seed)
    weights = _weights(control)
    found = {}
    for module, delta in _deltas(control).items():
        kept = [torch.bernoulli(torch.full_like(d, density), generator=rng) for d in delta]
        thinned = delta * torch.stack(kept) / density
        found[module] = (
            _elected(thinned, weights) if elect else (thinned * weights[:, None, None]).sum(0)
        )
    name = "dare-ties" if elect else "dare"
    return _dense(control, name, found, dict(density=density, seed=seed))


def _check(control: WeightsControl, density: float) -> None:
    if not 0 < density <= 1:
        raise AdapterError(f"density={density} is outside (0, 1]; it is the share that is kept.")
    if not control.acting:
        raise AdapterError("All weights are 0, so there is nothing to merge.")


def _weights(control: WeightsControl) -> torch.Tensor:
    return torch.tensor([control.weights[adapter.name] for adapter in control.acting])


def _deltas(control: WeightsControl) -> Deltas:
    found = {}
    for module in dict.fromkeys(m for adapter in control.acting for m in adapter.factors):
        deltas = [
            adapter.factors[module].delta.float().cpu() if module in adapter.factors else None
            for adapter in control.acting
        ]
        shape = next(delta.shape for delta in deltas if delta is not None)
        found[module] = torch.stack([torch.zeros(shape) if d is None else d for d in deltas])
    return found


def _trim(parts: list[torch.Tensor], density: float) -> None:
    """Set all but the largest entries of one adapter to 0, in place."""
    flat = torch.cat([part.flatten() for part in parts])
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[flat.abs().topk(int(density * len(flat))).indices] = True
    for part, own in zip(parts, kept.split([part.numel() for part in parts]), strict=True):
        part.mul_(own.view(part.shape))


def _elected(deltas: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Entries that have the majority's sign, weighted, over their number."""
    majority = torch.where(deltas.sum(0) >= 0, 1.0, -1.0)
    agree = deltas.sign() == majority
    summed = (deltas * weights[:, None, None] * agree).sum(0)
    return summed / agree.sum(0).clamp_min(1)


def _dense(
    control: WeightsControl, name: str, deltas: Deltas, settings: dict[str, float]
) -> WeightsControl:
    merged = Adapter(name, {module: LowRank.dense(delta) for module, delta in deltas.items()})
    note = dict(name=name, **settings, weights=control.weights)
    return replace(
        control,
        adapters=(merged,),
        weights={name: 1.0},
        provenance={**control.provenance, "merge": note},
    )
