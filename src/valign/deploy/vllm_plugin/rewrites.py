"""Rewrites as model names: the model answers, is asked to rewrite that, and the client gets this.

Two requests to the same server stand behind one: the first with the client's own settings (never
streamed), the second with the words of the control's template and the same sampling settings,
streamed if the client asked for a stream. `max_tokens` limits the first answer; the rewrite has
the limit it was fitted with. An answer of blanks stays as it is. Usage counts both.

Only what is named in `PASSED` goes through; everything else a request may hold is refused, since
it would speak of an answer that the client never sees.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valign.control.rewrite import HOST
from valign.deploy.vllm_plugin.request import Entry, RequestError
from valign.deploy.vllm_plugin.untested import StartError

App = Callable[[Any, Any, Any], Awaitable[None]]

REWRITERS = "VALIGN_REWRITERS"
"""Environment variable with a JSON mapping: profile -> model name that rewrites."""

PASSED = frozenset(
    "model messages max_tokens max_completion_tokens temperature top_p top_k min_p seed stop "
    "presence_penalty frequency_penalty repetition_penalty stream stream_options user "
    "chat_template_kwargs".split()
)
"""Fields of a chat request that a rewrite understands."""

_OFF: dict[str, Any] = {"n": 1, "tool_choice": "none", "response_format": {"type": "text"}}
"""Values of other fields that ask for nothing."""


def rewriters(
    profiles: Sequence[Mapping[str, Any]], base: str, model: str, adapters: Mapping[str, Path]
) -> dict[str, str]:
    """Which model of the server rewrites for each rewrite profile that does not name the host.

    Args:
        profiles: of the bundle.
        base: name of the served model for clients.
        model: its folder or Hub name.
        adapters: name -> PEFT folder, served as BASE:NAME.

    Raises:
        StartError: a rewriter that this server does not hold.
    """
    found: dict[str, str] = {}
    for profile in profiles:
        wanted = (profile.get("rewrite") or {}).get("rewriter", HOST)
        if wanted == HOST or _same(wanted, model):
            continue
        own = [name for name, folder in adapters.items() if _same(wanted, str(folder))]
        if not own:
            raise StartError(
                f"{profile['name']!r} is rewritten by {wanted}, which this server does not hold. "
                f"If that is a PEFT adapter of {model}, add --control {wanted}. A whole model "
                "cannot be served beside another: fit the control with rewriter=host, or use "
                "valign.generate(lm, prompts, control) in Python."
            )
        found[profile["name"]] = f"{base}:{own[0]}"
    return found


def _same(one: str, other: str) -> bool:
    return one == other or (Path(one).exists() and Path(one).resolve() == Path(other).resolve())


def asked(rewrite: Mapping[str, Any], source: str, prompt: str | None) -> str:
    """The words of a rewrite's request, from a bundle's row.

    Raises:
        ModelLoadError: the template cannot be rendered.
    """
    from valign.lm.rewriting import Change, words

    changes = [Change(**change) for change in rewrite["changes"]]
    return words(rewrite["template"], source, changes, prompt)


def check(request: Mapping[str, Any], name: str, *, chat: bool) -> None:
    """Refuse a request that a rewrite cannot keep.

    Raises:
        RequestError: names the field.
    """
    if not chat:
        raise RequestError(
            f"{name!r} rewrites answers of a conversation: use it with /v1/chat/completions."
        )
    for key, value in request.items():
        if key in PASSED or value in (None, False, [], {}, "") or _OFF.get(key) == value:
            continue
        raise RequestError(
            f"{name!r} rewrites a finished answer and does not know {key[:60]!r}; leave it out. "
            f"It takes {', '.join(sorted(PASSED))}."
        )


@dataclass
class _Kept:
    """Takes what an application sends."""

    status: int = 0
    messages: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        self.messages.append(message)

    @property
    def body(self) -> Any:
        """The JSON of the body, None if it is none."""
        try:
            return json.loads(b"".join(m.get("body", b"") for m in self.messages))
        except ValueError:
            return None


async def answer(
    app: App, scope: Any, receive: Any, send: Any, request: dict[str, Any], entry: Entry
) -> None:
    """Answer a chat request under a rewrite profile.

    Args:
        app: vLLM's application.
        request: the client's request, checked.
        entry: the profile.
    """
    gone = False

    async def listening() -> Any:
        nonlocal gone
        message = await receive()
        gone = gone or message["type"] == "http.disconnect"
        return message

    first = _Kept()
    once = {k: v for k, v in request.items() if k != "stream_options"} | {"stream": False}
    await ask(app, scope, listening, first, json.dumps(once).encode())
    if gone:
        return
    said = first.body
    if first.status != 200 or not isinstance(said, dict):
        for message in first.messages:
            await send(message)
        return
    source = said["choices"][0]["message"].get("content") or ""
    if not source.strip():
        await _as_it_is(send, said, request)
        return
    assert entry.rewrite is not None
    words = asked(entry.rewrite, source, question(request["messages"]))
    by = json.loads(os.environ.get(REWRITERS, "{}")).get(entry.name, request["model"])
    limits = ("max_tokens", "max_completion_tokens")
    second = {k: v for k, v in request.items() if k not in limits} | {
        "model": by,
        "messages": [{"role": "user", "content": words}],
        "max_completion_tokens": entry.rewrite["max_new_tokens"],
    }
    rewritten = _Rewritten(send, said.get("usage") or {}, request["model"])
    await ask(app, scope, listening, rewritten, json.dumps(second).encode())


async def ask(app: App, scope: Any, receive: Any, send: Any, body: bytes) -> None:
    """Put a body of one's own to an application, in place of the client's."""
    headers = [(k, v) for k, v in scope["headers"] if k != b"content-length"]
    headers.append((b"content-length", str(len(body)).encode()))
    given = False

    async def own() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    await app({**scope, "headers": headers}, own, send)


def question(messages: Sequence[Any]) -> str | None:
    """What the user asked last, as `valign.lm.rewriting.question` takes it."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, list):
                parts = [part if isinstance(part, dict) else {"text": part} for part in content]
                return "\n".join(str(part["text"]) for part in parts if "text" in part)
            return content
    return None


