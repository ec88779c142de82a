"""Rewriters: their words, their folders, best of n; the method around them."""

from dataclasses import replace

import numpy as np
import pytest

from tests.lm.tiny import tiny_lm
from tests.methods.toy import toy_corpus
from tests.methods.visa.fake import REWARD, SYSTEM
from valign.control import RewriteControl
from valign.corpora.triplets import load_triplets
from valign.methods import FitError, MethodSettingError, get_method
from valign.methods.visa.best_of import best_of
from valign.methods.visa.errors import RewriteError
from valign.methods.visa.rewriter import (
    Rewriter,
    Task,
    read_card,
    template_text,
    write_card,
)
from valign.values import Profile

TARGET = Profile.of(SYSTEM, security=1)
TASKS = [Task("we keep the home", {"security": 1.0}), Task("you take the trip", {"power": -0.5})]


@pytest.fixture(scope="module")
def rewriter():
    return Rewriter(tiny_lm(), SYSTEM, template_text("world"), max_new_tokens=6)


def test_the_bundled_templates_say_what_is_wanted_and_hold_the_text():
    lm = tiny_lm()
    task = Task("The text.", {"power": -0.5}, now={"power": 0.5}, prompt="Why?")
    full = Rewriter(lm, SYSTEM, template_text("full")).ask(task)
    for part in ("power (", "now +0.5", "wanted -0.5", "The text.", "Why?", "Keep every fact"):
        assert part in full
    unknown = Rewriter(lm, SYSTEM, template_text("full")).ask(Task("The text.", {"power": 1.0}))
    assert "now" not in unknown and "wanted +1.0" in unknown and "question" not in unknown
    world = Rewriter(lm, SYSTEM, template_text("world"), steps=3)
    changes = {"power": -2 / 3, "security": 1.0, "tradition": 0.0}
    assert world.ask(Task("The text.", changes, prompt="Why?")) == (
        "The text. Speak against power, 2. Speak in favour of security, 3. Leave tradition out. "
        "Why?"
    )
    with pytest.raises(RewriteError, match="No template"):
        template_text("ful")


def test_a_template_of_ones_own_and_a_card_beside_the_weights(rewriter, tmp_path):
    (tmp_path / "own.jinja").write_text("{{ changes[0].name }}: {{ source }}")
    folder = tmp_path / "r"
    rewriter.lm.model.save_pretrained(folder)
    rewriter.lm.tokenizer.save_pretrained(folder)
    plain = Rewriter.load(folder)
    assert plain.template == template_text("full") and plain.steps == 2
    write_card(folder, Rewriter(rewriter.lm, SYSTEM, "{{ source }}", 3, 7).card)
    carded = Rewriter.load(folder)
    assert (carded.template, carded.steps, carded.max_new_tokens) == ("{{ source }}", 3, 7)
    own = Rewriter.load(folder, template=str(tmp_path / "own.jinja"))
    assert own.ask(TASKS[0]) == "security: we keep the home"
    assert read_card(tmp_path) == {}


def test_a_batchs_size_changes_no_text(rewriter):
    many = rewriter.rewrite(TASKS * 3, batch_size=4)
    assert many == rewriter.rewrite(TASKS) * 3
    drawn = rewriter.rewrite(TASKS, temperature=1.5, seed=1)
    assert drawn == rewriter.rewrite(TASKS, temperature=1.5, seed=1, batch_size=1)
    assert drawn != rewriter.rewrite(TASKS, temperature=1.5, seed=2)
    assert rewriter.rewrite([]) == []


def test_best_of_n_is_at_least_as_good_as_the_greedy_rewrite(rewriter):
    targets = np.zeros((2, 10))
    targets[0, SYSTEM.index("security")] = 1.0
    targets[1, SYSTEM.index("power")] = -0.5
    found = best_of(rewriter, REWARD, TASKS, targets, n=5, temperature=1.5)
    for one, task, target in zip(found, TASKS, targets, strict=True):
        assert len(one.texts) == 5 and one.texts[0] == rewriter.rewrite([task])[0]
        alone = REWARD.mark([task.source] * 5, one.texts, np.tile(target, (5, 1)))
        np.testing.assert_allclose(one.marks.total, alone.total)
        assert one.text == one.texts[int(alone.total.argmax())]
        assert alone.total.max() >= alone.total[0]


def test_the_method_wraps_the_host_or_another_model(tmp_path):
    lm, corpus = tiny_lm(), toy_corpus()
    made = get_method("visa").fit(lm, corpus, TARGET)
    assert isinstance(made, RewriteControl) and made.rewriter == "host"
    assert made.template == template_text("full") and made.steps == 2
    named = replace(corpus, name="world")
    assert get_method("visa").fit(lm, named, TARGET).template == template_text("full")
    world = replace(corpus, of_world=True)
    assert get_method("visa").fit(lm, world, TARGET).template == template_text("world")
    own = get_method("visa", sft_steps=1, batch=1)
    assert own._material(named) == load_triplets(SYSTEM) != own._material(world)
    write_card(tmp_path, dict(template="{{ source }}!", system="schwartz10", steps=4))
    other = get_method("visa", rewriter=str(tmp_path)).fit(lm, corpus, TARGET)
    assert (other.rewriter, other.template, other.steps) == (str(tmp_path), "{{ source }}!", 4)
    with pytest.raises(FitError, match="leave rewriter"):
        get_method("visa", rewriter=str(tmp_path), train="sft").fit(lm, corpus, TARGET)
    with pytest.raises(FitError, match="folder=DIR"):
        get_method("visa", train="sft").fit(lm, corpus, TARGET)
    with pytest.raises(MethodSettingError, match="no such template"):
        get_method("visa", template="ful")
