"""Adapters: the losses, the model left as it was, resume after a kill."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.lm.tiny import tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.methods import FitError, MethodSettingError, get_method
from valign.methods.mva.combine import lone, pairwise
from valign.methods.mva.samples import logps, simpo_columns, tokenised
from valign.methods.mva.training import Recipe, train_adapter
from valign.values import Profile

pytest.importorskip("trl")

RECIPE = Recipe(rank=2, alpha=4, steps=4, batch_size=4, rate=5e-3, save_every=1)
CORPUS = toy_corpus()


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def data(lm):
    samples = tokenised(lm, CORPUS.pairs_of("power"))
    return samples, logps(lm, samples)


def equal(a, b):
    return all(
        torch.equal(x, y)
        for n in a.factors
        for x, y in zip(a.factors[n], b.factors[n], strict=True)
    )


def test_log_probabilities_are_those_of_one_row_at_a_time(lm, data):
    samples, found = data
    for sample, row in zip(samples[:3], found, strict=False):
        for answer, said in zip((sample.chosen, sample.rejected), row, strict=True):
            ids = torch.tensor([sample.prompt + answer])
            logits = lm.model(ids).logits[0].detach().float().log_softmax(-1)
            wanted = sum(logits[i - 1, ids[0, i]] for i in range(len(sample.prompt), ids.shape[1]))
            assert float(said) == pytest.approx(float(wanted), abs=1e-3)
    assert samples[0].chosen[-1] == lm.tokenizer.eos_token_id


def test_training_prefers_the_chosen_and_leaves_the_model_alone(lm, data):
    samples, reference = data
    before = {k: v.clone() for k, v in lm.model.state_dict().items()}
    wanted = [p.requires_grad for p in lm.model.parameters()]
    state = torch.get_rng_state()
    made = train_adapter(lm, samples, reference, replace(RECIPE, steps=12), label="power")
    assert all(torch.equal(v, before[k]) for k, v in lm.model.state_dict().items())
    assert [p.requires_grad for p in lm.model.parameters()] == wanted
    assert torch.equal(torch.get_rng_state(), state)
    assert not any("lora" in name for name, _ in lm.model.named_modules())
    lead = logps(lm, samples, lone(SYSTEM, made)) - reference
    assert (lead[:, 0] > lead[:, 1]).float().mean() > 0.8


def test_first_loss_of_every_objective_is_its_formula(lm, data):
    """The reference columns turn TRL's losses into SimPO's and MODPO's."""
    samples, reference = data
    four = samples[:4]

    def first(recipe, columns):
        made = train_adapter(
            lm, four, columns, replace(recipe, steps=1, batch_size=4), label="power"
        )
        return made.figures["loss"]

    plain = reference[:4]
    assert first(RECIPE, plain) == pytest.approx(0.6931, abs=1e-3)
    lengths = torch.tensor([[float(len(s.chosen)), float(len(s.rejected))] for s in four])
    each = plain / lengths
    simpo = -torch.nn.functional.logsigmoid(2.5 * (each[:, 0] - each[:, 1] - 0.55)).mean()
    recipe = replace(RECIPE, loss="sigmoid_norm", beta=2.5)
    assert first(recipe, simpo_columns(four, 0.55)) == pytest.approx(float(simpo), abs=1e-3)
    other = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))  # log pi_k - log pi_0
    own, weight, beta = 0.6, 0.4, 0.1
    margin = -weight * beta * (other[:, 0] - other[:, 1]) / own
    modpo = -torch.nn.functional.logsigmoid(margin).mean()
    found = first(replace(RECIPE, beta=beta / own), plain + weight * other)
    assert found == pytest.approx(float(modpo), abs=1e-3)
    tokens = lengths[:, 0].sum()
    sft = first(replace(RECIPE, loss="sft"), plain)
    assert sft == pytest.approx(-float(plain[:, 0].sum() / tokens), abs=1e-3)


def test_a_penalty_keeps_the_second_adapter_from_the_first(lm, data):
    samples, reference = data
    recipe = replace(RECIPE, steps=10, rate=1e-2)
    first = train_adapter(lm, samples, reference, recipe, label="power")
    plain = train_adapter(lm, samples, reference, recipe, label="again")
    for name in ("hsic", "orthogonal", "cosine"):
        apart = train_adapter(
            lm, samples, reference, replace(recipe, penalty=name, strength=20.0), label="again",
            earlier=[first],
        )  # fmt: skip
        assert abs(pairwise(first, apart)[name]) < abs(pairwise(first, plain)[name])


