"""Weights at generation time: every row under its own mixture, as if it had its own model."""

import copy

import pytest
import torch

from tests.lm.adapters import adapter, linear_modules, merged, mixture
from tests.lm.reference import TARGET, make_control
from tests.lm.test_session import batch, hooks_of, own_generate
from tests.lm.tiny import FAMILIES, PROMPTS, tiny_lm
from valign.control import Adapter, LowRank, TextControl, WeightsControl
from valign.lm import (
    DoseMeter,
    HostModel,
    NestedControlError,
    NotAppliedError,
    UnsupportedSiteError,
    generate,
    token_logprobs,
)

POINTS = [dict(a=1.0, b=0.0, c=1.0), dict(a=0.3, b=1.7, c=0.0), dict(a=-0.8, b=0.5, c=2.0)]


def rows_of(lm):
    """Three mixtures of the same adapters, and a plain row."""
    control = mixture(lm, a=1.0, b=1.0, c=1.0)
    return [*(control.with_weights(point) for point in POINTS), None]


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_is_its_own_merged_model(family, side):
    lm = tiny_lm(family)
    rows, inputs = rows_of(lm), batch(lm, side=side)
    mask = inputs["attention_mask"].bool()
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    own = {"position_ids": positions} if "position_ids" in lm.accepts else {}
    with torch.no_grad():
        plain = lm.model(**inputs, **own).logits
        with lm.controlled(rows):
            mixed = lm.model(**inputs, **own).logits
        for number, row in enumerate(rows):
            if row is None:
                if family == "mixtral":  # experts take the tokens of all rows in one matmul
                    close(mixed[number], plain[number])
                else:
                    assert torch.equal(mixed[number], plain[number])
                continue
            assert (mixed[number] - plain[number])[mask[number]].abs().max() > 0.1
            with lm.controlled(row):
                alone = lm.model(**inputs, **own).logits[number]
            wanted = merged(lm, row).model(**inputs, **own).logits[number]
            close(mixed[number][mask[number]], alone[mask[number]])
            close(mixed[number][mask[number]], wanted[mask[number]])


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generation_equals_a_model_per_row(family, batch_size, temperature):
    lm = tiny_lm(family)
    rows = [*rows_of(lm), *rows_of(lm)]  # twice the same numbers over other adapter objects
    prompts, options = PROMPTS * 2, dict(max_new_tokens=6, temperature=temperature)
    said = generate(lm, prompts, rows, batch_size=batch_size, seed=[*range(8)], **options)
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        host = lm if row is None else merged(lm, row)
        assert generate(host, [prompt], seed=[number], **options).token_ids == [
            said.token_ids[number]
        ]


@pytest.mark.parametrize("use_cache", [True, False])
def test_transformers_own_generate_and_beams(use_cache):
    lm = tiny_lm()
    rows = rows_of(lm)
    expected = generate(lm, PROMPTS, rows, max_new_tokens=4).token_ids
    with lm.controlled(rows):
        assert own_generate(lm, batch(lm), use_cache=use_cache) == expected
    beams = own_generate(merged(lm, rows[0]), batch(lm), num_beams=3)
    with lm.controlled(rows[0]):
        assert own_generate(lm, batch(lm), num_beams=3, use_cache=use_cache) == beams


def test_teacher_forced_probabilities_are_the_merged_models():
    lm = tiny_lm("qwen2")
    rows = rows_of(lm)
    answers = ["help the friend", "win", "care for nature", "rest"]
    found = token_logprobs(lm, PROMPTS, answers, rows)
    for prompt, answer, row, own in zip(PROMPTS, answers, rows, found, strict=True):
        host = lm if row is None else merged(lm, row)
        close(own, token_logprobs(host, [prompt], [answer])[0])


