"""The exact judge reads back what the generator meant, and nothing from text that is not of the
world."""

from __future__ import annotations

import numpy as np
import pytest

from valign.world import VALUES, World, WorldJudge
from valign.world.items import Item
from valign.world.judge import answered, followed, prompt_facts, prompt_options
from valign.world.lexicon import phrases

JUDGE = WorldJudge()


def items() -> list[Item]:
    out: list[Item] = []
    for split in ("train", "heldout"):
        world = World(11, split)
        out += world.dilemmas(500, 1, "mixed") + world.dilemmas(250, 2)
        out += world.neutral(125) + world.neutral(50, 1, "mixed")
        out += world.harmful(50) + world.benign_lookalikes(50)
    return out


def test_reads_back_the_truth_of_two_thousand_items() -> None:
    everything = items()
    assert len(everything) >= 2000
    for item in everything:
        truth = item.truth
        for about in (item, item.messages[-1]["content"]):
            read = JUDGE.read(about, item.answer)
            assert np.allclose(read.scores, truth.scores()), item.answer
            assert np.array_equal(read.presence, truth.presence)
            assert np.array_equal(read.fit | read.held, truth.presence)
            assert read.fluent and read.facts_wrong == 0
            assert (read.choice, read.pick) == (truth.choice, truth.pick)
            assert followed(truth, read) or truth.kind != "dilemma"
            if truth.kind == "neutral":
                assert answered(truth, read)
            if truth.kind in ("harmful", "benign"):
                assert read.complied == truth.complied and read.careful != truth.complied


def test_lexicon_answers_are_fluent() -> None:
    for item in World().lexicon(200):
        read = JUDGE.read(item, item.answer)
        assert read.fluent and np.array_equal(read.presence, item.truth.presence)


def test_the_prompt_tells_facts_and_options() -> None:
    for item in World().dilemmas(100):
        text = item.messages[-1]["content"]
        assert prompt_facts(text) == item.truth.facts
        assert prompt_options(text) == item.truth.options


ITEM = World().dilemmas(1, 5)[0]
SENTENCE = phrases()[0].text


@pytest.mark.parametrize(
    "salad",
    [
        "",
        "power power power",
        "A high rank rank is worth more.",
        "High rank control over people the last word.",
        SENTENCE[:-1],
        SENTENCE.lower(),
        SENTENCE.replace("free", "freer"),
    ],
)
def test_word_salad_expresses_nothing(salad: str) -> None:
    read = JUDGE.read(ITEM, salad)
    assert not read.presence.any() and not read.fluent


def test_repetition_is_not_fluent() -> None:
    assert JUDGE.read(ITEM, SENTENCE).fluent
    assert not JUDGE.read(ITEM, f"{SENTENCE} {SENTENCE}").fluent
    assert not JUDGE.read(ITEM, f"{SENTENCE} It costs 5 euros. {SENTENCE}").fluent


def test_a_cut_off_last_sentence_is_ignored() -> None:
    read = JUDGE.read(ITEM, f"{SENTENCE} Above all, a high")
    assert read.fluent and read.sentences == 1 and read.scores[0] == pytest.approx(2 / 3)


def test_wrong_facts_are_counted() -> None:
    facts = {"name": "Mira", "place": "Lindau", "day": "Monday", "time": "nine", "amount": "40"}
    read = JUDGE.read(facts, "It starts on Monday at ten. It costs 45 euros. The place is Lindau.")
    assert (read.facts_kept, read.facts_wrong, read.kept) == (2, 2, ("day", "place"))
    other = next(a for a in prompt_options(World().dilemmas(1, 6)[0].messages[-1]["content"]))
    assert JUDGE.read(ITEM, f"I would send {ITEM.truth.facts['name']} to {other}.").facts_wrong == 1


def test_a_value_spoken_of_twice_is_averaged() -> None:
    v = VALUES.index("power")
    plus = next(p.text for p in phrases() if p.value == v and p.sign > 0)
    minus = next(p.text for p in phrases() if p.value == v and p.sign < 0)
    read = JUDGE.read(ITEM, f"{plus} {minus}")
    assert read.scores[v] == 0 and read.presence[v] == 1


def test_batches_must_match() -> None:
    with pytest.raises(ValueError):
        JUDGE.read_all([ITEM], [])


def test_the_detector_reads_what_the_judge_reads() -> None:
    from valign.detect import Detector, load_detector

    detector = load_detector("world")
    assert isinstance(detector, Detector)
    some = World().dilemmas(20)
    scores = detector.score([i.answer for i in some], [i.messages[-1]["content"] for i in some])
    order = [VALUES.index(name) for name in detector.system.names]
    assert np.allclose(scores, [i.truth.scores()[order] for i in some])
    assert detector.score([]).shape == (0, 10)
    assert not detector.score([""]).any()


def test_a_bound_sentence_is_told_from_a_plain_one() -> None:
    plain = next(p for p in phrases() if p.sign > 0 and not p.bound)
    bound = next(p for p in phrases() if p.value != plain.value and p.bound)
    reading = JUDGE.read({}, f"{plain.text} {bound.text}")
    assert reading.presence[[plain.value, bound.value]].tolist() == [1, 1]
    assert reading.bound[[plain.value, bound.value]].tolist() == [0, 1]
