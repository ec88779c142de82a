"""What is learned on top of the frozen layers: upper layers, pooling, and three linear readers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from valign.detect.backbone import Backbone, mean_pool, run_layers


@dataclass(frozen=True)
class HeadOutput:
    """Logits of a batch.

    Attributes:
        signs: (B, n_values, 2), against and for, with absent at 0.
        categories: (B, n_categories), presence.
        level1: (B, n_level1), presence; extra supervision in training.
    """

    signs: Tensor
    categories: Tensor
    level1: Tensor


class ValueHead(nn.Module):
    """Tuned copies of the encoder's upper layers, mean pooling, and linear readers."""

    def __init__(
        self,
        layers: nn.ModuleList,
        width: int,
        *,
        values: Sequence[str],
        categories: Sequence[str],
        n_level1: int,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.values, self.categories = tuple(values), tuple(categories)
        self.layers = layers
        self.dropout = nn.Dropout(dropout)
        self.sign_reader = nn.Linear(width, 2 * len(self.values))
        self.category_reader = nn.Linear(width, len(self.categories))
        self.level1_reader = nn.Linear(width, n_level1)

    @classmethod
    def from_settings(cls, settings: dict, backbone: Backbone) -> ValueHead:
        """A head of the shape that `settings` states, its layers copied from the encoder."""
        return cls(
            copy.deepcopy(backbone.layers[settings["frozen_layers"] :]).requires_grad_(True),
            backbone.width,
            values=settings["values"],
            categories=settings["categories"],
            n_level1=settings["n_level1"],
        )

    def forward(self, hidden: Tensor, mask: Tensor) -> HeadOutput:
        """Logits from token vectors (B, T, width) below the tuned layers."""
        return self.read(self.pool(hidden, mask))

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Pooled vectors (B, width) from token vectors below the tuned layers."""
        return mean_pool(run_layers(self.layers, hidden, mask), mask)

    def read(self, pooled: Tensor) -> HeadOutput:
        """Logits from pooled vectors (B, width)."""
        scaled = nn.functional.normalize(pooled, dim=-1) * pooled.shape[-1] ** 0.5
        scaled = self.dropout(scaled)
        return HeadOutput(
            signs=self.sign_reader(scaled).unflatten(-1, (len(self.values), 2)),
            categories=self.category_reader(scaled),
            level1=self.level1_reader(scaled),
        )


def sign_loss(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean cross-entropy over against, absent, for; labels and weight (B, n_values)."""
    full = torch.stack([logits[..., 0], torch.zeros_like(logits[..., 0]), logits[..., 1]], dim=-1)
    target = labels.long() + 1
    loss = nn.functional.cross_entropy(full.flatten(0, 1), target.flatten(), reduction="none")
    return (loss.view_as(labels) * weight).sum() / weight.sum().clamp_min(1)
