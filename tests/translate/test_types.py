"""What a translation can be asked."""

from __future__ import annotations

import numpy as np
import pytest

from valign.translate import Translation, ValueShift
from valign.values import Profile, UnknownValueError, load_system

SYSTEM = load_system("schwartz10")


@pytest.fixture
def found() -> Translation:
    return Translation(ValueShift.of(SYSTEM, {"power": -0.5, "benevolence": 1.0}, source="t"), 0.8)


def test_unpacks_into_shift_and_confidence(found: Translation) -> None:
    shift, confidence = found
    assert shift == {"power": -0.5, "benevolence": 1.0}
    assert confidence == 0.8 == found.confidence == found[1]
    assert found.shift is shift is found[0]


def test_reads_like_its_shift(found: Translation) -> None:
    assert found["power"] == found.get("power") == -0.5
    assert found["security"] == 0.0
    assert dict(found) == {**found} == dict(found.items()) == {"power": -0.5, "benevolence": 1.0}
    assert sorted(found.keys()) == ["benevolence", "power"]
    assert found and found.source == "t"


def test_a_shift_holds_only_what_changes(found: Translation) -> None:
    shift = found.shift
    assert len(shift) == 2 and "power" in shift and "security" not in shift
    assert list(shift) == ["power", "benevolence"]
    assert shift["security"] == 0.0
    np.testing.assert_array_equal(shift.array, found.array)
    assert shift.array[SYSTEM.index("power")] == -0.5


def test_unknown_names_are_refused_not_zero(found: Translation) -> None:
    with pytest.raises(UnknownValueError):
        found["kindness"]
    with pytest.raises(UnknownValueError):
        found.shift["kindness"]
    assert found.get("kindness", 7.0) == 7.0


def test_nothing_is_false_and_empty() -> None:
    nothing = Translation(ValueShift.of(SYSTEM), 0.9)
    assert not nothing and not nothing.shift and len(nothing.shift) == 0
    assert nothing.shift == {} and dict(nothing) == {}


def test_adds_to_a_profile(found: Translation) -> None:
    original = Profile.parse("power=+1,benevolence=+0.5", SYSTEM)
    assert (original + found.profile).named == {"power": 0.5, "benevolence": 1.0}
