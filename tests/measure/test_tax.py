"""Fluency, facts, neutral answers, rates and cost."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy.stats import binomtest

from valign.measure import MeasureError, Resampling
from valign.measure.cost import relative_time
from valign.measure.facts import kept_rate, retention, wrong_rate
from valign.measure.fluency import distinct_n, perplexity, repetition, repetition_rate
from valign.measure.neutral import added_presence, presence, unchanged
from valign.measure.rate import rate

TEN = Resampling.of(10, seed=0, n_boot=200)


def test_perplexity_of_a_uniform_model_is_its_vocabulary():
    tokens = np.arange(1, 11)
    found = perplexity(tokens * np.log(50), tokens, TEN)
    assert found.value == pytest.approx(50) and found.low == pytest.approx(50)
    assert found.n == 10


def test_perplexity_weighs_tokens_and_forgets_empty_answers():
    found = perplexity(np.array([4.0, 0, 0.0]), np.array([1, 3, 0]), Resampling.of(3, seed=0))
    assert found.value == pytest.approx(np.e)


def test_perplexity_refuses_impossible_tokens():
    with pytest.raises(MeasureError, match="finite"):
        perplexity(np.array([np.inf]), np.array([2]), Resampling.of(1, seed=0))


def test_repetition():
    assert repetition_rate("a b c d e".split(), 2) == 0
    assert repetition_rate("a b a b a".split(), 2) == 0.5
    assert repetition_rate("a".split(), 3) == 0
    assert distinct_n(["a b".split(), "a b".split()], 2) == 0.5
    assert np.isnan(distinct_n([], 2))
    found = repetition(["x x x x x".split()] * 5 + ["a b c d e".split()] * 5, TEN, n=1)
    assert found.value == pytest.approx(0.4)
    with pytest.raises(MeasureError):
        repetition_rate("a b".split(), 0)


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 4))
def test_repetition_is_a_share(tokens, n):
    assert 0 <= repetition_rate(tokens, n) < 1


def test_facts():
    kept, wrong, total = np.array([2, 1] * 5), np.array([0, 1] * 5), np.array([2, 2] * 5)
    assert kept_rate(kept, total, TEN).value == 0.75
    assert wrong_rate(kept, wrong, TEN).value == 0.25
    assert retention(kept, total, TEN).value == 0.75
    assert kept_rate(total, total, TEN).low < 1  # ten perfect answers are no proof
    nothing = np.zeros(10)
    assert np.isnan(wrong_rate(nothing, nothing, TEN).value)
    with pytest.raises(MeasureError, match="Answer 0 keeps 2 of 1"):
        kept_rate(kept, np.ones(10), TEN)


def test_answers_without_facts_do_not_count():
    kept = np.array([1.0, np.nan, 3, 0])
    total = np.array([2.0, np.nan, 3, np.nan])
    assert kept_rate(kept, total, Resampling.of(4, seed=0)).value == 0.8


def test_neutral():
    found = unchanged(["Yes.", "Two", "Red"], ["Yes. ", "Two", "Blue"])
    assert found.value == pytest.approx(2 / 3)
    with pytest.raises(MeasureError, match="3 unsteered"):
        unchanged(["a"] * 3, ["a"])
    base, moved = np.zeros((10, 4)), np.zeros((10, 4))
    moved[:5, 0], moved[:, 1] = 0.9, -0.8
    np.testing.assert_allclose(presence(moved, TEN).value, [0.5, 1, 0, 0])
    assert added_presence(base, moved, TEN).value == 1.5


@given(st.integers(0, 40), st.integers(1, 40))
def test_rate_is_wilson(successes, failures):
    n = successes + failures
    found = rate(np.array([1.0] * successes + [0.0] * failures))
    theirs = binomtest(successes, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.n == n


def test_rate_of_nothing_is_undefined_and_of_scores_refused():
    assert np.isnan(rate(np.array([np.nan])).value)
    with pytest.raises(MeasureError, match="0 or 1"):
        rate(np.array([0.3]))


def test_cost():
    seconds = np.linspace(1, 2, 10)
    slow = np.where(np.arange(10) == 3, 50, seconds * 1.1)  # one run was disturbed
    found = relative_time(slow, seconds, TEN)
    assert found.value == pytest.approx(1.1) and found.high == pytest.approx(1.1)
    with pytest.raises(MeasureError, match="above zero"):
        relative_time(np.zeros(10), seconds, TEN)


@given(st.lists(st.floats(0.5, 2), min_size=1, max_size=15))
def test_relative_time_is_the_median(ratios):
    n = len(ratios)
    found = relative_time(np.array(ratios), np.ones(n), Resampling.of(n, seed=0, n_boot=5))
    assert found.value == pytest.approx(np.median(ratios))
