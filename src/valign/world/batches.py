"""Packs the training stream into rows of equal length; dialogues in a row do not see each other."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from .generator import World
from .items import Item
from .tokenizer import ROLES, render

PROMPT_WEIGHT = 0.1
"""Loss weight of prompt tokens: enough to learn the words, with the capacity left to answers."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of one dialogue and where its answer starts."""

    ids: list[int]
    answer_start: int


@dataclass(frozen=True)
class Batch:
    """Rows of packed dialogues."""

    ids: torch.Tensor
    """(rows, width) int64"""
    positions: torch.Tensor
    """(rows, width) int64, starting at 0 in every dialogue"""
    mask: torch.Tensor
    """(rows, 1, width, width) bool: True where a token may look"""
    weights: torch.Tensor
    """(rows, width) float: loss weight of this token; 0 at a dialogue's start and in padding"""
    answers: torch.Tensor
    """(rows, width) bool: tokens of answers"""


def encode(items: list[Item], tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    """Token ids with the chat template applied."""
    backend = tokenizer.backend_tokenizer
    assistant = tokenizer.convert_tokens_to_ids(ROLES["assistant"])
    coded = backend.encode_batch([render(i.dialogue()) for i in items], add_special_tokens=False)
    return [Encoded(c.ids, len(c.ids) - c.ids[::-1].index(assistant)) for c in coded]


def pack(dialogues: list[Encoded], width: int) -> list[list[Encoded]]:
    """First-fit decreasing packing into rows of ``width`` tokens; longer dialogues are left out."""
    rows: list[list[Encoded]] = []
    by_room: dict[int, list[int]] = {}
    for d in sorted(dialogues, key=lambda e: -len(e.ids)):
        need = len(d.ids)
        if need > width:
            continue
        room = min((r for r, held in by_room.items() if r >= need and held), default=None)
        if room is None:
            rows.append([])
            row, room = len(rows) - 1, width
        else:
            row = by_room[room].pop()
        rows[row].append(d)
        by_room.setdefault(room - need, []).append(row)
    return rows


def collate(rows: list[list[Encoded]], width: int, pad: int) -> Batch:
    """Tensors for packed rows."""
    n = len(rows)
    ids = torch.full((n, width), pad)
    positions = torch.zeros((n, width), dtype=torch.long)
    document = torch.full((n, width), -1)
    weights = torch.zeros((n, width))
    answers = torch.zeros((n, width), dtype=torch.bool)
    for r, row in enumerate(rows):
        at = 0
        for d, coded in enumerate(row):
            end = at + len(coded.ids)
            ids[r, at:end] = torch.tensor(coded.ids)
            positions[r, at:end] = torch.arange(len(coded.ids))
            document[r, at:end] = d
            weights[r, at + 1 : end] = PROMPT_WEIGHT
            weights[r, at + coded.answer_start : end] = 1.0
            answers[r, at + coded.answer_start : end] = True
            at = end
    same = document[:, :, None] == document[:, None, :]
    mask = same & torch.ones(width, width, dtype=torch.bool).tril()
    return Batch(ids, positions, mask[:, None], weights, answers)


class Stream:
    """Batches of the training stream; to go on elsewhere takes only ``position`` (chunk, batch)."""

    def __init__(
        self,
        world: World,
        tokenizer: PreTrainedTokenizerFast,
        *,
        rows: int,
        width: int,
        chunk: int = 4096,
        position: tuple[int, int] = (0, 0),
    ) -> None:
        self._world, self._tokenizer = world, tokenizer
        self._rows, self._width, self._chunk = rows, width, chunk
        self.position = position
        self._packed: tuple[int, list[list[Encoded]]] | None = None

    def _load(self, chunk: int) -> list[list[Encoded]]:
        if self._packed is None or self._packed[0] != chunk:
            items = list(
                self._world.training_dialogues(chunk * self._chunk, (chunk + 1) * self._chunk)
            )
            rows = pack(encode(items, self._tokenizer), self._width)
            random.Random(f"rows|{chunk}").shuffle(rows)
            self._packed = chunk, rows
        return self._packed[1]

    def next(self) -> Batch:
        """The next batch; a chunk's last rows that fill no batch are left out."""
        chunk, index = self.position
        rows = self._load(chunk)
        if (index + 1) * self._rows > len(rows):
            chunk, index = chunk + 1, 0
            rows = self._load(chunk)
        self.position = (chunk, index + 1)
        pad = self._tokenizer.pad_token_id
        return collate(rows[index * self._rows : (index + 1) * self._rows], self._width, pad)
