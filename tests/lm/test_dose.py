from dataclasses import replace

import pytest
import torch

from tests.lm.reference import TARGET, full_logits, make_control
from tests.lm.test_rows import reading_gate
from tests.lm.tiny import PROMPTS, tiny_lm
from valign.control import EditError, EditsControl, Gate, Site, TextControl
from valign.lm import DoseError, DoseMeter, generate


@pytest.fixture(scope="module")
def meter():
    lm = tiny_lm(eos_token_id=None)
    return DoseMeter(lm, PROMPTS, max_new_tokens=12)


def test_a_dose_is_the_95th_percentile_of_kl_over_the_models_own_answers(meter):
    lm = meter.lm
    control = make_control(lm, "add", "resid:1").scaled(0.3)
    said = generate(lm, PROMPTS, max_new_tokens=12)
    kl = []
    for prompt, tokens in zip(PROMPTS, said.token_ids, strict=True):
        head = lm.encode_prompt(prompt)
        both = [full_logits(lm, "llama", head + tokens, len(head), c)[len(head) - 1 : -1]
                .double().log_softmax(-1) for c in (control, None)]  # fmt: skip
        kl += (both[0].exp() * (both[0] - both[1])).sum(-1).tolist()
    dose = meter.measure(control)
    assert dose.tokens == len(kl)
    assert dose.p95 == pytest.approx(float(torch.tensor(kl).quantile(0.95)), rel=1e-3)
    assert dose.mean == pytest.approx(sum(kl) / len(kl), rel=1e-3)


def test_more_strength_is_more_dose(meter):
    control = make_control(meter.lm, "add", "resid:1")
    doses = [meter.measure(control.scaled(s)).p95 for s in (0, 0.05, 0.1, 0.2, 0.4, 0.8)]
    assert doses[0] == pytest.approx(0, abs=1e-6)
    assert doses == sorted(doses)
    assert doses[-1] > 10 * doses[1]


@pytest.mark.parametrize("dose", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("kind", ["add", "push", "hold", "project", "gradient", "scale"])
def test_a_dose_is_set_within_three_percent(meter, kind, dose):
    control = make_control(meter.lm, kind, "resid:0", "neurons:1", "resid:2", scope="all")
    scaled = meter.set(control, dose)
    assert meter.measure(scaled).p95 == pytest.approx(dose, rel=0.03)
    note = scaled.provenance["dose"]
    assert note["asked"] == dose
    assert note["p95"] == pytest.approx(dose, rel=0.03)
    assert scaled.provenance["method"] == kind
    assert scaled.edits[0].strength == pytest.approx(control.edits[0].strength * note["strength"])
    assert control.edits[0].strength == make_control(meter.lm, kind, "resid:0").edits[0].strength


def test_the_size_of_the_vector_does_not_matter(meter):
    control = make_control(meter.lm, "add", "resid:1")
    for size in (1e-4, 1e4):
        scaled = meter.set(control.scaled(size), 0.3)
        assert meter.measure(scaled).p95 == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize("dose", [0, -1.0, float("nan")])
def test_a_dose_is_positive(meter, dose):
    with pytest.raises(DoseError, match="positive number of nats"):
        meter.set(make_control(meter.lm, "add", "resid:1"), dose)


def test_a_dose_out_of_reach_is_refused_with_what_was_reached(meter):
    control = make_control(meter.lm, "add", "resid:1")
    with pytest.raises(DoseError, match="cannot be set"):
        meter.set(control, 50)
    nothing = replace(control.edits[0], tensors={"vector": torch.zeros(32)})
    with pytest.raises(DoseError, match="cannot be set"):
        meter.set(EditsControl(target=TARGET, edits=(nothing,)), 0.5)


def test_a_dose_is_measured_with_the_gate_held_open(meter):
    control = make_control(meter.lm, "add", "resid:1")
    shut = Gate({Site("resid", 0): (torch.zeros(32), torch.tensor(-1.0))})
    gated = replace(control, gate=shut)
    assert meter.measure(gated) == meter.measure(control)
    scaled = meter.set(gated, 0.3)
    assert scaled.gate is shut
    some = replace(control, gate=reading_gate(meter.lm, "llama")[0])
    assert meter.measure(some) == meter.measure(control)


def test_words_have_a_dose_but_no_strength(meter):
    care = TextControl(target=TARGET, instruction="care more")
    assert meter.measure(care).p95 > 0
    with pytest.raises(EditError, match="no strength"):
        meter.set(care, 1e-3)


def test_a_dose_needs_prompts():
    with pytest.raises(DoseError, match="none were given"):
        DoseMeter(tiny_lm(), [])
