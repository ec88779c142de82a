"""Profiles: reading, writing, arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valign.values import Profile, ProfileError, UnknownValueError, load_system

SYSTEM = load_system()
scores = st.floats(-1, 1, allow_nan=False)
profiles = st.lists(scores, min_size=10, max_size=10).map(lambda s: Profile(SYSTEM, tuple(s)))


@given(profiles)
def test_text_round_trip_is_exact(profile):
    assert Profile.parse(str(profile), SYSTEM) == profile


@given(profiles)
def test_array_and_mapping_round_trips(profile):
    assert Profile.from_array(SYSTEM, profile.array) == profile
    assert Profile.from_mapping(SYSTEM, dict(profile)) == profile
    assert Profile.from_mapping(SYSTEM, profile.named) == profile


@given(profiles, profiles, st.floats(-5, 5))
def test_arithmetic_is_clipped_and_elementwise(a, b, factor):
    np.testing.assert_array_equal((a + b).array, np.clip(a.array + b.array, -1, 1))
    np.testing.assert_array_equal((a - b).array, np.clip(a.array - b.array, -1, 1))
    np.testing.assert_array_equal((factor * a).array, np.clip(a.array * factor, -1, 1))
    assert a + b == b + a
    np.testing.assert_array_equal((-a).array, -a.array)
    assert (a - a).named == {}


@given(profiles)
def test_equal_profiles_hash_alike(profile):
    twin = Profile(SYSTEM, profile.scores)
    assert twin == profile and hash(twin) == hash(profile)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("benevolence", {"benevolence": 1.0}),
        ("benevolence=+1, power = -0.5", {"benevolence": 1.0, "power": -0.5}),
        ("power=-.5,", {"power": -0.5}),
        ("power=0,security=1e-3", {"security": 0.001}),
    ],
)
def test_parse(text, expected):
    assert Profile.parse(text, SYSTEM).named == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("power=much", "Cannot read 'power=much'"),
        ("power=", "Cannot read"),
        ("power=2", "outside"),
        ("power=1,power=-1", "twice"),
        ("power security", "Cannot read"),
    ],
)
def test_parse_errors(text, message):
    with pytest.raises(ProfileError, match=message):
        Profile.parse(text, SYSTEM)


def test_wrong_names_shapes_and_numbers_are_refused():
    with pytest.raises(UnknownValueError, match="benevolence"):
        Profile.parse("benevolent=1", SYSTEM)
    with pytest.raises(ProfileError, match="shape"):
        Profile.from_array(SYSTEM, np.zeros((2, 5)))
    with pytest.raises(ProfileError, match="outside"):
        Profile.from_array(SYSTEM, np.full(10, np.nan))
    with pytest.raises(ProfileError, match="needs 10 scores"):
        Profile(SYSTEM, (1.0,))
    with pytest.raises(ProfileError, match="over hh"):
        Profile.of(SYSTEM, power=1) + Profile.of(load_system("hh"), honest=1)


def test_keywords_take_underscores():
    assert Profile.of(SYSTEM, self_direction=0.5)["self-direction"] == 0.5
