"""Reward models as reward of a front: what they read, what they refuse, what stands in results."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tests.lm.tiny import FAMILIES, tiny_lm, tiny_tokenizer
from tests.study.test_front import PLAN, Words, control_for
from valign.corpora.types import Corpus, Dilemma
from valign.lm import generate
from valign.measure.bootstrap import Resampling
from valign.measure.front import front_volume
from valign.report.front import render_front
from valign.study.front import Scorer, search_front
from valign.study.front_result import FrontResult, front_identity, judge_front
from valign.study.front_reward import RewardError, RewardModel, RewardModels, UnreadBattery
from valign.study.front_rows import FrontRows
from valign.values import load_system

PROMPTS = ["rest or work ?", "should I help the friend or win ?", "I"]
ANSWERS = ["rest", "you should help the friend because they care .", ""]


def classifier(family="llama", *, labels=1, seed=0, **overrides):
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family, **{**FAMILIES.get(family, {}), "num_labels": labels, **overrides}
    )
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return model.eval()


def bert(**overrides):
    return classifier(
        "bert", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, vocab_size=96, pad_token_id=0, **overrides,
    )  # fmt: skip


def alone(model, ids):
    with torch.inference_mode():
        return float(model(input_ids=torch.tensor([ids])).logits[0, 0])


def test_a_batch_gives_what_each_row_gives_alone_in_the_chat_template():
    model, tokenizer = classifier(), tiny_tokenizer()
    found = RewardModel(model, tokenizer, name="rm", batch_size=2).score(PROMPTS, ANSWERS)
    slow = [
        alone(model, tokenizer(f"<user> {p} <assistant> {a} ", add_special_tokens=False).input_ids)
        for p, a in zip(PROMPTS, ANSWERS, strict=True)
    ]
    np.testing.assert_allclose(found, slow, atol=1e-4)
    assert len(set(found.round(3))) == 3
    messages = [[{"role": "user", "content": p}] for p in PROMPTS]
    again = RewardModel(model, tokenizer, name="rm").score(messages, ANSWERS)
    np.testing.assert_allclose(again, slow, atol=1e-4)


def test_without_a_template_it_is_a_pair_or_two_paragraphs():
    bare = tiny_tokenizer(chat=False)
    llama = classifier()
    found = RewardModel(llama, bare, name="rm").score(PROMPTS, ANSWERS)
    said = [f"{p}\n{a}" for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    np.testing.assert_allclose(found, [alone(llama, bare(t).input_ids) for t in said], atol=1e-4)

    paired, model = tiny_tokenizer(chat=False), bert()
    paired.sep_token = "</s>"
    paired.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    found = RewardModel(model, paired, name="rm").score(PROMPTS, ANSWERS)
    rows = [paired(p, a, return_tensors="pt") for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    with torch.inference_mode():
        slow = [float(model(**row).logits[0, 0]) for row in rows]
    np.testing.assert_allclose(found, slow, atol=1e-4)
    assert any(row["token_type_ids"].any() for row in rows)  # segments tell prompt from answer


def test_a_model_without_padding_token_reads_the_last_token_of_each_row():
    model, tokenizer = classifier(pad_token_id=None), tiny_tokenizer()
    found = RewardModel(model, tokenizer, name="rm").score(PROMPTS, ANSWERS)
    padded = RewardModel(classifier(), tokenizer, name="rm").score(PROMPTS, ANSWERS)
    np.testing.assert_allclose(found, padded, atol=1e-4)


def test_what_is_no_reward_model_is_refused(tmp_path):
    tokenizer = tiny_tokenizer()
    with pytest.raises(RewardError, match=r"3 labels .*with one"):
        RewardModel(classifier(labels=3), tokenizer, name="rm")
    with pytest.raises(RewardError, match="No such folder"):
        RewardModel.load(tmp_path / "none")
    with pytest.raises(RewardError, match=r"no config.json"):
        RewardModel.load(tmp_path)

    classifier(labels=2).save_pretrained(tmp_path / "two")
    with pytest.raises(RewardError, match="2 labels"):
        RewardModel.load(tmp_path / "two")

    lm = tiny_lm()
    lm.model.config.num_labels = 1  # one label, and yet no head
    lm.model.save_pretrained(tmp_path / "lm")
    lm.tokenizer.save_pretrained(tmp_path / "lm")
    with pytest.raises(RewardError, match=r"score.weight.*random"):
        RewardModel.load(tmp_path / "lm")

    with pytest.raises(RewardError, match=r"300 tokens .* reads 256.*--max-new-tokens"):
        RewardModel(classifier(), tokenizer, name="rm").score(["I"], ["help " * 297])
    broken = classifier()
    torch.nn.init.constant_(broken.score.weight, float("nan"))
    with pytest.raises(RewardError, match="2 of 2 answers no finite reward"):
        RewardModel(broken, tokenizer, name="rm").score(PROMPTS[:2], ANSWERS[:2])


def test_code_of_a_checkpoint_is_not_run_unless_asked(tmp_path):
    ran = tmp_path / "ran"
    (tmp_path / "rm").mkdir()
    (tmp_path / "rm" / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine"}})
    )
    (tmp_path / "rm" / "code.py").write_text(f"open({str(ran)!r}, 'w').close()")
    with pytest.raises(RewardError, match="--trust-remote-code"):
        RewardModel.load(tmp_path / "rm")
    assert not ran.exists()


def test_a_front_needs_a_model_for_each_of_its_values(tmp_path):
    with pytest.raises(RewardError, match="joy is none of the front's values"):
        RewardModels.load({"joy": "x"}, ("power", "security"))
    with pytest.raises(RewardError, match=r"security has no reward model.*--reward security="):
        RewardModels.load({"power": "x"}, ("power", "security"))
    tokenizer, given = tiny_tokenizer(), {}
    for seed, value in enumerate(("security", "power")):
        classifier(seed=seed).save_pretrained(tmp_path / value)
        tokenizer.save_pretrained(tmp_path / value)
        given[value] = str(tmp_path / value)
    found = RewardModels.load(given, ("power", "security"))
    assert found.objectives == ("power", "security") and "power=" in found.name
    scores = found.score(PROMPTS, ANSWERS)
    for column, (seed, _) in zip(scores.T, ((1, "power"), (0, "security")), strict=True):
        slow = RewardModel(classifier(seed=seed), tokenizer, name="rm").score(PROMPTS, ANSWERS)
        np.testing.assert_allclose(column, slow, atol=1e-4)
    other = RewardModel(classifier(seed=5), tokenizer, name=given["power"])
    assert other.name not in found.name  # other weights in the same folder are another reward


class Lengths:
    """Far from 0 and in units of its own: 100 + words, and minus the letters."""

    name, unit, objectives = "lengths@1", "words and letters", ("power", "security")

    def score(self, prompts, answers):
        return np.array([[100.0 + len(a.split()), -float(len(a))] for a in answers])


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def test_a_front_is_searched_by_its_reward_and_says_so(lm, tmp_path):
    battery, control = Words(), control_for(lm, ("power", "security"))
    rows = FrontRows(tmp_path / "rows.jsonl", "x")
    scorer = Scorer(lm, battery, rows, PLAN, reward=Lengths())
    asks = battery.dilemmas(0, 9)
    found = search_front(scorer, control, asks[:4], PLAN)
    result = judge_front(scorer, control, found, battery, PLAN, model="tiny")
    fresh = [ask.prompt for ask in asks[4:]]

    def slow(point):
        steered = control.with_weights(point.weights) if point is not result.plain else None
        said = generate(lm, fresh, steered, max_new_tokens=5).texts
        return Lengths().score(fresh, said), battery.read(asks[4:], said)

    base = slow(result.plain)[0]
    for point in [result.plain, *result.points]:
        rewards, read = slow(point)
        for k, value in enumerate(Lengths.objectives):
            assert point.rewards[value].value == pytest.approx(rewards[:, k].mean())
            assert point.objective(value) == point.rewards[value]
            assert result.plain.rewards[value].value == pytest.approx(result.reference[value])
        assert point.scores["power"].value == pytest.approx(
            np.mean([r.scores["power"] for r in read])
        )
    gains = np.stack([slow(p)[0] - base for p in result.points], axis=1)
    draws = Resampling.of(5, seed=PLAN.seed)
    wanted = front_volume(gains, np.zeros(2), draws)
    assert result.hypervolume.value == pytest.approx(wanted.value)
    assert result.hypervolume.high == pytest.approx(wanted.high)

    named = judge_front(scorer, control, found, battery, PLAN, reference={"power": 99.0})
    assert named.reference["power"] == 99.0
    assert named.reference["security"] == pytest.approx(result.reference["security"])

    assert (result.reward.name, result.reward.unit) == ("lengths@1", "words and letters")
    path = result.write(tmp_path / "front.json")
    assert FrontResult.read(path) == result
    again = FrontRows(tmp_path / "rows.jsonl", "x")[("plain", asks[4].key)]
    assert again == rows["plain", asks[4].key] and again.rewards["power"] >= 100
    page = render_front(result, tmp_path / "front.html").read_text("utf-8")
    assert "rewarded by lengths@1" in page and "words and letters" in page
    assert "power as read" in page and "mean reward: power" in page

    bare = Scorer(lm, battery, FrontRows(None, "x"), PLAN)
    told = judge_front(bare, control, search_front(bare, control, asks[:4], PLAN), battery, PLAN)
    text = told.write(tmp_path / "bare.json").read_text("utf-8")
    assert "reward" not in text and "wins" not in text
    assert front_identity(lm, control, battery, PLAN) != front_identity(
        lm, control, battery, PLAN, Lengths()
    )


def test_values_without_a_detector_are_left_to_the_reward(lm, tmp_path):
    hh = load_system("hh")
    corpus = Corpus(
        system=hh,
        name="hh-prompts",
        dilemmas=tuple(
            Dilemma(id=f"d{i}", value=hh.names[0], text=f"should I {w} ?")
            for i, w in enumerate(["help", "rest", "win", "work", "go", "stay", "give", "try"] * 5)
        ),
    )
    battery = UnreadBattery(corpus)
    plan = replace(PLAN, judged=3)
    control = control_for(lm, ("power", "security"))
    scorer = Scorer(lm, battery, FrontRows(None, "x"), plan, reward=Lengths())
    found = search_front(scorer, control, battery.dilemmas(0, plan.search), plan)
    result = judge_front(scorer, control, found, battery, plan)
    assert result.judge == "nobody" and result.plain.scores == {}
    assert result.plain.rewards["power"].n == 3 and result.plain.fluent is not None
    assert "as read" not in render_front(result, tmp_path / "x.html").read_text("utf-8")
