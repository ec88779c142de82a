"""What a questionnaire is: items, each for a value, and one rating scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from valign.values.errors import ValignError


class QuestionnaireError(ValignError, ValueError):
    """A questionnaire that is not there, or a file that does not hold one."""


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        id: unique in its questionnaire.
        value: the value it speaks for; None counts only for the respondent's mean rating.
        sign: -1 where a high rating speaks against the value.
    """

    id: str
    text: str
    value: str | None
    sign: Literal[-1, 1] = 1


@dataclass(frozen=True)
class Questionnaire:
    """Items with one rating scale.

    Attributes:
        values: what is scored, in the system's order where there is a system.
        system: name of the value system, or None where the values are an inventory's own.
        question: how an item is put; `{item}` stands for its text.
        options: answers from least to most.
        points: what each option counts, rising, shape of `options`.
    """

    name: str
    title: str
    source: str
    licence: str
    values: tuple[str, ...]
    question: str
    options: tuple[str, ...]
    points: tuple[float, ...]
    items: tuple[Item, ...]
    system: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"Questionnaire({self.name!r}, {len(self)} items, {len(self.values)} values)"

    def key(self) -> np.ndarray:
        """Which item speaks for which value: -1, 0 or +1, shape (n_items, n_values)."""
        column = {value: j for j, value in enumerate(self.values)}
        key = np.zeros((len(self.items), len(self.values)))
        for row, item in enumerate(self.items):
            if item.value is not None:
                key[row, column[item.value]] = item.sign
        return key

    def questions(self) -> tuple[str, ...]:
        """The items as they are put, without the options."""
        return tuple(self.question.replace("{item}", item.text) for item in self.items)
