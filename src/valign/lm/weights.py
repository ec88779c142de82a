"""Running a model under weights controls: every row of a batch under its own mixture.

The adapters that act anywhere in the batch stand side by side as one pair A (R, inputs) and
B (outputs, R) per module, and a row's weights scale the R coordinates between them:

    y += ((x A^T) * c_row) B^T,    c_row = w_i s_i repeated over the ranks of adapter i

So the price is two small matmuls per module, whatever the number of values and of mixtures; the
model's own weights are never touched, and a row without a control adds exact zeros. Punica's
batched LoRA (arXiv 2310.18547) gathers one adapter a row; here every row has all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from valign.control.control import Control
from valign.control.weights import Adapter, WeightsControl
from valign.lm.errors import NotAppliedError, UnsupportedSiteError
from valign.lm.gates import check_gate, read_gates
from valign.lm.host import HostModel
from valign.lm.layout import linear_shape
from valign.lm.occupied import Occupied
from valign.lm.prompt_rows import PromptPass, PromptRows
from valign.lm.receipt import Receipt

Rows = WeightsControl | None | Sequence[WeightsControl | None]


def check_weights(lm: HostModel, control: WeightsControl) -> None:
    """Refuse adapters this model cannot wear, before any token is made.

    Raises:
        UnsupportedSiteError: a module the model has not, or one of another shape or kind; a gate
            that reads elsewhere.
    """
    for module in control.modules:
        target_module(lm, control, module)
    check_gate(lm, control.gate, _advice(lm, control))


def target_module(lm: HostModel, control: WeightsControl, name: str) -> nn.Module:
    """The linear module an adapter names.

    Raises:
        UnsupportedSiteError: see `check_weights`.
    """
    advice = _advice(lm, control)
    try:
        module = lm.entries[-1].get_submodule(name)
    except AttributeError:
        raise UnsupportedSiteError(
            f"The adapters change {name}; {lm.name} has no such module. {advice}"
        ) from None
    has = linear_shape(module, strict=False)
    if has is None:
        raise UnsupportedSiteError(
            f"The adapters change {name}, a {type(module).__name__}; expected a linear map. "
            f"{advice}"
        )
    change = next(a.factors[name] for a in control.adapters if name in a.factors)
    outputs, inputs = change.shape
    if has != (inputs, outputs):
        raise UnsupportedSiteError(
            f"The adapters at {name} take {inputs} numbers and give {outputs}; {lm.name} expects "
            f"{has[0]} and {has[1]} there. {advice}"
        )
    return module


def _advice(lm: HostModel, control: WeightsControl) -> str:
    made_on = control.provenance.get("model", "unknown")
    return f"The adapters were trained on another model ({made_on}); train them on {lm.name}."


def weights_key(control: WeightsControl) -> tuple[Any, ...]:
    """Rows over the same adapters share a batch, however they weigh them."""
    return (control.kind, *map(id, control.adapters))


class WeightsSession(Occupied):
    """A `with` block in which a host model runs under weights controls.

    Args:
        lm: the model.
        control: one for all rows, or a list with one entry (or None) per row. Rows may bring
            different adapters; then each pays for the ranks of all.
        prompt_lengths: as in `valign.lm.steer.Session`; weights act on prompt and answer alike,
            so it only says where gates are read, and a receipt the size of the change.

    Raises:
        UnsupportedSiteError: a control that does not fit the model.
        NestedControlError: on entering, if the model is already in a session.
        NotAppliedError: on leaving, if a module was to change and never ran; in a forward pass,
            if the prompt was read before the session began.
    """

    def __init__(
        self, lm: HostModel, control: Rows, *, prompt_lengths: Sequence[int] | None = None
    ):
        super().__init__(lm)
        self._shared = control is None or isinstance(control, Control)
        self._rows: list[WeightsControl | None] = [control] if self._shared else list(control)  # type: ignore[assignment, arg-type]
        acting = {id(row): row for row in self._rows if row is not None}.values()
        places: dict[str, _Place] = {}
        for chosen in acting:
            check_weights(lm, chosen)
            for adapter in chosen.acting:
                for name in adapter.factors:
                    if name not in places:
                        places[name] = _Place(self, name, target_module(lm, chosen, name))
                    places[name].adapters[id(adapter)] = adapter
        self._places = list(places.values())
        self._prompts = PromptRows(None if self._shared else len(self._rows), prompt_lengths)
        self._prompt: PromptPass | None = None  # set in the pass over the prompt
        self._tokens: list[int] = []
        self._inside = self.reading_gates = False
        self._gates: list[bool | None] = []  # one a row of the batch; empty where no row has one
        self.batch = self.later = self.length = 0

    def _install(self) -> None:
        if self._places:
            self._watch_passes()
            for place in self._places:
                self._keep(place.module.register_forward_hook(place))

    def _require_fired(self) -> None:
        silent = [place.name for place in self._places if not place.fired]
        if silent:
            raise NotAppliedError(
                f"The control was on, but {silent[0]} (of {len(silent)} such modules) never ran: "
                "the model does not call it, so its adapter changes nothing."
            )

    def receipts(self) -> list[Receipt]:
        """One receipt per row of the last batch."""
        sizes = {place.name: place.sizes() for place in self._places}
        sites: dict[int, tuple[str, ...]] = {}
        found = []
        for number, row in enumerate(self._expanded(self.batch)):
            gate = self._gates[number] if self._gates else None
            if row is None or not row.acting or gate is False:
                found.append(Receipt(method=row.method if row else None, gate=gate))
                continue
            own = sites.setdefault(
                id(row), tuple(dict.fromkeys(m for a in row.acting for m in a.factors))
            )
            found.append(
                Receipt(
                    method=row.method,
                    sites=own,
                    tokens=self._tokens[number] + self.later,
                    size=sum(sizes[name][number] for name in own) / len(own),
                    gate=gate,
                )
            )
        return found

    # One forward pass ------------------------------------------------------------------

    def _on_pass(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.reading_gates:
            return
        if self._inside:
            return  # a model that wears an adapter calls the one it wraps
        ids, held, kwargs = self._read_pass(args, kwargs)
        batch, length = ids.shape[:2]
        if held:
            self._require_begun(held, rows=self.batch, batch=batch)
            self._prompt = None
            self.later += length
        else:
            cached = kwargs.get("use_cache") is not False
            self._prompt = self._prompts.read(ids, kwargs.get("attention_mask"), cached=cached)
            self._tokens, self.later = self._prompt.valid.sum(1).tolist(), 0
            if not self._prompt.going_on:
                self._decide(self._prompt.start, kwargs)
        self._inside, self.batch, self.length = True, batch, length
        self._passes += 1

    def _on_end(self, module: Any, args: Any, output: Any) -> None:
        self._inside = False

    def _decide(self, start: torch.Tensor, inputs: dict[str, Any]) -> None:
        """Read the gates of a new batch by a plain pass over its prompts, up to the gates' site.

        Args:
            start: (batch,) column of each row's last prompt token.
            inputs: keyword arguments of the forward pass that is about to run.
        """
        gates = [row.gate if row else None for row in self._expanded(len(start))]
        if not any(gates):
            return
        self.reading_gates = True
        try:
            self._gates = read_gates(self._lm, gates, start, inputs)
        finally:
            self.reading_gates = False
        for place in self._places:
            place.by_row = None

    def _expanded(self, batch: int) -> list[WeightsControl | None]:
        return self._rows * batch if self._shared else self._rows

    def coefficients(self, adapters: Sequence[Adapter], module: str) -> list[list[float]]:
        """w_i s_i over the ranks of the adapters, one list a row; one in all if rows share.

        Zero where a row's gate is shut.
        """
        rows = self._rows
        if self._gates:
            expanded = self._expanded(len(self._gates))
            shut = [gate is False for gate in self._gates]
            rows = [None if no else row for row, no in zip(expanded, shut, strict=True)]
        return [
            [
                weight
                for adapter in adapters
                for weight in [_weight(row, adapter) * adapter.factors[module].scale]
                * adapter.factors[module].rank
            ]
            for row in rows
        ]

    def last_prompt_tokens(self, columns: int) -> torch.Tensor | None:
        """(batch,) column of each row's last prompt token among a module's last `columns`."""
        if self._prompt is None:
            return None
        return (self._prompt.start - (self.length - columns)).clamp(0, columns - 1)

    def require_inside(self, name: str) -> None:
        """Refuse a part that runs without the model."""
        if not self._inside:
            self._ran_outside(name)


def _weight(row: WeightsControl | None, adapter: Adapter) -> float:
    if row is None or not any(own is adapter for own in row.adapters):
        return 0.0
    return row.weights[adapter.name]


class _Place:
    """One changed module of a session; called with what passes there."""

    def __init__(self, session: WeightsSession, name: str, module: nn.Module):
        self.session, self.name, self.module = session, name, module
        self.adapters: dict[int, Adapter] = {}
        self.fired = False
        self._right: torch.Tensor | None = None  # (inputs, R)
        self._left: torch.Tensor | None = None  # (R, outputs)
        self.by_row: torch.Tensor | None = None  # (rows or 1, 1, R); None: to be asked anew
        self._move: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], y: torch.Tensor) -> torch.Tensor:
        if self.session.reading_gates:
            return y
        self.session.require_inside(self.name)
        self.fired = True
        x = args[0].to(y.device)
        if self._right is None or self._right.dtype != x.dtype or self._right.device != x.device:
            self._compile(x)
        if self.by_row is None:
            self._weigh(x)
        if x.ndim == 2:  # blocks that flatten (batch, tokens), such as OPT's
            x = self._unflattened(x)
        # The numbers stay exact in half precision: rounding comes after the product.
        between = ((x @ self._right) * self.by_row).to(x.dtype).flatten(0, -2)
        self._note(between, y)
        return torch.addmm(y.flatten(0, -2), between, self._left).view(y.shape)

    def _compile(self, x: torch.Tensor) -> None:
        adapters = list(self.adapters.values())
        parts = [adapter.factors[self.name] for adapter in adapters]
        put = dict(device=x.device, dtype=x.dtype)
        self._right = torch.cat([part.a.detach().to(**put) for part in parts]).T.contiguous()
        self._left = torch.cat([part.b.detach().to(**put) for part in parts], 1).T.contiguous()
        self.by_row = None  # on this device, too

    def _weigh(self, x: torch.Tensor) -> None:
        by_row = self.session.coefficients(list(self.adapters.values()), self.name)
        exact = torch.promote_types(x.dtype, torch.float32)
        self.by_row = torch.tensor(by_row, device=x.device, dtype=exact)[:, None, :]

    def _unflattened(self, x: torch.Tensor) -> torch.Tensor:
        batch, rows = self.session.batch, len(self.by_row)  # type: ignore[arg-type]
        if rows == 1:
            return x[None]
        if len(x) != batch * self.session.length:
            raise UnsupportedSiteError(
                f"{self.name} gets {len(x)} of the batch's tokens without saying whose they are "
                "(a mixture of experts routes them), so rows cannot differ there. Give one "
                "control without a gate for all rows."
            )
        return x.view(batch, -1, x.shape[-1])

    def _note(self, between: torch.Tensor, y: torch.Tensor) -> None:
        """Keep the move at the last prompt token, for the receipt."""
        batch = self.session.batch
        if len(between) % batch:
            return  # routed tokens: nobody knows whose
        at = self.session.last_prompt_tokens(len(between) // batch)
        if at is not None:
            rows, at = torch.arange(batch, device=y.device), at.to(y.device)
            moved = between.view(batch, -1, between.shape[-1])[rows, at] @ self._left
            self._move = moved.detach(), y.view(batch, -1, y.shape[-1])[rows, at].detach()

    def sizes(self) -> list[float]:
        """Norm of the change by the norm of the output before it, one per row."""
        if self._move is None:
            return [0.0] * self.session.batch
        change, y = (t.float().norm(dim=-1) for t in self._move)
        return (change / y.clamp_min(1e-6)).tolist()
