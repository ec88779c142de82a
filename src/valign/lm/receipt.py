"""Receipts: what was really applied to a row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Guidance:
    """How a bridge guided one row: one entry a refresh, the first at the last prompt token.

    Attributes:
        scores: names of the value module's scores.
        gate: the bridge's gate alpha.
        moments: answer tokens that were there.
        open: how far guidance was on, 0 to 1.
        before, after: logits as read, and as the correction makes them, one number per score.
    """

    scores: tuple[str, ...]
    gate: float
    moments: tuple[int, ...]
    open: tuple[float, ...]
    before: tuple[tuple[float, ...], ...]
    after: tuple[tuple[float, ...], ...]

    @property
    def refreshes(self) -> int:
        """How often the bridge was made."""
        return len(self.moments)

    def until(self, tokens: int) -> Guidance:
        """The part that belongs to an answer of so many tokens."""
        n = sum(moment < max(tokens, 1) for moment in self.moments)
        return replace(
            self,
            moments=self.moments[:n],
            open=self.open[:n],
            before=self.before[:n],
            after=self.after[:n],
        )


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
        guidance: what the value module read and did, for bridges.
        rewritten: the profile to which the answer was rewritten.
    """

    method: str | None = None
    sites: tuple[str, ...] = ()
    tokens: int = 0
    size: float = 0.0
    gate: bool | None = None
    instruction: str | None = field(default=None)
    guidance: Guidance | None = None
    rewritten: str | None = None
