"""The closed loop with rewriters that improve, never improve, or break facts."""

import json
from dataclasses import dataclass

import pytest

from tests.methods.visa.fake import REWARD, SYSTEM, ScriptedRewriter
from valign.methods.visa.errors import RewriteError
from valign.methods.visa.loop import Thresholds, Visa, Wish
from valign.methods.visa.search import TargetSearch, search
from valign.values import Profile, load_system

SOURCE = "the train at 9 costs 20"
GOOD = "the safe train at 9 costs 20 so stay safe"
TARGET = Profile.of(SYSTEM, security=1)


@dataclass
class Said:
    shift: dict
    confidence: float = 0.9

    def items(self):
        return self.shift.items()


class Translator:
    def translate(self, instruction):
        return {
            "safer": Said({"security": 1.0}),
            "thanks": Said({}),
            "hm": Said({"power": 1.0}, 0.2),
        }[instruction]


def visa(*script, **more):
    return Visa(ScriptedRewriter([list(s) for s in script]), REWARD, Translator(), **more)


def test_a_good_first_rewrite_ends_the_loop():
    loop = visa([GOOD])
    made = loop.rewrite(SOURCE, profile=TARGET)
    assert (made.text, made.passed, made.warning, made.chosen) == (GOOD, True, None, 0)
    assert made.shift == {"security": 1.0} and made.target["security"] == 1.0
    assert loop.rewriter.asked[0][0][0].changes == {"security": 1.0}
    assert len(loop.rewriter.asked) == 1
    assert json.loads(json.dumps(made.to_dict()))["attempts"][0]["distance"] == 0


def test_it_tries_again_with_draws_until_one_passes():
    loop = visa([SOURCE], [SOURCE, "safe safe 1", "safe safe 77"], [SOURCE, GOOD], candidates=3)
    made = loop.rewrite(SOURCE, instruction="safer")
    assert made.passed and made.text == GOOD
    assert [a.round for a in made.attempts] == [0, 1, 1, 1, 2, 2, 2]
    temperatures = [t for _, t, _ in loop.rewriter.asked]
    assert temperatures == [0.0, 1.0, 1.0]
    seeds = [s for _, _, s in loop.rewriter.asked]
    assert len(set(seeds)) == 3


def test_a_rewriter_that_never_improves_gives_its_best_and_a_warning():
    made = visa([SOURCE], ["the safe train at 9 costs 20", SOURCE], rounds=1).rewrite(
        SOURCE, profile=TARGET, share=1.0
    )
    assert made.passed  # half of the way is left, which is just allowed
    made = visa([SOURCE], [SOURCE], rounds=2).rewrite(SOURCE, profile=TARGET)
    assert not made.passed and made.text == SOURCE
    assert "1.00 from the target (limit 0.50)" in made.warning
    assert len(made.attempts) == 1 + 2 * 8


def test_broken_facts_do_not_pass():
    broken = "the safe train at 10 costs 30 so stay safe"
    made = visa([broken]).rewrite(SOURCE, profile=TARGET)
    assert not made.passed and "consistency" in made.warning
    half = "the safe train at 9 costs 30 so stay safe"
    lax = Thresholds(facts=False)
    made = visa([broken], [broken, half], thresholds=lax).rewrite(SOURCE, profile=TARGET)
    assert made.passed and made.text == half and made.attempts[made.chosen].consistency == 0.5
    strict = visa([half], thresholds=Thresholds(consistency=0.8, facts=False))
    assert not strict.rewrite(SOURCE, profile=TARGET).passed
    assert not visa([""]).rewrite(SOURCE, profile=TARGET).passed


def test_one_fact_changed_is_turned_away_and_named():
    half = "the safe train at 9 costs 30 so stay safe"
    made = visa([half], [half, GOOD]).rewrite(SOURCE, profile=TARGET)
    assert made.passed and made.text == GOOD
    assert made.attempts[0].faults == ("drops 20", "adds 30") and not made.attempts[0].passed
    made = visa([half]).rewrite(SOURCE, profile=TARGET)
    assert not made.passed and made.text == half
    assert "does not keep the facts (drops 20; adds 30)" in made.warning


