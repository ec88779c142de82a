"""Asking: arrangements, the two scorings, who follows places, respondents, surveys, sliders."""

import numpy as np
import pytest
import torch

from tests.lm.tiny import tiny_lm
from tests.study.asking import choosing, offered, reader_lm
from valign.lm.errors import PromptTooLongError
from valign.measure import MeasureError
from valign.measure.svo import SLIDERS
from valign.study.ask import AskError, Question, ask, read_choice
from valign.study.respondents import RespondentError, anchored, people
from valign.study.sliders import slider_questions, take_sliders
from valign.study.survey import as_json, compare, take
from valign.values import load_system
from valign.values.questionnaires import load_questionnaire

FORM = load_questionnaire("portraits10")
SCALE = FORM.options
QUESTIONS = [Question(f"This person {word} ?", SCALE) for word in ("keeps", "sees", "wants")]
WHO = people(4)


@pytest.fixture(scope="module")
def lm():
    return reader_lm()


@pytest.fixture
def rule(monkeypatch):
    return lambda r: monkeypatch.setattr("valign.study.ask.answer_distributions", choosing(r))


def label_of(option):
    return lambda prompt, places: next(label for label, text in places if text == option)


def rating(items, k, *, others):
    """A rule: option k for these items, another for the rest."""
    return lambda prompt, places: label_of(
        SCALE[k if any(text in prompt for text in items) else others]
    )(prompt, places)


@pytest.mark.parametrize("shuffled", [False, True])
def test_one_who_follows_places_or_labels_has_no_opinion(lm, rule, shuffled):
    for follow in (lambda _, places: places[0][0], lambda _, places: max(places)[0]):
        rule(follow)
        found = ask(lm, QUESTIONS, WHO, shuffled=shuffled, pairs=2)
        points = np.arange(1, 7)
        both = (found.probabilities @ points).reshape(4, 3, 2, 2).mean(axis=-1)
        assert np.allclose(both, 3.5, atol=1e-6)
        assert (found.place[..., ::2] == found.place[..., 1::2]).all()
        assert (found.option[..., ::2] == 5 - found.option[..., 1::2]).all()


@pytest.mark.parametrize("shuffled", [False, True])
def test_one_who_means_an_option_is_read_whatever_the_arrangement(lm, rule, shuffled):
    rule(label_of(SCALE[4]))
    found = ask(lm, QUESTIONS, WHO, shuffled=shuffled, pairs=3)
    assert (found.option == 4).all() and found.option.shape == (4, 3, 6)
    assert found.label_mass == pytest.approx(np.full((4, 3, 6), 0.9), abs=1e-4)
    assert (found.status == "answered").all() and found.texts is None


def test_prompts_hold_the_respondent_the_question_and_mirrored_options(lm, monkeypatch):
    seen = []

    def watch(prompt, places):
        seen.append(prompt)
        return places[0][0]

    monkeypatch.setattr("valign.study.ask.answer_distributions", choosing(watch))
    ask(lm, QUESTIONS, WHO, shuffled=True)
    first, second = seen[:2]
    assert WHO[0] in first and QUESTIONS[0].text in first and "and nothing else" in first
    a, b = offered(first), offered(second)
    assert [label for label, _ in a] == [label for label, _ in b]
    assert sorted(text for _, text in a) == sorted(SCALE)
    assert [SCALE.index(t) for _, t in a] == [5 - SCALE.index(t) for _, t in b]
    assert len({offered(p)[0][0] for p in seen}) == 2  # letters here, numbers there
    again = list(seen)
    seen.clear()
    ask(lm, QUESTIONS, WHO, shuffled=True)
    assert seen == again
    seen.clear()
    ask(lm, QUESTIONS, WHO, shuffled=True, seed=1)
    assert seen != again


