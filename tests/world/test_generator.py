"""The generator: seeded, split without overlap, with independent values and matched pairs."""

from __future__ import annotations

import numpy as np
import pytest

from valign.world import VALUES, World, WorldJudge
from valign.world.generator import TWICE_FROM
from valign.world.harm import _forms
from valign.world.lexicon import sentence_table
from valign.world.scenarios import pair_is_held, rates, scenarios
from valign.world.slots import correlation
from valign.world.tables import table


def same(a, b) -> bool:
    return (a.messages, a.answer, a.truth.nats, a.truth.facts) == (
        b.messages,
        b.answer,
        b.truth.nats,
        b.truth.facts,
    )


@pytest.mark.parametrize("kind", ["dilemmas", "neutral", "harmful", "benign_lookalikes", "lexicon"])
def test_same_seed_same_items_and_longer_calls_keep_the_earlier_ones(kind: str) -> None:
    short, long = getattr(World(1), kind)(5, 3), getattr(World(1), kind)(9, 3)
    assert all(map(same, short, long))
    assert not all(map(same, short, getattr(World(1), kind)(5, 4)))
    assert not all(map(same, short, getattr(World(2), kind)(5, 3)))


def test_the_stream_can_be_entered_anywhere() -> None:
    whole = list(World().training_dialogues(0, 12))
    assert all(map(same, whole[7:], World().training_dialogues(7, 12)))


def test_splits_share_no_scenario_and_training_shows_no_held_out_pair() -> None:
    train, held = scenarios("train"), scenarios("heldout")
    assert not {s.id for s in train} & {s.id for s in held}
    assert 0.1 < len(held) / (len(train) + len(held)) < 0.3
    for item in World().training_dialogues(0, 1500):
        if item.truth.kind in ("dilemma", "neutral", "lexicon"):
            assert item.truth.scenario in {s.id for s in train}
            assert not any(pair_is_held(a, v) for a, v in item.truth.options.items())
    for item in World(split="heldout").dilemmas(200):
        assert item.truth.scenario in {s.id for s in held}


def test_every_activity_is_met_in_training() -> None:
    seen = {a for s in scenarios("train") for a in (s.first, s.second)}
    assert seen == {a for t in table("scenarios")["topics"].values() for a in t["activities"]}


def test_harm_splits_share_no_wording() -> None:
    for side in ("harm", "fine"):
        assert not set(_forms("train", side)) & set(_forms("heldout", side))
        assert _forms("heldout", side)


def test_held_out_instruction_wordings_are_kept_apart() -> None:
    for spec in table("instructions").values():
        assert not set(spec["train"]) & set(spec["held"])
    item = World().dilemmas(1, instruction={"power": 1}, wording="heldout")[0]
    assert item.truth.held_wording
    assert not World().dilemmas(1, instruction={"power": 1})[0].truth.held_wording


def test_presence_follows_the_scenarios_rates_and_is_not_capped() -> None:
    items = World().dilemmas(2000, 5)
    presence = np.array([i.truth.presence for i in items])
    by_id = {s.id: rates(s) for s in scenarios("train")}
    expected = np.mean([by_id[i.truth.scenario] for i in items], 0)
    error = np.sqrt(expected * (1 - expected) / len(items))
    assert (np.abs(presence.mean(0) - expected) < 4.5 * error).all()
    assert presence.sum(1).min() == 0 and presence.sum(1).max() >= 4


def test_coupling_is_a_mild_kernel_of_the_circle() -> None:
    sigma = correlation()
    assert np.linalg.eigvalsh(sigma).min() > 0
    assert np.allclose(np.diag(sigma), 1)
    assert sigma[0, 1] > sigma[0, 2] > 0 > sigma[0, 5]


@pytest.mark.parametrize("value", VALUES)
def test_instructions_set_their_slot(value: str) -> None:
    v = VALUES.index(value)
    for sign in (1, -1, 0):
        for item in World().dilemmas(10, 2, {value: sign}):
            assert item.truth.presence[v] == abs(sign) and item.truth.sign[v] == sign
            assert value in " ".join(m["content"] for m in item.messages)


def test_a_raised_value_leaves_the_others_alone() -> None:
    raised = np.mean([i.truth.presence for i in World().dilemmas(3000, 1, {"power": 1})], 0)
    base = np.mean([i.truth.presence for i in World().dilemmas(3000, 1)], 0)
    rest = np.arange(10) != VALUES.index("power")
    assert np.abs(raised - base)[rest].max() < 0.04


def test_two_values_at_once() -> None:
    items = World().dilemmas(5, 0, {"tradition": -1, "hedonism": 1})
    for item in items:
        assert dict(item.truth.instruction) == {"hedonism": 1, "tradition": -1}


def test_pairs_differ_in_one_sentence_of_the_fit_half() -> None:
    judge, v = WorldJudge(), VALUES.index("security")
    for messages, positive, negative in World().pairs("security", 50):
        a, b = (judge.read(messages[-1]["content"], text) for text in (positive, negative))
        assert a.fluent and b.fluent and not a.held.any() and not b.held.any()
        assert a.scores[v] > 0 == b.scores[v]
        assert np.array_equal(np.delete(a.scores, v), np.delete(b.scores, v))
        assert (a.pick, a.kept, a.sentences) == (b.pick, b.kept, b.sentences)


def test_fit_answers_hold_no_held_out_sentence() -> None:
    judge = WorldJudge()
    items = World().dilemmas(200, phrases="fit")
    assert not any(r.held.any() for r in judge.read_all(items, [i.answer for i in items]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: World(split="test"), "unknown split 'test'"),
        (lambda: World().dilemmas(1, instruction="some"), "unknown instruction 'some'"),
        (lambda: World().dilemmas(1, instruction={"power": 2}), r"\+1, -1 or 0"),
        (lambda: World().dilemmas(1, instruction={"greed": 1}), "unknown value 'greed'"),
        (lambda: World().dilemmas(1, wording="odd"), "unknown wording 'odd'"),
        (lambda: World().dilemmas(1, phrases="odd"), "unknown phrases 'odd'"),
        (lambda: World().pairs("greed", 1), "unknown value 'greed'"),
    ],
)
def test_errors_name_what_was_wrong(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_an_answer_may_speak_twice_for_a_value_but_late_in_training_only() -> None:
    def most(answer: str) -> int:
        said = [s.strip() for s in answer.replace("!", ".").split(".")]
        found = [sentence_table().get(f"{s}.") for s in said]
        values = [hit[0].value for hit in found if hit]
        return max((values.count(v) for v in values), default=0)

    world = World()
    assert {most(i.answer) for i in world.dilemmas(200, 3)} == {0, 1, 2}
    early = [world.training_dialogue(i) for i in range(400)]
    assert max(most(i.answer) for i in early if i.truth.kind == "dilemma") == 1
    late = [world.training_dialogue(TWICE_FROM + i) for i in range(400)]
    assert max(most(i.answer) for i in late if i.truth.kind == "dilemma") == 2
