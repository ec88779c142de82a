"""Reading activations: the same numbers as one text at a time, in bounded memory."""

import gc

import pytest
import torch

from tests.lm.reference import part
from tests.lm.test_edits import sites_of
from tests.lm.tiny import FAMILIES, PROMPTS, tiny_lm
from valign.control import Site
from valign.lm import (
    HostModel,
    LayoutNames,
    NotAppliedError,
    PromptTooLongError,
    UnsupportedSiteError,
    capture,
    site_gradients,
    token_logprobs,
)

EXAMPLES = [
    (PROMPTS[0], "we will stay home ."),
    (None, "the friend can help"),
    (PROMPTS[2], "go"),
    (PROMPTS[1], "rest and try more work"),
    (PROMPTS[3], ""),
]


def by_hand(lm, family, site, example, positions):
    """One text, no batch, no padding."""
    prompt, text = example
    head = [] if prompt is None else lm.encode_prompt(prompt)
    body = lm.tokenizer(text, add_special_tokens=prompt is None)["input_ids"]
    ids = head if positions == "prompt" and prompt is not None else head + body
    seen = []
    module = part(lm, family, site)
    handle = (
        module.register_forward_pre_hook(lambda m, a: seen.append(a[0]))
        if site.kind in ("neurons", "heads")
        else module.register_forward_hook(
            lambda m, a, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
    )
    with torch.no_grad():
        lm.model(torch.tensor([ids]))
    handle.remove()
    rows = seen[0].reshape(len(ids), -1)
    if positions != "mean":
        return rows[-1]
    return rows[min(len(head), len(ids) - 1) :].mean(0)


@pytest.mark.parametrize("positions", ["last", "mean", "prompt"])
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_are_those_of_each_text_alone(family, positions):
    lm = tiny_lm(family)
    sites = [Site.parse(s) for s in (*sites_of(family), "logits")]
    found = {}
    for numbers, batch in capture(lm, EXAMPLES, sites, positions=positions, batch_size=2):
        assert set(batch) == set(sites)
        for place, number in enumerate(numbers):
            assert number not in found
            found[number] = {site: batch[site][place] for site in sites}
    assert sorted(found) == list(range(len(EXAMPLES)))
    for number, example in enumerate(EXAMPLES):
        for site in sites:
            expected = by_hand(lm, family, site, example, positions)
            torch.testing.assert_close(found[number][site], expected, rtol=1e-4, atol=1e-4)
            assert found[number][site].shape == (lm.site_width(site),)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_every_token_of_a_text_has_a_row_in_its_order(family):
    """A text cut after its k-th token ends in the state of its k-th row."""
    lm = tiny_lm(family)
    sites = [Site.parse(s) for s in sites_of(family)]
    found = {i: [] for i in range(len(EXAMPLES))}
    for numbers, batch in capture(lm, EXAMPLES, sites, positions="tokens", batch_size=2):
        for site in sites:
            assert batch[site].shape == (len(numbers), lm.site_width(site))
        for row, number in enumerate(numbers):
            found[number].append({site: batch[site][row] for site in sites})
    for number, (prompt, text) in enumerate(EXAMPLES):
        words = text.split()
        assert len(found[number]) == max(1, len(words))
        for k, row in enumerate(found[number], start=1):
            for site in sites:
                cut = prompt, " ".join(words[:k])
                expected = by_hand(lm, family, site, cut, "last")
                torch.testing.assert_close(row[site], expected, rtol=1e-4, atol=1e-4)


def test_half_precision_is_averaged_in_full_precision():
    lm = tiny_lm(dtype=torch.bfloat16)
    site = Site("resid", 1)
    text = (None, "the friend can help and we will stay home because they care .")
    ((_, batch),) = capture(lm, [text], [site], positions="mean")
    assert batch[site].dtype == torch.float32
    seen = []
    handle = lm.layout.blocks[1].register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        lm.model(torch.tensor([lm.encode_example(*text)[0]]))
    handle.remove()
    torch.testing.assert_close(batch[site][0], seen[0][0].float().mean(0), rtol=1e-5, atol=1e-5)


def live_numbers():
    gc.collect()
    return sum(t.numel() for t in gc.get_objects() if type(t) is torch.Tensor)


def test_memory_does_not_grow_with_the_corpus():
    lm = tiny_lm()
    sites = lm.sites("resid") + lm.sites("neurons")
    live = {}
    for number, (_, batch) in enumerate(capture(lm, [EXAMPLES[1]] * 64, sites, batch_size=4)):
        if number in (1, 15):
            live[number] = live_numbers()
        del batch
    assert live[15] <= live[1]


def test_nothing_is_left_on_the_model_when_the_reader_stops():
    lm = tiny_lm()
    reading = capture(lm, EXAMPLES, lm.sites("resid"), batch_size=1)
    next(reading)
    assert not any(block._forward_hooks for block in lm.layout.blocks)
    reading.close()


def test_sites_and_texts_that_do_not_exist_are_refused():
    lm = tiny_lm()
    with pytest.raises(UnsupportedSiteError, match="resid:9"):
        list(capture(lm, EXAMPLES, [Site("resid", 9)]))
    with pytest.raises(PromptTooLongError):
        list(capture(lm, [(None, "go " * 300)], lm.sites("resid")))
    with pytest.raises(PromptTooLongError, match="empty"):
        list(capture(lm, [(None, "")], lm.sites("resid")))
    for block in lm.layout.blocks:
        block.unused = torch.nn.Linear(64, 32)
    blind = HostModel(lm.model, lm.tokenizer,
                      layout=LayoutNames(layers="model.layers", down="unused"))  # fmt: skip
    with pytest.raises(NotAppliedError, match="neurons:0"):
        list(capture(blind, EXAMPLES, blind.sites("neurons")))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma2"])
def test_gradients_equal_finite_differences(family):
    """d mean log p / d shift, the shift being one vector at all predicting positions."""
    lm = tiny_lm(family)
    texts = EXAMPLES[:4]
    sites = [Site.parse(s) for s in sites_of(family)]
    found = site_gradients(lm, texts, sites, batch_size=3)
    assert all(p.grad is None for p in lm.model.parameters())
    double = HostModel(tiny_lm(family).model.double(), lm.tokenizer)
    rng = torch.Generator().manual_seed(1)
    for site in sites:
        direction = torch.randn(lm.site_width(site), generator=rng, dtype=torch.float64)
        direction /= direction.norm()
        for number, (prompt, text) in enumerate(texts):
            ids, head = lm.encode_example(prompt, text)
            head = max(head, 1)
            score = []
            for step in (1e-4, -1e-4):
                module = part(double, family, site)

                def shifted(a, step=step, head=head, direction=direction):
                    b = a.reshape(-1, a.shape[-1]).clone()
                    b[head - 1 : -1] += step * direction
                    return b.view_as(a)

                handle = (
                    module.register_forward_pre_hook(lambda m, a: (shifted(a[0]), *a[1:]))
                    if site.kind in ("neurons", "heads")
                    else module.register_forward_hook(
                        lambda m, a, out: (
                            (shifted(out[0]), *out[1:]) if isinstance(out, tuple) else shifted(out)
                        )
                    )
                )
                with torch.no_grad():
                    logp = double.model(torch.tensor([ids])).logits[0].log_softmax(-1)
                handle.remove()
                targets = torch.tensor(ids[head:])
                score.append(logp[head - 1 : -1].gather(1, targets[:, None]).mean())
            expected = float(score[0] - score[1]) / 2e-4
            got = float(found[site][number].double() @ direction)
            assert got == pytest.approx(expected, rel=1e-2, abs=2e-3)


def test_a_step_along_the_gradient_makes_the_text_likelier():
    from tests.lm.reference import TARGET
    from valign.control import Edit, EditsControl

    lm = tiny_lm()
    site = Site("resid", 1)
    gradient = site_gradients(lm, EXAMPLES[:1], [site])[site][0]
    edit = Edit(site, "add", {"vector": 1e-2 * gradient / gradient.norm()})
    control = EditsControl(target=TARGET, edits=(edit,))
    prompts, answers = [EXAMPLES[0][0]], [EXAMPLES[0][1]]
    plain = token_logprobs(lm, prompts, answers)[0].mean()
    assert token_logprobs(lm, prompts, answers, control)[0].mean() > plain
    assert token_logprobs(lm, prompts, answers, control.scaled(-1))[0].mean() < plain
