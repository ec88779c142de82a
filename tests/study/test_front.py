"""The search for mixtures: what is proposed, asked, kept and judged."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.lm.tiny import WORDS, tiny_lm
from valign.control import Gate, Site
from valign.control.weights import Adapter, LowRank, WeightsControl
from valign.lm import generate
from valign.report.front import render_front
from valign.study.battery import Ask, Judgement
from valign.study.front import (
    Candidates,
    FrontError,
    FrontPlan,
    Scorer,
    adapters_digest,
    mixture,
    objectives,
    search_front,
)
from valign.study.front_result import FrontResult, front_identity, judge_front
from valign.study.front_rows import FrontRows
from valign.values import Profile, load_system

SYSTEM = load_system("schwartz10")
PLAN = FrontPlan(steps=3, high=2.0, points=24, search=4, judged=5, neutral=3, max_new_tokens=5)


class Words:
    """A battery whose judge counts words: value k likes the words k, k + 10, k + 20 ..."""

    name = judge = "words"
    judge_fingerprint = None
    system = SYSTEM

    def dilemmas(self, seed, n):
        return [
            Ask(f"d{i}", p, p)
            for i in range(n)
            for p in [f"should I {' '.join(WORDS[i : i + 4])} ?"]
        ]

    def neutral(self, seed, n):
        return [Ask(f"n{i}", f"the week {WORDS[i]} .", "") for i in range(n)]

    def read(self, asks, answers):
        found = []
        for answer in answers:
            ids = [WORDS.index(w) % 10 for w in answer.split() if w in WORDS]
            scores = {v: ids.count(k) / 5 for k, v in enumerate(SYSTEM.names)}
            found.append(Judgement(scores, fluent=bool(ids), facts=2, facts_kept=1, facts_wrong=0))
        return found


def control_for(lm, values, seed=0, *, shared=None):
    """Adapters of the values; `shared` names one that stands for no value."""
    rng = torch.Generator().manual_seed(seed)
    name = "model.layers.1.mlp.down_proj"
    outputs, inputs = lm.model.get_submodule(name).weight.shape
    adapters = tuple(
        Adapter(v, {name: LowRank(torch.randn(2, inputs, generator=rng),
                                  torch.randn(outputs, 2, generator=rng))})
        for v in (*values, *([shared] if shared else []))
    )  # fmt: skip
    return WeightsControl(
        target=Profile.from_mapping(SYSTEM, dict.fromkeys(values, 1.0)),
        adapters=adapters,
        weights={adapter.name: 1.0 for adapter in adapters},
    )


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture
def two(lm):
    return control_for(lm, ("power", "security"))


def scorer_of(lm, path=None, identity="x"):
    return Scorer(lm, Words(), FrontRows(path, identity), PLAN)


def test_a_grid_holds_nothing_each_alone_and_what_is_beyond(lm, two):
    found = search_front(scorer_of(lm), two, Words().dilemmas(0, 4), PLAN)
    assert len(found.weights) == 9
    assert {(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (2.0, 2.0)} <= set(found.weights)


def test_a_row_is_what_its_mixture_says_alone(lm, two):
    asks = Words().dilemmas(0, 4)
    named = {"a": two, "b": two.with_weights({"power": 2.0}), "plain": None}
    rows = scorer_of(lm).score(named, asks)
    for name, control in named.items():
        alone = generate(lm, [a.prompt for a in asks], control, max_new_tokens=5).texts
        assert [r.answer for r in rows[name]] == alone
    assert [r.answer for r in rows["a"]] != [r.answer for r in rows["plain"]]


def test_three_values_are_searched_by_generations_within_the_budget(lm):
    pytest.importorskip("pymoo")
    control = control_for(lm, ("power", "security", "tradition"))
    asks = Words().dilemmas(0, 4)
    found = search_front(scorer_of(lm), control, asks, PLAN)
    assert 8 <= len(found.weights) == len(set(found.weights)) <= PLAN.points
    assert {(1.0, 0.0, 0.0), (1.0, 1.0, 1.0)} <= set(found.weights)
    assert all(0 <= w <= 2 for m in found.weights for w in m)
    again = search_front(scorer_of(lm), control, asks, PLAN)
    assert again.weights == found.weights


def test_a_search_goes_on_from_its_rows(lm, two, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    asks = Words().dilemmas(0, 4)
    found = search_front(scorer_of(lm, path), two, asks, PLAN)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:20]) + lines[20][:15])  # killed in the middle of a row
    made = []
    import valign.study.front as front

    def counted(lm, prompts, *rest, **options):
        made.extend(prompts)
        return generate(lm, prompts, *rest, **options)

    monkeypatch.setattr(front, "generate", counted)
    again = search_front(scorer_of(lm, path), two, asks, PLAN)
    assert len(made) == 36 - 20
    np.testing.assert_array_equal(again.points(), found.points())
    made.clear()
    search_front(scorer_of(lm, path), two, asks, PLAN)
    assert not made
    search_front(scorer_of(lm, path, identity="other adapters"), two, asks, PLAN)
    assert len(made) == 36


def test_an_edited_prompt_is_asked_anew_and_no_other(lm, two, tmp_path):
    path, asks = tmp_path / "rows.jsonl", Words().dilemmas(0, 3)
    before = scorer_of(lm, path).score({"a": two}, asks)["a"]
    edited = [replace(asks[0], prompt=asks[1].prompt, text=asks[1].text), *asks[1:]]
    after = scorer_of(lm, path).score({"a": two}, edited)["a"]
    assert after[0].answer == before[1].answer != before[0].answer
    assert after[1:] == before[1:] and len(path.read_text().splitlines()) == 4


def test_what_decides_an_answer_beside_mixture_and_prompt_is_in_the_identity(lm, monkeypatch):
    control = control_for(lm, ("power", "security"), shared="politeness")
    told = front_identity(lm, control, Words(), PLAN)
    mixed = control.with_weights({"power": 0.5})
    assert front_identity(lm, mixed, Words(), PLAN) == told
    gates = [
        replace(control, gate=Gate({site: (torch.ones(32), torch.tensor(bias))}))
        for site, bias in ((Site("resid", 1), 0.0), (Site("resid", 0), 0.0), (Site("resid", 1), 1))
    ]
    others = [control, control.with_weights({"politeness": 0.5}), *gates]
    assert len({adapters_digest(one) for one in others}) == len(others)
    assert len({front_identity(lm, one, Words(), PLAN) for one in others}) == len(others)
    monkeypatch.setattr(Words, "judge_fingerprint", "0123")
    retrained = front_identity(lm, control, Words(), PLAN)
    monkeypatch.setattr("valign.__version__", "0")
    assert len({told, retrained, front_identity(lm, control, Words(), PLAN)}) == 3


def test_the_front_is_judged_on_other_prompts_and_written(lm, two, tmp_path):
    battery = Words()
    scorer = scorer_of(lm)
    found = search_front(scorer, two, battery.dilemmas(0, PLAN.search), PLAN)
    result = judge_front(scorer, two, found, battery, PLAN, most="power", model="<b>tiny</b>")
    front = {found.weights[i] for i in found.front()}
    assert {tuple(p.weights.values()) for p in result.points} == front
    fresh = battery.dilemmas(0, 9)[4:]
    for point in result.points:
        control = two.with_weights(point.weights)
        said = generate(lm, [a.prompt for a in fresh], control, max_new_tokens=5).texts
        slow = np.mean([j.scores["power"] for j in battery.read(fresh, said)])
        assert point.scores["power"].value == pytest.approx(slow)
        assert point.scores["power"].low <= slow <= point.scores["power"].high
        assert point.facts_kept.value == 0.5 and point.scores["power"].n == 5
    assert result.plain.neutral_unchanged.value == 1
    best = max(found.scores[i][0] for i in found.front())
    weights = tuple(result.points[result.chosen].weights.values())
    assert found.scores[found.weights.index(weights)][0] == best
    path = result.write(tmp_path / "front.json")
    assert FrontResult.read(path) == result
    page = render_front(result, tmp_path / "front.html").read_text("utf-8")
    assert "<b>tiny" not in page and "&lt;b&gt;tiny" in page and "Plotly" in page
    assert "http" not in page.split("<script>")[0].replace("http-equiv", "")


def test_only_allowed_candidates_make_a_front():
    scores = [np.array([0.5, 0.1]), np.array([0.1, 0.5]), np.array([0.9, 0.9])]
    weights = [(1.0, 0.0), (0.0, 1.0), (2.0, 2.0)]
    found = Candidates(("power", "security"), weights, scores)
    assert found.front() == [2]
    assert found.front(lambda w: max(w) <= 1) == [1, 0]
    assert found.front(lambda w: False) == []


def test_what_has_no_front_is_refused(lm, two):
    with pytest.raises(FrontError, match="two values or more"):
        objectives(control_for(lm, ("power",)))
    with pytest.raises(FrontError, match="low < high"):
        FrontPlan(low=1, high=1)
    found = Candidates(("power", "security"), [(0.0, 0.0)], [np.zeros(2)])
    with pytest.raises(FrontError, match="tradition has no adapter"):
        judge_front(scorer_of(lm), two, found, Words(), PLAN, most="tradition")
    other = replace(PLAN, max_new_tokens=7)
    assert front_identity(lm, two, Words(), PLAN) != front_identity(lm, two, Words(), other)
    assert mixture(("a", "b"), (1.0, 0.25)) == "a=1,b=0.25"
