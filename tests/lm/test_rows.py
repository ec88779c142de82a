"""A row's answer depends on nothing but its prompt, its control and its seed."""

import pytest
import torch

from tests.lm.reference import KINDS, TARGET, gate_reading, make_control
from tests.lm.tiny import FAMILIES, PROMPTS, tiny_lm
from valign.control import Edit, EditsControl, Gate, Site, TextControl
from valign.lm import HostModel, UnsupportedSiteError, generate
from valign.lm.score import answer_distributions

MIXED = ["add", "push", None, "hold"]
LONG = "the family will go on a trip because they care , should we stay home or go ? " * 3


def mixed_controls(lm):
    return [None if k is None else make_control(lm, k, "resid:1", "heads:1") for k in MIXED]


@pytest.mark.parametrize("temperature", [0.0, 1.3])
@pytest.mark.parametrize("family", FAMILIES)
def test_batch_size_order_and_neighbours_do_not_matter(family, temperature):
    lm = tiny_lm(family)
    controls = mixed_controls(lm)
    options = dict(max_new_tokens=5, temperature=temperature, top_p=0.9)
    seeds = [11, 12, 13, 14]
    whole = generate(lm, PROMPTS, controls, seed=seeds, **options)
    single = generate(lm, PROMPTS, controls, seed=seeds, batch_size=1, **options)
    assert whole.token_ids == single.token_ids
    assert whole.texts == single.texts
    order = [2, 0, 3, 1]
    shuffled = generate(
        lm, [PROMPTS[i] for i in order], [controls[i] for i in order],
        seed=[seeds[i] for i in order], **options,
    )  # fmt: skip
    assert shuffled.token_ids == [whole.token_ids[i] for i in order]
    beside = generate(lm, [LONG, PROMPTS[1]], [None, controls[1]], seed=[1, 12], **options)
    assert beside.token_ids[1] == whole.token_ids[1]
    assert beside.prompt_tokens[1] == whole.prompt_tokens[1]


def test_sampling_follows_the_seed_and_the_distribution():
    lm = tiny_lm(eos_token_id=None)
    options = dict(max_new_tokens=1, temperature=1.0)
    n = 400
    said = generate(lm, [PROMPTS[1]] * n, seed=5, batch_size=100, **options)
    again = generate(lm, [PROMPTS[1]] * n, seed=5, **options)
    other = generate(lm, [PROMPTS[1]] * n, seed=6, **options)
    assert said.token_ids == again.token_ids
    assert said.token_ids != other.token_ids
    p = answer_distributions(lm, [PROMPTS[1]], [[5]])[0][0].exp().double()
    drawn = torch.tensor([ids[0] if ids else 2 for ids in said.token_ids])
    counts = torch.bincount(drawn, minlength=96).double()
    likely = p > 0.02
    spread = (n * p * (1 - p)).sqrt()
    assert ((counts - n * p).abs() < 5 * spread + 1)[likely].all()
    nucleus = generate(lm, [PROMPTS[1]] * n, seed=5, top_p=0.3, **options)
    sorted_p, order = p.sort(descending=True)
    inside = set(order[: int((sorted_p.cumsum(0) < 0.3).sum()) + 1].tolist())
    assert {ids[0] if ids else 2 for ids in nucleus.token_ids} <= inside


@pytest.mark.parametrize(
    "options, what",
    [(dict(temperature=-1), "negative"), (dict(temperature=1, top_p=0), "top_p"),
     (dict(max_new_tokens=0), "at least one token"), (dict(seed=[1]), "1 seeds")],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options, what):
    with pytest.raises(ValueError, match=what):
        generate(tiny_lm(), PROMPTS, **options)


def test_a_prompt_instead_of_a_list_is_refused():
    with pytest.raises(TypeError, match=r"generate\(lm, \[prompt\]\)"):
        generate(tiny_lm(), "should I help ?")


@pytest.mark.parametrize("control", [None, "list"])
def test_no_prompts_give_no_answers(control):
    said = generate(tiny_lm(), [], None if control is None else [])
    assert said.texts == said.token_ids == said.receipts == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "opt"])
def test_half_precision_runs_and_leaves_plain_rows_alone(family, kind):
    lm = tiny_lm(family, dtype=torch.bfloat16)
    controls = [make_control(lm, kind, "resid:1", "neurons:1"), None, None, None]
    said = generate(lm, PROMPTS, controls, max_new_tokens=3)
    plain = generate(lm, PROMPTS, max_new_tokens=3)
    assert said.token_ids[1:] == plain.token_ids[1:]
    assert said.receipts[0].size > 0


def test_half_precision_agrees_with_full_precision_steering():
    """The same bf16 weights read in float32: distributions agree to bf16's accuracy."""
    half = tiny_lm("llama", dtype=torch.bfloat16)
    full = HostModel(tiny_lm("llama", dtype=torch.bfloat16).model.float(), half.tokenizer)
    for kind in KINDS:
        control = make_control(half, kind, "resid:1")
        shift = []
        for lm in (half, full):
            steered = answer_distributions(lm, PROMPTS[:1], [[10, 11, 12]], control)[0]
            shift.append(steered.exp())
        assert float((shift[0] - shift[1]).abs().sum(-1).max()) < 0.35, kind


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_scope_all_differs_from_scope_generation(family):
    lm = tiny_lm(family)
    everywhere = make_control(lm, "add", "resid:0", scope="all")
    answers = make_control(lm, "add", "resid:0")
    a, b = (generate(lm, PROMPTS, c, max_new_tokens=4) for c in (everywhere, answers))
    assert a.token_ids != b.token_ids
    for row in range(len(PROMPTS)):
        made = len(b.token_ids[row]) + b.finished[row]
        assert b.receipts[row].tokens == made
        made = len(a.token_ids[row]) + a.finished[row]
        assert a.receipts[row].tokens == a.prompt_tokens[row] + made - 1