def test_where_nothing_is_asked_nothing_is_rewritten():
    loop = visa([GOOD])
    for wish, word in (
        (dict(instruction="thanks"), "no change"),
        (dict(shift={}), "already"),
        (dict(profile=Profile.of(SYSTEM)), "already"),
    ):
        made = loop.rewrite(SOURCE, **wish)
        assert made.text == SOURCE and made.passed and word in made.warning
    assert loop.rewriter.asked == []
    unsure = visa([GOOD], thresholds=Thresholds(confidence=0.5)).rewrite(SOURCE, instruction="hm")
    assert unsure.text == SOURCE and "not understood" in unsure.warning


def test_many_wishes_share_rounds_and_only_open_ones_go_on():
    loop = visa([GOOD, SOURCE], [GOOD], candidates=2)
    made = loop.rewrite_all([Wish(SOURCE, profile=TARGET), Wish(SOURCE, shift={"security": 1})])
    assert [m.passed for m in made] == [True, True]
    assert [len(tasks) for tasks, _, _ in loop.rewriter.asked] == [2, 2]
    assert [len(m.attempts) for m in made] == [1, 3]
    assert loop.rewrite_all([]) == []


def test_a_whole_profile_empties_what_it_does_not_name():
    source = "the rank of the train at 9"
    part = visa([GOOD]).rewrite(source, profile=TARGET)
    whole = visa([GOOD]).rewrite(source, profile=TARGET, whole=True)
    assert part.target["power"] == 0.5 and whole.target["power"] == 0
    assert whole.shift == {"power": -0.5, "security": 1.0}


def test_values_of_another_system_are_refused_and_not_matched_by_place():
    other = load_system("schwartz19")
    with pytest.raises(RewriteError, match="speaks of schwartz19, the rewriter of schwartz10"):
        visa([GOOD]).rewrite(SOURCE, profile=Profile.of(other, face=1), whole=True)

    class Foreign:
        def translate(self, instruction):
            return Said({"face": 1.0})

    loop = Visa(ScriptedRewriter([[GOOD]]), REWARD, Foreign())
    with pytest.raises(RewriteError, match="change of face"):
        loop.rewrite(SOURCE, instruction="save my face")


def test_unclear_wishes_are_refused():
    with pytest.raises(RewriteError, match="one way"):
        visa([GOOD]).rewrite(SOURCE)
    with pytest.raises(RewriteError, match="one way"):
        visa([GOOD]).rewrite(SOURCE, instruction="safer", profile=TARGET)
    with pytest.raises(RewriteError, match="no text"):
        visa([GOOD]).rewrite(" ", profile=TARGET)
    with pytest.raises(RewriteError, match="translator"):
        Visa(ScriptedRewriter([[GOOD]]), REWARD).rewrite(SOURCE, instruction="safer")


@pytest.mark.parametrize("best", [(1.0, -0.5), (-2.0, 2.0), (0.0, 0.0), (0.5, 1.5)])
def test_a_search_by_comparisons_finds_the_best_shift(best):
    names = ("security", "power")
    tried = TargetSearch(names, step=1.0, least=0.5)

    def likes(shift):
        return -sum((shift[n] - b) ** 2 for n, b in zip(names, best, strict=True))

    asked = 0
    while (new := tried.propose()) is not None:
        assert all(-2 <= x <= 2 for x in new.values())
        tried.answer(likes(new) > likes(tried.best))
        asked += 1
    assert tuple(tried.best.values()) == best
    assert asked <= 30
    with pytest.raises(RewriteError):
        tried.answer(True)


class Obedient:
    """Writes exactly the security it is asked for."""

    system, steps = SYSTEM, 2

    def rewrite(self, tasks, **options):
        return [self.one(task) for task in tasks]

    def one(self, task):
        level = round(2 * task.changes.get("security", 0))
        return task.source + (" safe" if level > 0 else " unsafe") * abs(level)


def test_a_person_who_only_says_better_or_worse_gets_there():
    def better(old, new):
        return new.text.count(" safe") > old.text.count(" safe")

    found = search(Visa(Obedient(), REWARD), SOURCE, better, values=["power", "security"])
    assert found.best.text == SOURCE + " safe safe"
    assert found.shift == {"security": 1.0}
    assert found.front[0] is found.best and 0 < found.asked <= 30
