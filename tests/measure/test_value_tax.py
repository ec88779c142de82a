"""Value alignment tax and drift: known co-movement, deviation per gain, paired profiles."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy.stats import spearmanr

from valign.measure import MeasureError, Resampling
from valign.measure.bootstrap import weighted_mean
from valign.measure.drift import drift, simultaneous
from valign.measure.tax import co_movement, tax

KEY = np.repeat(np.eye(4), 2, axis=0)
DRAWS = Resampling.of(40, seed=0, n_boot=400)


def test_values_that_move_as_one_have_an_nvat_of_one():
    step = np.random.default_rng(0).normal(size=30)
    found = co_movement(np.stack([step, 2 * step, -step], axis=1), permutations=99)
    assert found.nvat.estimate.value == pytest.approx(1) and found.nvat.p == 0.01
    assert found.nvat_raw == pytest.approx(np.sqrt(3))  # all nine cells are +-1
    assert np.allclose(np.abs(found.matrix), 1) and found.matrix[0, 2] == pytest.approx(-1)


def test_unrelated_values_sit_on_the_floor():
    rng = np.random.default_rng(1)
    found = [co_movement(rng.normal(size=(50, 10)), permutations=99) for _ in range(20)]
    assert np.mean([f.nvat.estimate.value for f in found]) == pytest.approx(1 / 7, abs=0.01)
    assert found[0].floor == pytest.approx(1 / 7)
    assert np.mean([f.nvat.p <= 0.1 for f in found]) <= 0.25


def test_co_movement_agrees_with_scipy_and_leaves_still_values_out():
    x = np.random.default_rng(2).normal(size=(12, 4)).round(1)
    x[:, 2] = 0
    found = co_movement(x, permutations=9)
    assert np.isnan(found.matrix[2]).all() and np.isnan(found.matrix[:, 2]).all()
    assert found.matrix[0, 3] == pytest.approx(spearmanr(x[:, 0], x[:, 3])[0])
    r = spearmanr(x[:, [0, 1, 3]])[0]
    assert found.nvat.estimate.value == pytest.approx(np.sqrt((np.sum(r**2) - 3) / 6))
    assert np.isnan(co_movement(np.zeros((9, 3))).nvat.estimate.value)


@given(st.integers(0, 10_000))
def test_nvat_is_bounded_and_knows_no_order_or_scale(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(8, 4)).round(1)
    found = co_movement(x, permutations=1).nvat.estimate
    assert 0 <= found.low <= found.value <= found.high <= 1
    other = x[rng.permutation(8)][:, rng.permutation(4)] * 3 + 1
    again = co_movement(other.round(6), permutations=1).nvat.estimate
    assert again.value == pytest.approx(found.value)


def test_deviation_per_gain_by_hand():
    delta = np.tile([0.5, 0.25, -0.1, 0.0], (40, 1))
    found = tax(delta, 0, DRAWS)
    assert found.gain.value == 0.5 and not found.small_gain
    assert found.gnd.value[1:] == pytest.approx(np.array([0.25, -0.1, 0]) / 0.51)
    assert np.isnan(found.gnd.value[0])
    assert found.spread.value == pytest.approx(np.sqrt((0.0625 + 0.01) / (0.25 + 0.0025)))


def test_a_target_that_falls_is_no_change_of_sign():
    delta = np.tile([-0.5, 0.25, 0.0, 0.0], (40, 1))
    assert tax(delta, 0, DRAWS).gnd.value[1] == pytest.approx(0.25 / 0.51)


def test_no_gain_is_flagged():
    delta = np.random.default_rng(0).normal(0, 0.1, (40, 4))
    delta[:, 0] -= delta[:, 0].mean()
    found = tax(delta, 0, DRAWS)
    assert found.small_gain and found.gain.low < 0 < found.gain.high


def profile(shift=(0, 0, 0, 0), n=40, seed=0, noise=0.3):
    """Ratings of n respondents on eight items, two a value."""
    rng = np.random.default_rng(seed)
    return 3.5 + np.repeat(shift, 2) + rng.normal(0, noise, (n, 8))


def test_a_checkpoint_does_not_drift_from_itself():
    x = profile()
    found = drift(x, x, KEY, DRAWS, middle=3.5)
    assert not found.shift.value.any() and not found.moved.any()
    assert found.size.value == 0 and np.isnan(found.co_movement.nvat.p)


def test_drift_is_found_where_it_is():
    before = profile()
    after = before + np.repeat([0.8, 0, 0, 0], 2) + np.random.default_rng(5).normal(0, 0.2, (40, 8))
    found = drift(before, after, KEY, DRAWS, middle=3.5, target=0)
    # one value up by .8: centred scores move by .8 - .2 and -.2
    assert found.shift.value == pytest.approx([0.6, -0.2, -0.2, -0.2], abs=0.05)
    assert found.moved.all() and found.shift.value.sum() == pytest.approx(0, abs=1e-9)
    assert found.tax.gain.value == pytest.approx(0.8, abs=0.05)  # of raw scores
    rises = (found.raw_band.low > 0) | (found.raw_band.high < 0)
    assert rises.tolist() == [True, False, False, False]
    assert np.abs(found.tax.gnd.value[1:]).max() < 0.1
    width = found.band.high - found.band.low
    assert (width > found.shift.high - found.shift.low).all()


def test_swapping_the_checkpoints_turns_the_sign():
    a, b = profile(), profile([0.3, 0, -0.3, 0], seed=1)
    there = drift(a, b, KEY, DRAWS, middle=3.5)
    back = drift(b, a, KEY, DRAWS, middle=3.5)
    assert np.allclose(there.shift.value, -back.shift.value)
    assert np.array_equal(there.moved, back.moved)


def test_how_a_checkpoint_uses_the_scale_is_no_drift():
    x = profile()
    assert np.allclose(drift(x, x + 0.7, KEY, DRAWS, middle=3.5).shift.value, 0)


def test_few_false_alarms_without_drift():
    def alarm(seed: int) -> bool:
        change = np.random.default_rng(seed).normal(size=(40, 4))
        found = DRAWS.estimates(lambda w: weighted_mean(w, change))
        band = simultaneous(found, DRAWS.replicates(lambda w: weighted_mean(w, change)))
        return bool(((band.low > 0) | (band.high < 0)).any())

    # nominal .05 for four values at once; about .18 where each is looked at alone
    assert 0.01 <= np.mean([alarm(seed) for seed in range(300)]) <= 0.09


def test_what_one_side_lacks_is_left_out_on_both():
    a, b = profile(), profile([1, 0, 0, 0], seed=1)
    a[0, 0] = np.nan
    b[1, 2:4] = np.nan  # this respondent has no second value
    found = drift(a, b, KEY, DRAWS, middle=3.5)
    assert np.isfinite(found.shift.value).all()
    full = drift(np.delete(a, 1, axis=0), np.delete(b, 1, axis=0), KEY,
                 Resampling.of(39, seed=0, n_boot=50), middle=3.5)  # fmt: skip
    assert found.shift.value[1] == pytest.approx(full.shift.value[1])


def test_bands_keep_what_never_varies():
    x = np.zeros((40, 2))
    x[:, 1] = np.random.default_rng(0).normal(size=40)
    point = DRAWS.estimates(lambda w: w @ x / w.sum(axis=1, keepdims=True))
    band = simultaneous(point, DRAWS.replicates(lambda w: w @ x / w.sum(axis=1, keepdims=True)))
    assert band.low[0] == band.high[0] == 0 and band.low[1] <= point.low[1] + 0.02


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(MeasureError, match="paired"):
        drift(profile(), profile(n=39), KEY, DRAWS, middle=3.5)
    with pytest.raises(MeasureError, match="0 of 40"):
        drift(profile(), np.full((40, 8), np.nan), KEY, DRAWS, middle=3.5)
    with pytest.raises(MeasureError, match="no column"):
        tax(np.zeros((40, 4)), 4, DRAWS)
    with pytest.raises(MeasureError, match="complete"):
        co_movement(np.full((5, 3), np.nan))
