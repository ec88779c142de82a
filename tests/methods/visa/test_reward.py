"""The reward: what it wants, what it will not pay for, and how its parts are put together."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.visa.fake import REWARD, SYSTEM
from valign.methods.visa.errors import RewriteError
from valign.methods.visa.guards import copied, length_penalty, length_ratio, repetition
from valign.methods.visa.reward import PARTS, advantages, gate, value_cosine

SOURCE = "the train at 9 goes from 4 and costs 20 today"
TARGET = np.zeros(10)
TARGET[SYSTEM.index("security")] = 1.0


def total(text, reward=REWARD):
    return float(reward.mark([SOURCE], [text], TARGET[None]).total[0])


GOOD = "the safe train at 9 goes from 4 and costs 20 today so stay safe"


def test_a_faithful_rewrite_with_the_value_earns_most():
    worse = {
        "no value": SOURCE,
        "wrong value": "the unsafe train at 9 goes from 4 and costs 20 today",
        "fact lost": "the safe train at 9 goes from 4 today so stay safe",
        "fact made up": "the safe train at 9 goes from 4 and costs 25 today so stay safe",
        "another value too": GOOD + " rank rank",
        "said again and again": " ".join([GOOD] * 3),
        "nothing": "",
        "value alone": "safe safe",
        "off topic": "safe safe 77 88",
    }
    for fault, text in worse.items():
        assert total(text) < total(GOOD) - 0.05, fault


def test_behind_the_gate_values_earn_nothing():
    marks = REWARD.mark([SOURCE] * 2, ["safe safe 77", GOOD], np.stack([TARGET] * 2))
    assert marks.parts[0, 0] == marks.parts[0, 1] == 0
    assert marks.parts[1, 0] == pytest.approx(1.0)
    open_ = replace(REWARD, floor=0.0).mark([SOURCE], ["safe safe 77"], TARGET[None])
    assert open_.parts[0, 0] == pytest.approx(1.0)
    assert gate(np.array([[0.1, 0.1], [0.0, 1.0], [1.0, 0.05]])).tolist() == [True, False, False]


def test_guards_bite_only_outside_their_limits():
    assert length_ratio(SOURCE, SOURCE) == 1
    assert [length_penalty(r) for r in (0.5, 1.0, 2.0)] == [0, 0, 0]
    assert length_penalty(0.25) == length_penalty(4.0) == length_penalty(0.0) == 1
    assert 0 < length_penalty(0.4) < length_penalty(0.3) < 1
    assert repetition(SOURCE) == 0 and repetition("") == 0
    assert repetition(" ".join(["a b c d"] * 8)) > 0.8
    assert copied(SOURCE, SOURCE) == 1 and copied(SOURCE, "all of it is quite new here") == 0
    loud = replace(REWARD, weights=(1.0, 1.0, 0.0))
    again = " ".join([GOOD] * 3)
    assert total(again, loud) > total(again)


def test_cosine_is_defined_where_vectors_vanish():
    zero, one = np.zeros((1, 10)), TARGET[None]
    assert value_cosine(zero, zero) == 1
    assert value_cosine(one, zero) == 0
    assert value_cosine(zero, one) == 0
    assert value_cosine(-one, one) == -1
    assert value_cosine(one / 2, one) == pytest.approx(1)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_the_cosine_is_bounded_and_blind_to_scale(data):
    rows = st.lists(st.floats(-1, 1), min_size=10, max_size=10)
    a, b = (np.array([data.draw(rows)]) for _ in range(2))
    found = value_cosine(a, b)
    assert -1 <= found <= 1
    if np.linalg.norm(a) > 0.01 and np.linalg.norm(b) > 0.2:
        assert value_cosine(a / 2, b) == pytest.approx(found, abs=1e-9)


def slow_advantages(parts, weights, group):
    """As plain as can be."""
    n, k = parts.shape
    summed = [0.0] * n
    for start in range(0, n, group):
        for part in range(k):
            own = [parts[i][part] for i in range(start, start + group)]
            middle = sum(own) / group
            spread = (sum((x - middle) ** 2 for x in own) / (group - 1)) ** 0.5
            for i in range(group):
                summed[start + i] += weights[part] * (own[i] - middle) / (spread + 1e-4)
    middle = sum(summed) / n
    spread = (sum((x - middle) ** 2 for x in summed) / (n - 1)) ** 0.5
    return [(x - middle) / (spread + 1e-4) for x in summed]


@pytest.mark.parametrize("group", [2, 4, 8])
def test_advantages_are_those_of_a_slow_reference(group):
    rng = np.random.default_rng(group)
    parts = rng.normal(size=(4 * group, 3)) * [1.0, 0.01, 5.0]
    parts[:group, 2] = 0.0
    weights = (1.0, 0.5, 2.0)
    np.testing.assert_allclose(
        advantages(parts, weights, group=group), slow_advantages(parts, weights, group)
    )


def test_parts_count_by_weight_and_not_by_spread():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(64, 2))
    small = parts * [1.0, 0.01]
    np.testing.assert_allclose(
        advantages(parts, (1, 1), group=8), advantages(small, (1, 1), group=8), atol=0.05
    )
    with pytest.raises(RewriteError, match="groups of 7"):
        advantages(parts, (1, 1), group=7)
    with pytest.raises(RewriteError, match="3 weights"):
        advantages(parts, (1, 1, 1), group=8)


def test_trainers_get_one_function_a_part_and_the_batch_is_judged_once():
    calls = []

    class Counting(type(REWARD.detector)):
        def score(self, texts, prompts=None):
            calls.append(len(texts))
            return super().score(texts, prompts)

    parts = replace(REWARD, detector=Counting()).functions()
    assert [f.__name__ for f in parts] == list(PARTS)
    columns = dict(source=[SOURCE] * 2, target=[TARGET.tolist()] * 2, question=[None] * 2)
    said = [[dict(role="assistant", content=GOOD)], [dict(role="assistant", content=SOURCE)]]
    found = np.array([f(completions=said, prompts=None, **columns) for f in parts])
    assert calls == [2]
    np.testing.assert_allclose(
        found.T, REWARD.mark([SOURCE] * 2, [GOOD, SOURCE], np.stack([TARGET] * 2)).parts
    )
    assert parts[0](completions=[GOOD, GOOD], **columns) == [1.0, 1.0]


def test_facts_of_the_question_are_additions_unless_it_is_allowed():
    seen = []

    class Noting(type(REWARD.fidelity)):
        def judge(self, sources, texts, prompts=None):
            seen.append(prompts)
            return super().judge(sources, texts)

    strict = replace(REWARD, fidelity=Noting())
    for reward in (strict, replace(strict, question=True)):
        reward.mark([SOURCE], [GOOD], TARGET[None], ["Is 77 a train?"])
    assert seen == [None, ["Is 77 a train?"]]
