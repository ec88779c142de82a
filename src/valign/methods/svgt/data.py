"""What SVGT learns from: labelled answers, and the hidden states the host has on them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from valign.control import Site
from valign.corpora.types import Answer, Corpus
from valign.lm import HostModel
from valign.lm.hooks import hooked
from valign.lm.score import pad_right
from valign.methods.errors import FitError
from valign.methods.readings import MIN_PAIRS
from valign.values import Profile

MOST_TOKENS = 256
"""Of a prompt and of an answer; longer ones lose their far ends (the paper's limit)."""


@dataclass(frozen=True)
class Example:
    """An answer with a label per score.

    Attributes:
        labels: 1 where the value is served, 0 where it is absent or argued against.
        weights: how much each label counts; 0 where nothing is known.
    """

    prompt: str | None
    text: str
    labels: tuple[float, ...]
    weights: tuple[float, ...]


def scored_values(corpus: Corpus) -> tuple[str, ...]:
    """Values that a score can be learned for: enough pairs, or enough answers of both kinds."""
    found = []
    for value in corpus.system.names:
        labels = [dict(answer.labels).get(value, 0.0) > 0 for answer in corpus.answers]
        least = min(sum(labels), len(labels) - sum(labels))
        if len(corpus.pairs_of(value)) >= MIN_PAIRS or least >= MIN_PAIRS:
            found.append(value)
    return tuple(found)


def need_scores(corpus: Corpus, target: Profile) -> tuple[str, ...]:
    """The values scored, which hold those of the target.

    Raises:
        FitError: a value of the target has too few labelled texts.
    """
    scores = scored_values(corpus)
    for value in target.named:
        if value not in scores:
            raise FitError(
                f"The corpus {corpus.name} teaches nothing about {value}: {MIN_PAIRS} contrast "
                f"pairs are needed, or {MIN_PAIRS} answers with the label and as many without. "
                f"Add rows with value={value}, positive and negative to its pairs."
            )
    return scores


def labelled(
    corpus: Corpus, scores: Sequence[str], *, pairs: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """Training and validation examples (one in eight, whole pairs together).

    A pair labels its own value on both sides. For the other values both sides count as lacking
    it, with a weight that makes all of them together as heavy as the own pairs (ours); without
    that a score learns "some value" instead of its own.

    Args:
        pairs: at most so many of each value; of answers and neutral texts at most so many a score.
    """
    rng = random.Random(seed)
    train: list[Example] = []
    held: list[Example] = []
    elsewhere = 0.5 / max(len(scores) - 1, 1)
    for value in scores:
        rows = list(corpus.pairs_of(value))
        rng.shuffle(rows)
        for number, pair in enumerate(rows[:pairs]):
            sides = [
                Example(
                    pair.prompt,
                    text,
                    tuple(float(side and name in (value, *pair.also)) for name in scores),
                    tuple(1.0 if name == value else elsewhere for name in scores),
                )
                for side, text in ((True, pair.positive), (False, pair.negative))
            ]
            (held if number % 8 == 7 else train).extend(sides)
    answers = [(a, dict(a.labels)) for a in corpus.answers]
    answers += [(Answer(n.id, n.answer, (), n.prompt), {}) for n in corpus.neutral if n.answer]
    rng.shuffle(answers)
    for number, (answer, labels) in enumerate(answers[: pairs * len(scores)]):
        example = Example(
            answer.prompt,
            answer.text,
            tuple(float(labels.get(name, 0.0) > 0) for name in scores),
            (1.0,) * len(scores),
        )
        (held if number % 8 == 7 else train).append(example)
    rng.shuffle(train)
    return train, held


def wished(
    corpus: Corpus, target: Profile, *, pairs: int, seed: int
) -> tuple[list[tuple[str | None, str]], list[tuple[str | None, str]]]:
    """Answers as they should become, and everyday answers that should stay, as (prompt, text).

    Towards a value: its positive sides and the answers that serve it; away: its negative sides and
    the answers that argue against it. A value's number is its share.

    Raises:
        FitError: none of the texts has a prompt to stand behind.
    """
    rng = random.Random(seed)
    wanted: list[tuple[str | None, str]] = []
    for value, score in target.named.items():
        own = [(p.prompt, p.positive if score > 0 else p.negative) for p in corpus.pairs_of(value)]
        own += [
            (a.prompt, a.text) for a in corpus.answers if dict(a.labels).get(value, 0.0) * score > 0
        ]
        rng.shuffle(own)
        wanted += own[: max(1, round(pairs * abs(score)))]
    if not wanted:
        raise FitError(
            f"The corpus {corpus.name} holds no answer that shows {target}. Add pairs, or answers "
            "with labels."
        )
    stay: list[tuple[str | None, str]] = [(n.prompt, n.answer) for n in corpus.neutral if n.answer]
    rng.shuffle(stay)
    rng.shuffle(wanted)
    return wanted, stay[: max(len(wanted) // 3, 1)]


def tokens_of(lm: HostModel, prompt: str | None, text: str) -> tuple[list[int], int]:
    """Token ids and how many of them are the prompt; a bare text counts its first token as one."""
    ids, head = lm.encode_example(prompt, text)
    if not head:
        return ids[:MOST_TOKENS], 1
    cut = max(head - MOST_TOKENS, 0)
    return ids[cut : head + MOST_TOKENS], head - cut


@dataclass(frozen=True, eq=False)
class States:
    """Hidden states of examples at one block.

    Attributes:
        rows: per example (tokens, width), in bfloat16 on the CPU.
        heads: prompt tokens of each.
        labels, weights: (n, scores).
    """

    rows: list[torch.Tensor]
    heads: list[int]
    labels: torch.Tensor
    weights: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and spread of each coordinate over all tokens, (width,)."""
        count, total, square = 0, 0.0, 0.0
        for row in self.rows:
            row = row.double()
            count, total, square = count + len(row), total + row.sum(0), square + (row * row).sum(0)
        mean = total / count
        return mean.float(), (square / count - mean * mean).clamp_min(1e-12).sqrt().float()

    def batch(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """States padded on the right (b, longest, width), token counts and prompt lengths."""
        rows = [self.rows[i].float() for i in numbers]
        return (
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
            torch.tensor([len(row) for row in rows]),
            torch.tensor([self.heads[i] for i in numbers]),
        )


class _Enough(Exception):
    """Leaves the forward pass once block l* has been read."""


def read_states(lm: HostModel, examples: Sequence[Example], layer: int) -> States:
    """The frozen host's states on examples; the blocks above `layer` do not run."""
    encoded = [tokens_of(lm, e.prompt, e.text) for e in examples]
    lm.check_length([ids for ids, _ in encoded])
    rows: list[torch.Tensor] = [torch.empty(0)] * len(examples)
    body = getattr(lm.model, lm.model.base_model_prefix, lm.model)
    for batch in _by_length([len(ids) for ids, _ in encoded], 16):
        ids, mask = pad_right([encoded[i][0] for i in batch], lm)

        def keep(a: torch.Tensor, batch: list[int] = batch) -> None:
            for number, i in enumerate(batch):
                rows[i] = a[number, : len(encoded[i][0])].to("cpu", torch.bfloat16, copy=True)
            raise _Enough

        with torch.no_grad(), suppress(_Enough), hooked(lm.layout, [(Site("resid", layer), keep)]):
            body(input_ids=ids, attention_mask=mask, use_cache=False)
    return States(
        rows,
        [head for _, head in encoded],
        torch.tensor([e.labels for e in examples]),
        torch.tensor([e.weights for e in examples]),
    )


def _by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for begin in range(0, len(order), size):
        yield order[begin : begin + size]


def shuffled_batches(n: int, size: int, *, seed: int, lengths: Sequence[int]) -> list[list[int]]:
    """Batches of one epoch: rows of like length together, in an order the seed decides."""
    rng = random.Random(seed)
    order = sorted(range(n), key=lambda i: (lengths[i] // 16, rng.random()))
    batches = [order[begin : begin + size] for begin in range(0, n, size)]
    rng.shuffle(batches)
    return batches
