"""Pareto fronts and dose curves."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from valign.measure import MeasureError, Resampling
from valign.measure.bootstrap import tail, weighted_mean
from valign.measure.dose import at_dose, dose_at_gain, metric_at_gain
from valign.measure.pareto import hypervolume, non_dominated

POINTS = hnp.arrays(float, st.tuples(st.integers(1, 8), st.just(2)), elements=st.integers(0, 6))
DOSES = np.array([0.05, 0.1, 0.3])


def test_front():
    points = np.array([[1, 3], [2, 2], [3, 1], [1, 1], [2, 2], [np.nan, 9]])
    assert non_dominated(points).tolist() == [True, True, True, False, True, False]
    assert hypervolume(points[:5], np.array([0, 0])) == 6


@given(POINTS)
def test_hypervolume_counts_the_dominated_squares(points):
    slow = sum(
        any(x + 1 <= p[0] and y + 1 <= p[1] for p in points) for x in range(6) for y in range(6)
    )
    assert hypervolume(points, np.zeros(2)) == slow
    assert hypervolume(points[non_dominated(points)], np.zeros(2)) == slow


def test_hypervolume_of_three_objectives_names_who_can():
    with pytest.raises(MeasureError, match="moocore"):
        hypervolume(np.zeros((2, 3)), np.zeros(3))


def test_at_dose_hits_the_points_and_refuses_to_extrapolate():
    gains = np.array([0.2, 0.3, 0.5])
    for dose, gain in zip(DOSES, gains, strict=True):
        assert at_dose(DOSES, gains, dose, start=0.0) == pytest.approx(gain)
    assert at_dose(DOSES, gains, 0.0, start=0.0) == 0
    assert at_dose(DOSES, gains, 0.025, start=0.0) == pytest.approx(0.1)
    assert at_dose(DOSES, gains, np.sqrt(0.05 * 0.1), start=0.0) == pytest.approx(0.25)
    assert np.isnan(at_dose(DOSES, gains, 1.0, start=0.0))


def test_metric_at_gain_takes_the_first_crossing():
    gains, leak = np.array([0.2, 0.4, 0.1]), np.array([0.01, 0.05, 0.3])
    assert metric_at_gain(gains, leak, 0.3) == pytest.approx(0.03)
    assert metric_at_gain(gains, leak, 0.1) == pytest.approx(0.005)
    assert metric_at_gain(gains, leak, 0.2) == pytest.approx(0.01)
    assert np.isnan(metric_at_gain(gains, leak, 0.6))
    with pytest.raises(MeasureError, match="above 0"):
        metric_at_gain(gains, leak, 0)


@given(st.floats(0.01, 0.49))
def test_dose_at_gain_undoes_gain_at_dose(gain):
    gains = np.array([0.2, 0.3, 0.5])
    dose = dose_at_gain(DOSES, gains, gain)
    assert at_dose(DOSES, gains, float(dose), start=0.0) == pytest.approx(gain)


def test_curves_serve_as_statistics():
    rng = np.random.default_rng(0)
    rows = (rng.random((100, 3)) < [0.2, 0.4, 0.6]).astype(float)
    draws = Resampling.of(100, seed=0, n_boot=200)
    found = draws.estimate(lambda w: metric_at_gain(weighted_mean(w, rows), np.log(DOSES), 0.3))
    slow = [metric_at_gain(weighted_mean(w[None], rows)[0], np.log(DOSES), 0.3)
            for w in draws.counts]  # fmt: skip
    outside = tail(0.95, 100)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(slow, [outside, 1 - outside]))
    )


def test_doses_must_rise():
    with pytest.raises(MeasureError, match="rise"):
        at_dose(np.array([0.1, 0.05]), np.zeros(2), 0.07, start=0.0)
