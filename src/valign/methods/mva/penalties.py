"""How much two adapters depend on each other, as a differentiable number.

An adapter changes a weight by D = s B A, with A (r, d_in) and B (d_out, r). The same D is written
by every (B R^-1, R A), so a measure that speaks of the update and not of its writing must not
change with R. Nor should it change when one adapter is scaled, since w_i scales it later.

    hsic           unbiased HSIC, normalised, of the columns of D_i and D_j (Song et al. 2012)
    hsic-released  biased HSIC of the rows of A_i and A_j, as the authors' code has it
    orthogonal     overlap of the row spaces of A_i and A_j: mean squared cosine of their angles
    cosine         squared cosine of D_i and D_j, flattened
    none           nothing

All but `hsic-released` are 0 for unrelated updates (`orthogonal`: r / d_in, its chance level) and 1
for identical ones. The released estimator is .99 of its maximum for *independent* adapters of usual
size: the diagonal of its kernels decides it. Its gradient mainly pulls the rows of A together.

Source: MVA (arXiv 2511.17579) for the idea and, by its code, `hsic-released`; the unbiased form,
columns of D as samples, the median bandwidth and the mean over modules are ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

PenaltyName = Literal["hsic", "hsic-released", "orthogonal", "cosine", "none"]

Adapter = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Module name -> (A of shape (r, d_in), B of shape (d_out, r))."""

SAMPLES = 128
"""Columns of an update that the kernels are made of, evenly spaced. Ours; cost grows with the
square."""

_TINY = 1e-12


@dataclass(frozen=True)
class Factors:
    """The factors of several modules of one shape: `down` (m, r, d_in), `up` (m, d_out, r)."""

    down: torch.Tensor
    up: torch.Tensor


def hsic(a: Factors, b: Factors) -> torch.Tensor:
    """Unbiased HSIC of the columns of both updates, normalised, (m,) in about [-0.1, 1].

    Sample k is column k of D: what the update does with input coordinate k. Negative values are
    noise of the estimator, as it has no bias.
    """
    k, l = _centred(_kernel(a)), _centred(_kernel(b))
    alone = (k * k).sum((-2, -1)) * (l * l).sum((-2, -1))
    return (k * l).sum((-2, -1)) / alone.clamp_min(_TINY).sqrt()


def hsic_released(a: Factors, b: Factors) -> torch.Tensor:
    """Biased HSIC of the rows of A, bandwidth 1, not normalised, (m,): the released code's."""

    def centred(rows: torch.Tensor) -> torch.Tensor:
        kernel = torch.exp(-_square_distances(rows @ rows.mT) / (2 + 1e-5))
        rank = rows.shape[-2]
        h = torch.eye(rank, dtype=rows.dtype, device=rows.device) - 1 / rank
        return h @ kernel @ h

    return (centred(a.down) * centred(b.down)).sum((-2, -1)) / a.down.shape[-2] ** 2


def orthogonal(a: Factors, b: Factors) -> torch.Tensor:
    """tr(P_i P_j) / r with P the projection on the row space of A, (m,) in [0, 1].

    O-LoRA (arXiv 2310.14152) adds up |A_i A_j^T|; the projections make it free of R and of scale
    (ours).
    """
    cross = a.down @ b.down.mT
    left = torch.linalg.solve(_regular(a.down), cross)
    right = torch.linalg.solve(_regular(b.down), cross.mT)
    return (left * right.mT).sum((-2, -1)) / min(a.down.shape[-2], b.down.shape[-2])


def cosine(a: Factors, b: Factors) -> torch.Tensor:
    """Cosine of the flattened updates, (m,) in [-1, 1]; 0 where one of them is nothing."""

    def inner(x: Factors, y: Factors) -> torch.Tensor:
        return ((x.up.mT @ y.up) * (x.down @ y.down.mT)).sum((-2, -1))

    squares = inner(a, a) * inner(b, b)
    return inner(a, b) / squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()


Measure = Callable[[Factors, Factors], torch.Tensor]

MEASURES: dict[PenaltyName, Measure] = {
    "hsic": hsic,
    "hsic-released": hsic_released,
    "orthogonal": orthogonal,
    "cosine": cosine,
}
"""Name -> dependence per module. Signed measures are squared when they become a penalty."""

STRENGTH: dict[str, float] = {
    "hsic": 1.0, "hsic-released": 10.0, "orthogonal": 1.0, "cosine": 1.0, "none": 0.0
}  # fmt: skip
"""Weight of each penalty beside the DPO loss where none is given. 10 is the released code's, the
others are ours, untuned."""


