"""Many questions at once, from prompt files whose version is a hash of their text."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import jinja2

from valign.detect.judge.answers import A, Failure
from valign.detect.judge.client import ChatClient, Reply
from valign.detect.judge.errors import JudgeError, JudgeWarning


def ask_all(
    client: ChatClient,
    rendered: Sequence[str],
    schema: type[A],
    prompt: str,
    concurrency: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Reply[A]]:
    """One reply a question, in order; what failed is told in one `JudgeWarning`.

    Args:
        prompt: name of the prompt file that the questions were rendered from.
        concurrency: requests in flight at a time.
        progress: told how many questions of how many are done.

    Raises:
        JudgeError: no question got a valid answer, or the server refuses such requests.
    """
    if not rendered:
        return []
    version = prompt_version(prompt)
    limits = httpx.Limits(max_connections=concurrency)
    with (
        httpx.Client(headers=client.headers(), timeout=client.timeout, limits=limits) as http,
        ThreadPoolExecutor(concurrency) as pool,
    ):

        def ask(text: str) -> Reply[A]:
            return client.ask(http, text, schema, prompt_version=version)

        replies = _all_or_first_error(pool, ask, rendered, progress)
    failed = Counter(reply.failure for reply in replies if reply.failure is not None)
    if failed:
        told = ", ".join(f"{n} {failure}" for failure, n in failed.most_common())
        worst = failed.most_common(1)[0][0]
        detail = next(reply.detail for reply in replies if reply.failure is worst)
        if failed.total() == len(replies):
            raise JudgeError(
                f"None of {len(replies)} questions got a valid answer from "
                f"{client.base_url} (model {client.model}): {told}; for example "
                f"{detail!r}. Check {_CHECK[worst]}."
            )
        warnings.warn(
            f"{failed.total()} of {len(replies)} questions got no valid answer and are NaN: "
            f"{told}; for example {detail!r}.",
            JudgeWarning,
            stacklevel=3,
        )
    return replies


_CHECK = {
    Failure.TIMEOUT: "that the server is not overloaded, or raise timeout or lower concurrency",
    Failure.CONNECTION: "that the server runs and that base_url names its host and port",
    Failure.RATE_LIMIT: "the account's rate limit, or lower concurrency and raise max_wait",
    Failure.SERVER: "the server's log",
    Failure.REFUSAL: "whether this model judges such texts at all, or name another one",
    Failure.MALFORMED: "that the model is large enough to answer in JSON, that max_tokens leaves "
    'room, or pass extra_body={"response_format": {"type": "json_object"}}',
}


def _all_or_first_error(
    pool: ThreadPoolExecutor,
    ask: Callable[[str], Reply[A]],
    rendered: Sequence[str],
    progress: Callable[[int, int], None] | None,
) -> list[Reply[A]]:
    """Every reply in order; after an error, what has not begun is not sent any more."""
    futures = [pool.submit(ask, text) for text in rendered]
    replies = []
    try:
        for future in futures:
            replies.append(future.result())
            if progress is not None:
                progress(len(replies), len(futures))
        return replies
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def aligned(prompts: Sequence[str | None] | None, n: int) -> list[str | None]:
    """A prompt or None for each of n texts.

    Raises:
        JudgeError: another number of prompts than of texts.
    """
    if prompts is None:
        return [None] * n
    if len(prompts) != n:
        raise JudgeError(f"{len(prompts)} prompts stand against {n} texts; give one for each.")
    return list(prompts)


def mark_of(*parts: str | None) -> str:
    """A tag that the parts cannot contain, and that is the same at every run."""
    whole = "\0".join(part or "" for part in parts)
    return f"text-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"


@cache
def _template(name: str) -> str:
    file = resources.files("valign.detect") / "prompts" / f"{name}.jinja"
    return Path(str(file)).read_text(encoding="utf-8")


def prompt_version(name: str) -> str:
    """Name and hash of a prompt file: an edited prompt never passes for the old one."""
    return f"{name}-{hashlib.sha256(_template(name).encode()).hexdigest()[:8]}"


def render(name: str, **given: Any) -> str:
    """A prompt file with its blanks filled in."""
    # Plain text, not HTML: escaping would change what is judged. The texts are values of the
    # template, so braces in them stay braces.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.from_string(_template(name)).render(**given)
