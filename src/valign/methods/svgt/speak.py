"""Stage 3: the bridge learns to make the frozen host say what the value module asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from valign.lm import HostModel
from valign.lm.bridge import BridgeSession
from valign.lm.bridge_module import Guide
from valign.lm.score import answer_nll, pad_right
from valign.methods.svgt.data import shuffled_batches, tokens_of
from valign.methods.svgt.training import Stage, run_stage
from valign.methods.svgt.value import logits_along


@dataclass(frozen=True)
class Losses:
    """Weights of the three losses (`ce`, `target`, `norm`) and the norm's free play `slack`."""

    ce: float
    target: float
    norm: float
    slack: float


def bridge_loss(
    lm: HostModel,
    guide: Guide,
    rows: Sequence[tuple[list[int], int]],
    losses: Losses,
    aimed: Sequence[bool] | None = None,
) -> torch.Tensor:
    """ce CE(answer) + target L_target + norm L_norm, teacher-forced under the guide.

        L_target = mean(softplus(x) + 2 relu(x)),  x = shortfall of the guided answer's scores
        L_norm   = max(| mean|B| / mean|h| - 1 | - slack, 0)

    The cross entropy is averaged per row, then over rows. Scores are read one block above the
    splice, as in the released code: below it nothing is guided. Without a block there, or without
    bridge tokens, the term it belongs to is left out.

    Args:
        rows: (token ids, prompt tokens).
        aimed: rows that L_target is for; None for all.
    """
    ids, mask = pad_right([tokens for tokens, _ in rows], lm)
    heads = [head for _, head in rows]
    with BridgeSession(lm, [guide] * len(rows), prompt_lengths=heads) as session:
        nll, inside = answer_nll(lm, ids, mask, heads)
    loss = losses.ce * ((nll * inside).sum(1) / inside.sum(1).clamp_min(1)).mean()
    chosen = torch.tensor([True] * len(rows) if aimed is None else list(aimed))
    if losses.target and session.above is not None and chosen.any():
        scores = logits_along(
            guide.value, session.above[chosen.to(ids.device)], mask.sum(1).cpu()[chosen],
            torch.tensor(heads)[chosen], conditional=True,
        )[0][:, -1]  # fmt: skip
        named = guide.side != 0
        missing = (guide.side * (guide.goal - scores))[:, named]
        loss = loss + losses.target * (F.softplus(missing) + 2 * missing.relu()).mean()
    if losses.norm and session.bridge is not None:
        ratio = session.bridge.norm(dim=-1).mean() / session.beside.float().norm(dim=-1).mean()
        loss = loss + losses.norm * ((ratio - 1).abs() - losses.slack).clamp_min(0)
    return loss


def train_bridge(
    lm: HostModel,
    guide: Guide,
    wanted: Sequence[tuple[str | None, str]],
    stay: Sequence[tuple[str | None, str]],
    *,
    losses: Losses,
    epochs: int,
    rate: float,
    batch_size: int,
    seed: int,
    folder: Path | None,
    key: Mapping[str, Any],
) -> list[float]:
    """Train `guide.bridge` in place; validation losses per epoch (one in eight wanted texts).

    Only the bridge learns. The gate moves three times as fast as the rest: it begins near zero
    and everything but the norm reaches the host through it (ours; one rate in the released code).
    Everyday answers are only asked to stay as likely as they are: they carry no target loss.
    """
    rows = [_with_end(lm, *tokens_of(lm, *text)) for text in [*wanted, *stay]]
    lm.check_length([tokens for tokens, _ in rows])
    named = set(range(len(wanted)))
    held = [i for i in sorted(named) if i % 8 == 7] or [0]
    used = [i for i in range(len(rows)) if i not in held or len(named) < 8]
    lengths = [len(rows[i][0]) for i in used]

    def loss(numbers: Sequence[int]) -> torch.Tensor:
        own = [used[i] for i in numbers]
        return bridge_loss(lm, guide, [rows[i] for i in own], losses, [i in named for i in own])

    def error() -> float:
        with torch.no_grad():
            found = [
                float(bridge_loss(lm, guide, [rows[i] for i in held[j : j + batch_size]], losses))
                for j in range(0, len(held), batch_size)
            ]
        return sum(found) / len(found)

    others = [p for n, p in guide.bridge.named_parameters() if n != "gate"]
    stage = Stage(
        name="bridge",
        groups=[dict(params=others, lr=rate), dict(params=[guide.bridge.gate], lr=3 * rate)],
        epochs=epochs,
        batches=lambda epoch: shuffled_batches(
            len(used), batch_size, seed=seed * 1000 + 300 + epoch, lengths=lengths
        ),
        loss=loss,
        error=error,
    )
    with frozen(lm):
        return run_stage(stage, guide.bridge, folder=folder, key=key)


def _with_end(lm: HostModel, tokens: list[int], head: int) -> tuple[list[int], int]:
    """The answer learns to end, too."""
    end = lm.tokenizer.eos_token_id
    room = len(tokens) < lm.context_length
    return ([*tokens, end], head) if end is not None and room else (tokens, head)


class frozen:
    """Keeps the host's parameters out of the graph; afterwards they are as they were."""

    def __init__(self, lm: HostModel):
        self._asked = [(p, p.requires_grad) for p in lm.model.parameters()]

    def __enter__(self) -> None:
        for parameter, _ in self._asked:
            parameter.requires_grad_(False)

    def __exit__(self, *error: object) -> None:
        for parameter, asked in self._asked:
            parameter.requires_grad_(asked)
