"""Profiles as model names: `model="MODEL:warm"` asks for the profile `warm` of the bundle.

vLLM lists several served names but does not tell the engine which one a request used. This ASGI
middleware (vLLM's `--middleware`, set by `valign serve`) reads the name and writes the profile
into the request. An instruction becomes the system message; for rewrites see `rewrites`. Beam
search is refused under a profile, because vLLM drops the request's extra arguments there. So are
the other endpoints that take a model's name (`/v1/responses`, `/v1/messages`, ...): they would
answer plainly in the profile's name.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from valign.deploy.vllm_plugin import rewrites
from valign.deploy.vllm_plugin.request import KEY, Catalog, Entry, RequestError
from valign.values.errors import ValignError

_PATHS = ("/v1/chat/completions", "/v1/completions")
_NO_ANSWER = ("/tokenize", "/detokenize", "/v1/load_lora_adapter", "/v1/unload_lora_adapter")
"""Endpoints that take a model's name and answer nobody under it."""


class ProfileModels:
    """Wraps an ASGI application."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not _json(scope):
            return await self._app(scope, receive, send)
        path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/")
        if path in _NO_ANSWER:
            return await self._app(scope, receive, send)
        body, whole = await _read(receive)
        if not whole:
            return None  # the client hung up
        from valign.deploy.vllm_plugin.active import active_catalog

        catalog, chat = active_catalog(), path == _PATHS[0]
        request = _object(body)
        entry = named(request, catalog)
        try:
            if path not in _PATHS:
                if entry is not None:
                    raise RequestError(
                        f"Profiles are served at {' and '.join(_PATHS)}, not at {path[:60]}. "
                        f"Ask there for {entry.name!r}, or here for the plain model."
                    )
            elif entry is not None and entry.rewrite is not None:
                rewrites.check(request, entry.name, chat=chat)
                return await rewrites.answer(self._app, scope, receive, send, request, entry)
            else:
                body = rewritten(body, catalog, chat=chat)
        except ValignError as error:
            return await _refuse(send, str(error))
        return await rewrites.ask(self._app, scope, receive, send, body)


def named(request: dict[str, Any], catalog: Catalog) -> Entry | None:
    """The profile that a request's model name asks for."""
    base, _, name = str(request.get("model")).rpartition(":")
    return catalog.entries.get(name) if base else None


def rewritten(body: bytes, catalog: Catalog, *, chat: bool) -> bytes:
    """A request's body with the profile its model name asks for.

    What is no JSON object, or names no profile, comes back as it is; vLLM judges it.

    Raises:
        RequestError: a profile named twice, words where there is no system message, beam search.
    """
    request = _object(body)
    if not request:
        return body
    extra: Any = request.get("vllm_xargs")
    steered = isinstance(extra, dict) and KEY in extra
    entry = named(request, catalog)
    if entry is not None and entry.instruction is not None:
        return _instructed(request, entry.name, entry.instruction, chat)
    if entry is not None and steered:
        base = str(request["model"]).rpartition(":")[0]
        raise RequestError(
            f"The model name asks for {entry.name!r} and vllm_xargs for {str(extra[KEY])[:60]!r}. "
            f"Use model={base!r} and name all profiles in vllm_xargs."
        )
    if (entry is not None or steered) and request.get("use_beam_search"):
        raise RequestError("Beam search drops profiles. Leave use_beam_search out.")
    if entry is None or not (extra is None or isinstance(extra, dict)):
        return body
    request["vllm_xargs"] = {**(extra or {}), KEY: f"{entry.name}=1"}
    return json.dumps(request).encode()


def _instructed(request: dict[str, Any], name: str, instruction: str, chat: bool) -> bytes:
    messages = request.get("messages")
    if not chat:
        raise RequestError(
            f"{name!r} is an instruction for a conversation: use it with /v1/chat/completions."
        )
    if isinstance(messages, list):
        first = messages[0] if messages and isinstance(messages[0], dict) else {}
        if first.get("role") == "system" and isinstance(first.get("content"), str):
            messages[0] = {**first, "content": f"{instruction}\n\n{first['content']}"}
        else:
            messages.insert(0, {"role": "system", "content": instruction})
    return json.dumps(request).encode()


def _json(scope: Any) -> bool:
    """Whether a request may hold JSON; vLLM judges what says nothing about it."""
    kinds = [v for k, v in scope["headers"] if k.lower() == b"content-type"]
    return not kinds or any(b"json" in kind.lower() for kind in kinds)


def _object(body: bytes) -> dict[str, Any]:
    """A body's JSON object, empty where it holds none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


async def _read(receive: Any) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"", False
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts), True


async def _refuse(send: Any, text: str) -> None:
    error = {"message": text, "type": "BadRequestError", "param": KEY, "code": 400}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
