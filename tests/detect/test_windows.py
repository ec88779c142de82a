"""Windows: nothing is lost, nothing is too long, and the rule is the stated one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valign.detect.windows import combine, split_windows

SENTENCES = st.lists(
    st.lists(st.sampled_from("alpha beta gamma delta".split()), min_size=1, max_size=9).map(
        lambda words: " ".join(words) + "."
    ),
    max_size=8,
).map(" ".join)


def words(text):
    return len(text.split())


@given(SENTENCES, st.integers(1, 12))
def test_windows_hold_every_word_once_in_order_and_fit(text, size):
    windows = split_windows(text, words, size=size)
    assert " ".join(windows).split() == text.split()
    assert all(words(window) <= size for window in windows)


def test_sentences_stay_whole_where_they_fit():
    text = "One two three. Four five. Six seven eight nine."
    windows = split_windows(text, words, size=5)
    assert windows == ["One two three. Four five.", "Six seven eight nine."]


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_a_blank_text_has_no_window(text):
    assert split_windows(text, words, size=5) == []


def test_rules_against_plain_loops():
    scores = np.random.default_rng(0).uniform(-1, 1, (5, 4))
    for column in range(4):
        strongest = max(scores[:, column], key=abs)
        assert combine(scores, rule="max")[column] == strongest
        assert combine(scores, rule="mean")[column] == pytest.approx(sum(scores[:, column]) / 5)
