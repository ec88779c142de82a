"""The word-list baseline: counts, endings, dictionaries, refusals."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from valign.detect import DetectorError, load_detector
from valign.detect.wordlist import WordListDetector
from valign.values import load_system

TEN = load_system("schwartz10")


def test_score_is_the_stated_function_of_hits_and_length():
    lists = {name: ["zzz"] for name in TEN.names} | {"power": ["rule", "throne*"]}
    detector = WordListDetector(lists, TEN)
    power = TEN.index("power")
    short = detector.score(["They rule from thrones."])[0, power]  # 2 hits, 4 words count as 20
    long = detector.score(["rule " + "word " * 39])[0, power]  # 1 hit in 40
    assert short == pytest.approx(2 / 3)
    assert long == pytest.approx(0.5 / 1.5)


def test_a_starred_word_stands_for_any_ending_and_a_plain_one_does_not():
    lists = {name: ["zzz"] for name in TEN.names} | {"power": ["rule"], "security": ["safe*"]}
    scores = WordListDetector(lists, TEN).score(["rulers", "safest"])
    assert scores[0, TEN.index("power")] == 0
    assert scores[1, TEN.index("security")] > 0


@given(st.lists(st.text(max_size=80), max_size=4))
def test_scores_stay_in_range_for_any_text(texts):
    scores = load_detector("wordlist").score(texts)
    assert scores.shape == (len(texts), len(TEN))
    assert np.all((scores >= 0) & (scores < 1))


@pytest.mark.parametrize("system", ["schwartz10", "schwartz19", "hh", "harm"])
def test_every_bundled_system_gets_a_detector_that_knows_its_own_keywords(system):
    detector = WordListDetector.from_system(system)
    texts = [" ".join(value.keywords) or value.title for value in detector.system]
    scores = detector.score(texts)
    assert np.all(np.diag(scores) > 0)


def test_a_dictionary_is_read_whatever_the_spelling_of_its_names(tmp_path):
    words = {name.title().replace("-", " "): ["apple"] for name in TEN.names}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(words))
    detector = load_detector(path)
    assert detector.name == "wordlist-mine"
    assert np.all(detector.score(["an apple"]) > 0)


@pytest.mark.parametrize(
    ("content", "says"),
    [("[1]", "expected"), ("no json", "not a JSON"), ('{"power": ["x"]}', "Without words")],
)
def test_a_dictionary_of_another_shape_is_refused(tmp_path, content, says):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(DetectorError, match=says):
        WordListDetector.from_dictionary(path)


def test_the_personal_values_dictionary_fits(public_data):
    detector = WordListDetector.from_dictionary(
        public_data / "personal_values_dictionary" / "en.json"
    )
    scores = detector.score(["She loves freedom and independence.", "He must obey his parents."])
    assert scores[0].argmax() == TEN.index("self-direction")
    assert scores[1, TEN.index("conformity")] > 0
