"""Comparisons: right where the answer is known, quiet where there is nothing."""

from itertools import product

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from valign.measure.contrast import contrast, holm
from valign.measure.errors import MeasureError


def test_the_difference_is_that_of_the_means():
    a, b = np.array([0.0, 1, 0, 0]), np.array([1.0, 1, 0, 1])
    found = contrast(a, b)
    assert (found.a, found.b, found.difference.value) == (0.25, 0.75, 0.5)
    assert found.difference.low <= 0.5 <= found.difference.high and found.difference.n == 4


def test_p_is_the_share_of_all_swaps():
    """Against every one of the 2^10 swaps."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=10), rng.normal(0.6, 1, size=10)
    signs = np.array(list(product([-1, 1], repeat=10)))
    exact = (np.abs(signs @ (b - a)) >= abs((b - a).sum()) - 1e-12).mean()
    assert contrast(a, b, n_draws=20_000).p == pytest.approx(exact, abs=0.01)


def test_a_ratio_and_positive_parts_are_numbers_too():
    a = np.array([[1.0, 4], [0, 2], [1, 2]])
    b = np.array([[3.0, 4], [2, 2], [1, 2]])
    found = contrast(a, b, lambda m: m[:, 0] / m[:, 1])
    assert (found.a, found.b) == pytest.approx((2 / 8, 6 / 8))
    found = contrast(a, b, lambda m: np.maximum(m - 1, 0).sum(axis=1))
    assert found.b - found.a == pytest.approx(found.difference.value)


def test_rows_that_one_side_lacks_are_left_out():
    a, b = np.array([0.0, np.nan, 1, 1]), np.array([1.0, 5, np.nan, 1])
    found = contrast(a, b)
    assert (found.a, found.b, found.difference.n) == (0.5, 1.0, 2)
    with pytest.raises(MeasureError, match="No prompt was answered on both"):
        contrast(a[1:2], b[1:2])


def test_seeds_of_one_prompt_are_no_new_evidence():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=12), rng.normal(0.8, 1, size=12)
    once = contrast(a, b, n_draws=10_000)
    many = contrast(np.repeat(a, 5), np.repeat(b, 5), clusters=np.repeat(range(12), 5),
                    n_draws=10_000)  # fmt: skip
    assert many.p == pytest.approx(once.p, abs=0.02) and many.difference.n == 12


def test_identical_sides_differ_by_nothing():
    a = np.random.default_rng(0).normal(size=20)
    found = contrast(a, a)
    assert found.p == 1 and found.difference.value == 0


def test_a_large_effect_survives_thousands_of_comparisons():
    a, b = np.zeros(60), np.ones(60)
    assert contrast(a, b).p * 5000 < 1e-6
    assert contrast(a[:5], b[:5]).p == pytest.approx(2 / 2**5, abs=0.02)  # five cannot say more


@pytest.mark.parametrize("rates", [(0.02, 0.02), (0.15, 0.15), (0.5, 0.5)])
@pytest.mark.parametrize("n", [12, 60])
def test_false_positives_of_shares(n, rates):
    """Of comparisons without a difference at most 5 % are called different."""
    rng, runs = np.random.default_rng(n), 300
    p = [contrast(*((rng.random(n) < rate).astype(float) for rate in rates), n_draws=400).p
         for _ in range(runs)]  # fmt: skip
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_false_positives_of_leakage_and_ratios():
    rng, runs, n = np.random.default_rng(7), 250, 60
    leak, facts = [], []
    for seed in range(runs):
        base = (rng.random((n, 10)) < 0.15).astype(float)
        sides = [(rng.random((n, 10)) < 0.2).astype(float) - base for _ in range(2)]
        leak.append(contrast(*sides, lambda m: np.maximum(m, 0).mean(axis=1), n_draws=400,
                             seed=seed).p)  # fmt: skip
        told = [rng.integers(1, 5, size=n) for _ in range(2)]
        sides = [np.stack([rng.binomial(t, 0.2), t], axis=1) for t in told]
        facts.append(contrast(*sides, lambda m: m[:, 0] / m[:, 1], n_draws=400, seed=seed).p)
    room = 3 * np.sqrt(0.05 * 0.95 / runs)
    for p in (leak, facts):
        share = np.mean(np.array(p) <= 0.05)
        assert 0.05 - room <= share <= 0.05 + room


def test_false_findings_of_a_whole_family_stay_below_the_level():
    rng, runs, n, many = np.random.default_rng(8), 80, 40, 10
    found = 0
    for _ in range(runs):
        a, b = ((rng.random((n, many)) < 0.3).astype(float) for _ in range(2))
        p = [contrast(a[:, k], b[:, k], n_draws=500, seed=k).p for k in range(many)]
        found += holm(p).min() <= 0.05
    assert found / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_intervals_of_differences_cover_and_effects_are_found():
    rng, runs, n = np.random.default_rng(9), 300, 60
    hits, strong = 0, 0
    for seed in range(runs):
        skill = rng.random(n)  # prompts differ, and both sides meet the same
        a, b = (skill < 0.3).astype(float), (rng.random(n) < 0.55).astype(float)
        found = contrast(a, b, n_draws=600, seed=seed)
        hits += found.difference.low <= 0.25 <= found.difference.high
        strong += found.p <= 0.05
    assert 0.92 <= hits / runs <= 0.98 and strong / runs > 0.5


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.5]), [0.04, 0.09, 0.09, 0.5])
    np.testing.assert_allclose(holm([0.9, np.nan, 0.6]), [1, np.nan, 1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_order_and_bounds(p):
    found = holm(p)
    assert (found >= np.array(p) - 1e-12).all() and (found <= 1).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(found[order]) >= -1e-12).all()
    assert found.min() == pytest.approx(min(1, min(p) * len(p)))
