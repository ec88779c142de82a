"""The proof at start that steering is live: every bank moves the output, and nothing else does.

A graph that was compiled or captured without the op, a cached artefact of the plain model, or a
block that never runs would serve plain text under a profile's name. So each bank is lit up in
turn, in place, with something that cannot but move the output, and a dummy step is run just as
the engine runs its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from valign.deploy.bundle import Bank
from valign.deploy.vllm_plugin.steering import Steering
from valign.deploy.vllm_plugin.untested import StartError


def prove_live(steering: Steering, run: Callable[[], torch.Tensor]) -> None:
    """Light up every bank in turn.

    Args:
        run: one dummy step, to the hidden states (tokens, width) after the last block.

    Raises:
        StartError: the output does not follow the banks.
    """
    steering.idle = False
    steering.gated = False
    plain = run()
    if not torch.equal(plain, run()):
        raise StartError("The model's dummy step does not repeat itself, so nothing can be proved.")
    for bank in (bank for banks in steering.banks.values() for bank in banks):
        with _lit(steering, bank):
            moved = run()
        if torch.equal(plain, moved):
            raise StartError(
                f"Steering is not live: the {bank.kind} bank at {bank.site} moves nothing. If "
                "this server reuses compiled graphs of another, delete its torch_compile_cache; "
                "`valign serve --doctor` says whether this version of vLLM was tested."
            )
    if not torch.equal(plain, run()):
        raise StartError("Steering does not go away when it is switched off.")


@contextmanager
def _lit(steering: Steering, bank: Bank) -> Iterator[None]:
    """A bank's first row as strong as can be, for all tokens; then as it was."""
    saved = {name: tensor.clone() for name, tensor in bank.tensors.items()}
    rows = steering.coefficients[bank.scope]
    try:
        for name, tensor in bank.tensors.items():
            row = tensor[0]
            if name in ("vector", "direction", "factor"):
                # No constant: a layer norm would take that away again.
                ramp = torch.linspace(-3, 3, row.numel(), device=row.device)
                row.copy_(ramp)
            elif name == "weight":
                row.zero_()
            elif name in ("gap", "strength"):
                row.fill_(1.0)
            elif name in ("low", "high") and bank.kind == "clamp":
                row.copy_(torch.linspace(-3, 3, row.numel(), device=row.device))
            else:  # the clip of a push
                row.fill_(-torch.inf if name == "low" else torch.inf)
        rows[:, int(bank.slots[0])] = 1.0
        yield
    finally:
        rows.zero_()
        for name, tensor in saved.items():
            bank.tensors[name].copy_(tensor)
