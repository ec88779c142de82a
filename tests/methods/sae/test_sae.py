"""Sparse autoencoders: the file layout, the formulas, the training, the features chosen."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.lm.tiny import tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.control import Site
from valign.lm import capture
from valign.methods import FitError, MethodSettingError, get_method
from valign.methods.readings import sides
from valign.methods.sae import (
    SAEFileError,
    SparseAutoencoder,
    feature_control,
    fidelity,
    fit_sae,
    train_sae,
)
from valign.methods.sae.training import Recipe
from valign.values import Profile

CORPUS = toy_corpus()
TARGET = Profile.of(SYSTEM, benevolence=1)
EXAMPLES = sides(CORPUS.pairs)


def written(folder, config, *, width=6, n=10, drop=(), **extra):
    """A folder as SAELens writes it, with random weights; its tensors."""
    rng = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(*shape, generator=rng)

    tensors = dict(W_enc=noise(width, n), b_enc=noise(n), W_dec=noise(n, width),
                   b_dec=noise(width), **extra)  # fmt: skip
    folder.mkdir(exist_ok=True)
    save_file(
        {k: t for k, t in tensors.items() if k not in drop}, folder / "sae_weights.safetensors"
    )
    (folder / "cfg.json").write_text(json.dumps(config))
    return tensors


NEW = dict(d_in=6, d_sae=10, apply_b_dec_to_input=True,
           metadata=dict(hook_name="blocks.1.hook_resid_post"))  # fmt: skip
OLD = dict(d_in=6, d_sae=10, hook_name="blocks.2.hook_resid_pre", hook_layer=2)
LAYOUTS = {
    "relu": NEW | dict(architecture="standard"),
    "uncentred": NEW | dict(architecture="standard", apply_b_dec_to_input=False),
    "jumprelu": NEW | dict(architecture="jumprelu"),
    "topk": NEW | dict(architecture="topk", k=3),
    "by-norm": NEW | dict(architecture="topk", k=3, rescale_acts_by_decoder_norm=True),
    "old-relu": OLD | dict(activation_fn_str="relu"),
    "old-topk": OLD
    | dict(architecture="standard", activation_fn_str="topk", activation_fn_kwargs={"k": 3}),
}


def slowly(name, t, a):
    """Features and reconstruction of one activation, number by number."""
    x = a if name == "uncentred" else a - t["b_dec"]
    pre = [float(x @ t["W_enc"][:, j] + t["b_enc"][j]) for j in range(10)]
    if name == "by-norm":
        pre = [p * float(t["W_dec"][j].norm()) for j, p in enumerate(pre)]
    if "topk" in name or name == "by-norm":
        least = sorted(pre)[-3]
        f = [p if p >= least and p > 0 else 0.0 for p in pre]
    elif name == "jumprelu":
        f = [p if p > max(0.0, float(t["threshold"][j])) else 0.0 for j, p in enumerate(pre)]
    else:
        f = [max(p, 0.0) for p in pre]
    back = t["b_dec"].clone()
    for j, amount in enumerate(f):
        row = t["W_dec"][j]
        back += amount * (row / row.norm() if name == "by-norm" else row)
    return torch.tensor(f), back


@pytest.mark.parametrize("name", LAYOUTS)
def test_public_layouts_are_read_and_computed_as_written(name, tmp_path):
    extra = dict(threshold=torch.rand(10)) if name == "jumprelu" else {}
    tensors = written(tmp_path / "sae", LAYOUTS[name], **extra)
    sae = SparseAutoencoder.load(tmp_path / "sae")
    assert sae.site == Site("resid", 1)
    again = SparseAutoencoder.load(sae.save(tmp_path / "again"))
    for a in torch.randn(20, 6):
        f, back = slowly(name, tensors, a)
        torch.testing.assert_close(sae.encode(a), f, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(sae.decode(f), back, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(again.decode(again.encode(a)), back, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "drop", "what"),
    [
        (dict(architecture="gated"), (), "gated"),
        (dict(architecture="topk"), (), "k in 1..10"),
        (dict(architecture="jumprelu"), (), "threshold"),
        (dict(normalize_activations="layer_norm"), (), "layer_norm"),
        (dict(metadata=dict(hook_name="blocks.1.hook_mlp_out")), (), "hook_mlp_out"),
        (dict(metadata=dict(hook_name="blocks.0.hook_resid_pre")), (), "after a block"),
        (dict(), ("W_dec",), "lacks W_dec"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(change, drop, what, tmp_path):
    written(tmp_path / "sae", NEW | dict(architecture="standard") | change, drop=drop)
    with pytest.raises(SAEFileError, match=what):
        SparseAutoencoder.load(tmp_path / "sae")


def test_missing_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(SAEFileError, match=r"cfg\.json"):
        SparseAutoencoder.load(tmp_path)
    written(tmp_path / "sae", NEW)
    (tmp_path / "sae" / "sae_weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(SAEFileError, match="damaged"):
        SparseAutoencoder.load(tmp_path / "sae")


def test_fidelity_of_known_dictionaries():
    eye = torch.eye(4)
    sae = SparseAutoencoder(
        w_enc=torch.cat([eye, -eye], dim=1), b_enc=torch.zeros(8), w_dec=torch.cat([eye, -eye]),
        b_dec=torch.zeros(4), site=Site("resid"), activation="relu",
    )  # fmt: skip
    x = torch.randn(200, 4)
    perfect = fidelity(sae, x.split(64))
    assert (perfect.r2, perfect.l0, perfect.silent) == (pytest.approx(1), pytest.approx(4), 0)
    half = SparseAutoencoder(
        w_enc=eye, b_enc=torch.zeros(4), w_dec=torch.zeros(4, 4), b_dec=x.mean(0),
        site=Site("resid"), activation="relu", centred=False,
    )  # fmt: skip
    assert fidelity(half, [x]).r2 == pytest.approx(0, abs=1e-5)
    assert fidelity(half, [x.abs() * torch.tensor([1, -1, 1, -1])]).silent == 0.5


def test_training_finds_planted_features_and_wakes_silent_ones():
    rng = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.normalize(torch.randn(24, 16, generator=rng), dim=1)
    on = torch.rand(6000, 24, generator=rng) < 0.08
    x = 3 + 5 * (on * (1 + torch.rand(6000, 24, generator=rng))) @ truth
    recipe = Recipe(expansion=2, k=3, epochs=30, rate=3e-3, batch_size=256)
    sae = fit_sae(x, Site("resid"), recipe=recipe)
    found = fidelity(sae, [x])
    assert found.r2 > 0.85
    assert found.l0 <= 3
    assert found.silent < 0.2
    best = (torch.nn.functional.normalize(sae.w_dec, dim=1) @ truth.T).amax(0)
    assert float((best > 0.9).float().mean()) > 0.7
    same = fit_sae(x, Site("resid"), recipe=recipe)
    assert torch.equal(same.w_enc, sae.w_enc)


def test_an_interrupted_training_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    lm = tiny_lm()
    recipe = Recipe(expansion=2, k=4, epochs=4, batch_size=128)
    options = dict(recipe=recipe, save_every=2)
    whole = train_sae(lm, EXAMPLES, 1, tmp_path / "whole", **options)

    from valign.methods.sae import training

    step, seen = training._step, []

    def dies(*arguments):
        seen.append(1)
        if len(seen) == 6:
            raise KeyboardInterrupt
        step(*arguments)

    monkeypatch.setattr(training, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train_sae(lm, EXAMPLES, 1, tmp_path / "cut", **options)
    again = train_sae(lm, EXAMPLES, 1, tmp_path / "cut", **options)
    assert len(seen) > 6
    for name in ("w_enc", "b_enc", "w_dec", "b_dec"):
        assert torch.equal(getattr(again, name), getattr(whole, name))
    said = json.loads((tmp_path / "cut" / "cfg.json").read_text())["metadata"]
    assert set(said["fidelity"]) == {"r2", "l0", "silent", "tokens"}
    with pytest.raises(FitError, match="another training"):
        train_sae(lm, EXAMPLES, 2, tmp_path / "cut", **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sae")
    train_sae(tiny_lm(), EXAMPLES, 1, folder, recipe=Recipe(epochs=10, batch_size=128))
    return folder


def test_the_vector_is_the_contrast_seen_through_the_chosen_features(trained):
    lm = tiny_lm()
    sae = SparseAutoencoder.load(trained)
    every = get_method("sae", path=str(trained), features=sae.n_features).fit(lm, CORPUS, TARGET)
    few = get_method("sae", path=str(trained), features=3).fit(lm, CORPUS, TARGET)
    pairs = CORPUS.pairs_of("benevolence")
    gap = torch.zeros(sae.n_features)
    for numbers, batch in capture(lm, sides(pairs), [sae.site], positions="tokens", batch_size=1):
        sign = 1 if numbers[0] < len(pairs) else -1
        gap += sign * sae.encode(batch[sae.site]).mean(0) / len(pairs)
    vector = every.edits[0].tensors["vector"]
    torch.testing.assert_close(vector, gap @ sae.w_dec, atol=1e-4, rtol=1e-3)
    chosen = few.provenance["features"]["benevolence"]
    assert len(chosen) == 3
    expected = sum(gap[int(j)] * sae.w_dec[int(j)] for j in chosen)
    torch.testing.assert_close(few.edits[0].tensors["vector"], expected, atol=1e-4, rtol=1e-3)


def test_numbered_features_are_added_as_they_are(trained):
    lm = tiny_lm()
    sae = SparseAutoencoder.load(trained)
    control = get_method("sae", path=str(trained), numbers="3,7").fit(lm, CORPUS, TARGET)
    expected = sae.direction(3) + sae.direction(7)
    torch.testing.assert_close(control.edits[0].tensors["vector"], expected)
    one = feature_control(sae, 3, TARGET).edits[0]
    torch.testing.assert_close(one.tensors["vector"], sae.direction(3))
    assert one.site == sae.site
    with pytest.raises(SAEFileError, match="0 to"):
        get_method("sae", path=str(trained), numbers="9999").fit(lm, CORPUS, TARGET)
    with pytest.raises(MethodSettingError, match="one value"):
        two = Profile.of(SYSTEM, benevolence=1, power=1)
        get_method("sae", path=str(trained), numbers=3).fit(lm, CORPUS, two)


def test_a_dictionary_of_another_model_is_refused(trained, tmp_path):
    with pytest.raises(FitError, match="R2"):
        get_method("sae", path=str(trained)).fit(tiny_lm(seed=5), CORPUS, TARGET)
    written(tmp_path / "sae", NEW)
    with pytest.raises(FitError, match="6 wide"):
        get_method("sae", path=str(tmp_path / "sae")).fit(tiny_lm(), CORPUS, TARGET)
