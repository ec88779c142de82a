import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import norm, t

from valign.measure.bootstrap import Resampling, mean, ratio, weighted_mean
from valign.measure.errors import MeasureError


def test_weighted_mean_of_counts_is_the_mean_of_the_drawn_rows():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(7, 2, 3))
    rows[2, 0, 1] = np.nan
    draws = Resampling.of(7, seed=1, n_boot=20)
    slow = [
        np.nanmean(np.repeat(rows, counts.astype(int), axis=0), axis=0) for counts in draws.counts
    ]
    np.testing.assert_allclose(weighted_mean(draws.counts, rows), slow)


def test_a_column_without_any_row_is_nan_not_zero():
    assert np.isnan(weighted_mean(np.ones((1, 3)), np.full((3, 1), np.nan))).all()


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_agrees_with_scipy(method):
    data = np.random.default_rng(3).exponential(size=60)
    ours = mean(
        data, Resampling.of(60, seed=0, n_boot=20_000), method="bca" if method == "BCa" else method
    )
    outside = 0.025 if method == "BCa" else norm.cdf(np.sqrt(60 / 59) * t.ppf(0.025, 59))
    theirs = scipy_bootstrap(
        (data,), np.mean, n_resamples=20_000, method=method, rng=np.random.default_rng(1),
        confidence_level=1 - 2 * outside,
    ).confidence_interval  # fmt: skip
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)


def test_clusters_stand_or_fall_together_and_count_as_one():
    prompt = np.repeat(np.arange(10), 5)
    draws = Resampling.of(50, seed=0, clusters=prompt)
    by_prompt = draws.counts.reshape(-1, 10, 5)
    assert (by_prompt == by_prompt[:, :, :1]).all()
    assert draws.n_units == 10
    # Five copies of one answer say no more than the answer.
    data = np.random.default_rng(0).normal(size=10)
    once = mean(data, Resampling.of(10, seed=0))
    copied = mean(np.repeat(data, 5), draws)
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.1)
    assert copied.n == 10


def test_strata_keep_their_size():
    seed = np.array([0] * 4 + [1] * 6)
    counts = Resampling.of(10, seed=0, strata=seed).counts
    assert (counts[:, :4].sum(axis=1) == 4).all()
    assert (counts[:, 4:].sum(axis=1) == 6).all()


def test_a_prompt_in_two_strata_is_refused_with_the_way_out():
    with pytest.raises(MeasureError, match="clusters=prompt ids"):
        Resampling.of(4, seed=0, clusters=["a", "b", "a", "b"], strata=[0, 0, 1, 1])


def test_same_seed_same_interval_other_seed_other_interval():
    data = np.random.default_rng(0).normal(size=30)
    first, again, other = (mean(data, Resampling.of(30, seed=s)) for s in (1, 1, 2))
    assert (first.low, first.high) == (again.low, again.high)
    assert first.low != other.low


def test_a_ratio_with_a_shaky_denominator_has_no_interval():
    top, bottom = np.ones(5), np.array([1.0, 0, 0, 0, 0])
    found = ratio(top, bottom, Resampling.of(5, seed=0))
    assert found.value == 5.0
    assert np.isnan(found.low) and np.isnan(found.high)


def test_coverage_of_a_mean_of_answers():
    rng = np.random.default_rng(5)
    hits = 0
    for run in range(200):
        data = (rng.random(80) < 0.3).astype(float)
        found = mean(data, Resampling.of(80, seed=run, n_boot=300))
        hits += found.low <= 0.3 <= found.high
    assert 0.90 <= hits / 200 <= 0.99


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30), st.sampled_from(["percentile", "bca"]))
def test_intervals_stay_within_the_data(data, method):
    rows = np.array([*data, 0.5])  # not yes/no, see `unanimous`
    found = mean(rows, Resampling.of(len(rows), seed=0, n_boot=100), method=method)
    assert rows.min() - 1e-9 <= found.low <= found.high <= rows.max() + 1e-9


def test_labels_of_the_wrong_length_are_refused():
    with pytest.raises(MeasureError, match="one label per row"):
        Resampling.of(3, seed=0, clusters=[1, 2])


def test_yes_no_outcomes_that_all_agree_leave_doubt():
    draws = Resampling.of(50, seed=0, n_boot=100)
    always, never = mean(np.ones(50), draws).at(), mean(np.zeros(50), draws).at()
    # What an event that was not seen in 50 may do: 3/50 by the rule of three, and some more.
    assert always.high == 1 and 3 / 50 < 1 - always.low < 5 / 50
    assert (never.low, never.high) == pytest.approx((0, 1 - always.low))
    mixed = mean(np.stack([np.ones(50), np.arange(50) % 2], axis=1), draws)
    assert mixed.low[0] < 1 and 0.3 < mixed.low[1] < 0.5
