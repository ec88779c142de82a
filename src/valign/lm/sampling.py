"""Choosing the next token so that a row never depends on its neighbours.

Each row owns a stream of uniform numbers made from its seed; a token is the inverse of the
row's cumulative distribution at the next number. Batch size and composition cannot change it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class Sampler:
    """Greedy at temperature 0, else temperature and nucleus sampling.

    Args:
        seeds: one per row.
        steps: most tokens a row may take.
        temperature: divides the logits; 0 means the most probable token.
        top_p: keep the smallest set of tokens with at least this probability.

    Raises:
        ValueError: a negative temperature or a top_p outside (0, 1].
    """

    def __init__(
        self, seeds: Sequence[int], *, steps: int, temperature: float = 0.0, top_p: float = 1.0
    ):
        if temperature < 0:
            raise ValueError(f"temperature={temperature} is negative; 0 means greedy.")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p={top_p} is outside (0, 1]; 1 keeps every token.")
        self.temperature, self.top_p = temperature, top_p
        if temperature:
            draws = [np.random.default_rng(seed).random(steps) for seed in seeds]
            self._uniform = torch.from_numpy(np.stack(draws))

    def __call__(self, logits: torch.Tensor, step: int) -> torch.Tensor:
        """Next token ids, shape (batch,), from logits of shape (batch, vocabulary)."""
        if not self.temperature:
            return logits.argmax(dim=-1)
        p = torch.softmax(logits.double() / self.temperature, dim=-1)
        order = None
        if self.top_p < 1:
            p, order = p.sort(dim=-1, descending=True, stable=True)
            p = torch.where(p.cumsum(dim=-1) - p < self.top_p, p, 0.0)
        total = p.cumsum(dim=-1)
        u = self._uniform[:, step, None].to(total) * total[:, -1:]
        place = torch.searchsorted(total, u, right=True).clamp_max(p.shape[-1] - 1)
        return (place if order is None else order.gather(1, place))[:, 0]
