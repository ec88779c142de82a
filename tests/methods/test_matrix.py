"""Method x family: fit, save, load, generate; and what every control must keep to."""

import pytest
import torch

from tests.lm.tiny import PROMPTS, tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.control import EditsControl, load
from valign.lm import DoseMeter, UnsupportedSiteError, generate
from valign.methods import get_method, method_class
from valign.methods.gate import fit_gate
from valign.values import Profile

TARGET = Profile.of(SYSTEM, benevolence=1, power=-0.5)
CORPUS = toy_corpus()

METHODS = {
    "none": dict(),
    "random": dict(),
    "prompt": dict(),
    "role": dict(),
    "logit-bias": dict(),
    "caa": dict(),
    "angular": dict(),
    "cast": dict(),
    "iti": dict(),
    "conva": dict(gate=False),
    "neva": dict(gate=False),
    "valuelocate": dict(),
    "k-steering": dict(hidden=8, epochs=2),
    "pplm": dict(layers="0,1,2"),
    "re-control": dict(hidden=8, epochs=4, rate=0.03),
    "bipo": dict(epochs=1),
    "reft": dict(epochs=1),
    "sae": dict(epochs=20),
    "svgt": dict(size=16, epochs=1, bridge_epochs=1),
    "mva": dict(rank=2, steps=2, batch_size=4, rate=0.01),
    "dpo": dict(rank=2, steps=2, batch_size=4, rate=0.01),
    "simpo": dict(rank=2, steps=2, batch_size=4, rate=0.01),
    "sft": dict(rank=2, steps=2, batch_size=4, rate=0.01),
    "visa": dict(template="world", max_new_tokens=8),
}
VARIANTS = [
    ("caa", dict(layers="best", positions="last")),
    ("caa", dict(specific=True)),
    ("conva", dict(gate=False, per_token=True, scope="generation", positions="mean")),
    ("conva", dict()),
    ("neva", dict(gate=False, score="contrib", exclude="any")),
    ("neva", dict(gate=False, score="abs_weight", specific=False)),
    ("neva", dict(gate=False, score="write", exclude="out_of_group")),
    ("neva", dict(gate=False, move="gap", share=0.2)),
    ("neva", dict(gate=False, mode="push", layers="informative")),
    ("neva", dict(gate=False, mode="push", reads="gap", per_token=False, clip=False)),
    ("random", dict(reference="neva")),
    ("random", dict(reference="iti")),
    ("random", dict(orthogonal=True)),
    ("cast", dict(condition="mean", against="other", layers="best", positions="last")),
    ("iti", dict(share=0.5, direction="probe", positions="last")),
    ("valuelocate", dict(amount="prob", quieten=False, share=0.1)),
    ("valuelocate", dict(neurons="random", gap=0.05)),
    ("k-steering", dict(layers="inner", positions="last", steps=2, decay=0.5, epochs=2)),
    ("re-control", dict(learn="td", steps=2, epochs=2)),
    ("bipo", dict(layers="0,2", epochs=1, beta=0.5)),
    ("reft", dict(layers="inner", rank=1, loss="lm", epochs=1)),
    ("angular", dict(plane="pca", angle=-30, layers="0,1,2", positions="last")),
    ("pplm", dict(steps=1, layers="best", positions="last")),
    ("sae", dict(layer=2, features=3, k=4, expansion=2, least_r2=-9, epochs=2)),
    ("role", dict(traits=True, seed=3)),
]


def check(lm, control, tmp_path):
    """What holds for every fitted control."""
    again = load(control.save(tmp_path))
    assert again.provenance == control.provenance
    said = generate(lm, PROMPTS, control, max_new_tokens=6)
    assert generate(lm, PROMPTS, again, max_new_tokens=6).token_ids == said.token_ids
    if not isinstance(control, EditsControl) or control.gate is not None:
        return
    for edit in control.edits:
        for tensor in edit.tensors.values():
            assert not tensor.is_floating_point() or torch.isfinite(tensor).all()
    strong = generate(lm, PROMPTS, control.scaled(30.0), max_new_tokens=6)
    assert strong.token_ids != generate(lm, PROMPTS, max_new_tokens=6).token_ids
    assert all(receipt.tokens > 0 for receipt in strong.receipts)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt2", "gpt_neox", "phi3"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_family(method, family, tmp_path):
    lm = tiny_lm(family)
    control = get_method(method, **METHODS[method]).fit(lm, CORPUS, TARGET)
    assert control.method == method
    assert control.target == TARGET
    check(lm, control, tmp_path)


