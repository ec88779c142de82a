"""Merges: each is what its paper says, and what PEFT computes where both mean the same."""

import pytest
import torch

from tests.control.test_weights import control
from tests.lm.reference import TARGET
from valign.control import Adapter, AdapterError, LowRank, WeightsControl
from valign.control.merging import dare, soup, ties


def dense_pair(one, module):
    return [own.factors[module].delta.float() for own in one.adapters]


def only(one, module):
    """The control reduced to one module, where trimming per module and per adapter coincide."""
    adapters = tuple(Adapter(a.name, {module: a.factors[module]}) for a in one.adapters)
    return WeightsControl(target=TARGET, adapters=adapters, weights=one.weights)


def test_a_soup_lies_between_the_models():
    one = control(a=5.0, b=5.0, c=5.0)
    mixed = soup(one, {"a": 0.25, "c": 0.75})
    for module in ("layers.0.q", "layers.1.q"):
        parts = dense_pair(one, module)
        wanted = 0.25 * parts[0] + 0.75 * parts[2]
        torch.testing.assert_close(mixed.delta(module).float(), wanted)
    assert mixed.weights["b"] == 0.0


@pytest.mark.parametrize("shares", [{"a": 0.5}, {"a": 1.5, "b": -0.5}, {}, {"z": 1.0}])
def test_what_is_no_share_is_refused(shares):
    with pytest.raises(AdapterError):
        soup(control(a=1.0, b=1.0), shares)


@pytest.mark.parametrize("density", [0.2, 0.5, 0.99])
@pytest.mark.parametrize("weights", [dict(a=1.0, b=1.0), dict(a=0.3, b=1.4)])
def test_ties_is_pefts(density, weights):
    reference = pytest.importorskip("peft.utils.merge_utils")
    one = only(control(**weights), "layers.0.q")
    wanted = reference.ties(
        dense_pair(one, "layers.0.q"), torch.tensor([*weights.values()]), density
    )
    torch.testing.assert_close(ties(one, density=density).delta("layers.0.q").float(), wanted)


@pytest.mark.parametrize("elect", [False, True])
def test_dare_is_pefts_from_the_same_seed(elect):
    reference = pytest.importorskip("peft.utils.merge_utils")
    one = control(a=0.7, b=1.2)
    merged = dare(one, density=0.4, seed=3, elect=elect)
    torch.manual_seed(3)
    for module in ("layers.0.q", "layers.1.q"):
        merge = reference.dare_ties if elect else reference.dare_linear
        wanted = merge(dense_pair(one, module), torch.tensor([0.7, 1.2]), 0.4)
        torch.testing.assert_close(merged.delta(module).float(), wanted)


def test_ties_trims_over_the_whole_adapter():
    part = {"small": LowRank.dense(torch.full((2, 2), 0.1)),
            "large": LowRank.dense(torch.full((2, 2), 2.0))}  # fmt: skip
    one = WeightsControl(target=TARGET, adapters=(Adapter("a", part),), weights={"a": 1.0})
    merged = ties(one, density=0.5)
    assert not merged.delta("small").any() and (merged.delta("large") == 2).all()


def test_ties_by_hand():
    rows = {"a": [4.0, -3.0, 0.1, 2.0], "b": [2.0, 5.0, -0.1, 3.0]}
    adapters = tuple(
        Adapter(name, {"m": LowRank.dense(torch.tensor([row]))}) for name, row in rows.items()
    )
    one = WeightsControl(target=TARGET, adapters=adapters, weights={"a": 1.0, "b": 1.0})
    # Trimmed to three: the third goes. Second: 5 outweighs -3 and stays alone.
    wanted = torch.tensor([[3.0, 5.0, 0.0, 2.5]])
    torch.testing.assert_close(ties(one, density=0.75).delta("m").float(), wanted)


def test_dare_keeps_the_mean_and_repeats_by_seed():
    one = control(a=1.0, b=-0.5)
    seeds = [dare(one, density=0.5, seed=s).delta("layers.0.q") for s in range(400)]
    torch.testing.assert_close(
        torch.stack(seeds).mean(0), one.delta("layers.0.q"), atol=0.6, rtol=0
    )
    assert torch.equal(dare(one, seed=1).delta("layers.1.q"), dare(one, seed=1).delta("layers.1.q"))
    assert not torch.equal(seeds[0], seeds[1])


def test_a_merge_is_a_control_and_says_how_it_was_made():
    one = control(a=1.0, b=0.5)
    merged = ties(one, density=0.3)
    assert merged.provenance["merge"] == dict(name="ties", density=0.3, weights=one.weights)
    torch.testing.assert_close(merged.scaled(2).delta("layers.0.q"), 2 * merged.delta("layers.0.q"))


@pytest.mark.parametrize("merge", [ties, dare])
def test_what_cannot_be_merged_is_refused(merge):
    with pytest.raises(AdapterError, match="outside"):
        merge(control(a=1.0), density=1.5)
    with pytest.raises(AdapterError, match="nothing to merge"):
        merge(control(a=0.0))


def test_pefts_concatenation_is_our_mixture_and_its_linear_is_not():
    peft = pytest.importorskip("peft")
    from tests.lm.tiny import tiny_lm
    from valign.control import from_peft

    lm = tiny_lm()
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj"], init_lora_weights=False)
    model = peft.get_peft_model(lm.model, config, adapter_name="a")
    model.add_adapter("b", config)
    state = peft.get_peft_model_state_dict
    adapters = tuple(
        from_peft(state(model, adapter_name=n), name=n, config=config) for n in ("a", "b")
    )
    one = WeightsControl(target=TARGET, adapters=adapters, weights={"a": 0.4, "b": 1.7})
    for kind, same in [("cat", True), ("linear", False)]:
        model.add_weighted_adapter(["a", "b"], [0.4, 1.7], kind, combination_type=kind)
        for name in one.modules:
            theirs = model.get_submodule(f"base_model.model.{name}").get_delta_weight(kind)
            assert torch.allclose(theirs, one.delta(name).float(), atol=1e-5) is same
