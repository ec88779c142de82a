"""Stages 1 and 2: the value module learns to score answers, first alone, then in context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from valign.lm.bridge_module import LEAD, ValueModule
from valign.methods.svgt.data import States, shuffled_batches
from valign.methods.svgt.training import Stage, run_stage

STEP = 8
"""Every so many answer tokens the score of the text so far is trained."""
_CONTEXT = ("prompt", "ask", "key", "value", "mix", "mix_norm", "blend")
"""What stage 2 trains at its full rate: the conditional path."""


def logits_along(
    value: ValueModule,
    states: torch.Tensor,
    lengths: torch.Tensor,
    heads: torch.Tensor,
    *,
    conditional: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of each answer after 0, STEP, 2 STEP ... tokens and at its end.

    The same reading as in guidance: the response begins with the prompt's last tokens, the prompt
    is the context.

    Args:
        states: (b, longest, width). lengths: tokens of each row. heads: of its prompt.

    Returns:
        (b, n, scores) and (b, n) weights that sum to 1 and grow towards the end, since a label
        speaks of the whole answer (ours).
    """
    device = states.device
    lengths, heads = lengths.to(device), heads.to(device)
    columns = torch.arange(states.shape[1], device=device)
    start, last = heads - 1, lengths - 1
    count = int((last - start).max()) // STEP + 2
    moments = torch.minimum(
        start[:, None] + STEP * torch.arange(count, device=device), last[:, None]
    )
    inside = (columns > start[:, None] - LEAD) & (columns < lengths[:, None])
    mass, weight = value.features(states)
    mass = (mass * inside[..., None, None]).cumsum(1)
    weight = (weight * inside[..., None]).cumsum(1)
    rows = torch.arange(len(states), device=device)[:, None]
    context = None
    if conditional:
        end = int(heads.max())
        context = value.context(states[:, :end], columns[:end] < heads[:, None])
    z = value.encode((mass[rows, moments], weight[rows, moments]), context)
    said = (moments - start[:, None]).float()
    fresh = torch.cat([said.new_ones(len(said), 1), (said[:, 1:] > said[:, :-1]).float()], dim=1)
    share = fresh * (0.1 + said / said.amax(1, keepdim=True).clamp_min(1)) ** 2
    return value.score(z), share / share.sum(1, keepdim=True)


def value_loss(
    value: ValueModule, states: States, numbers: Sequence[int], *, conditional: bool
) -> torch.Tensor:
    """Weighted binary cross entropy over scores and moments."""
    device = value.mean.device
    batch, lengths, heads = states.batch(numbers)
    logits, share = logits_along(value, batch.to(device), lengths, heads, conditional=conditional)
    labels = states.labels[list(numbers), None, :].to(device).expand_as(logits)
    weights = states.weights[list(numbers), None, :].to(device) * share[..., None]
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (loss * weights).sum() / weights.sum().clamp_min(1e-6)


@torch.no_grad()
def final_scores(value: ValueModule, states: States, *, conditional: bool) -> torch.Tensor:
    """Logits (n, scores) of whole answers."""
    found = []
    for begin in range(0, len(states), 32):
        numbers = range(begin, min(begin + 32, len(states)))
        batch, lengths, heads = states.batch(numbers)
        batch = batch.to(value.mean.device)
        found.append(logits_along(value, batch, lengths, heads, conditional=conditional)[0][:, -1])
    return torch.cat(found).cpu()


def balanced_accuracy(logits: torch.Tensor, states: States) -> list[float]:
    """Per score, over the rows whose label is certain; 0.5 where one side is missing."""
    found = []
    for number in range(logits.shape[1]):
        sure = states.weights[:, number] >= 1
        said, true = logits[sure, number] > 0, states.labels[sure, number] > 0.5
        sides = [said[true].float().mean(), (~said)[~true].float().mean()]
        both = true.any() and (~true).any()
        found.append(float(sum(sides) / 2) if both else 0.5)
    return found


def train_value(
    states: States,
    held: States,
    *,
    width: int,
    size: int,
    heads: int,
    epochs: int,
    rate: float,
    batch_size: int,
    seed: int,
    device: torch.device,
    folder: Path | None,
    key: Mapping[str, Any],
) -> tuple[ValueModule, dict[str, Any]]:
    """The value module after both stages, and its validation figures.

    Stage 1 trains the response path and the head; stage 2 the conditional path at the full rate
    and the rest at a fiftieth of it (the paper's ratio, 5e-4 to 1e-5).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        value = ValueModule(width=width, size=size, scores=states.labels.shape[1], heads=heads)
    mean, spread = states.moments()
    value.mean.copy_(mean)
    value.std.copy_(spread.clamp_min(1e-3 * float(spread.mean())))
    value.to(device)
    late = [p for n, p in value.named_parameters() if n.split(".")[0] in _CONTEXT]
    early = [p for n, p in value.named_parameters() if n.split(".")[0] not in _CONTEXT]
    watched = held if len(held) else states
    everything = list(range(len(watched)))
    lengths = [len(row) for row in states.rows]

    def error(conditional: bool) -> float:
        with torch.no_grad():
            parts = [everything[i : i + 64] for i in range(0, len(everything), 64)]
            losses = [
                float(value_loss(value, watched, part, conditional=conditional)) * len(part)
                for part in parts
            ]
        return sum(losses) / len(everything)

    figures: dict[str, Any] = {}
    for number, (name, groups, conditional) in enumerate((
        ("value", [dict(params=early, lr=rate)], False),
        ("context", [dict(params=late, lr=rate), dict(params=early, lr=rate / 50)], True),
    )):  # fmt: skip
        stage = Stage(
            name=name,
            groups=groups,
            epochs=epochs,
            batches=lambda epoch, number=number: shuffled_batches(  # type: ignore[misc]
                len(states), batch_size, seed=seed * 1000 + number * 100 + epoch, lengths=lengths
            ),
            loss=lambda batch, c=conditional: value_loss(value, states, batch, conditional=c),  # type: ignore[misc]
            error=lambda c=conditional: error(c),  # type: ignore[misc]
        )
        run_stage(stage, value, folder=folder, key=key)
        found = balanced_accuracy(final_scores(value, watched, conditional=conditional), watched)
        figures["conditional" if conditional else "unconditional"] = [round(x, 3) for x in found]
    value.requires_grad_(False).eval()
    return value, figures
