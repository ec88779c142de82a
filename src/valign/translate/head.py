"""What is learned on top of the frozen layers: upper layers, one reader a value, and a gate."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from valign.detect.backbone import Backbone, mean_pool, run_layers


@dataclass(frozen=True)
class ShiftOutput:
    """Logits of a batch.

    Attributes:
        signs: (B, n_values, 2), down and up, with unchanged at 0.
        sizes: (B, n_values, 2), that the change is a whole step and not half of one, were it down
            or up.
        nothing: (B,), that nothing about values was asked.
    """

    signs: Tensor
    sizes: Tensor
    nothing: Tensor


class ShiftHead(nn.Module):
    """Tuned copies of the encoder's upper layers; each value then looks where it is spoken of.

    A learned query per value weighs the tokens, so that `less X, more Y` can be read apart; its
    weighted mean and the mean over all tokens go through one linear reader per value (ours).
    """

    def __init__(self, layers: nn.ModuleList, width: int, *, n_values: int, dropout: float = 0.15):
        super().__init__()
        self.layers = layers
        self.dropout = nn.Dropout(dropout)
        self.queries = nn.Parameter(torch.zeros(n_values, width))
        self.readers = nn.Parameter(torch.randn(n_values, 4, 2 * width) * 0.02)
        self.bias = nn.Parameter(torch.zeros(n_values, 4))
        self.gate = nn.Linear(width, 1)

    @classmethod
    def over(cls, backbone: Backbone, *, frozen_layers: int, values: Sequence[str]) -> ShiftHead:
        """A head whose layers are copied from the encoder."""
        layers = copy.deepcopy(backbone.layers[frozen_layers:]).requires_grad_(True)
        return cls(layers, backbone.width, n_values=len(values))

    def forward(self, hidden: Tensor, mask: Tensor) -> ShiftOutput:
        """Logits from token vectors (B, T, width) below the tuned layers, mask (B, T)."""
        hidden = run_layers(self.layers, hidden, mask)
        width = hidden.shape[-1]
        hidden = nn.functional.normalize(hidden, dim=-1) * width**0.5
        seen = torch.einsum("btw,vw->bvt", hidden, self.queries) / width**0.5
        share = seen.masked_fill(~mask[:, None, :], float("-inf")).softmax(dim=-1)
        looked = torch.einsum("bvt,btw->bvw", share, hidden)
        whole = mean_pool(hidden, mask)
        both = torch.cat([looked, whole[:, None].expand_as(looked)], dim=-1)
        read = torch.einsum("bvw,vow->bvo", self.dropout(both), self.readers) + self.bias
        return ShiftOutput(
            signs=read[..., :2], sizes=read[..., 2:], nothing=self.gate(self.dropout(whole))[:, 0]
        )


def shift_loss(out: ShiftOutput, shifts: Tensor, weight: Tensor, *, smoothing: float) -> Tensor:
    """Cross-entropy of signs, of sizes where there is a sign, and of the gate.

    Args:
        shifts: (B, n_values) on the grid.
        weight: (B,) of each instruction.
        smoothing: label smoothing of the signs.
    """
    down, up = out.signs.unbind(-1)
    full = torch.stack([down, torch.zeros_like(down), up], dim=-1)
    target = shifts.sign().long() + 1
    signs = nn.functional.cross_entropy(
        full.flatten(0, 1), target.flatten(), reduction="none", label_smoothing=smoothing
    ).view_as(shifts)
    own = torch.where(shifts > 0, out.sizes[..., 1], out.sizes[..., 0])
    sizes = nn.functional.binary_cross_entropy_with_logits(
        own, (shifts.abs() > 0.75).float(), reduction="none"
    ) * (shifts != 0)
    nothing = nn.functional.binary_cross_entropy_with_logits(
        out.nothing, (shifts == 0).all(dim=1).float(), reduction="none"
    )
    per_row = signs.sum(1) + 0.5 * sizes.sum(1) + nothing
    return (per_row * weight).sum() / weight.sum()
