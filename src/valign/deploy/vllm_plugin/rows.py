"""Each step: a row of coefficients for every token of the batch, written before the model runs.

vLLM lays the new tokens of all requests side by side. A request's tokens stand at positions
computed .. computed + scheduled - 1 of its own text, whether the prompt comes in one piece, in
chunks, partly from the prefix cache, or again after a preemption; so position and prompt length
say everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from valign.deploy.vllm_plugin.request import Catalog, Mix
from valign.deploy.vllm_plugin.steering import Steering


class Rows:
    """Fills the buffers of a `Steering`.

    Args:
        steering: whose coefficients are filled.
        catalog: reads what requests ask for.
        replayed: graphs are replayed, so no step may be left out.
    """

    def __init__(self, steering: Steering, catalog: Catalog, *, replayed: bool):
        self._steering, self._catalog, self._replayed = steering, catalog, replayed
        slots = steering.coefficients["all"].shape[1]
        self._scopes: dict[str, np.ndarray] = {}
        for scope in ("all", "generation"):
            held = {
                slot
                for banks in steering.banks.values()
                for bank in banks
                if bank.scope == scope
                for slot in bank.slots.tolist()
            }
            self._scopes[scope] = np.array([slot in held for slot in range(slots)], np.float32)
        self._known: dict[str, tuple[Mix, np.ndarray]] = {}
        self._states: dict[str, int] = {}
        self._free = list(range(1, steering.opened.shape[0]))
        self._written = 0
        self._settled: tuple[list[str], np.ndarray] | None = None

    def step(
        self,
        requests: Mapping[str, Any],
        ids: Sequence[str],
        computed: np.ndarray,
        scheduled: np.ndarray,
    ) -> None:
        """Write the rows of a step.

        Args:
            requests: all requests vLLM knows: id -> its cached state.
            ids: requests of this step, in the order of their tokens.
            computed: (n,) tokens of each that are computed already.
            scheduled: (n,) new tokens of each.
        """
        if self._same_answers(ids, computed, scheduled):
            return
        self._forget(requests)
        known = [self._known.get(i) or self._learn(i, requests[i]) for i in ids]
        self._settled = None
        if not any(mix for mix, _ in known):
            self._clear(0)
            self._steering.idle = not self._replayed
            return
        self._steering.idle = False
        prompts = np.array([requests[i].num_prompt_tokens for i in ids])
        owner = np.repeat(np.arange(len(ids)), scheduled)
        starts = np.cumsum(scheduled) - scheduled
        at = np.arange(len(owner)) - (starts - computed[: len(ids)])[owner]
        last = prompts[owner] - 1
        wanted = np.stack([row for _, row in known])[owner]
        self._write("all", wanted * self._scopes["all"])
        self._write("generation", wanted * self._scopes["generation"] * (at >= last)[:, None])
        self._gates(ids, known, owner, at == last)
        self._clear(len(owner))
        if (at > last).all() and len(ids) == len(owner):
            self._settled = list(ids), prompts

    def _same_answers(self, ids, computed: np.ndarray, scheduled: np.ndarray) -> bool:
        """Whether the requests of the last step decode one more token each."""
        if self._settled is None or self._settled[0] != ids:
            return False
        return bool((scheduled == 1).all() and (computed[: len(ids)] >= self._settled[1]).all())

    def _learn(self, name: str, state: Any) -> tuple[Mix, np.ndarray]:
        mix = self._catalog.mix(getattr(state.sampling_params, "extra_args", None))
        row = np.zeros(self._steering.coefficients["all"].shape[1], np.float32)
        for slot, coefficient in mix.coefficients:
            row[slot] = coefficient
        self._known[name] = mix, row
        return mix, row

    def _forget(self, requests: Mapping[str, Any]) -> None:
        if len(self._known) <= len(requests) and self._known.keys() <= requests.keys():
            return
        for name in self._known.keys() - requests.keys():
            del self._known[name]
            if name in self._states:
                self._free.append(self._states.pop(name))

    def _gates(self, ids, known, owner: np.ndarray, is_last: np.ndarray) -> None:
        s = self._steering
        if not s.gates:
            return
        gates = set(s.gates)
        states = np.zeros(len(ids), np.int64)
        for number, (name, (mix, _)) in enumerate(zip(ids, known, strict=True)):
            if any(slot in gates for slot, _ in mix.coefficients):
                if name not in self._states:
                    self._states[name] = self._free.pop()
                states[number] = self._states[name]
        s.gated = self._replayed or bool(states.any())
        if not s.gated:
            return
        n = len(owner)
        s.readings[:n] = -torch.inf
        s.state[:n].copy_(torch.from_numpy(states[owner]))
        s.is_last[:n].copy_(torch.from_numpy((is_last & (states[owner] > 0))[:, None]))

    def _write(self, scope: str, rows: np.ndarray) -> None:
        self._steering.coefficients[scope][: len(rows)].copy_(torch.from_numpy(rows))

    def _clear(self, used: int) -> None:
        """Nothing of the last step may stay behind the rows of this one."""
        if used < self._written:
            for rows in self._steering.coefficients.values():
                rows[used : self._written].zero_()
            self._steering.is_last[used : self._written] = False
        self._written = used
