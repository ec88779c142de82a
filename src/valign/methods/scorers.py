"""Small scorers of hidden states, and the ascent on them: what `gradient` edits are made of.

    f(a) = W2 gelu(W1 (a - m) / r + b1) + b2

m is the mean of the states it was fitted on, r one number, their root mean square distance from
it. One number for all coordinates keeps the direction of the gradient, which a scale of its own
for each would turn towards the coordinates that hardly vary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from valign.control import Edit, Site

Function = Callable[[torch.Tensor], torch.Tensor]
"""States (..., width) to scores (..., outputs)."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """A fitted scorer, in raw activation space: w2 gelu(w1 a + b1) + b2.

    Attributes:
        w1, b1: (hidden, width) and (hidden,).
        w2, b2: (outputs, hidden) and (outputs,).
        spread: r of the module's formula.
    """

    w1: torch.Tensor
    b1: torch.Tensor
    w2: torch.Tensor
    b2: torch.Tensor
    spread: float

    def __call__(self, a: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(a @ self.w1.T + self.b1) @ self.w2.T + self.b2


def fit_scorer(
    x: torch.Tensor,
    loss: Callable[[Function, torch.Tensor], torch.Tensor],
    *,
    outputs: int,
    hidden: int,
    epochs: int,
    rate: float,
    decay: float,
    seed: int,
    batch_size: int = 256,
) -> Scorer:
    """A scorer by AdamW on minibatches; the same seed gives the same scorer.

    Args:
        x: states (n, width), for m and r, and to say how many rows there are.
        loss: of the scorer on a batch, from the scorer and the numbers of the batch's rows.
        outputs, hidden: sizes.
        epochs, rate, decay, batch_size: of the descent.
    """
    rng = torch.Generator().manual_seed(seed)
    width = x.shape[1]
    mean = x.mean(0)
    spread = float((x - mean).square().mean().sqrt().clamp_min(1e-6))

    def noise(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=rng) / shape[-1] ** 0.5).to(x.device)

    w1, w2 = noise(hidden, width), noise(outputs, hidden)
    b1, b2 = torch.zeros(hidden, device=x.device), torch.zeros(outputs, device=x.device)
    parameters = [w1, b1, w2, b2]

    def scored(a: torch.Tensor) -> torch.Tensor:
        z = ((a - mean) / spread) @ w1.T + b1
        return torch.nn.functional.gelu(z) @ w2.T + b2

    with torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_()
        descent = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=rng).split(batch_size):
                descent.zero_grad()
                loss(scored, rows.to(x.device)).backward()
                descent.step()
    w1, b1, w2, b2 = (parameter.detach().cpu() for parameter in parameters)
    raw = w1 / spread
    return Scorer(w1=raw, b1=b1 - raw @ mean.cpu(), w2=w2, b2=b2, spread=spread)


def ascent(
    site: Site, scorer: Scorer, weights: torch.Tensor, *, steps: int, decay: float = 1.0
) -> tuple[Edit, ...]:
    """Gradient steps up sum_k weights_k f_k, one edit per step, run one after the other.

        a <- a + r^2 decay^i / steps * grad_a (weights . f)(a),    i = 0 .. steps - 1

    r^2 makes a step of strength 1 one unit in the scorer's own, scaled space.

    Args:
        weights: (outputs,).
    """
    tensors = dict(w1=scorer.w1, b1=scorer.b1, w2=weights.to(scorer.w2) @ scorer.w2)
    return tuple(
        Edit(
            site=site,
            kind="gradient",
            tensors=tensors,
            strength=scorer.spread**2 * decay**step / steps,
        )
        for step in range(steps)
    )
