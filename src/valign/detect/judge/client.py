"""One question to a chat endpoint, asked until it gives a valid answer or the tries run out."""

from __future__ import annotations

import email.utils
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from valign.detect.judge.answers import A, BadAnswer, Failure, read_answer
from valign.detect.judge.cache import AnswerCache
from valign.detect.judge.errors import JudgeError
from valign.detect.judge.usage import Usage

T = TypeVar("T")


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    model_config = ConfigDict(extra="ignore")
    message: _Message
    finish_reason: str | None = None


class _Tokens(BaseModel):
    model_config = ConfigDict(extra="ignore")
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    model_config = ConfigDict(extra="ignore")
    choices: list[_Choice]
    usage: _Tokens | None = None


@dataclass(frozen=True)
class Reply(Generic[T]):
    """What became of one question: an answer, or why there is none.

    Attributes:
        answer: the validated answer, None after a failure.
        failure: why there is none, None after an answer.
        detail: the last fault in words.
        usage: what the question cost, retries included.
    """

    answer: T | None
    failure: Failure | None
    detail: str
    usage: Usage


@dataclass(frozen=True)
class ChatClient:
    """Asks an OpenAI-compatible `/chat/completions`, with retries and a cache.

    Transport faults, 408, 409, 425, 429 and 5xx are tried again after a wait drawn uniformly from
    [0, backoff * 2^try] (full jitter), at most `max_wait` seconds; a `Retry-After` header is the
    shortest wait, and one beyond `max_wait` ends the question as a rate limit. An answer that does
    not validate is asked for again with its fault named. 400, 401, 403, 404 and other client
    errors concern every question and raise at once.
    """

    base_url: str
    model: str
    api_key_env: str | None
    timeout: float
    tries: int
    backoff: float
    max_wait: float
    cache: AnswerCache | None
    extra_body: Mapping[str, Any]
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def to(
        cls,
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
    ) -> ChatClient:
        """A client of an endpoint that can work; nothing is asked yet.

        Args:
            cache: folder of answers already paid for; None keeps none.
            concurrency: requests the caller will have in flight at a time; only checked.
            timeout, backoff, max_wait: seconds.
            tries: requests a question at most.

        Raises:
            JudgeError: the address is no URL, or a number is too small.
        """
        if not re.match(r"https?://", base_url):
            raise JudgeError(
                f"{base_url!r} is no endpoint. Expected a URL such as http://localhost:8000/v1"
            )
        if concurrency < 1 or tries < 1 or timeout <= 0:
            raise JudgeError(
                f"concurrency={concurrency} and tries={tries} must be at least 1, and "
                f"timeout={timeout} above 0."
            )
        return cls(
            base_url=base_url.rstrip("/"),
            model=model,
            api_key_env=api_key_env,
            timeout=timeout,
            tries=tries,
            backoff=backoff,
            max_wait=max_wait,
            cache=AnswerCache(cache) if cache is not None else None,
            extra_body=dict(extra_body or {}),
        )

    def headers(self) -> dict[str, str]:
        """Request headers; the key is read from the environment at each call and kept nowhere.

        Raises:
            JudgeError: the named variable is not set.
        """
        if self.api_key_env is None:
            return {}
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise JudgeError(
                f"The judge's key should be in the environment variable {self.api_key_env}, which "
                f"is not set. Type `export {self.api_key_env}=...`, or leave api_key_env out for a "
                "server that needs no key."
            )
        return {"Authorization": f"Bearer {key}"}

    def ask(
        self, http: httpx.Client, prompt: str, schema: type[A], *, prompt_version: str
    ) -> Reply[A]:
        """Ask one question.

        Raises:
            JudgeError: the server refuses this kind of request altogether.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            **self.extra_body,
        }
        asked = {"url": self.base_url, "prompt_version": prompt_version, "body": body}
        if self.cache is not None and (stored := self.cache.get(asked)) is not None:
            try:
                answer = schema.model_validate(stored.get("answer"))
                return Reply(answer, None, "", Usage(cached=1))
            except ValidationError:
                pass  # written by something else: ask anew

        usage, fault = Usage(), BadAnswer(Failure.SERVER, "not asked")
        for attempt in range(self.tries):
            wait = random.uniform(0, min(self.max_wait, self.backoff * 2**attempt))
            usage += Usage(requests=1)
            try:
                response = http.post(f"{self.base_url}/chat/completions", json=body)
                if response.status_code in (408, 409, 425, 429) or response.status_code >= 500:
                    limited = response.status_code in (425, 429)
                    fault = BadAnswer(
                        Failure.RATE_LIMIT if limited else Failure.SERVER,
                        f"HTTP {response.status_code}",
                    )
                    wait = max(wait, _retry_after(response) or 0.0)
                else:
                    self._refuse(response)
                    completion = _completion(response)
                    tokens = completion.usage or _Tokens()
                    usage += Usage(
                        prompt_tokens=tokens.prompt_tokens,
                        completion_tokens=tokens.completion_tokens,
                    )
                    answer = read_answer(_content(completion), schema)
                    if self.cache is not None:
                        self.cache.put(asked, {"answer": answer.model_dump(by_alias=True)})
                    return Reply(answer, None, "", usage)
            except httpx.TimeoutException:
                fault = BadAnswer(Failure.TIMEOUT, f"no answer within {self.timeout:g} s")
            except httpx.TransportError as error:
                fault = BadAnswer(Failure.CONNECTION, f"{type(error).__name__}: {error}")
            except BadAnswer as bad:
                fault = bad
                if bad.failure is Failure.MALFORMED:
                    body = {**body, "messages": [_again(prompt, bad)]}
            if wait > self.max_wait:
                fault = BadAnswer(Failure.RATE_LIMIT, f"the server asks to wait {wait:.0f} s")
                break
            if attempt + 1 < self.tries:
                self.sleep(wait)
        return Reply(None, fault.failure, str(fault), usage)

    def _refuse(self, response: httpx.Response) -> None:
        if response.status_code == 200:
            return
        said = response.text[:200]
        for secret in self.headers().values():
            said = said.replace(secret.removeprefix("Bearer "), "***")
        check = {
            401: f"the key in {self.api_key_env or 'api_key_env (none was named)'}",
            403: f"what the key in {self.api_key_env or 'api_key_env (none was named)'} may do",
            404: f"base_url (it ends before /chat/completions) and the model name {self.model!r}",
        }.get(response.status_code, "extra_body and the length of the texts")
        raise JudgeError(
            f"{self.base_url} answered HTTP {response.status_code}: {said!r}. Expected 200 with a "
            f"chat completion. Check {check}."
        )


def _again(prompt: str, bad: BadAnswer) -> dict[str, str]:
    # One message, because many chat templates refuse two user messages in a row.
    note = f"An earlier answer could not be read ({str(bad)[:200]}). Answer with the JSON object."
    return {"role": "user", "content": f"{prompt}\n\n{note}"}


def _completion(response: httpx.Response) -> _Completion:
    try:
        return _Completion.model_validate_json(response.content)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise BadAnswer(Failure.SERVER, f"not a chat completion: {reason}") from None


def _content(completion: _Completion) -> str:
    if not completion.choices:
        raise BadAnswer(Failure.MALFORMED, "no choices in the completion")
    choice = completion.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        raise BadAnswer(Failure.REFUSAL, choice.message.refusal or "content filter")
    if not choice.message.content:
        raise BadAnswer(Failure.MALFORMED, f"empty answer ({choice.finish_reason})")
    return choice.message.content


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds asked for by a Retry-After header, which holds seconds or a date."""
    text = response.headers.get("Retry-After", "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
