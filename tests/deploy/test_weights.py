"""Adapters leave the house: as one PEFT adapter, or in a checkpoint's weights; never otherwise."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.deploy.cases import model
from tests.lm.adapters import linear_modules, merged, mixture
from tests.lm.reference import TARGET
from tests.lm.tiny import PROMPTS, tiny_lm
from valign.control import Adapter, LowRank, WeightsControl, from_peft
from valign.control.merging import ties
from valign.deploy import NAMES, ExportError, export
from valign.deploy.card import card
from valign.lm import UnsupportedSiteError, generate

ASKED = PROMPTS[:2]
FAMILIES = ("llama", "qwen2", "mistral", "gemma", "gpt2", "opt", "phi3")


def logits(host, lm):
    ids = torch.tensor([lm.encode_prompt(PROMPTS[2])])
    with torch.no_grad():
        return host(input_ids=ids).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_one_peft_adapter_reproduces_the_mixture(family, tmp_path):
    peft = pytest.importorskip("peft")
    lm = model(family)
    control = mixture(lm, a=0.4, b=-0.3, c=1.5)
    found = export(lm, control, to="peft", out=tmp_path / "out", prompts=ASKED, tokens=4)
    assert found.holds and found.effect > 1e-2
    worn = peft.PeftModel.from_pretrained(copy.deepcopy(lm.model), tmp_path / "out").eval()
    wanted = logits(merged(lm, control).model, lm)
    torch.testing.assert_close(logits(worn, lm), wanted, rtol=1e-3, atol=1e-3)
    back = from_peft(tmp_path / "out", name="back")
    for name in control.modules:
        torch.testing.assert_close(
            back.factors[name].delta, control.delta(name), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_reproduces_the_mixture(family, tmp_path):
    lm = model(family)
    control = mixture(lm, a=0.4, b=-0.3, c=1.5)
    assert export(lm, control, to="folded", out=tmp_path / "out", prompts=ASKED, tokens=4).holds
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert type(read) is type(lm.model)
    wanted = logits(merged(lm, control).model, lm)
    torch.testing.assert_close(logits(read, lm), wanted, rtol=1e-3, atol=1e-3)


def test_what_vllm_asks_of_an_adapter(tmp_path):
    pytest.importorskip("peft")
    lm = model("llama")
    control = mixture(lm, a=0.4, b=1.5)
    export(lm, control, to="peft", out=tmp_path / "out", prompts=ASKED)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["bias"] == "none"
    assert config["r"] == config["lora_alpha"] == 3  # ranks 1 and 2 side by side
    assert not any(config.get(k) for k in ("use_dora", "use_rslora", "lora_bias",
                                           "modules_to_save", "rank_pattern"))  # fmt: skip
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    for name, tensor in tensors.items():
        assert name.startswith("base_model.model.model.layers.")
        assert name.endswith((".lora_A.weight", ".lora_B.weight")) and 3 in tensor.shape


def test_adapters_that_are_off_cost_no_rank(tmp_path):
    pytest.importorskip("peft")
    lm = model("llama")
    export(lm, mixture(lm, a=1.0, b=0.0), to="peft", out=tmp_path / "out", prompts=ASKED)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 1


@pytest.mark.parametrize("to", ["peft", "folded"])
def test_merges_of_full_rank_are_exported(to, tmp_path):
    pytest.importorskip("peft")
    lm = model("llama")
    control = ties(mixture(lm, a=1.0, b=1.0), density=0.3)
    assert export(lm, control, to=to, out=tmp_path / "out", prompts=ASKED, tokens=4).holds


@pytest.mark.parametrize("to", [name for name in NAMES if name not in ("peft", "folded")])
def test_other_formats_are_refused(to, tmp_path):
    lm = model("llama")
    with pytest.raises(ExportError, match=f"made of adapters, which {to} does not hold.*peft"):
        export(lm, mixture(lm, a=1.0), to=to, out=tmp_path / "out", prompts=ASKED)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["peft", "folded"])
def test_adapters_of_another_model_are_refused(to, tmp_path):
    control = mixture(model("gpt2"), a=1.0)
    with pytest.raises(UnsupportedSiteError, match="no such module"):
        export(model("llama"), control, to=to, out=tmp_path / "out", prompts=ASKED)


def test_shared_weights_are_not_folded(tmp_path):
    lm = tiny_lm("llama", tie_word_embeddings=True)
    head = Adapter("a", {"lm_head": LowRank(torch.ones(1, 32) * 0.1, torch.randn(96, 1))})
    control = WeightsControl(target=TARGET, adapters=(head,), weights={"a": 1.0})
    with pytest.raises(ExportError, match=r"lm_head shares its weights.*peft"):
        export(lm, control, to="folded", out=tmp_path / "out", prompts=ASKED)
    wanted = generate(merged_head(lm, head), ASKED, max_new_tokens=4).token_ids
    assert generate(lm, ASKED, control, max_new_tokens=4).token_ids == wanted


def merged_head(lm, adapter):
    """A copy whose head is untied and carries the change."""
    other = copy.deepcopy(lm)
    other.model.lm_head.weight = torch.nn.Parameter(
        other.model.lm_head.weight.detach() + adapter.factors["lm_head"].delta.float()
    )
    return other


def test_the_card_names_adapters_and_weights():
    lm = model("llama")
    control = mixture(lm, a=0.4, b=-1.5)
    assert f"| b | {len(linear_modules(lm))} | -1.5 |" in card(control)
