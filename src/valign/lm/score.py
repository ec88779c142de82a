"""Teacher-forced passes: log-probabilities of given answers, steered and unsteered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F

from valign.control.control import Control, TextControl
from valign.control.rewrite import RewriteControl
from valign.lm.errors import UnsupportedSiteError
from valign.lm.generate import per_row
from valign.lm.host import HostModel
from valign.lm.kinds import batches, open_session
from valign.lm.render import Prompt, encode
from valign.lm.steer import Controls

T = TypeVar("T")
Answer = str | Sequence[int]
"""A text, or the tokens that a generation returned (a text need not split into them again)."""


def answer_logits(
    lm: HostModel,
    prompts: Sequence[Prompt | None],
    answers: Sequence[Answer],
    control: Controls,
    reduce: Callable[[int, torch.Tensor, torch.Tensor], T],
    batch_size: int,
) -> list[T]:
    """Whatever is made of each row's logits, which are gone afterwards.

    Rows run right-padded; `reduce` gets (row, logits (t, vocabulary) float32, targets (t,)).

    Raises:
        UnsupportedSiteError: a rewriting control, which has no token probabilities.
    """
    controls = per_row(control, len(answers))
    if any(isinstance(c, RewriteControl) for c in controls):
        raise UnsupportedSiteError(
            "A rewriting control acts on finished answers and has no token probabilities of its "
            "own. Generate with it, and score the texts under the plain model (control=None)."
        )
    heads, rows = [], []
    for prompt, answer, c in zip(prompts, answers, controls, strict=True):
        said = (
            encode(lm.tokenizer, answer, templated=prompt is not None)
            if isinstance(answer, str)
            else list(answer)
        )
        instruction = c.instruction if isinstance(c, TextControl) else None
        before = said[:1] if prompt is None else lm.encode_prompt(prompt, instruction)
        lm.check_length([before])
        rows.append(said if prompt is None else before + said)
        heads.append(len(before))  # the first token of a bare text has no prediction
    lm.check_length(rows)
    found: list[T | None] = [None] * len(rows)
    for batch in batches(list(map(len, rows)), controls, batch_size):
        ids, mask = pad_right([rows[i] for i in batch], lm)
        acting: list[Control | None] = [
            None if (c := controls[i]) is None or c.kind == "text" else c for i in batch
        ]
        one: Any = acting[0] if all(c is acting[0] for c in acting) else acting
        lengths = [heads[i] for i in batch]
        skipped = min(lengths) - 1
        with torch.no_grad(), open_session(lm, one, prompt_lengths=lengths):
            logits = _late_logits(lm, ids, mask, skipped)
        for number, i in enumerate(batch):
            span = slice(heads[i] - 1 - skipped, len(rows[i]) - 1 - skipped)
            targets = ids[number, heads[i] : len(rows[i])]
            found[i] = reduce(i, logits[number, span].float(), targets)
    return found  # type: ignore[return-value]


def answer_nll(
    lm: HostModel, ids: torch.Tensor, mask: torch.Tensor, heads: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """-log p of the answers' tokens with its gradient, under whatever session is open.

    Args:
        ids, mask: rows padded on the right, (batch, longest).
        heads: prompt tokens of each row, at least 1.

    Returns:
        (batch, n) nats, and which of them belong to an answer; the others mean nothing.
    """
    skipped = min(heads) - 1
    logits = _late_logits(lm, ids, mask, skipped)
    targets = ids[:, skipped + 1 :]
    nll = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), targets, reduction="none")
    columns = torch.arange(skipped + 1, ids.shape[1], device=ids.device)
    behind = columns >= torch.tensor(heads, device=ids.device)[:, None]
    return nll, (behind & mask[:, skipped + 1 :].bool()).to(nll.device)


def _late_logits(
    lm: HostModel, ids: torch.Tensor, mask: torch.Tensor, skipped: int
) -> torch.Tensor:
    """Logits behind the first `skipped` tokens, which all rows spend on their prompts.

    Where the model can leave them out they are never projected to the vocabulary.
    """
    inputs: dict[str, Any] = dict(input_ids=ids, attention_mask=mask, use_cache=False)
    if "logits_to_keep" in lm.accepts:
        inputs["logits_to_keep"] = ids.shape[1] - skipped
    logits = lm.model(**inputs).logits
    return logits[:, skipped:] if logits.shape[1] == ids.shape[1] else logits


def pad_right(rows: Sequence[Sequence[int]], lm: HostModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, both (batch, longest)."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), lm.pad_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    return ids.to(lm.device), mask.to(lm.device)


def token_logprobs(
    lm: HostModel,
    prompts: Sequence[Prompt | None],
    answers: Sequence[Answer],
    control: Controls = None,
    *,
    batch_size: int = 32,
) -> list[torch.Tensor]:
    """Log-probability of each answer token, one tensor of shape (tokens,) per row."""

    def pick(row: int, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        chosen = logits.gather(1, targets[:, None])[:, 0]
        return (chosen - logits.logsumexp(dim=1)).cpu()

    return answer_logits(lm, prompts, answers, control, pick, batch_size)


def answer_distributions(
    lm: HostModel,
    prompts: Sequence[Prompt | None],
    answers: Sequence[Answer],
    control: Controls = None,
    *,
    batch_size: int = 32,
) -> list[torch.Tensor]:
    """Log-probabilities over the vocabulary at each answer token, (tokens, vocabulary) a row."""
    return answer_logits(
        lm, prompts, answers, control, lambda _, x, __: x.log_softmax(-1).cpu(), batch_size
    )


def token_kl(
    lm: HostModel,
    prompts: Sequence[Prompt | None],
    answers: Sequence[Answer],
    control: Controls,
    unsteered: Sequence[torch.Tensor],
    *,
    batch_size: int = 32,
) -> list[torch.Tensor]:
    """KL(steered, unsteered) in nats at each answer token, one tensor of (tokens,) per row.

    `unsteered` is what `answer_distributions` gave for the same rows without a control.
    """

    def divergence(row: int, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        q = logits.log_softmax(-1).cpu()
        return (q.exp() * (q - unsteered[row])).sum(-1).clamp_min(0)

    return answer_logits(lm, prompts, answers, control, divergence, batch_size)
