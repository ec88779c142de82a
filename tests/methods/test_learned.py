"""BiPO and LoReFT: the loss, its gradient, and the edit that comes of it."""

import pytest
import torch

from tests.lm.tiny import PROMPTS, tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.control import EditsControl, Site
from valign.lm import generate, site_gradients, token_logprobs
from valign.methods import get_method
from valign.methods.preference import _logprobs
from valign.methods.progress import listening
from valign.methods.readings import read, sides
from valign.methods.reft import _Subspace
from valign.values import Profile

CORPUS = toy_corpus()
TARGET = Profile.of(SYSTEM, security=1)
QUICK = {"bipo": dict(epochs=6, rate=0.05), "reft": dict(epochs=6, rate=0.05)}


def margin(lm, control=None):
    """Mean over pairs of log p(positive) - log p(negative)."""
    pairs = CORPUS.pairs_of("security")
    prompts = [p.prompt for p in pairs]
    better, worse = (
        sum(float(x.sum()) for x in token_logprobs(lm, prompts, texts, control))
        for texts in ([p.positive for p in pairs], [p.negative for p in pairs])
    )
    return (better - worse) / len(pairs)


@pytest.mark.parametrize("plain", [False, True])
def test_log_probabilities_are_those_of_the_scorer(plain):
    lm = tiny_lm()
    control = get_method("caa").fit(lm, CORPUS, TARGET)
    pairs = toy_corpus(plain=plain).pairs_of("security")[:5]
    texts = sides(pairs)
    for acting in (None, control):
        expected = [
            float(x.sum())
            for x in token_logprobs(lm, [t[0] for t in texts], [t[1] for t in texts], acting)
        ]
        with torch.no_grad():
            found = _logprobs(lm, [lm.encode_example(*t) for t in texts], acting)
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-3, rtol=1e-5)


