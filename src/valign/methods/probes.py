"""Linear probes for every layer of a value at once, in a fraction of a forward pass.

An L2-regularised logistic regression does not care how its features are rotated. With fewer texts
than features (170 texts, 19,000 neurons) the texts' own span is therefore all it can use: the
Gram matrix is made once, its eigenvectors give n coordinates instead of d, and Newton's method in
these is exact and costs next to nothing. With fewer features than texts Newton runs on the
features. Both cases are one batched loop over layers; the answer equals scikit-learn's
`LogisticRegression(C=1/ridge)` on standardised features.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from valign.control import Site

Key = TypeVar("Key", bound=Hashable)


def fit_logistic(
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    ridge: float = 1.0,
    steps: int = 50,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logistic regressions, one per leading index, by damped Newton.

    Minimises sum_i weight_i log(1 + exp(-s_i (w . x_i + b))) + ridge / 2 |w|^2 with s = +-1; the
    intercept is free, as in scikit-learn.

    Args:
        x: features (..., n, d).
        y: labels in {0, 1}, broadcastable to (..., n).
        weight: weights of the rows, broadcastable to (..., n); 0 leaves a row out.
        ridge: strength of the penalty, 1 / C.

    Returns:
        w (..., d) and b (...), in the type and on the device of `x`.
    """
    n, d = x.shape[-2:]
    y = y.to(x).double().expand(x.shape[:-1])
    weight = torch.ones_like(y) if weight is None else weight.to(x).double().expand(x.shape[:-1])
    if d > n:
        values, vectors = torch.linalg.eigh((x @ x.mT).double())
        scale = values.clamp_min(0).sqrt()
        theta, b = _newton(vectors * scale[..., None, :], y, weight, ridge, steps)
        inverse = torch.where(values > values[..., -1:] * 1e-10, 1 / scale, 0.0)
        alpha = (vectors @ (theta * inverse)[..., None])[..., 0]
        w = (x.mT @ alpha[..., None].to(x))[..., 0]
    else:
        w, b = _newton(x.double(), y, weight, ridge, steps)
    return w.to(x), b.to(x)


def _newton(
    q: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, ridge: float, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    q = torch.cat([q, torch.ones_like(q[..., :1])], dim=-1)
    penalty = torch.full_like(q[..., 0, :], ridge)
    penalty[..., -1] = 1e-10  # the intercept is free; this only keeps the system solvable
    sign = 2 * y - 1

    def loss(theta: torch.Tensor) -> torch.Tensor:
        margin = sign * (q @ theta[..., None])[..., 0]
        fit = (weight * torch.nn.functional.softplus(-margin)).sum(-1)
        return fit + 0.5 * (penalty * theta**2).sum(-1)

    theta = torch.zeros_like(q[..., 0, :])
    best = loss(theta)
    for _ in range(steps):
        p = torch.sigmoid((q @ theta[..., None])[..., 0])
        gradient = (q.mT @ (weight * (p - y))[..., None])[..., 0] + penalty * theta
        if gradient.abs().max() < 1e-9 * max(1.0, float(weight.sum(-1).max())):
            break
        curved = q * (weight * p * (1 - p))[..., None]
        hessian = q.mT @ curved + torch.diag_embed(penalty)
        move = torch.linalg.solve(hessian, gradient)
        size = torch.ones_like(best)
        for _ in range(12):  # halve the steps that overshoot, one problem at a time
            found = loss(theta - size[..., None] * move)
            worse = found > best + 1e-12
            if not worse.any():
                break
            size = torch.where(worse, size / 2, size)
        theta = torch.where(
            (found <= best + 1e-12)[..., None], theta - size[..., None] * move, theta
        )
        best = torch.minimum(best, found)
    return theta[..., :-1], theta[..., -1]


@dataclass(frozen=True, eq=False)
class Probe:
    """A probe in raw activation space: p(a) = sigma(weight . a + bias).

    Attributes:
        weight: (width,).
        bias: a number.
        accuracy: share of held-out texts on the right side.
    """

    weight: torch.Tensor
    bias: float
    accuracy: float


def fit_probes(
    layers: Mapping[Key, torch.Tensor],
    labels: torch.Tensor,
    train: torch.Tensor,
    *,
    ridge: float = 1.0,
    balanced: bool = False,
) -> dict[Key, Probe]:
    """A probe per site (or head) on standardised features.

    Args:
        layers: activations of the same n texts at each site, (n, width).
        labels: (n,) in {0, 1}.
        train: (n,) bool, the texts to fit on; the others give the accuracy.
        ridge: penalty on standardised weights.
        balanced: weigh the classes alike however many texts each has, also in the accuracy.
    """
    weight = train.double()
    share = torch.ones(len(labels), dtype=torch.float64)
    if balanced:
        for label in (0, 1):
            share[labels == label] = len(labels) / (2 * max(1, int((labels == label).sum())))
    weight = weight * share
    found: dict[Key, Probe] = {}
    for width in sorted({a.shape[1] for a in layers.values()}):
        sites = [site for site, a in layers.items() if a.shape[1] == width]
        x = torch.stack([layers[site] for site in sites])
        seen = x[:, train]
        mean, std = seen.mean(1, keepdim=True), seen.std(1, keepdim=True) + 1e-6
        z = (x - mean) / std
        w, b = fit_logistic(z, labels.to(x), weight.to(x.device), ridge=ridge)
        raw = w / std[:, 0]
        bias = b - (raw * mean[:, 0]).sum(-1)
        said = (z @ w[..., None])[..., 0] + b[:, None] > 0
        held = ~train if (~train).any() else train
        right = (said == labels.bool().to(x.device))[:, held].double().cpu()
        accuracy = (right * share[held]).sum(1) / share[held].sum()
        for number, site in enumerate(sites):
            found[site] = Probe(raw[number].cpu(), float(bias[number]), float(accuracy[number]))
    return {site: found[site] for site in layers}


def split(n: int, *, holdout: float = 0.3, seed: int = 0) -> torch.Tensor:
    """(n,) bool, True for the part to fit on: the same one for the same numbers."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    train = torch.ones(n, dtype=torch.bool)
    train[order[: int(n * holdout)]] = False
    return train


def informative(
    accuracy: Mapping[Site, float], *, threshold: float = 0.9, drop_last: int = 5
) -> tuple[list[Site], str]:
    """The layers worth editing: ConVA's rule, or the best quarter where it leaves none.

    ConVA (arXiv 2507.11316) keeps layers whose probe passes .9 on held-out texts and drops the
    last five. Small models fail that everywhere; the best quarter is ours.

    Returns:
        The sites in layer order, and which rule chose them.
    """
    sites = sorted(accuracy)
    kept = [s for s in sites[: len(sites) - drop_last] if accuracy[s] > threshold]
    if kept:
        return kept, f"held-out accuracy > {threshold}, last {drop_last} dropped"
    count = max(1, round(len(sites) / 4))
    best = sorted(sites, key=lambda s: -accuracy[s])[:count]
    return sorted(best), f"no layer passes accuracy > {threshold}; the best quarter"
