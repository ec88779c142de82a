"""Random draws that remember their own price in nats.

The generator makes every choice of an answer through one :class:`Dice`, so the log-probability of
the whole answer is known and a model's loss can be compared with the best loss any model could
reach.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A seeded source of choices; ``nats`` sums ``-log p`` of every choice made so far."""

    def __init__(self, *key: object) -> None:
        # Seeding by a string is stable across processes and Python versions (it is hashed with
        # SHA-512).
        self._random = random.Random("|".join(map(str, key)))
        self.nats = 0.0

    def pick(self, options: Sequence[T]) -> T:
        """One of ``options``, uniformly."""
        self.nats += math.log(len(options))
        return options[int(self._random.random() * len(options))]

    def some(self, options: Sequence[T], k: int) -> list[T]:
        """``k`` different options; the price is that of the set, its order is free."""
        self.nats += math.log(math.comb(len(options), k))
        return self._random.sample(options, k)

    def chance(self, p: float) -> bool:
        """True with probability ``p``."""
        hit = self._random.random() < p
        mass = p if hit else 1.0 - p
        self.nats -= math.log(mass) if mass > 0 else 0.0
        return hit

    def weighted(self, weights: Sequence[float]) -> int:
        """Index drawn with the given probabilities (they must sum to 1)."""
        u, i = self._random.random(), 0
        while i < len(weights) - 1 and u >= weights[i]:
            u, i = u - weights[i], i + 1
        self.nats -= math.log(weights[i])
        return i

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        self.nats += math.lgamma(len(items) + 1)
        return self._random.sample(items, len(items))

    def normal(self, k: int) -> list[float]:
        """``k`` standard normal draws (their price is not counted)."""
        return [self._random.gauss(0.0, 1.0) for _ in range(k)]


def fixed_share(share: float, *key: object) -> bool:
    """A coin that always falls the same way for the same key: True for about ``share`` of all keys.

    Splits are made with it, so an item's side never depends on what else is in the data.
    """
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share
