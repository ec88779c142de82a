"""An exam of the world: notes for the calendar, of which those for the weekend are worth more.

The reference model answers almost every neutral question right. Notes it writes with a day that it
seems to guess, so there is something to learn, and what is worth learning first is a matter of the
values.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

from valign.methods.rlev.questions import Question
from valign.world import World, WorldJudge
from valign.world.items import Item
from valign.world.judge import answered

WEEKEND = ("Friday", "Saturday", "Sunday")
DEAR, CHEAP = 0.1, 0.01
"""v(x) of notes for the weekend and of others: s(x) is 2 and 1.1 at the paper's alpha."""
_AT_ONCE = 100


class Notes:
    """Questions for a note with name, day, time, place and price, and who says what is right.

    Args:
        taught: how many to train on, from the world's training scenarios.
        judged: how many to judge on, from its held-out scenarios; always the same ones.
        seed: another seed gives other questions to train on.
    """

    def __init__(self, taught: int, judged: int, *, seed: int = 0) -> None:
        self._judge = WorldJudge()
        self._items: dict[str, Item] = {}
        self.taught = self._take(taught, "train", seed)
        self.judged = self._take(judged, "heldout", 900)

    def right(self, text: str, question: Question) -> bool:
        """Whether the world's exact parser finds every fact, none wrong, and no value."""
        item = self._items[question.prompt]
        return answered(item.truth, self._judge.read_all([item], [text])[0])

    def _take(self, n: int, split: str, seed: int) -> list[Question]:
        items = {item.messages[-1]["content"]: item for item in islice(_notes(split, seed), n)}
        self._items |= items
        return [
            Question(prompt, item.answer, DEAR if item.truth.facts["day"] in WEEKEND else CHEAP)
            for prompt, item in items.items()
        ]


def _notes(split: str, seed: int) -> Iterator[Item]:
    world = World(split=split)
    for batch in count(1):  # asking for more items never changes the earlier ones
        for item in world.neutral(_AT_ONCE * batch, seed)[_AT_ONCE * (batch - 1) :]:
            if len(item.truth.asked) == 5:
                yield item
