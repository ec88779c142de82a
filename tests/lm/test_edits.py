"""Every edit kind in every family against the slow reference: tokens equal, logits to 1e-5."""

import pytest
import torch

from tests.lm.reference import (
    KINDS,
    answer,
    full_logits,
    make_control,
    make_edit,
    rows_in_order,
    watched,
)
from tests.lm.tiny import DENSE, FAMILIES, PROMPTS, tiny_lm
from valign.control import Edit, EditsControl, Site
from valign.lm import UnsupportedSiteError, generate
from valign.lm.score import answer_distributions

STEPS = 4


def close(found, expected):
    """Within 1e-5 of the largest logit."""
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)


def check_against_reference(lm, family, controls, prompts=PROMPTS):
    """A batch with one control per row gives what each row gives alone, step by step."""
    with watched(lm) as seen:
        said = generate(lm, prompts, controls, max_new_tokens=STEPS)
    if any(c is not None and getattr(c, "gate", None) for c in controls):
        seen = seen[-STEPS:]
    order = rows_in_order(said.prompt_tokens)
    moved = 0.0
    for row, control in enumerate(controls):
        ids = lm.encode_prompt(prompts[row])
        tokens, logits = answer(lm, family, ids, control, STEPS)
        assert said.token_ids[row] == tokens
        close(torch.stack([step[order.index(row)] for step in seen[: len(logits)]]), logits)
        if control is not None:
            plain = full_logits(lm, family, ids, len(ids), None)[-1]
            moved = max(moved, float((logits[0] - plain).abs().max()))
    assert moved > 1e-2, "the edits of this test change nothing"


def sites_of(family):
    return ("resid:1", "neurons:0", "heads:2") if family in DENSE else ("resid:1", "heads:2")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_with_their_own_controls_equal_the_reference(family, kind):
    lm = tiny_lm(family)
    sites = sites_of(family)
    controls = [
        make_control(lm, kind, *sites),
        None,
        make_control(lm, kind, sites[-1], seed=1),
        make_control(lm, kind, sites[0], seed=2, scope="all"),
    ]
    check_against_reference(lm, family, controls)


@pytest.mark.parametrize("kind", KINDS)
def test_one_control_for_all_rows_equals_the_reference(kind):
    lm = tiny_lm("llama")
    control = make_control(lm, kind, "resid:0", "neurons:1", "heads:1", scope="all")
    check_against_reference(lm, "llama", [control] * len(PROMPTS))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_logit_bias_equals_the_reference(family):
    lm = tiny_lm(family)
    bias = make_control(lm, "add", "logits")
    check_against_reference(lm, family, [bias, None, bias, make_control(lm, "add", "logits",
                                                                        seed=3)])  # fmt: skip


def test_several_edits_at_one_site_run_in_their_order():
    lm = tiny_lm()
    site = Site("resid", 1)
    kinds = ["add", "push", "clamp", "scale", "project", "gradient"]
    edits = [make_edit(kind, site, 32, seed=n) for n, kind in enumerate(kinds)]
    forward = make_control(lm, "add", "resid:0")
    forward = EditsControl(target=forward.target, edits=tuple(edits))
    backward = EditsControl(target=forward.target, edits=tuple(edits[::-1]))
    check_against_reference(lm, "llama", [forward, backward, None, forward])


@pytest.mark.parametrize("chunk", range(2))
def test_different_kinds_side_by_side_in_one_batch(chunk):
    lm = tiny_lm("qwen2")
    kinds = KINDS[chunk * 4 : chunk * 4 + 5]
    prompts = [*PROMPTS, PROMPTS[0]]
    controls = [make_control(lm, kind, "resid:1", "neurons:1") for kind in kinds]
    check_against_reference(lm, "qwen2", controls, prompts)


def test_the_input_and_output_share_one_embedding():
    lm = tiny_lm("llama", tie_word_embeddings=True)
    assert lm.model.get_output_embeddings().weight is lm.model.get_input_embeddings().weight
    before = lm.model.get_input_embeddings().weight.clone()
    control = make_control(lm, "add", "resid:1", "logits")
    check_against_reference(lm, "llama", [control, None, control, None])
    assert torch.equal(before, lm.model.get_input_embeddings().weight)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_push_reaches_its_target(family):
    """With strength 1 and the dual basis, W a + b is the target where it fell short."""
    lm = tiny_lm(family)
    weight = torch.randn(3, 32) / 32**0.5
    edit = Edit(
        Site("resid", 1), "push",
        dict(weight=weight, bias=torch.randn(3), target=torch.full((3,), 1e3),
             direction=torch.linalg.pinv(weight).T.contiguous()),
    )  # fmt: skip
    control = EditsControl(target=make_control(lm, "add", "resid:0").target, edits=(edit,))
    seen = []
    with lm.controlled(control):  # a hook hung now runs after the edit
        block = lm.layout.blocks[1]
        handle = block.register_forward_hook(
            lambda m, a, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        lm.model(torch.tensor([lm.encode_prompt(PROMPTS[0])]))
        handle.remove()
    reached = seen[0][0, -1] @ weight.T + edit.tensors["bias"]
    torch.testing.assert_close(reached, torch.full((3,), 1e3), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "hold"])
def test_strength_zero_changes_nothing(kind):
    lm = tiny_lm()
    control = make_control(lm, kind, "resid:1", "neurons:1").scaled(0.0)
    plain = generate(lm, PROMPTS, max_new_tokens=STEPS)
    found = answer_distributions(lm, PROMPTS, plain.token_ids, control)
    expected = answer_distributions(lm, PROMPTS, plain.token_ids)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_control_that_does_not_fit_is_refused_before_work():
    lm = tiny_lm()
    wide = EditsControl(
        target=make_control(lm, "add", "resid:0").target,
        edits=(make_edit("add", Site("resid", 0), 33),),
        provenance={"model": "somebody/else"},
    )
    with pytest.raises(UnsupportedSiteError, match=r"33 wide.*32 there.*somebody/else"):
        generate(lm, PROMPTS, wide)
    beyond = dict(index=torch.tensor([32]), factor=torch.ones(1))
    far = EditsControl(target=wide.target, edits=(Edit(Site("resid", 0), "scale", beyond),))
    with pytest.raises(UnsupportedSiteError, match="coordinate 32"):
        generate(lm, PROMPTS, far)
    empty = EditsControl(target=wide.target)
    with pytest.raises(UnsupportedSiteError, match="no edits"):
        generate(lm, PROMPTS, empty)
    moe = tiny_lm("mixtral")
    with pytest.raises(UnsupportedSiteError, match="neurons:0 is not available"):
        generate(moe, PROMPTS, [None, None, None,
                                EditsControl(target=wide.target, edits=(
                                    make_edit("add", Site("neurons", 0), 64),))])  # fmt: skip
