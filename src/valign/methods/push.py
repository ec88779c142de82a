"""The smallest push: the closed form behind ConVA and NeVA, for one value or several at once.

For an activation a, probes W (k, width) with biases b and targets s0 (k,), and free coordinates S:

    minimise  sum_j delta_j^2 / m_j   subject to   W (a + delta) + b >= s0,  delta_j = 0 outside S
    delta = relu(s0 - W a - b) @ D,   D = (W_S M W_S^T)^-1 W_S M,   M = diag(m)

so W D^T = I: each shortfall is made up exactly and no probe that already holds is moved. For one
probe and m = 1 this is ConVA's formula (arXiv 2507.11316, section 2.3 of our notes) restricted to
S. For several it is the minimum-norm move among those that keep the satisfied probes where they
are; stacking and metric are ours.
"""

from __future__ import annotations

import math

import torch

from valign.control import Edit, Site
from valign.control.edit import Scope
from valign.methods.errors import FitError


def logit(p: float) -> float:
    """log(p / (1 - p)), p kept inside [1e-6, 1 - 1e-6]."""
    p = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))


def dual_basis(
    weight: torch.Tensor, *, free: torch.Tensor | None = None, metric: torch.Tensor | None = None
) -> torch.Tensor:
    """Moves D with weight @ D^T = I that touch only the free coordinates.

    Args:
        weight: probes (k, width).
        free: (width,) bool, the coordinates that may move; all by default.
        metric: m (width,) > 0; a coordinate with a large m is cheap to move. 1 by default.

    Returns:
        (k, width), exactly 0 outside `free`.

    Raises:
        FitError: the probes are not independent on the free coordinates.
    """
    w = weight.double()
    cheap = torch.ones_like(w[0]) if metric is None else metric.double()
    if free is not None:
        cheap = cheap * free.to(cheap)
    moved = w * cheap
    gram = moved @ w.T
    sizes = gram.diagonal()
    if not bool((sizes > 0).all()) or not bool(
        torch.linalg.cond(gram / (sizes[:, None] * sizes).sqrt()) < 1e8
    ):
        raise FitError(
            "The values' probes are zero or say the same on the chosen coordinates, so they "
            "cannot be moved apart. Take more neurons, or fewer values at once."
        )
    return torch.linalg.solve(gram, moved).to(weight)


def push_edit(
    site: Site,
    weight: torch.Tensor,
    bias: torch.Tensor,
    target: torch.Tensor,
    share: torch.Tensor,
    *,
    free: torch.Tensor | None = None,
    metric: torch.Tensor | None = None,
    hold: bool = False,
    scope: Scope = "generation",
    limits: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Edit:
    """A push at one site.

    Args:
        weight, bias: probes (k, width), (k,), already turned round for values to move away from.
        target: logits to reach, (k,).
        share: (k,) in (0, 1], how much of each shortfall is made up: 1 reaches the target, .5 goes
            half of the way in logits from wherever the activation stands.
        free, metric: see `dual_basis`.
        hold: compute the move at the last prompt token and keep it for the whole answer.
        scope: see `Edit`.
        limits: range of each coordinate, both (width,), for coordinates that move.
    """
    direction = dual_basis(weight, free=free, metric=metric) * share[:, None].to(weight)
    low, high = limits if limits is not None else (None, None)
    return Edit(
        site=site,
        kind="push",
        tensors=dict(weight=weight, bias=bias, target=target, direction=direction),
        hold=hold,
        scope=scope,
        low=low,
        high=high,
    )
