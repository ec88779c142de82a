"""`valign serve`: the stock OpenAI client, many at once, wrong requests, clients that hang up."""

from __future__ import annotations

import asyncio
import importlib.util

import httpx
import pytest

from tests.deploy.vllm_plugin.fuzz import bodies
from tests.deploy.vllm_plugin.profiles import MIXES, alone, some_prompts

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM is not installed"),
]


@pytest.fixture(scope="module")
def server(served, start_server):
    """Base URL of a server with all profiles."""
    with start_server(served.model, served.bundle) as url:
        yield url


def alive(url: str) -> bool:
    return httpx.get(f"{url}/health", timeout=30).status_code == 200


async def _streamed(client, ids: list[int], valign: str | None, model: str = "m") -> list[int]:
    extra = {"ignore_eos": True, "return_token_ids": True}
    if valign:
        extra["vllm_xargs"] = {"valign": valign}
    stream = await client.completions.create(
        model=model, prompt=ids, max_tokens=16, temperature=0, stream=True, extra_body=extra
    )
    found: list[int] = []
    async for chunk in stream:
        for choice in chunk.choices:
            found += choice.model_extra.get("token_ids") or []
    return found


def test_64_streams_at_once_and_nothing_mixed(served, server):
    import openai

    asked = [(name, {name: 1.0}) for name in served.controls] + list(MIXES.items())
    asked += [(None, {})] * (32 - len(asked))
    asked *= 2
    prompts = some_prompts(64, seed=3, longest=60)

    async def all_at_once() -> list[list[int]]:
        client = openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none", timeout=200)
        jobs = [_streamed(client, p, text) for p, (text, _) in zip(prompts, asked, strict=True)]
        return await asyncio.gather(*jobs)

    found = asyncio.run(all_at_once())
    wanted = [
        alone(served.lm, served.controls, mix, p, 16)
        for p, (_, mix) in zip(prompts, asked, strict=True)
    ]
    assert found == wanted


def test_profiles_are_models_and_doses_are_refused_where_none_was_measured(served, server):
    import openai

    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", timeout=100)
    names = [model.id for model in client.models.list()]
    assert names == ["m", *(f"m:{name}" for name in served.controls)]
    settings = dict(max_tokens=8, temperature=0)
    messages = [{"role": "user", "content": "rest or work ?"}]

    def said(model: str, **extra) -> str | None:
        answer = client.chat.completions.create(
            model=model, messages=messages, extra_body=extra, **settings
        )
        return answer.choices[0].message.content

    by_name = said("m:push")
    assert by_name == said("m", vllm_xargs={"valign": "push=1"}) != said("m")
    with pytest.raises(openai.BadRequestError, match="without a calibrated dose"):
        said("m", vllm_xargs={"valign": "add=1", "valign_dose": 0.1})
    with pytest.raises(openai.BadRequestError, match="Did you mean 'push'"):
        said("m", vllm_xargs={"valign": "pusch=1"})
    with pytest.raises(openai.BadRequestError, match="model='m'"):
        said("m:push", vllm_xargs={"valign": "add=1"})
    with pytest.raises(openai.BadRequestError, match="Beam search drops profiles"):
        said("m:push", use_beam_search=True)
    with pytest.raises(openai.NotFoundError):
        said("m:nobody")


def test_wrong_requests_never_harm_the_server(served, server):
    """No 500, and a refusal of a profile says what to type."""
    ids = some_prompts(1, seed=9)[0]
    found: dict[int, int] = {}
    with httpx.Client(base_url=server, timeout=100) as client:
        for number, body in enumerate(bodies(300)):
            path = "/v1/completions" if number % 2 else "/v1/chat/completions"
            response = client.post(path, content=body, headers={"content-type": "application/json"})
            assert response.status_code in (200, 400, 404, 422), (body, response.text)
            found[response.status_code] = found.get(response.status_code, 0) + 1
        assert found[400] > 100, found
        settings = dict(model="m", prompt=ids, max_tokens=16, temperature=0, ignore_eos=True,
                        return_token_ids=True)  # fmt: skip
        answer = client.post(
            "/v1/completions", json={**settings, "vllm_xargs": {"valign": "clip=1"}}
        )
    assert alive(server)
    wanted = alone(served.lm, served.controls, {"clip": 1.0}, ids, 16)
    assert answer.json()["choices"][0]["token_ids"] == wanted


def test_clients_that_hang_up_leave_the_others_alone(served, server):
    import openai

    prompts = some_prompts(12, seed=4, longest=40)
    names = [*served.controls][:12]

    async def leave(client, ids: list[int], name: str) -> None:
        stream = await client.completions.create(
            model=f"m:{name}", prompt=ids, max_tokens=100, temperature=0, stream=True,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        async for _ in stream:
            await stream.close()
            return

    async def both() -> list[list[int]]:
        client = openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none", timeout=200)
        gone = [leave(client, p, n) for p, n in zip(prompts, names[::-1], strict=True)]
        stay = [_streamed(client, p, None, f"m:{n}") for p, n in zip(prompts, names, strict=True)]
        return (await asyncio.gather(*gone, *stay))[len(gone) :]

    wanted = [
        alone(served.lm, served.controls, {n: 1.0}, p, 16)
        for p, n in zip(prompts, names, strict=True)
    ]
    assert asyncio.run(both()) == wanted
    assert alive(server)