def test_a_finished_adapter_is_read_and_a_changed_setting_trains_again(lm, data, tmp_path):
    samples, reference = data
    made = train_adapter(lm, samples, reference, RECIPE, label="power", folder=tmp_path)
    files = {p.name for p in made.folder.iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "finished.json"}
    stamp = (made.folder / "adapter_model.safetensors").stat().st_mtime_ns
    again = train_adapter(lm, samples, reference, RECIPE, label="power", folder=tmp_path)
    assert equal(made, again) and len(list(tmp_path.iterdir())) == 1
    assert (again.folder / "adapter_model.safetensors").stat().st_mtime_ns == stamp
    other = replace(RECIPE, beta=0.2)
    train_adapter(lm, samples, reference, other, label="power", folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


KILLED = """
import sys, time
from pathlib import Path
from tests.methods.mva.test_training import CORPUS, RECIPE
from tests.lm.tiny import tiny_lm
from tests.methods.toy import SYSTEM
from valign.methods import get_method
from valign.methods.progress import listening
from valign.values import Profile

def slow(what, done, total):
    print(what, done, flush=True)
    if what == "benevolence" and done >= 2:
        time.sleep(60)

lm = tiny_lm()
with listening(slow):
    get_method("mva", rank=2, steps=4, batch_size=4, rate=5e-3, save_every=1,
               checkpoint=sys.argv[1]).fit(lm, CORPUS, Profile.of(SYSTEM, power=1, benevolence=1))
"""


def test_after_a_kill_the_fit_goes_on_and_ends_the_same(lm, tmp_path):
    """`power` is finished (values go in the system's order), `benevolence` half way."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path("src").resolve()), "."])}
    work = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "c")], env=env, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    for line in work.stdout:
        if line.startswith("benevolence 2"):
            break
    time.sleep(0.5)
    work.send_signal(signal.SIGKILL)
    work.wait()
    (finished,) = (p for p in (tmp_path / "c").glob("power-*") if p.suffix != ".part")
    stamp = (finished / "adapter_model.safetensors").stat().st_mtime_ns
    (half,) = (tmp_path / "c").glob("benevolence-*.part")
    assert list(half.glob("checkpoint-*"))
    (half / "checkpoint-9").mkdir()  # one that the kill cut short
    target = Profile.of(SYSTEM, power=1, benevolence=1)
    settings = dict(rank=2, steps=4, batch_size=4, rate=5e-3, save_every=1)
    from valign.methods.progress import listening

    heard = []
    with listening(lambda *said: heard.append(said)):
        resumed = get_method("mva", **settings, checkpoint=tmp_path / "c").fit(lm, CORPUS, target)
    assert ("power", 1, 4) not in heard and ("benevolence", 1, 4) not in heard
    assert ("benevolence", 4, 4) in heard
    assert (finished / "adapter_model.safetensors").stat().st_mtime_ns == stamp
    whole = get_method("mva", **settings).fit(lm, CORPUS, target)
    for one, two in zip(resumed.adapters, whole.adapters, strict=True):
        for name in one.factors:
            torch.testing.assert_close(one.factors[name].b, two.factors[name].b)


def test_schemes_make_one_adapter_and_separate_one_a_value(lm):
    settings = dict(rank=2, steps=2, batch_size=4)
    both = Profile.of(SYSTEM, benevolence=1, power=0.5)
    for scheme in ("sequential", "mixed", "modpo"):
        control = get_method("dpo", scheme=scheme, **settings).fit(lm, CORPUS, both)
        assert len(control.adapters) == 1 and list(control.weights.values()) == [1.0]
    control = get_method("dpo", **settings).fit(lm, CORPUS, both)
    assert control.weights == {"power": 0.5, "benevolence": 1.0}
    assert set(control.provenance["dependence"]["power | benevolence"]) == {
        "hsic", "hsic-released", "orthogonal", "cosine"
    }  # fmt: skip


def test_a_gate_is_fitted_beside_the_adapters(lm):
    settings = dict(rank=2, steps=2, batch_size=4)
    target = Profile.of(SYSTEM, benevolence=1)
    plain, gated = (get_method("dpo", gate=g, **settings).fit(lm, CORPUS, target) for g in (0, 1))
    assert plain.gate is None and gated.gate is not None
    assert set(gated.provenance["gate_accuracy"]) == set(map(str, gated.gate.weights))
    for name, part in plain.adapters[0].factors.items():
        torch.testing.assert_close(gated.adapters[0].factors[name].b, part.b)


def test_mva_on_positive_sides_is_sft_with_a_penalty(lm):
    settings = dict(rank=2, steps=6, batch_size=4, rate=5e-3)
    both = Profile.of(SYSTEM, benevolence=1, power=1)
    plain = get_method("sft", **settings).fit(lm, CORPUS, both)
    free, kept = (
        get_method("mva", objective="sft", penalty=p, **settings).fit(lm, CORPUS, both)
        for p in ("none", "cosine")
    )
    for one, other in zip(plain.adapters, free.adapters, strict=True):
        for name, part in one.factors.items():
            torch.testing.assert_close(other.factors[name].b, part.b)
    (before,), (after,) = (c.provenance["dependence"].values() for c in (free, kept))
    assert abs(after["cosine"]) < abs(before["cosine"])


def test_the_order_of_training_can_be_chosen(lm):
    settings = dict(rank=2, steps=2, batch_size=4)
    both = Profile.of(SYSTEM, benevolence=1, power=0.5)
    found = [
        get_method("mva", order=o, **settings).fit(lm, CORPUS, both) for o in ("", "benevolence")
    ]
    assert [[a.name for a in c.adapters] for c in found] == [
        ["power", "benevolence"],
        ["benevolence", "power"],
    ]
    assert found[0].weights == found[1].weights
    with pytest.raises(MethodSettingError, match="order names security"):
        get_method("mva", order="security,power", **settings).fit(lm, CORPUS, both)


def test_what_cannot_be_trained_is_refused(lm, data, monkeypatch):
    samples, reference = data
    with pytest.raises(FitError, match="fewer than batch_size"):
        train_adapter(lm, samples[:3], reference[:3], RECIPE, label="power")
    with pytest.raises(MethodSettingError, match="no positive number"):
        get_method("dpo", scheme="mixed", steps=1).fit(
            lm, CORPUS, Profile.of(SYSTEM, benevolence=1, power=-1)
        )
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(MethodSettingError, match="multiple of 3"):
        train_adapter(lm, samples, reference, RECIPE, label="power")
