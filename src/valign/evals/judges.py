"""Who reads answers to risky requests: the shipped classifiers, or a language model.

    Classifiers()                  harmful, refused; at once, on this machine
    LLMAnswerJudge(url, model)     harmful, refused, complied; over any OpenAI-compatible endpoint

A classifier hears how an answer sounds. A language model reads it beside its request and can say
whether anything of what was asked was done. The words of its question are ours (`safety-1`): its
shares are not the scores that the tests' authors publish with judges of their own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

import valign
from valign.detect.judge.answers import Failure
from valign.detect.judge.asking import ask_all, mark_of, prompt_version, render
from valign.detect.judge.client import ChatClient
from valign.detect.judge.usage import Usage
from valign.evals.errors import EvalError

if TYPE_CHECKING:
    from valign.detect.classifiers import TextClassifier

PROMPT = "safety-1"


@dataclass(frozen=True)
class Verdicts:
    """What a judge says of n answers.

    Attributes:
        of: property (`refused`, `complied`, `harmful`) -> 1, 0, or NaN where the judge gave no
            valid answer; each of shape (n,).
        failures: why there is no verdict, None where there is one; n of them.
        usage: requests and tokens; none for a classifier.
    """

    of: dict[str, np.ndarray]
    failures: tuple[Failure | None, ...]
    usage: Usage = field(default_factory=Usage)


class AnswerJudge(Protocol):
    """Reads answers beside their requests.

    Attributes:
        name: who judges, with the version; stands in every result.
    """

    name: str

    def check(self) -> None:
        """Fail now if it will fail later; called before a model is asked anything."""
        ...

    def read(self, requests: Sequence[str], answers: Sequence[str]) -> Verdicts:
        """One verdict an answer."""
        ...


class Classifiers:
    """The shipped classifiers: refusal from how an answer begins, harm from its worst part."""

    name = f"classifiers:harm+refusal@valign-{valign.__version__}"

    @cached_property
    def _loaded(self) -> dict[str, TextClassifier]:
        from valign.detect.classifiers import load_classifier

        return {"refused": load_classifier("refusal"), "harmful": load_classifier("harm")}

    def check(self) -> None:
        """Load them.

        Raises:
            MissingEncoderError: the sentence encoder is not installed.
        """
        _ = self._loaded

    def read(self, requests: Sequence[str], answers: Sequence[str]) -> Verdicts:
        """Verdicts on the answers alone; the requests play no part."""
        said = {name: found.flags(answers).astype(float) for name, found in self._loaded.items()}
        return Verdicts(said, (None,) * len(answers))


class SafetyAnswer(BaseModel):
    """What a language model may say of one answer."""

    model_config = ConfigDict(extra="forbid", strict=True)
    refused: bool
    complied: bool
    harmful: bool


class LLMAnswerJudge:
    """Asks a chat model whether each answer refused, complied, and is harmful.

    Requests and answers are untrusted: they stand between marks they cannot forge, and what comes
    back is validated. Many models decline to read harmful texts; such answers have no verdict, and
    since they are not the average answer, results say how many there were.

    Args:
        base_url: for example `http://localhost:8000/v1`.
        model: the name that the server knows the model by.
        api_key_env: the environment variable that holds the key; None for a server without one.
        cache: folder of verdicts already paid for; None keeps none.
        concurrency: requests in flight at a time.
        timeout: seconds without progress after which a request counts as failed.
        tries: requests an answer at most, the first included.
        backoff, max_wait: seconds; see `ChatClient`.
        extra_body: further fields of the request, such as `{"max_tokens": 400}`.

    Raises:
        JudgeError: an address that is no URL, or a number that is too small.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str | None = None,
        cache: str | os.PathLike[str] | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        tries: int = 4,
        backoff: float = 1.0,
        max_wait: float = 60.0,
        extra_body: Mapping[str, Any] | None = None,
    ):
        self.concurrency = concurrency
        self.client = ChatClient.to(
            base_url, model, api_key_env=api_key_env, cache=cache, concurrency=concurrency,
            timeout=timeout, tries=tries, backoff=backoff, max_wait=max_wait,
            extra_body=extra_body,
        )  # fmt: skip
        self.name = f"judge:{model}@{prompt_version(PROMPT)}"

    def check(self) -> None:
        """Have one harmless answer judged.

        Raises:
            JudgeError: the endpoint does not answer as expected; says what to check.
        """
        # Never from the cache: what matters is whether the endpoint answers now.
        asked = _question("What is the capital of France?", "It is Paris.")
        ask_all(replace(self.client, cache=None), [asked], SafetyAnswer, PROMPT, 1)

    def read(self, requests: Sequence[str], answers: Sequence[str]) -> Verdicts:
        """Verdicts on answers; an empty one is not sent and has done none of the three.

        Raises:
            EvalError: another number of requests than of answers.
            JudgeError: no answer got a valid verdict, or the server refuses such requests.
        """
        if len(requests) != len(answers):
            raise EvalError(f"{len(requests)} requests stand against {len(answers)} answers.")
        sent = [i for i, answer in enumerate(answers) if answer.strip()]
        questions = [_question(requests[i], answers[i]) for i in sent]
        replies = ask_all(self.client, questions, SafetyAnswer, PROMPT, self.concurrency)
        of = {name: np.zeros(len(answers)) for name in SafetyAnswer.model_fields}
        failures: list[Failure | None] = [None] * len(answers)
        for i, reply in zip(sent, replies, strict=True):
            failures[i] = reply.failure
            for name, column in of.items():
                column[i] = np.nan if reply.answer is None else getattr(reply.answer, name)
        return Verdicts(of, tuple(failures), Usage.total(reply.usage for reply in replies))


def _question(request: str, answer: str) -> str:
    return render(PROMPT, mark=mark_of(request, answer), request=request, answer=answer)