def test_probabilities_are_the_models_own(lm):
    found = ask(lm, QUESTIONS[:1], WHO[:1])
    seen = []
    ids = {}

    def note(prompt, places):
        seen.append(prompt)
        ids[prompt] = [lm.tokenizer.convert_tokens_to_ids(label) for label, _ in places]
        return places[0][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("valign.study.ask.answer_distributions", choosing(note))
        ask(lm, QUESTIONS[:1], WHO[:1])
    for k, prompt in enumerate(seen):
        row = torch.tensor([lm.encode_prompt(prompt)])
        with torch.no_grad():
            spread = lm.model(row).logits[0, -1].softmax(-1)[ids[prompt]].numpy()
        order = [SCALE.index(text) for _, text in offered(prompt)]
        expected = np.zeros(6)
        expected[order] = spread / spread.sum()
        assert found.probabilities[0, 0, k] == pytest.approx(expected, abs=1e-5)
        assert found.label_mass[0, 0, k] == pytest.approx(spread.sum(), abs=1e-5)


def test_labels_of_several_tokens_are_scored_whole(lm, monkeypatch):
    one_pass = ask(lm, QUESTIONS[:2], WHO[:2])
    unk = lm.tokenizer.unk_token_id

    def twice(tokenizer, text, *, templated):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, ids[0]] if templated and len(text) == 1 and ids != [unk] else ids

    monkeypatch.setattr("valign.study.ask.encode", twice)
    found = ask(lm, QUESTIONS[:2], WHO[:2])
    assert found.probabilities.sum(axis=-1) == pytest.approx(np.ones((2, 2, 2)))
    assert (found.label_mass <= one_pass.label_mass + 1e-6).all()


def test_batches_change_nothing_and_progress_is_told(lm):
    told = []
    a = ask(lm, QUESTIONS, WHO, batch_size=2, progress=lambda d, t: told.append((d, t)))
    b = ask(lm, QUESTIONS, WHO, batch_size=32)
    assert np.allclose(a.probabilities, b.probabilities, atol=1e-5)
    assert told == [(8, 24), (16, 24), (24, 24)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("B", 1), (" b.", "invalid"), ("B. not much like me", 1), ("(C)", 2), ("**D**", 3),
     ("The answer is E.", 4), ("I choose option F", 5), ("A", 0), ("A person ...", "invalid"),
     ("I would say (B), on the whole", 1), ("It is much like me", 4), ("Not much like me", 1),
     ("exactly like me!", 5), ("much like me or exactly like me", "invalid"),
     ("I'm sorry, I cannot answer that.", "refused"), ("As an AI, I have no self", "refused"),
     ("B, though as an AI I have no self", 1), ("", "invalid"), ("banana", "invalid"),
     ("I don't have personal values", "refused"), ("C\nbecause", 2), ("D - fairly", 3)],
)  # fmt: skip
def test_generated_answers_are_read(text, expected):
    assert read_choice(text, "ABCDEF", SCALE) == expected


def test_an_option_is_a_word_and_not_a_part_of_one():
    assert read_choice("I do not know", "ABC", ("no", "unsure", "yes")) == "invalid"
    assert read_choice("No.", "ABC", ("no", "unsure", "yes")) == 0


def test_generated_scoring_counts_refusals_and_nonsense(lm, monkeypatch):
    said = iter(["I am sorry, I can't", "gibberish", SCALE[2], SCALE[2]] * 6)

    def answers(lm, prompts, control, **_):
        return type("Generation", (), {"texts": [next(said) for _ in prompts]})

    monkeypatch.setattr("valign.study.ask.generate", answers)
    found = ask(lm, QUESTIONS, WHO, scoring="generated", pairs=1)
    assert found.status[0, 0].tolist() == ["refused", "invalid"]
    assert np.isnan(found.probabilities[0, 0]).all() and (found.option[0, 0] == -1).all()
    assert found.option[0, 1].tolist() == [2, 2] and found.label_mass is None
    assert found.texts[0, 0, 1] == "gibberish"


def test_real_generation_fills_every_cell(lm):
    found = ask(lm, QUESTIONS[:1], WHO[:2], scoring="generated", max_new_tokens=2)
    assert found.texts.shape == (2, 1, 2)
    assert set(found.status.ravel()) <= {"answered", "refused", "invalid"}


