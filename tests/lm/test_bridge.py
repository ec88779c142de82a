"""Bridges: what the blocks above l* see, cached and not, alone and beside other rows."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import StaticCache

from tests.lm.bridges import llama_logits, make_bridge
from tests.lm.reference import make_control, watched
from tests.lm.test_session import batch, hooks_of, own_generate
from tests.lm.tiny import PROMPTS, tiny_lm
from valign.control import EditError, TextControl
from valign.lm import DoseMeter, UnsupportedSiteError, generate, stream, token_logprobs
from valign.lm.bridge_module import ValueModule, build, correction
from valign.lm.score import answer_distributions

FAMILIES = [
    "llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "opt", "phi3", "mixtral",
    "gemma2", "gemma3_text",  # sliding windows of 16 tokens, less than prompt and answer
]  # fmt: skip


def close(a, b, tolerance=1e-4):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


# Against the slow obvious way ------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(refresh=3, momentum=0.3, tokens=1),
        dict(refresh=0),
        dict(layer=1, scores=("benevolence", "power", "security"), ramp=9.0),
        dict(strength=0.2),
        dict(strength=5.0, refresh=1),
        dict(dead_zone=100.0),
    ],
)
def test_answers_are_those_of_the_written_out_sequence(family, options):
    lm = tiny_lm(family, eos_token_id=None)
    control = make_bridge(lm, **options)
    for prompt in PROMPTS[:3]:
        head = lm.encode_prompt(prompt)
        with watched(lm) as seen:
            said = generate(lm, [prompt], control, max_new_tokens=7).token_ids[0]
        expected = llama_logits(lm, head + said, len(head), control)[len(head) - 1 : -1]
        close(torch.cat(seen)[: len(said)], expected)
        plain = llama_logits(lm, head + said, len(head), None)[len(head) - 1 : -1]
        moved = float((expected - plain).abs().max())
        assert moved < 1e-5 if "dead_zone" in options else moved > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["bridge", "inject"])
def test_cached_and_uncached_decoding_agree(family, mode):
    lm = tiny_lm(family, eos_token_id=None)
    controls = [make_bridge(lm, mode=mode), make_bridge(lm, mode=mode, seed=1), None]
    controls.append(controls[0].scaled(0.3))
    said = generate(lm, PROMPTS, controls, max_new_tokens=7)
    forced = answer_distributions(lm, PROMPTS, said.token_ids, controls)
    for row, prompt in enumerate(PROMPTS):
        with watched(lm) as seen:
            generate(lm, [prompt], controls[row], max_new_tokens=7)
        made = torch.cat(seen).log_softmax(-1)[: len(forced[row])]
        close(made, forced[row], 2e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["bridge", "inject"])
def test_transformers_own_generate_gives_the_same_answers(family, mode):
    lm = tiny_lm(family)
    control = make_bridge(lm, mode=mode)
    expected = generate(lm, PROMPTS, control, max_new_tokens=4).token_ids
    for options in (dict(), dict(use_cache=False)):
        with lm.controlled(control):
            assert own_generate(lm, batch(lm), **options) == expected
    assert hooks_of(lm.model) == [] and lm.session is None


def test_beams_carry_what_their_rows_heard():
    lm = tiny_lm(eos_token_id=None)
    control = make_bridge(lm)
    with lm.controlled(control):
        cached = own_generate(lm, batch(lm), num_beams=3)
    alone = []
    for prompt in PROMPTS:
        with lm.controlled(control):
            alone += own_generate(lm, batch(lm, [prompt]), num_beams=3)
    assert cached == alone


# What must not change --------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_prompt_logits_stay_and_answers_begin_at_the_last_prompt_token(family):
    lm = tiny_lm(family)
    control = make_bridge(lm)
    ids = torch.tensor([lm.encode_prompt(PROMPTS[2])])
    with torch.no_grad():
        plain = lm.model(ids).logits
        with lm.controlled(control):
            steered = lm.model(ids).logits
    close(steered[:, :-1], plain[:, :-1], 1e-5)
    assert float((steered - plain)[:, -1].abs().max()) > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_no_bridge_tokens_are_the_model_bit_for_bit(family):
    lm = tiny_lm(family)
    control = make_bridge(lm, tokens=0)
    with watched(lm) as plain:
        generate(lm, PROMPTS, max_new_tokens=4)
    with watched(lm) as steered:
        generate(lm, PROMPTS, control, max_new_tokens=4)
    assert all(torch.equal(a, b) for a, b in zip(plain, steered, strict=True))


@pytest.mark.parametrize("mode", ["bridge", "inject"])
def test_strength_zero_is_the_model_and_still_reads_the_scores(mode):
    lm = tiny_lm()
    control = make_bridge(lm, mode=mode)
    said = generate(lm, PROMPTS, control.scaled(0), max_new_tokens=6)
    assert said.token_ids == generate(lm, PROMPTS, max_new_tokens=6).token_ids
    assert all(len(r.guidance.before) >= 1 for r in said.receipts)


def test_nothing_stays_behind_also_after_an_error():
    lm = tiny_lm()
    before = {k: v.clone() for k, v in lm.model.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), lm.controlled(make_bridge(lm)):
        raise RuntimeError("stop")
    assert hooks_of(lm.model) == [] and lm.session is None
    generate(lm, PROMPTS, make_bridge(lm), max_new_tokens=3)
    assert all(torch.equal(v, before[k]) for k, v in lm.model.state_dict().items())


# Rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1.3])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_batch_size_order_and_neighbours_do_not_matter(family, temperature):
    lm = tiny_lm(family)
    controls = [
        make_bridge(lm), make_bridge(lm, seed=1, strength=3.0), None,
        make_bridge(lm, layer=1, tokens=2),
    ]  # fmt: skip
    options = dict(max_new_tokens=6, temperature=temperature, top_p=0.9)
    seeds = [11, 12, 13, 14]
    whole = generate(lm, PROMPTS, controls, seed=seeds, **options)
    single = generate(lm, PROMPTS, controls, seed=seeds, batch_size=1, **options)
    assert whole.token_ids == single.token_ids
    order = [2, 0, 3, 1]
    shuffled = generate(
        lm, [PROMPTS[i] for i in order], [controls[i] for i in order],
        seed=[seeds[i] for i in order], **options,
    )  # fmt: skip
    assert shuffled.token_ids == [whole.token_ids[i] for i in order]
    for row, (a, b) in enumerate(zip(whole.receipts, single.receipts, strict=True)):
        assert (a.guidance is None) == (controls[row] is None)
        if a.guidance is not None:
            assert a.guidance.moments == b.guidance.moments
            close(torch.tensor(a.guidance.before), torch.tensor(b.guidance.before))


def test_kinds_mix_in_one_call():
    lm = tiny_lm()
    words = TextControl(target=make_bridge(lm).target, instruction="care more")
    controls = [make_bridge(lm), make_control(lm, "add", "resid:1"), words, None]
    mixed = generate(lm, PROMPTS, controls, max_new_tokens=5)
    for row, control in enumerate(controls):
        alone = generate(lm, [PROMPTS[row]], control, max_new_tokens=5)
        assert mixed.token_ids[row] == alone.token_ids[0]
    with pytest.raises(UnsupportedSiteError, match="bridge and edits"):
        lm.controlled([controls[0], controls[1]])


def test_streaming_and_logprobs():
    lm = tiny_lm()
    control = make_bridge(lm)
    said = generate(lm, PROMPTS[:1], control, max_new_tokens=6)
    assert "".join(stream(lm, PROMPTS[0], control, max_new_tokens=6)) == said.texts[0]
    logp = token_logprobs(lm, PROMPTS[:1], said.token_ids, control)[0]
    forced = answer_distributions(lm, PROMPTS[:1], said.token_ids, control)[0]
    close(logp, forced.gather(1, torch.tensor(said.token_ids[0])[:, None])[:, 0])


def test_half_precision_runs_and_leaves_plain_rows_alone():
    for family in ("llama", "gpt2"):
        lm = tiny_lm(family, dtype=torch.bfloat16)
        controls = [make_bridge(lm), None, None, None]
        said = generate(lm, PROMPTS, controls, max_new_tokens=4)
        assert said.token_ids[1:] == generate(lm, PROMPTS, max_new_tokens=4).token_ids[1:]


def test_receipts_tell_refreshes_gate_and_scores():
    lm = tiny_lm(eos_token_id=None)
    control = make_bridge(lm, refresh=3, scores=("power", "benevolence"))
    receipt = generate(lm, PROMPTS[:1], control, max_new_tokens=8).receipts[0]
    told = receipt.guidance
    assert (receipt.method, receipt.sites, receipt.tokens) == ("svgt", ("resid:0",), 8)
    assert told.moments == (0, 3, 6) and told.refreshes == 3
    assert told.gate == pytest.approx(1.5)
    for before, after in zip(told.before, told.after, strict=True):
        assert after[1] > before[1]  # benevolence has a goal above
        assert abs(after[0] - before[0]) < 0.5 * (after[1] - before[1])  # power is held
    static = generate(lm, PROMPTS[:1], replace(control, refresh=0), max_new_tokens=8).receipts[0]
    assert static.guidance.moments == (0,)


def test_more_strength_is_more_dose_and_a_dose_can_be_set():
    lm = tiny_lm(eos_token_id=None)
    meter = DoseMeter(lm, PROMPTS, max_new_tokens=10)
    for mode in ("bridge", "inject"):
        control = make_bridge(lm, mode=mode)
        doses = [meter.measure(control.scaled(s)).p95 for s in (0, 0.05, 0.2, 0.8, 3)]
        assert doses[0] == pytest.approx(0, abs=1e-6)
        assert doses == sorted(doses)
        asked = doses[2] * 1.5
        assert meter.measure(meter.set(control, asked)).p95 == pytest.approx(asked, rel=0.05)


# The value module ------------------------------------------------------------------------


def value_module(scores=3, size=16):
    torch.manual_seed(0)
    return ValueModule(width=24, size=size, scores=scores, heads=4)


def test_one_score_and_goal_zero_give_the_released_step():
    value = value_module(scores=1)
    z = torch.randn(5, 16, requires_grad=True)
    s = value.score(z)
    gradient = torch.autograd.grad(s.sum(), z)[0]
    expected = -(s.relu() / gradient.square().sum(-1, keepdim=True)) * gradient
    scores, jacobian = value.score_and_jacobian(z.detach())
    close(scores, s.detach())
    close(jacobian[:, 0], gradient)
    step = correction(jacobian, -scores.relu(), radius=1e9)
    close(step, expected.detach(), 2e-3)


@given(st.integers(0, 10_000))
def test_the_step_meets_the_linearised_goal_and_holds_the_other_scores(seed):
    rng = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(3, 16, generator=rng)
    wanted = torch.tensor([1.0, 0.0, -0.5])
    step = correction(jacobian, wanted, radius=1e9)
    close(jacobian @ step, wanted, 2e-2)
    # The smallest such move: nothing of it lies outside the span of the gradients.
    close(step, jacobian.T @ torch.linalg.lstsq(jacobian.T, step[:, None])[0][:, 0], 1e-3)
    assert float(correction(jacobian, 1e6 * wanted, radius=2.0).norm()) <= 2.001


def test_running_sums_are_the_whole_text():
    value = value_module()
    h = torch.randn(2, 12, 24)
    u, w = value.features(h)
    whole = value.encode((u.sum(1, keepdim=True), w.sum(1, keepdim=True)), None)
    parts = [value.features(h[:, i : i + 1]) for i in range(12)]
    running = sum(p[0] for p in parts), sum(p[1] for p in parts)
    close(value.encode(running, None), whole)


def test_shuffling_a_batch_shuffles_its_scores_and_padding_is_not_read():
    value = value_module()
    h, prompt = torch.randn(4, 6, 24), torch.randn(4, 9, 24)
    seen = torch.arange(9) < torch.tensor([9, 4, 7, 1])[:, None]

    def scores(order):
        u, w = value.features(h[order])
        pool = u.sum(1, keepdim=True), w.sum(1, keepdim=True)
        return value.score(value.encode(pool, value.context(prompt[order], seen[order])))

    order = [2, 0, 3, 1]
    close(scores(order), scores([0, 1, 2, 3])[order])
    changed = torch.where(seen[..., None], prompt, 1e3)
    before = scores([0, 1, 2, 3])
    prompt = changed
    close(scores([0, 1, 2, 3]), before)


def test_goals_push_from_the_side_the_target_names():
    lm = tiny_lm()
    control = make_bridge(lm, scores=("benevolence", "power"), dead_zone=0.5)
    guide = build(control)
    short = guide.shortfall(torch.tensor([[3.0, 9.0], [3.7, -9.0], [5.0, 0.0]]))
    assert short.tolist() == [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]


# Refusals --------------------------------------------------------------------------------


def test_what_cannot_run_is_refused_before_any_token():
    lm = tiny_lm()
    for control, what in [
        (make_bridge(tiny_lm(hidden_size=64, head_dim=16)), "64 wide"),
        (make_bridge(lm, layer=2), "layers 0 to 1"),
        (replace(make_bridge(lm), tokens=2), "3 tokens"),
    ]:
        with pytest.raises(UnsupportedSiteError, match=what):
            generate(lm, PROMPTS, control)
    generate(lm, PROMPTS, make_bridge(lm, layer=2, mode="inject"), max_new_tokens=2)


def test_caches_of_fixed_size_are_refused_naming_the_way_out():
    lm = tiny_lm()
    ids = torch.tensor([lm.encode_prompt(PROMPTS[0])])
    cache = StaticCache(config=lm.model.config, max_cache_len=32)
    with pytest.raises(UnsupportedSiteError, match="default cache"), lm.controlled(make_bridge(lm)):
        lm.model(ids, past_key_values=cache, use_cache=True)


@pytest.mark.parametrize(
    "change, what",
    [(dict(goals={}), "goal"), (dict(goals={"power": 1.0}), "goal"),
     (dict(momentum=1.0), "momentum"), (dict(refresh=-1), "refresh"),
     (dict(strength=float("nan")), "strength"),
     (dict(mode="shout"), "mode"), (dict(layer=1.5), "layer")],
)  # fmt: skip
def test_controls_that_make_no_sense_are_refused(change, what):
    with pytest.raises(EditError, match=what):
        replace(make_bridge(tiny_lm()), **change)


def test_a_cache_read_without_the_bridge_is_refused():
    lm = tiny_lm()
    ids = torch.tensor([lm.encode_prompt(PROMPTS[0])])
    cache = lm.model(ids, use_cache=True).past_key_values
    with pytest.raises(Exception, match="without the control"), lm.controlled(make_bridge(lm)):
        lm.model(ids[:, -1:], past_key_values=cache)
