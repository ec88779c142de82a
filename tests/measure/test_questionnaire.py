"""Scoring questionnaires: centring, reversed items, rates, Cronbach's alpha."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from valign.measure import MeasureError, Resampling
from valign.measure.questionnaire import (
    cronbach_alpha,
    expected_ratings,
    reply_rates,
    self_report,
    value_scores,
)

KEY = np.repeat(np.eye(3), 2, axis=0)
"""Two items for each of three values."""

ratings = arrays(float, (4, 6), elements=st.floats(1, 6))


def test_expected_ratings_are_the_mean_of_the_scale():
    points = np.arange(1, 7)
    assert expected_ratings(np.eye(6), points).tolist() == [1, 2, 3, 4, 5, 6]
    assert expected_ratings(np.full((1, 6), 1 / 6), points) == pytest.approx(3.5)
    assert np.isnan(expected_ratings(np.full((2, 6), np.nan), points)).all()
    with pytest.raises(MeasureError, match="sum to 1"):
        expected_ratings(np.ones((1, 6)), points)
    with pytest.raises(MeasureError, match="6 probabilities"):
        expected_ratings(np.eye(6), points[:5])


def test_mrat_centring_by_hand():
    x = np.array([[6, 4, 2, 2, 1, 3.0]])  # MRAT 3
    assert value_scores(x, KEY, middle=3.5).tolist() == [[2, -1, -1]]
    assert value_scores(x, KEY, middle=3.5, scored="raw").tolist() == [[5, 2, 2]]


def test_items_without_a_value_count_for_the_mean_rating_only():
    key = np.vstack([np.eye(2), np.zeros(2)])
    assert value_scores(np.array([[2.0, 4, 6]]), key, middle=3).tolist() == [[-2, 0]]


def test_reversed_items_are_mirrored():
    key = np.array([[1, 0], [-1, 0], [0, 1.0]])
    x = np.array([[6.0, 1, 2]])  # strong agreement with the first, and with the second's opposite
    assert value_scores(x, key, middle=3.5, scored="raw").tolist() == [[6, 2]]
    assert value_scores(x, key, middle=3.5)[0] == pytest.approx([(3 + 2) / 2, -1])


def test_one_who_agrees_with_everything_has_no_profile():
    key = np.array([[1, 0], [-1, 0], [0, 1], [0, 1.0]])
    assert not value_scores(np.full((2, 4), 6.0), key, middle=3.5).any()


@given(ratings, st.floats(-3, 3))
def test_centred_scores_do_not_see_how_the_scale_is_used(x, shift):
    a, b = value_scores(x, KEY, middle=3.5), value_scores(x + shift, KEY, middle=3.5)
    assert np.allclose(a, b, atol=1e-9)
    assert np.allclose(a.sum(axis=1), 0, atol=1e-9)


@given(ratings, st.permutations(range(6)))
def test_the_order_of_items_does_not_matter(x, order):
    assert np.allclose(
        value_scores(x[:, order], KEY[order], middle=3.5), value_scores(x, KEY, middle=3.5)
    )


@given(ratings)
def test_raw_scores_stay_on_the_scale(x):
    signed = KEY * np.array([1, -1, 1, 1, -1, -1])[:, None]
    raw = value_scores(x, signed, middle=3.5, scored="raw")
    assert (raw >= 1 - 1e-9).all() and (raw <= 6 + 1e-9).all()


def test_repeats_are_averaged_and_missing_ones_left_out():
    x = np.stack([np.full((1, 6), 2.0), np.full((1, 6), 4.0)], axis=2)
    x[0, 0, 0] = np.nan
    x[0, 4:] = np.nan
    raw = value_scores(x, KEY, middle=3.5, scored="raw")
    assert raw[0, :2].tolist() == [3.5, 3] and np.isnan(raw[0, 2])


def test_a_report_has_intervals_over_respondents():
    rng = np.random.default_rng(0)
    x = np.clip(3.5 + np.repeat([1, 0, -1], 2) + rng.normal(0, 0.5, (40, 6)), 1, 6)
    found = self_report(x, KEY, Resampling.of(40, seed=0), middle=3.5)
    assert found.centred.n == 40 and found.centred.low[0] > 0 > found.centred.high[2]
    assert found.centred.low[1] < 0 < found.centred.high[1]
    assert np.allclose(found.raw.value - found.mrat.value, found.centred.value)


def test_alpha_of_parallel_and_of_unrelated_items():
    rng = np.random.default_rng(0)
    same = rng.normal(size=500)
    x = np.stack([same, same, same, -same, *rng.normal(size=(2, 500))], axis=1)
    key = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, 1.0]])
    alpha = cronbach_alpha(x, key)
    assert alpha[:2] == pytest.approx([1, 1]) and abs(alpha[2]) < 0.2
    # two items: alpha = 2r / (1 + r) where variances are equal
    z = np.stack([same, 0.5 * same + np.sqrt(0.75) * rng.normal(size=500)], axis=1)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    r = np.corrcoef(z.T)[0, 1]
    assert cronbach_alpha(z, np.ones((2, 1)))[0] == pytest.approx(2 * r / (1 + r))
    assert np.isnan(cronbach_alpha(np.ones((5, 2)), np.ones((2, 1)))[0])


def arrangement(option, size=6):
    """Place of each option where repeats are in order and mirrored."""
    option = np.asarray(option)
    return np.stack([option[..., 0], size - 1 - option[..., 1]], axis=-1)


def test_rates_tell_who_follows_places():
    status = np.full((10, 3, 2), "answered", dtype=object)
    draws = Resampling.of(10, seed=0, n_boot=200)
    meaning = np.full((10, 3, 2), 4)
    found = reply_rates(status, meaning, arrangement(meaning), draws)
    assert found.same_option.value == 1 and found.same_place.value == 0
    assert found.refused.value == 0 and 0 < found.refused.high < 0.35
    place = np.zeros((10, 3, 2), int)
    by_place = arrangement(place)  # option at place 0: 0, then 5
    found = reply_rates(status, by_place, place, draws)
    assert found.same_option.value == 0 and found.same_place.value == 1


def test_rates_of_refusals_and_of_the_middle_option():
    status = np.full((4, 2, 2), "answered", dtype=object)
    status[:2] = "refused"
    status[2, 0, 0] = "invalid"
    option = np.where(status == "answered", 4, -1)
    draws = Resampling.of(4, seed=0, n_boot=100)
    found = reply_rates(status, option, arrangement(option, 9), draws)
    assert found.refused.value == 0.5 and found.invalid.value == pytest.approx(1 / 16)
    assert np.isnan(found.same_place.value)  # the middle of nine stands still
    assert found.label_mass is None
    with pytest.raises(MeasureError, match="mirrored pairs"):
        reply_rates(status[..., :1], option[..., :1], option[..., :1], draws)


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(MeasureError, match="ratings must be"):
        value_scores(np.ones((2, 5)), KEY, middle=3.5)
    with pytest.raises(MeasureError, match="every value needs an item"):
        value_scores(np.ones((2, 6)), np.zeros((6, 2)), middle=3.5)
