"""`valign serve` on controls of every kind: profiles, adapters and rewrites of one server."""

from __future__ import annotations

import importlib.util
import typing

import pytest

from tests.deploy.vllm_plugin.profiles import alone, some_prompts
from tests.lm.adapters import merged, mixture
from tests.lm.reference import TARGET
from tests.lm.tiny import PROMPTS
from valign.control import RewriteControl
from valign.deploy import export
from valign.deploy.adapters import RANKS
from valign.lm import generate

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM is not installed"),
]

TEMPLATE = (
    "{{ source }} {% for c in changes %}more {{ c.name }} {% endfor %}: {{ prompt }} {{ prompt }}"
)


@pytest.fixture(scope="module")
def controls(served) -> dict:
    return {
        "add": served.controls["add"],
        "mixture": mixture(served.lm, a=0.2, b=-0.1, c=0.5),
        "ready": mixture(served.lm, z=0.4),
        "soft": RewriteControl(target=TARGET, template=TEMPLATE, max_new_tokens=12),
    }


@pytest.fixture(scope="module")
def server(served, controls, start_server, tmp_path_factory):
    """One adapter comes as a control, one as a PEFT folder, the rest become a bundle."""
    folder = tmp_path_factory.mktemp("controls")
    lines = folder / "prompts.txt"
    lines.write_text("\n".join(PROMPTS))
    export(served.lm, controls["ready"], to="peft", out=folder / "ready", prompts=PROMPTS[:2])
    files = [
        c.save(folder / f"{name}.safetensors") for name, c in controls.items() if name != "ready"
    ]
    more = ("--prompts", lines)
    with start_server(served.model, *files, folder / "ready", more=more) as url:
        yield url


@pytest.fixture(scope="module")
def client(server):
    import openai

    return openai.OpenAI(base_url=f"{server}/v1", api_key="none", timeout=200)


def test_everything_stands_in_the_model_list(client):
    names = {model.id for model in client.models.list()}
    assert names == {"m", "m:add", "m:soft", "m:mixture", "m:ready"}


def test_adapters_answer_as_the_merged_model_with_and_without_a_profile(served, controls, client):
    ids = some_prompts(1, seed=8)[0]
    models = {"m": served.lm} | {
        f"m:{name}": merged(served.lm, controls[name]) for name in ("mixture", "ready")
    }
    for name, lm in models.items():
        for mix in ({}, {"add": 1.0}, {"add": -0.5}):
            extra = {"ignore_eos": True, "return_token_ids": True}
            if mix:
                extra["vllm_xargs"] = {"valign": f"add={mix['add']}"}
            said = client.completions.create(
                model=name, prompt=ids, max_tokens=16, temperature=0, extra_body=extra
            )
            found = said.choices[0].model_extra["token_ids"]
            assert found == alone(lm, served.controls, mix, ids, 16), (name, mix)
            assert said.model == name


def test_a_rewrite_is_what_the_library_makes_of_it(served, controls, client):
    for prompt in PROMPTS:
        wanted = generate(served.lm, [prompt], controls["soft"], max_new_tokens=20).texts[0]
        ask = dict(
            model="m:soft", messages=[{"role": "user", "content": prompt}], temperature=0,
            max_tokens=20,
        )  # fmt: skip
        said = client.chat.completions.create(**ask)
        found = said.choices[0].message.content
        assert found.strip() == wanted  # vLLM writes a space before the first of these words
        assert said.model == "m:soft" and said.usage.completion_tokens == 20 + 12
        pieces = client.chat.completions.create(
            **ask, stream=True, stream_options={"include_usage": True}
        )
        rows = list(pieces)
        text = "".join(c.delta.content or "" for row in rows for c in row.choices)
        assert text == found and rows[-1].usage == said.usage
        plain = client.chat.completions.create(**{**ask, "model": "m"})
        assert plain.choices[0].message.content != found


def test_what_a_rewrite_cannot_do_is_refused(client):
    import openai

    said = [{"role": "user", "content": "rest or work ?"}]
    with pytest.raises(openai.BadRequestError, match="does not know 'n'"):
        client.chat.completions.create(model="m:soft", messages=said, n=2)
    with pytest.raises(openai.BadRequestError, match="Profiles are served at"):
        client.responses.create(model="m:soft", input="rest or work ?")
    with pytest.raises(openai.BadRequestError, match=r"not its rewrite: .*context length"):
        client.chat.completions.create(
            model="m:soft", messages=[{"role": "user", "content": "rest " * 100}], max_tokens=9
        )


def test_the_ranks_are_those_of_vllm():
    from vllm.config.lora import MaxLoRARanks

    assert typing.get_args(MaxLoRARanks) == RANKS
