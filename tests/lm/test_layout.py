import pytest
import torch

from tests.lm.reference import part
from tests.lm.tiny import DENSE, FAMILIES, tiny_lm, tiny_tokenizer
from valign.control import Site
from valign.lm import HostModel, LayoutError, LayoutNames, UnsupportedSiteError


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_is_the_one_the_family_calls_so(family):
    lm = tiny_lm(family)
    kinds = ["resid", "heads"] + ["neurons"] * (family in DENSE)
    for kind in kinds:
        sites = lm.sites(kind)
        assert sites == tuple(Site(kind, layer) for layer in range(3))
        for site in sites:
            assert lm.layout.module(site) is part(lm, family, site)
    assert lm.sites("logits") == (Site("logits"),)
    assert lm.layout.module(Site("logits")) is lm.model.get_output_embeddings()


@pytest.mark.parametrize("family", FAMILIES)
def test_widths_are_those_of_the_activations(family):
    lm = tiny_lm(family)
    neurons = {"gpt2": 128}.get(family, 64)
    assert lm.site_width(Site("resid", 1)) == 32
    assert lm.site_width(Site("heads", 1)) == 32
    assert lm.site_width(Site("logits")) == 96
    if family in DENSE:
        assert lm.site_width(Site("neurons", 1)) == neurons


def test_a_mixture_of_experts_refuses_neurons_by_name():
    lm = tiny_lm("mixtral")
    with pytest.raises(UnsupportedSiteError, match=r"neurons:0.*mixture of experts.*resid"):
        lm.sites("neurons")


def test_a_layer_that_does_not_exist_is_named():
    with pytest.raises(UnsupportedSiteError, match=r"resid:3 does not exist.*0 to 2"):
        tiny_lm().site_width(Site("resid", 3))


def test_names_given_by_the_user_win():
    lm = tiny_lm()
    names = LayoutNames(layers="model.layers", down="mlp.up_proj")
    own = HostModel(lm.model, lm.tokenizer, layout=names)
    assert own.layout.module(Site("neurons", 2)) is lm.model.model.layers[2].mlp.up_proj
    with pytest.raises(UnsupportedSiteError, match="heads:0"):
        own.layout.module(Site("heads", 0))


def test_a_wrong_name_says_how_to_write_it():
    lm = tiny_lm()
    with pytest.raises(LayoutError, match=r"no part named 'mlp.wrong'.*LayoutNames\("):
        HostModel(lm.model, lm.tokenizer, layout=LayoutNames(layers="model.layers",
                                                             down="mlp.wrong"))  # fmt: skip


def test_blocks_that_cannot_be_found_ask_for_names():
    lm = tiny_lm()
    lm.model.config.num_hidden_layers = 7
    with pytest.raises(LayoutError, match="Found 0 lists of 7"):
        HostModel(lm.model, lm.tokenizer)


def test_adapters_do_not_hide_the_projections_they_wrap():
    peft = pytest.importorskip("peft")
    lm = tiny_lm()
    config = peft.LoraConfig(r=2, target_modules=["down_proj", "o_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(lm.model, config)
    adapted = HostModel(model, lm.tokenizer)
    block = model.get_base_model().model.layers[0]
    assert adapted.layout.module(Site("neurons", 0)) is block.mlp.down_proj
    assert adapted.layout.module(Site("heads", 0)) is block.self_attn.o_proj


def test_the_fingerprint_sees_every_weight_and_only_weights():
    first, second = tiny_lm(), tiny_lm()
    assert first.fingerprint == second.fingerprint
    with torch.no_grad():
        second.model.model.layers[2].mlp.down_proj.weight[-1, -1] += 1e-3
    assert HostModel(second.model, tiny_tokenizer()).fingerprint != first.fingerprint
    assert tiny_lm(seed=1).fingerprint != first.fingerprint
