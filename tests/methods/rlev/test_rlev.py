"""RLEV: the weights, the pitfall, and a training that runs."""

import numpy as np
import pytest

from tests.lm.tiny import tiny_lm
from valign.lm import generate
from valign.methods.errors import FitError, MethodSettingError
from valign.methods.rlev import Question, Settings, advantages, says_the_answer, scales, train

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


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_training_rewards_what_the_verifier_likes(tmp_path, estimator):
    pytest.importorskip("trl")
    lm = tiny_lm()
    before = {k: v.clone() for k, v in lm.model.state_dict().items()}
    seen = []

    def long(text, question):
        seen.append(question)
        return len(text) % 2 == 0

    settings = Settings(
        estimator=estimator, steps=2, batch=4, generations=4, max_new_tokens=6, rate=1e-2
    )
    made = train(lm, QUESTIONS, tmp_path, settings, verifier=long)
    assert {q.prompt for q in seen} <= {"Who?", "When?"}
    assert all((before[k] == v).all() for k, v in lm.model.state_dict().items())
    trained = type(lm).load(str(made))
    assert generate(trained, ["Who?"], max_new_tokens=4).texts
    moved = trained.model.state_dict()
    assert any((before[k] != moved[k]).any() for k in before)
    assert train(lm, QUESTIONS, tmp_path, settings) == made  # done is done


def test_bad_input_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(FitError, match="none were given"):
        train(tiny_lm(), [], tmp_path)
    with pytest.raises(MethodSettingError, match="whole groups"):
        train(tiny_lm(), QUESTIONS, tmp_path, Settings(batch=6, generations=4))
