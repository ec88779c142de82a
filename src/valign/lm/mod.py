"""Multi-objective decoding: several policies choose each token together.

    log p(y_t | x, y_<t)  =  sum_i w_i log p_i(y_t | x, y_<t)  -  log Z,     sum_i w_i = 1

(MOD, arXiv 2406.18853, for the reverse KL.) The policies are controls on one model, so a step is
one batch with a row per policy: k policies cost k rows, and no second model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from valign.control.control import Control, TextControl
from valign.control.rewrite import RewriteControl
from valign.lm.errors import UnsupportedSiteError
from valign.lm.generate import Decoder, Generation
from valign.lm.host import HostModel
from valign.lm.kinds import check
from valign.lm.render import Prompt
from valign.lm.sampling import Sampler

Weights = Sequence[float] | Sequence[Sequence[float]]


def generate_together(
    lm: HostModel,
    prompts: Sequence[Prompt],
    policies: Sequence[Control | None],
    weights: Weights,
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
) -> Generation:
    """Answer prompts with tokens that several policies choose together.

    Args:
        lm: the host model.
        prompts: questions or conversations.
        policies: controls, None for the plain model; all of one kind besides None and text.
        weights: w_i, one per policy, or for each prompt a list of them. They add up to 1; free
            numbers otherwise. To lean less on all policies give None, the plain model, a share.
        max_new_tokens, temperature, top_p: as in `valign.lm.generate`.
        seed: prompt i samples with (seed, i), as in `valign.lm.generate`.
        batch_size: rows per batch, policies counted; does not change any text.

    Returns:
        The answers; the receipts are those of the first policy.

    Raises:
        UnsupportedSiteError: policies or weights that do not fit together, or the model.
        PromptTooLongError: a prompt that leaves no room for the answer.
    """
    k = len(policies)
    table = torch.tensor(weights, dtype=torch.float64)
    table = table.expand(len(prompts), k) if table.shape == (k,) else table
    if not k or table.shape != (len(prompts), k):
        raise UnsupportedSiteError(
            f"{k} policies on {len(prompts)} prompts need {k} weights, or {k} for each prompt; "
            f"got shape {tuple(table.shape)}."
        )
    if not torch.isfinite(table).all() or (table.sum(1) - 1).abs().max() > 1e-6:
        raise UnsupportedSiteError(
            "The weights of a row add up to 1; give the rest to None, the plain model."
        )
    for policy in {id(p): p for p in policies if p is not None}.values():
        if isinstance(policy, RewriteControl):
            raise UnsupportedSiteError("A rewrite acts on finished answers, not on tokens.")
        check(lm, policy)
    words = [p.instruction if isinstance(p, TextControl) else None for p in policies]
    rows = [[lm.encode_prompt(prompt, said) for said in words] for prompt in prompts]
    for number in range(k):
        lm.check_length([row[number] for row in rows], max_new_tokens)
    found = Generation(*([None] * len(prompts) for _ in range(5)))  # type: ignore[arg-type]
    order = sorted(range(len(rows)), key=lambda i: max(map(len, rows[i])))
    size = max(batch_size // k, 1)
    for begin in range(0, len(order), size):
        batch = order[begin : begin + size]
        sampler = Sampler(
            [hash((seed, i)) & 0x7FFFFFFF for i in batch],
            steps=max_new_tokens, temperature=temperature, top_p=top_p,
        )  # fmt: skip
        said = Decoder(lm, None, [i for i in batch for _ in policies]).run(
            [row for i in batch for row in rows[i]],
            [policy for _ in batch for policy in policies],
            _Together(sampler, table[batch]),
            max_new_tokens,
        )
        for i, (tokens, receipt, ended) in zip(batch, said[::k], strict=True):
            found.texts[i] = lm.tokenizer.decode(tokens, skip_special_tokens=True)
            found.token_ids[i], found.receipts[i], found.finished[i] = tokens, receipt, ended
            found.prompt_tokens[i] = len(rows[i][0])
    return found


class _Together:
    """A sampler for rows in groups of k policies; each group gets one token.

    Args:
        sampler: chooses a token per group.
        weights: (groups, k).
    """

    def __init__(self, sampler: Sampler, weights: torch.Tensor):
        self._sampler, self._weights = sampler, weights

    def __call__(self, logits: torch.Tensor, step: int) -> torch.Tensor:
        groups, k = self._weights.shape
        each = logits.double().log_softmax(-1).view(groups, k, -1)
        w = self._weights.to(each.device)[..., None]
        joint = torch.where(w == 0, 0.0, w * each).sum(1)
        return self._sampler(joint, step).repeat_interleave(k)
