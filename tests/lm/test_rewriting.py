"""The second pass: what a rewrite control makes of the host's answers."""

import pytest

from tests.lm.tiny import PROMPTS, tiny_lm
from valign.control import EditError, RewriteControl, TextControl, load
from valign.lm import (
    DoseError,
    DoseMeter,
    ModelLoadError,
    UnsupportedSiteError,
    generate,
    stream,
    token_logprobs,
)
from valign.lm.rewriting import request
from valign.values import Profile, load_system

SYSTEM = load_system("schwartz10")
TEMPLATE = "{% for c in changes %}{{ c.name }} {{ c.level }} {% endfor %}{{ source }}"
TARGET = Profile.of(SYSTEM, security=1, power=-0.5)
OPTIONS = dict(max_new_tokens=6)


def control(**more) -> RewriteControl:
    return RewriteControl(**{**dict(target=TARGET, template=TEMPLATE, max_new_tokens=8), **more})


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def test_the_request_lists_changes_in_grid_steps_and_tells_what_is_known():
    full = (
        "{% for c in changes %}{{ c.title }} {{ c.now }} {{ c.wanted }} {{ c.level }};{% endfor %}"
        "{{ prompt }}|{{ source }}"
    )
    said = request(full, SYSTEM, " text ", {"power": -0.5}, now={"power": 0.5}, prompt="why")
    assert said == "power 0.5 -0.5 -1;why|text"
    assert request(TEMPLATE, SYSTEM, "text", {"power": 2 / 3}, steps=3) == "power 2 text"
    with pytest.raises(ModelLoadError, match="template"):
        request("{{ sauce }}", SYSTEM, "text", {})


def test_a_rewrite_is_what_the_host_says_to_the_request(lm):
    plain = generate(lm, PROMPTS, **OPTIONS)
    said = generate(lm, PROMPTS, control(), **OPTIONS)
    asked = [request(TEMPLATE, SYSTEM, t, TARGET.named) for t in plain.texts]
    assert said.texts == generate(lm, asked, max_new_tokens=8).texts
    assert said.texts != plain.texts
    assert [r.rewritten for r in said.receipts] == ["power=-0.5,security=+1"] * 4
    assert all(0 < len(ids) <= 8 for ids in said.token_ids)


def test_rows_of_all_kinds_share_a_batch(lm):
    text = TextControl(target=TARGET, instruction="care more .")
    alone = [generate(lm, PROMPTS[:1], c, **OPTIONS).texts[0] for c in (None, text, control())]
    heard = {}
    made = generate(
        lm, PROMPTS[:1] * 3, [None, text, control()], seed=[0, 0, 0],
        on_token=heard.__setitem__, **OPTIONS,
    )  # fmt: skip
    assert made.texts == alone
    assert [heard[i] for i in range(3)] == alone
    assert "".join(stream(lm, PROMPTS[0], control(), **OPTIONS)) == alone[2]


def test_another_model_may_rewrite(lm, tmp_path):
    other = tiny_lm(seed=3)
    other.model.save_pretrained(tmp_path / "r")
    other.tokenizer.save_pretrained(tmp_path / "r")
    said = generate(lm, PROMPTS, control(rewriter=str(tmp_path / "r")), **OPTIONS)
    plain = generate(lm, PROMPTS, **OPTIONS).texts
    asked = [request(TEMPLATE, SYSTEM, t, TARGET.named) for t in plain]
    assert said.texts == generate(other, asked, max_new_tokens=8).texts
    with pytest.raises(ModelLoadError):
        generate(lm, PROMPTS, control(rewriter=str(tmp_path / "nobody")), **OPTIONS)


def test_it_saves_scales_and_refuses_as_text_does(lm, tmp_path):
    made = control(steps=3, provenance={"method": "visa"})
    again = load(made.save(tmp_path))
    assert isinstance(again, RewriteControl)
    for name in ("template", "rewriter", "steps", "max_new_tokens", "target", "provenance"):
        assert getattr(again, name) == getattr(made, name)
    assert made.scaled(1.0) is made
    with pytest.raises(EditError, match="no strength"):
        made.scaled(0.5)
    with pytest.raises(EditError, match="source"):
        control(template="no place for it")
    with pytest.raises(DoseError, match="no dose"):
        DoseMeter(lm, PROMPTS, max_new_tokens=4).measure(made)


def test_token_probabilities_under_a_rewriter_are_refused(lm):
    with pytest.raises(UnsupportedSiteError, match="plain model"):
        token_logprobs(lm, ["Hello"], ["world"], control())
