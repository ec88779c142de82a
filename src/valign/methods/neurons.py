"""Which neurons belong to a value: scores, specificity, choice. Pure functions on flat tensors.

All kept layers' neurons lie side by side in one axis of length N; values are the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from valign.values import ValueSystem

SLACK = 1e-3
"""Singular values of the effects below this share of the largest are left alone (ours): two values
that always rise together cannot be parted, and trying would make a huge shift."""

Scorer = Literal["attribution", "contrib", "abs_weight", "write"]
Exclude = Literal["none", "out_of_group", "any"]
Move = Literal["gap", "neutral"]


def against_others(rows: torch.Tensor) -> torch.Tensor:
    """Each value's row minus the mean of the other values' rows, (V, N); one row stays."""
    if len(rows) < 2:
        return rows
    total = rows.sum(0, keepdim=True)
    return rows - (total - rows) / (len(rows) - 1)


def rivals(system: ValueSystem, values: Sequence[str], exclude: Exclude) -> torch.Tensor:
    """(V, V) bool: whose neurons a value may not share."""
    n = len(values)
    if exclude == "none":
        return torch.zeros(n, n, dtype=torch.bool)
    near = {"any": ("self",), "out_of_group": ("self", "in-group")}[exclude]
    return torch.tensor([[system.relation(a, b) not in near for b in values] for a in values])


def choose(scores: torch.Tensor, value: int, count: int, rival: torch.Tensor) -> torch.Tensor:
    """The value's best neurons that no rival has among its own best.

    Args:
        scores: (V, N); only positive scores are ever chosen.
        value: row to choose for.
        count: how many.
        rival: (V,) bool, from `rivals`.

    Returns:
        Sorted indices, at most `count`; refilled from the ranking where rivals took some away.
    """
    own = scores[value].clone()
    for other in torch.nonzero(rival).flatten().tolist():
        theirs = scores[other].topk(min(count, scores.shape[1])).indices
        own[theirs[scores[other][theirs] > 0]] = -torch.inf
    best = own.topk(min(count, len(own)))
    return best.indices[best.values > 0].sort().values


def neutral_move(effect: torch.Tensor, value: int, cheap: torch.Tensor) -> torch.Tensor:
    """The cheapest shift that raises one value and, to first order, leaves the others.

        minimise sum_j delta_j^2 / m_j   subject to   effect delta = e_value
        delta = M E^T (E M E^T)^+ e_value,   E = effect,   M = diag(m)

    With m_j the inverse of the mean squared gradient (the diagonal of the Fisher information) the
    sum is twice the KL divergence that the shift costs, to second order and without cross terms:
    the shift buys its rise at the least dose.

    Args:
        effect: (V, N), how much a unit shift of each neuron raises each value.
        value: the one to raise.
        cheap: m (N,), >= 0; 0 keeps a neuron still.

    Returns:
        delta (N,), the value's own rise scaled to 1.
    """
    e = effect.double()
    moves = e * cheap.double()
    wanted = torch.zeros(len(e), dtype=torch.float64, device=e.device)
    wanted[value] = 1.0
    delta = (torch.linalg.pinv(e @ moves.T, rtol=SLACK) @ wanted) @ moves
    return (delta / (e[value] @ delta)).to(effect)
