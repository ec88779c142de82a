"""Win rates of mixtures against the plain model, by a judge that misbehaves on purpose."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from tests.detect.fake_endpoint import completion, fails, says, serving
from tests.lm.tiny import tiny_lm
from tests.study.test_front import PLAN, Words, control_for
from valign.detect.judge import JudgeError, LLMJudge
from valign.report.front import render_front
from valign.study.front import FrontError, Scorer, mixture, search_front
from valign.study.front_judge import SAME, check_judge, contest, corners, win_rates
from valign.study.front_result import PLAIN, FrontResult, judge_front
from valign.study.front_rows import FrontRows

server = pytest.fixture(serving)
VALUES = ("power", "security")


def judge_at(server, **given):
    return LLMJudge(server.url, "m", timeout=5, tries=2, backoff=0.01, concurrency=2, **given)


def chooser(rule):
    """A judge that goes by a rule over (value, text shown first, text shown second)."""

    def answer(handler, body):
        prompt = body["messages"][0]["content"]
        value = re.search(r"The value, ([\w-]+) ", prompt)[1]
        texts = [
            re.search(rf"<{which}-text-\w+>\n(.*?)\n</{which}", prompt, re.DOTALL)[1]
            for which in ("first", "second")
        ]
        handler.send(200, completion(json.dumps({"choice": rule(value, *texts)})))

    return answer


def by_count(value, first, second):
    """More letters win for power, more different words for security."""
    count = len if value == "power" else lambda text: len(set(text.split()))
    a, b = count(first), count(second)
    return "tie" if a == b else "first" if a > b else "second"


@pytest.fixture(scope="module")
def searched():
    lm = tiny_lm()
    control, battery = control_for(lm, VALUES), Words()
    scorer = Scorer(lm, battery, FrontRows(None, "x"), PLAN)
    found = search_front(scorer, control, battery.dilemmas(0, PLAN.search), PLAN)
    return scorer, control, found, battery, PLAN


def test_corners_are_each_weight_at_its_top_and_all_of_them():
    assert corners(2, PLAN) == [(2.0, 0.0), (0.0, 2.0), (2.0, 2.0)]
    assert corners(3, PLAN)[-1] == (2.0, 2.0, 2.0) and len(corners(3, PLAN)) == 4


def test_a_mixture_is_compared_on_prompts_the_search_has_not_seen(searched):
    scorer, _, found, battery, _ = searched
    given = contest(*searched)
    front = {found.weights[i] for i in found.front()}
    assert set(given.mixtures) == front | set(corners(2, PLAN))
    assert set(contest(*searched, judged="all").mixtures) == set(found.weights)
    fresh = battery.dilemmas(0, 9)[4:]
    assert {prompt for prompt, _, _ in given.pairs} <= {ask.text for ask in fresh}
    assert len(set(given.pairs)) == len(given.pairs)
    assert all(one != other for _, one, other in given.pairs)
    assert given.questions == 2 * 2 * len(given.pairs)
    controls = dict.fromkeys([PLAIN, *(mixture(VALUES, w) for w in given.mixtures)])
    rows = scorer.score(controls, fresh)  # all kept: nothing is generated
    for m, w in enumerate(given.mixtures):
        for a, row in enumerate(rows[mixture(VALUES, w)]):
            k, plain = given.pair[m, a], rows[PLAIN][a].answer
            expected = (row.answer, plain)
            assert given.pairs[k][1:] == expected if k != SAME else row.answer == plain
    with pytest.raises(FrontError, match="`front` or `all`"):
        contest(*searched, judged="most")


def test_win_rates_are_the_shares_won_and_are_paid_for_once(server, searched, tmp_path):
    server.script = [fails(500), says("no json"), chooser(by_count)]  # the first two are retried
    given = contest(*searched)
    judge = judge_at(server, cache=tmp_path / "judged")
    heard = []
    wins = win_rates(given, judge, progress=lambda *told: heard.append(told))
    won = {"first": 1.0, "second": 0.0, "tie": 0.5}
    for m, point in enumerate(wins.points):
        assert tuple(point.weights.values()) == given.mixtures[m]
        for value in VALUES:
            shares = [
                0.5 if k == SAME else won[by_count(value, *given.pairs[k][1:])]
                for k in given.pair[m]
            ]
            rate = point.rates[value]
            assert rate.value == pytest.approx(np.mean(shares)) and rate.n == 5
            assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert len({p.rates["power"].value for p in wins.points}) > 1
    assert wins.questions == given.questions == len(server.asked) - 2
    assert wins.same == (given.pair == SAME).sum()
    assert wins.usage["requests"] == given.questions + 2 and not wins.failures
    assert all(o.disagreement == 0 for o in wins.order.values())
    assert "pairwise-1" in wins.judge
    assert heard[-1] == ("judging security", len(given.pairs) * 2, len(given.pairs) * 2)

    asked = len(server.asked)
    again = win_rates(given, judge)
    assert len(server.asked) == asked and again.usage["cached"] == given.questions
    assert again.points == wins.points


def test_what_a_stopped_run_has_paid_for_is_not_asked_again(server, searched, tmp_path):
    given, cache = contest(*searched), tmp_path / "judged"
    answer, refuses = chooser(by_count), lambda h, b: h.send(401, b"no")
    server.script = [answer] * 5 + [refuses]
    with pytest.raises(JudgeError, match="401"):
        win_rates(given, judge_at(server, cache=cache))
    kept = len(list(cache.rglob("*.json")))
    assert kept == 5
    server.asked.clear()
    server.script = [answer]
    wins = win_rates(given, judge_at(server, cache=cache))
    assert wins.usage["cached"] == kept and len(server.asked) == given.questions - kept


def test_a_judge_that_takes_what_it_sees_first_decides_nothing(server, searched, tmp_path):
    server.script = [chooser(lambda value, first, second: "first")]
    wins = win_rates(contest(*searched), judge_at(server))
    assert {rate.value for p in wins.points for rate in p.rates.values()} == {0.5}
    assert wins.order["power"].first_shown == 1 and wins.order["power"].disagreement == 1
    scorer, control, found, battery, plan = searched
    result = judge_front(scorer, control, found, battery, plan).model_copy(update={"wins": wins})
    assert FrontResult.read(result.write(tmp_path / "front.json")) == result
    page = render_front(result, tmp_path / "front.html").read_text("utf-8")
    assert "Won against the plain model" in page and wins.judge in page
    assert "100&nbsp;% took" in page and "0.50 [" in page


def test_pairs_without_two_answers_are_left_out_and_counted(server, searched):
    given = contest(*searched)
    spoilt = given.pairs[0][1]

    def refuses_one(handler, body):
        if f"\n{spoilt}\n" in body["messages"][0]["content"]:
            says("I'm sorry, I can't compare these.")(handler, body)
        else:
            chooser(lambda *_: "tie")(handler, body)

    server.script = [refuses_one]
    wins = win_rates(given, judge_at(server))
    lost = [pair[1] == spoilt or pair[2] == spoilt for pair in given.pairs]
    assert wins.failures == {"refusal": 2 * 2 * sum(lost)}
    missing = Counter(m for m, row in enumerate(given.pair) for k in row if k != SAME and lost[k])
    assert missing
    for m, point in enumerate(wins.points):
        rate = point.rates["power"]
        assert rate is None if missing[m] == 5 else rate.n == 5 - missing[m]


def test_a_judge_that_cannot_answer_is_refused_before_answers_are_made(server):
    server.script = [chooser(by_count)]
    check_judge(judge_at(server), "power")
    assert len(server.asked) == 2
    server.script = [fails(404)]
    with pytest.raises(JudgeError, match="base_url"):
        check_judge(judge_at(server), "power")
