"""Learning an edit from contrast pairs by gradient descent, through the engine that will run it.

Nothing of the edit's arithmetic is written twice: the control that is being learned acts in the
forward pass as it will when it is used, and the loss flows back into its tensors. The model's own
weights get no gradient.

    log p_c(y)  log-probability of all tokens of y, from the last prompt token on, under control c
    gain(y)     log p_c(y) - log p(y), p the plain model
    preference  -log sigma(beta (gain(positive) - gain(negative)))          (DPO, arXiv 2305.18290)
    lm          -log p_c(positive) / tokens
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from valign.control import EditsControl
from valign.corpora.types import Pair
from valign.lm import HostModel
from valign.lm.score import answer_nll, pad_right
from valign.methods.progress import report
from valign.methods.readings import sides

Loss = Literal["preference", "lm"]


def learn(
    lm: HostModel,
    pairs: Sequence[Pair],
    parameters: Sequence[torch.Tensor],
    control: Callable[[float], EditsControl],
    *,
    what: str,
    loss: Loss,
    both_ways: bool,
    beta: float,
    epochs: int,
    rate: float,
    batch_size: int,
    seed: int,
) -> list[float]:
    """Descend on the parameters in place (AdamW, learning rate falling to zero by a cosine).

    Args:
        parameters: leaf tensors, float32 on the CPU.
        control: the control made of the parameters as they are, in a direction: 1, or -1 for the
            same control the other way round.
        what: name of the work, for whoever listens to its progress.
        both_ways: draw the direction at random for every batch and swap what is preferred with it
            (BiPO, arXiv 2406.00045); only for `preference`.
        beta: of `preference`.
        epochs: passes over the pairs.
        rate: highest learning rate.
        batch_size: pairs per step.

    Returns:
        Mean loss of each epoch.
    """
    rng = torch.Generator().manual_seed(seed)
    encoded = [lm.encode_example(prompt, text) for prompt, text in sides(pairs)]
    lm.check_length([ids for ids, _ in encoded])
    n = len(pairs)
    batches = -(-n // batch_size)
    with torch.no_grad():
        plain = torch.cat([_logprobs(lm, encoded[i : i + 16], None) for i in range(0, 2 * n, 16)])
    tokens = torch.tensor([len(ids) - max(head, 1) for ids, head in encoded]).clamp_min(1)
    for parameter in parameters:
        parameter.requires_grad_()
    descent = torch.optim.AdamW(list(parameters), lr=rate, weight_decay=0.0)
    cooling = torch.optim.lr_scheduler.CosineAnnealingLR(descent, epochs * batches)
    history = []
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(n, generator=rng).split(batch_size):
            way = 1.0
            if both_ways and torch.rand((), generator=rng) < 0.5:
                way = -1.0
            with torch.enable_grad():
                acting = control(way)
                if loss == "lm":
                    said = _logprobs(lm, [encoded[i] for i in rows.tolist()], acting)
                    found = -(said / tokens[rows]).mean()
                else:
                    both = torch.cat([rows, rows + n])
                    said = _logprobs(lm, [encoded[i] for i in both.tolist()], acting)
                    better, worse = (said - plain[both]).chunk(2)
                    found = -torch.nn.functional.logsigmoid(way * beta * (better - worse)).mean()
                descent.zero_grad()
                found.backward(inputs=list(parameters))
            descent.step()
            cooling.step()
            total += float(found.detach()) * len(rows)
        history.append(total / n)
        report(what, epoch + 1, epochs)
    for parameter in parameters:
        parameter.requires_grad_(False)
    return history


def _logprobs(
    lm: HostModel, encoded: Sequence[tuple[list[int], int]], control: EditsControl | None
) -> torch.Tensor:
    """Log-probability of each text under the control, (rows,) on the CPU, with its gradient."""
    heads = [max(head, 1) for _, head in encoded]
    ids, mask = pad_right([row for row, _ in encoded], lm)
    with lm.controlled(control, prompt_lengths=heads):
        nll, inside = answer_nll(lm, ids, mask, heads)
    return -(nll * inside).sum(1).cpu()
