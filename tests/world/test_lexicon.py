"""The value sentences: complete, short, and with words that no value has for itself."""

from __future__ import annotations

from collections import Counter

import pytest

from valign.world.lexicon import (
    N_VALUES,
    VALUES,
    openers,
    phrases,
    phrases_of,
    sentence_table,
    value_index,
    values_of_word,
    with_opener,
)
from valign.world.tables import table


def test_every_value_has_ten_positive_and_six_negative_sentences() -> None:
    for v in range(N_VALUES):
        assert (len(phrases_of(v, 1, False)), len(phrases_of(v, 1, True))) == (10, 6)
        assert (len(phrases_of(v, -1, False)), len(phrases_of(v, -1, True))) == (6, 4)


def test_every_sentence_belongs_to_one_value() -> None:
    texts = [p.text for p in phrases()]
    assert len(set(texts)) == len(texts)
    assert len(sentence_table()) == len(texts) * sum(map(len, openers().values()))


def test_every_word_of_a_positive_sentence_is_shared_by_two_values() -> None:
    lonely = {word for word, values in values_of_word().items() if len(values) < 2}
    assert not lonely


def test_no_word_gives_a_value_away() -> None:
    """The most telling word of all is right in three of four positive sentences at best."""
    by_word: dict[str, Counter[int]] = {}
    for p in phrases():
        if p.sign > 0:
            for word in set(p.text.lower().rstrip(".").replace(",", "").split()):
                by_word.setdefault(word, Counter())[p.value] += 1
    worst = max(max(c.values()) / sum(c.values()) for c in by_word.values())
    assert worst <= 3 / 4


def test_half_of_the_positive_sentences_are_bound() -> None:
    for fit_only, each in ((True, 3), (False, 5)):
        for v in range(N_VALUES):
            own = phrases_of(v, 1, fit_only)
            assert [sum(p.bound for p in own), sum(not p.bound for p in own)] == [each, each]
    assert not any(p.bound for p in phrases() if p.sign < 0)


def test_every_treasure_wins_and_loses() -> None:
    positive = [p for p in phrases() if p.sign > 0]
    for value, treasures in table("values")["treasures"].items():
        for treasure in treasures:
            hits = [p for p in positive if treasure in p.text.lower()]
            wins = sum(p.value == VALUES.index(value) for p in hits)
            assert 2 <= wins <= 3 and 1 <= len(hits) - wins <= 2, treasure


def test_openers_carry_the_intensity() -> None:
    text = phrases()[0].text
    assert with_opener("", text) == text
    assert sentence_table()[with_opener("Above all,", text)] == (phrases()[0], 3)
    assert sentence_table()[with_opener("Perhaps", text)] == (phrases()[0], 1)


def test_unknown_value_is_named() -> None:
    with pytest.raises(ValueError, match="unknown value 'greed'"):
        value_index("greed")
