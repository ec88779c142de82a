"""Splicing bridge tokens into the blocks above l*: columns, attention masks, positions, cache.

Above l* a row's columns are [bridge tokens | its tokens]. The bridge stands in front in memory
only: who sees whom is the mask's business, and a key's place is its position embedding. So rows of
any padding share one layout, and the cache keeps the bridge in its first slots, where a refresh
writes it anew.

Who sees whom: the last prompt token and everything behind it sees the bridge version that is in
force there; a version's tokens see the prompt before its last token and, causally, each other;
the prompt sees no bridge. The bridge takes the positions of the prompt's last K tokens, so no token
of the row changes its place and an invisible bridge leaves the model as it was. The released code
opens a gap of K positions behind the prompt instead and predicts the first answer token from the
last bridge token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers import Cache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from valign.lm.errors import UnsupportedSiteError


@dataclass(eq=False)
class Splice:
    """What the upper blocks must know about the current pass.

    Attributes:
        columns: bridge columns in front of this pass' own tokens; 0 in plain decoding steps.
        slots: bridge columns that attention meets, in this pass or in the cache.
        total: tokens of each row so far, those of this pass included.
        sees: (batch, tokens, slots) additive, how the tokens of the pass see the bridge; None
            when every row sees it as it sees a token.
        among: (batch, columns, columns) additive, how the bridge sees itself; None without columns.
        prompt: (batch, prompt columns) additive, how the bridge sees the prompt.
        moments: (batch, versions) columns of the pass at which each version was made; a block with
            a sliding window shows a version what it shows the token there.
        where: (batch, columns) columns of the pass whose positions the bridge takes, in the pass
            that reads the prompt; None later, when `embeddings` holds them.
        embeddings: per kind of position argument of a block what the bridge was given.
    """

    columns: int
    slots: int
    total: int
    sees: torch.Tensor | None
    among: torch.Tensor | None = None
    prompt: torch.Tensor | None = None
    moments: torch.Tensor | None = None
    where: torch.Tensor | None = None
    embeddings: dict[tuple[str, int], Any] = field(default_factory=dict)
    _masks: dict[int, tuple[Any, torch.Tensor | None]] = field(default_factory=dict)
    _placed: dict[tuple[str, int], tuple[Any, Any]] = field(default_factory=dict)

    def mask(self, host: torch.Tensor | None, a: torch.Tensor) -> torch.Tensor | None:
        """The mask of a block, from the one the model made for its tokens alone.

        Args:
            host: (batch or 1, 1, tokens, keys) bool or additive, or None for plain causal.
            a: hidden states of the pass, bridge columns included.
        """
        made = self._masks.get(id(host))
        if made is None:  # the pair keeps `host` alive, so that its id stays its own
            made = self._masks[id(host)] = (host, self._mask(host, a))
        return made[1]

    def _mask(self, host: torch.Tensor | None, a: torch.Tensor) -> torch.Tensor | None:
        if not self.columns and self.sees is None and host is None:
            return None
        batch, tokens = a.shape[0], a.shape[1] - self.columns
        keys = self.total if host is None else host.shape[-1]
        own = _additive(host, tokens, keys, a)
        sees = self.sees
        if sees is None:
            sees = a.new_zeros(batch, tokens, self.slots)
        sees = sees.to(a.dtype)[:, None]
        rows = torch.cat([sees, own.expand(batch, 1, tokens, keys)], dim=-1)
        if not self.columns:
            return rows
        blind = torch.finfo(a.dtype).min
        past = self.total - self.prompt.shape[1]
        prompt = F.pad(self.prompt.to(a.dtype), (0, past), value=blind)[
            :, None, self.total - keys :
        ]
        numbers = torch.arange(batch, device=a.device)[:, None]
        shown = own[:, 0].expand(batch, tokens, keys)[numbers, self.moments.to(a.device)]
        shown = torch.minimum(prompt, shown).repeat_interleave(self.slots // shown.shape[1], dim=1)
        above = torch.cat([self.among.to(a.dtype), shown], dim=-1)
        return torch.cat([above[:, None], rows], dim=-2)

    def place(self, name: str, block: int, given: Any, batch: int) -> Any:
        """A position argument of a block with the bridge's own positions in front."""
        made = self._placed.get((name, id(given)))
        if made is None:
            key = (name, block)
            made = self._placed[(name, id(given))] = (given, *self._place(key, given, batch))
        self.embeddings[(name, block)] = made[1]
        return made[2]

    def _place(self, key: tuple[str, int], given: Any, batch: int) -> tuple[Any, Any]:
        parts = given if isinstance(given, tuple) else (given,)
        own, wide = [], []
        for number, part in enumerate(parts):
            full = part.expand(batch, *part.shape[1:])
            if self.where is not None:
                rows = torch.arange(batch, device=part.device)[:, None]
                bridge = full[rows, self.where.to(part.device)]
            else:
                bridge = self.embeddings[key][number]
            own.append(bridge)
            wide.append(torch.cat([bridge, full], dim=1))
        return own, tuple(wide) if isinstance(given, tuple) else wide[0]


