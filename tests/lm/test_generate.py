"""Prompts, instructions, streaming and the ends of answers."""

import threading

import pytest
import torch

from tests.lm.reference import TARGET, make_control
from tests.lm.tiny import PROMPTS, TEMPLATE, tiny_lm
from valign.control import TextControl
from valign.lm import (
    ModelLoadError,
    PromptTooLongError,
    UnsupportedSiteError,
    generate,
    stream,
    token_logprobs,
)
from valign.lm.render import Verbatim, render
from valign.lm.sampling import Sampler

CARE = TextControl(target=TARGET, instruction="care more", provenance={"method": "prompt"})
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
USERS_ONLY = TEMPLATE.replace("in messages %}", "in messages if m['role'] != 'system' %}", 1)


def test_an_instruction_becomes_the_system_message():
    lm = tiny_lm()
    assert lm.render("rest ?", "care more") == "<system> care more <user> rest ? <assistant> "
    both = [dict(role="system", content="be safe"), dict(role="user", content="rest ?")]
    assert lm.render(both, "care more") == (
        "<system> care more\n\nbe safe <user> rest ? <assistant> "
    )
    assert lm.render(both) == "<system> be safe <user> rest ? <assistant> "


@pytest.mark.parametrize("template", [REFUSES + TEMPLATE, USERS_ONLY])
def test_without_a_system_role_it_goes_before_the_users_words(template):
    lm = tiny_lm()
    lm.tokenizer.chat_template = template
    assert lm.render("rest ?", "care more") == "<user> care more\n\nrest ? <assistant> "
    talk = [dict(role="user", content="rest ?"), dict(role="assistant", content="go"),
            dict(role="user", content="why ?")]  # fmt: skip
    assert lm.render(talk, "care more") == (
        "<user> care more\n\nrest ? <assistant> go <user> why ? <assistant> "
    )


def test_without_a_chat_template_it_is_a_paragraph():
    lm = tiny_lm(chat=False)
    assert render(lm.tokenizer, "rest ?") == "rest ?\n"
    assert render(lm.tokenizer, "rest ?", "care more") == "care more\n\nrest ?\n"
    said = generate(lm, PROMPTS, CARE, max_new_tokens=3)
    written = generate(lm, [f"care more {p}" for p in PROMPTS], max_new_tokens=3)
    assert said.token_ids == written.token_ids


def test_a_text_control_is_the_instruction_written_by_hand():
    lm = tiny_lm()
    said = generate(lm, PROMPTS, [CARE, None, CARE, make_control(lm, "add", "resid:1")],
                    max_new_tokens=4)  # fmt: skip
    by_hand = [
        [dict(role="system", content="care more"), dict(role="user", content=p)] for p in PROMPTS
    ]
    written = generate(lm, by_hand, max_new_tokens=4)
    plain = generate(lm, PROMPTS, max_new_tokens=4)
    for row in (0, 2):
        assert said.token_ids[row] == written.token_ids[row]
        assert said.prompt_tokens[row] == plain.prompt_tokens[row] + 3
    assert said.token_ids[1] == plain.token_ids[1]


@pytest.mark.parametrize("option", [{}, dict(temperature=1.0, seed=3)])
def test_streamed_pieces_join_to_the_answer(option):
    lm = tiny_lm()
    for control in (None, CARE, make_control(lm, "push", "resid:1")):
        pieces = list(stream(lm, PROMPTS[0], control, max_new_tokens=8, **option))
        whole = generate(lm, PROMPTS[:1], control, max_new_tokens=8, **option)
        assert len(pieces) > 1
        assert "".join(pieces) == whole.texts[0]


def test_a_character_split_over_tokens_is_not_lost(monkeypatch):
    lm = tiny_lm()
    texts = {1: "a\ufffd", 2: "aé", 3: "aé\ufffd"}

    def decode(self, ids, **options):
        return texts.get(len(ids), "aé\ufffd")

    monkeypatch.setattr(type(lm.tokenizer), "decode", decode)
    pieces = list(stream(lm, PROMPTS[0], max_new_tokens=4))
    assert "".join(pieces) == generate(lm, PROMPTS[:1], max_new_tokens=4).texts[0] == "aé\ufffd"
    assert pieces[0] == "aé"


def test_a_reader_who_leaves_stops_the_stream_and_frees_the_model():
    lm = tiny_lm(eos_token_id=None, max_position_embeddings=4096)
    before = threading.active_count()
    pieces = stream(lm, PROMPTS[0], make_control(lm, "add", "resid:1"), max_new_tokens=3000)
    next(pieces)
    pieces.close()
    assert threading.active_count() == before
    assert lm.session is None
    assert generate(lm, PROMPTS[:1], max_new_tokens=1).receipts[0].method is None


