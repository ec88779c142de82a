"""Two requests behind one: a stand-in for vLLM's application, and what it is asked."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.lm.reference import TARGET
from tests.lm.tiny import PROMPTS, tiny_lm
from valign.control import RewriteControl
from valign.deploy import ExportError, export, read_bundle
from valign.deploy.vllm_plugin import active, profile_models, rewrites
from valign.deploy.vllm_plugin.profile_models import ProfileModels
from valign.deploy.vllm_plugin.request import RequestError, read_catalog
from valign.deploy.vllm_plugin.untested import StartError
from valign.lm.rewriting import request

TEMPLATE = (
    "{{ source }} {% for c in changes %}more {{ c.name }} {{ c.level }} {{ c.definition }}"
    "{% endfor %} : {{ prompt }}"
)
SOFT = RewriteControl(target=TARGET, template=TEMPLATE, max_new_tokens=7)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rewrites") / "b"
    export(tiny_lm(), {"soft": SOFT}, to="vllm", out=folder, prompts=PROMPTS, tokens=4)
    return folder


@pytest.fixture
def catalog(bundle, monkeypatch):
    found = read_catalog(read_bundle(bundle))
    monkeypatch.setattr(active, "active_catalog", lambda: found)
    return found


@dataclass
class Engine:
    """Answers with the texts it was given, in turn, and keeps what it was asked."""

    texts: list[str]
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, scope, receive, send) -> None:
        message = await receive()
        assert int(dict(scope["headers"])[b"content-length"]) == len(message["body"])
        row = json.loads(message["body"])
        self.asked.append(row)
        number, text = len(self.asked), self.texts[len(self.asked) - 1]
        usage = dict(prompt_tokens=10 * number, completion_tokens=number, total_tokens=11 * number)
        made = {"id": str(number), "created": 1, "model": row["model"]}
        status = 200 if text is not None else 400
        kind = b"application/json"
        if status != 200:
            pieces = [json.dumps({"error": {"message": "too long", "code": 400}})]
        elif row.get("stream"):
            kind = b"text/event-stream"
            rows = [{**made, "choices": [{"index": 0, "delta": {"content": w}}]} for w in text]
            if (row.get("stream_options") or {}).get("include_usage"):
                rows.append({**made, "choices": [], "usage": usage})
            whole = "".join(f"data: {json.dumps(r)}\n\n" for r in rows) + "data: [DONE]\n\n"
            pieces = [whole[i : i + 37] for i in range(0, len(whole), 37)]  # cut anywhere
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": text},
                      "finish_reason": "stop"}  # fmt: skip
            pieces = [json.dumps({**made, "choices": [choice], "usage": usage})]
        await send({"type": "http.response.start", "status": status,
                    "headers": [(b"content-type", kind)]})  # fmt: skip
        for n, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": piece.encode(),
                        "more_body": n + 1 < len(pieces)})  # fmt: skip


def put(engine: Engine, path: str = "/v1/chat/completions", **fields) -> tuple[int, bytes]:
    """A client's request through the middleware."""
    body = json.dumps({"model": "m:soft", "messages": [SAID], **fields}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"0")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    sent: list[dict] = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(ProfileModels(engine)(scope, receive, send))
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:])


SAID = {"role": "user", "content": "rest or work ?"}


def test_the_answer_is_rewritten_with_the_controls_own_words(catalog):
    engine = Engine(["work and rest", "rest"])
    status, body = put(engine, temperature=0, seed=3, stop=["."], max_tokens=5)
    answer = json.loads(body)
    assert status == 200 and answer["choices"][0]["message"]["content"] == "rest"
    assert answer["model"] == "m:soft"
    assert answer["usage"] == dict(prompt_tokens=30, completion_tokens=3, total_tokens=33)
    shared = {"model": "m:soft", "temperature": 0, "seed": 3, "stop": ["."]}
    words = request(
        TEMPLATE, TARGET.system, "work and rest", TARGET.named, prompt="rest or work ?", steps=2
    )
    assert engine.asked == [
        {**shared, "messages": [SAID], "max_tokens": 5, "stream": False},
        {**shared, "messages": [{"role": "user", "content": words}], "max_completion_tokens": 7},
    ]


