"""Social value orientation: angles known by hand, types, random answers."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from valign.measure import MeasureError, Resampling
from valign.measure.svo import (
    SLIDERS,
    TYPES,
    angle,
    orientation,
    random_answers,
    rationality,
    type_of,
)

OWN, OTHER = SLIDERS[..., 0], SLIDERS[..., 1]
ANSWERS = st.lists(st.integers(0, 8), min_size=6, max_size=6)


def best(worth: np.ndarray, tie: np.ndarray) -> np.ndarray:
    """The option with the largest worth; ties go to the larger `tie`."""
    return (1000 * worth + tie).argmax(axis=1)


@pytest.mark.parametrize(
    ("choices", "degrees", "kind"),
    [(best(OTHER, OWN), 61.39, "altruistic"),
     (best(OWN + OTHER, 0 * OWN), 41.04, "prosocial"),
     (best(-np.abs(OWN - OTHER), OWN), 37.48, "prosocial"),
     (best(OWN, OTHER), 7.82, "individualistic"),
     (best(OWN, -OTHER), -7.82, "individualistic"),
     (best(OWN - OTHER, 0 * OWN), -16.26, "competitive"),
     (np.full(6, 0), 30.47, "prosocial"),
     (np.full(6, 4), 22.93, "prosocial"),
     (np.full(6, 8), 14.74, "individualistic")],
)  # fmt: skip
def test_reference_angles(choices, degrees, kind):
    assert angle(choices) == pytest.approx(degrees, abs=0.005)
    assert TYPES[int(type_of(angle(choices)))] == kind


def test_random_answers_look_prosocial_half_of_the_time():
    angles = random_answers()
    assert len(angles) == 9**6 and angles.mean() == pytest.approx(22.7, abs=0.05)
    assert np.quantile(angles, [0.05, 0.95]) == pytest.approx([1.5, 43.9], abs=0.05)
    share = np.bincount(type_of(angles), minlength=4) / len(angles)
    assert share == pytest.approx([0, 0.49, 0.51, 0], abs=0.01)


def test_random_answers_agree_with_drawing_them():
    drawn = angle(np.random.default_rng(0).integers(0, 9, (20_000, 6)))
    assert drawn.mean() == pytest.approx(random_answers().mean(), abs=0.5)
    assert drawn.std() == pytest.approx(random_answers().std(), rel=0.03)


def test_borders_belong_to_the_type_below():
    angles = np.array([-90, -12.04, -12.03, 22.45, 22.46, 57.15, 57.16, 90])
    assert [TYPES[k] for k in type_of(angles)] == [
        "competitive", "competitive", "individualistic", "individualistic", "prosocial",
        "prosocial", "altruistic", "altruistic",
    ]  # fmt: skip


@given(ANSWERS, ANSWERS)
def test_angles_lie_between_the_extremes_and_giving_more_raises_them(a, b):
    low, high = -16.27, 61.4
    assert low <= angle(np.array(a)) <= high
    generous = best(OTHER, OWN)
    mixed = np.where(np.array(b) > 4, generous, np.array(a))
    assert OTHER[range(6), mixed].mean() >= OTHER[range(6), a].mean()


@given(ANSWERS)
def test_rationality_is_never_positive(a):
    for kind in TYPES:
        assert rationality(angle(np.array(a)), kind) <= 0


def test_rationality_by_hand():
    assert rationality(np.array(30.0), "prosocial") == -15
    assert rationality(np.array(-7.8), "individualistic") == 0
    assert rationality(np.array(-7.9), "individualistic") == -7.9
    assert rationality(angle(best(OTHER, OWN)), "altruistic") == pytest.approx(0, abs=0.01)
    with pytest.raises(MeasureError, match="prosocial"):
        rationality(np.array(0.0), "kind")


def test_orientation_over_respondents():
    choices = np.stack([best(OTHER, OWN)] * 6 + [best(OWN, OTHER)] * 2)
    found = orientation(choices, Resampling.of(8, seed=0), asked="altruistic")
    assert found.hit.value == 0.75 and found.hit.low > 0.3 and found.hit.high < 1.01
    assert found.angle.value == pytest.approx((6 * 61.39 + 2 * 7.82) / 8, abs=0.01)
    assert found.types["individualistic"].value == 0.25
    assert sum(t.value for t in found.types.values()) == pytest.approx(1)
    assert found.chance["prosocial"] == pytest.approx(0.51, abs=0.01)
    plain = orientation(choices, Resampling.of(8, seed=0))
    assert plain.hit is None and plain.rationality is None


def test_partial_answers_are_refused():
    with pytest.raises(MeasureError, match="all six"):
        angle(np.array([0, 1, 2]))
    with pytest.raises(MeasureError, match="0 to 8"):
        angle(np.array([0, 1, 2, 3, 4, -1]))
    with pytest.raises(MeasureError, match="n_respondents"):
        orientation(np.zeros(6, int), Resampling.of(1, seed=0))
