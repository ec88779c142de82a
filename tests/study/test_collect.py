"""Rows written by hand, numbers computed by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from valign.corpora import load_corpus
from valign.detect import load_detector
from valign.detect.types import Detector
from valign.study.battery import MOST_TEXTS, TextBattery
from valign.study.collect import Collector, marked
from valign.study.plan import MethodChoice, Plan
from valign.study.results import Row, Sample
from valign.study.world import WorldBattery
from valign.values import Profile, load_system

SYSTEM = load_system("schwartz10")
TARGET = Profile.parse("benevolence", SYSTEM)
BATTERY = SimpleNamespace(system=SYSTEM, threshold=0.5, ceilings=frozenset())
STEERED = dict(target=str(TARGET), dose=0.5)


def row(
    number, method, scores, *, target="", dose=None, reading="ungated", answer="so be it", **more
):
    full = {name: scores.get(name, 0.0) for name in SYSTEM.names}
    return Row(run="r", method=method, target=target, dose=dose, prompt_id=f"d{number}",
               reading=reading, prompt="?", answer=answer, scores=full, **more)  # fmt: skip


def hand_made(base, moved, *, more=(), target=TARGET, **settings):
    """The block of CAA at dose 0.5; `base` and `moved` hold the scores of each prompt."""
    plan = Plan(methods=(MethodChoice("caa"),), targets=(target,), **settings)
    rows = [row(i, "none", scores) for i, scores in enumerate(base)]
    rows += [row(i, "caa", s, target=str(target), dose=0.5) for i, s in enumerate(moved)]
    return Collector(plan, BATTERY, [*rows, *more]).block(plan.methods[0], 0.5, None)


def test_gain_and_leakage_of_four_answers():
    base = [{}, {}, {"power": 0.4}, {"benevolence": 0.9}]
    moved = [{"benevolence": 0.5, "power": 1.0}, {"benevolence": 0.7}, {}, {"benevolence": 0.6}]
    block = hand_made(base, moved)
    here = {name: SYSTEM.index(name) for name in ("benevolence", "power", "security")}
    assert block.c0[here["benevolence"]].value == pytest.approx(1 / 4)
    assert block.c[0][here["benevolence"]].value == pytest.approx(3 / 4)
    assert block.summary.gain.value == block.targets[0].metrics.gain.value == pytest.approx(2 / 4)
    # 0.4 is below the threshold, so power rises from none of four to one.
    assert block.shift[0][here["power"]].value == pytest.approx(1 / 4)
    assert block.shift[0][here["security"]].value == 0
    assert block.targets[0].metrics.leakage_raw.value == pytest.approx(1 / 4 / 9)
    assert block.targets[0].metrics.leakage.value < block.targets[0].metrics.leakage_raw.value


def test_arguing_against_a_value_is_no_gain():
    block = hand_made([{}] * 4, [{"benevolence": -0.8}] * 4)
    assert block.summary.gain.value == -1
    towards_less = Profile.parse("benevolence=-1", SYSTEM)
    block = hand_made([{"benevolence": 0.8}] * 4, [{}] * 4, target=towards_less)
    assert block.summary.gain.value == 1


def test_every_number_has_its_interval_and_sample_size():
    base = [{"power": 0.9 * (i % 3 == 0)} for i in range(12)]
    moved = [{"benevolence": 0.9 * (i % 2)} for i in range(12)]
    block = hand_made(base, moved)
    numbers = [block.summary.gain, *block.c0, *block.c[0], *block.shift[0],
               block.targets[0].metrics.gain, block.summary.repetition]  # fmt: skip
    for number in numbers:
        if number.defined:
            assert number.low <= number.value <= number.high and number.n == 12
    assert block.summary.gain.low < block.summary.gain.value < block.summary.gain.high


def test_nothing_moved_is_no_certainty():
    block = hand_made([{}] * 6, [{}] * 6)
    gain = block.targets[0].metrics.gain
    assert gain.value == 0 and gain.low < 0 < gain.high
    assert block.targets[0].no_control


def test_a_row_that_is_missing_is_left_out_on_both_sides():
    base = [{}, {}, {}, {"benevolence": 1.0}]
    block = hand_made(base, [{"benevolence": 1.0}, {}, {}])  # the fourth is not there
    assert block.summary.gain.value == pytest.approx(1 / 3)


def test_neutral_answers_count_as_unchanged_only_word_for_word():
    said = [("It is 39.", "It is 39. "), ("Blue.", "Blue."), ("Six.", "Six!"), ("A.", "B.")]
    more = []
    for number, (a, b) in enumerate(said):
        more.append(row(number, "none", {}, reading="neutral", answer=a))
        more.append(
            row(number, "caa", {}, reading="neutral", answer=b, target=str(TARGET), dose=0.5)
        )
    block = hand_made([{}] * 4, [{}] * 4, more=more)
    assert block.summary.neutral_unchanged.value == pytest.approx(2 / 4)


def test_tax_of_fluency_and_facts():
    plan = Plan(methods=(MethodChoice("caa"),), targets=(TARGET,))
    facts = dict(facts=4, **STEERED)
    rows = [row(i, "none", {}, fluent=True, facts=4, facts_kept=4, facts_wrong=0) for i in range(2)]
    rows += [
        row(0, "caa", {}, fluent=True, facts_kept=3, facts_wrong=1, **facts, nll=6.0, tokens=3),
        row(1, "caa", {}, fluent=False, facts_kept=1, facts_wrong=1, **facts, nll=3.0, tokens=6),
    ]
    m = Collector(plan, BATTERY, rows).block(plan.methods[0], 0.5, None).summary
    assert m.fluency.value == pytest.approx(1 / 2)
    assert m.facts_kept.value == pytest.approx(4 / 8) and m.facts_wrong.value == pytest.approx(
        2 / 6
    )
    assert m.perplexity.value == pytest.approx(2.718281828)  # exp(9 / 9)


def test_the_same_neutral_questions_under_two_seeds_are_no_new_evidence():
    plan = Plan(methods=(MethodChoice("caa"),), targets=(TARGET,), seeds=(0, 1))

    def rows(seeds):
        made = []
        for seed in seeds:
            for i in range(8):
                made.append(row(i, "none", {}, seed=seed))
                made.append(row(i, "caa", {}, seed=seed, **STEERED))
                made.append(row(i, "none", {}, seed=seed, reading="neutral", answer="x"))
                made.append(row(i, "caa", {}, seed=seed, reading="neutral",
                                answer="x" if i % 2 else "y", **STEERED))  # fmt: skip
        return made

    once, twice = (
        Collector(plan, BATTERY, rows(seeds)).block(plan.methods[0], 0.5, None).summary
        for seeds in ([0], [0, 1])
    )
    assert twice.neutral_unchanged.n == once.neutral_unchanged.n == 8
    width = [m.neutral_unchanged.high - m.neutral_unchanged.low for m in (once, twice)]
    assert width[1] == pytest.approx(width[0], rel=0.35)


def sample(prompt="?", **answers):
    return Sample(prompt_id="d0", prompt=prompt, target=str(TARGET), answers=answers)


def test_in_the_world_the_sentences_that_count_are_marked():
    battery = WorldBattery()
    (ask,) = battery.dilemmas(3, 1)
    answers = {f"m{i}": item.truth.answer for i, item in enumerate(battery.dilemmas(3, 40))}
    (found,) = marked([sample(ask.text, **answers, none="Word salad of love.")], battery)
    assert found.marks["none"] == []
    assert sum(map(len, found.marks.values())) > 40
    for label, answer in answers.items():
        (judged,) = battery.read([ask], [answer])
        total = dict.fromkeys(SYSTEM.names, 0.0)
        for mark in found.marks[label]:
            assert answer[mark.start : mark.end].endswith(".")
            total[mark.value] += mark.weight
        assert total == pytest.approx(judged.scores)


def test_for_a_detector_the_words_are_marked_whose_loss_moves_it():
    detector = load_detector("wordlist")
    battery = TextBattery(load_corpus("valuetexts"), detector)
    text = "She wants power, and the rest is silence."
    (found,) = marked([sample(none="It is.", caa=text)], battery)
    assert found.marks["none"] == []
    mark = max(found.marks["caa"], key=lambda m: abs(m.weight))
    assert text[mark.start : mark.end] == "power" and mark.value == "power"
    whole, without = detector.score([text, "She wants , and the rest is silence."])
    expected = (whole - without)[SYSTEM.index("power")]
    assert mark.weight == pytest.approx(expected) and mark.weight > 0.1


class Counting:
    """Scores nothing, counts what it was asked."""

    name = "counting"
    system = SYSTEM

    def __init__(self, remote):
        self.remote, self.texts = remote, 0

    def score(self, texts, prompts=None):
        self.texts += len(texts)
        return np.zeros((len(texts), len(SYSTEM)))


def test_marking_many_answers_stays_cheap_and_asks_no_server():
    for remote in (False, True):
        detector = Counting(remote)
        assert isinstance(detector, Detector)
        battery = TextBattery(load_corpus("valuetexts"), detector)
        answers = {f"m{i}": "word " * 500 for i in range(20)}
        (found,) = marked([sample(**answers)], battery)
        assert not any(found.marks.values())
        assert detector.texts <= (0 if remote else MOST_TEXTS + 2 * len(answers))


def test_a_battery_that_cannot_say_leaves_the_samples_as_they_are():
    before = [sample(none="It is.")]
    assert marked(before, BATTERY) == before
