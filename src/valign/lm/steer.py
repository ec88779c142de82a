"""Sessions: a model under a control, one control per row, gone without a trace afterwards.

The same session serves valign's own generation and people who call the model themselves:

    with lm.controlled(control):
        model.generate(**inputs)

A pre-hook on the model reads each forward pass: the first one of a prompt (no cache yet) decides
the gates, finds each row's last prompt token under left or right padding and compiles the edits;
later ones reuse what was compiled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch

from valign.control.control import Control, EditsControl
from valign.control.edit import Edit, Site
from valign.lm.errors import NotAppliedError, UnsupportedSiteError
from valign.lm.hooks import hook_site, hooked
from valign.lm.host import HostModel
from valign.lm.program import Positions, Step, compile_site
from valign.lm.receipt import Receipt

Controls = Control | Sequence[Control | None] | None


def check_edits(lm: HostModel, control: EditsControl) -> None:
    """Refuse a control this model cannot run, before any token is made.

    Raises:
        UnsupportedSiteError: a site the family lacks, or a width that does not fit the model.
    """
    for edit in control.edits:
        width = lm.site_width(edit.site)
        for name in ("vector", "weight", "direction", "w1"):
            tensor = edit.tensors.get(name)
            if tensor is not None and tensor.shape[-1] != width:
                raise UnsupportedSiteError(
                    f"The {edit.kind} edit at {edit.site} is {tensor.shape[-1]} wide, the model "
                    f"{lm.name} has {width} there. The control was fitted on another model "
                    f"({control.provenance.get('model', 'unknown')}); fit it on this one."
                )


class Session:
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
        NotAppliedError: on leaving, if an edit was asked for and never fired.
    """

    def __init__(
        self, lm: HostModel, control: Controls, *, prompt_lengths: Sequence[int] | None = None
    ):
        self._lm = lm
        self._shared = control is None or isinstance(control, Control)
        rows = [control] if self._shared else list(control)  # type: ignore[arg-type]
        for row in rows:
            if row is not None and not isinstance(row, EditsControl):
                raise UnsupportedSiteError(
                    f"A {row.kind} control does not act inside the forward pass. "
                    "Pass it to `valign.lm.generate`, which runs every kind."
                )
        self._rows: list[EditsControl | None] = rows  # type: ignore[assignment]
        for chosen in {id(row): row for row in self._rows if row is not None}.values():
            check_edits(lm, chosen)
        self._lengths = prompt_lengths
        self._sites = sorted({e.site for row in self._rows if row is not None for e in row.edits})
        self._programs: dict[Site, list[Step]] = {}
        self._at = Positions()
        self._gates: list[bool | None] = []
        self._fired: dict[Site, int] = dict.fromkeys(self._sites, 0)
        self._passes = 0
        self._touched: torch.Tensor | None = None
        self._sizes: dict[Site, torch.Tensor] = {}
        self._reading_gates = False
        self._stack = ExitStack()

    def __enter__(self) -> Session:
        if self._sites:
            try:
                handle = self._lm.model.register_forward_pre_hook(self._on_pass, with_kwargs=True)
                self._stack.callback(handle.remove)
                for site in self._sites:
                    for handle in hook_site(self._lm.layout, site, self._changer(site)):
                        self._stack.callback(handle.remove)
            except BaseException:
                self._stack.close()
                raise
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._stack.close()
        silent = [str(site) for site, count in self._fired.items() if not count]
        if kind is None and self._passes and silent:
            raise NotAppliedError(
                f"The control was on, but its edits at {', '.join(silent)} never ran: the model "
                "did not call those parts. Pass layout=LayoutNames(...) if they were found wrongly."
            )

    @property
    def ran(self) -> bool:
        """Whether any pass went through the session's hooks."""
        return self._passes > 0

    def receipts(self) -> list[Receipt]:
        """One receipt per row of the last batch."""
        touched = [] if self._touched is None else self._touched.tolist()
        receipts = []
        for number, (row, gate) in enumerate(zip(self._expanded, self._gates, strict=True)):
            if row is None or gate is False:
                receipts.append(Receipt(method=row.method if row else None, gate=gate))
                continue
            sites = sorted({edit.site for edit in row.edits})
            sizes = [
                float(self._sizes[s][number if len(self._sizes[s]) > 1 else 0])
                for s in sites
                if s in self._sizes
            ]
            receipts.append(
                Receipt(
                    method=row.method,
                    sites=tuple(map(str, sites)),
                    tokens=int(touched[number]),
                    size=sum(sizes) / len(sizes) if sizes else 0.0,
                    gate=gate,
                )
            )
        return receipts

    # One forward pass ------------------------------------------------------------------

    def _on_pass(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._reading_gates:
            return
        self._passes += 1
        ids = kwargs.get("input_ids")
        if ids is None:
            ids = args[0] if args else kwargs["inputs_embeds"]
        batch, length = ids.shape[:2]
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length() > 0:
            self._at = Positions()
            if self._touched is not None:
                self._touched += length
            return
        self._begin(batch, length, ids.device, args, kwargs)

    def _begin(
        self,
        batch: int,
        length: int,
        device: torch.device,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if not self._shared and len(self._rows) != batch:
            raise UnsupportedSiteError(
                f"{len(self._rows)} controls were given for a batch of {batch} rows. "
                "Give one control for all rows or one (or None) per row."
            )
        self._expanded = self._rows * batch if self._shared else self._rows
        mask = kwargs.get("attention_mask")
        valid = torch.ones(batch, length, device=device) if mask is None else mask
        if valid.ndim != 2:
            raise UnsupportedSiteError(
                f"An attention mask of {valid.ndim} dimensions hides where the rows end; pass "
                "the usual (batch, tokens) mask."
            )
        columns = torch.arange(length, device=device)
        last = (valid * (columns + 1)).argmax(dim=1)
        if self._lengths is None:
            start = last
        else:
            first = (valid * (length - columns)).argmax(dim=1)
            start = first + torch.as_tensor(self._lengths, device=device) - 1
        self._gates = self._read_gates(start, args, kwargs)
        after = (columns[None, :] >= start[:, None]) & valid.bool()
        padded = mask is not None and not bool(valid.all())
        self._at = Positions(
            mask=after[:, :, None], valid=valid.bool()[:, :, None] if padded else None, start=start
        )
        self._touched = torch.zeros(batch, device=device, dtype=torch.long)
        scopes = [{e.scope for e in row.edits} if row else set() for row in self._expanded]
        everywhere = torch.tensor(["all" in s for s in scopes], device=device)
        self._touched += torch.where(everywhere, valid.sum(1).long(), after.sum(1))
        self._sizes = {}
        self._compile()

    def _active_rows(self) -> list[EditsControl | None]:
        return [
            None if gate is False else row
            for row, gate in zip(self._expanded, self._gates, strict=True)
        ]

    def _compile(self) -> None:
        rows = self._active_rows()
        alike = self._shared and len({row is None for row in rows}) == 1
        kept = rows[:1] if alike else rows
        at: dict[Site, list[list[Edit]]] = defaultdict(list)
        for site in self._sites:
            for row in kept:
                at[site].append([] if row is None else [e for e in row.edits if e.site == site])
        self._programs = {}
        for site, edits in at.items():
            if any(edits):
                module = self._lm.layout.module(site)
                weight = next(module.parameters())
                dtype = weight.dtype if weight.dtype.is_floating_point else self._lm.dtype
                self._programs[site] = compile_site(edits, weight.device, dtype)
            else:
                self._programs[site] = []

    def _changer(self, site: Site):
        def change(a: torch.Tensor) -> torch.Tensor | None:
            if self._reading_gates:
                return None
            self._fired[site] += 1
            steps = self._programs.get(site)
            if not steps:
                return None
            at = self._at
            # The head may be asked for the last positions only; the masks follow.
            if at.start is not None and a.shape[1] != at.mask.shape[1]:
                at = _tail(at, a.shape[1])
            out = a
            for step in steps:
                out = step(at, out)
            if at.start is not None:
                self._measure(site, a, out, at)
            return out

        return change

    def _measure(self, site: Site, a: torch.Tensor, out: torch.Tensor, at: Positions) -> None:
        rows = torch.arange(len(a), device=a.device)
        start = at.start.to(a.device)
        before = a[rows, start].float()
        moved = (out[rows, start].float() - before).norm(dim=-1)
        self._sizes[site] = (moved / before.norm(dim=-1).clamp_min(1e-6)).detach()

    # Gates -----------------------------------------------------------------------------

    def _read_gates(
        self, start: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[bool | None]:
        gates = [row.gate if row is not None else None for row in self._expanded]
        wanted = sorted({site for gate in gates if gate is not None for site in gate.weights})
        if not wanted:
            return [None] * len(gates)
        seen: dict[Site, torch.Tensor] = {}

        def reader(site: Site):
            def read(a: torch.Tensor) -> None:
                rows = torch.arange(len(a), device=a.device)
                seen[site] = a[rows, start.to(a.device)].float()

            return read

        quiet = {k: v for k, v in kwargs.items() if k not in ("past_key_values", "use_cache")}
        self._reading_gates = True
        try:
            with torch.no_grad(), hooked(self._lm.layout, [(s, reader(s)) for s in wanted]):
                self._lm.model(*args, **quiet, use_cache=False)
        finally:
            self._reading_gates = False
        opened: list[bool | None] = []
        for number, gate in enumerate(gates):
            if gate is None:
                opened.append(None)
                continue
            readings = [
                seen[site][number] @ w.to(seen[site]) + b.to(seen[site])
                for site, (w, b) in gate.weights.items()
            ]
            opened.append(bool(max(readings) > 0))
        return opened


def _tail(at: Positions, length: int) -> Positions:
    """Positions of the last `length` columns."""
    cut = at.mask.shape[1] - length
    return Positions(
        mask=at.mask[:, cut:],
        valid=None if at.valid is None else at.valid[:, cut:],
        start=(at.start - cut).clamp_min(0),
    )
