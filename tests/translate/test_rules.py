"""The baseline reads named values and direction words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valign.translate import RuleTranslator
from valign.translate.numbers import stated_changes
from valign.values import load_system

TEN = load_system("schwartz10")
RULES = RuleTranslator()


def read(text: str) -> dict[str, float]:
    return dict(RULES.translate_all([text])[0])


@pytest.mark.parametrize(
    ("text", "shift"),
    [
        ("more benevolence, less power", {"benevolence": 1.0, "power": -0.5}),
        ("a bit more kindness", {"benevolence": 0.5}),
        ("much less tradition please", {"tradition": -1.0}),
        ("Drop the power.", {"power": -1.0}),
        ("more kindness and honesty and justice", {"benevolence": 1.0, "universalism": 1.0}),
        ("not so bossy", {"power": -0.5}),
        ("less heartless", {"benevolence": 0.5}),
        ("too reckless", {"security": 0.5}),
        ("security up a notch", {"security": 0.5}),
        ("Safety first!", {"security": 1.0}),
        ("adventure instead of security", {"stimulation": 0.0, "security": -1.0}),
        ("keep the warmth, but less rules", {"conformity": -0.5}),
        ("kinder", {"benevolence": 1.0}),
        ("make it shorter", {}),
        ("fix the grammar", {}),
        ("replace the word 'freedom' with a synonym", {}),
        ("", {}),
    ],
)
def test_direction_words(text: str, shift: dict[str, float]) -> None:
    assert read(text) == {value: change for value, change in shift.items() if change}


@pytest.mark.parametrize(
    ("text", "shift"),
    [
        ("power -0.5", {"power": -0.5}),
        ("+0.3 achievement", {"achievement": 0.3}),
        ("Self-direction: +1, hedonism=-.25", {"self-direction": 1.0, "hedonism": -0.25}),
        ("set security to 0.5", {"security": 0.5}),
        ("take stimulation down by 0.5", {"stimulation": -0.5}),
        ("tradition = 1", {"tradition": 1.0}),
        ("self direction +1", {"self-direction": 1.0}),
        ("power −1", {"power": -1.0}),
        ("+100 words on power", {}),
        ("the 1 tradition we have", {}),
        ("power 25%", {}),
        ("security 2021", {}),
    ],
)
def test_stated_numbers(text: str, shift: dict[str, float]) -> None:
    assert stated_changes(text, TEN) == shift


def test_every_system_by_its_own_names() -> None:
    nineteen = RuleTranslator("schwartz19")
    assert dict(nineteen.translate_all(["more humility, less wealth"])[0]) == {
        "humility": 1.0, "power-resources": -0.5,
    }  # fmt: skip
    assert dict(RuleTranslator("higher-order4").translate_all(["openness +0.5"])[0]) == {
        "openness": 0.5
    }


@given(st.sampled_from(TEN.names), st.sampled_from(["more", "a bit more", "less", "much less"]))
def test_one_named_value_is_the_only_one_to_change(name: str, direction: str) -> None:
    found = RULES.translate_all([f"{direction} {name}"])[0]
    assert list(found.keys()) == [name]
    assert (found[name] > 0) == ("more" in direction)


@given(st.text(max_size=80))
def test_any_text_gives_a_shift_in_range(text: str) -> None:
    found = RULES.translate_all([text])[0]
    assert all(-1 <= change <= 1 for change in found.values())
    assert 0 <= found.confidence <= 1
