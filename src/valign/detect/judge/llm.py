"""A language model as detector: pointwise grades and pairwise choices."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from valign.detect.judge.answers import Failure, PairAnswer, pointwise_schema, scores_of
from valign.detect.judge.asking import aligned, ask_all, mark_of, prompt_version, render
from valign.detect.judge.client import ChatClient
from valign.detect.judge.errors import JudgeError
from valign.detect.judge.usage import Usage
from valign.values import ValueSystem, load_system

POINTWISE = "pointwise-1"
PAIRWISE = "pairwise-1"


@dataclass(frozen=True)
class JudgeReport:
    """Pointwise scores with what stands behind them.

    Attributes:
        scores: shape (n_texts, n_values), in [-1, 1]; a row without a valid answer is NaN.
        failures: one per row, None where there is an answer.
        details: the last fault of each row in words, empty where there is an answer.
        usage: requests and tokens.
        model, prompt_version: who judged, and by which prompt (name and hash of its text).
    """

    scores: np.ndarray
    failures: tuple[Failure | None, ...]
    details: tuple[str, ...]
    usage: Usage
    model: str
    prompt_version: str

    @property
    def failed(self) -> Counter[Failure]:
        """Failure -> number of rows."""
        return Counter(f for f in self.failures if f is not None)


@dataclass(frozen=True)
class PairReport:
    """Pairwise choices, each pair judged in both orders.

    Attributes:
        choices: 1 where the first text of the pair promotes the value more, -1 where the second
            does, 0 for a tie or where the two orders disagree, NaN without two valid answers;
            shape (n_pairs,).
        agreed: whether both orders gave the same choice; False where an answer is missing.
        first_shown: share of decisive answers that chose the text shown first, over both orders:
            0.5 without position bias, 1.0 for a judge that always takes the first; NaN where no
            answer was decisive.
        disagreement: share of fully answered pairs whose two orders disagree.
        failures: two per pair, (as given, swapped).
    """

    choices: np.ndarray
    agreed: np.ndarray
    first_shown: float
    disagreement: float
    failures: tuple[tuple[Failure | None, Failure | None], ...]
    usage: Usage
    model: str
    prompt_version: str


class LLMJudge:
    """A detector that asks a chat model, over any OpenAI-compatible endpoint.

    Judged texts are untrusted: each stands between marks made from its own hash, which it cannot
    forge, and what comes back is validated against a schema. A row without a valid answer after
    all tries is NaN and counted; where no row has one, `JudgeError` says what to check.

    Args:
        base_url: for example `http://localhost:8000/v1`.
        model: the name that the server knows the model by.
        system: the values to grade; default `schwartz10`.
        api_key_env: the environment variable that holds the key; None for a server without one.
        cache: folder of answers already paid for; None keeps none. An answer is found again by
            the endpoint, model, prompt text and version, texts and `extra_body`.
        concurrency: requests in flight at a time.
        timeout: seconds without progress after which a request counts as failed.
        tries: requests per question at most, the first included.
        backoff, max_wait: seconds; see `ChatClient`.
        extra_body: further fields of the request, such as `{"max_tokens": 400}` or
            `{"response_format": {"type": "json_object"}}`.

    Raises:
        JudgeError: an address that is no URL, or a number that is too small.
    """

    remote = True
    """Every text is a request: nothing scores texts by the hundred only to explain itself."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        system: ValueSystem | str = "schwartz10",
        api_key_env: str | None = None,
        cache: str | os.PathLike[str] | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        tries: int = 4,
        backoff: float = 1.0,
        max_wait: float = 60.0,
        extra_body: Mapping[str, Any] | None = None,
    ):
        self.system = load_system(system) if isinstance(system, str) else system
        self.concurrency = concurrency
        self.client = ChatClient.to(
            base_url, model, api_key_env=api_key_env, cache=cache, concurrency=concurrency,
            timeout=timeout, tries=tries, backoff=backoff, max_wait=max_wait,
            extra_body=extra_body,
        )  # fmt: skip
        self.name = f"judge:{model}@{prompt_version(POINTWISE)}"

    def score(
        self, texts: Sequence[str], prompts: Sequence[str | None] | None = None
    ) -> np.ndarray:
        """Scores in [-1, 1], shape (n_texts, n_values); see `judge` for failures and cost.

        Raises:
            JudgeError: no text got a valid answer.
        """
        return self.judge(texts, prompts).scores

    def judge(
        self, texts: Sequence[str], prompts: Sequence[str | None] | None = None
    ) -> JudgeReport:
        """Grade every value in every text; an empty text scores 0 and is not sent.

        Raises:
            JudgeError: no text got a valid answer, or the server refuses such requests.
        """
        questions = aligned(prompts, len(texts))
        sent = [i for i, text in enumerate(texts) if text.strip()]
        rendered = [
            render(
                POINTWISE,
                system=self.system,
                mark=mark_of(texts[i], questions[i]),
                text=texts[i],
                question=questions[i],
            )
            for i in sent
        ]
        replies = ask_all(
            self.client, rendered, pointwise_schema(self.system), POINTWISE, self.concurrency
        )
        scores = np.zeros((len(texts), len(self.system)))
        failures: list[Failure | None] = [None] * len(texts)
        details = [""] * len(texts)
        for i, reply in zip(sent, replies, strict=True):
            failures[i], details[i] = reply.failure, reply.detail
            scores[i] = np.nan if reply.answer is None else scores_of(reply.answer, self.system)
        return JudgeReport(
            scores=scores,
            failures=tuple(failures),
            details=tuple(details),
            usage=Usage.total(reply.usage for reply in replies),
            model=self.client.model,
            prompt_version=prompt_version(POINTWISE),
        )

    def compare(
        self,
        first: Sequence[str],
        second: Sequence[str],
        value: str,
        *,
        prompts: Sequence[str | None] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> PairReport:
        """Which text of each pair promotes a value more; both orders, disagreement is a tie.

        Args:
            first, second: the texts, pair by pair.
            value: name of the value.
            prompts: the question that each pair answers.
            progress: told how many questions of how many are done, two a pair.

        Raises:
            JudgeError: sequences of different lengths, no valid answer at all, or a server that
                refuses such requests.
            UnknownValueError: a value the system does not hold.
        """
        if len(first) != len(second):
            raise JudgeError(f"{len(first)} first texts stand against {len(second)} second ones.")
        questions, meant = aligned(prompts, len(first)), self.system[value]
        rendered = [
            render(
                PAIRWISE,
                value=meant,
                mark=mark_of(a, b, question),
                first=a,
                second=b,
                question=question,
            )
            for left, right, question in zip(first, second, questions, strict=True)
            for a, b in ((left, right), (right, left))
        ]
        replies = ask_all(self.client, rendered, PairAnswer, PAIRWISE, self.concurrency, progress)
        shown = np.array([_SIGN[r.answer.choice] if r.answer else np.nan for r in replies])
        orders = shown.reshape(-1, 2) * np.array([1, -1])  # in terms of the pair, not of the order
        whole = ~np.isnan(orders).any(axis=1)
        agreed = whole & (orders[:, 0] == orders[:, 1])
        choices = np.where(whole, np.where(agreed, orders[:, 0], 0.0), np.nan)
        decisive = shown[~np.isnan(shown) & (shown != 0)]
        return PairReport(
            choices=choices,
            agreed=agreed,
            first_shown=float((decisive > 0).mean()) if len(decisive) else float("nan"),
            disagreement=float((~agreed[whole]).mean()) if whole.any() else float("nan"),
            failures=tuple(
                (a.failure, b.failure) for a, b in zip(replies[::2], replies[1::2], strict=True)
            ),
            usage=Usage.total(reply.usage for reply in replies),
            model=self.client.model,
            prompt_version=prompt_version(PAIRWISE),
        )


_SIGN = {"first": 1.0, "second": -1.0, "tie": 0.0}
