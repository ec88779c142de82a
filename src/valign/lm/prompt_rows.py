"""Where each row's answer begins in a pass over whole prompts: what every session needs first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from valign.lm.errors import UnsupportedSiteError


@dataclass(frozen=True, eq=False)
class PromptPass:
    """One pass that brings its prompts.

    Attributes:
        valid: (batch, tokens) bool, False on padding of either side.
        start: (batch,) column of each row's last prompt token.
        last: (batch,) column of each row's newest token.
        padded: the pass came with a mask that hides something.
        going_on: the pass is the next step, without a cache, of the answers before it.
    """

    valid: torch.Tensor
    start: torch.Tensor
    last: torch.Tensor
    padded: bool
    going_on: bool

    @property
    def columns(self) -> torch.Tensor:
        """(tokens,) 0, 1, ..."""
        return torch.arange(self.valid.shape[1], device=self.valid.device)


class PromptRows:
    """Reads prompt passes and remembers the last one that came without a cache.

    Args:
        rows: number of controls given one per row, or None where one serves all.
        lengths: tokens of each row's prompt, where answers are in the pass already.
    """

    def __init__(self, rows: int | None, lengths: Sequence[int] | None):
        self._rows, self._lengths = rows, lengths
        self._uncached: tuple[torch.Tensor, torch.Tensor] | None = None  # prompt ids, start
        self._length = 0

    def read(self, ids: torch.Tensor, mask: Any, *, cached: bool) -> PromptPass:
        """What a pass over whole prompts holds.

        Args:
            ids: (batch, tokens), or embeddings (batch, tokens, width).
            mask: the pass's attention mask (batch, tokens), or None.
            cached: whether later passes will bring new tokens alone.

        Raises:
            UnsupportedSiteError: another number of rows than controls or lengths, or a mask of
                another shape.
        """
        batch, length = ids.shape[:2]
        if self._rows not in (None, batch):
            raise UnsupportedSiteError(
                f"{self._rows} controls were given for a batch of {batch} rows. "
                "Give one control for all rows or one (or None) per row."
            )
        if self._lengths is not None and len(self._lengths) != batch:
            raise UnsupportedSiteError(
                f"{len(self._lengths)} prompt lengths were given for a batch of {batch} rows."
            )
        if mask is not None and not (isinstance(mask, torch.Tensor) and mask.ndim == 2):
            raise UnsupportedSiteError(
                "This attention mask hides where the rows end; pass the usual (batch, tokens) mask."
            )
        device = ids.device
        valid = torch.ones(batch, length, device=device) if mask is None else mask.to(device)
        columns = torch.arange(length, device=device)
        last = (valid * (columns + 1)).argmax(dim=1)
        going_on = self._extends(ids, cached)
        if going_on:
            start = self._uncached[1]  # type: ignore[index]
        elif self._lengths is None:
            start = last
        else:
            first = (valid * (length - columns)).argmax(dim=1)
            start = first + torch.as_tensor(self._lengths, device=device) - 1
        self._length = length
        if not going_on:
            self._uncached = None if cached else (ids, start)
        whole = mask is None or bool(valid.all())
        return PromptPass(valid.bool(), start, last, padded=not whole, going_on=going_on)

    def _extends(self, ids: torch.Tensor, cached: bool) -> bool:
        """Whether a pass without a cache is the next step of the same answers."""
        if cached or self._uncached is None or self._lengths is not None:
            return False
        prompt = self._uncached[0]
        if len(ids) != len(prompt) or ids.shape[1] != self._length + 1:
            return False
        return torch.equal(ids[:, : prompt.shape[1]], prompt)  # beams may have changed places
