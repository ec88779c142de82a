"""Finding a target for a person who can only say which of two rewrites is better.

A pattern search over shifts that uses comparisons alone (Hooke and Jeeves 1961): move one value by
a step, keep the move if the person likes it better and go on in the same direction, else try the
other direction, then the next value; after a round without success the step is halved, and below
the grid the search is over. The paper names an adaptive search for Pareto-optimal targets and does
not say how it works; this one is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from valign.methods.visa.errors import RewriteError
from valign.methods.visa.loop import Rewritten, Visa

Better = Callable[[Rewritten, Rewritten], bool]
"""(what is kept so far, the new one) -> whether the new one is better."""


@dataclass(frozen=True)
class Found:
    """The end of a search.

    Attributes:
        best: the rewrite that won every comparison.
        shift: value -> the shift it was asked for.
        front: rewrites that no other beats in closeness to the source, size of the shift and rank
            at once, latest winners first.
        asked: comparisons made.
    """

    best: Rewritten
    shift: dict[str, float]
    front: tuple[Rewritten, ...]
    asked: int


class TargetSearch:
    """Proposes shifts and learns from yes and no.

    Args:
        values: the values that may move, the likeliest first.
        step: first step.
        least: smallest step; the grid's.
        start: where to begin; nothing is shifted by default.

    Raises:
        RewriteError: no values, or a step below the grid.
    """

    def __init__(
        self,
        values: Sequence[str],
        *,
        step: float = 1.0,
        least: float = 0.5,
        start: dict[str, float] | None = None,
    ):
        if not values or not 0 < least <= step:
            raise RewriteError(
                f"A search needs values to move and a step ({step}) of at least the grid's "
                f"({least})."
            )
        self._values, self._step, self._least = list(values), step, least
        self.best = {**dict.fromkeys(values, 0.0), **(start or {})}
        self._place, self._way, self._luck = 0, 1, False
        self._seen = {self._key(self.best)}
        self._new: dict[str, float] | None = None

    def propose(self) -> dict[str, float] | None:
        """The next shift to show, or None when the search is over."""
        while self._step >= self._least:
            value = self._values[self._place]
            there = max(-2.0, min(2.0, self.best[value] + self._way * self._step))
            new = {**self.best, value: there}
            if self._key(new) not in self._seen:
                self._new = new
                return dict(new)
            self._turn()
        return None

    def answer(self, better: bool) -> None:
        """Whether the proposed one was better than the best so far.

        Raises:
            RewriteError: nothing was proposed.
        """
        if self._new is None:
            raise RewriteError("There is no open question; call `propose` first.")
        self._seen.add(self._key(self._new))
        new, self._new = self._new, None
        if better:
            self.best, self._luck = new, True
        else:
            self._turn()

    def _turn(self) -> None:
        if self._way == 1:
            self._way = -1
            return
        self._way, self._place = 1, self._place + 1
        if self._place == len(self._values):
            self._place = 0
            if not self._luck:
                self._step /= 2
            self._luck = False

    @staticmethod
    def _key(shift: dict[str, float]) -> tuple[float, ...]:
        return tuple(round(x, 6) for x in shift.values())


def search(
    visa: Visa,
    text: str,
    better: Better,
    *,
    values: Sequence[str] | None = None,
    budget: int = 30,
    prompt: str | None = None,
) -> Found:
    """Ask for comparisons until the search ends or the budget is spent.

    Only rewrites that pass the loop's thresholds are shown: the person judges values, the loop
    guards the facts.

    Args:
        better: asks the person.
        values: that may move; all by default.
        budget: comparisons at most; rewrites at most three times as many.
    """
    system = visa.rewriter.system
    tried = TargetSearch(values or system.names, least=1 / visa.rewriter.steps)
    best = visa.rewrite(text, shift={}, prompt=prompt)
    winners, asked = [best], 0
    for _ in range(3 * budget):
        shift = tried.propose() if asked < budget else None
        if shift is None:
            break
        new = visa.rewrite(text, shift=shift, prompt=prompt)
        liked = False
        if new.passed and new.text != best.text:
            asked += 1
            liked = better(best, new)
        tried.answer(liked)
        if liked:
            best = new
            winners.append(new)
    shift = {name: size for name, size in tried.best.items() if size}
    return Found(best, shift, pareto(list(reversed(winners))), asked)


def pareto(ranked: Sequence[Rewritten]) -> tuple[Rewritten, ...]:
    """Those that none before them (better liked) beats in both consistency and smallness."""
    kept: list[Rewritten] = []
    for one in ranked:
        if not any(_consistency(k) >= _consistency(one) and _size(k) <= _size(one) for k in kept):
            kept.append(one)
    return tuple(kept)


def _consistency(made: Rewritten) -> float:
    return 1.0 if made.chosen is None else made.attempts[made.chosen].consistency


def _size(made: Rewritten) -> float:
    return sum(x * x for x in made.shift.values()) ** 0.5
