"""Decoding with several policies is the weighted product of their distributions."""

import pytest
import torch

from tests.lm.adapters import merged, mixture
from tests.lm.reference import TARGET, make_control
from tests.lm.tiny import PROMPTS, tiny_lm
from valign.control import RewriteControl, TextControl
from valign.lm import UnsupportedSiteError, generate
from valign.lm.mod import generate_together


def slowly(lm, prompt, policies, weights, tokens):
    """One model a policy, one token after the other, no cache."""
    hosts = [lm if p is None else merged(lm, p) for p in policies]
    ids, said = lm.encode_prompt(prompt), []
    for _ in range(tokens):
        joint = torch.zeros(lm.model.config.vocab_size)
        for host, weight in zip(hosts, weights, strict=True):
            with torch.no_grad():
                logits = host.model(torch.tensor([ids + said])).logits[0, -1]
            joint += weight * logits.log_softmax(-1)
        token = int(joint.argmax())
        if token in lm.stop_ids:
            break
        said.append(token)
    return said


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_token_maximises_the_weighted_sum(family, batch_size):
    lm = tiny_lm(family)
    both = mixture(lm, a=1.0, b=1.0)
    policies = [both.with_weights({"b": 0.0}), both.with_weights({"a": 0.0}), None]
    weights = [[0.5, 0.5, 0.0], [1.5, 0.3, -0.8], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6]]
    found = generate_together(
        lm, PROMPTS, policies, weights, max_new_tokens=5, batch_size=batch_size
    )
    for number, prompt in enumerate(PROMPTS):
        wanted = slowly(lm, prompt, policies, weights[number], 5)
        assert found.token_ids[number] == wanted
        assert found.texts[number] == lm.tokenizer.decode(wanted, skip_special_tokens=True)


def test_one_policy_alone_is_plain_generation():
    lm = tiny_lm()
    control, options = mixture(lm, a=0.7), dict(temperature=1.0, top_p=0.9, seed=5)
    alone = generate(lm, PROMPTS, control, max_new_tokens=6, **options)
    found = generate_together(lm, PROMPTS, [control, None], [1.0, 0.0], max_new_tokens=6, **options)
    assert found.token_ids == alone.token_ids and found.receipts == alone.receipts


def test_words_can_be_a_policy():
    lm = tiny_lm()
    words = TextControl(target=TARGET, instruction="be safe")
    found = generate_together(lm, PROMPTS, [words, None], [1.0, 0.0], max_new_tokens=4)
    assert found.token_ids == generate(lm, PROMPTS, words, max_new_tokens=4).token_ids


@pytest.mark.parametrize(
    ("weights", "says"),
    [([0.5], "need 2 weights"), ([0.5, 0.6], "add up to 1"), ([[0.5, 0.5]], "need 2 weights")],
)
def test_weights_that_do_not_fit_are_refused(weights, says):
    lm = tiny_lm()
    with pytest.raises(UnsupportedSiteError, match=says):
        generate_together(lm, PROMPTS, [mixture(lm, a=1.0), None], weights)


def test_policies_of_two_kinds_are_refused():
    lm = tiny_lm()
    policies = [mixture(lm, a=1.0), make_control(lm, "add", "resid:1")]
    with pytest.raises(UnsupportedSiteError, match="one kind"):
        generate_together(lm, PROMPTS, policies, [0.5, 0.5])
    with pytest.raises(UnsupportedSiteError, match="finished answers"):
        generate_together(
            lm, PROMPTS, [RewriteControl(target=TARGET, template="{{ source }}")], [1.0]
        )
