"""Receipts: what was really applied to a row."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Receipt:
    """What a control did to one row of a batch.

    Attributes:
        method: name of the method that made the control, None for a plain row.
        sites: the sites that were edited.
        tokens: positions of the row at which the edits were applied.
        size: mean over sites of (mean norm of the change) / (norm of the activation at the last
            prompt token); 0 for a plain row and for kinds whose change is not tracked.
        gate: whether the context gate opened; None without a gate.
        instruction: the text that was put before the prompt, for text controls.
    """

    method: str | None = None
    sites: tuple[str, ...] = ()
    tokens: int = 0
    size: float = 0.0
    gate: bool | None = None
    instruction: str | None = field(default=None)
