"""The ideal controller: how much of each value the generator itself shows when one value is raised.

``do`` intervenes on the target's slot and leaves the others as they are; ``see`` selects answers in
which the target happens to be spoken for, so its neighbours come along by the true coupling. No
method can honestly leak less than ``do``, and leaking like ``see`` is what mere selection of texts
does.
"""

from __future__ import annotations

import numpy as np

from .dice import Dice
from .lexicon import N_VALUES
from .scenarios import rates, scenarios
from .slots import draw_slots


def _draw(dice: Dice, split: str, target: int | None, mode: str) -> np.ndarray:
    base = rates(dice.pick(scenarios(split)))
    if target is None:
        slots = draw_slots(dice, base)
    elif mode == "do":
        # The other slots keep their coupling among themselves: only the target is set.
        slots = draw_slots(dice, base)
        slots[target] = (1, 3)
    else:
        slots = draw_slots(dice, base)
        while slots.get(target, (0, 0))[0] <= 0:
            slots = draw_slots(dice, base)
    row = np.zeros(N_VALUES)
    row[list(slots)] = 1
    return row


def ideal_presence(n: int, seed: int = 0, mode: str = "do", split: str = "heldout") -> np.ndarray:
    """Presence of each value under the ideal controller.

    Args:
        n: answers per row.
        seed: another seed gives other answers.
        mode: ``"do"`` or ``"see"``.
        split: which scenarios.

    Returns:
        (11, 10) float: row 0 without control, row 1 + v with value v raised; columns are mean
        presences.
    """
    if mode not in ("do", "see"):
        raise ValueError(f"unknown mode {mode!r}; expected 'do' or 'see'")
    out = np.zeros((N_VALUES + 1, N_VALUES))
    for row in range(N_VALUES + 1):
        # The same scenarios in every row, as in a real comparison on fixed prompts.
        drawn = [
            _draw(Dice("ideal", seed, i), split, row - 1 if row else None, mode) for i in range(n)
        ]
        out[row] = np.mean(drawn, axis=0)
    return out


def leakage(presence: np.ndarray) -> np.ndarray:
    """(10, 10) shift of every value (columns) when one (rows) is raised; the diagonal is gain."""
    return presence[1:] - presence[:1]
