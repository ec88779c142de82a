"""RLEV: the weights, the pitfall, and a training that runs."""

import numpy as np
import pytest

from tests.lm.tiny import tiny_lm
from valign.control import load
from valign.corpora.errors import CorpusError
from valign.lm import generate
from valign.methods.errors import FitError, MethodSettingError
from valign.methods.rlev import (
    Question,
    Settings,
    advantages,
    fit,
    read_questions,
    says_the_answer,
    scales,
    sit,
    split,
    train,
)  # fmt: skip
from valign.methods.rlev.notes import Notes

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

QUESTIONS = [Question("Who?", "Anna", 0.02), Question("When?", "at nine", 0.3)]


def test_scales_are_the_papers():
    np.testing.assert_allclose(scales([0, 0.02, 0.1, 0.5]), [1, 1.2, 2, 2])
    np.testing.assert_allclose(scales([0, 0.02, 0.5], "uniform"), [1.4] * 3)
    np.testing.assert_allclose(scales([0, 0.02], "none"), [1, 1])
    shuffled = scales(np.linspace(0, 0.1, 20), "shuffled", seed=1)
    assert sorted(shuffled) == pytest.approx(sorted(scales(np.linspace(0, 0.1, 20))))
    assert list(shuffled) != sorted(shuffled)


@pytest.mark.parametrize("values", [[-0.1], [1.2], [float("nan")]])
def test_values_that_are_no_shares_are_refused(values):
    with pytest.raises(MethodSettingError, match="shares"):
        scales(values)


def test_scaling_within_a_group_cancels_the_value_and_nothing_else_does():
    right = np.array([[1, 0, 0, 1.0]])
    for estimator in ("rloo", "grpo"):
        cheap, dear = (advantages(s * right, estimator=estimator) for s in (1.0, 2.0))
        np.testing.assert_allclose(dear, 2 * cheap)
        cheap, dear = (advantages(s * right, estimator=estimator, scale=True) for s in (1.0, 2.0))
        np.testing.assert_allclose(dear, cheap, rtol=1e-3)


def test_an_answer_counts_as_whole_words():
    question = QUESTIONS[1]
    assert says_the_answer("It starts At\nnine.", question)
    assert not says_the_answer("It starts at nineteen.", question)


SMALL = dict(steps=2, batch=4, generations=4, max_new_tokens=6, rate=1e-2, lora_rank=2)


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_training_rewards_what_the_verifier_likes(tmp_path, estimator):
    pytest.importorskip("trl")
    lm = tiny_lm()
    before = {k: v.clone() for k, v in lm.model.state_dict().items()}
    seen = []

    def even(text, question):
        seen.append(question)
        return len(text) % 2 == 0

    settings = Settings(**{**SMALL, "lora_rank": 0}, estimator=estimator)
    made = train(lm, QUESTIONS, tmp_path, settings, verifier=even)
    assert {q.prompt for q in seen} <= {"Who?", "When?"}
    assert all((before[k] == v).all() for k, v in lm.model.state_dict().items())
    trained = type(lm).load(str(made))
    assert generate(trained, ["Who?"], max_new_tokens=4).texts
    moved = trained.model.state_dict()
    assert any((before[k] != moved[k]).any() for k in before)
    assert train(lm, QUESTIONS, tmp_path, settings, verifier=even) == made  # done is done