def test_a_stream_is_the_rewrite_alone(catalog):
    engine = Engine(["work", "rest"])
    _, body = put(engine, stream=True, stream_options={"include_usage": True})
    *rows, end = [e.removeprefix(b"data: ") for e in body.split(b"\n\n") if e]
    rows = [json.loads(row) for row in rows]
    said = "".join(c["delta"]["content"] for row in rows for c in row["choices"])
    assert said == "rest" and end == b"[DONE]"
    assert rows[-1]["usage"]["total_tokens"] == 33 and {r["model"] for r in rows} == {"m:soft"}
    assert engine.asked[0]["stream"] is False and "stream_options" not in engine.asked[0]
    assert engine.asked[1]["stream"] is True


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_blanks_stays(catalog, stream):
    engine = Engine([" "])
    status, body = put(engine, stream=stream)
    assert status == 200 and b'"content": " "' in body and len(engine.asked) == 1
    assert body.endswith(b"data: [DONE]\n\n") == stream


def test_errors_come_through(catalog):
    status, body = put(Engine([None]))
    assert status == 400 and json.loads(body)["error"]["message"] == "too long"
    status, body = put(Engine(["work", None]))
    assert status == 400 and "not its rewrite: too long" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"tools": [{"type": "function"}]},
        {"logprobs": True},
        {"use_beam_search": True},
        {"vllm_xargs": {"valign": "add=1"}},
        {"response_format": {"type": "json_object"}},
        {"echo": True},
    ],
)
def test_what_a_rewrite_does_not_know_is_refused_by_name(catalog, fields):
    engine = Engine([])
    status, body = put(engine, **fields)
    assert status == 400 and next(iter(fields)) in json.loads(body)["error"]["message"]
    assert not engine.asked


def test_fields_that_ask_for_nothing_pass(catalog):
    off = {"n": 1, "tools": None, "logprobs": False, "tool_choice": "none", "top_logprobs": 0}
    assert put(Engine(["a", "b"]), **off)[0] == 200


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/chat/completions/batch"])
def test_other_endpoints_do_not_answer_in_a_profiles_name(catalog, path):
    status, body = put(Engine([]), path)
    assert status == 400 and "/v1/chat/completions" in json.loads(body)["error"]["message"]
    assert put(Engine(["plain"]), path, model="m")[0] == 200


def test_completions_and_arguments_are_no_way_to_a_rewrite(catalog):
    status, body = put(Engine([]), "/v1/completions")
    assert status == 400 and "chat/completions" in json.loads(body)["error"]["message"]
    with pytest.raises(RequestError, match="MODEL:soft"):
        catalog.mix({"valign": "soft=1"})
    assert profile_models.named({"model": "m:soft"}, catalog).rewrite["max_new_tokens"] == 7


def test_a_client_that_hangs_up_is_not_rewritten_for(catalog):
    asked = []

    async def app(scope, receive, send):
        await receive()
        asked.append(await receive())  # as vLLM listens while it works

    messages = [{"type": "http.request", "body": json.dumps({"model": "m:soft"}).encode()},
                {"type": "http.disconnect"}]  # fmt: skip
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}

    async def receive():
        return messages.pop(0)

    async def send(message):
        raise AssertionError(message)

    asyncio.run(ProfileModels(app)(scope, receive, send))
    assert asked == [{"type": "http.disconnect"}]


def test_rewriters_are_the_host_or_an_adapter_of_the_server(tmp_path):
    def found(rewriter, **adapters):
        rows = [{"name": "soft", "rewrite": {"rewriter": rewriter}}, {"name": "x"}]
        return rewrites.rewriters(rows, "m", str(tmp_path), adapters)

    other = tmp_path / "polish"
    other.mkdir()
    assert found("host") == {} == found(str(tmp_path))
    assert found(str(other), polish=other) == {"soft": "m:polish"}
    with pytest.raises(StartError, match=r"'soft' is rewritten by .*--control"):
        found(str(other))


def test_a_bundle_with_a_rewrite_is_certified_and_other_formats_refuse_it(bundle, tmp_path):
    row = read_bundle(bundle).profiles[0]
    assert row["kind"] == "rewrite" and row["rewrite"]["template"] == TEMPLATE
    with pytest.raises(ExportError, match="rewrites finished answers"):
        export(tiny_lm(), SOFT, to="folded", out=tmp_path / "f", prompts=PROMPTS)


def test_templates_reach_nothing_outside():
    text = "{{ source }}{{ cycler.__init__.__globals__.os.popen('id').read() }}"
    with pytest.raises(Exception, match="template of the rewrite cannot be rendered"):
        request(text, TARGET.system, "a", TARGET.named)
