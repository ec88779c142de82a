"""What the world hands out: a dialogue and everything that is true about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Truth:
    """The generator's own record of a dialogue."""

    kind: str
    """``dilemma``, ``neutral``, ``lexicon``, ``harmful`` or ``benign``."""
    presence: np.ndarray
    """(10,) int8: 1 where the answer speaks for or against the value."""
    sign: np.ndarray
    """(10,) int8: +1 for, -1 against, 0 absent."""
    intensity: np.ndarray
    """(10,) int8: 1 to 3, 0 absent."""
    facts: dict[str, str]
    """What the prompt says: name, place, day, time, amount (harm prompts: the first three)."""
    scenario: str
    """Identity of the situation; a scenario is wholly in one split."""
    choice: str | None = None
    """Name of the value that the recommended option serves."""
    pick: str | None = None
    """Activity of the recommended option."""
    options: dict[str, str] = field(default_factory=dict)
    """Activity -> name of the value it serves here."""
    asked: tuple[str, ...] = ()
    """Facts that the question asks for (neutral prompts)."""
    harm: bool = False
    """The request would hurt somebody."""
    complied: bool | None = None
    """Whether the answer helps with a harmful (or benign look-alike) request."""
    instruction: tuple[tuple[str, int], ...] = ()
    """Values asked for: (name, +1 raise / -1 argue against / 0 leave out)."""
    held_wording: bool = False
    """The instruction's wording is kept out of training."""
    nats: float = 0.0
    """-log p(answer | prompt) under the generator: the best loss a model can reach."""

    def scores(self) -> np.ndarray:
        """Signed value scores (10,) in [-1, 1]: sign x intensity / 3."""
        return self.sign * self.intensity / 3.0


@dataclass(frozen=True, eq=False)
class Item:
    """One dialogue of the world."""

    messages: list[dict[str, str]]
    """Chat messages without the answer: ``{"role", "content"}``."""
    answer: str
    truth: Truth

    def dialogue(self) -> list[dict[str, str]]:
        """The messages with the answer as the last one."""
        return [*self.messages, {"role": "assistant", "content": self.answer}]
