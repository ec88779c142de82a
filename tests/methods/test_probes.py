import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from valign.control import Site
from valign.methods.probes import fit_logistic, fit_probes, informative, split


def _clouds(batch, n, d, *, gap=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = torch.randn(*batch, n, d, generator=generator, dtype=torch.float64)
    return x + gap * y[:, None] / d**0.5, y


@pytest.mark.parametrize(("n", "d"), [(60, 5), (40, 300)], ids=["primal", "dual"])
@pytest.mark.parametrize("ridge", [0.1, 1.0, 30.0])
def test_equals_scikit_learn_for_every_problem_of_a_batch(n, d, ridge):
    x, y = _clouds((2, 3), n, d)
    w, b = fit_logistic(x, y, ridge=ridge)
    for i in range(2):
        for j in range(3):
            slow = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=5000)
            slow.fit(x[i, j].numpy(), y.numpy())
            np.testing.assert_allclose(w[i, j], slow.coef_[0], atol=2e-5)
            np.testing.assert_allclose(b[i, j], slow.intercept_[0], atol=2e-5)


@pytest.mark.parametrize("d", [5, 300])
def test_rows_of_weight_zero_do_not_count(d):
    x, y = _clouds((), 40, d)
    weight = (torch.arange(40) < 30).double()
    w, b = fit_logistic(x, y, weight)
    w30, b30 = fit_logistic(x[:30], y[:30])
    torch.testing.assert_close(w, w30, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(b, b30, atol=1e-6, rtol=1e-5)


def test_separable_data_stay_finite():
    x = torch.cat([torch.full((10, 3), -50.0), torch.full((10, 3), 50.0)])
    w, b = fit_logistic(x, torch.arange(20) >= 10, ridge=1e-3)
    assert torch.isfinite(w).all()
    assert torch.isfinite(b)
    assert ((x @ w + b > 0) == (torch.arange(20) >= 10)).all()


def test_raw_space_probe_reads_like_the_standardised_one():
    x, y = _clouds((), 60, 8, gap=4.0)
    x = x * torch.linspace(0.1, 30, 8) + 100
    train = split(60)
    probe = fit_probes({Site("resid", 0): x.float()}, y, train)[Site("resid", 0)]
    mean, std = x[train].mean(0), x[train].std(0)
    slow = LogisticRegression(tol=1e-8).fit(((x - mean) / std)[train], y[train])
    expected = slow.decision_function((x - mean) / std)
    np.testing.assert_allclose(x.float() @ probe.weight + probe.bias, expected, atol=2e-3)
    held = slow.score(((x - mean) / std)[~train], y[~train])
    assert probe.accuracy == pytest.approx(held)


def test_layers_of_different_width_are_each_fitted():
    y = torch.arange(40) % 2
    good = torch.randn(40, 6) + 5 * y[:, None]
    layers = {Site("neurons", 0): torch.randn(40, 90), Site("neurons", 1): good}
    probes = fit_probes(layers, y, split(40))
    assert list(probes) == list(layers)
    assert probes[Site("neurons", 1)].accuracy == 1.0
    assert probes[Site("neurons", 0)].weight.shape == (90,)


def test_balanced_accuracy_is_not_fooled_by_the_larger_class():
    y = torch.arange(100) < 10
    probe = fit_probes({Site("resid", 0): torch.randn(100, 2)}, y, split(100), balanced=True)
    assert probe[Site("resid", 0)].accuracy < 0.85


def test_the_split_is_the_same_each_time_and_of_the_asked_size():
    assert torch.equal(split(50), split(50))
    assert not torch.equal(split(50), split(50, seed=1))
    assert int((~split(50)).sum()) == 15


def test_layer_rule_and_its_fallback():
    sites = [Site("resid", layer) for layer in range(12)]
    good = {s: 0.95 if 3 <= s.layer <= 8 else 0.6 for s in sites}
    kept, rule = informative(good)
    assert [s.layer for s in kept] == [3, 4, 5, 6]
    assert "0.9" in rule
    weak = {s: 0.5 + s.layer / 100 for s in sites}
    kept, rule = informative(weak)
    assert [s.layer for s in kept] == [9, 10, 11]
    assert "quarter" in rule
