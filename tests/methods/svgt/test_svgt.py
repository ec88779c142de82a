"""SVGT as a method: the curriculum, resume, the frozen host, what the scores learn."""

import json
from dataclasses import replace

import pytest
import torch

from tests.lm.tiny import PROMPTS, tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.control import BridgeControl, load
from valign.corpora.types import Answer, Corpus
from valign.lm import DoseMeter, generate, token_logprobs
from valign.methods import FitError, MethodSettingError, get_method
from valign.methods.progress import listening
from valign.methods.svgt import data, training
from valign.methods.svgt.data import labelled, need_scores, read_states, wished
from valign.methods.svgt.value import balanced_accuracy, final_scores, train_value
from valign.values import Profile, load_system

TARGET = Profile.of(SYSTEM, benevolence=1, power=-0.5)
CORPUS = toy_corpus(pairs=16)
SMALL = dict(size=16, epochs=2, bridge_epochs=2, pairs=8)


def fit(lm, target=TARGET, corpus=CORPUS, **settings):
    return get_method("svgt", **{**SMALL, **settings}).fit(lm, corpus, target)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gpt2"])
@pytest.mark.parametrize("mode", ["bridge", "inject"])
def test_fit_save_load_generate_and_dose_on_every_family(family, mode, tmp_path):
    lm = tiny_lm(family, eos_token_id=None)
    control = fit(lm, mode=mode, bridge_epochs=4)
    assert isinstance(control, BridgeControl) and control.method == "svgt"
    again = load(control.save(tmp_path))
    assert again.provenance == control.provenance and again.goals == control.goals
    assert again.tensors.keys() == control.tensors.keys()
    assert all(torch.equal(t, again.tensors[k]) for k, t in control.tensors.items())
    strong = control.scaled(3.0)
    said = generate(lm, PROMPTS, strong, max_new_tokens=6)
    assert generate(lm, PROMPTS, again.scaled(3.0), max_new_tokens=6).token_ids == said.token_ids
    meter = DoseMeter(lm, PROMPTS, max_new_tokens=8)
    reach = meter.measure(strong).p95
    asked = reach / 3
    assert meter.measure(meter.set(control, asked)).p95 == pytest.approx(asked, rel=0.05)


def test_training_touches_no_parameter_of_the_host():
    lm = tiny_lm("gpt2", resid_pdrop=0.5)
    before = {k: v.clone() for k, v in lm.model.state_dict().items()}
    asked = [p.requires_grad for p in lm.model.parameters()]
    fit(lm)
    assert all(torch.equal(v, before[k]) for k, v in lm.model.state_dict().items())
    assert [p.requires_grad for p in lm.model.parameters()] == asked
    assert all(p.grad is None for p in lm.model.parameters())
    assert not lm.model.training


def test_fits_are_the_same_twice_and_leave_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    one = fit(tiny_lm(seed=0))
    torch.manual_seed(3)
    two = fit(tiny_lm(seed=0))
    assert all(torch.equal(t, two.tensors[k]) for k, t in one.tensors.items())
    torch.manual_seed(3)
    get_method("svgt")
    assert torch.equal(torch.rand(3), expected)


def test_ten_targets_cost_one_value_module():
    lm = tiny_lm()
    one = fit(lm)
    kept = len(lm.memo)
    two = fit(lm, Profile.of(SYSTEM, security=1))
    assert len(lm.memo) == kept
    shared = [k for k in one.tensors if k.startswith("value.")]
    assert all(torch.equal(one.tensors[k], two.tensors[k]) for k in shared)
    assert not torch.equal(one.tensors["bridge.seeds"], two.tensors["bridge.seeds"])
    assert two.goals == {"security": 2.0} and one.goals == {"benevolence": 2.0, "power": -1.0}


def test_the_bridge_makes_the_wanted_answers_likelier_than_before():
    lm = tiny_lm()
    target = Profile.of(SYSTEM, benevolence=1)
    control = fit(lm, target, pairs=16, bridge_epochs=25, ce=1.0, pull=0.0)
    pairs = CORPUS.pairs_of("benevolence")
    prompts, texts = [p.prompt for p in pairs], [p.positive for p in pairs]
    plain = torch.cat(token_logprobs(lm, prompts, texts)).mean()
    guided = torch.cat(token_logprobs(lm, prompts, texts, control)).mean()
    assert guided > plain + 0.02


def test_scores_tell_the_sides_apart_also_in_texts_they_were_not_trained_on():
    lm = tiny_lm()
    corpus = toy_corpus(pairs=40)
    train, held = labelled(corpus, ("benevolence", "power", "security"), pairs=40, seed=0)
    states, watched = read_states(lm, train, 1), read_states(lm, held, 1)
    value, figures = train_value(
        states, watched, width=32, size=32, heads=4, epochs=20, rate=5e-3, batch_size=16, seed=0,
        device=torch.device("cpu"), folder=None, key={},
    )  # fmt: skip
    found = balanced_accuracy(final_scores(value, watched, conditional=True), watched)
    assert sum(found) / len(found) > 0.75
    assert figures["conditional"] == [round(x, 3) for x in found]