def test_rows_without_common_adapters_share_a_pass():
    lm = tiny_lm()
    one, two = (
        WeightsControl(target=TARGET, adapters=(made,), weights={made.name: w})
        for made, w in [(adapter(lm, "x", seed=5), 1.0), (adapter(lm, "y", seed=6, only="mlp"), 2)]
    )
    inputs = batch(lm, PROMPTS[:3])
    with torch.no_grad():
        with lm.controlled([one, None, two]):
            mixed = lm.model(**inputs).logits
        for number, host in enumerate([merged(lm, one), lm, merged(lm, two)]):
            real = inputs["attention_mask"][number].bool()
            close(mixed[number][real], host.model(**inputs).logits[number][real])


def test_a_dose_can_be_set():
    lm = tiny_lm()
    meter = DoseMeter(lm, PROMPTS, max_new_tokens=8)
    control = meter.set(mixture(lm, a=1.0, b=0.5), 0.2)
    assert meter.measure(control).p95 == pytest.approx(0.2, rel=0.05)
    assert control.weights["a"] == pytest.approx(2 * control.weights["b"])
    assert meter.measure(control.scaled(0.0)).p95 == pytest.approx(0.0, abs=1e-6)


def test_receipts_say_what_was_applied():
    lm = tiny_lm()
    rows = rows_of(lm)
    said = generate(lm, PROMPTS, rows, max_new_tokens=5)
    for number, (row, receipt) in enumerate(zip(rows, said.receipts, strict=True)):
        if row is None:
            assert receipt.sites == () and receipt.tokens == 0 and receipt.size == 0
            continue
        assert receipt.method == "made up"
        assert set(receipt.sites) == {m for a in row.acting for m in a.factors}
        # The last token of an answer is chosen, never read; a stop token was.
        read = len(said.token_ids[number]) - (not said.finished[number])
        assert receipt.tokens == said.prompt_tokens[number] + read
        assert receipt.size > 0.01
    double = generate(lm, PROMPTS[:1], [rows[0].scaled(1e-4)], max_new_tokens=1).receipts[0]
    single = generate(lm, PROMPTS[:1], [rows[0].scaled(5e-5)], max_new_tokens=1).receipts[0]
    assert double.size == pytest.approx(2 * single.size, rel=1e-2)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_the_model_is_bit_for_bit_as_before(family):
    lm = tiny_lm(family)
    weights = {k: v.clone() for k, v in lm.model.state_dict().items()}
    control, inputs = mixture(lm, a=1.0, b=-1.0), batch(lm)
    with torch.no_grad():
        before = lm.model(**inputs).logits
        with lm.controlled(control):
            assert not torch.equal(lm.model(**inputs).logits, before)
        with pytest.raises(KeyboardInterrupt), lm.controlled(control):
            lm.model(**inputs)
            raise KeyboardInterrupt
        with pytest.raises(IndexError), lm.controlled(control):
            lm.model(torch.tensor([[10**6]]))  # fails inside the pass
        after = lm.model(**inputs).logits
    assert torch.equal(before, after)
    assert hooks_of(lm.model) == [] and lm.session is None
    assert all(torch.equal(v, weights[k]) for k, v in lm.model.state_dict().items())


def test_weights_of_zero_leave_no_hook():
    lm = tiny_lm()
    control = mixture(lm, a=0.0, b=0.0)
    with lm.controlled(control):
        assert hooks_of(lm.model) == []
    assert generate(lm, PROMPTS, control).token_ids == generate(lm, PROMPTS).token_ids


def test_a_model_that_wears_an_adapter_keeps_it():
    peft = pytest.importorskip("peft")
    lm = tiny_lm()
    control = mixture(lm, a=1.0, b=0.7)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    worn = peft.get_peft_model(copy.deepcopy(lm.model), config).eval()
    folded = HostModel(copy.deepcopy(worn).merge_and_unload(), lm.tokenizer, name="folded")
    wanted = generate(merged(folded, control), PROMPTS, max_new_tokens=4).token_ids
    found = generate(HostModel(worn, lm.tokenizer), PROMPTS, control, max_new_tokens=4)
    assert found.token_ids == wanted
    plain = found.receipts[0].tokens - found.prompt_tokens[0]
    assert plain <= 4  # both models' hooks see a pass; it counts once


