"""Figures of rewrites against plain reference code."""

import numpy as np
import pytest

from valign.measure import Resampling
from valign.measure.errors import MeasureError
from valign.measure.rewriting import (
    cosine,
    distance,
    figures,
    reached,
    success,
    success_curve,
    untouched,
)

RNG = np.random.default_rng(0)
SCORES, TARGET, ORIGINAL = (RNG.uniform(-1, 1, (40, 5)) for _ in range(3))
TARGET[:, 1:3] = ORIGINAL[:, 1:3]
FIDELITY = RNG.uniform(0, 1, (40, 2))
DRAWS = Resampling.of(40, seed=0, n_boot=300)


def test_every_figure_is_that_of_a_slow_reference():
    far, alike, still = [], [], []
    for s, t, o in zip(SCORES, TARGET, ORIGINAL, strict=True):
        far.append(sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) ** 0.5)
        sizes = [sum(x * x for x in v) ** 0.5 for v in (s, t)]
        alike.append(sum(a * b for a, b in zip(s, t, strict=True)) / sizes[0] / sizes[1])
        still.append(sum(abs(s[i] - o[i]) for i in (1, 2)) / 2)
    np.testing.assert_allclose(distance(SCORES, TARGET), far)
    np.testing.assert_allclose(cosine(SCORES, TARGET), alike)
    np.testing.assert_allclose(untouched(SCORES, ORIGINAL, TARGET), still)
    found = figures(SCORES, ORIGINAL, TARGET, FIDELITY, DRAWS)
    both = FIDELITY.mean(axis=1)
    hits = [d < 0.8 and c > 0.3 for d, c in zip(far, both, strict=True)]
    assert found.jsr.value == pytest.approx(np.mean(hits))
    assert found.consistency.value == pytest.approx(both.mean())
    assert found.forward.value == pytest.approx(FIDELITY[:, 0].mean())
    for estimate in vars(found).values():
        assert estimate.low <= estimate.value <= estimate.high and estimate.n == 40


def test_success_needs_both_and_its_curve_only_rises_with_looser_cuts():
    far, both = np.array([0.1, 0.1, 2.0, 2.0]), np.array([0.9, 0.1, 0.9, 0.1])
    assert success(far, both).tolist() == [True, False, False, False]
    curve = success_curve(
        distance(SCORES, TARGET), FIDELITY.mean(axis=1), DRAWS,
        largest=(0.5, 1.0, 2.0, 9.0), least=(-1.0, 0.3, 0.9),
    )  # fmt: skip
    assert (np.diff(curve.value, axis=0) >= 0).all() and (np.diff(curve.value, axis=1) <= 0).all()
    assert curve.value[-1, 0] == 1
    with pytest.raises(MeasureError, match="one shape"):
        success(far, both[:2])


def test_what_was_near_from_the_start_has_not_reached_anything():
    near, both = np.array([0.5, 0.2, 0.2]), np.array([1.0, 1.0, 0.2])
    assert success(near, both).tolist() == [True, True, False]
    assert reached(near, np.array([0.5, 0.5, 0.5]), both).tolist() == [False, True, False]
    back = figures(ORIGINAL, ORIGINAL, TARGET, FIDELITY, DRAWS)
    assert back.reached.value == 0 and back.untouched.value == 0
    with pytest.raises(MeasureError, match="one shape"):
        reached(near, near[:2], both)


def test_what_is_undefined_is_missing():
    zero = np.zeros((1, 5))
    assert np.isnan(cosine(zero, SCORES[:1])).all()
    assert np.isnan(untouched(zero, zero, zero + 1)).all()
    assert distance(zero, zero) == 0
    with pytest.raises(MeasureError, match="rewrites, values"):
        distance(SCORES, TARGET[:3])