def reading_gate(lm, family, *, flip=1.0):
    """A gate that opens for two of the four prompts."""
    site = Site("resid", 1)
    w = torch.randn(32, generator=torch.Generator().manual_seed(4)) * flip
    readings = [gate_reading(lm, family, site, w, 0.0, lm.encode_prompt(p)) for p in PROMPTS]
    middle = sum(sorted(readings)[1:3]) / 2
    return Gate({site: (w, torch.tensor(-middle))}), [r > middle for r in readings]


@pytest.mark.parametrize("scope", ["all", "generation"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_gate_lets_through_only_the_rows_it_opens_for(family, scope):
    lm = tiny_lm(family)
    gate, opens = reading_gate(lm, family)
    assert sorted(opens) == [False, False, True, True]
    gated = make_control(lm, "hold", "resid:0", "heads:1", gate=gate, scope=scope)
    free = make_control(lm, "hold", "resid:0", "heads:1", scope=scope)
    steered = generate(lm, PROMPTS, free, max_new_tokens=4)
    plain = generate(lm, PROMPTS, max_new_tokens=4)
    found = generate(lm, PROMPTS, gated, max_new_tokens=4)
    for row, opened in enumerate(opens):
        source = steered if opened else plain
        assert found.token_ids[row] == source.token_ids[row]
        assert found.receipts[row].gate is opened
        assert found.receipts[row].tokens == (steered.receipts[row].tokens if opened else 0)
        size = steered.receipts[row].size if opened else 0
        assert found.receipts[row].size == pytest.approx(size, rel=1e-4)


def test_every_row_has_its_own_gate():
    lm = tiny_lm()
    gate, opens = reading_gate(lm, "llama")
    other, closed = reading_gate(lm, "llama", flip=-1.0)
    assert closed == [not o for o in opens]
    gated, reverse = (make_control(lm, "add", "resid:0", gate=g) for g in (gate, other))
    free = make_control(lm, "add", "resid:0")
    found = generate(lm, PROMPTS, [gated, reverse, free, None], max_new_tokens=4)
    assert [r.gate for r in found.receipts] == [opens[0], not opens[1], None, None]
    steered = generate(lm, PROMPTS, free, max_new_tokens=4)
    plain = generate(lm, PROMPTS, max_new_tokens=4)
    acted = [opens[0], not opens[1], True, False]
    for row, act in enumerate(acted):
        assert found.token_ids[row] == (steered if act else plain).token_ids[row]


def test_a_gate_with_several_sites_opens_when_one_of_them_does():
    lm = tiny_lm()
    low, high = torch.tensor(-1e6), torch.tensor(1e6)
    w = torch.ones(32)
    control = make_control(lm, "add", "resid:0", gate=Gate(
        {Site("resid", 0): (w, low), Site("heads", 2): (w, high)}))  # fmt: skip
    assert generate(lm, PROMPTS[:1], control, max_new_tokens=2).receipts[0].gate is True
    control = make_control(lm, "add", "resid:0", gate=Gate(
        {Site("resid", 0): (w, low), Site("heads", 2): (w, low)}))  # fmt: skip
    assert generate(lm, PROMPTS[:1], control, max_new_tokens=2).receipts[0].gate is False


def test_gates_that_cannot_be_read_are_refused():
    lm = tiny_lm()
    for site, width, what in [("logits", 96, "hidden sites"), ("resid:0", 31, "gate at resid:0")]:
        gate = Gate({Site.parse(site): (torch.ones(width), torch.tensor(0.0))})
        with pytest.raises(UnsupportedSiteError, match=what):
            generate(lm, PROMPTS, make_control(lm, "add", "resid:0", gate=gate))


def test_receipts_say_what_was_done_to_each_row():
    lm = tiny_lm()
    edits = make_control(lm, "add", "resid:0", "neurons:2")
    words = TextControl(target=TARGET, instruction="care more", provenance={"method": "prompt"})
    said = generate(lm, PROMPTS, [edits, words, None, edits], max_new_tokens=4)
    first, second, third, _ = said.receipts
    assert (first.method, first.sites, first.gate) == ("add", ("neurons:2", "resid:0"), None)
    assert first.tokens == len(said.token_ids[0]) + said.finished[0]
    assert (second.method, second.instruction, second.tokens) == ("prompt", "care more", 0)
    assert (third.method, third.sites, third.tokens, third.size) == (None, (), 0, 0.0)


def test_the_size_is_relative_to_the_activation():
    lm = tiny_lm()
    vector = torch.randn(32)
    seen = []
    handle = lm.layout.blocks[1].register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        lm.model(torch.tensor([lm.encode_prompt(PROMPTS[0])]))
    handle.remove()
    edit = Edit(Site("resid", 1), "add", {"vector": vector}, strength=2.0)
    control = EditsControl(target=TARGET, edits=(edit,))
    size = generate(lm, PROMPTS[:1], control, max_new_tokens=3).receipts[0].size
    assert size == pytest.approx(float(2 * vector.norm() / seen[0][0, -1].norm()), rel=1e-4)


def test_as_many_controls_as_prompts():
    lm = tiny_lm()
    with pytest.raises(UnsupportedSiteError, match="3 controls were given for 4 prompts"):
        generate(lm, PROMPTS, [None] * 3)