@pytest.mark.parametrize("method", [m for m in METHODS if method_class(m).has_strength])
def test_every_method_can_be_set_to_a_dose(method):
    lm = tiny_lm()
    control = get_method(method, **METHODS[method]).fit(lm, CORPUS, TARGET)
    meter = DoseMeter(lm, PROMPTS, max_new_tokens=8)
    weak, strong = (meter.measure(meter.set(control, dose)).p95 for dose in (0.05, 0.2))
    assert weak == pytest.approx(0.05, rel=0.2)
    assert strong == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize(("method", "settings"), VARIANTS)
def test_every_setting_runs(method, settings, tmp_path):
    lm = tiny_lm()
    control = get_method(method, **settings).fit(lm, CORPUS, TARGET)
    check(lm, control, tmp_path)


def test_plain_texts_and_models_without_a_chat_template():
    lm = tiny_lm(chat=False)
    corpus = toy_corpus(plain=True)
    for method in set(METHODS) - {"none", "random"}:
        control = get_method(method, **METHODS[method]).fit(lm, corpus, TARGET)
        generate(lm, PROMPTS, control, max_new_tokens=3)


def test_a_mixture_of_experts_has_no_neurons_to_edit_but_a_residual_stream():
    lm = tiny_lm("mixtral")
    for method, settings in (("neva", dict(gate=False)), ("valuelocate", dict())):
        with pytest.raises(UnsupportedSiteError, match="mixture of experts"):
            get_method(method, **settings).fit(lm, CORPUS, TARGET)
    for method in ("caa", "iti", "bipo"):
        control = get_method(method, **METHODS[method]).fit(lm, CORPUS, TARGET)
        generate(lm, PROMPTS, control, max_new_tokens=2)


@pytest.mark.parametrize("method", ["random", "logit-bias", "caa", "cast", "iti", "neva", "bipo"])
def test_away_is_the_reverse_of_toward(method):
    lm = tiny_lm()
    settings = METHODS[method]
    toward = get_method(method, **settings).fit(lm, CORPUS, Profile.of(SYSTEM, security=1))
    if method == "random":  # drawn anew for every target
        return
    away = get_method(method, **settings).fit(lm, CORPUS, Profile.of(SYSTEM, security=-1))
    half = get_method(method, **settings).fit(lm, CORPUS, Profile.of(SYSTEM, security=0.5))
    for a, b, c in zip(toward.edits, away.edits, half.edits, strict=True):
        torch.testing.assert_close(a.tensors["vector"], -b.tensors["vector"])
        torch.testing.assert_close(a.tensors["vector"] / 2, c.tensors["vector"])


def test_additive_methods_sum_over_values():
    lm = tiny_lm()
    parts = [
        get_method("neva", gate=False).fit(lm, CORPUS, Profile.of(SYSTEM, **{v: s}))
        for v, s in (("benevolence", 1), ("power", -0.5))
    ]
    both = get_method("neva", gate=False).fit(lm, CORPUS, TARGET)
    summed = {}
    for control in parts:
        for edit in control.edits:
            summed[edit.site] = summed.get(edit.site, 0) + edit.tensors["vector"]
    for edit in both.edits:
        torch.testing.assert_close(edit.tensors["vector"], summed[edit.site])


def test_a_conva_push_brings_every_probe_to_its_target():
    lm = tiny_lm()
    control = get_method("conva", gate=False, per_token=True).fit(lm, CORPUS, TARGET)
    for edit in control.edits:
        t = edit.tensors
        share = torch.diag(torch.tensor([abs(s) for s in TARGET.named.values()]))
        torch.testing.assert_close(t["weight"] @ t["direction"].T, share, atol=1e-4, rtol=1e-4)


def test_neva_edits_only_the_asked_share_of_neurons():
    lm = tiny_lm()
    target = Profile.of(SYSTEM, benevolence=1)
    for mode in ("add", "push"):
        control = get_method("neva", gate=False, share=0.1, mode=mode).fit(lm, CORPUS, target)
        name = "vector" if mode == "add" else "direction"
        moved = sum(int((e.tensors[name].reshape(-1) != 0).sum()) for e in control.edits)
        assert 0 < moved <= round(0.1 * 2 * 64)
        assert all(edit.site.layer > 0 for edit in control.edits)