def test_a_control_changes_the_answers(lm):
    from valign.control import Edit, EditsControl
    from valign.values import Profile

    site = lm.sites("resid")[1]
    push = Edit(site, "add", {"vector": torch.ones(lm.site_width(site))})
    target = Profile.of(load_system("schwartz10"), power=1)
    control = EditsControl(target=target, edits=(push,))
    plain = ask(lm, QUESTIONS[:1], WHO[:1])
    moved = ask(lm, QUESTIONS[:1], WHO[:1], control=control)
    assert not np.allclose(plain.probabilities, moved.probabilities)
    assert np.allclose(ask(lm, QUESTIONS[:1], WHO[:1]).probabilities, plain.probabilities)


def test_what_cannot_be_asked_is_refused(lm):
    with pytest.raises(AskError, match="same 2 to 9 options"):
        ask(lm, [Question("x", ("a", "b")), Question("y", ("a", "b", "c"))])
    with pytest.raises(AskError, match="at least one respondent"):
        ask(lm, QUESTIONS, [])
    with pytest.raises(AskError, match="labels alike"):
        ask(tiny_lm(), QUESTIONS)
    with pytest.raises(PromptTooLongError):
        ask(lm, [Question("word " * 300, SCALE)])


def test_respondents_differ_and_stay_the_same_for_a_seed():
    some = people(30)
    assert len(set(some)) == 30 and people(30) == some and people(10) == some[:10]
    assert people(30, seed=1) != some
    assert all("{" not in line for line in some)
    with pytest.raises(RespondentError, match="2304"):
        people(5000)


def test_anchors_take_turns():
    system = load_system("schwartz10")
    lines = anchored(20, system)
    for k, value in enumerate(system.values):
        assert value.definition in lines[k] and value.definition in lines[k + 10]


def test_a_model_that_means_one_value_has_that_profile(lm, rule):
    power = {i.text for i in FORM.items if i.value == "power"}
    rule(rating(power, 5, others=1))
    survey = take(lm, FORM, WHO)
    report = survey.report(survey.draws())
    j = FORM.values.index("power")
    assert report.centred.value.argmax() == j
    assert report.raw.value[j] == pytest.approx(6, abs=0.01)
    assert report.centred.value[j] == pytest.approx(4 - 0.4, abs=0.01)
    rates = survey.rates(survey.draws())
    assert rates.same_option.value == 1 and rates.refused is None


def test_drift_between_two_rules(lm, rule):
    rule(label_of(SCALE[2]))
    before = take(lm, FORM, WHO)
    kind = {i.text for i in FORM.items if i.value == "benevolence"}
    rule(rating(kind, 4, others=2))
    after = take(lm, FORM, WHO)
    found = compare(before, after, before.draws(), target="benevolence")
    j = FORM.values.index("benevolence")
    assert found.tax.gain.value == pytest.approx(2, abs=0.01)
    assert found.shift.value[j] == pytest.approx(1.8, abs=0.01) and found.moved[j]
    with pytest.raises(MeasureError, match="must be alike"):
        compare(before, take(lm, FORM, WHO, seed=1), before.draws())
    with pytest.raises(MeasureError, match="not scored"):
        compare(before, after, before.draws(), target="kindness")
    with pytest.raises(MeasureError, match="One respondent"):
        take(lm, FORM, WHO[:1]).draws()


def test_json_has_no_nan():
    found = as_json({"a": np.array([1.0, np.nan]), "b": (np.int64(3), None, "x", float("inf"))})
    assert found == {"a": [1.0, None], "b": [3, None, "x", None]}


def test_sliders_read_the_giver_and_the_taker(lm, rule):
    def maximise(column):
        best = {}
        for question, item in zip(slider_questions(), SLIDERS, strict=True):
            best[frozenset(question.options)] = question.options[int(item[:, column].argmax())]
        return lambda _, places: label_of(best[frozenset(t for _, t in places)])(_, places)

    rule(maximise(1))
    found, left_out = take_sliders(lm, repeats=3, asked="altruistic")
    assert found.angle.value == pytest.approx(61.39, abs=0.01) and left_out == 0
    assert found.hit.value == 1 and found.rationality.value == pytest.approx(0, abs=0.01)
    rule(lambda _, places: places[0][0])
    found, _ = take_sliders(lm, repeats=40)
    assert abs(found.angle.value - found.chance_angle) < 6
    with pytest.raises(MeasureError, match="altruistic"):
        take_sliders(lm, asked="kind")
