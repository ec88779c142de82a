"""Weights controls: the mixture is the explicit sum, and files and PEFT's adapters are read."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.lm.reference import TARGET
from valign.control import (
    Adapter,
    AdapterError,
    ControlFileError,
    LowRank,
    WeightsControl,
    from_peft,
    load,
)

SHAPES = {"layers.0.q": (6, 5), "layers.1.q": (4, 7), "layers.1.v": (3, 3)}
WEIGHT = st.floats(-3, 3, allow_nan=False)


def adapter(name, *, seed, rank=2, modules=tuple(SHAPES)):
    rng = torch.Generator().manual_seed(seed)
    return Adapter(
        name,
        {
            m: LowRank(
                torch.randn(rank, SHAPES[m][1], generator=rng),
                torch.randn(SHAPES[m][0], rank, generator=rng),
                scale=0.5 + seed,
            )
            for m in modules
        },
    )


def control(**weights):
    adapters = tuple(
        adapter(name, seed=n, rank=n + 1, modules=tuple(SHAPES)[: 3 - n % 2])
        for n, name in enumerate(weights)
    )
    return WeightsControl(target=TARGET, adapters=adapters, weights=weights)


def explicit(one, module):
    """The definition, entry by entry."""
    rows, columns = SHAPES[module]
    total = np.zeros((rows, columns))
    for own in one.adapters:
        if module not in own.factors:
            continue
        part = own.factors[module]
        for i in range(rows):
            for j in range(columns):
                products = (float(part.b[i, k]) * float(part.a[k, j]) for k in range(part.rank))
                total[i, j] += one.weights[own.name] * part.scale * sum(products)
    return total


@given(WEIGHT, WEIGHT, WEIGHT)
def test_the_mixture_is_the_explicit_sum(a, b, c):
    one = control(a=a, b=b, c=c)
    for module in SHAPES:
        np.testing.assert_allclose(one.delta(module), explicit(one, module), atol=1e-6)
        left, right = one.mixed(module)
        assert left.shape[1] == right.shape[0] == sum(
            own.factors[module].rank for own in one.acting if module in own.factors
        )  # fmt: skip


@given(st.integers(0, 1000))
def test_a_change_of_basis_changes_nothing(seed):
    rng = torch.Generator().manual_seed(seed)
    part = adapter("a", seed=1, rank=3).factors["layers.0.q"]
    turn = torch.randn(3, 3, generator=rng, dtype=torch.float64) + 3 * torch.eye(3)
    turned = LowRank(turn @ part.a.double(), part.b.double() @ torch.linalg.inv(turn), part.scale)
    torch.testing.assert_close(turned.delta, part.delta, rtol=1e-6, atol=1e-6)


@given(WEIGHT)
def test_strength_scales_every_weight(strength):
    one = control(a=1.0, b=-0.5)
    for module in SHAPES:
        np.testing.assert_allclose(
            one.scaled(strength).delta(module), strength * one.delta(module), atol=1e-6
        )
    assert one.weights == {"a": 1.0, "b": -0.5}


def test_weights_are_set_by_name_and_adapters_are_shared():
    one = control(a=1.0, b=1.0)
    other = one.with_weights({"b": 0.0})
    assert other.weights == {"a": 1.0, "b": 0.0} and other.adapters is one.adapters
    assert [own.name for own in other.acting] == ["a"]


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_any_change_can_be_held_densely(shape):
    delta = torch.randn(shape)
    assert torch.equal(LowRank.dense(delta).delta, delta.double())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: control(a=1.0).with_weights({"z": 1.0}), "adapters are a; the weights name a, z"),
        (lambda: control(a=float("nan")), "weight of a is nan"),
        (lambda: WeightsControl(target=TARGET, adapters=(), weights={}), "different names"),
        (lambda: Adapter("a", {}), "changes at least one module"),
        (lambda: LowRank(torch.ones(2, 3), torch.ones(4, 3)), "got a .2, 3. and b .4, 3."),
        (lambda: LowRank(torch.full((1, 3), torch.inf), torch.ones(4, 1)), "not finite"),
        (
            lambda: WeightsControl(
                target=TARGET,
                adapters=tuple(
                    Adapter(n, {"m": LowRank(torch.ones(1, k), torch.ones(2, 1))})
                    for n, k in [("a", 3), ("b", 4)]
                ),
                weights={"a": 1.0, "b": 1.0},
            ),
            "m is .2, 3. in a and .2, 4. in b",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, says):
    with pytest.raises(AdapterError, match=says):
        make()


def test_a_file_brings_everything_back(tmp_path):
    one = control(a=1.25, b=-0.1)
    made = WeightsControl(
        target=TARGET, adapters=one.adapters, weights=one.weights, provenance={"method": "mva"}
    )
    read = load(made.save(tmp_path))
    assert read.weights == made.weights and read.target == made.target
    assert read.provenance == made.provenance
    for x, y in zip(read.adapters, made.adapters, strict=True):
        assert x.name == y.name and list(x.factors) == list(y.factors)
        for module, part in x.factors.items():
            assert part.scale == y.factors[module].scale
            assert torch.equal(part.a, y.factors[module].a)
            assert torch.equal(part.b, y.factors[module].b)


def test_damaged_files_are_refused(tmp_path):
    path = control(a=1.0).save(tmp_path)
    whole = path.read_bytes()
    for cut in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ControlFileError, match="damaged"):
            load(path)
    path.write_bytes(whole.replace(b"layers.1.v.b", b"layers.1.x.b"))
    with pytest.raises(ControlFileError, match="damaged"):
        load(path)


# PEFT ---------------------------------------------------------------------------------------


@pytest.fixture
def wearing():
    """A tiny model that wears a random PEFT adapter, made with the given options."""
    peft = pytest.importorskip("peft")
    from tests.lm.tiny import tiny_lm

    def make(family="llama", **options):
        lm = tiny_lm(family)
        options = dict(r=3, lora_alpha=7, init_lora_weights=False) | options
        return lm, peft.get_peft_model(lm.model, peft.LoraConfig(**options))

    return make


def own_delta(model, name):
    """PEFT's own idea of the change, as (outputs, inputs)."""
    layer = model.get_submodule(f"base_model.model.{name}")
    found = layer.get_delta_weight("default").detach()
    return found.T if layer.fan_in_fan_out else found


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", dict(target_modules=["q_proj", "v_proj"])),
        ("llama", dict(target_modules="all-linear", use_rslora=True)),
        ("qwen2", dict(target_modules=["q_proj", "up_proj"], rank_pattern={"up_proj": 5},
                       alpha_pattern={"layers.1.mlp.up_proj": 20})),
        ("gpt2", dict(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)),
    ],
)  # fmt: skip
def test_pefts_adapters_are_read(wearing, tmp_path, family, options):
    _, model = wearing(family, **options)
    model.save_pretrained(tmp_path)
    for read in (
        from_peft(tmp_path, name="a"),
        from_peft(model.state_dict(), name="a", config=model.peft_config["default"]),
    ):
        assert read.name == "a"
        for name, part in read.factors.items():
            torch.testing.assert_close(part.delta.float(), own_delta(model, name))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(use_dora=True), "use_dora=True"),
        (dict(bias="all"), "trains biases"),
        (dict(modules_to_save=["lm_head"]), "modules_to_save"),
        (dict(target_modules=["q_proj", "embed_tokens"]), "lora_embedding_A"),
        (dict(lora_bias=True), "lora_bias"),
        (dict(init_lora_weights="pissa"), "pissa"),
    ],
)
def test_adapters_of_another_algebra_are_refused(wearing, tmp_path, options, says):
    _, model = wearing(**{"target_modules": ["q_proj"], **options})
    model.save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match=says):
        from_peft(tmp_path, name="a")


def test_several_adapters_in_one_state_are_refused(wearing):
    _, model = wearing(target_modules=["q_proj"])
    model.add_adapter("second", model.peft_config["default"])
    with pytest.raises(AdapterError, match="default, second"):
        from_peft(model.state_dict(), name="a", config=model.peft_config["default"])
    with pytest.raises(AdapterError, match="alpha"):
        from_peft(model.state_dict(), name="a")


def test_damaged_adapters_are_refused(wearing, tmp_path):
    _, model = wearing(target_modules=["q_proj"])
    with pytest.raises(AdapterError, match="No adapter_model"):
        from_peft(tmp_path, name="a")
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(next(key for key in tensors if "lora_B" in key))
    save_file(tensors, path)
    with pytest.raises(AdapterError, match="only lora_A"):
        from_peft(tmp_path, name="a")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(AdapterError, match="damaged"):
        from_peft(tmp_path, name="a")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    save_file(tensors, path)
    with pytest.raises(AdapterError, match="IA3"):
        from_peft(tmp_path, name="a")
