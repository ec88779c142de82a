"""Numbers the critics of steering ask for, on data whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.measure.test_leakage import SYSTEM, exact
from valign.measure import Estimate, MeasureError, Paired, Resampling, leakage
from valign.measure.agreement import agreement
from valign.measure.human import circle_correlations, excess_leakage, human_slopes
from valign.measure.safety import overlap, safety_changes
from valign.measure.wrong_way import moves

COS = circle_correlations(SYSTEM)


def draws(n):
    return Resampling.of(n, seed=0, n_boot=200)


# Wrong way ------------------------------------------------------------------------------


def test_a_gain_may_hide_prompts_that_move_the_wrong_way():
    change = np.array([1.0] * 60 + [-1.0] * 30 + [0.0] * 10)
    base = np.zeros((100, 2))
    steered = np.stack([np.column_stack([change, np.zeros(100)])] * 2)
    found = moves(Paired.of(base, steered, targets=np.array([[1, 0], [-1, 0]])), draws(100))
    assert found.wrong.value.tolist() == [0.3, 0.6]
    assert found.right.value.tolist() == [0.6, 0.3]
    assert found.still.value.tolist() == [0.1, 0.1]
    assert found.wrong.low[0] < 0.3 < found.wrong.high[0]


def test_missing_prompts_and_small_changes_count_for_nothing():
    base = np.zeros((4, 1))
    steered = np.array([[[0.5], [-0.5], [0.01], [np.nan]]])
    found = moves(Paired.of(base, steered), draws(4), tolerance=0.05)
    assert found.wrong.value[0] == found.right.value[0] == found.still.value[0] == 1 / 3


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5]), min_size=2, max_size=20))
def test_shares_add_up_and_the_reverse_target_swaps_them(scores):
    base, steered = np.zeros((len(scores), 1)), np.array(scores)[None, :, None]
    toward = moves(Paired.of(base, steered, targets=np.ones((1, 1))), draws(len(scores)))
    away = moves(Paired.of(base, steered, targets=-np.ones((1, 1))), draws(len(scores)))
    total = toward.wrong.value + toward.right.value + toward.still.value
    np.testing.assert_allclose(total, 1)
    assert toward.wrong.value == away.right.value


# Excess over people's correlations -------------------------------------------------------


def excess(shift, **options):
    paired = exact(shift, n=2000, base_rate=0.4)
    return excess_leakage(paired, SYSTEM, draws(2000), **options), leakage(
        paired, SYSTEM, draws(2000)
    )


def test_a_shift_along_the_circle_leaks_and_nothing_of_it_is_excess():
    found, raw = excess(0.3 * COS)
    assert (raw.mean.value > 0.02).all()
    np.testing.assert_allclose(found.mean_raw.value, 0, atol=2e-3)


def test_a_weaker_coupling_is_learned_from_the_other_values():
    found, raw = excess(0.3 * np.eye(10) + 0.15 * (COS - np.eye(10)))
    slopes = human_slopes(exact(0.3 * np.eye(10) + 0.15 * (COS - np.eye(10)), n=2000,
                                base_rate=0.4), COS)  # fmt: skip
    np.testing.assert_allclose(slopes, 0.5 * COS, atol=0.02)
    assert (found.mean_raw.value < 0.1 * raw.mean_raw.value).all()


def test_what_rises_everywhere_or_at_the_opposite_is_all_excess():
    everywhere, raw = excess(0.3 * np.eye(10) + 0.1 * (1 - np.eye(10)))
    np.testing.assert_allclose(everywhere.mean_raw.value, raw.mean_raw.value, atol=1e-6)
    opposite, raw = excess(0.3 * np.eye(10) + 0.2 * (COS < -0.9))
    np.testing.assert_allclose(opposite.mean_raw.value, raw.mean_raw.value, atol=1e-6)


def test_a_value_that_leaks_more_than_the_others_shows_its_excess():
    shift = 0.3 * COS
    shift[0, 1] += 0.2
    found, _ = excess(shift)
    assert found.mean_raw.value[0] == pytest.approx(0.2 / 9, abs=4e-3)
    np.testing.assert_allclose(found.mean_raw.value[1:], 0, atol=6e-3)


def test_correlations_that_are_none_and_targets_that_are_too_few_are_refused():
    paired = exact(0.3 * np.eye(10))
    for wrong in (np.eye(9), np.triu(np.ones((10, 10))), 2 * np.eye(10)):
        with pytest.raises(MeasureError, match="symmetric"):
            human_slopes(paired, wrong)
    few = Paired.of(np.zeros((5, 10)), np.zeros((1, 5, 10)))
    with pytest.raises(MeasureError, match="other targets"):
        human_slopes(few, COS)


# Agreement ------------------------------------------------------------------------------

UP, DOWN = Estimate(0.4, 0.1, 0.6, 50), Estimate(-0.4, -0.6, -0.1, 50)
NONE, UNKNOWN = Estimate(0.0, -0.1, 0.1, 50), Estimate(*[float("nan")] * 3, 0)


@pytest.mark.parametrize(
    ("readings", "flag"),
    [
        (dict(closed=UP, open=UP), "agree"),
        (dict(closed=DOWN, open=DOWN, self_report=None), "agree"),
        (dict(closed=UP, open=NONE), "partly"),
        (dict(closed=UP, open=UNKNOWN, self_report=UP), "partly"),
        (dict(closed=UP, open=NONE, self_report=DOWN), "contradict"),
        (dict(closed=NONE, open=UNKNOWN), "nothing shown"),
    ],
)
def test_readings_agree_or_do_not(readings, flag):
    assert agreement(**readings).flag == flag


def test_one_reading_agrees_with_nobody():
    with pytest.raises(MeasureError, match="two readings"):
        agreement(closed=UP, open=None)


# Safety per value and sign ----------------------------------------------------------------


def test_each_value_and_sign_stands_alone():
    plain = dict(harmful=np.zeros(60), refused=np.ones(60))
    worse = dict(harmful=np.repeat([1.0, 0.0], 30), refused=np.repeat([0.0, 1.0], 30))
    found = safety_changes(plain, {("power", 1): worse, ("power", -1): plain})
    assert [(r.value, r.sign, r.outcome) for r in found] == [
        ("power", 1, "harmful"), ("power", 1, "refused"),
        ("power", -1, "harmful"), ("power", -1, "refused"),
    ]  # fmt: skip
    assert [r.change.value for r in found] == [0.5, -0.5, 0, 0]
    assert found[0].change.low > 0 > found[1].change.high
    assert found[0].p < 0.05 < found[2].p
    with pytest.raises(MeasureError, match="harmful"):
        safety_changes(plain, {("power", 1): dict(refused=np.ones(60))})


def test_overlap_with_the_direction_of_refusal():
    a = np.array([1.0, 0.0, 2.0])
    assert overlap(a, 3 * a) == pytest.approx(1)
    assert overlap(a, np.array([0.0, 1.0, 0.0])) == 0
    assert np.isnan(overlap(a, np.zeros(3)))
    with pytest.raises(MeasureError, match="one site"):
        overlap(a, np.ones(4))
