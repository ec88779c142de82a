"""A language model as translator, over any OpenAI-compatible endpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import httpx
import jinja2
from pydantic import BaseModel, ConfigDict, Field, create_model

from valign.detect.judge.client import ChatClient, Reply
from valign.translate.errors import TranslatorError
from valign.translate.types import Translation, ValueShift
from valign.values import ValueSystem, load_system

PROMPT = "translate-1"


class LLMTranslator:
    """Asks a chat model for the shift; answers are validated against a schema, never guessed.

    Instructions are untrusted: each stands between marks made from its own hash.

    Args:
        base_url: for example `http://localhost:8000/v1`.
        model: the name that the server knows the model by.
        system: the values to speak of; any system.
        api_key_env: the environment variable that holds the key; None for a server without one.
        cache: folder of answers already paid for; None keeps none.
        concurrency: requests in flight at a time.
        timeout: seconds without progress after which a request counts as failed.
        tries: requests per instruction at most, the first included.
        backoff, max_wait: seconds; see `ChatClient`.
        extra_body: further fields of the request.

    Raises:
        JudgeError: an address that is no URL, or a number that is too small.
    """

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
        self.name = f"llm:{model}@{prompt_version()}"

    def translate_all(self, instructions: Sequence[str]) -> list[Translation]:
        """One translation an instruction; a blank one is not sent and gives the empty shift.

        Raises:
            TranslatorError: an instruction got no valid answer. Those that did are in the cache.
            JudgeError: the server refuses such requests altogether.
        """
        sent = {text: None for text in instructions if text.strip()}
        replies = dict(zip(sent, self._ask_all(list(sent)), strict=True))
        failed = [(text, reply) for text, reply in replies.items() if reply.answer is None]
        if failed:
            text, reply = failed[0]
            raise TranslatorError(
                f"{len(failed)} of {len(sent)} instructions got no valid answer from "
                f"{self.client.base_url} (model {self.client.model}), for example {text[:60]!r}: "
                f"{reply.failure}, {reply.detail}. Name a `cache` folder to keep what was answered "
                "and run it again, or take another model."
            )
        return [
            self._translation(replies[text].answer) if text.strip()
            else Translation(ValueShift.of(self.system, source=self.name), 1.0)
            for text in instructions
        ]  # fmt: skip

    def _translation(self, answer: BaseModel | None) -> Translation:
        assert answer is not None
        given = answer.model_dump(by_alias=True)
        shift = ValueShift.of(self.system, given["shift"], source=self.name)
        return Translation(shift, float(given["confidence"]))

    def _ask_all(self, instructions: list[str]) -> list[Reply[BaseModel]]:
        if not instructions:
            return []
        schema, version = answer_schema(self.system), prompt_version()
        limits = httpx.Limits(max_connections=self.concurrency)
        with (
            httpx.Client(
                headers=self.client.headers(), timeout=self.client.timeout, limits=limits
            ) as http,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            futures = [
                pool.submit(
                    self.client.ask, http, _rendered(text, self.system), schema,
                    prompt_version=version,
                )
                for text in instructions
            ]  # fmt: skip
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def answer_schema(system: ValueSystem) -> type[BaseModel]:
    """A shift over values of the system, changes in [-1, 1], and a confidence in [0, 1]."""
    change = Annotated[float, Field(ge=-1, le=1)]
    # Field names must be identifiers, value names need not be; so the names go into aliases.
    fields: dict[str, Any] = {
        f"value_{i}": (change, Field(alias=name, default=0.0))
        for i, name in enumerate(system.names)
    }
    strict = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    shift = create_model("Shift", __config__=strict, **fields)
    confidence = Annotated[float, Field(ge=0, le=1)]
    return create_model(
        "ShiftAnswer", __config__=strict, shift=(shift, ...), confidence=(confidence, ...)
    )


@cache
def _template() -> str:
    file = resources.files("valign.translate") / "prompts" / f"{PROMPT}.jinja"
    return Path(str(file)).read_text(encoding="utf-8")


def prompt_version() -> str:
    """Name and hash of the prompt file: an edited prompt never passes for the old one."""
    return f"{PROMPT}-{hashlib.sha256(_template().encode()).hexdigest()[:8]}"


def _rendered(instruction: str, system: ValueSystem) -> str:
    mark = f"request-{hashlib.sha256(instruction.encode()).hexdigest()[:16]}"
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    template = environment.from_string(_template())
    return template.render(system=system, mark=mark, instruction=instruction)