def penalty(name: PenaltyName, now: Adapter, earlier: Sequence[Adapter]) -> torch.Tensor:
    """What is added to the loss of the adapter in training, a scalar.

    The sum over earlier adapters of the mean over modules (`hsic-released`: of the sum, as
    released). A module whose update is still small beside an earlier one's counts less, by
    n / (n + n_j / 100) with n, n_j the squared norms and no gradient: the measures do not know
    scale, so their gradient would be without bound while B is near its start at 0 (ours).

    Args:
        name: which measure.
        now: the factors in training.
        earlier: frozen ones; modules that only one side has are left out.
    """
    first = next(iter(now.values()))[0]
    total = torch.zeros((), device=first.device)
    if name == "none":
        return total
    measure = MEASURES[name]
    for other in earlier:
        found = []
        for _, a, b in _groups(now, other):
            raw = measure(a, b)
            if name == "hsic-released":
                found.append(raw)
                continue
            own, theirs = _square_norm(a), _square_norm(b)
            moved = (own / (own + theirs / 100).clamp_min(torch.finfo(own.dtype).tiny)).detach()
            found.append(moved * (raw if name == "orthogonal" else raw.square()))
        values = torch.cat(found) if found else total[None]
        total = total + (values.sum() if name == "hsic-released" else values.mean())
    return total


def dependence(name: PenaltyName, one: Adapter, two: Adapter) -> dict[str, float]:
    """The measure itself for each module that both adapters have, by module name."""
    if name == "none":
        return {}
    out: dict[str, float] = {}
    with torch.no_grad():
        for names, a, b in _groups(one, two):
            out |= dict(zip(names, MEASURES[name](a, b).tolist(), strict=True))
    return out


def _groups(one: Adapter, two: Adapter) -> list[tuple[list[str], Factors, Factors]]:
    """Shared modules, those of one shape stacked, so that a measure is a few large products."""
    alike: dict[tuple[torch.Size, ...], list[str]] = defaultdict(list)
    for name in one:
        if name in two:
            alike[tuple(part.shape for side in (one, two) for part in side[name])].append(name)

    def stacked(side: Adapter, names: list[str]) -> Factors:
        parts = [[side[name][i].float() if side[name][i].itemsize < 4 else side[name][i]
                  for name in names] for i in (0, 1)]  # fmt: skip
        return Factors(torch.stack(parts[0]), torch.stack(parts[1]))

    return [(names, stacked(one, names), stacked(two, names)) for names in alike.values()]


def _square_norm(f: Factors) -> torch.Tensor:
    """Squared Frobenius norm of each update, (m,)."""
    return ((f.up.mT @ f.up) * (f.down @ f.down.mT)).sum((-2, -1))


def _kernel(f: Factors) -> torch.Tensor:
    """Gaussian kernel of columns of the update, (m, n, n); the squared bandwidth is the median of
    the squared distances.

    Made from r x r products; the update itself is never formed.
    """
    columns = torch.linspace(0, f.down.shape[-1] - 1, min(SAMPLES, f.down.shape[-1]))
    some = f.down[..., columns.round().long().to(f.down.device)]
    gram = some.mT @ (f.up.mT @ f.up) @ some
    mean = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    distances = _square_distances(gram / mean.clamp_min(torch.finfo(mean.dtype).tiny ** 0.5))
    n = distances.shape[-1]
    upper = torch.triu_indices(n, n, 1, device=distances.device)
    median = distances[..., upper[0], upper[1]].median(-1).values
    return torch.exp(-distances / (median[..., None, None] + 1e-9))


def _square_distances(gram: torch.Tensor) -> torch.Tensor:
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    return (diagonal[..., :, None] + diagonal[..., None, :] - 2 * gram).clamp_min(0)


def _centred(kernel: torch.Tensor) -> torch.Tensor:
    """U-centred kernel: <Kc, Lc> / (n (n - 3)) is the unbiased HSIC of Song et al.

    The same number as their three traces, without the loss of digits of large sums.
    """
    n = kernel.shape[-1]
    off = 1 - torch.eye(n, dtype=kernel.dtype, device=kernel.device)
    k = kernel * off
    rows = k.sum(-1) / (n - 2)
    total = k.sum((-2, -1)) / ((n - 1) * (n - 2))
    return (k - rows[..., :, None] - rows[..., None, :] + total[..., None, None]) * off


def _regular(down: torch.Tensor) -> torch.Tensor:
    """A A^T, a hair away from singular."""
    gram = down @ down.mT
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    mean = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return gram + (1e-6 if gram.dtype == torch.float32 else _TINY) * mean * eye
