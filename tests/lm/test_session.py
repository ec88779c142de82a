"""`with lm.controlled(control)`: the user's own calls are steered, and nothing stays behind."""

import pytest
import torch

from tests.lm.reference import KINDS, TARGET, answer, full_logits, make_control
from tests.lm.test_edits import close, sites_of
from tests.lm.test_rows import reading_gate
from tests.lm.tiny import FAMILIES, PROMPTS, tiny_lm
from valign.control import TextControl
from valign.lm import (
    HostModel,
    LayoutNames,
    NestedControlError,
    NotAppliedError,
    UnsupportedSiteError,
    capture,
    generate,
)


def batch(lm, prompts=PROMPTS, side="left"):
    lm.tokenizer.padding_side = side
    rows = [lm.render(p) for p in prompts]
    return lm.tokenizer(rows, return_tensors="pt", padding=True, add_special_tokens=False,
                        return_token_type_ids=False)  # fmt: skip


def hooks_of(model):
    return [
        (name, len(m._forward_hooks), len(m._forward_pre_hooks))
        for name, m in model.named_modules()
        if m._forward_hooks or m._forward_pre_hooks
    ]


def own_generate(lm, inputs, **options):
    """transformers' own greedy generation, cut at the end of each answer."""
    made = lm.model.generate(**inputs, max_new_tokens=4, do_sample=False, **options)
    answers = []
    for row in made[:, inputs["input_ids"].shape[1] :].tolist():
        ends = [i for i, token in enumerate(row) if token in lm.stop_ids]
        answers.append(row[: ends[0]] if ends else row)
    return answers


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_own_generate_gives_the_same_answers(family):
    lm = tiny_lm(family)
    sites = sites_of(family)
    controls = [
        make_control(lm, "hold", *sites), None, make_control(lm, "add", *sites, scope="all"),
        make_control(lm, "push", *sites, gate=reading_gate(lm, family)[0]),
    ]  # fmt: skip
    expected = generate(lm, PROMPTS, controls, max_new_tokens=4).token_ids
    with lm.controlled(controls):
        assert own_generate(lm, batch(lm)) == expected


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma2"])
@pytest.mark.parametrize("kind", ["add", "hold"])
def test_generation_without_a_cache_gives_the_same_answers(family, kind):
    lm = tiny_lm(family)
    controls = [make_control(lm, kind, "resid:1", gate=reading_gate(lm, family)[0]),
                make_control(lm, kind, "resid:0", seed=1), None, None]  # fmt: skip
    expected = generate(lm, PROMPTS, controls, max_new_tokens=4).token_ids
    with lm.controlled(controls):
        assert own_generate(lm, batch(lm), use_cache=False) == expected


def test_beams_of_a_row_share_its_control():
    lm = tiny_lm()
    control = make_control(lm, "hold", "resid:1")
    with lm.controlled(control):
        cached = own_generate(lm, batch(lm), num_beams=3)
    with lm.controlled(control):
        assert own_generate(lm, batch(lm), num_beams=3, use_cache=False) == cached
    assert cached != own_generate(lm, batch(lm), num_beams=3)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_either_padding_side_equals_the_reference(family, side):
    lm = tiny_lm(family)
    inputs = batch(lm, side=side)
    mask = inputs["attention_mask"]
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    own = {"position_ids": positions} if "position_ids" in lm.accepts else {}
    for kind, scope in [("push", "generation"), ("hold", "all")]:
        control = make_control(lm, kind, *sites_of(family), scope=scope)
        with torch.no_grad(), lm.controlled(control):
            logits = lm.model(**inputs, **own, use_cache=False).logits
        for row, prompt in enumerate(PROMPTS):
            ids = lm.encode_prompt(prompt)
            close(logits[row][mask[row].bool()], full_logits(lm, family, ids, len(ids), control))


def test_a_positional_mask_is_read():
    lm = tiny_lm()
    inputs = batch(lm, side="right")
    control = make_control(lm, "add", "resid:1")
    with torch.no_grad(), lm.controlled(control):
        named = lm.model(**inputs).logits
        placed = lm.model(inputs["input_ids"], inputs["attention_mask"]).logits
    assert torch.equal(named, placed)


