"""Profiles as model names: `model="MODEL:warm"` asks for the profile `warm` of the bundle.

vLLM lists several served names but does not tell the engine which one a request used. This ASGI
middleware (vLLM's `--middleware`, set by `valign serve`) reads the name and writes the profile
into the request. An instruction becomes the system message. Beam search is refused under a
profile, because vLLM drops the request's extra arguments there.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from valign.deploy.vllm_plugin.request import KEY, Catalog, RequestError

_PATHS = ("/chat/completions", "/completions")


class ProfileModels:
    """Wraps an ASGI application."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith(
            _PATHS
        ):  # fmt: skip
            return await self._app(scope, receive, send)
        body, whole = await _read(receive)
        if not whole:
            return None  # the client hung up
        from valign.deploy.vllm_plugin.active import active_catalog

        try:
            body = rewritten(body, active_catalog(), chat="/chat/" in scope["path"])
        except RequestError as error:
            return await _refuse(send, str(error))
        headers = [(k, v) for k, v in scope["headers"] if k != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        given = False

        async def again() -> Any:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return await self._app({**scope, "headers": headers}, again, send)


def rewritten(body: bytes, catalog: Catalog, *, chat: bool) -> bytes:
    """A request's body with the profile its model name asks for.

    What is no JSON object, or names no profile, comes back as it is; vLLM judges it.

    Raises:
        RequestError: a profile named twice, words where there is no system message, beam search.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(request, dict):
        return body
    extra = request.get("vllm_xargs")
    steered = isinstance(extra, dict) and KEY in extra
    base, _, name = str(request.get("model")).rpartition(":")
    entry = catalog.entries.get(name) if base else None
    if entry is not None and entry.instruction is not None:
        return _instructed(request, entry.name, entry.instruction, chat)
    if entry is not None and steered:
        raise RequestError(
            f"The model name asks for {name!r} and vllm_xargs for {str(extra[KEY])[:60]!r}. "
            f"Use model={base!r} and name all profiles in vllm_xargs."
        )
    if (entry is not None or steered) and request.get("use_beam_search"):
        raise RequestError("Beam search drops profiles. Leave use_beam_search out.")
    if entry is None or not (extra is None or isinstance(extra, dict)):
        return body
    request["vllm_xargs"] = {**(extra or {}), KEY: f"{name}=1"}
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
