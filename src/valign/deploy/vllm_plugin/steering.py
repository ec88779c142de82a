"""The banks on the device, and `valign::steer`, the op that stands in the model's graph.

The op is opaque to the compiler and finds the banks by itself, so a compiled graph depends on
which sites are edited and on nothing else. It reads persistent buffers that the host fills before
each step, so CUDA graphs may replay it. A row whose coefficients are 0 leaves exactly as it came.

vLLM keeps the residual stream in two parts, a block's output and what it is still to be added to;
the stream is their sum, and the change goes into the first.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from valign.control.edit import Site
from valign.deploy.bundle import Bank, Bundle
from valign.deploy.vllm_plugin.request import place
from valign.deploy.vllm_plugin.untested import StartError


@dataclass(frozen=True, eq=False)
class _GateReading:
    """The gates that read one site.

    Attributes:
        weight: (width, n). bias: (n,).
        gates: (n,) their columns of the readings.
        decide: (m,) columns that have been read at all their sites once this one is read.
        slots: (m,) the slots these belong to.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    gates: torch.Tensor
    decide: torch.Tensor
    slots: torch.Tensor


class Steering:
    """The state of one worker: banks, and the coefficients of the tokens of the current step.

    Args:
        bundle: the profiles.
        tokens: most tokens of a step.
        requests: most requests that are known at once, preempted ones included; grows no more.
        device: of the model.

    Attributes:
        coefficients: scope -> (tokens, slots); filled by the host before each step.
        idle: no token of this step is steered; only set where no graph is replayed.
        gated: some request of this step has a gate.
    """

    def __init__(self, bundle: Bundle, *, tokens: int, requests: int, device: torch.device):
        self.coefficients = {
            scope: torch.zeros(tokens, bundle.slots, device=device)
            for scope in ("all", "generation")
        }
        self.banks: dict[str, list[Bank]] = {}
        for bank in bundle.banks:
            self.banks.setdefault(str(bank.site), []).append(bank.to(device))
        self.gates = sorted(bundle.gates)
        self.readings = torch.zeros(tokens, len(self.gates), device=device)
        self.opened = torch.zeros(requests + 1, len(self.gates), device=device)
        self.state = torch.zeros(tokens, dtype=torch.long, device=device)
        self.is_last = torch.zeros(tokens, 1, dtype=torch.bool, device=device)
        self._reading = _gate_readings(bundle.gates, self.gates, device)
        self.sites = sorted(
            {Site.parse(s) for s in self.banks} | {Site.parse(s) for s in self._reading}, key=place
        )
        self.idle, self.gated = False, bool(self.gates)

    @property
    def memory(self) -> int:
        """Bytes of all banks and buffers."""
        banks = [bank for banks in self.banks.values() for bank in banks]
        tensors = [t for bank in banks for t in (*bank.tensors.values(), bank.slots)]
        tensors += [*self.coefficients.values(), self.readings, self.opened, self.state]
        for reading in self._reading.values():
            tensors += [reading.weight, reading.bias]
        return sum(t.numel() * t.element_size() for t in (*tensors, self.is_last))

    def apply(self, hidden: torch.Tensor, residual: torch.Tensor | None, site: str) -> torch.Tensor:
        """What becomes of (tokens, width) at a site; `hidden` itself is left as it is."""
        if self.idle:
            return hidden.clone()
        n = hidden.shape[0]
        banks = self.banks.get(site, ())
        reading = self._reading.get(site) if self.gated else None
        constant = all(bank.kind == "add" for bank in banks)
        if reading is None and constant:  # a constant does not look at what it is added to
            return self._added(hidden, banks, n)
        x = hidden.float() if residual is None else hidden.float() + residual.float()
        if reading is not None:
            self._read_gates(reading, x, n)
            if constant:
                return self._added(hidden, banks, n)
        out = x
        for bank in banks:
            out = bank.apply(out, self.coefficients[bank.scope][:n])
        if residual is None:
            return out.to(hidden.dtype)
        return (hidden.float() + (out - x)).to(hidden.dtype)

    def _added(self, hidden: torch.Tensor, banks, n: int) -> torch.Tensor:
        out = hidden
        for bank in banks:
            out = bank.apply(out, self.coefficients[bank.scope][:n])
        return hidden.clone() if out is hidden else out

    def _read_gates(self, at: _GateReading, x: torch.Tensor, n: int) -> None:
        """Readings of this site; where a gate has been read at its last site, its decision.

        Only the last prompt token decides. The decision is kept in the request's own row of
        `opened`, row 0 takes what nobody asked for. A closed gate takes its slot's coefficients.
        """
        readings = self.readings[:n]
        before = readings.index_select(1, at.gates)
        readings.index_copy_(1, at.gates, torch.maximum(before, torch.addmm(at.bias, x, at.weight)))
        if not len(at.decide):
            return
        state, is_last = self.state[:n], self.is_last[:n]
        known = self.opened.index_select(0, state).index_select(1, at.decide)
        now = torch.where(is_last, (readings.index_select(1, at.decide) > 0).float(), known)
        to = torch.where(is_last[:, 0], state, 0)
        self.opened.index_put_((to[:, None], at.decide[None, :]), now)
        rows = self.coefficients["generation"][:n]
        rows.index_copy_(1, at.slots, rows.index_select(1, at.slots) * now)


