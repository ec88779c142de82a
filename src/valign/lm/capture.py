"""Streaming activation capture: one pass over the texts, memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from valign.control.edit import Site
from valign.lm.errors import NotAppliedError
from valign.lm.hooks import hooked
from valign.lm.host import HostModel
from valign.lm.render import Prompt
from valign.lm.score import pad_right

Example = tuple[Prompt | None, str]
"""(prompt or None, text): an answer to a prompt, or a bare text."""
Where = Literal["last", "mean", "tokens", "prompt"]


def capture(
    lm: HostModel,
    examples: Sequence[Example],
    sites: Sequence[Site],
    *,
    positions: Where = "last",
    batch_size: int = 16,
) -> Iterator[tuple[list[int], dict[Site, torch.Tensor]]]:
    """Activations of the sites, batch by batch.

    Args:
        positions: `last` token of the text, `mean` over the text's own tokens, each of its
            `tokens` in a row of its own, or the last token of the rendered `prompt` (the text is
            then ignored).

    Yields:
        (numbers, {site: (rows, width) float32 on the CPU}): row i belongs to example numbers[i].
        With `tokens` an example has as many rows as its text has tokens, in their order.
        Batches come sorted by length, so keep the numbers.

    Raises:
        UnsupportedSiteError: the family lacks a site.
        PromptTooLongError: an example that does not fit the context.
        NotAppliedError: the model never ran a site.
    """
    rows, heads = [], []
    for prompt, text in examples:
        ids, head = (
            (lm.encode_prompt(prompt), 0)
            if positions == "prompt" and prompt is not None
            else lm.encode_example(prompt, text)
        )
        rows.append(ids)
        heads.append(head)
    lm.check_length(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    body = lm.model
    if all(site.kind != "logits" for site in sites):  # spare the vocabulary projection
        body = getattr(lm.model, lm.model.base_model_prefix, lm.model)
    for begin in range(0, len(order), batch_size):
        batch = order[begin : begin + batch_size]
        ids, mask = pad_right([rows[i] for i in batch], lm)
        ends = mask.sum(1)
        starts = torch.tensor([min(heads[i], len(rows[i]) - 1) for i in batch]).to(ends)
        found: dict[Site, torch.Tensor] = {}
        readers = [(s, _reader(found, s, starts, ends, positions)) for s in sites]
        with torch.no_grad(), hooked(lm.layout, readers):
            body(input_ids=ids, attention_mask=mask, use_cache=False)
        if missing := [str(site) for site in sites if site not in found]:
            raise NotAppliedError(
                f"{lm.name} never ran {', '.join(missing)}, so nothing could be read there. "
                "Pass layout=LayoutNames(...) if they were found wrongly."
            )
        if positions == "tokens":
            yield torch.tensor(batch).repeat_interleave((ends - starts).cpu()).tolist(), found
        else:
            yield batch, found


def _reader(
    found: dict[Site, torch.Tensor],
    site: Site,
    starts: torch.Tensor,
    ends: torch.Tensor,
    positions: Where,
):
    def read(a: torch.Tensor) -> None:
        first, end = starts.to(a.device), ends.to(a.device)
        if positions in ("mean", "tokens"):
            columns = torch.arange(a.shape[1], device=a.device)
            inside = (columns >= first[:, None]) & (columns < end[:, None])
            if positions == "mean":
                weights = inside.float() / inside.sum(1, keepdim=True).clamp_min(1)
                picked = torch.bmm(weights[:, None, :], a.float())[:, 0]
            else:
                picked = a[inside]
        else:
            picked = a[torch.arange(len(a), device=a.device), end - 1]
        found[site] = picked.float().cpu()

    return read


def site_gradients(
    lm: HostModel,
    examples: Sequence[Example],
    sites: Sequence[Site],
    *,
    batch_size: int = 8,
) -> dict[Site, torch.Tensor]:
    """Gradient of each text's mean token log-probability by a shift of each site.

    The shift is one vector for all positions that predict the text's tokens. The model's own
    parameters get no gradient.

    Returns:
        {site: (n_examples, width) float32 on the CPU}.
    """
    encoded = [lm.encode_example(prompt, text) for prompt, text in examples]
    lm.check_length([ids for ids, _ in encoded])
    result = {site: torch.zeros(len(encoded), lm.site_width(site)) for site in sites}
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i][0]))
    for begin in range(0, len(order), batch_size):
        batch = order[begin : begin + batch_size]
        ids, mask = pad_right([encoded[i][0] for i in batch], lm)
        heads = torch.tensor([max(encoded[i][1], 1) for i in batch]).to(ids)
        columns = torch.arange(ids.shape[1], device=ids.device)
        predicts = (columns >= heads[:, None] - 1) & (columns < mask.sum(1)[:, None] - 1)
        shifts = {
            site: torch.zeros(len(batch), 1, lm.site_width(site), device=ids.device,
                              dtype=lm.dtype, requires_grad=True)
            for site in sites
        }  # fmt: skip
        changes = [(site, _shifter(shifts[site], predicts)) for site in sites]
        with torch.enable_grad(), hooked(lm.layout, changes):
            logits = lm.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            logp = logits[:, :-1].float().log_softmax(-1)
            chosen = logp.gather(2, ids[:, 1:, None])[..., 0]
            inside = predicts[:, :-1]
            score = ((chosen * inside).sum(1) / inside.sum(1).clamp_min(1)).sum()
            gradients = torch.autograd.grad(score, list(shifts.values()))
        for site, gradient in zip(shifts, gradients, strict=True):
            result[site][batch] = gradient[:, 0].float().cpu()
    return result


def _shifter(shift: torch.Tensor, predicts: torch.Tensor):
    def change(a: torch.Tensor) -> torch.Tensor:
        return a + shift.to(a.device) * predicts[:, :, None].to(a)

    return change
