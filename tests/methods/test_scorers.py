"""K-Steering and RE-Control: what is climbed, and that it is climbed."""

import pytest
import torch

from tests.lm.tiny import PROMPTS, tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.control import EditsControl, Site
from valign.lm import capture
from valign.methods import get_method
from valign.methods.readings import sides
from valign.methods.scorers import Scorer, ascent, fit_scorer
from valign.values import Profile

CORPUS = toy_corpus()
SMALL = {"k-steering": dict(hidden=16, layers=1), "re-control": dict(hidden=16, epochs=3)}


def slowly(scorer, weights, a, steps, decay):
    """Ascent by autograd on the written-out scorer."""
    for step in range(steps):
        y = a.clone().requires_grad_()
        hidden = torch.nn.functional.gelu(y @ scorer.w1.T + scorer.b1)
        score = ((hidden @ scorer.w2.T + scorer.b2) @ weights).sum()
        a = a + scorer.spread**2 * decay**step / steps * torch.autograd.grad(score, y)[0]
    return a


def acted(lm, control):
    """The edited site's activation at the last prompt token, before and after the edits."""
    site = control.edits[0].site
    ids = torch.tensor([lm.encode_prompt(PROMPTS[0])])
    seen = []
    for acting in (None, control):
        with lm.controlled(acting):
            handle = lm.layout.module(site).register_forward_hook(
                lambda m, a, out: seen.append((out[0] if isinstance(out, tuple) else out)[0, -1])
            )
            with torch.no_grad():
                lm.model(ids)
            handle.remove()
    return seen


def random_scorer(width=32, hidden=7, outputs=3):
    return Scorer(
        w1=torch.randn(hidden, width) / 4, b1=torch.randn(hidden),
        w2=torch.randn(outputs, hidden), b2=torch.randn(outputs), spread=0.8,
    )  # fmt: skip


@pytest.mark.parametrize("steps", [1, 3])
def test_the_engine_takes_the_steps_that_autograd_takes(steps):
    lm = tiny_lm()
    scorer, weights = random_scorer(), torch.tensor([1.0, -0.5, 0.0])
    edits = ascent(Site("resid", 1), scorer, weights, steps=steps, decay=0.7)
    control = EditsControl(target=Profile.of(SYSTEM, power=1), edits=edits)
    before, after = acted(lm, control)
    expected = slowly(scorer, weights, before[None], steps, 0.7)[0]
    assert (after - before).abs().max() > 1e-2
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=1e-4)


def test_a_fitted_scorer_reads_raw_activations():
    """Centring and scale are folded in: it tells apart clouds far from the origin."""
    y = torch.arange(200) % 2
    x = torch.randn(200, 6) * 30 + 500
    x[:, 2] += 120 * y

    def loss(f, rows):
        goal = y[rows].float()
        return torch.nn.functional.binary_cross_entropy_with_logits(f(x[rows])[:, 0], goal)

    options = dict(outputs=1, hidden=8, epochs=80, rate=0.01, decay=0.0, seed=0)
    scorer = fit_scorer(x, loss, **options)
    assert (((scorer(x)[:, 0] > 0) == y.bool()).float().mean()) > 0.95
    again = fit_scorer(x, loss, **options)
    assert torch.equal(scorer.w1, again.w1) and torch.equal(scorer.w2, again.w2)


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize("sign", [1, -1])
def test_toward_raises_the_score_and_away_lowers_it(method, sign):
    lm = tiny_lm()
    up = get_method(method, **SMALL[method]).fit(lm, CORPUS, Profile.of(SYSTEM, security=1))
    control = get_method(method, **SMALL[method]).fit(lm, CORPUS, Profile.of(SYSTEM, security=sign))
    before, after = acted(lm, control.scaled(0.05))
    t = up.edits[0].tensors

    def score(a):
        return float(t["w2"] @ torch.nn.functional.gelu(t["w1"] @ a + t["b1"]))

    assert sign * (score(after) - score(before)) > 0


@pytest.mark.parametrize("method", SMALL)
def test_away_is_the_reverse_and_half_is_half(method):
    lm = tiny_lm()
    toward, away, half = (
        get_method(method, **SMALL[method]).fit(lm, CORPUS, Profile.of(SYSTEM, security=s))
        for s in (1, -1, 0.5)
    )
    for a, b, c in zip(toward.edits, away.edits, half.edits, strict=True):
        assert torch.equal(a.tensors["w1"], b.tensors["w1"]) and a.strength == b.strength
        torch.testing.assert_close(a.tensors["w2"], -b.tensors["w2"])
        torch.testing.assert_close(a.tensors["w2"] / 2, c.tensors["w2"])


def test_one_classifier_serves_every_target():
    lm = tiny_lm()
    method = get_method("k-steering", **SMALL["k-steering"])
    parts = {v: method.fit(lm, CORPUS, Profile.of(SYSTEM, **{v: 1})) for v in ("power", "security")}
    both = method.fit(lm, CORPUS, Profile.of(SYSTEM, power=1, security=-0.5))
    w2 = [c.edits[0].tensors["w2"] for c in parts.values()]
    torch.testing.assert_close(both.edits[0].tensors["w2"], w2[0] - 0.5 * w2[1])
    assert len([key for key in lm.memo if key[0] == "k-steering"]) == 1
    assert 0.5 < both.provenance["accuracy"]["resid:1"] <= 1


def test_re_control_of_two_values_climbs_both_functions():
    lm = tiny_lm()
    method = get_method("re-control", **SMALL["re-control"])
    parts = [method.fit(lm, CORPUS, Profile.of(SYSTEM, **{v: 1})) for v in ("power", "security")]
    both = method.fit(lm, CORPUS, Profile.of(SYSTEM, power=1, security=1))
    a = torch.randn(32)

    def score(control):
        t = control.edits[0].tensors
        return t["w2"] @ torch.nn.functional.gelu(t["w1"] @ a + t["b1"])

    torch.testing.assert_close(score(both), score(parts[0]) + score(parts[1]))


@pytest.mark.parametrize("learn", ["return", "td"])
def test_the_value_function_foretells_how_texts_are_judged(learn):
    """Fitted to the end of a text, or from token to token: at the end it says +1 or -1."""
    lm = tiny_lm()
    method = get_method("re-control", learn=learn, hidden=32, epochs=60)
    v = method._value_function(lm, CORPUS, "security")
    pairs = CORPUS.pairs_of("security")
    found = {}
    for numbers, batch in capture(lm, sides(pairs), [Site("resid", 2)], positions="last"):
        found.update(zip(numbers, v(batch[Site("resid", 2)])[:, 0].tolist(), strict=True))
    ends = torch.tensor([found[i] for i in range(2 * len(pairs))])
    judged = torch.where(torch.arange(len(ends)) < len(pairs), 1.0, -1.0)
    assert (ends - judged).abs().mean() < 0.35