def test_embeddings_may_stand_for_tokens():
    lm = tiny_lm()
    ids = torch.tensor([lm.encode_prompt(PROMPTS[0])])
    with torch.no_grad(), lm.controlled(make_control(lm, "push", "resid:1")):
        by_ids = lm.model(ids).logits
        by_vectors = lm.model(inputs_embeds=lm.model.get_input_embeddings()(ids)).logits
    torch.testing.assert_close(by_ids, by_vectors)


def test_prompt_lengths_say_where_the_answers_begin():
    lm = tiny_lm()
    ids = lm.encode_prompt(PROMPTS[0])
    control = make_control(lm, "hold", "resid:0", "heads:1")
    said, _ = answer(lm, "llama", ids, control, 4)
    with torch.no_grad(), lm.controlled(control, prompt_lengths=[len(ids)]):
        logits = lm.model(torch.tensor([ids + said])).logits[0]
    close(logits, full_logits(lm, "llama", ids + said, len(ids), control))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "mixtral"])
def test_the_model_is_bit_for_bit_as_before(family, kind):
    lm = tiny_lm(family)
    weights = {k: v.clone() for k, v in lm.model.state_dict().items()}
    inputs = batch(lm)
    with torch.no_grad():
        before = lm.model(**inputs).logits
        control = make_control(lm, kind, *sites_of(family))
        with lm.controlled(control):
            assert not torch.equal(lm.model(**inputs).logits, before)
        after = lm.model(**inputs).logits
    assert torch.equal(before, after)
    assert hooks_of(lm.model) == []
    assert all(torch.equal(v, weights[k]) for k, v in lm.model.state_dict().items())


def test_an_exception_inside_leaves_no_trace():
    lm = tiny_lm()
    inputs = batch(lm)
    with torch.no_grad():
        before = lm.model(**inputs).logits
    control = make_control(lm, "add", "resid:1", gate=reading_gate(lm, "llama")[0])
    with pytest.raises(KeyboardInterrupt), lm.controlled(control):
        lm.model(**inputs)
        raise KeyboardInterrupt
    bad = lm.layout.blocks[2].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), lm.controlled(control):
        lm.model(**inputs)
    with pytest.raises(ZeroDivisionError):
        generate(lm, PROMPTS, control)
    bad.remove()
    assert hooks_of(lm.model) == []
    assert lm.session is None
    with torch.no_grad():
        assert torch.equal(lm.model(**inputs).logits, before)


def test_controls_do_not_nest():
    lm = tiny_lm()
    control = make_control(lm, "add", "resid:1")
    with lm.controlled(control):
        with pytest.raises(NestedControlError, match="already runs under a control"):
            generate(lm, PROMPTS)
        with pytest.raises(NestedControlError), lm.controlled(control):
            pass
        lm.model(**batch(lm))  # the outer one is still whole
    generate(lm, PROMPTS[:1], control, max_new_tokens=1)


def test_a_batch_of_another_size_is_refused():
    lm = tiny_lm()
    controls = [make_control(lm, "add", "resid:1"), None]
    with (
        pytest.raises(UnsupportedSiteError, match="2 controls were given for a batch of 4 rows"),
        lm.controlled(controls),
    ):
        lm.model(**batch(lm))
    with (
        pytest.raises(UnsupportedSiteError, match="1 prompt lengths"),
        lm.controlled(controls[0], prompt_lengths=[3]),
    ):
        lm.model(**batch(lm))


def test_words_are_refused_where_only_activations_pass():
    with pytest.raises(UnsupportedSiteError, match=r"text control.*generate"):
        tiny_lm().controlled(TextControl(target=TARGET, instruction="care"))


def test_an_edit_that_never_ran_is_an_error():
    lm = tiny_lm()
    lm.model.model.layers[1].unused = torch.nn.Linear(64, 32)
    names = LayoutNames(layers="model.layers", down="mlp.down_proj")
    lm = HostModel(lm.model, lm.tokenizer, layout=names)
    lm.layout.down[1]  # the real one runs; the unused one does not
    names = LayoutNames(layers="model.layers", down="self_attn.o_proj", attention_out="unused")
    for layer in (0, 2):
        lm.model.model.layers[layer].unused = torch.nn.Linear(64, 32)
    blind = HostModel(lm.model, lm.tokenizer, layout=names)
    control = make_control(blind, "add", "heads:1", "resid:0")
    with pytest.raises(NotAppliedError, match="heads:1 never ran"):
        generate(blind, PROMPTS, control, max_new_tokens=2)
    with pytest.raises(NotAppliedError, match="heads:1"), blind.controlled(control):
        blind.model(**batch(blind))
    assert hooks_of(lm.model) == []


