"""Adapters under a context gate: worn for the prompts it opens for, and for no other."""

from dataclasses import replace

import pytest
import torch

from tests.lm.adapters import mixture
from tests.lm.test_session import batch, own_generate
from tests.lm.tiny import PROMPTS, tiny_lm
from valign.control import Gate, Site, load
from valign.deploy import ExportError, export
from valign.lm import DoseMeter, UnsupportedSiteError, generate, token_logprobs

SITE = Site.parse("resid:1")


def gated(lm):
    """A mixture, the same under a gate that opens for two of the four prompts, and which."""
    control = mixture(lm, a=1.0, b=1.0, c=1.0)
    weight = torch.randn(lm.site_width(SITE), generator=torch.Generator().manual_seed(3))
    readings = []
    for prompt in PROMPTS:
        ids = lm.tokenizer(lm.render(prompt), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states = lm.model(input_ids=ids, output_hidden_states=True).hidden_states
        readings.append(float(states[2][0, -1] @ weight))
    threshold = sorted(readings)[1:3]
    gate = Gate({SITE: (weight, torch.tensor(-sum(threshold) / 2))})
    return control, replace(control, gate=gate), [r > sum(threshold) / 2 for r in readings]


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_rows_wear_the_adapters_where_the_gate_opens(family, batch_size):
    lm = tiny_lm(family)
    control, own, opened = gated(lm)
    assert sorted(opened) == [False, False, True, True]
    options = dict(max_new_tokens=5, batch_size=batch_size)
    found, worn, plain = (generate(lm, PROMPTS, c, **options) for c in (own, control, None))
    for row, act in enumerate(opened):
        assert found.token_ids[row] == (worn if act else plain).token_ids[row]
        assert found.receipts[row].gate is act
        assert bool(found.receipts[row].sites) is act
    assert worn.token_ids != plain.token_ids


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_gate_is_decided_once_an_answer(use_cache):
    lm = tiny_lm()
    _, own, _ = gated(lm)
    expected = generate(lm, PROMPTS, own, max_new_tokens=4).token_ids
    with lm.controlled(own):
        assert own_generate(lm, batch(lm), use_cache=use_cache) == expected


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_one_batch_may_differ_and_batches_follow_each_other(side):
    lm = tiny_lm()
    control, own, opened = gated(lm)
    rows, inputs = [own, None, control, own], batch(lm, side=side)
    mask = inputs["attention_mask"].bool()
    with torch.no_grad():
        plain = lm.model(**inputs).logits
        with lm.controlled([control, None, control, control]):
            worn = lm.model(**inputs).logits
        with lm.controlled(rows) as session:
            mixed = [lm.model(**inputs).logits for _ in range(2)]
    gates = [r.gate for r in session.receipts()]
    assert gates == [opened[0], None, None, opened[3]]
    for logits in mixed:
        for row, gate in enumerate(gates):
            acts = rows[row] is not None and gate is not False
            wanted = (worn if acts else plain)[row]
            torch.testing.assert_close(logits[row][mask[row]], wanted[mask[row]])


def test_the_gate_is_read_at_the_prompt_when_an_answer_is_scored():
    lm = tiny_lm()
    control, own, opened = gated(lm)
    answers = ["a b", "c d e", "f", "g h"]
    found, worn, plain = (token_logprobs(lm, PROMPTS, answers, c) for c in (own, control, None))
    for row, act in enumerate(opened):
        torch.testing.assert_close(found[row], (worn if act else plain)[row])


def test_a_dose_speaks_of_prompts_where_it_acts():
    lm = tiny_lm()
    control, own, _ = gated(lm)
    meter = DoseMeter(lm, PROMPTS, max_new_tokens=4)
    assert meter.measure(own) == meter.measure(control)


def test_it_is_kept_with_its_gate(tmp_path):
    lm = tiny_lm()
    _, own, opened = gated(lm)
    again = load(own.save(tmp_path / "gated.safetensors"))
    receipts = generate(lm, PROMPTS, again, max_new_tokens=1).receipts
    assert [r.gate for r in receipts] == opened


def test_fixed_weights_cannot_hold_a_gate(tmp_path):
    lm = tiny_lm()
    _, own, _ = gated(lm)
    with pytest.raises(ExportError, match="ungated"):
        export(lm, own, to="peft", out=tmp_path / "out", prompts=PROMPTS)


def test_a_gate_that_reads_elsewhere_is_refused():
    lm = tiny_lm()
    _, own, _ = gated(lm)
    wide = Gate({SITE: (torch.ones(3), torch.tensor(0.0))})
    with pytest.raises(UnsupportedSiteError, match="gate at resid:1"):
        generate(lm, PROMPTS, replace(own, gate=wide), max_new_tokens=1)
