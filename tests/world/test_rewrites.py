"""Rewriting tasks: references are exact, faults are faults, and the fact check sees them."""

import numpy as np
import pytest

from valign.world.detector import WorldDetector
from valign.world.judge import WorldJudge
from valign.world.lexicon import phrases
from valign.world.rewrites import WorldFidelity, all_facts, rewrites
from valign.world.tuner import WorldTuner

DETECTOR, FIDELITY = WorldDetector(), WorldFidelity()


@pytest.fixture(scope="module", params=["train", "heldout"])
def tasks(request):
    return rewrites(200, seed=1, split=request.param)


def test_scores_of_source_and_reference_are_those_that_are_claimed(tasks):
    for name, wanted in (("source", "original"), ("rewrite", "target")):
        found = DETECTOR.score([getattr(t, name) for t in tasks])
        np.testing.assert_allclose(found, [getattr(t, wanted) for t in tasks])
    for task in tasks:
        moved = np.array(task.original) != np.array(task.target)
        names = {n for n, m in zip(DETECTOR.system.names, moved, strict=True) if m}
        assert names == set(task.changes) and 1 <= len(names) <= 2


def test_references_keep_every_fact_and_faults_do_not(tasks):
    sources = [t.source for t in tasks]
    assert (FIDELITY.judge(sources, [t.rewrite for t in tasks]) == 1).all()
    lost = FIDELITY.judge(sources, [t.worse[1] for t in tasks])
    assert (lost[:, 0] == 1).all() and (lost[:, 1] < 1).all()
    assert not any(FIDELITY.faults(sources, [t.rewrite for t in tasks]))
    dropped = FIDELITY.faults(sources, [t.worse[1] for t in tasks])
    assert all(any(reason.startswith("drops") for reason in reasons) for reasons in dropped)
    assert all(t.worse[0] == t.source for t in tasks)
    judge = WorldJudge()
    assert all(judge.read({}, t.rewrite).fluent for t in tasks)


def test_the_same_seed_gives_the_same_tasks_and_more_never_change_the_earlier(tasks):
    split = tasks[0].id.split("-")[1]
    assert rewrites(250, seed=1, split=split)[:200] == tasks
    assert rewrites(1, seed=2, split=split) != tasks[:1]


def test_training_tasks_hold_no_sentence_that_is_kept_for_judging():
    held = [p.text.lower().rstrip(".") for p in phrases() if p.held]
    said = " ".join(t.source + " " + t.rewrite for t in rewrites(300)).lower()
    assert not any(text in said for text in held)
    judged = " ".join(t.source for t in rewrites(300, split="heldout")).lower()
    assert sum(text in judged for text in held) > 10


def test_the_fact_check_by_hand():
    source = "Vera should go to the temple tour. It starts on Friday at four. It costs 15 euros."
    facts = all_facts(source)
    assert ("day", "Friday") in facts and ("amount", "15") in facts
    rows = {
        source: (1, 1),
        "": (0, 0),
        "no sentence of this world": (0, 0),
        source + " Purple cats sing.": (3 / 4, 1),
        source.replace("15", "25"): (2 / 3, (len(facts) - 1) / len(facts)),
        "Think of a high rank first.": (1, 0),
    }
    for text, wanted in rows.items():
        np.testing.assert_allclose(FIDELITY.judge([source], [text])[0], wanted, err_msg=text)
    told = FIDELITY.judge([source], [source.replace("15", "25")], ["Both cost 25 euros."])
    assert told[0, 0] == 1  # the question says so
    (faults,) = FIDELITY.faults([source], [source.replace("15", "25") + " Purple cats sing."])
    assert faults == ("drops amount '15'", "adds amount '25'",
                      "has 1 sentence(s) that are not the world's")  # fmt: skip


def test_the_tuner_reads_what_it_may_learn_from_and_less_of_the_rest():
    tuner = WorldTuner()
    assert tuner.name != DETECTOR.name

    def error(split):
        tasks = rewrites(150, seed=77, split=split)
        found = tuner.score([t.source for t in tasks])
        return np.abs(found - np.array([t.original for t in tasks])).sum(axis=1).mean()

    assert error("train") < 0.3 < error("heldout") < 1.5
    assert (tuner.score(["", "Purple cats sing."]) == 0).all()