def test_a_random_direction_keeps_norms_sites_and_coordinates():
    lm = tiny_lm()
    target = Profile.of(SYSTEM, benevolence=1)
    reference = get_method("neva").fit(lm, CORPUS, target)
    drawn = get_method("random", reference="neva").fit(lm, CORPUS, target)
    other = get_method("random", reference="neva", seed=1).fit(lm, CORPUS, target)
    assert drawn.gate is not None
    for a, b, c in zip(reference.edits, drawn.edits, other.edits, strict=True):
        va, vb, vc = (e.tensors["vector"] for e in (a, b, c))
        torch.testing.assert_close(va.norm(), vb.norm())
        assert torch.equal(va != 0, vb != 0)
        assert not torch.equal(vb, vc)


@pytest.mark.parametrize("reference", ["caa", "neva", "conva"])
def test_an_orthogonal_direction_stands_at_a_right_angle(reference):
    lm = tiny_lm()
    target = Profile.of(SYSTEM, benevolence=1, power=-0.5)
    own = get_method(reference).fit(lm, CORPUS, target)
    drawn = get_method("random", reference=reference, orthogonal=True).fit(lm, CORPUS, target)
    plain = get_method("random", reference=reference).fit(lm, CORPUS, target)
    for a, b, c in zip(own.edits, drawn.edits, plain.edits, strict=True):
        name = "vector" if a.kind == "add" else "direction"
        va, vb, vc = (e.tensors[name].reshape(-1, a.tensors[name].shape[-1]) for e in (a, b, c))
        torch.testing.assert_close(vb.norm(dim=1), va.norm(dim=1))
        cosine = torch.nn.functional.cosine_similarity(va, vb)
        torch.testing.assert_close(cosine, torch.zeros_like(cosine), atol=1e-5, rtol=0)
        assert torch.nn.functional.cosine_similarity(va, vc).abs().max() > 1e-4


def test_ten_targets_cost_one_reading():
    lm = tiny_lm()
    get_method("caa").fit(lm, CORPUS, Profile.of(SYSTEM, **{"security": 1, "power": 1}))
    read = len(lm.memo)
    get_method("caa").fit(lm, CORPUS, Profile.of(SYSTEM, security=-1))
    assert len(lm.memo) == read == 2


def test_logit_bias_likes_the_words_of_the_value():
    lm = tiny_lm()
    control = get_method("logit-bias").fit(lm, CORPUS, Profile.of(SYSTEM, security=1))
    bias = control.edits[0].tensors["vector"]
    word = CORPUS.pairs_of("security")[0].positive.split()[-1]
    assert int(bias.argmax()) == lm.tokenizer(word, add_special_tokens=False)["input_ids"][0]
    seen = lm.tokenizer(word, add_special_tokens=False)["input_ids"][0]
    unseen = lm.tokenizer("w25", add_special_tokens=False)["input_ids"][0]
    assert bias[seen] > 0 == bias[unseen]


def test_none_leaves_every_answer_as_it_is():
    lm = tiny_lm()
    control = get_method("none").fit(lm, CORPUS, TARGET)
    said = generate(lm, PROMPTS, control, max_new_tokens=8).token_ids
    assert said == generate(lm, PROMPTS, max_new_tokens=8).token_ids


def test_prompt_says_toward_and_away_for_each_value():
    control = get_method("prompt").fit(tiny_lm(), CORPUS, TARGET)
    assert "high level of benevolence" in control.instruction
    assert "low level of power" in control.instruction
    assert "{" not in control.instruction


def test_the_gate_opens_for_dilemmas_and_not_for_everyday_questions():
    lm = tiny_lm()
    target = Profile.of(SYSTEM, benevolence=1)
    control = get_method("caa").fit(lm, CORPUS, target)
    gate, accuracy = fit_gate(lm, CORPUS, target)
    assert len(gate.weights) == len(accuracy) == 1
    gated = EditsControl(target=target, edits=control.edits, gate=gate)
    prompts = [d.text for d in CORPUS.dilemmas_of("benevolence")]
    everyday = [n.prompt for n in CORPUS.neutral]
    opened = [r.gate for r in generate(lm, prompts, gated, max_new_tokens=1).receipts]
    shut = [r.gate for r in generate(lm, everyday, gated, max_new_tokens=1).receipts]
    assert sum(opened) > 0.7 * len(opened)
    assert sum(shut) < 0.3 * len(shut)
    plain = generate(lm, everyday, max_new_tokens=4)
    said = generate(lm, everyday, gated, max_new_tokens=4)
    for row, receipt in enumerate(said.receipts):
        if receipt.gate is False:
            assert said.token_ids[row] == plain.token_ids[row]
