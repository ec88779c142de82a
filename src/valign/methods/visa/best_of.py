"""Best of n: the reward without the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from valign.methods.visa.reward import Marks, Reward
from valign.methods.visa.rewriter import Rewriter, Task


@dataclass(frozen=True)
class Candidates:
    """Rewrites of one task with their marks, in the order they were drawn."""

    texts: tuple[str, ...]
    marks: Marks

    @property
    def best(self) -> int:
        """The one with the highest reward; the earliest of equals."""
        return int(np.argmax(self.marks.total))

    @property
    def text(self) -> str:
        return self.texts[self.best]


def best_of(
    rewriter: Rewriter,
    reward: Reward,
    tasks: Sequence[Task],
    targets: np.ndarray,
    *,
    n: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
) -> list[Candidates]:
    """Draw n rewrites of each task and mark them.

    Args:
        targets: wanted scores, (n_tasks, n_values).
        n: candidates a task; the first is greedy, so that one candidate is the plain rewrite.
        temperature: of the others.
    """
    greedy = rewriter.rewrite(tasks, batch_size=batch_size)
    again = [task for task in tasks for _ in range(n - 1)]
    drawn = rewriter.rewrite(again, temperature=temperature, seed=seed, batch_size=batch_size)
    texts = [(first, *drawn[i * (n - 1) : (i + 1) * (n - 1)]) for i, first in enumerate(greedy)]
    flat = [text for own in texts for text in own]
    marks = reward.mark(
        [task.source for task in tasks for _ in range(n)],
        flat,
        np.repeat(np.asarray(targets, dtype=float).reshape(len(tasks), -1), n, axis=0),
        [task.prompt for task in tasks for _ in range(n)],
    )
    return [
        Candidates(
            own,
            Marks(
                *(
                    getattr(marks, name)[i * n : (i + 1) * n]
                    for name in ("parts", "scores", "fidelity", "distance", "total")
                )
            ),
        )
        for i, own in enumerate(texts)
    ]