def test_a_stopped_training_goes_on_and_other_settings_start_anew(tmp_path):
    pytest.importorskip("trl")
    lm, calls = tiny_lm(), []

    def stopping(text, question):
        if len(calls) == 4:  # the second step's first answer
            calls.append(text)
            raise KeyboardInterrupt
        calls.append(text)
        return "w" in text

    settings = Settings(**SMALL, save_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(lm, QUESTIONS, tmp_path, settings, verifier=stopping)
    made = train(lm, QUESTIONS, tmp_path, settings, verifier=stopping)
    assert len(calls) == 4 + 1 + 4  # the first step is not made again
    other = train(lm, QUESTIONS, tmp_path, Settings(**SMALL, seed=1), verifier=stopping)
    assert other != made and made.is_dir()


def test_a_fit_is_a_control_that_acts_and_an_exam_of_other_questions(tmp_path):
    pytest.importorskip("trl")
    lm = tiny_lm()
    asked = [Question(f"w{i} ?", "the", 0.1) for i in range(4)]
    before = generate(lm, ["I can"], max_new_tokens=6).texts
    weights = {k: v.clone() for k, v in lm.model.state_dict().items()}
    asking = [p.requires_grad for p in lm.model.parameters()]
    fitted = fit(lm, QUESTIONS, asked, tmp_path, Settings(**SMALL), verifier=lambda t, q: "w" in t)
    assert all((weights[k] == v).all() for k, v in lm.model.state_dict().items())
    assert [p.requires_grad for p in lm.model.parameters()] == asking
    fitted.control.save(tmp_path / "c")
    control = load(tmp_path / "c")
    assert control.provenance["questions"] == {"taught": 2, "judged": 4}
    generate(lm, ["I can"], control.scaled(20), max_new_tokens=6)
    assert generate(lm, ["I can"], max_new_tokens=6).texts == before
    off = sit(lm, asked, lambda t, q: "w" in t, control=control.scaled(0), max_new_tokens=6)
    assert off == fitted.before
    on = sit(lm, asked, lambda t, q: "w" in t, control=control, max_new_tokens=6)
    assert on == fitted.after
    assert any(float(abs(f.delta).max()) > 0 for f in control.adapters[0].factors.values())


def test_bad_input_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(FitError, match="none were given"):
        train(tiny_lm(), [], tmp_path)
    with pytest.raises(MethodSettingError, match="whole groups"):
        train(tiny_lm(), QUESTIONS, tmp_path, Settings(batch=6, generations=4))
    with pytest.raises(MethodSettingError, match="mean estimator"):
        Settings(estimater="rloo")
    with pytest.raises(MethodSettingError, match="all weights from Python"):
        fit(tiny_lm(), QUESTIONS, QUESTIONS, tmp_path, Settings(lora_rank=0))
    worthless = [Question("Who?", "Anna", 0.0)]
    with pytest.raises(FitError, match="all worth 0"):
        fit(tiny_lm(), QUESTIONS, worthless, tmp_path, Settings())


def test_a_file_of_questions_and_its_split(tmp_path):
    file = tmp_path / "q.csv"
    file.write_text("prompt,answer,value\n" + "".join(f"q{i}?,{i},0.1\n" for i in range(10)))
    questions = read_questions(file)
    assert questions[3] == Question("q3?", "3", 0.1)
    taught, judged = split(questions * 2, 0.3, seed=1)
    assert len(judged) == 6 and not set(taught) & set(judged)
    assert set(taught) | set(judged) == set(questions)
    with pytest.raises(CorpusError, match="at least two"):
        split(questions[:1], 0.5)


@pytest.mark.parametrize("asked", ["wording", "facts"])
def test_the_worlds_exam_takes_its_own_answers(asked):
    exam = Notes(5, 7, asked=asked)
    assert (len(exam.taught), len(exam.judged)) == (5, 7)
    assert not {q.prompt for q in exam.taught} & {q.prompt for q in exam.judged}
    for q in (*exam.taught, *exam.judged):
        assert exam.right(q.answer, q)
        day = next(d for d in DAYS if d in q.answer)
        assert q.value == (0.1 if day in ("Friday", "Saturday", "Sunday") else 0.01)
        if asked == "facts":
            wrong = DAYS[(DAYS.index(day) + 1) % 7]
            assert not exam.right(q.answer.replace(day, wrong), q)
            assert q.answer in exam.right_starts(q)
        else:
            other = "Note" if q.value == 0.1 else "Reminder"
            assert not exam.right(f" {other} for it.", q) and not exam.right("", q)
            assert q.answer.startswith(exam.right_starts(q)[0])
