"""Confirmatory factor fit: known covariance, no structure, wrong structure."""

import numpy as np
import pytest
from scipy.stats import kstest

from valign.measure import MeasureError
from valign.measure.confirm import factor_fit

GROUP = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
PHI = np.array([[1, 0.3, 0], [0.3, 1, -0.4], [0, -0.4, 1]])


def sample(n, seed=0, flip=()):
    rng = np.random.default_rng(seed)
    factors = rng.multivariate_normal(np.zeros(3), PHI, size=n)
    x = 0.8 * factors[:, GROUP] + 0.6 * rng.normal(size=(n, 10))
    x[:, list(flip)] *= -1
    return x


def test_data_of_the_model_fit_it():
    found = factor_fit(sample(1000), GROUP)
    assert found.df == 10 * 11 // 2 - 20 - 3 and found.cfi > 0.99
    assert found.rmsea.low == 0 and found.rmsea.value < 0.03


def test_chi_square_of_the_right_model_is_chi_square():
    values = [factor_fit(sample(400, seed), GROUP).chi2 for seed in range(30)]
    assert kstest(values, "chi2", args=(32,)).pvalue > 0.01


def test_loadings_may_be_negative_and_units_any():
    plain = factor_fit(sample(500), GROUP)
    other = factor_fit(sample(500, flip=(1, 4)) * np.arange(1, 11) + 5, GROUP)
    assert other.chi2 == pytest.approx(plain.chi2, rel=1e-3)


def test_a_wrong_grouping_fits_badly():
    wrong = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    found = factor_fit(sample(500), wrong)
    assert found.cfi < 0.6 and found.rmsea.low > 0.1


def test_unrelated_values_leave_nothing_to_explain():
    found = factor_fit(np.random.default_rng(1).normal(size=(2000, 10)), GROUP)
    assert np.isnan(found.cfi) or 0 <= found.cfi <= 1
    assert found.rmsea.value < 0.03


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(MeasureError, match="two columns a factor"):
        factor_fit(sample(50), np.arange(10))
    with pytest.raises(MeasureError, match="more respondents than columns"):
        factor_fit(sample(10), GROUP)
    x = sample(50)
    with pytest.raises(MeasureError, match="not centred"):
        factor_fit(x - x.mean(axis=1, keepdims=True), GROUP)
    with pytest.raises(MeasureError, match="nothing to test"):
        factor_fit(x[:, :3], [0, 0, 0])