def _gate_readings(
    gates: Mapping[int, Mapping[Site, tuple[torch.Tensor, torch.Tensor]]],
    order: list[int],
    device: torch.device,
) -> dict[str, _GateReading]:
    columns = {slot: column for column, slot in enumerate(order)}
    sites = sorted({site for own in gates.values() for site in own}, key=place)
    found: dict[str, _GateReading] = {}
    for site in sites:
        here = [slot for slot in order if site in gates[slot]]
        done = [slot for slot in here if max(gates[slot], key=place) == site]

        def index(slots: list[int]) -> torch.Tensor:
            return torch.tensor(slots, dtype=torch.long, device=device)

        found[str(site)] = _GateReading(
            torch.stack([gates[slot][site][0] for slot in here], dim=1).to(device),
            torch.stack([gates[slot][site][1] for slot in here]).to(device),
            index([columns[slot] for slot in here]),
            index([columns[slot] for slot in done]),
            index(done),
        )
    return found


_current: Steering | None = None
_owner: weakref.ref[Any] | None = None
_library: torch.library.Library | None = None


def _steer(hidden: torch.Tensor, residual: torch.Tensor | None, site: str) -> torch.Tensor:
    assert _current is not None, "valign::steer ran in a process without a bundle"
    return _current.apply(hidden, residual, site)


def make_current(steering: Steering, owner: Any) -> None:
    """Let `torch.ops.valign.steer` use this state.

    Args:
        owner: the model runner it belongs to.

    Raises:
        StartError: another runner of this process uses the op.
    """
    global _current, _owner, _library
    if _owner is not None and _owner() not in (None, owner):
        gc.collect()
        if _owner() is not None:
            raise StartError(
                "Another engine of this process serves a bundle. Delete it first, or leave "
                "VLLM_ENABLE_V1_MULTIPROCESSING at 1, which gives each engine a process."
            )
    if _library is None:
        _library = torch.library.Library("valign", "DEF")
        _library.define("steer(Tensor hidden, Tensor? residual, str site) -> Tensor")
        for backend in ("CPU", "CUDA"):
            _library.impl("steer", _steer, backend)
        torch.library.register_fake(
            "valign::steer", lambda hidden, residual, site: torch.empty_like(hidden), lib=_library
        )
    _current, _owner = steering, weakref.ref(owner)


def hook(model: torch.nn.Module, steering: Steering, *, blocks: str, reader: str) -> None:
    """Put the op at every site, as module hooks, which the compiler traces into the graph.

    Args:
        model: vLLM's model.
        blocks: where it keeps its blocks.
        reader: the module of a block that reads its neurons.
    """
    layers = model.get_submodule(blocks)
    for site in steering.sites:
        block = layers[site.layer]  # type: ignore[index]
        if site.kind == "resid":
            block.register_forward_hook(_after_block(str(site)))
        else:
            block.get_submodule(reader).register_forward_pre_hook(_before_reader(str(site)))


def _after_block(site: str):
    def after(module, args, output):
        if isinstance(output, tuple):
            hidden, residual = output
            return torch.ops.valign.steer(hidden, residual, site), residual
        return torch.ops.valign.steer(output, None, site)

    return after


def _before_reader(site: str):
    def before(module, args):
        return (torch.ops.valign.steer(args[0], None, site), *args[1:])

    return before
