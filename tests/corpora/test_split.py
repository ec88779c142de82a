"""Splits: no row on both sides, and none that moves."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valign.corpora import Corpus, CorpusError, Dilemma, load_corpus, split_corpus
from valign.values import load_system

TEN = load_system()
row_names = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=20)
PARTS = ("pairs", "dilemmas", "answers", "neutral")


def ids(corpus):
    return {row.id for part in PARTS for row in getattr(corpus, part)}


def made(names):
    return Corpus(TEN, "made", dilemmas=tuple(Dilemma(n, "power", f"{n}?") for n in names))


@given(row_names, st.floats(0.01, 0.99), st.text(max_size=4))
def test_every_row_is_on_exactly_one_side_in_order(names, test, salt):
    corpus = made(names)
    train, held = split_corpus(corpus, test=test, salt=salt)
    assert not ids(train) & ids(held) and ids(train) | ids(held) == ids(corpus)
    for half in (train, held):
        assert [n for n in names if n in ids(half)] == [row.id for row in half.dilemmas]


@given(row_names, st.randoms())
def test_rows_stay_on_their_side(names, random):
    _, held = split_corpus(made(names))
    shuffled = [*names, "a new row with a name of its own"]
    random.shuffle(shuffled)
    _, again = split_corpus(made(shuffled))
    assert ids(again) & set(names) == ids(held)


def test_shares_and_names():
    corpus = load_corpus()
    train, held = split_corpus(corpus, test=0.25)
    assert train.name == "valuetexts/train" and held.name == "valuetexts/test"
    for part in PARTS:
        rows = getattr(corpus, part)
        expected, spread = 0.25 * len(rows), (0.25 * 0.75 * len(rows)) ** 0.5
        assert abs(len(getattr(held, part)) - expected) < 4 * spread
    assert all(held.pairs_of(value) and train.pairs_of(value) for value in TEN.names)
    assert len({corpus.fingerprint, train.fingerprint, held.fingerprint}) == 3


def test_a_larger_test_half_holds_the_smaller_one():
    corpus = load_corpus()
    small, large = (split_corpus(corpus, test=share)[1] for share in (0.1, 0.4))
    assert ids(small) < ids(large)


def test_salt_gives_another_split():
    corpus = load_corpus()
    assert ids(split_corpus(corpus)[1]) != ids(split_corpus(corpus, salt="again")[1])


@pytest.mark.parametrize("test", [0, 1, -0.1, 1.5, float("nan")])
def test_empty_halves_are_refused(test):
    with pytest.raises(CorpusError, match="strictly between 0 and 1"):
        split_corpus(load_corpus(), test=test)


def test_fingerprint_follows_texts_not_notes():
    corpus = load_corpus()
    assert replace(corpus, notes=("other",)).fingerprint == corpus.fingerprint
    assert replace(corpus, of_world=not corpus.of_world).fingerprint == corpus.fingerprint
    fewer = replace(corpus, pairs=corpus.pairs[1:])
    assert fewer.fingerprint != corpus.fingerprint