@torch.no_grad()
def test_half_precision_is_about_as_good_as_merging_in_it():
    exact, half = tiny_lm(), tiny_lm(dtype=torch.bfloat16)
    control, inputs = mixture(exact, a=0.3, b=0.7), batch(exact)
    wanted = merged(exact, control).model(**inputs).logits

    def error(logits):
        return (logits.float() - wanted)[inputs["attention_mask"].bool()].pow(2).mean().sqrt()

    with half.controlled(control):
        ours = error(half.model(**inputs).logits)
    assert ours < 3 * error(merged(half, control).model(**inputs).logits)


def test_what_does_not_fit_is_refused_by_name():
    lm = tiny_lm()

    def refused(module, outputs, inputs):
        made = Adapter("a", {module: LowRank(torch.ones(1, inputs), torch.ones(outputs, 1))})
        control = WeightsControl(target=TARGET, adapters=(made,), weights={"a": 0.0})
        with pytest.raises(UnsupportedSiteError) as error:
            generate(lm, PROMPTS, control)
        return str(error.value)

    assert "model.layers.9.mlp.up_proj; tiny-llama has no" in refused(
        "model.layers.9.mlp.up_proj", 64, 32
    )
    assert "take 16 numbers and give 64; tiny-llama expects 32 and 64" in refused(
        "model.layers.0.mlp.up_proj", 64, 16
    )
    assert "a LlamaRMSNorm; expected a linear map" in refused(
        "model.layers.0.input_layernorm", 32, 32
    )


def test_sessions_do_not_nest_and_kinds_do_not_mix():
    lm = tiny_lm()
    control = mixture(lm, a=1.0)
    with lm.controlled(control), pytest.raises(NestedControlError):
        generate(lm, PROMPTS, control)
    with pytest.raises(UnsupportedSiteError, match="edits and weights"):
        lm.controlled([control, make_control(lm, "add", "resid:1")])
    few = pytest.raises(UnsupportedSiteError, match="2 controls were given for a batch of 4")
    with few, lm.controlled([control, None]):
        lm.model(**batch(lm))


def test_kinds_live_beside_each_other_in_one_call():
    lm = tiny_lm()
    controls = [
        mixture(lm, a=1.0), make_control(lm, "add", "resid:1"), None,
        TextControl(target=TARGET, instruction="be safe"),
    ]  # fmt: skip
    together = generate(lm, PROMPTS, controls, max_new_tokens=4).token_ids
    alone = [generate(lm, [p], [c], max_new_tokens=4).token_ids[0]
             for p, c in zip(PROMPTS, controls, strict=True)]  # fmt: skip
    assert together == alone


def test_a_prompt_read_before_the_control_is_refused():
    lm = tiny_lm()
    ids = torch.tensor([lm.encode_prompt(PROMPTS[0])])
    with torch.no_grad():
        cache = lm.model(ids[:, :-1], use_cache=True).past_key_values
        late = pytest.raises(NotAppliedError, match="read without the control")
        with late, lm.controlled(mixture(lm, a=1.0)):
            lm.model(ids[:, -1:], past_key_values=cache)


def test_parts_that_never_run_are_an_error():
    lm = tiny_lm()
    lm.model.spare = torch.nn.Linear(4, 4)
    made = Adapter("a", {"spare": LowRank(torch.ones(1, 4), torch.ones(4, 1))})
    control = WeightsControl(target=TARGET, adapters=(made,), weights={"a": 1.0})
    with pytest.raises(NotAppliedError, match="spare"):
        generate(lm, PROMPTS, control)


def test_a_part_called_alone_is_refused():
    lm = tiny_lm()
    module = lm.model.get_submodule(next(iter(linear_modules(lm))))
    alone = pytest.raises(NotAppliedError, match="outside a pass")
    with alone, lm.controlled(mixture(lm, a=1.0)):
        module(torch.zeros(1, 1, 32))
