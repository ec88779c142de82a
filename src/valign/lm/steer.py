"""Sessions: a model under a control, one control per row, gone without a trace afterwards.

The same session serves valign's own generation and people who call the model themselves:

    with lm.controlled(control):
        model.generate(**inputs)

A pre-hook on the model reads each forward pass: the first one of a prompt (no cache yet) decides
the gates and finds each row's last prompt token under left or right padding; the edits are
compiled at the first activation they meet, and later passes reuse them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from valign.control.control import Control, EditsControl
from valign.control.edit import Site
from valign.lm.errors import NotAppliedError, UnsupportedSiteError
from valign.lm.gates import check_gate, read_gates
from valign.lm.hooks import hook_site
from valign.lm.host import HostModel
from valign.lm.occupied import Occupied
from valign.lm.program import EVERYWHERE, Positions, Step, compile_site
from valign.lm.prompt_rows import PromptRows
from valign.lm.receipt import Receipt

Controls = Control | Sequence[Control | None] | None


def check_edits(lm: HostModel, control: EditsControl) -> None:
    """Refuse a control this model cannot run, before any token is made.

    Raises:
        UnsupportedSiteError: no edits, a site the family lacks, or one that does not fit it.
    """
    if not control.edits:
        raise UnsupportedSiteError(
            f"The {control.method} control holds no edits and would change nothing. "
            "For an unsteered run pass control=None."
        )
    made_on = control.provenance.get("model", "unknown")
    advice = f"The control was fitted on another model ({made_on}); fit it on {lm.name}."
    for edit in control.edits:
        width = lm.site_width(edit.site)
        for name in ("vector", "weight", "direction", "w1"):
            tensor = edit.tensors.get(name)
            if tensor is not None and tensor.shape[-1] != width:
                raise UnsupportedSiteError(
                    f"The {edit.kind} edit at {edit.site} is {tensor.shape[-1]} wide, the model "
                    f"has {width} there. {advice}"
                )
        index = edit.tensors.get("index")
        far = [] if index is None else [int(i) for i in index if not 0 <= i < width]
        if far:
            raise UnsupportedSiteError(
                f"The {edit.kind} edit at {edit.site} names coordinate {far[0]}, the model has 0 "
                f"to {width - 1} there. {advice}"
            )
    check_gate(lm, control.gate, advice)


class Session(Occupied):
    """A `with` block in which a host model runs under controls.

    Args:
        lm: the model.
        control: one control for all rows of every call, or a list with one entry per row of the
            batch (None for a plain row). Text controls do not belong here: they act on the
            prompt, see `valign.lm.generate`.
        prompt_lengths: tokens of the prompt per row, for teacher-forced passes in which the
            answer stands behind the prompt; without it the whole first pass is the prompt.

    Raises:
        UnsupportedSiteError: a control of another kind, or one that does not fit the model.
        NestedControlError: on entering, if the model is already in a session.
        NotAppliedError: on leaving, if an edit was asked for and never fired; in a forward pass,
            if the prompt was read before the session began.
    """

    def __init__(
        self, lm: HostModel, control: Controls, *, prompt_lengths: Sequence[int] | None = None
    ):
        super().__init__(lm)
        self._shared = control is None or isinstance(control, Control)
        rows = [control] if self._shared else list(control)  # type: ignore[arg-type]
        for row in rows:
            if row is not None and not isinstance(row, EditsControl):
                raise UnsupportedSiteError(
                    f"A {row.kind} control does not act inside the forward pass. "
                    "Pass it to `valign.lm.generate`, which runs every kind."
                )
        self._rows: list[EditsControl | None] = rows  # type: ignore[assignment]
        acting = {id(row): row for row in self._rows if row is not None}.values()
        for chosen in acting:
            check_edits(lm, chosen)
        edits = [edit for row in acting for edit in row.edits]
        self._sites = sorted({edit.site for edit in edits})
        # Anything that must know where the prompt ends.
        self._needs_start = any(e.scope == "generation" or e.hold for e in edits) or any(
            row.gate is not None for row in acting
        )
        self._prompts = PromptRows(None if self._shared else len(rows), prompt_lengths)
        self._at: Positions | None = None  # None outside a forward pass of the model
        self._expanded: list[EditsControl | None] = []
        self._gates: list[bool | None] = []
        self._places = [_Place(self, site) for site in self._sites]
        self._near: dict[tuple[torch.device, int], Positions] = {}
        self._prompt_touched: list[int] = []
        self._later = 0
        self._moves: dict[Site, tuple[torch.Tensor, torch.Tensor]] = {}  # before, after
        self._reading_gates = self._primed = False

    def _install(self) -> None:
        if self._sites:
            self._watch_passes()
            for place in self._places:
                self._keep(*hook_site(self._lm.layout, place.site, place))

    def _require_fired(self) -> None:
        silent = [str(place.site) for place in self._places if not place.fired]
        if silent:
            raise NotAppliedError(
                f"The control was on, but its edits at {', '.join(silent)} never ran: the model "
                "did not call those parts. Pass layout=LayoutNames(...) if they were found wrongly."
            )

    def receipts(self) -> list[Receipt]:
        """One receipt per row of the last batch."""
        sizes = {site: _relative_size(*move) for site, move in self._moves.items()}
        receipts = []
        for number, (row, gate) in enumerate(zip(self._expanded, self._gates, strict=True)):
            if row is None or gate is False:
                receipts.append(Receipt(method=row.method if row else None, gate=gate))
                continue
            sites = sorted({edit.site for edit in row.edits})
            own = [sizes[site][number] for site in sites if site in sizes]
            receipts.append(
                Receipt(
                    method=row.method,
                    sites=tuple(map(str, sites)),
                    tokens=self._prompt_touched[number] + self._later,
                    size=sum(own) / len(own) if own else 0.0,
                    gate=gate,
                )
            )
        return receipts

    # One forward pass ------------------------------------------------------------------

    def _on_pass(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._reading_gates:
            return
        ids, held, kwargs = self._read_pass(args, kwargs)
        batch, length = ids.shape[:2]
        if held and self._primed:
            self._begin_at_last(batch, ids.device)
        elif held:
            self._go_on(batch, length, held)
        else:
            self._begin(ids, batch, kwargs)
        self._passes += 1

    def _on_end(self, module: Any, args: Any, output: Any) -> None:
        self._at = None

    def _go_on(self, batch: int, length: int, held: int) -> None:
        self._require_begun(held, rows=len(self._expanded), batch=batch)
        if length > 1 and self._needs_start:
            raise UnsupportedSiteError(
                f"The model got {length} tokens on top of {held} cached ones (chunked prompts, "
                "assisted decoding, or a further turn): nothing says which of them are the prompt. "
                "Give the whole prompt in one pass and one token at a time afterwards."
            )
        self._at = EVERYWHERE
        self._later += length

    def _begin(self, ids: torch.Tensor, batch: int, kwargs: dict[str, Any]) -> None:
        cached = kwargs.get("use_cache") is not False
        prompt = self._prompts.read(ids, kwargs.get("attention_mask"), cached=cached)
        if not prompt.going_on:
            self._expanded = self._rows * batch if self._shared else self._rows
            self._decide(prompt.start, kwargs)
        valid, start = prompt.valid, prompt.start
        after = (prompt.columns[None, :] >= start[:, None]) & valid
        self._at = Positions(
            mask=after[:, :, None],
            valid=valid[:, :, None] if prompt.padded else None,
            start=start,
            first=int(start.min()) if self._only_answers else 0,
        )
        everywhere = [
            row is not None and any(e.scope == "all" for e in row.edits) for row in self._expanded
        ]
        counts = zip(everywhere, valid.sum(1).tolist(), after.sum(1).tolist(), strict=True)
        self._first_pass_of([int(whole if every else own) for every, whole, own in counts])

    def _first_pass_of(self, touched: list[int]) -> None:
        self._prompt_touched, self._later = touched, 0
        self._moves, self._near = {}, {}

    def _decide(
        self, start: torch.Tensor, inputs: dict[str, Any], cache: Cache | None = None
    ) -> None:
        """Read the gates of a new batch; its edits are compiled anew."""
        for place in self._places:
            place.steps = None
        gates = [None if row is None else row.gate for row in self._expanded]
        self._reading_gates = True
        try:
            self._gates = read_gates(self._lm, gates, start, inputs, cache=cache)
        finally:
            self._reading_gates = False

    def read_prompt(self, inputs: dict[str, Any]) -> Cache | None:
        """Decide the gates by a plain pass over left-padded prompts, and keep what it computed.

        The cache comes back without the last token; the next pass must bring that token, and is
        the first steered one. So a gate costs one decoding step instead of another prompt. None
        where this does not apply (no gates, edits that reach into the prompt, a cache that cannot
        give a token back): the first pass then reads the gates by itself.
        """
        gated = any(row is not None and row.gate is not None for row in self._rows)
        if not gated or not self._only_answers or "past_key_values" not in self._lm.accepts:
            return None
        cache = DynamicCache(config=self._lm.model.config)
        if any(type(layer) is not DynamicLayer for layer in cache.layers):
            return None
        batch, length = inputs["input_ids"].shape
        self._expanded = self._rows * batch if self._shared else self._rows
        last = torch.full((batch,), length - 1, device=inputs["input_ids"].device)
        self._decide(last, inputs, cache)
        cache.crop(-1)
        self._primed = True
        return cache

    def _begin_at_last(self, batch: int, device: torch.device) -> None:
        self._primed = False
        self._at = Positions(
            mask=torch.ones(batch, 1, 1, dtype=torch.bool, device=device),
            start=torch.zeros(batch, dtype=torch.long, device=device),
        )
        self._first_pass_of([1] * batch)

    @property
    def _only_answers(self) -> bool:
        return all(e.scope == "generation" for row in self._rows if row for e in row.edits)

    def edit(self, place: _Place, a: torch.Tensor) -> torch.Tensor | None:
        """What becomes of an activation, in any pass but a plain decoding step."""
        if self._reading_gates:
            return None
        at = self._at
        if at is None:
            self._ran_outside(place.site)
        place.fired = True
        if place.steps is None:
            place.steps = self._compile(place.site, a)
        if not place.steps:
            return None
        if at.start is not None:
            return self._first_pass(place, at, a)
        for step in place.steps:
            a = step(at, a)
        return a

    def _compile(self, site: Site, a: torch.Tensor) -> list[Step]:
        rows = [
            [] if row is None or gate is False else [e for e in row.edits if e.site == site]
            for row, gate in zip(self._expanded, self._gates, strict=True)
        ]
        if not any(rows):
            return []
        alike = all(row is self._expanded[0] for row in self._expanded) and all(map(bool, rows))
        return compile_site(rows[:1] if alike else rows, a.device, a.dtype)

    def _first_pass(self, place: _Place, at: Positions, a: torch.Tensor) -> torch.Tensor:
        """The pass over the prompt: masks apply, and the size of the change is noted."""
        at = self._nearby(at, a)
        head, before = a[:, : at.first], a[:, at.first :]
        if at.first:  # nothing before the first answer position changes: leave it out of the sums
            at = self._nearby(at, before)
        out = before
        for step in place.steps or ():
            out = step(at, out)
        rows = slice(None) if before.shape[1] == 1 else torch.arange(len(a), device=a.device)
        column = 0 if before.shape[1] == 1 else at.start
        self._moves[place.site] = (before[rows, column].detach(), out[rows, column].detach())
        return torch.cat([head, out], dim=1) if head.shape[1] else out

    def _nearby(self, at: Positions, a: torch.Tensor) -> Positions:
        """The positions of an activation's columns, on its device; all sites share them."""
        key = (a.device, a.shape[1])
        if key not in self._near:
            self._near[key] = at.tail(a.shape[1]).to(a.device)
        return self._near[key]


class _Place:
    """One edited site of a session; called with each activation that passes there."""

    __slots__ = ("fired", "session", "site", "steps")

    def __init__(self, session: Session, site: Site):
        self.session, self.site = session, site
        self.steps: list[Step] | None = None
        self.fired = False

    def __call__(self, a: torch.Tensor) -> torch.Tensor | None:
        if self.steps is None or self.session._at is not EVERYWHERE:
            return self.session.edit(self, a)
        for step in self.steps:  # a decoding step: no masks, nothing to look up
            a = step(EVERYWHERE, a)
        return a


def _relative_size(before: torch.Tensor, after: torch.Tensor) -> list[float]:
    """Norm of the change by the norm of the activation, one per row."""
    before, after = before.float(), after.float()
    return ((after - before).norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-6)).tolist()