class _Rewritten:
    """Passes the second answer on: in the client's model name, with the usage of both."""

    def __init__(self, send: Any, usage: Mapping[str, Any], model: str):
        self._send, self._usage, self._model = send, usage, model
        self._start: dict[str, Any] = {}
        self._streamed = False
        self._rest = b""

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kinds = [v for k, v in message["headers"] if k.lower() == b"content-type"]
            self._start = message
            self._streamed = any(kind.startswith(b"text/event-stream") for kind in kinds)
            if self._streamed:
                await self._send(message)
            return
        more = message.get("more_body", False)
        self._rest += message.get("body", b"")
        if self._streamed:
            *events, self._rest = self._rest.split(b"\n\n")
            body = b"".join(self._event(event) + b"\n\n" for event in events)
            if not more:
                body, self._rest = body + self._rest, b""
            await self._send({"type": message["type"], "body": body, "more_body": more})
        elif not more:
            await _whole(self._send, self._start, self._changed(self._rest))

    def _event(self, event: bytes) -> bytes:
        if not event.startswith(b"data: {"):
            return event
        return b"data: " + self._changed(event.removeprefix(b"data: "))

    def _changed(self, body: bytes) -> bytes:
        try:
            row = json.loads(body)
        except ValueError:
            return body
        if not isinstance(row, dict):
            return body
        if isinstance(row.get("error"), dict):
            text = row["error"].get("message")
            row["error"]["message"] = f"The answer was made, but not its rewrite: {text}"
        if "model" in row:
            row["model"] = self._model
        if row.get("usage"):
            row["usage"] = _sum(self._usage, row["usage"])
        return json.dumps(row).encode()


def _sum(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Both usages, number by number; details that only one of them has stay out."""
    return {
        key: one[key] + other[key]
        for key in ("prompt_tokens", "completion_tokens", "total_tokens")
        if key in one and key in other
    }


async def _as_it_is(send: Any, said: dict[str, Any], request: Mapping[str, Any]) -> None:
    """The first answer, in the form the client asked for."""
    start = {"type": "http.response.start", "status": 200,
             "headers": [(b"content-type", b"application/json")]}  # fmt: skip
    if not request.get("stream"):
        await _whole(send, start, json.dumps(said).encode())
        return
    choice = said["choices"][0]
    chunk: dict[str, Any] = {k: said[k] for k in said if k in ("id", "created", "model")}
    chunk["object"] = "chat.completion.chunk"
    delta = {"role": "assistant", "content": choice["message"].get("content") or ""}
    rows: list[dict[str, Any]] = [
        {**chunk, "choices": [
            {"index": 0, "delta": delta, "finish_reason": choice.get("finish_reason")}
        ]}
    ]  # fmt: skip
    if (request.get("stream_options") or {}).get("include_usage"):
        rows.append({**chunk, "choices": [], "usage": said.get("usage")})
    body = b"".join(b"data: " + json.dumps(row).encode() + b"\n\n" for row in rows)
    start["headers"] = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send(start)
    await send({"type": "http.response.body", "body": body + b"data: [DONE]\n\n"})


async def _whole(send: Any, start: dict[str, Any], body: bytes) -> None:
    headers = [(k, v) for k, v in start["headers"] if k.lower() != b"content-length"]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body})
