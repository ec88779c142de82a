"""The steering spill-over matrix: controls whose leakage is known by construction."""

import numpy as np
import pytest

from valign.measure import MeasureError, Paired, Resampling
from valign.measure.spillover import fidelity, selectivity, spillover
from valign.measure.structure import circle_distance
from valign.values import Value, ValueSystem, load_system

TEN = load_system("schwartz10")
EVEN = ValueSystem("even", "", "", tuple(Value(f"v{k}", "", "x", angle=45.0 * k) for k in range(8)))
THEORY = np.cos(np.deg2rad(circle_distance(EVEN)))


def at_distance(system, degrees):
    return (circle_distance(system) == degrees).astype(float)


def measured(shift, system=EVEN, n=40):
    base = np.zeros((n, len(system)))
    steered = np.broadcast_to(shift[:, None, :], (len(shift), n, len(system)))
    return spillover(
        Paired.of(base, steered), system, Resampling.of(n, seed=0, n_boot=50), permutations=200
    )


def test_perfect_control_is_infinitely_selective_and_has_no_fidelity():
    found = measured(0.5 * np.eye(8))
    assert np.isinf(found.selectivity.value).all()
    assert np.isnan(found.fidelity.estimate.value) and np.isnan(found.fidelity.p)


def test_no_control_has_neither():
    found = measured(np.zeros((8, 8)))
    assert np.isnan(found.selectivity.value).all() and np.isnan(found.fidelity.estimate.value)


def test_the_circles_own_coupling_is_perfectly_faithful():
    found = measured(0.5 * THEORY)
    assert found.fidelity.estimate.value == pytest.approx(1) and found.fidelity.p < 0.02
    # others move by .5 |cos|: two at 45, 135 (.354), 90 (0), one at 180 (.5)
    mean_other = 0.5 * (4 * np.sqrt(0.5) + 1) / 7
    assert found.selectivity.value == pytest.approx(np.full(8, 0.5 / mean_other))


def test_leakage_to_neighbours_is_faithful_and_to_opposites_unfaithful():
    near = measured(0.5 * np.eye(8) + 0.25 * at_distance(EVEN, 45))
    far = measured(0.5 * np.eye(8) + 0.25 * at_distance(EVEN, 180))
    # By hand, per row of 7 others: mean ranks of the theory 6.5 6.5 4.5 4.5 2.5 2.5 1 about 4, sum
    # of squares 26.5; two neighbours 6.5, the rest 3: 17.5; one opposite 7, the rest 3.5: 10.5.
    assert near.fidelity.estimate.value == pytest.approx(np.sqrt(17.5 / 26.5))
    assert near.selectivity.value == pytest.approx(np.full(8, 0.5 / (0.5 / 7)))
    assert far.fidelity.estimate.value == pytest.approx(-np.sqrt(10.5 / 26.5))
    assert far.selectivity.value == pytest.approx(np.full(8, 0.5 / (0.25 / 7)))
    assert near.fidelity.p < 0.02 and far.fidelity.p > 0.9


def test_uniform_leakage_says_nothing_about_the_circle():
    found = measured(0.2 + 0.3 * np.eye(8))
    assert np.isnan(found.fidelity.estimate.value)
    assert found.selectivity.value == pytest.approx(np.full(8, 2.5))


def test_sign_and_scale_of_the_dose():
    shift = np.random.default_rng(0).normal(size=(8, 8))
    assert fidelity(3 * shift, THEORY) == pytest.approx(float(fidelity(shift, THEORY)))
    assert fidelity(-shift, THEORY) == pytest.approx(-float(fidelity(shift, THEORY)))
    assert selectivity(3 * shift) == pytest.approx(selectivity(shift))


def test_intervals_over_prompts():
    rng = np.random.default_rng(0)
    base = (rng.random((60, 10)) < 0.2).astype(float)
    rate = 0.2 + 0.3 * np.cos(np.deg2rad(circle_distance(TEN))).clip(0)
    steered = (rng.random((10, 60, 10)) < rate[:, None, :]).astype(float)
    found = spillover(
        Paired.of(base, steered), TEN, Resampling.of(60, seed=0, n_boot=200), permutations=500
    )
    x = found.fidelity.estimate
    assert 0 < x.low < x.value < x.high <= 1 and x.n == 60 and found.fidelity.p < 0.01
    assert found.matrix.shape == (10, 10)


def test_other_targets_are_refused():
    base = np.zeros((5, 10))
    with pytest.raises(MeasureError, match="each value of schwartz10 in turn"):
        spillover(
            Paired.of(base, np.zeros((2, 5, 10)), targets=[0, 3]), TEN, Resampling.of(5, seed=0)
        )
