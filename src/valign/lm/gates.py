"""Reading context gates: one look at the prompt decides whether a row is steered at all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from transformers import Cache

from valign.control.edit import Gate, Site
from valign.lm.errors import UnsupportedSiteError
from valign.lm.hooks import hooked
from valign.lm.host import HostModel


class _Enough(Exception):
    """Leaves the forward pass once the last gate site has been read."""


def check_gate(lm: HostModel, gate: Gate | None, advice: str) -> None:
    """Refuse a gate this model cannot read.

    Raises:
        UnsupportedSiteError: a site the model has not, or one of another width; ends in `advice`.
    """
    for site, (weight, _) in (gate.weights if gate else {}).items():
        if site.kind == "logits":
            raise UnsupportedSiteError("A gate reads hidden sites, not the logits; use resid:l.")
        if weight.shape != (lm.site_width(site),):
            raise UnsupportedSiteError(
                f"The gate at {site} is {tuple(weight.shape)}, the model has "
                f"({lm.site_width(site)},) there. {advice}"
            )


def read_gates(
    lm: HostModel,
    gates: Sequence[Gate | None],
    start: torch.Tensor,
    inputs: dict[str, Any],
    *,
    cache: Cache | None = None,
) -> list[bool | None]:
    """Whether each row's gate opens for its prompt; None for rows without a gate.

    Runs the unedited model on the prompt: up to the deepest gate site, or whole if it is to fill
    a cache.

    Args:
        gates: one per row.
        start: (batch,) column of each row's last prompt token.
        inputs: keyword arguments of the forward pass that is about to run.
        cache: takes the keys and values of the prompt.
    """
    wanted = {site for gate in gates if gate is not None for site in gate.weights}
    if not wanted:
        return [None] * len(gates)
    seen: dict[Site, torch.Tensor] = {}

    def reader(site: Site):
        def read(a: torch.Tensor) -> None:
            rows = torch.arange(len(a), device=a.device)
            seen[site] = a[rows, start.to(a.device)].float()
            if cache is None and len(seen) == len(wanted):
                raise _Enough

        return read

    quiet = {k: v for k, v in inputs.items() if k not in ("past_key_values", "use_cache", "labels")}
    readers = [(site, reader(site)) for site in wanted]
    with suppress(_Enough), torch.no_grad(), hooked(lm.layout, readers):
        lm.model(**quiet, past_key_values=cache, use_cache=cache is not None)
    opened: list[bool | None] = []
    for number, gate in enumerate(gates):
        if gate is None:
            opened.append(None)
            continue
        readings = [
            float(seen[site][number] @ w.to(seen[site]) + b.to(seen[site]))
            for site, (w, b) in gate.weights.items()
        ]
        opened.append(max(readings) > 0)
    return opened