def test_an_error_in_the_stream_reaches_the_reader():
    with pytest.raises(PromptTooLongError):
        list(stream(tiny_lm(), "go " * 300))


def test_every_token_is_reported_with_its_row():
    lm = tiny_lm()
    seen: dict[int, list[str]] = {}
    said = generate(lm, PROMPTS, max_new_tokens=4, batch_size=3,
                    on_token=lambda row, text: seen.setdefault(row, []).append(text))  # fmt: skip
    for row, texts in seen.items():
        assert texts[-1] == said.texts[row]
        assert len(texts) == len(said.token_ids[row])


def test_answers_end_at_any_stop_token():
    lm = tiny_lm(eos_token_id=None)
    free = generate(lm, PROMPTS, max_new_tokens=6)
    stop = free.token_ids[0][2]
    lm = tiny_lm()
    lm.model.generation_config.eos_token_id = [2, stop]
    said = generate(lm, PROMPTS, max_new_tokens=6)
    for row, tokens in enumerate(free.token_ids):
        ends = [i for i, token in enumerate(tokens) if token in (2, stop)]
        assert said.token_ids[row] == (tokens[: ends[0]] if ends else tokens)
        assert said.finished[row] == bool(ends)
    assert said.finished[0]


@pytest.mark.parametrize("control", [None, CARE])
def test_prompts_that_do_not_fit_are_refused_before_work(control):
    lm = tiny_lm()
    lm.model.forward = None  # nothing may run
    with pytest.raises(PromptTooLongError, match=r"Prompt 2 has .* tokens; .* takes 256, and 64"):
        generate(lm, [PROMPTS[0], "go " * 192], control)


def test_a_prompt_that_just_fits_runs():
    lm = tiny_lm()
    room = 256 - len(lm.encode_prompt(PROMPTS[0]))
    generate(lm, PROMPTS[:1], max_new_tokens=room)
    with pytest.raises(PromptTooLongError):
        generate(lm, PROMPTS[:1], max_new_tokens=room + 1)


def test_an_empty_prompt_is_refused():
    lm = tiny_lm(chat=False)
    with pytest.raises(PromptTooLongError, match="Prompt 1 is empty"):
        generate(lm, [""])
    with pytest.raises(PromptTooLongError, match="empty"):
        token_logprobs(lm, [""], ["go"])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_numbers_that_are_not_finite_stop_the_run(temperature):
    lm = tiny_lm()
    strong = make_control(lm, "add", "resid:1").scaled(1e38)
    with pytest.raises(ModelLoadError, match="not finite"):
        generate(lm, PROMPTS, strong.scaled(1e3), temperature=temperature)
    assert lm.session is None


def test_controls_of_other_kinds_are_refused_by_name():
    class Magic(type(CARE).__mro__[1]):  # the abstract Control
        kind = "magic"

        def scaled(self, strength):
            return self

    with pytest.raises(UnsupportedSiteError, match="magic"):
        generate(tiny_lm(), PROMPTS, Magic(target=TARGET))


def test_a_sampler_row_does_not_see_its_neighbours():
    logits = torch.randn(5, 50)
    whole = Sampler(range(5), steps=3, temperature=0.8, top_p=0.7)
    for step in range(3):
        chosen = whole(logits, step)
        for row in range(5):
            alone = Sampler([row], steps=3, temperature=0.8, top_p=0.7)
            assert alone(logits[row : row + 1], step) == chosen[row]


def test_an_answer_ends_before_the_first_stop():
    lm = tiny_lm()
    plain = generate(lm, PROMPTS, max_new_tokens=12)
    words = plain.texts[2].split()
    stop = next(w for w in words[1:] if w != words[0])
    control = make_control(lm, "add", "resid:1").scaled(1e-6)
    said = generate(lm, PROMPTS, control, max_new_tokens=12, stop=[stop, "never said"])
    for row, text in enumerate(plain.texts):
        cut = text.split(stop)[0] if stop in text else text
        assert said.texts[row] == cut
        assert said.token_ids[row] == plain.token_ids[row][: len(said.token_ids[row])]
        assert said.receipts[row].tokens == len(said.token_ids[row]) + (
            said.finished[row] and stop not in text
        )
    assert len(said.token_ids[2]) < len(plain.token_ids[2])
    assert said.finished[2]


def test_tokens_are_gone_on_from_as_they_are():
    lm = tiny_lm()
    ids = lm.encode_prompt(PROMPTS[0])
    said = generate(lm, [Verbatim(tuple(ids))], max_new_tokens=5)
    assert said.token_ids == generate(lm, PROMPTS[:1], max_new_tokens=5).token_ids
    with pytest.raises(UnsupportedSiteError, match="before tokens"):
        generate(lm, [Verbatim(tuple(ids))], CARE, max_new_tokens=5)