def _additive(host: torch.Tensor | None, tokens: int, keys: int, a: torch.Tensor) -> torch.Tensor:
    """The model's own mask as numbers to add, (batch or 1, 1, tokens, keys)."""
    if host is None:
        blind = torch.full((tokens, keys), torch.finfo(a.dtype).min, dtype=a.dtype, device=a.device)
        return blind.triu(keys - tokens + 1)[None, None]
    if host.ndim != 4:
        raise UnsupportedSiteError(
            "A bridge needs attention masks it can read; load the model with "
            'attn_implementation="sdpa" or "eager".'
        )
    if host.dtype == torch.bool:
        zero = torch.zeros((), dtype=a.dtype, device=a.device)
        return torch.where(host, zero, torch.finfo(a.dtype).min)
    return host.to(a.dtype)


class BridgedLayer(DynamicLayer):
    """A cache layer whose first slots hold the bridge.

    Args:
        incoming: bridge columns in front of what the current pass brings.
        reordered: called with the new order of rows when beams change places.
    """

    def __init__(self, incoming: Callable[[], int], reordered: Callable[[Any], None] | None):
        super().__init__()
        self._incoming, self._reordered, self._slots = incoming, reordered, 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kw: Any):
        columns = self._incoming()
        if not columns or not self._slots:
            self._slots = self._slots or columns
            return super().update(key_states, value_states, *args, **kw)
        self.keys, self.values = (
            torch.cat([new[..., :columns, :], old[..., columns:, :], new[..., columns:, :]], dim=-2)
            for new, old in ((key_states, self.keys), (value_states, self.values))
        )
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Tokens of the rows, without the bridge."""
        return max(super().get_seq_length() - self._slots, 0)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        super().reorder_cache(beam_idx)
        if self._reordered is not None:
            self._reordered(beam_idx)


class BridgedSlidingLayer(DynamicSlidingWindowLayer):
    """A cache layer that forgets old tokens but never the bridge, which it keeps apart."""

    def __init__(
        self, window: int, incoming: Callable[[], int], reordered: Callable[[Any], None] | None
    ):
        super().__init__(sliding_window=window)
        self._incoming, self._reordered = incoming, reordered
        self._bridge: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kw: Any):
        if columns := self._incoming():
            self._bridge = key_states[..., :columns, :], value_states[..., :columns, :]
            key_states, value_states = key_states[..., columns:, :], value_states[..., columns:, :]
        found = super().update(key_states, value_states, *args, **kw)
        if self._bridge is None:
            return found
        return tuple(torch.cat(pair, dim=-2) for pair in zip(self._bridge, found, strict=True))

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        super().reorder_cache(beam_idx)
        if self._bridge is not None:
            self._bridge = tuple(part[beam_idx] for part in self._bridge)  # type: ignore[assignment]
        if self._reordered is not None:
            self._reordered(beam_idx)


def bridge_cache(
    cache: Cache,
    layer: int,
    n_layers: int,
    incoming: Callable[[], int],
    reordered: Callable[[Any], None],
) -> None:
    """Give an empty cache room for the bridge in the blocks above `layer`.

    Raises:
        UnsupportedSiteError: a cache of fixed size, or one that quantises what it holds.
    """
    layers = getattr(cache, "layers", None)
    if layers is None:
        raise UnsupportedSiteError(f"A bridge cannot live in a {type(cache).__name__}.")
    if getattr(cache, "layer_class_to_replicate", None) is DynamicLayer:
        layers += [DynamicLayer() for _ in range(n_layers - len(layers))]
    for number in range(layer + 1, n_layers):
        told = reordered if number == layer + 1 else None
        found = layers[number] if number < len(layers) else None
        if type(found) is DynamicLayer:
            layers[number] = BridgedLayer(incoming, told)
        elif type(found) is DynamicSlidingWindowLayer:
            layers[number] = BridgedSlidingLayer(found.sliding_window, incoming, told)
        else:
            raise UnsupportedSiteError(
                f"A bridge above block {layer} needs a growing cache in block {number}, found "
                f"{type(found).__name__}. Use the default cache, or fit with mode=inject."
            )


def version_masks(
    version: torch.Tensor, log_open: torch.Tensor, size: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """How tokens see versions of the bridge, and how the versions see themselves.

    Args:
        version: (batch, tokens) the version each token sees, -1 for none.
        log_open: (batch, versions) log odds factor of each version, -inf where it is off.
        size: K.

    Returns:
        (batch, tokens, versions K) and (versions K, versions K), additive.
    """
    blind = torch.finfo(dtype).min
    count = log_open.shape[1]
    numbers = torch.arange(count, device=version.device)
    hit = version[..., None] == numbers
    sees = torch.where(hit, log_open[:, None, :].clamp_min(blind).to(dtype), blind)
    same = torch.eye(count, dtype=torch.bool, device=version.device)
    causal = torch.ones(size, size, dtype=torch.bool, device=version.device).tril()
    allowed = torch.kron(same, causal)
    among = torch.zeros(allowed.shape, dtype=dtype, device=version.device)
    return sees.repeat_interleave(size, dim=-1), among.masked_fill(~allowed, blind)
