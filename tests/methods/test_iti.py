"""ITI against one head at a time with scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.lm.tiny import tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.lm import capture
from valign.methods import FitError, get_method
from valign.methods.probes import split
from valign.values import Profile

CORPUS = toy_corpus()


def slowly(lm, value, count, direction):
    """{(layer, head): sigma theta} of the best heads, one head after the other."""
    pairs = CORPUS.pairs_of(value)
    n = len(pairs)
    texts = [(p.prompt, p.positive) for p in pairs] + [(p.prompt, p.negative) for p in pairs]
    train = split(n).repeat(2).numpy()
    y = np.arange(2 * n) < n
    heads = []
    for site in lm.sites("heads"):
        rows = {}
        for numbers, batch in capture(lm, texts, [site], positions="mean", batch_size=1):
            rows[numbers[0]] = batch[site][0].numpy()
        a = np.stack([rows[i] for i in range(2 * n)]).astype(np.float64)
        for number in range(4):
            x = a[:, number * 8 : (number + 1) * 8]
            mean, std = x[train].mean(0), x[train].std(0, ddof=1)
            probe = LogisticRegression(tol=1e-9, max_iter=5000)
            probe.fit((x[train] - mean) / std, y[train])
            accuracy = probe.score((x[~train] - mean) / std, y[~train])
            gap = x[:n].mean(0) - x[n:].mean(0)
            theta = gap if direction == "mean" else probe.coef_[0] / std
            theta = theta / np.linalg.norm(theta)
            sigma = (x @ theta).std(ddof=1)
            heads.append((-accuracy, -gap @ theta / sigma, site.layer, number, sigma * theta))
    heads.sort(key=lambda row: row[:4])
    return {(layer, number): shift for _, _, layer, number, shift in heads[:count]}


@pytest.mark.parametrize("direction", ["mean", "probe"])
def test_the_best_heads_move_by_sigma_along_theta(direction):
    lm = tiny_lm()
    method = get_method("iti", share=0.25, direction=direction)
    control = method.fit(lm, CORPUS, Profile.of(SYSTEM, security=-0.5))
    expected = slowly(lm, "security", 3, direction)
    found = {}
    for edit in control.edits:
        assert edit.kind == "add" and edit.site.kind == "heads"
        for number, part in enumerate(edit.tensors["vector"].split(8)):
            if part.any():
                found[edit.site.layer, number] = part
    assert set(found) == set(expected)
    for head, shift in expected.items():
        np.testing.assert_allclose(found[head], -0.5 * shift, atol=1e-3, rtol=1e-3)


def test_every_value_has_heads_of_its_own_and_shifts_add():
    lm = tiny_lm()
    target = dict(benevolence=1.0, power=-0.5)
    both = get_method("iti", share=0.5).fit(lm, CORPUS, Profile.of(SYSTEM, **target))
    summed = {}
    for value, score in target.items():
        control = get_method("iti", share=0.5).fit(lm, CORPUS, Profile.of(SYSTEM, **{value: score}))
        assert len(control.provenance["heads"][value]) == 6
        for edit in control.edits:
            summed[edit.site] = summed.get(edit.site, 0) + edit.tensors["vector"]
    for edit in both.edits:
        torch.testing.assert_close(edit.tensors["vector"], summed[edit.site])


def test_a_share_too_small_for_one_head_still_takes_one():
    control = get_method("iti", share=1e-6).fit(
        tiny_lm(), CORPUS, Profile.of(SYSTEM, benevolence=1)
    )
    assert len(control.provenance["heads"]["benevolence"]) == 1
    assert int((control.edits[0].tensors["vector"] != 0).sum()) == 8


def test_a_model_that_miscounts_its_heads_is_refused():
    lm = tiny_lm()
    lm.model.config.num_attention_heads = 5
    with pytest.raises(FitError, match=r"5 attention heads.*32 activations"):
        get_method("iti").fit(lm, CORPUS, Profile.of(SYSTEM, benevolence=1))
