"""An exam of the world: notes for the calendar, of which those for the weekend are worth more.

Two things can be asked of a note. `wording`: one for the weekend begins "Reminder for", any other
"Note for"; the reference model takes either by chance. The rule can be learned, but a model that
does not read the day can only please one kind of question at the cost of the other, and there the
worth of questions decides. `facts`: name, day, time, place and price are right; the reference model
guesses the day, each about as often.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import Literal

from valign.methods.rlev.questions import Question
from valign.world import World, WorldJudge
from valign.world.items import Item
from valign.world.judge import answered
from valign.world.tables import table

WEEKEND = ("Friday", "Saturday", "Sunday")
DEAR, CHEAP = 0.1, 0.01
"""v(x) of notes for the weekend and of others: s(x) is 2 and 1.1 at the paper's alpha."""
_AT_ONCE = 100


class Notes:
    """Questions for a note, and who says what is right.

    Args:
        taught: how many to train on, from the world's training scenarios.
        judged: how many to judge on, from its held-out scenarios; always the same ones.
        asked: what makes a note right, see the module.
        seed: another seed gives other questions to train on.
    """

    def __init__(
        self,
        taught: int,
        judged: int,
        *,
        asked: Literal["wording", "facts"] = "wording",
        seed: int = 0,
    ) -> None:
        self._judge, self._asked = WorldJudge(), asked
        self._items: dict[str, Item] = {}
        self.taught = self._take(taught, "train", seed)
        self.judged = self._take(judged, "heldout", 900)

    def right(self, text: str, question: Question) -> bool:
        """By its first word, or where facts are asked for by the world's exact parser."""
        if self._asked == "wording":
            return text.split()[:1] == question.answer.split()[:1]
        item = self._items[question.prompt]
        return answered(item.truth, self._judge.read_all([item], [text])[0])

    def right_starts(self, question: Question) -> list[str]:
        """What right answers begin with, or say in full: their probabilities sum to that of one."""
        if self._asked == "wording":
            return [question.answer.split()[0]]
        return _wordings(self._items[question.prompt])

    def _take(self, n: int, split: str, seed: int) -> list[Question]:
        items = {item.messages[-1]["content"]: item for item in islice(_notes(split, seed), n)}
        self._items |= items
        found = []
        for prompt, item in items.items():
            dear = item.truth.facts["day"] in WEEKEND
            answer = item.answer
            if self._asked == "wording":
                start = "Reminder" if dear else "Note"
                answer = next(w for w in _wordings(item) if w.startswith(start))
            found.append(Question(prompt, answer, DEAR if dear else CHEAP))
        return found


def _wordings(item: Item) -> list[str]:
    """The right notes in the world's own wordings."""
    (form,) = (f for f in table("dialogues")["neutral"] if len(f["asked"]) == 5)
    return [wording.format(**item.truth.facts) for wording in form["answer"]]


def _notes(split: str, seed: int) -> Iterator[Item]:
    world = World(split=split)
    for batch in count(1):  # asking for more items never changes the earlier ones
        for item in world.neutral(_AT_ONCE * batch, seed)[_AT_ONCE * (batch - 1) :]:
            if len(item.truth.asked) == 5:
                yield item
