"""Preferences as token rows, and what models make of them: the reference columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from valign.control import Control
from valign.corpora.types import Pair
from valign.lm import HostModel
from valign.lm.score import pad_right


@dataclass(frozen=True)
class Sample:
    """Token ids of a prompt and of two answers, each with the token that ends it."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def tokenised(lm: HostModel, pairs: Sequence[Pair]) -> list[Sample]:
    """Pairs as rows: the positive side is chosen. A plain text's first token is its prompt.

    Raises:
        PromptTooLongError: a pair that does not fit the context.
    """
    end = lm.tokenizer.eos_token_id
    out = []
    for pair in pairs:
        sides = [lm.encode_example(pair.prompt, text) for text in (pair.positive, pair.negative)]
        heads = [max(head, 1) for _, head in sides]
        if sides[0][0][: heads[0]] != sides[1][0][: heads[1]]:  # plain texts that begin differently
            start = [] if lm.tokenizer.bos_token_id is None else [lm.tokenizer.bos_token_id]
            rows = [(start or [lm.pad_id], ids) for ids, _ in sides]
        else:
            rows = [(ids[:head], ids[head:]) for (ids, _), head in zip(sides, heads, strict=True)]
        closing = [] if end is None else [int(end)]
        out.append(Sample(rows[0][0], rows[0][1] + closing, rows[1][1] + closing))
    lm.check_length([s.prompt + side for s in out for side in (s.chosen, s.rejected)])
    return out


def logps(
    lm: HostModel,
    samples: Sequence[Sample],
    control: Control | None = None,
    *,
    batch_size: int = 16,
) -> torch.Tensor:
    """log p of both answers under a control, (n, 2) on the CPU: chosen, rejected."""
    rows = [(s.prompt + side, len(s.prompt)) for s in samples for side in (s.chosen, s.rejected)]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    out = torch.empty(len(rows))
    for begin in range(0, len(rows), batch_size):
        batch = order[begin : begin + batch_size]
        ids, mask = pad_right([rows[i][0] for i in batch], lm)
        heads = torch.tensor([rows[i][1] for i in batch])
        with torch.no_grad(), lm.controlled(control, prompt_lengths=heads.tolist()):
            logits = lm.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        said = logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        columns = torch.arange(1, ids.shape[1], device=ids.device)
        inside = (columns >= heads.to(ids)[:, None]) & (columns < mask.sum(1)[:, None])
        out[batch] = (said * inside.to(said.device)).sum(1).cpu()
    return out.reshape(-1, 2)


def simpo_columns(samples: Sequence[Sample], margin: float) -> torch.Tensor:
    """Reference columns that turn the length-normalised loss into SimPO's, (n, 2).

    Args:
        margin: gamma / beta of the source (arXiv 2405.14734).
    """
    chosen = torch.tensor([float(len(s.chosen)) for s in samples])
    return torch.stack([margin * chosen, torch.zeros_like(chosen)], 1)
