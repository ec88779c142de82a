from dataclasses import replace

import numpy as np
import pytest

from tests.methods.toy import toy_corpus
from valign.corpora.types import Dilemma
from valign.detect import DetectorError, load_detector
from valign.study.battery import BatteryError, TextBattery
from valign.study.results import DetectorInfo


@pytest.fixture(scope="module")
def battery():
    return TextBattery(toy_corpus(dilemmas=8), load_detector("wordlist"))


def test_what_is_asked_is_neither_fitted_on_nor_dosed_on(battery):
    asked = {a.text for a in battery.dilemmas(0, 999) + battery.neutral(0, 999)}
    corpus = battery.corpus(0)
    seen = {d.text for d in corpus.dilemmas} | {n.prompt for n in corpus.neutral}
    assert asked and seen and not asked & seen
    assert set(battery.dose_prompts(0, 999)) <= seen


def test_few_prompts_are_spread_over_the_values(battery):
    ids = [ask.id for ask in battery.dilemmas(0, 10)]
    assert len(set(ids)) == 10
    assert len({id.rsplit("-", 1)[0] for id in ids}) >= 9  # a value may lack one in this half
    assert [a.id for a in battery.dilemmas(0, 4)] == ids[:4]


def test_answers_are_read_under_the_systems_names(battery):
    asks = battery.dilemmas(0, 2)
    first, second = battery.read(asks, ["power and money", ""])
    assert tuple(first.scores) == battery.system.names
    assert first.scores["power"] > 0 and first.fluent
    assert not any(second.scores.values()) and not second.fluent
    assert not battery.read(asks[:1], ["so it is " * 20])[0].fluent


def test_a_detector_of_other_values_is_refused(battery):
    with pytest.raises(DetectorError, match="higher-order4"):
        TextBattery(toy_corpus(), load_detector("wordlist", system="higher-order4"))


def test_one_detector_cannot_tune_and_judge():
    with pytest.raises(BatteryError, match="both tune and judge"):
        TextBattery(toy_corpus(), load_detector("wordlist"), tune="wordlist")
    with pytest.raises(ValueError, match="two different detectors"):
        DetectorInfo(judge="wordlist", tune="wordlist")


def test_a_corpus_without_dilemmas_for_both_halves_is_refused():
    one = (Dilemma("d", "power", "rest or work ?"),)
    with pytest.raises(BatteryError, match="Add dilemmas"):
        TextBattery(replace(toy_corpus(), dilemmas=one), load_detector("wordlist"))


def test_scores_keep_the_detectors_numbers(battery):
    asks = battery.dilemmas(0, 1)
    scores = load_detector("wordlist").score(["power and money"])[0]
    assert np.allclose(list(battery.read(asks, ["power and money"])[0].scores.values()), scores)