def test_a_part_of_the_model_called_alone_is_an_error_not_a_plain_run():
    lm = tiny_lm()
    control = make_control(lm, "add", "resid:1")
    with lm.controlled(control):
        with pytest.raises(NotAppliedError, match="not its parts"):
            lm.model.model(**batch(lm))
        lm.model(**batch(lm))
        with pytest.raises(NotAppliedError, match="not its parts"):
            list(capture(lm, [(None, "the friend")], lm.sites("resid")))


def test_a_prompt_read_before_the_control_was_on_is_an_error():
    lm = tiny_lm()
    ids = torch.tensor([lm.encode_prompt(PROMPTS[0])])
    cache = lm.model(ids, use_cache=True).past_key_values
    with (
        pytest.raises(NotAppliedError, match="read without the control"),
        lm.controlled(make_control(lm, "add", "resid:1")),
    ):
        lm.model(ids[:, :1], past_key_values=cache)


def test_several_tokens_on_a_cache_are_refused_where_the_prompts_end_matters():
    lm = tiny_lm()
    ids = torch.tensor([lm.encode_prompt(PROMPTS[0])])
    with lm.controlled(make_control(lm, "add", "resid:1")):
        cache = lm.model(ids[:, :3], use_cache=True).past_key_values
        with pytest.raises(UnsupportedSiteError, match="whole prompt in one pass"):
            lm.model(ids[:, 3:], past_key_values=cache)
    control = make_control(lm, "add", "resid:1", scope="all")
    with torch.no_grad(), lm.controlled(control):
        cache = lm.model(ids[:, :3], use_cache=True).past_key_values
        late = lm.model(ids[:, 3:], past_key_values=cache).logits[0]
        whole = lm.model(ids).logits[0]
    torch.testing.assert_close(late, whole[3:], rtol=1e-4, atol=1e-4)


def test_a_model_with_an_adapter_is_steered_however_it_is_called():
    peft = pytest.importorskip("peft")
    for family, targets in [("llama", ["down_proj", "q_proj"]), ("gpt2", ["c_proj"])]:
        lm = tiny_lm(family)
        config = peft.LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM",
                                 init_lora_weights=False)  # fmt: skip
        adapted = HostModel(peft.get_peft_model(lm.model, config), lm.tokenizer)
        controls = [make_control(adapted, "push", "resid:1", "neurons:1"), None,
                    make_control(adapted, "add", "heads:0"), None]  # fmt: skip
        expected = generate(adapted, PROMPTS, controls, max_new_tokens=4)
        assert expected.token_ids != generate(adapted, PROMPTS, max_new_tokens=4).token_ids
        single = generate(adapted, PROMPTS, controls, max_new_tokens=4, batch_size=1)
        assert single.token_ids == expected.token_ids
        with adapted.controlled(controls):
            assert own_generate(adapted, batch(adapted)) == expected.token_ids


def test_parts_on_several_devices():
    accelerate = pytest.importorskip("accelerate")
    lm = tiny_lm()
    controls = [make_control(lm, "push", "resid:0", "resid:2", "neurons:1"), None, None, None]
    expected = generate(lm, PROMPTS, controls, max_new_tokens=4).token_ids
    spread = {f"model.layers.{n}": "cpu" for n in range(3)}
    spread |= {"model.embed_tokens": "cpu", "model.norm": "cpu", "lm_head": "cpu",
               "model.rotary_emb": "cpu"}  # fmt: skip
    model = accelerate.dispatch_model(lm.model, spread, force_hooks=True, main_device="cpu")
    found = generate(HostModel(model, lm.tokenizer), PROMPTS, controls, max_new_tokens=4)
    assert found.token_ids == expected
