"""A rewriter behind any OpenAI-compatible endpoint: large models, prompted."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property

import httpx
from pydantic import BaseModel, ConfigDict

from valign.detect.judge.client import ChatClient, Reply
from valign.lm.rewriting import request
from valign.methods.visa.errors import RewriteError
from valign.methods.visa.rewriter import Task, template_text
from valign.methods.visa.target import STEPS
from valign.values import ValueSystem, load_system

_FORM = 'Answer with a JSON object and nothing else: {"text": "the rewritten text"}'


class Answer(BaseModel):
    """What a server may answer."""

    model_config = ConfigDict(extra="forbid", strict=True)
    text: str


@dataclass(frozen=True)
class RemoteRewriter:
    """Rewrites with a chat model; stands wherever a `Rewriter` stands in the loop.

    Attributes:
        base_url: for example `http://localhost:8000/v1`.
        model: the name that the server knows the model by.
        system: the values.
        template: jinja text of the request; `full` by default.
        steps: grid steps from 0 to 1.
        api_key_env: the environment variable that holds the key; None for a server without one.
        concurrency: requests in flight at a time.
        timeout: seconds without progress after which a request counts as failed.
        tries: requests a rewrite at most.

    Raises:
        JudgeError: an address that is no URL, or a number that is too small.
    """

    base_url: str
    model: str
    system: ValueSystem = field(default_factory=lambda: load_system("schwartz10"))
    template: str = field(default_factory=lambda: template_text("full"))
    steps: int = STEPS
    api_key_env: str | None = None
    concurrency: int = 8
    timeout: float = 120.0
    tries: int = 4

    def __post_init__(self) -> None:
        _ = self._client  # an endpoint that cannot work is refused now

    @cached_property
    def _client(self) -> ChatClient:
        return ChatClient.to(
            self.base_url, self.model, api_key_env=self.api_key_env, concurrency=self.concurrency,
            timeout=self.timeout, tries=self.tries,
        )  # fmt: skip

    def rewrite(
        self,
        tasks: Sequence[Task],
        *,
        temperature: float = 0.0,
        seed: int = 0,
        batch_size: int = 32,
    ) -> list[str]:
        """One rewrite a task; `batch_size` plays no part.

        Raises:
            RewriteError: a task got no valid answer.
            JudgeError: the server refuses such requests altogether.
        """
        clients = [
            replace(self._client, extra_body=dict(temperature=temperature, seed=seed * 1000 + i))
            for i in range(len(tasks))
        ]
        asked = [f"{self._ask(task)}\n\n{_FORM}" for task in tasks]
        with (
            httpx.Client(headers=self._client.headers(), timeout=self.timeout) as http,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            futures = [
                pool.submit(client.ask, http, words, Answer, prompt_version="rewrite-1")
                for client, words in zip(clients, asked, strict=True)
            ]
            try:
                replies: list[Reply[Answer]] = [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        found = []
        for reply in replies:
            if reply.answer is None:
                raise RewriteError(
                    f"{self.base_url} (model {self.model}) gave no valid rewrite: {reply.failure}, "
                    f"{reply.detail}. Run it again, or take another model."
                )
            found.append(reply.answer.text.strip())
        return found

    def _ask(self, task: Task) -> str:
        return request(
            self.template, self.system, task.source, task.changes,
            now=task.now, prompt=task.prompt, steps=self.steps,
        )  # fmt: skip
