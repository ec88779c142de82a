"""Targets: clipped, on the grid, and still where nobody asked for a change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from valign.methods.visa.errors import RewriteError
from valign.methods.visa.target import changed, shift_vector, shifted, snapped, towards
from valign.values import Profile, UnknownValueError, load_system

SYSTEM = load_system("schwartz10")
SCORES = arrays(float, 10, elements=st.floats(-1, 1))
SHIFTS = arrays(float, 10, elements=st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0]))
STEPS = st.integers(1, 5)


@given(SCORES, STEPS)
def test_snapping_goes_to_the_nearest_point_and_stays_there(scores, steps):
    found = snapped(scores, steps=steps)
    grid = np.arange(-steps, steps + 1) / steps
    nearest = np.abs(scores[:, None] - grid).min(axis=1)
    np.testing.assert_allclose(np.abs(found - scores), nearest, atol=1e-12)
    np.testing.assert_array_equal(snapped(found, steps=steps), found)


@given(SCORES, SHIFTS, STEPS)
def test_a_shift_moves_its_values_only_and_keeps_the_box(original, shift, steps):
    target = shifted(original, shift, steps=steps)
    assert (np.abs(target) <= 1).all()
    np.testing.assert_array_equal(target[shift == 0], original[shift == 0])
    moved = shift != 0
    on_grid = target[moved] * steps
    np.testing.assert_allclose(on_grid, np.round(on_grid), atol=1e-9)
    wanted = np.clip(original + shift, -1, 1)
    assert (np.abs(target - wanted)[moved] <= 0.5 / steps + 1e-9).all()


@given(SCORES, SCORES, st.floats(0, 1), STEPS)
def test_interpolation_ends_at_the_text_and_at_the_profile(original, profile, share, steps):
    np.testing.assert_array_equal(towards(original, profile, share=0, steps=steps), original)
    end = towards(original, profile, share=1, steps=steps)
    np.testing.assert_array_equal(end, snapped(profile, steps=steps))
    between = towards(original, profile, share=share, steps=steps)
    low, high = np.minimum(original, profile), np.maximum(original, profile)
    assert (between >= low - 0.5 / steps - 1e-9).all()
    assert (between <= high + 0.5 / steps + 1e-9).all()


def test_only_what_moves_is_told_to_the_rewriter():
    original = np.full(10, 0.3)
    target = shifted(original, shift_vector(SYSTEM, {"power": -0.5, "security": 0.0}))
    assert changed(original, target, SYSTEM) == {"power": 0.0}
    assert changed(original, original, SYSTEM) == {}


def test_what_cannot_be_a_target_is_refused():
    with pytest.raises(RewriteError, match="between -2 and 2"):
        shift_vector(SYSTEM, {"power": 3})
    with pytest.raises(UnknownValueError):
        shift_vector(SYSTEM, {"pwoer": 1})
    with pytest.raises(RewriteError, match="one shape"):
        shifted(np.zeros(3), np.zeros(4))
    with pytest.raises(RewriteError, match="outside"):
        towards(np.zeros(3), np.zeros(3), share=1.5)
    assert shift_vector(SYSTEM, Profile.of(SYSTEM, power=1))[SYSTEM.index("power")] == 1
