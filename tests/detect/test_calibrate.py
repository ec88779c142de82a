"""Calibration: it improves what it is fitted for, keeps the range, and the table adds up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valign.detect.calibrate import SignCalibration, expected_sign, reliability, sign_probabilities


def overconfident(n=4000, seed=0):
    """Labels drawn from known logits, and the logits three times too large."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(n, 1, 2))
    p = sign_probabilities(true)
    draws = (rng.random((n, 1, 1)) > p.cumsum(-1)).sum(-1) - 1
    return 3 * true, draws.astype(float), true


def test_temperature_of_overconfident_logits_is_found():
    logits, labels, true = overconfident()
    fitted = SignCalibration.fit(logits, labels)
    assert fitted.temperature[0] == pytest.approx(1 / 3, rel=0.15)
    gap = np.abs(expected_sign(fitted.apply(logits)) - expected_sign(true)).mean()
    assert gap < 0.03 < np.abs(expected_sign(logits) - expected_sign(true)).mean()


def test_unknown_labels_play_no_part():
    logits, labels, _ = overconfident(n=400)
    some = labels.copy()
    some[200:] = np.nan
    whole, half = SignCalibration.fit(logits, some), SignCalibration.fit(logits[:200], labels[:200])
    assert whole.offset == pytest.approx(half.offset)


@given(st.lists(st.floats(-60, 60), min_size=2, max_size=2))
def test_scores_are_in_range_and_follow_the_stronger_side(pair):
    score = expected_sign(np.array(pair))
    assert -1 <= score <= 1
    if abs(pair[1] - pair[0]) > 1e-6:
        assert score * (pair[1] - pair[0]) >= 0


def test_reliability_of_a_perfect_forecast_and_of_a_constant_one():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(float)
    assert reliability(p, y).error < 0.02
    constant = reliability(np.full(1000, 0.9), np.zeros(1000))
    assert constant.error == pytest.approx(0.9)
    assert constant.brier == pytest.approx(0.81)
    assert constant.count.sum() == 1000
