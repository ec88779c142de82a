"""The loop that all three stages share: epochs, the best state kept, checkpoints, resume."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from valign.methods.progress import report


@dataclass(frozen=True)
class Stage:
    """One stage of the curriculum.

    Attributes:
        name: for progress and for the checkpoint's file.
        groups: parameter groups as AdamW takes them, each with its own `lr`.
        epochs: passes over the data.
        batches: epoch -> its batches; must depend on the epoch alone, or resuming would differ.
        loss: of one batch.
        error: validation figure after an epoch, smaller is better.
    """

    name: str
    groups: Sequence[dict[str, Any]]
    epochs: int
    batches: Callable[[int], Sequence[Any]]
    loss: Callable[[Any], torch.Tensor]
    error: Callable[[], float]


def run_stage(
    stage: Stage, module: nn.Module, *, folder: Path | None, key: Mapping[str, Any]
) -> list[float]:
    """Train `module`, leave its best state in it, and return the validation figure per epoch.

    Args:
        folder: where a checkpoint is written after every epoch; the same `key` goes on from it.
        key: everything that decides the outcome, JSON-able.

    A stage that was stopped, also by kill -9, ends as it would have without the stop.
    """
    file = None
    if folder is not None:
        digest = hashlib.sha256(json.dumps([stage.name, key], sort_keys=True).encode())
        file = folder / f"{stage.name}-{digest.hexdigest()[:16]}.safetensors"
    optimiser = torch.optim.AdamW(stage.groups, weight_decay=1e-5)
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    errors, best = _resume(file, module, optimiser, trained)
    for epoch in range(len(errors), stage.epochs):
        batches = stage.batches(epoch)
        module.train()
        for number, batch in enumerate(batches):
            report(stage.name, epoch * len(batches) + number, stage.epochs * len(batches))
            optimiser.zero_grad()
            stage.loss(batch).backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
        module.eval()
        errors.append(stage.error())
        if errors[-1] <= min(errors):
            best = {k: v.detach().clone() for k, v in module.state_dict().items()}
        _save(file, module, optimiser, trained, errors, best)
    if best:
        module.load_state_dict(best)
    module.eval()
    report(stage.name, 1, 1)
    return errors


def _save(
    file: Path | None,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    trained: Sequence[nn.Parameter],
    errors: Sequence[float],
    best: Mapping[str, torch.Tensor],
) -> None:
    if file is None:
        return
    tensors = {f"now.{k}": v for k, v in module.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in best.items()}
    for number, parameter in enumerate(trained):
        for name, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{number}.{name}"] = torch.as_tensor(value)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    save_file(
        {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
        part,
        metadata={"valign": json.dumps({"errors": list(errors)})},
    )
    os.replace(part, file)


def _resume(
    file: Path | None,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    trained: Sequence[nn.Parameter],
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """What an earlier start left: validation figures and the best state."""
    if file is None or not file.is_file():
        return [], {}
    try:
        with safe_open(file, framework="pt") as opened:
            errors = json.loads(opened.metadata()["valign"])["errors"]
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return [], {}  # a damaged checkpoint costs a training, not a result
    device = trained[0].device
    tensors = {k: v.to(device) if v.ndim else v for k, v in tensors.items()}
    module.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("now.")})
    for number, parameter in enumerate(trained):
        prefix = f"optimiser.{number}."
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if own:
            optimiser.state[parameter] = own
    return errors, {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