def test_the_first_bipo_step_follows_the_gradient_of_the_preference():
    """At zero the loss falls along grad log p(positive) - grad log p(negative), either way round;
    the first AdamW step goes by `rate` along its sign."""
    lm = tiny_lm()
    pairs = CORPUS.pairs_of("security")
    gradient = site_gradients(lm, sides(pairs), [Site("resid", 1)])[Site("resid", 1)]
    length = torch.tensor([len(lm.encode_example(*t)[0]) - lm.encode_example(*t)[1]
                           for t in sides(pairs)])  # fmt: skip
    up, down = (gradient * length[:, None]).chunk(2)
    expected = (up - down).mean(0)
    for seed in range(3):  # draws either direction
        method = get_method("bipo", epochs=1, batch_size=len(pairs), rate=0.01, seed=seed)
        vector = method.fit(lm, CORPUS, TARGET).edits[0].tensors["vector"]
        spread = read(lm, CORPUS, "resid", "security", positions="mean")[Site("resid", 1)].std
        size = 0.01 * float(spread.square().mean().sqrt())
        torch.testing.assert_close(vector, size * expected.sign(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", QUICK)
def test_learning_turns_the_preference_towards_and_away(method):
    lm = tiny_lm()
    toward = get_method(method, **QUICK[method]).fit(lm, CORPUS, TARGET)
    away = get_method(method, **QUICK[method]).fit(lm, CORPUS, Profile.of(SYSTEM, security=-1))
    losses = toward.provenance["losses"]["security"]
    assert losses[-1] < losses[0]
    assert margin(lm, toward) > margin(lm) > margin(lm, away)


def test_the_likelihood_loss_makes_the_wanted_texts_likelier():
    lm = tiny_lm()
    control = get_method("reft", loss="lm", **QUICK["reft"]).fit(lm, CORPUS, TARGET)
    pairs = CORPUS.pairs_of("security")
    prompts, texts = [p.prompt for p in pairs], [p.positive for p in pairs]
    before, after = (
        sum(float(x.sum()) for x in token_logprobs(lm, prompts, texts, c)) for c in (None, control)
    )
    assert after > before


def test_who_listens_hears_how_far_the_learning_is():
    heard = []
    with listening(lambda *said: heard.append(said)):
        get_method("bipo", epochs=2).fit(tiny_lm(), CORPUS, TARGET)
    assert heard == [("bipo: security", 1, 2), ("bipo: security", 2, 2)]


def test_the_users_weights_stay_and_hold_no_gradient():
    lm = tiny_lm()
    before = {name: p.clone() for name, p in lm.model.named_parameters()}
    for method in QUICK:
        get_method(method, epochs=1).fit(lm, CORPUS, TARGET)
    for name, p in lm.model.named_parameters():
        assert torch.equal(p, before[name]) and p.grad is None and p.requires_grad
    assert lm.session is None


@pytest.mark.parametrize("method", QUICK)
def test_the_same_seed_gives_the_same_control(method):
    first, again = (get_method(method, epochs=2).fit(tiny_lm(), CORPUS, TARGET) for _ in range(2))
    other = get_method(method, epochs=2, seed=1).fit(tiny_lm(), CORPUS, TARGET)
    for a, b in zip(first.edits, again.edits, strict=True):
        for name in a.tensors:
            assert torch.equal(a.tensors[name], b.tensors[name])
            assert not a.tensors[name].requires_grad
    name = "vector" if method == "bipo" else "direction"
    assert not torch.equal(first.edits[0].tensors[name], other.edits[0].tensors[name])


def test_loreft_as_pushes_is_the_formula_of_the_paper():
    """a + R^T (W a + b - R a), written with the matrices, at the answer's positions."""
    lm = tiny_lm()
    start = _Subspace.start(Site("resid", 1), torch.randn(32), torch.rand(32) + 0.5, 4, seed=0)
    start.slope.copy_(torch.randn(4, 32))
    start.shift.copy_(torch.randn(4))
    r = torch.linalg.qr(start.rows.T).Q.T
    torch.testing.assert_close(r @ r.T, torch.eye(4), atol=1e-5, rtol=0)
    w = start.slope + r
    b = start.spread * start.shift - start.slope @ start.centre
    control = EditsControl(target=TARGET, edits=(start.edit(),))
    ids = torch.tensor([lm.encode_prompt(PROMPTS[0])])

    def by_hand(module, args, out):
        a = out[0] if isinstance(out, tuple) else out
        last = a[:, -1]
        a = a.clone()
        a[:, -1] = last + (last @ w.T + b - last @ r.T) @ r
        return (a, *out[1:]) if isinstance(out, tuple) else a

    with torch.no_grad():
        handle = lm.layout.blocks[1].register_forward_hook(by_hand)
        expected = lm.model(ids).logits
        handle.remove()
        plain = lm.model(ids).logits
        with lm.controlled(control):
            found = lm.model(ids).logits
    assert (expected - plain).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_loreft_moves_only_inside_its_subspace():
    control = get_method("reft", rank=2, epochs=1).fit(tiny_lm(), CORPUS, TARGET)
    direction = control.edits[0].tensors["direction"]
    assert direction.shape == (4, 32)
    assert torch.linalg.matrix_rank(direction) == 2


def test_loreft_of_two_values_moves_by_the_sum_of_their_moves():
    lm = tiny_lm()
    method = get_method("reft", epochs=2, rate=0.1)
    a = torch.randn(5, 32)

    def move(**target):
        (edit,) = method.fit(lm, CORPUS, Profile.of(SYSTEM, **target)).edits
        t = edit.tensors
        return torch.relu(t["target"] - a @ t["weight"].T - t["bias"]) @ t["direction"]

    summed = move(power=1) + 0.5 * move(security=-1)
    torch.testing.assert_close(move(power=1, security=-0.5), summed, atol=1e-5, rtol=1e-4)


def test_bipo_vectors_add_over_values_and_turn_with_the_sign():
    lm = tiny_lm()
    method = get_method("bipo", epochs=1)
    one, two, both = (
        method.fit(lm, CORPUS, Profile.of(SYSTEM, **target)).edits[0].tensors["vector"]
        for target in (dict(power=1), dict(security=1), dict(power=1, security=-0.5))
    )
    torch.testing.assert_close(both, one - 0.5 * two)


@pytest.mark.parametrize("method", ["bipo", "reft"])
def test_a_gate_changes_where_it_acts_and_not_what_was_learned(method):
    lm = tiny_lm()
    gated, plain = (
        get_method(method, epochs=1, gate=gate).fit(lm, CORPUS, TARGET) for gate in (True, False)
    )
    assert plain.gate is None and gated.gate is not None
    for a, b in zip(gated.edits, plain.edits, strict=True):
        assert all(torch.equal(tensor, b.tensors[name]) for name, tensor in a.tensors.items())
    prompts = [d.text for d in CORPUS.dilemmas_of("benevolence")]
    prompts += [n.prompt for n in CORPUS.neutral]
    opened = [r.gate for r in generate(lm, prompts, gated, max_new_tokens=1).receipts]
    assert 0 < sum(opened) < len(opened)