def test_context_decides_where_the_answer_alone_cannot():
    """The same answers are right or wrong by their prompt: only the conditional path can tell."""
    lm = tiny_lm()
    words = ["help", "win", "rest", "work"]
    texts = [f"we will {a} and {b} ." for a in words for b in words]
    answers = [
        Answer(f"{ask}-{i}", text, (("harmless", 1.0 if good else -1.0),), f"{ask} {ask} now")
        for i, text in enumerate(texts)
        for ask, good in (("money", False), ("nature", True))
    ]
    corpus = Corpus(load_system("hh"), "context", answers=tuple(answers * 4))
    scores = need_scores(corpus, Profile.of(corpus.system, harmless=1))
    assert scores == ("harmless",)
    train, held = labelled(corpus, scores, pairs=200, seed=0)
    # Answers shorter than the lead would show the prompt's end to the unconditional path too.
    states, watched = read_states(lm, train, 0), read_states(lm, held, 0)
    _, figures = train_value(
        states, watched, width=32, size=32, heads=4, epochs=15, rate=5e-3, batch_size=16, seed=0,
        device=torch.device("cpu"), folder=None, key={},
    )  # fmt: skip
    assert figures["conditional"][0] > 0.9


def test_a_fit_killed_between_epochs_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    whole = fit(tiny_lm(), checkpoint=tmp_path / "a", epochs=3, bridge_epochs=3)
    for stop in (1, 4, 8):  # in each of the three stages

        class Killed(BaseException):
            pass

        saves, save = [0], training._save

        def dying(*args, stop=stop, saves=saves, save=save):
            save(*args)
            saves[0] += 1
            if saves[0] == stop:
                raise Killed

        folder = tmp_path / f"b{stop}"
        with monkeypatch.context() as patch:
            patch.setattr(training, "_save", dying)
            with pytest.raises(Killed):
                fit(tiny_lm(), checkpoint=folder, epochs=3, bridge_epochs=3)
        went_on = []
        with listening(lambda what, done, total, seen=went_on: seen.append((what, done))):
            again = fit(tiny_lm(), checkpoint=folder, epochs=3, bridge_epochs=3)
        assert all(torch.equal(t, again.tensors[k]) for k, t in whole.tensors.items())
        assert ("value", 0) not in went_on
    assert "checkpoint" not in whole.provenance["settings"]


def test_checkpoints_are_safetensors_and_damaged_ones_are_made_again(tmp_path):
    one = fit(tiny_lm(), checkpoint=tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3 and all(f.suffix == ".safetensors" for f in files)
    for file in files:
        file.write_bytes(file.read_bytes()[:100])
    two = fit(tiny_lm(), checkpoint=tmp_path)
    assert all(torch.equal(t, two.tensors[k]) for k, t in one.tensors.items())


def test_progress_names_the_stages():
    heard = []
    with listening(lambda what, done, total: heard.append(what)):
        fit(tiny_lm())
    assert list(dict.fromkeys(heard)) == ["value", "context", "bridge"]


def test_search_chooses_among_layers_sizes_and_tokens():
    lm = tiny_lm(num_hidden_layers=4)
    control = fit(lm, search=True, epochs=1, bridge_epochs=1)
    tried = control.provenance["searched"]
    assert {"layer", "size", "accuracy"} <= set(tried[0])
    losses = {row["tokens"]: row["loss"] for row in tried if "loss" in row}
    assert control.tokens == min(losses, key=losses.get)
    json.dumps(control.provenance)


def test_pairs_label_their_own_value_fully_and_others_lightly():
    scores = need_scores(CORPUS, TARGET)
    train, held = labelled(CORPUS, scores, pairs=8, seed=0)
    assert len(train) + len(held) == 2 * 8 * 10 and len(held) == 20
    for example in [*train, *held]:
        assert sum(w == 1.0 for w in example.weights) == 1
        assert sum(example.labels) <= 1
    assert not {e.text for e in held} & {e.text for e in train}


def test_wished_answers_follow_sign_and_size():
    wanted, stay = wished(CORPUS, TARGET, pairs=8, seed=0)
    assert len(wanted) == 8 + 4 and stay == []
    kinds = {p.positive for p in CORPUS.pairs_of("benevolence")}
    away = {p.negative for p in CORPUS.pairs_of("power")}
    assert sum(t in kinds for _, t in wanted) == 8 and sum(t in away for _, t in wanted) == 4


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(FitError, match="value=power"):
        fit(tiny_lm(), corpus=toy_corpus(pairs=3))
    with pytest.raises(MethodSettingError, match="layer=2"):
        fit(tiny_lm(), layer=2)
    with pytest.raises(MethodSettingError, match="divide"):
        get_method("svgt", size=10, heads=4)
    with pytest.raises(Exception, match="mode=inject"):
        fit(tiny_lm(num_hidden_layers=1))
    assert fit(tiny_lm(num_hidden_layers=1), mode="inject").layer == 0


def test_half_precision_hosts_are_guided_too():
    lm = tiny_lm(dtype=torch.bfloat16)
    control = fit(lm)
    assert all(torch.isfinite(t).all() for t in control.tensors.values())
    generate(lm, PROMPTS, control, max_new_tokens=3)


def test_long_texts_keep_what_is_near_the_answer(monkeypatch):
    monkeypatch.setattr(data, "MOST_TOKENS", 4)
    lm = tiny_lm()
    ids, head = data.tokens_of(lm, PROMPTS[2], "we should go home and rest now")
    assert (len(ids), head) == (8, 4)
    whole, start = lm.encode_example(PROMPTS[2], "we should go home and rest now")
    assert ids == whole[start - 4 : start + 4]


def test_static_bridges_are_refresh_zero():
    lm = tiny_lm(eos_token_id=None)
    control = fit(lm, refresh=0)
    said = generate(lm, PROMPTS[:1], control, max_new_tokens=12)
    assert said.receipts[0].guidance.refreshes == 1
    moving = generate(lm, PROMPTS[:1], replace(control, refresh=4), max_new_tokens=12)
    assert moving.receipts[0].guidance.refreshes == 3
