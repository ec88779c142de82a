"""Preferences of the world: what is chosen serves the value, and opposites are in conflict."""

import numpy as np
import pytest

from valign.world import VALUES, WorldJudge
from valign.world.preferences import SETS, preference_corpus, preferences, rival

JUDGE = WorldJudge()


def scores(pairs, side):
    return np.array([JUDGE.read(p.prompt, getattr(p, side)).scores for p in pairs])


@pytest.mark.parametrize("k", SETS)
def test_sets_hold_opposites(k):
    assert len(SETS[k]) == k
    assert rival("benevolence", SETS[k]) == "achievement"
    assert rival("security", ("security", "tradition")) is None


def test_the_chosen_answer_serves_the_value_and_the_rejected_its_rival():
    pairs = preferences("benevolence", 60, against="achievement")
    v, w = VALUES.index("benevolence"), VALUES.index("achievement")
    chosen, rejected = scores(pairs, "positive"), scores(pairs, "negative")
    assert (chosen[:, v] > 0).all() and (chosen[:, w] == 0).all()
    assert (rejected[:, w] > 0).all() and (rejected[:, v] == 0).all()
    other = np.delete(chosen - rejected, [v, w], axis=1).mean(0)
    assert np.abs(other).max() < 0.2


def test_texts_are_fluent_factual_and_of_the_fitting_half():
    for against in ("achievement", None):
        for pair in preferences("benevolence", 40, against=against):
            for text in (pair.positive, pair.negative):
                reading = JUDGE.read(pair.prompt, text)
                assert reading.fluent and not reading.facts_wrong and not reading.held.any()
            assert JUDGE.read(pair.prompt, pair.negative).scores[VALUES.index("benevolence")] <= 0


def test_a_corpus_holds_each_value_and_is_the_same_again():
    corpus = preference_corpus(SETS[3], n=12, prompts=3)
    assert corpus.of_world
    assert [len(corpus.pairs_of(v)) for v in SETS[3]] == [12] * 3
    assert corpus.fingerprint == preference_corpus(SETS[3], n=12, prompts=3).fingerprint
    assert corpus.fingerprint != preference_corpus(SETS[3], n=12, prompts=3, seed=1).fingerprint
    longer = preference_corpus(SETS[3], n=20, prompts=3)
    assert set(corpus.pairs_of("security")) <= set(longer.pairs_of("security"))
    two = preference_corpus(SETS[2], n=12, prompts=3)
    assert two.pairs_of("benevolence") == corpus.pairs_of("benevolence")
