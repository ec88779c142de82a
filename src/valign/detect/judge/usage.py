"""What judging cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Requests and tokens of a judgement, summed over rows and retries.

    Attributes:
        requests: HTTP requests sent, failed ones included.
        cached: answers read from the disk cache; they cost nothing and add no tokens.
        prompt_tokens, completion_tokens: as the server counted them; a server that does not
            count, and a request that got no answer, add 0.
    """

    requests: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.cached + other.cached,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    @classmethod
    def total(cls, parts: Iterable[Usage]) -> Usage:
        """The sum of several."""
        return sum(parts, cls())

    def cost(self, *, prompt_price: float, completion_price: float) -> float:
        """Cost in the currency of the prices, which are per million tokens."""
        spent = self.prompt_tokens * prompt_price + self.completion_tokens * completion_price
        return spent / 1e6
