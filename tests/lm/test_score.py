"""Teacher-forced scoring sees what generation saw."""

import pytest
import torch

from tests.lm.reference import KINDS, full_logits, make_control, rows_in_order, watched
from tests.lm.test_edits import close, sites_of
from tests.lm.test_rows import reading_gate
from tests.lm.tiny import FAMILIES, PROMPTS, tiny_lm
from valign.control import TextControl
from valign.lm import PromptTooLongError, generate, token_kl, token_logprobs
from valign.lm.score import answer_distributions, answer_nll, pad_right


def controls_for(lm, family, kind):
    sites = sites_of(family)
    return [
        make_control(lm, kind, *sites),
        None,
        make_control(lm, kind, sites[0], scope="all", gate=reading_gate(lm, family)[0]),
        make_control(lm, "add", "logits"),
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma3_text"])
def test_scores_are_what_generation_saw(family, kind):
    lm = tiny_lm(family)
    controls = controls_for(lm, family, kind)
    with watched(lm) as seen:
        said = generate(lm, PROMPTS, controls, max_new_tokens=5)
    order = rows_in_order(said.prompt_tokens)
    found = token_logprobs(lm, PROMPTS, said.token_ids, controls)
    for row, tokens in enumerate(said.token_ids):
        logits = torch.stack([step[order.index(row)] for step in seen[: len(tokens)]])
        expected = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
        close(found[row], expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_distributions_equal_the_reference(family):
    lm = tiny_lm(family)
    controls = controls_for(lm, family, "hold")
    answers = ["go", "we will stay home .", "rest and try", "I keep the money"]
    found = answer_distributions(lm, PROMPTS, answers, controls, batch_size=3)
    for row, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
        head = lm.encode_prompt(prompt)
        said = lm.tokenizer(answer, add_special_tokens=False)["input_ids"]
        logits = full_logits(lm, family, head + said, len(head), controls[row])
        close(found[row], logits[len(head) - 1 : -1].log_softmax(-1))


def test_texts_and_their_tokens_score_alike():
    lm = tiny_lm()
    answers = ["go", "we will stay home .", "rest and try", "I keep the money"]
    tokens = [lm.tokenizer(a, add_special_tokens=False)["input_ids"] for a in answers]
    for a, b in zip(token_logprobs(lm, PROMPTS, answers), token_logprobs(lm, PROMPTS, tokens),
                    strict=True):  # fmt: skip
        assert torch.equal(a, b)


def test_instructions_count_while_scoring():
    lm = tiny_lm()
    care = TextControl(target=make_control(lm, "add", "resid:0").target, instruction="care more")
    found = token_logprobs(lm, PROMPTS, ["go home"] * 4, [care, None, None, None])
    by_hand = [[dict(role="system", content="care more"), dict(role="user", content=PROMPTS[0])]]
    expected = token_logprobs(lm, by_hand, ["go home"])
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], token_logprobs(lm, PROMPTS[1:2], ["go home"])[0])


def test_a_text_without_a_prompt_is_scored_from_its_second_token():
    lm = tiny_lm()
    control = make_control(lm, "push", "resid:1")
    found = token_logprobs(lm, [None, PROMPTS[0]], ["we will stay home", "go"], control)
    ids = lm.tokenizer("we will stay home", add_special_tokens=True)["input_ids"]
    logits = full_logits(lm, "llama", ids, 1, control)[:-1].log_softmax(-1)
    close(found[0], logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0])


def test_an_empty_answer_has_no_scores():
    found = token_logprobs(tiny_lm(), PROMPTS[:2], ["", "go"])
    assert [len(row) for row in found] == [0, 1]


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(PromptTooLongError):
        token_logprobs(tiny_lm(), PROMPTS[:1], ["go " * 256])


def test_kl_is_zero_for_the_same_and_the_sum_for_another():
    lm = tiny_lm()
    control = make_control(lm, "add", "resid:1")
    answers = ["we will stay home .", "go", "rest", "try more work"]
    plain = answer_distributions(lm, PROMPTS, answers)
    steered = answer_distributions(lm, PROMPTS, answers, control)
    for row in token_kl(lm, PROMPTS, answers, None, plain):
        assert float(row.abs().max()) < 1e-6
    for row, found in enumerate(token_kl(lm, PROMPTS, answers, control, plain)):
        for t in range(len(found)):
            q, p = steered[row][t].double(), plain[row][t].double()
            assert float(found[t]) == pytest.approx(float((q.exp() * (q - p)).sum()), rel=1e-3)
        assert float(found.min()) > 0


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_the_nll_that_learns_is_the_one_that_scores(family):
    lm = tiny_lm(family)
    answers = ["a house by the sea", "yes", "no more of this, thank you"]
    control = controls_for(lm, family, "add")[0]
    rows = [lm.encode_example(prompt, text) for prompt, text in zip(PROMPTS, answers, strict=False)]
    heads = [head for _, head in rows]
    ids, mask = pad_right([tokens for tokens, _ in rows], lm)
    with lm.controlled(control, prompt_lengths=heads):
        nll, inside = answer_nll(lm, ids, mask, heads)
    said = [tokens[head:] for tokens, head in rows]
    expected = token_logprobs(lm, PROMPTS[: len(rows)], said, control)
    for row, wanted in enumerate(expected):
        close(-nll[row][inside[row]].detach(), wanted)
    assert int(inside.sum()) == sum(map(len, said))
