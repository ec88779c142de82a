"""Rows written by hand, numbers computed by hand."""

from types import SimpleNamespace

import pytest

from valign.study.collect import Collector
from valign.study.plan import MethodChoice, Plan
from valign.study.results import Row
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
