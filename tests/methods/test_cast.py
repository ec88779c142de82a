"""The condition vector: its threshold is the best there is, and it decides what is steered."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.metrics import f1_score

from tests.lm.tiny import tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.lm import generate
from valign.methods import FitError, get_method
from valign.methods.cast import f1, fit_condition
from valign.values import Profile

CORPUS = toy_corpus()
TARGET = Profile.of(SYSTEM, benevolence=1)


def clouds(seed, n=40, width=6, gap=2.0):
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2 == 0
    a = torch.randn(n, width, generator=rng)
    a[labels, 0] += gap
    return a, labels


@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["pca", "mean"]))
def test_no_other_threshold_has_a_better_f1(seed, kind):
    a, labels = clouds(seed)
    condition = fit_condition(a, labels, kind)
    scores = a @ condition.vector
    opened = scores > condition.threshold
    assert condition.f1 == pytest.approx(f1_score(labels, opened))
    cuts = torch.cat([scores, scores.min()[None] - 1])
    said = scores[None] > cuts[:, None]  # every way a threshold can part these scores
    right = (said & labels).sum(1)
    wrong = (said != labels).sum(1)
    assert (2 * right / (2 * right + wrong)).max() <= condition.f1 + 1e-6
    assert condition.vector.norm() == pytest.approx(1, abs=1e-5)


def test_the_pca_condition_is_scikit_learns_first_component_turned_to_the_open_side():
    a, labels = clouds(3, gap=6.0)
    slow = PCA(n_components=1).fit(a.numpy()).components_[0]  # classes of one size: same centre
    found = fit_condition(a, labels, "pca").vector.numpy()
    np.testing.assert_allclose(found, slow * np.sign(slow @ found), atol=1e-4)
    assert (a[labels] @ found).mean() > (a[~labels] @ found).mean()
    turned = fit_condition(a, ~labels, "pca").vector.numpy()
    np.testing.assert_allclose(turned, -found, atol=1e-4)


def test_f1_without_anything_to_find_is_zero():
    nothing = torch.zeros(3, dtype=torch.bool)
    assert f1(nothing, nothing) == 0


@pytest.mark.parametrize("condition", ["pca", "mean"])
def test_it_is_caa_where_the_condition_holds_and_the_plain_model_where_not(condition):
    lm = tiny_lm()
    control = get_method("cast", condition=condition).fit(lm, CORPUS, TARGET)
    caa = get_method("caa").fit(lm, CORPUS, TARGET)
    for a, b in zip(control.edits, caa.edits, strict=True):
        assert torch.equal(a.tensors["vector"], b.tensors["vector"])
    prompts = [d.text for d in CORPUS.dilemmas_of("benevolence")]
    prompts += [n.prompt for n in CORPUS.neutral]
    found, steered, plain = (
        generate(lm, prompts, c, max_new_tokens=3) for c in (control, caa, None)
    )
    opened = [receipt.gate for receipt in found.receipts]
    assert 0 < sum(opened) < len(opened)
    for row, act in enumerate(opened):
        assert found.token_ids[row] == (steered if act else plain).token_ids[row]
    right = [act == (row < 10) for row, act in enumerate(opened)]
    assert sum(right) > 0.6 * len(right)


def test_the_gate_is_the_fitted_condition():
    lm = tiny_lm()
    control = get_method("cast").fit(lm, CORPUS, TARGET)
    ((site, (weight, _)),) = control.gate.weights.items()
    assert str(site) == control.provenance["condition"]
    assert weight.norm() == pytest.approx(1, abs=1e-4)
    assert 0 < control.provenance["condition_f1_held_out"] <= 1


def test_too_few_prompts_are_refused_naming_caa():
    with pytest.raises(FitError, match="take caa"):
        get_method("cast").fit(tiny_lm(), toy_corpus(neutral=2), TARGET)
