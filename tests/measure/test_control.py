import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from valign.measure import MeasureError, Paired, Resampling, control_matrix

PRESENCE = hnp.arrays(float, (12, 10), elements=st.sampled_from([0.0, 1.0]))


def perfect(n=40, n_values=10):
    """Every target is always present when asked for, nothing else moves."""
    base = np.zeros((n, n_values))
    steered = np.zeros((n_values, n, n_values))
    for i in range(n_values):
        steered[i, :, i] = 1
    return Paired.of(base, steered)


def test_perfect_control():
    found = control_matrix(perfect(), Resampling.of(40, seed=0))
    np.testing.assert_array_equal(found.shift.value, np.eye(10))
    np.testing.assert_array_equal(found.gain.value, np.ones(10))
    assert found.mean_gain.value == 1
    assert found.c.at(3, 3).value == 1 and found.c0.at(3).value == 0


def test_unanimous_prompts_still_leave_doubt():
    found = control_matrix(perfect(n=40), Resampling.of(40, seed=0))
    assert 3 / 40 < found.c0.high[0] < 5 / 40
    assert found.c0.low[0] == 0
    assert 3 / 40 < 1 - found.gain.low[0] < 7 / 40


def test_no_control_has_no_gain():
    base = (np.random.default_rng(0).random((50, 10)) < 0.3).astype(float)
    found = control_matrix(Paired.of(base, np.stack([base] * 10)), Resampling.of(50, seed=0))
    assert (found.gain.value == 0).all()
    assert (found.gain.low < 0).all() and (found.gain.high > 0).all()


def test_a_value_that_is_to_fall_gains_by_falling():
    base = np.ones((20, 3))
    steered = np.ones((1, 20, 3))
    steered[0, :, 1] = 0.25
    paired = Paired.of(base, steered, targets=np.array([[0, -1.0, 0]]))
    found = control_matrix(paired, Resampling.of(20, seed=0))
    assert found.gain.value[0] == 0.75
    assert found.shift.value[0, 1] == -0.75


def test_a_profile_of_several_values_gains_by_their_weighted_movement():
    base = np.zeros((20, 3))
    steered = np.tile([0.6, -0.2, 0.9], (1, 20, 1))
    paired = Paired.of(base, steered, targets=np.array([[1.0, -0.5, 0]]))
    gain = paired.gain(np.ones((1, 20)))[0, 0]
    assert gain == pytest.approx((0.6 + 0.5 * 0.2) / 1.5)


def test_shift_counts_only_prompts_that_have_both_answers():
    base = np.array([[0.0], [1.0], [1.0]])
    steered = np.array([[[1.0], [1.0], [np.nan]]])
    paired = Paired.of(base, steered)
    assert paired.shift(np.ones((1, 3)))[0, 0, 0] == 0.5  # not 1 - 2/3


@settings(max_examples=25, deadline=None)
@given(PRESENCE, st.integers(0, 2**32 - 1))
def test_order_of_prompts_does_not_matter(base, seed):
    rng = np.random.default_rng(seed)
    steered = (rng.random((10, 12, 10)) < 0.5).astype(float)
    order = rng.permutation(12)
    here = Paired.of(base, steered).shift(np.ones((1, 12)))
    there = Paired.of(base[order], steered[:, order]).shift(np.ones((1, 12)))
    np.testing.assert_allclose(here, there, atol=1e-12)
    assert (np.abs(here) <= 1).all()


@settings(max_examples=25, deadline=None)
@given(PRESENCE, st.integers(0, 2**32 - 1))
def test_renaming_values_renames_the_result(base, seed):
    rng = np.random.default_rng(seed)
    steered = (rng.random((10, 12, 10)) < 0.5).astype(float)
    order = rng.permutation(10)
    ones = np.ones((1, 12))
    here = Paired.of(base, steered).gain(ones)[0]
    there = Paired.of(base[:, order], steered[order][:, :, order]).gain(ones)[0]
    np.testing.assert_allclose(here[order], there, atol=1e-12)


@pytest.mark.parametrize(
    ("base", "steered", "targets", "says"),
    [
        (np.zeros((3, 2)), np.zeros((2, 4, 2)), None, "same prompts"),
        (np.zeros((3, 2)), np.full((2, 3, 2), 5.0), None, "outside"),
        (np.zeros((3, 2)), np.zeros((1, 3, 2)), [2], "column indices below 2"),
        (np.zeros((3, 2)), np.zeros((1, 3, 2)), np.zeros((1, 2)), "not 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(base, steered, targets, says):
    with pytest.raises(MeasureError, match=says):
        Paired.of(base, steered, targets=targets)
