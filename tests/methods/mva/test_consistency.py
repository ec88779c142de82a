"""VC-Soup's filter on pairs whose consistency is known by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.lm.tiny import WORDS, tiny_lm
from tests.methods.toy import toy_corpus
from valign.corpora import split_corpus
from valign.corpora.types import Corpus, Pair
from valign.detect import DetectorError
from valign.methods import FitError, MethodSettingError, get_method
from valign.methods.mva.consistency import consistent_part
from valign.methods.svgt.harm import world_harm
from valign.values import Profile, load_system
from valign.world.corpus import world_corpus
from valign.world.preferences import preference_corpus
from valign.world.tuner import WorldTuner

HH = load_system("hh")


class Stated:
    """Reads `1 -0.5` as the two scores."""

    name, system = "stated", HH

    def score(self, texts, prompts=None):
        return np.array([[float(x) for x in text.split()] for text in texts])


def pair(name, value, chosen, rejected="0 0"):
    return Pair(name, value, chosen, rejected, prompt="?")


# cosines with (1, 1): 1, .707, 0, -.447, 1, -1
CORPUS = Corpus(system=HH, name="stated", pairs=(
    pair("both", "helpful", "0.5 0.5"), pair("one", "helpful", "1 0"),
    pair("bought", "helpful", "0.5 -0.5"), pair("dear", "helpful", "0.25 -0.75"),
    pair("gap", "harmless", "0.75 0.5", "0.5 0.25"), pair("worse", "harmless", "0 0", "1 1"),
))  # fmt: skip


@pytest.mark.parametrize(("least", "kept"), [
    (-1, {"both", "one", "bought", "dear", "gap", "worse"}),
    (-0.4, {"both", "one", "bought", "gap"}), (0.1, {"both", "one", "gap"}),
    (0.8, {"both", "gap"}),
])  # fmt: skip
def test_pairs_stay_by_their_cosine_with_all_ones(least, kept):
    left, counts = consistent_part(CORPUS, ("helpful", "harmless"), least, Stated())
    assert {p.id for p in left.pairs} == kept
    own = {p.id for p in CORPUS.pairs_of("helpful")}
    assert counts["helpful"] == (len(own & kept), 4)


def test_one_value_asks_only_for_its_own_sign_and_other_values_pairs_stay():
    left, counts = consistent_part(CORPUS, ("helpful",), 0.5, Stated())
    assert counts == {"helpful": (4, 4)} and len(left.pairs) == 6
    with pytest.raises(FitError, match="none of 1 pairs for harmless"):
        only = Corpus(system=HH, name="one", pairs=(CORPUS.pairs[-1],))
        consistent_part(only, ("harmless",), 0, Stated())


def test_a_reader_of_other_values_is_refused():
    with pytest.raises(DetectorError, match=r"world-ngrams-0 reads schwartz10.*hh"):
        consistent_part(CORPUS, ("helpful",), 0, WorldTuner())


@pytest.mark.parametrize(("made", "scorer"), [
    (replace(toy_corpus(), name="worldviews"), "named"),
    (replace(toy_corpus(), name="world"), "named"),
    (world_corpus(pairs=1, prompts=1), "world"),
    (split_corpus(preference_corpus(["power"], n=1, prompts=1))[0], "world"),
    (world_harm(requests=4), "named"),
])  # fmt: skip
def test_the_worlds_reader_reads_the_worlds_texts_whatever_they_are_called(
    made, scorer, monkeypatch
):
    asked = []
    monkeypatch.setattr("valign.detect.load_detector", lambda *args, **kwargs: "named")
    monkeypatch.setattr("valign.world.tuner.WorldTuner", lambda: "world")
    monkeypatch.setattr(
        "valign.methods.mva.consistency.consistent_part",
        lambda corpus, values, least, detector: asked.append(detector),
    )
    get_method("dpo", consistency=0).consistent(made, Profile.of(made.system))
    assert asked == [scorer]


@pytest.mark.parametrize("method", ["mva", "dpo"])
def test_a_fit_trains_on_what_is_left(method, tmp_path):
    pytest.importorskip("trl")
    corpus = toy_corpus()  # a chosen text has its value's word twice, a rejected one no such word
    words = tmp_path / "words.json"
    words.write_text(json.dumps({v: [w] for v, w in zip(corpus.system.names, WORDS, strict=False)}))
    target = Profile.parse("benevolence=1,power=1", corpus.system)
    small = dict(rank=2, steps=1, batch_size=2, detector=str(words))
    control = get_method(method, consistency=0.7, **small).fit(tiny_lm(), corpus, target)
    assert control.provenance["pairs_kept"] == {"power": (12, 12), "benevolence": (12, 12)}
    with pytest.raises(FitError, match="leaves none of 12 pairs for power"):
        get_method(method, consistency=0.71, **small).fit(tiny_lm(), corpus, target)
    with pytest.raises(MethodSettingError, match="less than or equal to 1"):
        get_method(method, consistency=2)
