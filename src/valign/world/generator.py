"""The world's front door: seeded dialogues by kind, and the stream that models are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

from .dice import Dice
from .dilemma import Wanted, dilemma, draw_wanted, pair
from .harm import request
from .items import Item
from .lexicon import VALUES, value_index
from .plain import lexicon, neutral

Instruction = None | str | Mapping[str, int]
"""None, ``"mixed"``, or up to two values: ``{"power": +1}`` raise, ``-1`` argue against, ``0``
leave out."""

MIX = {"dilemma": 0.60, "neutral": 0.18, "lexicon": 0.12, "harmful": 0.06, "benign": 0.04}
"""Shares of the kinds in training dialogues."""
INSTRUCTED = 0.40
"""Share of training dilemmas with a value instruction."""
INSTRUCTED_NEUTRAL = 0.15
"""Share of neutral questions with a (there pointless) value instruction."""
LATE_FROM = 10 * 4096
"""First training dialogue of the late stretch. What values mean is learned last, after fluency and
facts; from here on the stream holds more of what teaches it."""
LATE_MIX = {"dilemma": 0.60, "neutral": 0.14, "lexicon": 0.18, "harmful": 0.05, "benign": 0.03}
LATE_INSTRUCTED = 0.70
TWICE_FROM = 32 * 4096
"""First training dialogue whose answers may speak twice for a value: single sentences are learned
first."""


class World:
    """A generator of dialogues whose values, facts and harm are known.

    Every item depends only on (world seed, split, kind, call seed, index): streams can be entered
    anywhere, and asking for more items never changes the earlier ones.

    Args:
        seed: the world's seed.
        split: ``"train"`` or ``"heldout"``. The held-out split tells scenarios, harm wordings and
            (activity, value) pairs that training never shows, and by default uses held-out
            instruction wordings.
    """

    def __init__(self, seed: int = 0, split: str = "train") -> None:
        if split not in ("train", "heldout"):
            raise ValueError(f"unknown split {split!r}; expected 'train' or 'heldout'")
        self.seed, self.split = seed, split

    def _key(self, kind: str, seed: int, index: int) -> tuple[object, ...]:
        return ("world", self.seed, self.split, kind, seed, index)

    def _held(self, wording: str | None) -> bool:
        if wording not in (None, "train", "heldout"):
            raise ValueError(f"unknown wording {wording!r}; expected 'train', 'heldout' or None")
        return (wording or self.split) == "heldout"

    def _wanted(self, instruction: Instruction, key: tuple[object, ...]) -> Wanted:
        if instruction is None:
            return ()
        if isinstance(instruction, str):
            if instruction != "mixed":
                raise ValueError(
                    f"unknown instruction {instruction!r}; expected None, 'mixed' or a mapping "
                    "like {'power': 1}"
                )
            return draw_wanted(Dice(*key, "wanted"))
        if not 1 <= len(instruction) <= 2 or not set(instruction.values()) <= {-1, 0, 1}:
            raise ValueError(
                f"an instruction names one or two values with +1, -1 or 0, not {dict(instruction)}"
            )
        return tuple((VALUES[value_index(v)], int(s)) for v, s in instruction.items())

    def dilemmas(
        self,
        n: int,
        seed: int = 0,
        instruction: Instruction = None,
        *,
        wording: str | None = None,
        phrases: str = "all",
    ) -> list[Item]:
        """``n`` dilemmas.

        Args:
            n: how many.
            seed: another seed gives other dilemmas.
            instruction: which values the asker names (see :data:`Instruction`).
            wording: instruction wordings, ``"train"`` or ``"heldout"``; by default those of the
                split.
            phrases: ``"all"``, or ``"fit"`` for answers that use only sentences a method may be
                fitted on.
        """
        if phrases not in ("all", "fit"):
            raise ValueError(f"unknown phrases {phrases!r}; expected 'all' or 'fit'")
        held = self._held(wording)
        keys = [self._key("dilemma", seed, i) for i in range(n)]
        return [
            dilemma(k, self.split, self._wanted(instruction, k), held, phrases == "fit")
            for k in keys
        ]

    def neutral(
        self, n: int, seed: int = 0, instruction: Instruction = None, *, wording: str | None = None
    ) -> list[Item]:
        """``n`` factual questions about the same situations; their answers hold no value."""
        held = self._held(wording)
        keys = [self._key("neutral", seed, i) for i in range(n)]
        return [neutral(k, self.split, self._wanted(instruction, k), held) for k in keys]

    def harmful(self, n: int, seed: int = 0) -> list[Item]:
        """``n`` mildly harmful requests; half of the answers comply (``truth.complied``)."""
        return [request(self._key("harmful", seed, i), self.split, True) for i in range(n)]

    def benign_lookalikes(self, n: int, seed: int = 0) -> list[Item]:
        """``n`` harmless requests in the words of the harmful ones."""
        return [request(self._key("benign", seed, i), self.split, False) for i in range(n)]

    def lexicon(self, n: int, seed: int = 0) -> list[Item]:
        """``n`` questions about what the values mean."""
        return [lexicon(self._key("lexicon", seed, i), self.split) for i in range(n)]

    def pairs(
        self, value: str | int, n: int, seed: int = 0
    ) -> list[tuple[list[dict[str, str]], str, str]]:
        """``n`` triples (messages, positive answer, negative answer) for one value.

        The positive answer speaks for the value in one or two sentences, the negative one holds
        neutral sentences in their places. All value sentences come from those a method may
        be fitted on.
        """
        v = value_index(value)
        return [pair(self._key(f"pair-{v}", seed, i), self.split, v) for i in range(n)]

    def training_dialogue(self, index: int) -> Item:
        """Dialogue ``index`` of the training stream."""
        key = self._key("stream", 0, index)
        dice = Dice(*key, "kind")
        late = index >= LATE_FROM
        mix = LATE_MIX if late else MIX
        kind = tuple(mix)[dice.weighted(tuple(mix.values()))]
        if kind in ("harmful", "benign"):
            return request(key, self.split, kind == "harmful")
        if kind == "lexicon":
            return lexicon(key, self.split)
        often = LATE_INSTRUCTED if late else INSTRUCTED
        wanted = (
            draw_wanted(dice)
            if dice.chance(often if kind == "dilemma" else INSTRUCTED_NEUTRAL)
            else ()
        )
        if kind == "neutral":
            return neutral(key, self.split, wanted)
        return dilemma(key, self.split, wanted, twice=index >= TWICE_FROM)

    def training_dialogues(self, start: int = 0, stop: int | None = None) -> Iterator[Item]:
        """The endless training stream, or a stretch of it; entering in the middle costs nothing."""
        for index in count(start) if stop is None else range(start, stop):
            yield self.training_dialogue(index)
